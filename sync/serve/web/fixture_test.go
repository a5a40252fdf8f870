package web_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/consumer"
	"github.com/gardenlinux/gloci-layout/layout/extract/extracttest"
	"github.com/gardenlinux/gloci-layout/layout/gardenlinux"
	"github.com/gardenlinux/gloci-layout/layout/lint"
	"github.com/gardenlinux/gloci-layout/layout/sourcetest"
	"github.com/gardenlinux/gloci-layout/sync/serve/web"
)

// knowledge is what the program tells the pages.
func knowledge() web.Knowledge {
	return web.Knowledge{
		Flavor: func(desc ocispec.Descriptor, doc *layout.Document) (web.Flavor, bool) {
			n, features := gardenlinux.NameOf(desc, doc)
			return web.Flavor{Name: n.CName, Arch: n.Arch, Version: n.Version, Features: features}, n.CName != ""
		},
		Rules:     append(lint.Rules(), gardenlinux.LintRules()...),
		Consumers: append(consumer.Standard(), gardenlinux.BootOperator{}),
	}
}

// start serves sources by name.
func start(t testing.TB, repos ...web.Repository) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(web.New(web.Options{Knowledge: knowledge(), Repositories: func(context.Context) []web.Repository { return repos }}))
	t.Cleanup(server.Close)
	return server
}

// A garden makes releases like those of Garden Linux.
type garden struct {
	*sourcetest.Memory
	t testing.TB
}

// gardenFlavors are names with the architectures that they are built for, and
// the format of their disks.
var gardenFlavors = []struct {
	cname, disk string
	arm         bool
	size        int64 // MiB of the disk
}{
	{"ali-gardener_prod", "qcow2", false, 871},
	{"aws-gardener_prod", "raw", true, 1230},
	{"aws-gardener_prod_trustedboot_tpm2", "raw uki", true, 1242},
	{"azure-gardener_prod", "vhd", true, 1190},
	{"container", "oci", true, 0},
	{"gcp-gardener_prod", "gcpimage.tar.gz", true, 640},
	{"kvm-gardener_prod", "qcow2 raw", true, 905},
	{"metal-gardener_prod", "raw", true, 1310},
	{"metal_pxe", "pxe.tar.gz root.squashfs", true, 0},
	{"openstack-gardener_prod", "qcow2", true, 912},
	{"openstackbaremetal-gardener_prod", "qcow2", false, 1015},
	{"vmware-gardener_prod", "ova", false, 884},
}

// file is a layer with a title; size, if it is not 0, is said and not true.
func (g *garden) file(base, suffix, arch, content string, size int64) ocispec.Descriptor {
	mediaType, _ := gardenlinux.MediaType(base + "." + suffix)
	desc := g.Put(cmp.Or(mediaType, "application/octet-stream"), content)
	if size > 0 {
		desc.Size = size
	}
	desc = sourcetest.With(desc, "org.opencontainers.image.title", base+"."+suffix)
	return sourcetest.With(desc, "io.gardenlinux.image.layer.architecture", arch)
}

// document stores a manifest with annotations and a subject.
func (g *garden) document(artifactType string, annotations map[string]string, subject *ocispec.Descriptor, config ocispec.Descriptor, layers ...ocispec.Descriptor) ocispec.Descriptor {
	v := map[string]any{"schemaVersion": 2, "mediaType": sourcetest.TypeManifest, "config": config, "layers": append([]ocispec.Descriptor{}, layers...)}
	if artifactType != "" {
		v["artifactType"] = artifactType
	}
	if annotations != nil {
		v["annotations"] = annotations
	}
	if subject != nil {
		v["subject"] = ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size}
	}
	return g.JSON(sourcetest.TypeManifest, v)
}

func rootfs(version, arch string) []byte {
	files := []extracttest.Entry{
		extracttest.Dir("etc/"),
		extracttest.File("etc/os-release", "ID=gardenlinux\nGARDENLINUX_VERSION="+version+"\n"),
		extracttest.Symlink("etc/mtab", "../proc/self/mounts"),
		extracttest.Dir("usr/bin/"),
	}
	for _, name := range []string{"bash", "ls", "systemctl", "containerd", "kubelet"} {
		files = append(files, extracttest.File("usr/bin/"+name, strings.Repeat(name+arch, 40)))
	}
	files = append(files, extracttest.File("var/lib/dpkg/status", "Package: linux-image\nStatus: install ok installed\nArchitecture: "+arch+"\nVersion: "+version+"-1\n"))
	return extracttest.Gzip(extracttest.Tar(files...))
}

