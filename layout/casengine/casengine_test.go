package casengine_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apex/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/umoci/mutate"
	"github.com/opencontainers/umoci/oci/cas"
	"github.com/opencontainers/umoci/oci/casext"
	"github.com/opencontainers/umoci/oci/casext/blobcompress"
	"github.com/opencontainers/umoci/oci/layer"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/casengine"
)

func open(t *testing.T) *layout.Layout {
	t.Helper()
	l, err := layout.Create(t.Context(), filepath.Join(t.TempDir(), "l"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// TestUmociMakesAnImage lets umoci make an image from a directory, as its own
// commands do, beside an entry with fields that umoci does not know.
func TestUmociMakesAnImage(t *testing.T) {
	log.SetLevel(log.ErrorLevel)
	l := open(t)
	foreign := `{"schemaVersion":2,"x-kept":1,"manifests":[{"mediaType":"application/x","digest":"` + string(digest.FromString("")) + `","size":0,"x-kept-too":2}]}`
	if err := os.WriteFile(filepath.Join(l.Dir(), "index.json"), []byte(foreign), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.Dir(), "blobs", "sha256", digest.FromString("").Encoded()), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	engine := casengine.New(l)
	ext := casext.NewEngine(engine)
	ctx := t.Context()

	config, configSize, err := ext.PutBlobJSON(ctx, ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ocispec.RootFS{Type: "layers"}})
	if err != nil {
		t.Fatal(err)
	}
	manifest := ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: config, Size: configSize},
		Layers:    []ocispec.Descriptor{},
	}
	manifest.SchemaVersion = 2
	d, size, err := ext.PutBlobJSON(ctx, manifest)
	if err != nil {
		t.Fatal(err)
	}
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d, Size: size}
	if err := ext.UpdateReference(ctx, "new", desc); err != nil {
		t.Fatal(err)
	}

	paths, err := ext.ResolveReference(ctx, "new")
	if err != nil || len(paths) != 1 {
		t.Fatalf("ResolveReference = %v, %v", paths, err)
	}
	mutator, err := mutate.New(engine, paths[0])
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "hello"), []byte("hello\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	reader := layer.GenerateInsertLayer(root, "/", false, nil)
	now := time.Unix(0, 0).UTC()
	if _, err := mutator.Add(ctx, ocispec.MediaTypeImageLayer, reader, &ocispec.History{Created: &now}, blobcompress.Gzip, nil); err != nil {
		t.Fatal(err)
	}
	path, err := mutator.Commit(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := ext.UpdateReference(ctx, "new", path.Root()); err != nil {
		t.Fatal(err)
	}
	if err := engine.Close(); err != nil {
		t.Fatal(err)
	}

	r, err := layout.Verify(ctx, l, nil)
	if err != nil || len(r.Findings) > 0 {
		t.Errorf("Verify = %+v, %v", r, err)
	}
	m, err := layout.SelectOne(ctx, l, entries(t, l), layout.Selector{Platform: &ocispec.Platform{OS: "linux", Architecture: "amd64"}})
	if err != nil || len(m.Document.Layers) != 1 {
		t.Errorf("the image: %v, %v", m, err)
	}
	raw, err := os.ReadFile(filepath.Join(l.Dir(), "index.json"))
	if err != nil || !strings.Contains(string(raw), `"x-kept":1`) || !strings.Contains(string(raw), `"x-kept-too":2`) {
		t.Errorf("unknown fields are lost: %s %v", raw, err)
	}
}

func entries(t *testing.T, l *layout.Layout) []ocispec.Descriptor {
	t.Helper()
	x, err := l.Index(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return x.Entries()
}

// TestPutIndexKeepsWhatOthersDid: an entry that came between GetIndex and
// PutIndex survives.
func TestPutIndexKeepsWhatOthersDid(t *testing.T) {
	l := open(t)
	engine := casengine.New(l)
	index, err := engine.GetIndex(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = l.Update(t.Context(), func(tx *layout.Tx) error {
		tx.SetRef("theirs", ocispec.Descriptor{MediaType: "application/x", Digest: digest.FromString("t"), Size: 1})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	index.Manifests = append(index.Manifests, ocispec.Descriptor{
		MediaType: "application/x", Digest: digest.FromString("o"), Size: 1, Annotations: map[string]string{ocispec.AnnotationRefName: "ours"},
	})
	if err := errors.Join(engine.PutIndex(t.Context(), index), engine.Close()); err != nil {
		t.Fatal(err)
	}
	if got := len(entries(t, l)); got != 2 {
		t.Errorf("%d entries, want 2", got)
	}
}

func TestBlobs(t *testing.T) {
	l := open(t)
	engine := casengine.New(l)
	ctx := t.Context()
	d, size, err := engine.PutBlob(ctx, strings.NewReader("text"))
	if err != nil || size != 4 {
		t.Fatalf("PutBlob = %v, %v", size, err)
	}
	for _, when := range []string{"staged", "stored"} {
		if ok, err := engine.StatBlob(ctx, d); !ok || err != nil {
			t.Errorf("%s: StatBlob = %v, %v", when, ok, err)
		}
		rc, err := engine.GetBlob(ctx, d)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(rc); string(got) != "text" || err != nil || rc.Close() != nil {
			t.Errorf("%s: GetBlob = %q, %v", when, got, err)
		}
		if list, err := engine.ListBlobs(ctx); err != nil || len(list) != 1 || list[0] != d {
			t.Errorf("%s: ListBlobs = %v, %v", when, list, err)
		}
		if err := engine.Close(); err != nil { // commits
			t.Fatal(err)
		}
	}
	// A blob that is damaged shows at Close, even if nobody read it.
	if err := os.WriteFile(filepath.Join(l.Dir(), filepath.FromSlash(layout.BlobPath(d))), []byte("texT"), 0o644); err != nil {
		t.Fatal(err)
	}
	rc, err := engine.GetBlob(ctx, d)
	if err != nil {
		t.Fatal(err)
	}
	if err := rc.Close(); !errors.Is(err, layout.ErrMismatch) {
		t.Errorf("Close of a damaged blob: %v, want ErrMismatch", err)
	}
	for range 2 {
		if err := engine.DeleteBlob(ctx, d); err != nil {
			t.Error(err)
		}
	}
	if _, err := engine.GetBlob(ctx, d); !errors.Is(err, cas.ErrNotExist) {
		t.Errorf("GetBlob of a deleted blob: %v, want cas.ErrNotExist", err)
	}
	if _, err := engine.StatBlob(ctx, d); !errors.Is(err, cas.ErrNotExist) {
		t.Errorf("StatBlob of a deleted blob: %v, want cas.ErrNotExist", err)
	}
}
