package gardenlinux_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout/consumer"
	"github.com/gardenlinux/gloci-layout/layout/gardenlinux"
	"github.com/gardenlinux/gloci-layout/layout/lint"
	"github.com/gardenlinux/gloci-layout/layout/sourcetest"
)

// published makes what publishing leaves: entries with an annotation cname.
type published struct{ *sourcetest.Memory }

// flavor stores a manifest with layers of these types, and returns its entry.
func (p published) flavor(base string, mediaTypes ...string) ocispec.Descriptor {
	n, err := gardenlinux.ParseName(base)
	if err != nil {
		panic(err)
	}
	var layers []ocispec.Descriptor
	for i, t := range mediaTypes {
		layers = append(layers, p.Put(t, strings.Repeat("x", i)+base+t))
	}
	desc := p.JSON(sourcetest.TypeManifest, map[string]any{
		"schemaVersion": 2, "mediaType": sourcetest.TypeManifest, "config": p.Put(sourcetest.TypeUnknownConfig, "{}"), "layers": layers,
		"annotations": map[string]string{"cname": base, "architecture": n.Arch, "version": n.Version},
	})
	desc = sourcetest.With(sourcetest.With(desc, "cname", base), "architecture", n.Arch)
	desc.Platform = &ocispec.Platform{OS: "gardenlinux", Architecture: n.Arch, OSVersion: n.Version}
	return desc
}

const (
	glType  = "application/io.gardenlinux."
	uki     = glType + "uki"
	kernel  = glType + "kernel"
	initrd  = glType + "initrd"
	squash  = glType + "squashfs"
	raw     = glType + "image.archive.format.raw"
	release = glType + "release"
)

// sign adds what cosign makes for d, though nobody has the key.
func (p published) sign(d, says digest.Digest) {
	payload := p.Put("application/vnd.dev.cosign.simplesigning.v1+json",
		`{"critical":{"image":{"docker-manifest-digest":"`+string(says)+`"}}}`)
	p.Name("sha256-"+d.Encoded()+".sig", p.Artifact(sourcetest.With(payload, "dev.cosignproject.cosign/signature", "AAAA")))
}

func TestUpdate(t *testing.T) {
	p := published{sourcetest.NewMemory(t)}
	aws := p.flavor("aws-gardener_prod-amd64-2150.1.0-abc12345", release, raw)
	usi := p.flavor("aws-gardener_prod_usi-amd64-2150.1.0-abc12345", release, uki, uki)
	arm := p.flavor("aws-gardener_prod_usi-arm64-2150.1.0-abc12345", release, uki)
	bare := p.flavor("kvm_usi-amd64-2150.1.0-abc12345", uki)
	bare.Platform.OSVersion = ""
	other := p.flavor("gcp_usi-amd64-2150.1.0-abc12345", uki)
	gone := p.flavor("azure_usi-amd64-2150.1.0-abc12345", uki)
	p.Delete(gone.Digest)
	root := p.ImageIndex(p.On(p.Image("c", "linux/amd64"), "linux/amd64"), aws, usi, arm, bare, other, gone)
	p.sign(usi.Digest, usi.Digest)
	p.sign(other.Digest, usi.Digest)
	p.sign(gone.Digest, gone.Digest)

	for _, test := range []struct {
		update gardenlinux.Update
		root   ocispec.Descriptor
		kind   consumer.FailureKind
		says   string
		taken  digest.Digest
	}{
		{gardenlinux.Update{CName: "aws-gardener_prod_usi-amd64"}, root, "", "", usi.Digest},
		{gardenlinux.Update{CName: "aws-gardener_prod_usi"}, root, "", "", usi.Digest},
		{gardenlinux.Update{CName: "aws-gardener_prod_usi-arm64"}, root, consumer.FailSignature, ".sig: not found", ""},
		{gardenlinux.Update{CName: "aws-gardener_prod_usi-arm64", Unsigned: true}, root, "", "", arm.Digest},
		{gardenlinux.Update{CName: "aws-gardener_prod", Unsigned: true}, root, consumer.FailLayer, "no layer found for media type " + uki, ""},
		{gardenlinux.Update{CName: "aws-gardener_prod", MediaType: raw, Unsigned: true}, root, "", "", aws.Digest},
		{gardenlinux.Update{CName: "kvm"}, root, consumer.FailDocument, "platform.os.version is empty", ""},
		{gardenlinux.Update{CName: "gcp"}, root, consumer.FailSignature, "is not equal to the digest that is in the signed message", ""},
		{gardenlinux.Update{CName: "azure"}, root, consumer.FailDocument, "not found", ""},
		{gardenlinux.Update{CName: "metal"}, root, consumer.FailName, "no manifest found for cname metal", ""},
		{gardenlinux.Update{CName: "aws"}, usi, consumer.FailName, "no manifest found for cname aws", ""}, // no index
	} {
		o, err := test.update.Take(t.Context(), p, test.root, consumer.Ask{})
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case test.kind == "" && (o.Failure != nil || o.Desc.Digest != test.taken || len(o.Layers) != 1):
			t.Errorf("%+v = %+v, %+v, want %s", test.update, o, o.Failure, test.taken)
		case test.kind != "" && (o.Failure == nil || o.Failure.Kind != test.kind || !strings.Contains(o.Failure.Message, test.says)):
			t.Errorf("%+v = %+v, want %s: %s", test.update, o.Failure, test.kind, test.says)
		}
	}
	// The first of two layers of the type.
	o, err := gardenlinux.Update{CName: "aws-gardener_prod_usi"}.Take(t.Context(), p, root, consumer.Ask{})
	if err != nil || o.Layers[0].Digest != digest.FromString("xaws-gardener_prod_usi-amd64-2150.1.0-abc12345"+uki) {
		t.Errorf("layers = %+v, %v", o.Layers, err)
	}
}

