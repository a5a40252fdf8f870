package layout_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// addLayer is an edit that every manifest takes.
func addLayer(t testing.TB, s *layout.Stage, content string) func(m *layout.Manifest) error {
	return func(m *layout.Manifest) error {
		m.AddLayer(putBlob(t, s, "application/x.added", content))
		return nil
	}
}

// deepLayout has a manifest three indexes deep, which two indexes share, and a
// neighbour at each level.
func deepLayout(t testing.TB) (l *layout.Layout, shared, other ocispec.Descriptor) {
	l = newLayout(t)
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) {
		shared, other = artifact(t, s, "shared", nil), artifact(t, s, "other", nil)
		shared.Platform = &ocispec.Platform{OS: "gardenlinux", Architecture: "amd64", OSVersion: "1.2"}
		shared.Annotations = map[string]string{"cname": "kvm", "k": "a,b=c"}
		raw := func(text string) ocispec.Descriptor {
			return putBlob(t, s, ocispec.MediaTypeImageIndex, text)
		}
		entry := func(d ocispec.Descriptor) string {
			return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"platform":{"architecture":"amd64","os":"gardenlinux","x-os":1},"x-entry":{"z":1,"a":2.0}}`, d.MediaType, d.Digest, d.Size)
		}
		// Not sorted, not canonical, with fields that nobody knows.
		left := raw(fmt.Sprintf("{ \"schemaVersion\": 2, \"x-left\": 1.0,\n\"manifests\": [%s, %s], \"annotations\": {\"l\": \"1\"}}", entry(other), entry(shared)))
		right := index(t, s, other, shared)
		tx.SetRef("top", index(t, s, other, index(t, s, left)))
		tx.SetRef("same", index(t, s, right))
		tx.SetRef("direct", shared)
		tx.SetRef("untouched", index(t, s, other))
	})
	return l, shared, other
}

// TestEditManifest: what must be seen of an edit at depth three.
func TestEditManifest(t *testing.T) {
	l, shared, other := deepLayout(t)
	before := files(t, l.Dir())
	var got *layout.Edit
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) {
		var err error
		if got, err = tx.EditManifest(t.Context(), shared.Digest, nil, addLayer(t, s, "new")); err != nil {
			t.Fatal(err)
		}
	})
	// The manifest, left, the one above it, top; right and the one above it.
	if len(got.Changes) != 6 || got.Changes[0].Old.Digest != shared.Digest || got.Stale != nil || got.Moved != nil {
		t.Fatalf("%+v", got)
	}
	after := files(t, l.Dir())
	added := maps.Clone(after)
	for name, data := range before {
		if name != "index.json" && after[name] != data {
			t.Errorf("%s changed", name)
		}
		delete(added, name)
	}
	if len(added) != 1+len(got.Changes) { // with the layer
		t.Errorf("new files: %v", slices.Sorted(maps.Keys(added)))
	}
	var left string
	for _, c := range got.Changes {
		doc, err := layout.ReadDocument(t.Context(), l, c.New)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(doc.Raw), "x-left") {
			left = string(doc.Raw)
		}
	}
	now := got.Changes[0].New
	want := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[`+
		`{"mediaType":%q,"digest":%q,"size":%d,"platform":{"architecture":"amd64","os":"gardenlinux","x-os":1},"x-entry":{"z":1,"a":2.0}},`+
		`{"mediaType":%q,"digest":%q,"size":%d,"platform":{"architecture":"amd64","os":"gardenlinux","x-os":1},"x-entry":{"z":1,"a":2.0}}],"annotations":{"l":"1"},"x-left":1.0}`+"\n",
		other.MediaType, other.Digest, other.Size, now.MediaType, now.Digest, now.Size)
	if diff := cmp.Diff(want, left); diff != "" {
		t.Errorf("the index that held it (-want +got):\n%s", diff)
	}
	for _, ref := range []string{"top", "same", "direct"} {
		roots, err := layout.Resolve(t.Context(), l, ref, "")
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for n, err := range layout.Walk(t.Context(), l, roots, &layout.WalkOptions{DocumentsOnly: true}) {
			if err != nil {
				t.Fatal(err)
			}
			if n.Desc.Digest == shared.Digest {
				t.Errorf("%s still reaches the old manifest", ref)
			}
			if n.Desc.Digest == now.Digest {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%s does not reach the new manifest", ref)
		}
	}
	mustVerify(t, l)
	if _, err := l.GC(t.Context(), layout.GCOptions{Now: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Stat(t.Context(), shared.Digest); !errors.Is(err, layout.ErrNotFound) {
		t.Errorf("the old manifest is there after gc: %v", err)
	}
}

func TestEditNothing(t *testing.T) {
	l, shared, _ := deepLayout(t)
	before := files(t, l.Dir())
	edit(t, l, func(_ *layout.Stage, tx *layout.Tx) {
		got, err := tx.EditManifest(t.Context(), shared.Digest, nil, func(m *layout.Manifest) error {
			m.SetAnnotation("k", "v")
			m.DeleteAnnotation("k")
			m.SetLayer(0, m.Layers()[0])
			return nil
		})
		if err != nil || len(got.Changes) > 0 {
			t.Errorf("%+v, %v", got, err)
		}
	})
	edit(t, l, func(_ *layout.Stage, tx *layout.Tx) {
		for _, d := range []digest.Digest{digest.FromString("absent"), "sha256:0"} {
			if _, err := tx.EditManifest(t.Context(), d, nil, func(*layout.Manifest) error { return nil }); !errors.Is(err, layout.ErrNotFound) {
				t.Errorf("EditManifest(%s) = %v", d, err)
			}
			if _, err := tx.EditIndexes(t.Context(), []digest.Digest{d}, nil, func(*layout.Index) error { return nil }); !errors.Is(err, layout.ErrNotFound) {
				t.Errorf("EditIndexes(%s) = %v", d, err)
			}
			if _, err := tx.EditEntries(t.Context(), []int{0}, d, nil, func(*ocispec.Descriptor) error { return nil }); !errors.Is(err, layout.ErrNotFound) {
				t.Errorf("EditEntries(%s) = %v", d, err)
			}
		}
	})
	failed := errors.New("no")
	err := l.Update(t.Context(), func(tx *layout.Tx) error {
		_, err := tx.EditManifest(t.Context(), shared.Digest, nil, func(m *layout.Manifest) error {
			m.RemoveLayers(0)
			return failed
		})
		return err
	})
	if !errors.Is(err, failed) {
		t.Error(err)
	}
	if diff := cmp.Diff(before, files(t, l.Dir())); diff != "" {
		t.Errorf("the layout changed:\n%s", diff)
	}
}

// Entries are edited where they stand; the artifactType of an entry follows only
// if the manifest's changed, and embedded data follows while it is small.
func TestEditEntries(t *testing.T) {
	l := newLayout(t)
	var m, top ocispec.Descriptor
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) {
		m = artifact(t, s, "m", nil)
		raw, err := layout.ReadAll(t.Context(), s, m, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		m.Data = raw
		top = index(t, s, m)
		tx.SetRef("a", top)
		tx.SetRef("b", index(t, s, top))
		tx.SetRef("plain", ocispec.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: m.Size})
	})
	edit(t, l, func(_ *layout.Stage, tx *layout.Tx) {
		x := tx.Index()
		got, err := tx.EditEntries(t.Context(), x.FindRef("b"), m.Digest, nil, func(e *ocispec.Descriptor) error {
			e.Annotations = map[string]string{"k": "v"}
			return nil
		})
		if err != nil || len(got.Changes) != 2 {
			t.Fatalf("%+v, %v", got, err)
		}
		for _, e := range x.Entries() {
			if e.Digest == m.Digest && e.Annotations["k"] != "" {
				t.Error("the entry in index.json is not below b")
			}
		}
	})
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) {
		if _, err := tx.EditManifest(t.Context(), m.Digest, nil, addLayer(t, s, "more")); err != nil {
			t.Fatal(err)
		}
	})
	matches, err := layout.Select(t.Context(), l, entriesOf(t, l, "a"), layout.Selector{})
	if err != nil || len(matches) != 1 {
		t.Fatal(matches, err)
	}
	e := matches[0].Desc
	if string(e.Data) != string(matches[0].Document.Raw) || e.ArtifactType != "" || e.Annotations["k"] != "v" {
		t.Errorf("entry %+v", e)
	}
	edit(t, l, func(_ *layout.Stage, tx *layout.Tx) {
		if _, err := tx.EditManifest(t.Context(), e.Digest, nil, func(m *layout.Manifest) error {
			m.SetArtifactType("application/x.other")
			m.SetAnnotation("long", strings.Repeat("x", 70<<10))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	})
	if matches, err = layout.Select(t.Context(), l, entriesOf(t, l, "a"), layout.Selector{}); err != nil {
		t.Fatal(err)
	}
	if e = matches[0].Desc; e.Data != nil || e.ArtifactType != "application/x.other" {
		t.Errorf("entry with %d bytes of data and the type %q", len(e.Data), e.ArtifactType)
	}
	mustVerify(t, l)
}

func entriesOf(t testing.TB, src layout.Source, ref string) []ocispec.Descriptor {
	t.Helper()
	descs, err := layout.Resolve(context.WithoutCancel(t.Context()), src, ref, "")
	if err != nil {
		t.Fatal(err)
	}
	return descs
}
