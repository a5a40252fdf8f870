package consumer_test

import (
	"errors"
	"io"
	"maps"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/consumer"
	"github.com/gardenlinux/gloci-layout/layout/sourcetest"
)

const typeRelease = "application/io.gardenlinux.release"

// wants is what a test wants of an outcome: the digest that is taken, or a failure.
type wants struct {
	taken digest.Digest
	kind  consumer.FailureKind
	says  string // in the message
}

func check(t *testing.T, c consumer.Consumer, src layout.Source, root ocispec.Descriptor, ask consumer.Ask, want wants) *consumer.Outcome {
	t.Helper()
	o, err := c.Take(t.Context(), src, root, ask)
	if err != nil {
		t.Fatalf("%s: %v", c.Name(), err)
	}
	switch {
	case o.Failure == nil && want.kind != "":
		t.Errorf("%s takes %s (%s), want failure %s", c.Name(), o.Desc.Digest, o.Why, want.kind)
	case o.Failure == nil && o.Desc.Digest != want.taken:
		t.Errorf("%s takes %s (%s), want %s", c.Name(), o.Desc.Digest, o.Why, want.taken)
	case o.Failure != nil && want.kind == "":
		t.Errorf("%s fails: %s: %s (%s), want %s", c.Name(), o.Failure.Kind, o.Failure.Message, o.Why, want.taken)
	case o.Failure != nil && (o.Failure.Kind != want.kind || !strings.Contains(o.Failure.Message, want.says)):
		t.Errorf("%s fails: %s: %s, want %s: ...%s", c.Name(), o.Failure.Kind, o.Failure.Message, want.kind, want.says)
	}
	return o
}

// Docker with a store of its own cannot be run in tests, so what its sources say
// stands here. The others are run by TestResolveAgrees of the commands.
func TestDocker(t *testing.T) {
	m := sourcetest.NewMemory(t)
	amd, other, arm, v7, i386 := m.Image("amd", "linux/amd64"), m.Image("other", "linux/amd64"),
		m.Image("arm", "linux/arm64/v8"), m.Image("v7", "linux/arm/v7"), m.Image("386", "linux/386")
	files := m.Artifact(m.Put(typeRelease, "ID=gardenlinux"))
	mixed := m.Manifest(m.JSON(sourcetest.TypeConfig, map[string]any{
		"os": "linux", "architecture": "amd64", "rootfs": map[string]any{"diff_ids": []string{string(digest.FromString("x"))}},
	}), m.Put(typeRelease, "ID=gardenlinux"))
	old := ocispec.Descriptor{MediaType: "application/vnd.oci.artifact.manifest.v1+json"}
	old = m.JSON(old.MediaType, map[string]any{"mediaType": old.MediaType, "artifactType": "application/x", "blobs": []string{}})
	empty := files
	empty.Platform = &ocispec.Platform{}
	for _, test := range []struct {
		name     string
		root     ocispec.Descriptor
		platform string
		want     wants
	}{
		{"image", amd, "linux/amd64", wants{taken: amd.Digest}},
		{"image for another platform", amd, "linux/arm64", wants{taken: amd.Digest}},
		{"artifact", files, "linux/amd64", wants{"", consumer.FailArtifact, "unsupported media type " + sourcetest.TypeUnknownConfig}},
		{"mixed layers", mixed, "linux/amd64", wants{"", consumer.FailLayer, "unsupported media type " + typeRelease}},
		{"platform", m.ImageIndex(m.On(arm, "linux/arm64"), m.On(amd, "linux/amd64")), "linux/amd64", wants{taken: amd.Digest}},
		{"none", m.ImageIndex(m.On(arm, "linux/arm64"), m.On(files, "gardenlinux/amd64")), "linux/amd64", wants{"", consumer.FailPlatform, "no matching manifest for linux/amd64"}},
		{"arm64 normalized", m.ImageIndex(m.On(arm, "linux/arm64/v8")), "linux/arm64", wants{taken: arm.Digest}},
		{"arm on arm64", m.ImageIndex(m.On(v7, "linux/arm/v7"), m.On(amd, "linux/amd64")), "linux/arm64", wants{taken: v7.Digest}},
		{"386 on amd64", m.ImageIndex(m.On(i386, "linux/386")), "linux/amd64", wants{taken: i386.Digest}},
		{"amd64 before 386", m.ImageIndex(m.On(i386, "linux/386"), m.On(amd, "linux/amd64")), "linux/amd64", wants{taken: amd.Digest}},
		{"v2 for v3", m.ImageIndex(m.On(other, "linux/amd64"), m.On(amd, "linux/amd64/v2")), "linux/amd64/v3", wants{taken: amd.Digest}},
		{"entry without platform, its config is not asked", m.ImageIndex(arm), "linux/amd64", wants{taken: arm.Digest}},
		{"platform of empty fields", m.ImageIndex(empty, m.On(amd, "linux/amd64")), "linux/amd64", wants{taken: amd.Digest}},
		{"nothing but a platform of empty fields", m.ImageIndex(empty), "linux/amd64", wants{"", consumer.FailArtifact, sourcetest.TypeUnknownConfig}},
		{"nothing but an artifact without platform", m.ImageIndex(files), "linux/amd64", wants{"", consumer.FailArtifact, sourcetest.TypeUnknownConfig}},
		{"nested", m.ImageIndex(m.ImageIndex(m.On(amd, "linux/amd64"))), "linux/amd64", wants{taken: amd.Digest}},
		{"nested without match ends the search", m.ImageIndex(m.ImageIndex(m.On(arm, "linux/arm64")), amd), "linux/amd64", wants{"", consumer.FailPlatform, "no matching"}},
		{"nested failure tries the next", m.ImageIndex(m.ImageIndex(m.On(files, "linux/amd64")), amd), "linux/amd64", wants{taken: amd.Digest}},
		{"unknown manifests are skipped", m.ImageIndex(m.On(old, "linux/amd64"), m.On(amd, "linux/amd64")), "linux/amd64", wants{taken: amd.Digest}},
		{"unknown manifest", old, "linux/amd64", wants{"", consumer.FailDocument, "unsupported manifest format"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := m.Platform(test.platform)
			check(t, consumer.Docker, m, test.root, consumer.Ask{Platform: p, Host: *p}, test.want)
		})
	}
}

