package layout_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/image-spec/schema"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// Everything that is written passes the JSON schemas of the specification:
// https://github.com/opencontainers/image-spec/tree/v1.1.1/schema
func TestSchema(t *testing.T) {
	l := newLayout(t)
	checkSchema(t, l) // an empty layout

	edit(t, l, func(s *layout.Stage, tx *layout.Tx) {
		im := image(t, s, "one", "amd64")
		im.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64", Variant: "v2", OSFeatures: []string{"a"}, OSVersion: "1.2"}
		tx.SetRef("one", im)
		tx.SetRef("example.org:5000/some/image:v1", im)
		subject := artifact(t, s, "subject", map[string]string{"org.example.note": "a, b"})
		subject.ArtifactType = "application/x.test"
		tx.SetRef("artifact", subject)
		raw, err := layout.EncodeManifest(ocispec.Manifest{
			ArtifactType: "application/x.test", Config: ocispec.DescriptorEmptyJSON, Subject: &subject,
			Layers: []ocispec.Descriptor{{
				MediaType: "application/x.layer", Digest: ocispec.DescriptorEmptyJSON.Digest, Size: 2,
				URLs: []string{"https://example.org/"}, Data: []byte("{}"), Annotations: map[string]string{"": "empty key"},
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
		putBlob(t, s, ocispec.MediaTypeEmptyJSON, "{}")
		tx.Index().Add(putBlob(t, s, ocispec.MediaTypeImageManifest, string(raw)))
		x := tx.Index()
		x.SetAnnotation("org.example.note", "kept")
		x.SetArtifactType("application/x.test")
	})
	checkSchema(t, l)

	// Documents that are written anew, because something below them was.
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) {
		for i, name := range []string{"amd64", "arm64"} {
			im := image(t, s, name, name)
			im.Platform = &ocispec.Platform{OS: "linux", Architecture: name}
			if _, err := tx.EditIndex(t.Context(), "index", true, func(x *layout.Index) error {
				x.PutEntry(im)
				x.SetAnnotation("org.example.step", fmt.Sprint(i))
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		inner := tx.Index().Entries()[tx.Index().FindRef("index")[0]]
		delete(inner.Annotations, ocispec.AnnotationRefName)
		if _, err := tx.EditIndex(t.Context(), "outer", true, func(x *layout.Index) error {
			x.Add(inner)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := tx.EditIndex(t.Context(), "index", false, func(x *layout.Index) error {
			x.Remove(0)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	})
	if n := checkSchema(t, l); n < 8 {
		t.Errorf("%d documents were checked, want 8 or more", n)
	}
	mustVerify(t, l)
}

// checkSchema validates the oci-layout file, index.json, all that it reaches, and
// every descriptor in it; it returns how many documents there were.
func checkSchema(t *testing.T, l *layout.Layout) (documents int) {
	t.Helper()
	validate := func(name string, v schema.Validator, raw []byte) {
		documents++
		if err := v.Validate(bytes.NewReader(raw)); err != nil {
			t.Errorf("%s: %v\n%s", name, err, raw)
		}
	}
	for name, v := range map[string]schema.Validator{
		"oci-layout": schema.ValidatorMediaTypeLayoutHeader, "index.json": schema.ValidatorMediaTypeImageIndex,
	} {
		raw, err := os.ReadFile(filepath.Join(l.Dir(), name))
		if err != nil {
			t.Fatal(err)
		}
		validate(name, v, raw)
	}
	x, err := l.Index(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for n, err := range layout.Walk(t.Context(), l, x.Entries(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		known := []string{ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig}
		if !slices.Contains(known, n.Desc.MediaType) {
			continue
		}
		raw, err := layout.ReadAll(t.Context(), l, n.Desc, layout.MaxDocument)
		if err != nil {
			t.Fatal(err)
		}
		validate(string(n.Desc.Digest), schema.Validator(n.Desc.MediaType), raw)
	}
	return documents
}

// The schemas find what is wrong: a validator that passes everything would make
// the test above one that cannot fail.
func TestSchemaRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		v   schema.Validator
		raw string
	}{
		"layout without version":  {schema.ValidatorMediaTypeLayoutHeader, `{}`},
		"index without manifests": {schema.ValidatorMediaTypeImageIndex, `{"schemaVersion":2}`},
		"entry without size": {
			schema.ValidatorMediaTypeImageIndex,
			`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}]}`,
		},
		"manifest without layers": {
			schema.ValidatorMediaTypeManifest,
			`{"schemaVersion":2,"config":{"mediaType":"application/x","size":2,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}}`,
		},
	} {
		if err := c.v.Validate(bytes.NewReader([]byte(c.raw))); err == nil {
			t.Errorf("%s: the schema takes it", name)
		}
	}
}
