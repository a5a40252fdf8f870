package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// This file makes artifacts as other tools make them, small but with their
// media types, annotations and order.

type notes = map[string]string

// A maker stages artifacts into one layout.
type maker struct {
	t   testing.TB
	ctx context.Context //nolint:containedctx // of the test
	dir string
	s   *layout.Stage
	// refs are entries of index.json; "" names none.
	refs []ocispec.Descriptor
}

// make fills the layout dir by calling fill.
func makeArtifacts(t testing.TB, dir string, fill func(m *maker)) {
	t.Helper()
	ctx := t.Context()
	l, err := layout.Open(ctx, dir, nil)
	if errors.Is(err, layout.ErrNotFound) {
		l, err = layout.Create(ctx, dir, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := l.Stage(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m := &maker{t: t, ctx: ctx, dir: dir, s: s}
	fill(m)
	if err := s.Update(ctx, func(tx *layout.Tx) error {
		for _, desc := range m.refs {
			tx.Index().Add(desc)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func (m *maker) blob(mediaType, content string, annotations notes) ocispec.Descriptor {
	m.t.Helper()
	desc, err := m.s.AddBytes(m.ctx, []byte(content), mediaType)
	if err != nil {
		m.t.Fatal(err)
	}
	desc.Annotations = annotations
	return desc
}

// document stages v as JSON.
func (m *maker) document(mediaType string, v any) ocispec.Descriptor {
	m.t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		m.t.Fatal(err)
	}
	return m.blob(mediaType, string(raw), nil)
}

func (m *maker) manifest(man ocispec.Manifest) ocispec.Descriptor {
	m.t.Helper()
	man.SchemaVersion = 2
	if man.MediaType == "" {
		man.MediaType = ocispec.MediaTypeImageManifest
	}
	return m.document(man.MediaType, man)
}

func (m *maker) index(entries ...ocispec.Descriptor) ocispec.Descriptor {
	return m.indexOf(ocispec.MediaTypeImageIndex, entries...)
}

func (m *maker) indexOf(mediaType string, entries ...ocispec.Descriptor) ocispec.Descriptor {
	m.t.Helper()
	x := ocispec.Index{MediaType: mediaType, Manifests: entries}
	x.SchemaVersion = 2
	return m.document(mediaType, x)
}

// ref names desc in index.json.
func (m *maker) ref(name string, desc ocispec.Descriptor) {
	if name != "" {
		with := notes{ocispec.AnnotationRefName: name}
		for k, v := range desc.Annotations {
			with[k] = v
		}
		desc.Annotations = with
	}
	m.refs = append(m.refs, desc)
}

func at(desc ocispec.Descriptor, platform string, annotations notes) ocispec.Descriptor {
	if platform != "" {
		p, err := layout.ParsePlatform(platform)
		if err != nil {
			panic(err)
		}
		desc.Platform = p
	}
	if annotations != nil {
		desc.Annotations = annotations
	}
	return desc
}

// tgz is a gzip-compressed tar archive of files, NAME and CONTENT in turn.
func tgz(t testing.TB, files ...string) string {
	t.Helper()
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	tw := tar.NewWriter(zw)
	for i := 0; i+1 < len(files); i += 2 {
		h := &tar.Header{Name: files[i], Mode: 0o644, Size: int64(len(files[i+1])), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		if strings.HasSuffix(files[i], "/") {
			h.Typeflag, h.Mode, h.Size = tar.TypeDir, 0o755, 0
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(files[i+1])[:h.Size]); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tw.Close(), zw.Close()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// image is a container image of one layer that holds the file etc/NAME.
func (m *maker) image(arch, name string) ocispec.Descriptor {
	m.t.Helper()
	layer := tgz(m.t, "etc/", "", "etc/"+name, name+" on "+arch+"\n")
	config := m.blob(ocispec.MediaTypeImageConfig, imageConfig(m.t, arch, layer), nil)
	return m.manifest(ocispec.Manifest{Config: config, Layers: []ocispec.Descriptor{m.blob(ocispec.MediaTypeImageLayerGzip, layer, nil)}})
}

// imageConfig is the config of an image with one layer, compressed by gzip.
func imageConfig(t testing.TB, arch, layer string) string {
	t.Helper()
	zr, err := gzip.NewReader(strings.NewReader(layer))
	if err != nil {
		t.Fatal(err)
	}
	diffID, err := digest.FromReader(zr)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`{"architecture":%q,"os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[%q]}}`, arch, diffID)
}

// timoni is a module as "timoni mod push" makes it: two layers of one type that
// annotations tell apart.
func (m *maker) timoni() ocispec.Descriptor {
	const content, kind = "application/vnd.timoni.content.v1.tar+gzip", "sh.timoni.content.type"
	return m.manifest(ocispec.Manifest{
		Config: m.blob("application/vnd.timoni.config.v1+json", `{"created":"2023-09-28T23:58:44Z"}`, nil),
		Layers: []ocispec.Descriptor{
			m.blob(content, tgz(m.t, "cue.mod/", "", "cue.mod/module.cue", "module: \"timoni.sh/podinfo\"\n"), notes{kind: "module/vendor"}),
			m.blob(content, tgz(m.t, "timoni.cue", "package main\n", "templates/", "", "templates/config.cue", "package templates\n"), notes{kind: "module"}),
		},
		Annotations: notes{
			"org.opencontainers.image.created":  "2023-09-28T23:58:44+03:00",
			"org.opencontainers.image.revision": "1.1.0",
			"org.opencontainers.image.source":   "https://github.com/stefanprodan/timoni.git",
		},
	})
}

// flux is an artifact as "flux push artifact" makes it.
func (m *maker) flux(layer ocispec.Descriptor) ocispec.Descriptor {
	return m.manifest(ocispec.Manifest{
		Config: m.blob("application/vnd.cncf.flux.config.v1+json", `{"architecture":"","os":"","config":{},"rootfs":{"type":"layers","diff_ids":[]}}`, nil),
		Layers: []ocispec.Descriptor{layer},
		Annotations: notes{
			"org.opencontainers.image.created":  "2024-05-13T13:56:21Z",
			"org.opencontainers.image.revision": "v2.3.0@sha1:896e0fa46d5107a05e953dd0a5261d78a145ec8c",
			"org.opencontainers.image.source":   "git://github.com/fluxcd/flux2.git",
		},
	})
}

func (m *maker) fluxTarball() ocispec.Descriptor {
	return m.flux(m.blob("application/vnd.cncf.flux.content.v1.tar+gzip", tgz(m.t, "deploy.yaml", "kind: Deployment\n", "service.yaml", "kind: Service\n"), nil))
}

// fluxStatic is what flux makes of a single file.
func (m *maker) fluxStatic() ocispec.Descriptor {
	return m.flux(m.blob("application/vnd.cncf.flux.content.v1.json", `{"replicas":3}`, nil))
}

// helm is a signed chart; registries and versions of helm differ in the order.
func (m *maker) helm(signatureFirst bool) ocispec.Descriptor {
	layers := []ocispec.Descriptor{
		m.blob("application/vnd.cncf.helm.chart.content.v1.tar+gzip", tgz(m.t, "podinfo/Chart.yaml", "name: podinfo\n"), nil),
		m.blob("application/vnd.cncf.helm.chart.provenance.v1.prov", "-----BEGIN PGP SIGNED MESSAGE-----\n", nil),
	}
	if signatureFirst {
		layers[0], layers[1] = layers[1], layers[0]
	}
	return m.manifest(ocispec.Manifest{
		Config: m.blob("application/vnd.cncf.helm.config.v1+json", `{"name":"podinfo","version":"6.5.4"}`, nil), Layers: layers,
	})
}

// buildkit is an index with an image and its attestation for each of two
// platforms. The new style has an artifact type and a subject; stripped is what
// tools make of it that drop annotations of entries.
func (m *maker) buildkit(style string) ocispec.Descriptor {
	var images, attestations []ocispec.Descriptor
	for _, arch := range []string{"amd64", "arm64"} {
		image := m.image(arch, "app")
		images = append(images, at(image, "linux/"+arch, nil))
		att := ocispec.Manifest{
			Config: m.blob(ocispec.MediaTypeImageConfig, `{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:`+strings.Repeat("0", 64)+`"]}}`, nil),
			Layers: []ocispec.Descriptor{
				m.blob("application/vnd.in-toto+json", `{"predicateType":"https://spdx.dev/Document","of":"`+arch+`"}`, notes{"in-toto.io/predicate-type": "https://spdx.dev/Document"}),
				m.blob("application/vnd.in-toto+json", `{"predicateType":"https://slsa.dev/provenance/v0.2","of":"`+arch+`"}`, notes{"in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2"}),
			},
		}
		if style != "old" {
			att.ArtifactType = "application/vnd.docker.attestation.manifest.v1+json"
			att.Config = m.blob(ocispec.MediaTypeEmptyJSON, "{}", nil)
			att.Subject = &ocispec.Descriptor{MediaType: image.MediaType, Digest: image.Digest, Size: image.Size}
		}
		desc := at(m.manifest(att), "unknown/unknown", notes{
			"vnd.docker.reference.digest": string(image.Digest), "vnd.docker.reference.type": "attestation-manifest",
		})
		if style == "stripped" {
			desc.Annotations = nil
		}
		attestations = append(attestations, desc)
	}
	return m.index(append(images, attestations...)...)
}

// dockerList is a manifest list of Docker with its own media types.
func (m *maker) dockerList() ocispec.Descriptor {
	var entries []ocispec.Descriptor
	for _, arch := range []string{"amd64", "s390x"} {
		layer := tgz(m.t, "bin/busybox", arch)
		entries = append(entries, at(m.manifest(ocispec.Manifest{
			MediaType: "application/vnd.docker.distribution.manifest.v2+json",
			Config:    m.blob("application/vnd.docker.container.image.v1+json", imageConfig(m.t, arch, layer), nil),
			Layers:    []ocispec.Descriptor{m.blob("application/vnd.docker.image.rootfs.diff.tar.gzip", layer, nil)},
		}), "linux/"+arch, nil))
	}
	return m.indexOf("application/vnd.docker.distribution.manifest.list.v2+json", entries...)
}

// twins is a manifest whose layers share their bytes and differ in type.
func (m *maker) twins() ocispec.Descriptor {
	return m.manifest(ocispec.Manifest{
		ArtifactType: "application/vnd.example.twins",
		Config:       m.blob(ocispec.MediaTypeEmptyJSON, "{}", nil),
		Layers: []ocispec.Descriptor{
			m.blob("application/json", `{"same":true}`, nil),
			m.blob("application/vnd.example.policy+json", `{"same":true}`, nil),
			m.blob("application/vnd.example.policy+json", `{"same":true}`, nil),
			m.blob("application/json", `{"same":false}`, nil),
		},
	})
}

// writeBuild writes the files of a Garden Linux build, small, with the names that
// the builder gives them.
func writeBuild(t testing.TB, dir, base string, suffixes ...string) {
	t.Helper()
	parts := strings.Split(base, "-")
	n := len(parts)
	versioned, version, commit := strings.Join(parts[:n-1], "-"), parts[n-2], parts[n-1]
	release := "ID=gardenlinux\nGARDENLINUX_CNAME=" + versioned + "\nGARDENLINUX_VERSION=" + version + "\nGARDENLINUX_COMMIT_ID=" + commit +
		"\n"
	files := map[string]string{"release": release, "manifest": "dpkg 1.22\n", "tar": "rootfs of " + base, "sbom": "{}", "requirements": "arch=amd64\n"}
	for _, s := range suffixes {
		files[s] = s + " of " + base
		if s == "pxe.tar.gz" {
			files[s] = tgz(t, "vmlinuz", "kernel of "+base, "initrd", "initrd of "+base, "cmdline", "ro\n", "root.squashfs", "squashfs of "+base)
		}
		files[s+".log"] = "[2026-01-01 00:00:00] " + s + "\n"
	}
	for s, content := range files {
		if err := os.WriteFile(filepath.Join(dir, base+"."+s), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// makeGardenLinux makes a published version as it really is: an index of
// runtime images without annotations, and of flavours.
func makeGardenLinux(t testing.TB, dir string) {
	t.Helper()
	build := t.TempDir()
	const version = "-2150.1.0-abc12345"
	writeBuild(t, build, "kvm-gardener_prod-amd64"+version, "raw")
	writeBuild(t, build, "kvm-gardener_prod-arm64"+version, "raw")
	writeBuild(t, build, "aws-gardener_prod_usi-amd64"+version, "raw", "uki", "esp.tar")
	writeBuild(t, build, "baremetal_pxe-amd64"+version, "pxe.tar.gz")
	mustGloci(t, "init", dir)
	mustGloci(t, "add", "flavor", dir, build, "--ref", "2150.1.0")
	for _, arch := range []string{"amd64", "arm64"} {
		from := filepath.Join(t.TempDir(), "image")
		makeArtifacts(t, from, func(m *maker) { m.ref("", m.image(arch, "gardenlinux")) })
		mustGloci(t, "add", "image", dir, from, "--into", "2150.1.0", "--platform", "linux/"+arch)
	}
}

// gloci runs one command line in this process.
func gloci(args ...string) (status int, stdout, stderr string) {
	var out, errs bytes.Buffer
	status = run(append([]string{"gloci-layout"}, args...), &out, &errs)
	return status, out.String(), errs.String()
}

func mustGloci(t testing.TB, args ...string) string {
	t.Helper()
	status, out, stderr := gloci(args...)
	if status != 0 {
		t.Fatalf("gloci-layout %s: exit %d\n%s", strings.Join(args, " "), status, stderr)
	}
	return out
}
