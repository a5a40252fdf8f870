package diff_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/diff"
)

// manyImages are entries for n images, each of which index.json names and an
// index lists too.
func manyImages(s *store, n int) {
	var images []ocispec.Descriptor
	for i := range n {
		images = append(images, s.image("amd64", ocispec.ImageConfig{}, compress.None, map[string]string{"f": fmt.Sprint(i)}))
		s.entries = append(s.entries, named(images[i], fmt.Sprint("image-", i)))
	}
	s.entries = append(s.entries, named(s.index(images...), "all"))
}

// Manifests that are read ahead and that a walk of an index comes to are counted
// once, and so are their blobs.
func TestTotalsOfEqualEntries(t *testing.T) {
	const n = 40
	s := newStore()
	manyImages(s, n)
	var shared int64
	for _, b := range s.blobs {
		shared += int64(len(b))
	}
	var sum diff.Summary
	if have := changes(t, diff.Side{Source: s}, diff.Side{Source: s}, &diff.Options{Total: "b"}, &sum); len(have) > 0 {
		t.Errorf("%d changes", len(have))
	}
	if sum.Manifests != n || sum.Shared != shared || sum.OnlyA+sum.OnlyB != 0 || !sum.Complete {
		t.Errorf("%+v, want %d manifests and %d shared bytes", sum, n, shared)
	}
}

// Of manifests that are missing the first in listed order is named, whoever read
// it first.
func TestTotalsOfMissing(t *testing.T) {
	for range 20 {
		s := newStore()
		manyImages(s, 40)
		for _, i := range []int{7, 8, 31} {
			delete(s.blobs, s.entries[i].Digest)
		}
		var err error
		for _, err = range diff.Compare(t.Context(), diff.Side{Source: s}, diff.Side{Source: s}, &diff.Options{Total: "b"}, nil) {
			if err != nil {
				break
			}
		}
		if !errors.Is(err, layout.ErrNotFound) || !strings.Contains(err.Error(), s.entries[7].Digest.String()) {
			t.Fatalf("error = %v, want that %s is missing", err, s.entries[7].Digest)
		}
	}
}
