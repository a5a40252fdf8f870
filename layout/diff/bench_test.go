package diff_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/diff"
)

// many writes two layouts of n images, of which one differs.
func many(b testing.TB, n int) (sides [2]diff.Side) {
	for i := range sides {
		s := newStore()
		for k := range n {
			content := fmt.Sprint(k)
			if i == 1 && k == n/2 {
				content = "another"
			}
			s.entries = append(s.entries, named(s.image("amd64", ocispec.ImageConfig{}, compress.None, map[string]string{"f": content}), fmt.Sprintf("image-%05d", k)))
		}
		dir := b.TempDir()
		x := layout.NewIndex()
		for _, desc := range s.entries {
			x.Add(desc)
		}
		files := map[string][]byte{ocispec.ImageLayoutFile: []byte(`{"imageLayoutVersion":"1.0.0"}`), ocispec.ImageIndexFile: x.Bytes()}
		for d, data := range s.blobs {
			files[layout.BlobPath(d)] = data
		}
		if err := os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755); err != nil {
			b.Fatal(err)
		}
		for name, data := range files {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
				b.Fatal(err)
			}
		}
		l, err := layout.Open(b.Context(), dir, nil)
		if err != nil {
			b.Fatal(err)
		}
		sides[i].Source = l
	}
	return sides
}

// Two layouts of 2,000 manifests, of which one differs.
func BenchmarkMany(b *testing.B) {
	sides := many(b, 2000)
	for b.Loop() {
		n := 0
		for _, err := range diff.Compare(b.Context(), sides[0], sides[1], &diff.Options{Total: "b"}, nil) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != 4 {
			b.Fatalf("%d changes, want 4", n)
		}
	}
}