func TestBootOperator(t *testing.T) {
	p := published{sourcetest.NewMemory(t)}
	image := p.Image("c", "linux/amd64")
	pxe := p.flavor("metal_pxe-amd64-2150.1.0-abc12345", release, kernel, initrd, squash, kernel)
	renamed := p.flavor("baremetal_pxe-amd64-2150.1.0-abc12345", kernel, initrd, squash)
	half := p.flavor("metal_pxe-arm64-2150.1.0-abc12345", kernel, initrd)
	ironcore := p.Artifact(p.Put("application/vnd.ironcore.image.kernel", "k"), p.Put("application/vnd.ironcore.image.initramfs", "i"),
		p.Put("application/vnd.ironcore.image.squashfs", "s"), p.Put("application/vnd.ironcore.image.uki", "u"))
	usi := p.flavor("kvm_usi-amd64-2150.1.0-abc12345", uki)
	amd, arm := consumer.Ask{Platform: p.Platform("linux/amd64")}, consumer.Ask{Host: *p.Platform("linux/arm64")}

	for _, test := range []struct {
		name   string
		boot   gardenlinux.BootOperator
		root   ocispec.Descriptor
		ask    consumer.Ask
		kind   consumer.FailureKind
		says   string
		taken  digest.Digest
		layers int
	}{
		{"by cname", gardenlinux.BootOperator{}, p.ImageIndex(p.On(image, "linux/amd64"), renamed, pxe), amd, "", "", pxe.Digest, 3},
		{"renamed: the container", gardenlinux.BootOperator{}, p.ImageIndex(p.On(image, "linux/amd64"), renamed), amd, consumer.FailSilent, "no kernelURL, no initrdURL, no squashfsURL", image.Digest, 0},
		{"with another prefix", gardenlinux.BootOperator{CName: "baremetal_pxe"}, p.ImageIndex(p.On(image, "linux/amd64"), renamed), amd, "", "", renamed.Digest, 3},
		{"the architecture, any os", gardenlinux.BootOperator{}, p.ImageIndex(p.On(ironcore, "windows/amd64")), amd, "", "", ironcore.Digest, 3},
		{"no squashfs", gardenlinux.BootOperator{}, p.ImageIndex(half), arm, consumer.FailSilent, "gets no squashfsURL", half.Digest, 2},
		{"no architecture", gardenlinux.BootOperator{}, p.ImageIndex(pxe), arm, consumer.FailPlatform, "failed to find target manifest with architecture arm64", "", 0},
		{"a manifest", gardenlinux.BootOperator{}, renamed, arm, "", "", renamed.Digest, 3},
		{"a Docker list is no index", gardenlinux.BootOperator{}, p.JSON("application/vnd.docker.distribution.manifest.list.v2+json", map[string]any{"schemaVersion": 2, "manifests": []any{pxe}}), amd, consumer.FailSilent, "no kernelURL", "", 0},
		{"http", gardenlinux.BootOperator{HTTP: true}, p.ImageIndex(p.On(ironcore, "linux/amd64")), amd, "", "", ironcore.Digest, 1},
		{"http knows no cname", gardenlinux.BootOperator{HTTP: true, CName: "kvm"}, p.ImageIndex(p.On(image, "linux/amd64"), usi), amd, consumer.FailLayer, "UKI layer digest not found", image.Digest, 0},
		{"http and Garden Linux", gardenlinux.BootOperator{HTTP: true}, p.ImageIndex(usi), amd, consumer.FailLayer, "UKI layer digest not found", usi.Digest, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			o, err := test.boot.Take(t.Context(), p, test.root, test.ask)
			switch {
			case err != nil:
				t.Fatal(err)
			case (o.Failure == nil) != (test.kind == ""), o.Failure != nil && (o.Failure.Kind != test.kind || !strings.Contains(o.Failure.Message, test.says)):
				t.Errorf("failure = %+v, want %s: %s", o.Failure, test.kind, test.says)
			case test.taken != "" && o.Desc.Digest != test.taken, len(o.Layers) != test.layers:
				t.Errorf("took %s (%s) with %d layers, want %s with %d", o.Desc.Digest, o.Why, len(o.Layers), test.taken, test.layers)
			}
		})
	}
	// The last of two kernels.
	o, err := gardenlinux.BootOperator{}.Take(t.Context(), p, pxe, amd)
	if err != nil || o.Layers[0].Digest != digest.FromString("xxxxmetal_pxe-amd64-2150.1.0-abc12345"+kernel) {
		t.Errorf("layers = %+v, %v", o.Layers, err)
	}
}

