package layout_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

func roots(t testing.TB, src layout.Source) []ocispec.Descriptor {
	t.Helper()
	x, err := src.Index(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return x.Entries()
}

// walkNames walks and returns for each node what names tells of its digest.
func walkNames(t testing.TB, src layout.Source, names map[string]string, opts *layout.WalkOptions) []string {
	t.Helper()
	var got []string
	for n, err := range layout.Walk(t.Context(), src, roots(t, src), opts) {
		if err != nil {
			t.Fatal(err)
		}
		name := names[string(n.Desc.Digest)]
		if name == "" {
			name = n.Role.String()
		}
		if n.Absent {
			name += " absent"
		}
		got = append(got, fmt.Sprintf("%d %s", len(n.Parents), name))
	}
	return got
}

func TestWalkOrder(t *testing.T) {
	l := newLayout(t)
	names := map[string]string{}
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) {
		a := artifact(t, s, "a", nil)
		img := image(t, s, "img", "amd64")
		inner := index(t, s, a, img)
		outer := index(t, s, inner, a) // a is named twice
		raw, err := layout.EncodeManifest(ocispec.Manifest{Config: ocispec.DescriptorEmptyJSON, Subject: &img, ArtifactType: "application/x.sbom"})
		if err != nil {
			t.Fatal(err)
		}
		sbom := putBlob(t, s, ocispec.MediaTypeImageManifest, string(raw))
		for name, desc := range map[string]ocispec.Descriptor{"a": a, "img": img, "inner": inner, "outer": outer, "sbom": sbom} {
			names[string(desc.Digest)] = name
		}
		tx.SetRef("1-outer", outer)
		tx.SetRef("2-sbom", sbom)
	})
	// a's config and the sbom's are one blob, which comes once.
	want := []string{"0 outer", "1 inner", "2 a", "3 config", "3 layer", "2 img", "3 config", "3 layer", "0 sbom"}
	if diff := cmp.Diff(want, walkNames(t, l, names, nil)); diff != "" {
		t.Errorf("parents first (-want +got):\n%s", diff)
	}
	want = []string{"3 config", "3 layer", "2 a", "3 config", "3 layer", "2 img", "1 inner", "0 outer", "0 sbom"}
	if diff := cmp.Diff(want, walkNames(t, l, names, &layout.WalkOptions{ChildrenFirst: true})); diff != "" {
		t.Errorf("children first (-want +got):\n%s", diff)
	}
	want = []string{"0 outer", "1 inner", "2 a", "2 img", "0 sbom"}
	if diff := cmp.Diff(want, walkNames(t, l, names, &layout.WalkOptions{DocumentsOnly: true})); diff != "" {
		t.Errorf("documents only (-want +got):\n%s", diff)
	}
}

func TestWalkSubjectMayBeAbsent(t *testing.T) {
	l := newLayout(t)
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) {
		subject := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digestA, Size: 10}
		raw, err := layout.EncodeManifest(ocispec.Manifest{Config: ocispec.DescriptorEmptyJSON, Subject: &subject, ArtifactType: "application/x.sig"})
		if err != nil {
			t.Fatal(err)
		}
		putBlob(t, s, ocispec.MediaTypeEmptyJSON, "{}")
		tx.SetRef("sig", putBlob(t, s, ocispec.MediaTypeImageManifest, string(raw)))
	})
	want := []string{"0 entry", "1 config", "1 subject absent"}
	if diff := cmp.Diff(want, walkNames(t, l, nil, nil)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	mustVerify(t, l)
	if _, err := l.GC(t.Context(), layout.GCOptions{Now: time.Now()}); err != nil {
		t.Errorf("GC refuses a legal layout: %v", err)
	}
}

// TestWalkSharedSubtrees: 2^30 ways to one leaf are walked in no time.
func TestWalkSharedSubtrees(t *testing.T) {
	l := newLayout(t)
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) {
		below := artifact(t, s, "leaf", nil)
		for i := range 14 {
			// Two entries, told apart by an annotation, name one digest.
			a, b := below, below
			a.Annotations = map[string]string{"i": fmt.Sprint(i)}
			below = index(t, s, a, b, b)
		}
		tx.SetRef("deep", below)
	})
	start := time.Now()
	n := len(walkNames(t, l, nil, nil))
	if n != 17 {
		t.Errorf("%d nodes, want 17", n)
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("took %v", d)
	}
}

