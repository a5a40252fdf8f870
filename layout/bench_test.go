package layout_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// many returns a layout of n entries with ref names, and a stage with as many
// blobs in it.
func many(b *testing.B, n int) (*layout.Layout, *layout.Stage) {
	b.Helper()
	l, err := layout.Create(b.Context(), b.TempDir(), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	s, err := l.Stage(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	var descs []ocispec.Descriptor
	for i := range n {
		content := fmt.Sprint(i)
		if _, err := s.AddBytes(b.Context(), []byte(content), "text/plain"); err != nil {
			b.Fatal(err)
		}
		descs = append(descs, ocispec.Descriptor{
			MediaType: "text/plain", Digest: digest.FromString(content), Size: int64(len(content)),
			Annotations: map[string]string{ocispec.AnnotationRefName: fmt.Sprintf("ref-%d", i)},
		})
	}
	err = s.Update(b.Context(), func(tx *layout.Tx) error {
		for _, desc := range descs {
			tx.Index().Add(desc)
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return l, s
}

// BenchmarkMany does what must not take the square of the number of entries.
func BenchmarkMany(b *testing.B) {
	l, s := many(b, 2000)
	for i := range 2000 {
		if _, err := s.AddBytes(b.Context(), fmt.Appendf(nil, "more %d", i), "text/plain"); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("NoRef", func(b *testing.B) {
		for b.Loop() {
			if _, err := layout.Resolve(b.Context(), l, "absent", ""); !errors.Is(err, layout.ErrNotFound) {
				b.Fatal(err)
			}
		}
	})
	b.Run("ResolveOne", func(b *testing.B) {
		for b.Loop() {
			if _, err := layout.ResolveOne(b.Context(), l, "", ""); !errors.Is(err, layout.ErrAmbiguous) {
				b.Fatal(err)
			}
		}
	})
	b.Run("StageBlobs", func(b *testing.B) {
		for b.Loop() {
			for _, err := range s.Blobs(b.Context()) {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