func TestLintRules(t *testing.T) {
	for _, test := range []struct {
		name string
		make func(p published) []ocispec.Descriptor
		want []string // "severity rule: part of why"
	}{
		{"sound", func(p published) []ocispec.Descriptor {
			return []ocispec.Descriptor{
				p.flavor("aws-gardener_prod_usi-amd64-2150.1.0-abc12345", release, raw, uki), p.flavor("aws-gardener_prod-amd64-2150.1.0-abc12345", release, raw),
				p.flavor("metal_pxe-amd64-2150.1.0-abc12345", release, kernel, initrd, squash),
			}
		}, []string{"warning update-prefix: a machine that calls itself aws-gardener_prod gets aws-gardener_prod_usi-amd64-2150.1.0-abc12345"}},
		{"no kernel", func(p published) []ocispec.Descriptor {
			return []ocispec.Descriptor{p.flavor("metal_pxe-amd64-1877.1-abc12345", release)}
		}, []string{
			"error missing-layers: metal_pxe-amd64-1877.1-abc12345 has no layer initrd, squashfs, vmlinuz",
			"warning boot-fallback: boot-operator for amd64: no error, but the IPXEBootConfig gets no kernelURL",
		}},
		{"no os.version", func(p published) []ocispec.Descriptor {
			e := p.flavor("kvm_usi-amd64-2150.1.0-abc12345", release, raw, uki)
			e.Platform.OSVersion = ""
			return []ocispec.Descriptor{e}
		}, []string{
			"error no-os-version: the entry of kvm_usi-amd64-2150.1.0-abc12345",
			"error update-fails: gardenlinux-update of kvm_usi-amd64: index entry matched cname but platform.os.version is empty",
		}},
		{"a cname without an architecture", func(p published) []ocispec.Descriptor {
			e := p.flavor("kvm-amd64-2150.1.0-abc12345", release, raw)
			return []ocispec.Descriptor{sourcetest.With(e, "cname", "kvm")}
		}, nil},
		{"an older version first", func(p published) []ocispec.Descriptor {
			return []ocispec.Descriptor{p.flavor("kvm-amd64-1999.12.0-abc12345", release, raw), p.flavor("kvm-amd64-2150.1.0-abc12345", release, raw)}
		}, []string{"warning stale-flavor: kvm-amd64-1999.12.0-abc12345 and kvm-amd64-2150.1.0-abc12345"}},
		{"an older version last", func(p published) []ocispec.Descriptor {
			return []ocispec.Descriptor{p.flavor("kvm-amd64-1000.0-abc12345", release, raw), p.flavor("kvm-amd64-999.1-abc12345", release, raw)}
		}, []string{"warning stale-flavor: kvm-amd64-1000.0-abc12345 and kvm-amd64-999.1-abc12345"}},
		{"main is newer than all", func(p published) []ocispec.Descriptor {
			return []ocispec.Descriptor{p.flavor("kvm-amd64-today-abc12345", release, raw), p.flavor("kvm-amd64-2150.1.0-abc12345", release, raw)}
		}, []string{"warning stale-flavor: kvm-amd64-today-abc12345 and kvm-amd64-2150.1.0-abc12345"}},
		{"renamed PXE", func(p published) []ocispec.Descriptor {
			return []ocispec.Descriptor{p.On(p.Image("c", "linux/amd64"), "linux/amd64"), p.flavor("baremetal_pxe-amd64-2150.1.0-abc12345", release, kernel, initrd, squash)}
		}, []string{"warning boot-fallback: boot-operator for amd64: no error, but the IPXEBootConfig gets no kernelURL"}},
		{"the platform from the features", func(p published) []ocispec.Descriptor {
			desc := p.JSON(sourcetest.TypeManifest, map[string]any{
				"schemaVersion": 2, "mediaType": sourcetest.TypeManifest, "config": p.Put(sourcetest.TypeUnknownConfig, "{}"), "layers": []any{p.Put(release, "x")},
				"annotations": map[string]string{"cname": "odd-amd64-2150.1.0-abc12345", "feature_set": `"_slim,base,azure"`},
			})
			desc.Platform = &ocispec.Platform{OS: "gardenlinux", Architecture: "amd64", OSVersion: "2150.1.0"}
			return []ocispec.Descriptor{desc}
		}, []string{"error missing-layers: odd-amd64-2150.1.0-abc12345 has no layer vhd"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := published{sourcetest.NewMemory(t)}
			entries := test.make(p)
			p.Name("2150.1.0", p.ImageIndex(entries...))
			tree, err := lint.Load(t.Context(), p, "", "", nil)
			if err != nil {
				t.Fatal(err)
			}
			findings, err := lint.Run(t.Context(), tree, gardenlinux.LintRules())
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range findings {
				line := string(f.Severity) + " " + f.Rule + ": " + f.Why
				i := slices.IndexFunc(test.want, func(w string) bool { return strings.HasPrefix(line, w) })
				if i < 0 {
					t.Errorf("unexpected %s", line)
					continue
				}
				test.want = slices.Delete(test.want, i, i+1)
				// The cure takes out the older one, wherever it stands.
				if f.Rule == "stale-flavor" {
					stale := entries[0].Digest
					if test.name != "an older version first" {
						stale = entries[1].Digest
					}
					if f.Path[1] != stale || !strings.Contains(f.Cure, string(stale)) {
						t.Errorf("stale is %s (%s), want %s", f.Path[1], f.Cure, stale)
					}
				}
				if f.Cure == "" || len(f.Path) != 2 || f.RefNames[0] != "2150.1.0" {
					t.Errorf("finding = %+v", f)
				}
			}
			if len(test.want) > 0 {
				t.Errorf("missing: %q", test.want)
			}
		})
	}
}