// flavor stores the artifact manifest of one flavor, and returns its entry.
func (g *garden) flavor(i int, version, arch, commit string) ocispec.Descriptor {
	f := gardenFlavors[i]
	base := f.cname + "-" + arch + "-" + version + "-" + commit
	layers := []ocispec.Descriptor{
		g.file(base, "vmlinuz", arch, "kernel of "+arch+version, 13<<20),
		g.file(base, "initrd", arch, "initrd of "+base, 41<<20+int64(i)<<18),
		g.file(base, "tar.gz", arch, string(rootfs(version, arch)), 0),
		g.file(base, "release", arch, "ID=gardenlinux\nGARDENLINUX_CNAME="+base+"\n", 0),
		g.file(base, "manifest", arch, "linux-image "+version+"\nsystemd 257\n", 0),
		g.file(base, "sbom", arch, `{"bomFormat":"CycloneDX"}`, 0),
	}
	for _, disk := range strings.Fields(f.disk) {
		size := map[string]int64{"pxe.tar.gz": 330, "root.squashfs": 412, "oci": 48, "uki": 61}[disk]
		layers = append([]ocispec.Descriptor{g.file(base, disk, arch, disk+" of "+base, cmp.Or(size, f.size)<<20)}, layers...)
	}
	features, _ := gardenlinux.DecodeCName(f.cname)
	set := strings.Join(append(features, "base", "log", "ssh", "server"), ",")
	annotations := map[string]string{
		"cname": base, "architecture": arch, "version": version, "commit": commit, "feature_set": set,
		"org.opencontainers.image.title": "Garden Linux", "org.opencontainers.image.source": "https://github.com/gardenlinux/gardenlinux",
	}
	config := g.Put(sourcetest.TypeUnknownConfig, "{}")
	desc := g.document("", annotations, nil, config, layers...)
	desc.Annotations = map[string]string{"cname": base, "architecture": arch, "feature_set": set}
	desc.Platform = &ocispec.Platform{OS: "gardenlinux", Architecture: arch, OSVersion: version}
	return desc
}

// image stores the container image of a version.
func (g *garden) image(version, arch string) ocispec.Descriptor {
	layer := g.Put(sourcetest.TypeLayer, string(rootfs(version, arch)))
	config := g.JSON(sourcetest.TypeConfig, map[string]any{
		"architecture": arch, "os": "linux", "config": map[string]any{"Cmd": []string{"/bin/bash"}, "Labels": map[string]string{"version": version}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{string(digest.FromString(version + arch))}},
	})
	return g.On(g.Manifest(config, layer), "linux/"+arch)
}

// release stores a version with so many flavors, signed where it says.
func (g *garden) release(version, commit string, flavors int, signed bool) ocispec.Descriptor {
	entries := []ocispec.Descriptor{g.image(version, "amd64"), g.image(version, "arm64")}
	for i, f := range gardenFlavors[:flavors] {
		for _, arch := range []string{"amd64", "arm64"} {
			if arch == "amd64" || f.arm {
				entries = append(entries, g.flavor(i, version, arch, commit))
			}
		}
	}
	index := g.ImageIndex(entries...)
	g.Name(version, index)
	if signed {
		empty := g.Put("application/vnd.oci.empty.v1+json", "{}")
		for _, e := range append([]ocispec.Descriptor{index}, entries...) {
			sig := g.Put("application/vnd.dev.cosign.simplesigning.v1+json", `{"critical":{"image":{"docker-manifest-digest":"`+string(e.Digest)+`"}}}`)
			g.Name("", g.document("application/vnd.dev.cosign.artifact.sig.v1+json", nil, &e, empty, sig))
		}
		for _, e := range entries[:2] {
			g.Name("", g.document("application/vnd.cyclonedx+json", nil, &e, empty, g.Put("application/vnd.cyclonedx+json", `{"bomFormat":"CycloneDX","version":"`+string(e.Digest[:12])+`"}`)))
		}
	}
	return index
}