func TestFlux(t *testing.T) {
	m := sourcetest.NewMemory(t)
	gz, plain := m.Put("application/vnd.cncf.flux.content.v1.tar+gzip", "\x1f\x8bcontent"), m.Put("text/plain", "content")
	first, second := m.Artifact(gz, plain), m.Artifact(plain, gz)
	bare := m.Artifact()
	for _, test := range []struct {
		name  string
		flux  consumer.Flux
		root  ocispec.Descriptor
		want  wants
		layer digest.Digest
	}{
		{"first layer", consumer.Flux{}, first, wants{taken: first.Digest}, gz.Digest},
		{"first layer is no gzip", consumer.Flux{}, second, wants{"", consumer.FailLayer, "requires gzip-compressed body"}, plain.Digest},
		{"copied", consumer.Flux{Copy: true}, second, wants{taken: second.Digest}, plain.Digest},
		{"by media type", consumer.Flux{MediaType: gz.MediaType}, second, wants{taken: second.Digest}, gz.Digest},
		{"no such media type", consumer.Flux{MediaType: "a/b"}, second, wants{"", consumer.FailLayer, "failed to find layer with media type 'a/b'"}, ""},
		{"no layers", consumer.Flux{}, bare, wants{"", consumer.FailLayer, "no layers found"}, ""},
		{"index", consumer.Flux{}, m.ImageIndex(m.On(second, "linux/arm64"), m.On(first, "linux/amd64")), wants{taken: first.Digest}, gz.Digest},
		{"index without linux/amd64", consumer.Flux{}, m.ImageIndex(m.On(first, "linux/arm64")), wants{"", consumer.FailPlatform, "no child with platform linux/amd64"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			// What anybody asks for plays no part.
			arm := m.Platform("linux/arm64")
			o := check(t, test.flux, m, test.root, consumer.Ask{Platform: arm, Host: *arm}, test.want)
			if test.layer == "" && len(o.Layers) > 0 || test.layer != "" && (len(o.Layers) != 1 || o.Layers[0].Digest != test.layer) {
				t.Errorf("layers = %v, want %s", o.Layers, test.layer)
			}
		})
	}
}

