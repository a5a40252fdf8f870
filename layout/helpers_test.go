package layout_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// newLayout makes an empty layout that lives as long as the test.
func newLayout(t testing.TB) *layout.Layout {
	t.Helper()
	l, err := layout.Create(t.Context(), filepath.Join(t.TempDir(), "l"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// edit runs one transaction in which blobs can be staged too.
func edit(t testing.TB, l *layout.Layout, fn func(s *layout.Stage, tx *layout.Tx)) {
	t.Helper()
	s, err := l.Stage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Update(t.Context(), func(tx *layout.Tx) error { fn(s, tx); return nil }); err != nil {
		t.Fatal(err)
	}
}

// putBlob stages data.
func putBlob(t testing.TB, s *layout.Stage, mediaType, data string) ocispec.Descriptor {
	t.Helper()
	desc, err := s.AddBytes(t.Context(), []byte(data), mediaType)
	if err != nil {
		t.Fatal(err)
	}
	return desc
}

// artifact stages an artifact manifest with one layer.
func artifact(t testing.TB, s *layout.Stage, name string, annotations map[string]string) ocispec.Descriptor {
	t.Helper()
	config := putBlob(t, s, ocispec.MediaTypeEmptyJSON, "{}")
	raw, err := layout.EncodeManifest(ocispec.Manifest{
		ArtifactType: "application/x.test",
		Config:       config,
		Layers:       []ocispec.Descriptor{putBlob(t, s, "application/x.layer", "layer of "+name)},
		Annotations:  annotations,
	})
	if err != nil {
		t.Fatal(err)
	}
	return putBlob(t, s, ocispec.MediaTypeImageManifest, string(raw))
}

// image stages a container image that is not runnable but well formed.
func image(t testing.TB, s *layout.Stage, name, arch string) ocispec.Descriptor {
	t.Helper()
	config := putBlob(t, s, ocispec.MediaTypeImageConfig, fmt.Sprintf(`{"architecture":%q,"os":"linux","author":%q,"rootfs":{"type":"layers","diff_ids":[]}}`, arch, name))
	raw, err := layout.EncodeManifest(ocispec.Manifest{Config: config, Layers: []ocispec.Descriptor{
		putBlob(t, s, ocispec.MediaTypeImageLayer, "image layer of "+name),
	}})
	if err != nil {
		t.Fatal(err)
	}
	return putBlob(t, s, ocispec.MediaTypeImageManifest, string(raw))
}

// index stages an index of these entries.
func index(t testing.TB, s *layout.Stage, entries ...ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	x := layout.NewIndex()
	for _, e := range entries {
		x.Add(e)
	}
	return putBlob(t, s, ocispec.MediaTypeImageIndex, string(x.Bytes()))
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func indexJSON(t testing.TB, l *layout.Layout) string {
	t.Helper()
	return readFile(t, filepath.Join(l.Dir(), "index.json"))
}

func writeFile(t testing.TB, path, data string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func blobFile(l *layout.Layout, desc ocispec.Descriptor) string {
	return filepath.Join(l.Dir(), filepath.FromSlash(layout.BlobPath(desc.Digest)))
}

// mustVerify fails the test if l is damaged.
func mustVerify(t testing.TB, src layout.Source) *layout.VerifyResult {
	t.Helper()
	r, err := layout.Verify(t.Context(), src, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Findings {
		t.Errorf("verify: %s %s: %s", f.Kind, f.Path, f.Detail)
	}
	return r
}