// newGarden is the layout of the tests and of the pictures in docs.
func newGarden(t testing.TB) *garden {
	g := &garden{sourcetest.NewMemory(t), t}
	g.release("1877.9", "1f0e9c2b", 8, true)
	g.release("2150.0.0", "5b4a1c0d", 11, true)
	g.release("2150.1.0", "9d2e7f31", 12, true)
	g.Name("tools", g.Image("tools", "linux/amd64"))
	return g
}

// newLarge has n manifests below one index.
func newLarge(t testing.TB, n int) *garden {
	g := &garden{sourcetest.NewMemory(t), t}
	var entries []ocispec.Descriptor
	config := g.Put(sourcetest.TypeUnknownConfig, "{}")
	for i := range n {
		arch := []string{"amd64", "arm64"}[i%2]
		base := fmt.Sprintf("kvm-flavor%d_prod-%s-2150.1.0-9d2e7f31", i/2, arch)
		var layers []ocispec.Descriptor
		for _, suffix := range []string{"raw", "vmlinuz", "initrd", "tar.gz", "release", "manifest", "sbom", "log"} {
			layers = append(layers, g.file(base, suffix, arch, suffix+base, 0))
		}
		layers = append(layers, g.file(base, "cmdline", arch, "console=ttyS0", 0))
		annotations := map[string]string{"cname": base, "architecture": arch, "feature_set": "kvm,base,server"}
		desc := g.document("", annotations, nil, config, layers...)
		desc.Annotations = annotations
		desc.Platform = &ocispec.Platform{OS: "gardenlinux", Architecture: arch, OSVersion: "2150.1.0"}
		entries = append(entries, desc)
	}
	g.Name("2150.1.0", g.ImageIndex(entries...))
	return g
}

// hostileTexts are what no page may run or be fooled by.
var hostileTexts = []string{
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `javascript:alert(1)`, `</script></style></title><svg onload=alert(1)>`,
	`' onmouseover='alert(1)`, "left\u202etfel", "zero\u200bwidth", "bell\a nul\x00 line\nend", `</noscript><img src=x onerror=alert(1)>`, `{{.}}`, `${alert(1)}`, "\u2028x", "]]>", "<!--",
}

// newHostile has them in every place that takes text.
func newHostile(t testing.TB, texts []string) *garden {
	g := &garden{sourcetest.NewMemory(t), t}
	var entries []ocispec.Descriptor
	for i, text := range texts {
		config := g.JSON("application/vnd.x+json", map[string]any{text: text})
		layer := g.Put(text, "content")
		layer = sourcetest.With(sourcetest.With(layer, "org.opencontainers.image.title", text), text, text)
		archive := g.Put(extracttest.ImageTar, string(extracttest.Tar(extracttest.File(strings.ReplaceAll(text, "\x00", ""), "x"), extracttest.Symlink("l", strings.ReplaceAll(text, "\x00", "")))))
		archive = sourcetest.With(archive, "org.opencontainers.image.title", text)
		annotations := map[string]string{text: text, "org.opencontainers.image.title": text, "cname": text, "feature_set": text, "url": "javascript:alert(1)"}
		desc := g.document(text, annotations, nil, config, layer, archive)
		desc.Annotations = annotations
		desc.Platform = &ocispec.Platform{OS: text, Architecture: text, Variant: text}
		desc.ArtifactType = text
		entries = append(entries, desc)
		g.Name(text, desc)
		g.Name(fmt.Sprintf("v%d", i), g.ImageIndex(desc))
		g.Name("", g.document(text, annotations, &desc, config, layer))
	}
	g.Name("all", sourcetest.With(g.ImageIndex(entries...), texts[0], texts[0]))
	return g
}

// A counter counts the blobs that are read.
type counter struct {
	*garden
	mu    sync.Mutex
	blobs int
}

func (c *counter) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	c.mu.Lock()
	c.blobs++
	c.mu.Unlock()
	return c.garden.Blob(ctx, desc)
}
