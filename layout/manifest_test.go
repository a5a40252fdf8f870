package layout_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

const strangeManifest = `{
  "x-first": {"b": 1.50, "a": []},
  "layers": [
    {"size": 1, "digest": "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "mediaType": "a/b", "x-layer": [1e3], "annotations": {"org.opencontainers.image.title": "one"}},
    {"size": 2, "digest": "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", "mediaType": "c/d"}
  ],
  "config": {"mediaType": "application/vnd.oci.empty.v1+json", "size": 2, "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", "data": "e30=", "x-config": null},
  "annotations": {"z": "1", "a": "2"},
  "subject": {"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 3, "digest": "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc", "x-subject": true},
  "artifactType": "application/x.test",
  "schemaVersion": 2
}`

func TestManifestKeeps(t *testing.T) {
	m, err := layout.ParseManifest([]byte(strangeManifest), ocispec.MediaTypeImageManifest)
	if err != nil {
		t.Fatal(err)
	}
	// What says what is there already changes nothing.
	m.SetAnnotation("z", "1")
	m.DeleteAnnotation("absent")
	m.SetLayer(0, m.Layers()[0])
	m.SetConfig(*m.Config())
	m.SetSubject(m.Subject())
	m.SetArtifactType(m.ArtifactType())
	m.RemoveLayers()
	if got := string(m.Bytes()); got != strangeManifest {
		t.Errorf("nothing was edited, and the bytes changed: %s", got)
	}
	layer := m.Layers()[0]
	layer.Size, layer.Digest = 9, digest.Digest("sha256:"+strings.Repeat("d", 64))
	m.SetLayer(0, layer)
	m.RemoveLayers(1)
	m.AddLayer(ocispec.Descriptor{MediaType: "e/f", Digest: layer.Digest, Size: 9})
	m.SetAnnotation("a", "x=1,y")
	m.DeleteAnnotation("z")
	subject := *m.Subject()
	subject.Size = 4
	m.SetSubject(&subject)
	const want = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/x.test",` +
		`"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"data":"e30=","x-config":null},` +
		`"layers":[{"mediaType":"a/b","digest":"sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd","size":9,"annotations":{"org.opencontainers.image.title":"one"},"x-layer":[1e3]},` +
		`{"mediaType":"e/f","digest":"sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd","size":9}],` +
		`"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc","size":4,"x-subject":true},` +
		`"annotations":{"a":"x=1,y"},"x-first":{"b":1.50,"a":[]}}` + "\n"
	if diff := cmp.Diff(want, string(m.Bytes())); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if d := m.Descriptor(); d.Digest != digest.FromString(want) || d.ArtifactType != "application/x.test" || d.Size != int64(len(want)) {
		t.Errorf("descriptor %+v", d)
	}
	m.SetSubject(nil)
	if strings.Contains(string(m.Bytes()), "subject") || m.Subject() != nil {
		t.Error("the subject stayed")
	}
}

// The artifact manifest of release candidates has blobs and no config; the one
// of Docker keeps its type.
func TestManifestKinds(t *testing.T) {
	const rc = `{"mediaType":"application/vnd.oci.artifact.manifest.v1+json","artifactType":"a/b","blobs":[{"mediaType":"c/d","digest":"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","size":1}]}`
	m, err := layout.ParseManifest([]byte(rc), "application/vnd.oci.artifact.manifest.v1+json")
	if err != nil {
		t.Fatal(err)
	}
	m.AddLayer(ocispec.Descriptor{MediaType: "e/f", Digest: digest.Digest("sha256:" + strings.Repeat("d", 64)), Size: 2})
	want := strings.TrimSuffix(rc, "]}") + `,{"mediaType":"e/f","digest":"sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd","size":2}]}` + "\n"
	if diff := cmp.Diff(want, string(m.Bytes())); diff != "" || m.Config() != nil || m.IsImage() {
		t.Errorf("artifact manifest (-want +got):\n%s", diff)
	}
	const docker = `{"schemaVersion":2,"config":{"mediaType":"application/vnd.docker.container.image.v1+json","digest":"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","size":1},"layers":null}`
	if m, err = layout.ParseManifest([]byte(docker), "application/vnd.docker.distribution.manifest.v2+json"); err != nil {
		t.Fatal(err)
	}
	m.SetAnnotation("k", "v")
	if !m.IsImage() || !strings.Contains(string(m.Bytes()), `"mediaType":"application/vnd.docker.distribution.manifest.v2+json"`) {
		t.Errorf("Docker manifest: %s", m.Bytes())
	}
	if _, err := layout.ParseDocument(m.Descriptor(), m.Bytes()); err != nil {
		t.Error(err)
	}
	for _, tt := range []struct{ raw, mediaType string }{
		{strangeManifest, ocispec.MediaTypeImageIndex},
		{strangeManifest, "application/vnd.docker.distribution.manifest.v2+json; x=y"},
		{`{"schemaVersion":2,"manifests":[]}`, ocispec.MediaTypeImageManifest},
		{`{"schemaVersion":2,"layers":[]}`, ocispec.MediaTypeImageManifest},
		{`{`, ocispec.MediaTypeImageManifest},
	} {
		if _, err := layout.ParseManifest([]byte(tt.raw), tt.mediaType); !errors.Is(err, layout.ErrInvalid) {
			t.Errorf("ParseManifest(%.40s, %s) = %v, want ErrInvalid", tt.raw, tt.mediaType, err)
		}
	}
}