// Without a platform the programs differ in what they look for.
func TestNobodySaysAPlatform(t *testing.T) {
	m := sourcetest.NewMemory(t)
	amd, arm := m.Image("amd", "linux/amd64"), m.Image("arm", "linux/arm64")
	root := m.ImageIndex(m.On(amd, "linux/amd64"), m.On(arm, "linux/arm64"))
	onArm := consumer.Ask{Host: *m.Platform("linux/arm64")}
	for _, c := range []consumer.Consumer{consumer.Podman, consumer.Buildah, consumer.Skopeo, consumer.Docker, consumer.Containerd, consumer.Regctl} {
		check(t, c, m, root, onArm, wants{taken: arm.Digest})
	}
	for _, c := range []consumer.Consumer{consumer.Crane, consumer.Flux{}} {
		check(t, c, m, root, onArm, wants{taken: amd.Digest})
	}
	check(t, consumer.ORAS, m, root, onArm, wants{taken: root.Digest})
}

// What is not there, not readable or too deep is an answer; a source that cannot
// be read is an error.
func TestDamage(t *testing.T) {
	m := sourcetest.NewMemory(t)
	amd := m.Image("amd", "linux/amd64")
	gone := m.On(ocispec.Descriptor{MediaType: sourcetest.TypeManifest, Digest: digest.FromString("gone"), Size: 4}, "linux/amd64")
	noConfig := m.Manifest(ocispec.Descriptor{MediaType: sourcetest.TypeConfig, Digest: digest.FromString("gone"), Size: 4})
	deep := amd
	for range layout.DefaultMaxDepth + 2 {
		deep = m.ImageIndex(m.On(deep, "linux/amd64"))
	}
	ask := consumer.Ask{Platform: m.Platform("linux/amd64"), Host: *m.Platform("linux/amd64")}
	for _, c := range consumer.Standard() {
		check(t, c, m, m.ImageIndex(gone), ask, wants{kind: consumer.FailDocument, says: "manifest unknown"})
		check(t, c, m, m.Put(sourcetest.TypeManifest, "{"), ask, wants{kind: consumer.FailDocument})
		check(t, c, m, m.Put(sourcetest.TypeIndex, `{"schemaVersion":2,"manifests":7}`), ask, wants{kind: consumer.FailDocument})
		switch c {
		case consumer.Podman, consumer.Buildah, consumer.Docker, consumer.Containerd, consumer.ORAS:
			check(t, c, m, noConfig, ask, wants{kind: consumer.FailDocument})
		}
		switch c {
		case consumer.ORAS: // which does not go down
		case consumer.Docker: // which tries the next where one fails
			check(t, c, m, deep, ask, wants{kind: consumer.FailPlatform})
		default:
			check(t, c, m, deep, ask, wants{kind: consumer.FailNested})
		}
		m.Err = io.ErrClosedPipe
		if _, err := c.Take(t.Context(), m, amd, ask); !errors.Is(err, m.Err) {
			t.Errorf("%s: of a source that cannot be read: %v", c.Name(), err)
		}
		m.Err = nil
	}
	// Readers in Go take an annotation that is null for an empty one.
	null := m.Put(sourcetest.TypeManifest, `{"schemaVersion":2,"config":{"mediaType":"`+sourcetest.TypeUnknownConfig+`","digest":"`+string(m.Put("", "{}").Digest)+
		`","size":2},"layers":[],"annotations":{"commit":null,"version":"1592"}}`)
	o := check(t, consumer.Podman, m, null, ask, wants{kind: consumer.FailArtifact, says: sourcetest.TypeUnknownConfig})
	if o.Document == nil || !maps.Equal(o.Document.Annotations, map[string]string{"commit": "", "version": "1592"}) {
		t.Errorf("document with a null = %+v", o.Document)
	}
}