func TestWalkLimits(t *testing.T) {
	l := newLayout(t)
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) {
		below := artifact(t, s, "leaf", nil)
		for range 16 {
			below = index(t, s, below)
		}
		tx.SetRef("deep", below)
	})
	for name, opts := range map[string]*layout.WalkOptions{
		"depth":     nil,
		"documents": {MaxDepth: 100, MaxDocuments: 5},
	} {
		var last error
		for _, err := range layout.Walk(t.Context(), l, roots(t, l), opts) {
			last = err
		}
		if !errors.Is(last, layout.ErrInvalid) {
			t.Errorf("%s: error %v, want ErrInvalid", name, last)
		}
	}
	if n := len(walkNames(t, l, nil, &layout.WalkOptions{MaxDepth: 17})); n != 19 {
		t.Errorf("with a depth of 17: %d nodes, want 19", n)
	}
}

func TestWalkErrorNamesTheWay(t *testing.T) {
	l := newLayout(t)
	var gone ocispec.Descriptor
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) {
		gone = artifact(t, s, "gone", nil)
		tx.SetRef("top", index(t, s, index(t, s, gone), artifact(t, s, "other", nil)))
	})
	if err := os.Remove(blobFile(l, gone)); err != nil {
		t.Fatal(err)
	}
	var last error
	for _, err := range layout.Walk(t.Context(), l, roots(t, l), nil) {
		last = err
	}
	if !errors.Is(last, layout.ErrNotFound) || !strings.Contains(fmt.Sprint(last), string(gone.Digest)) || strings.Count(fmt.Sprint(last), " > ") != 1 {
		t.Errorf("error %v, want ErrNotFound with the way", last)
	}
	var good, bad int
	for _, err := range layout.Walk(t.Context(), l, roots(t, l), &layout.WalkOptions{KeepGoing: true}) {
		if err != nil {
			bad++
		} else {
			good++
		}
	}
	if good != 5 || bad != 1 {
		t.Errorf("KeepGoing: %d nodes and %d errors, want 5 and 1", good, bad)
	}
	absent := 0
	for n, err := range layout.Walk(t.Context(), l, roots(t, l), &layout.WalkOptions{Sparse: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if n.Absent {
			absent++
		}
	}
	if absent != 1 {
		t.Errorf("Sparse: %d absent, want 1", absent)
	}
}

func TestWalkCanceled(t *testing.T) {
	l := newLayout(t)
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) { tx.SetRef("a", artifact(t, s, "a", nil)) })
	ctx, cancel := context.WithCancel(t.Context())
	all := roots(t, l)
	cancel()
	for _, err := range layout.Walk(ctx, l, all, nil) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want context.Canceled", err)
		}
	}
}

// TestWalkDocumentNamedAsLayer: a digest that is a leaf in one place and a
// manifest in another is followed all the same, or gc would take its children.
func TestWalkDocumentNamedAsLayer(t *testing.T) {
	l := newLayout(t)
	var a ocispec.Descriptor
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) {
		a = artifact(t, s, "a", nil)
		leaf := a
		leaf.MediaType = "application/octet-stream"
		raw, err := layout.EncodeManifest(ocispec.Manifest{Config: ocispec.DescriptorEmptyJSON, Layers: []ocispec.Descriptor{leaf}, ArtifactType: "application/x"})
		if err != nil {
			t.Fatal(err)
		}
		tx.SetRef("1", putBlob(t, s, ocispec.MediaTypeImageManifest, string(raw)))
		tx.SetRef("2", a)
	})
	r, err := l.GC(t.Context(), layout.GCOptions{Now: time.Now()})
	if err != nil || len(r.Removed) != 0 {
		t.Errorf("GC = %v, %v, want nothing removed", r, err)
	}
}
