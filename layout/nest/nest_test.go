package nest_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/nest"
)

var key = nest.Key(nil)

// commit stores x and what is below it and returns it as it is read again.
func commit(t testing.TB, l *layout.Layout, edit *nest.Edit) *layout.Index {
	t.Helper()
	s, err := l.Stage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, x := range append(slices.Clone(edit.Below), edit.Index) {
		if _, err := s.AddBytes(t.Context(), x.Bytes(), x.MediaType()); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Update(t.Context(), func(*layout.Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	x, err := layout.ParseIndex(edit.Index.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func newLayout(t testing.TB) *layout.Layout {
	t.Helper()
	l, err := layout.Create(t.Context(), filepath.Join(t.TempDir(), "l"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// Nested and flattened, an index is what it was, with all unknown fields, and a
// second time nothing happens.
func TestGroupFlatten(t *testing.T) {
	l := newLayout(t)
	rapid.Check(t, func(r *rapid.T) {
		var items []string
		platforms := []string{"", `,"platform":{"architecture":"amd64","os":"linux"}`, `,"platform":{"architecture":"arm64","os":"linux"}`}
		for i := range rapid.IntRange(0, 8).Draw(r, "entries") {
			annotations := map[bool]string{true: `"k":"v"`}[rapid.Bool().Draw(r, "annotation")]
			if g := rapid.SampledFrom([]string{"", "a", "b", "c,\\\""}).Draw(r, "group"); g != "" {
				annotations = strings.Trim(annotations+`,"group":"`+g+`"`, ",")
			}
			p := 0
			if len(platforms) > 1 {
				p = rapid.IntRange(0, len(platforms)-1).Draw(r, "platform")
			}
			platform := platforms[p]
			if p > 0 { // each only once: two would be a conflict in one group
				platforms = slices.Delete(platforms, p, p+1)
			}
			extra := rapid.SampledFrom([]string{"", `,"x-unknown":{"a":[1.50]}`}).Draw(r, "unknown")
			items = append(items, fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":%d,"annotations":{%s}%s%s}`,
				digest.FromString(fmt.Sprint(i)), i, annotations, platform, extra))
		}
		x, err := layout.ParseIndex([]byte(`{"schemaVersion":2,"x-top":null,"manifests":[` + strings.Join(items, ",") + `],"annotations":{"own":"yes"}}`))
		if err != nil {
			r.Fatal(err)
		}
		x.Sort()
		x.SetArtifactType("application/x.set")
		before := string(x.Bytes())
		by := func(desc ocispec.Descriptor) (string, string) { return "group", desc.Annotations["group"] }
		edit, err := nest.Group(t.Context(), l, x, by, key)
		if err != nil {
			r.Fatal(err)
		}
		grouped := commit(t, l, edit)
		for _, e := range grouped.Entries() {
			if _, group := by(e); group != "" && !layout.IsIndex(e.MediaType) {
				r.Fatalf("%s stayed", e.Digest)
			}
		}
		again, err := nest.Group(t.Context(), l, grouped, by, key)
		if err != nil || string(again.Index.Bytes()) != string(grouped.Bytes()) {
			r.Fatalf("a second time: %v\n%s\n%s", err, grouped.Bytes(), again.Index.Bytes())
		}
		flat, err := nest.Flatten(t.Context(), l, grouped, key, false)
		if err != nil {
			r.Fatal(err)
		}
		if string(flat.Index.Bytes()) != before {
			r.Fatalf("grouped and flattened:\n%s\n%s", before, flat.Index.Bytes())
		}
	})
}

func entry(word string) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(word), Size: int64(len(word))}
}

func TestPut(t *testing.T) {
	amd := &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	x := layout.NewIndex()
	a, b := entry("a"), entry("b")
	a.Platform, b.Platform = amd, amd
	if _, err := nest.Put(x, a, key, false); err != nil {
		t.Fatal(err)
	}
	a.Annotations = map[string]string{"k": "v"}
	if _, err := nest.Put(x, a, key, false); err != nil || x.Len() != 1 || x.Entries()[0].Annotations["k"] != "v" {
		t.Errorf("put again: %v, %v", err, x.Entries())
	}
	var conflict *nest.Conflict
	if _, err := nest.Put(x, b, key, false); !errors.Is(err, layout.ErrConflict) || !errors.As(err, &conflict) || conflict.Key != "platform:linux/amd64" {
		t.Errorf("put another: %v, want a Conflict", err)
	}
	old, err := nest.Put(x, b, key, true)
	if err != nil || old == nil || old.Digest != a.Digest || x.Len() != 1 || x.Entries()[0].Digest != b.Digest {
		t.Errorf("replaced %v, %v; now %v", old, err, x.Entries())
	}
}

// Two entries with one key cannot come into one index.
func TestConflicts(t *testing.T) {
	l := newLayout(t)
	amd := &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	x := layout.NewIndex()
	for _, word := range []string{"a", "b"} {
		e := entry(word)
		e.Platform, e.Annotations = amd, map[string]string{"group": "g"}
		x.Add(e)
	}
	by := func(desc ocispec.Descriptor) (string, string) { return "group", desc.Annotations["group"] }
	if _, err := nest.Group(t.Context(), l, x, by, key); !errors.Is(err, layout.ErrConflict) {
		t.Errorf("Group = %v, want ErrConflict", err)
	}
	top, below := layout.NewIndex(), layout.NewIndex()
	top.Add(x.Entries()[0])
	below.Add(x.Entries()[1])
	below.SetArtifactType("application/x.set")
	commit(t, l, &nest.Edit{Index: below})
	top.Add(below.Descriptor())
	top.Sort()
	_, err := nest.Flatten(t.Context(), l, top, key, false)
	if !errors.Is(err, layout.ErrConflict) || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("Flatten = %v, want two lines of ErrConflict", err)
	}
	if _, err = nest.Flatten(t.Context(), l, top, key, true); !errors.Is(err, layout.ErrConflict) || strings.Contains(err.Error(), "\n") {
		t.Errorf("Flatten, drop = %v, want one ErrConflict", err)
	}
}

// A platform is handed down to what could be an image, never to an artifact.
func TestFlattenInherits(t *testing.T) {
	l := newLayout(t)
	below, top := layout.NewIndex(), layout.NewIndex()
	art := entry("artifact")
	art.ArtifactType = "application/x"
	art.Annotations = map[string]string{"own": "inner"}
	below.Add(entry("image"))
	below.Add(art)
	below.SetAnnotation("index", "says")
	below.Sort()
	commit(t, l, &nest.Edit{Index: below})
	d := below.Descriptor()
	d.Platform = &ocispec.Platform{OS: "linux", Architecture: "arm64"}
	d.Annotations = map[string]string{"own": "outer", "architecture": "arm64", ocispec.AnnotationRefName: "nested"}
	top.Add(d)
	flat, err := nest.Flatten(t.Context(), l, top, key, false)
	if err != nil {
		t.Fatal(err)
	}
	got := string(flat.Index.Bytes())
	for _, want := range []string{
		fmt.Sprintf(`"%s","size":5,"annotations":{"index":"says","own":"outer"},"platform":{"architecture":"arm64","os":"linux"}}`, digest.FromString("image")),
		fmt.Sprintf(`"%s","size":8,"annotations":{"architecture":"arm64","index":"says","own":"inner"},"artifactType":"application/x"}`, digest.FromString("artifact")),
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
}

func TestCheckDepth(t *testing.T) {
	l := newLayout(t)
	desc := entry("leaf")
	shallow := desc
	for i := 1; i <= 16; i++ {
		if err := nest.CheckDepth(t.Context(), l, []ocispec.Descriptor{shallow, desc}); err != nil {
			t.Fatalf("%d indexes: %v", i-1, err)
		}
		x := layout.NewIndex()
		children := []ocispec.Descriptor{shallow, desc} // a walk that has been at one does not go there again
		if i%2 == 0 {
			slices.Reverse(children)
		}
		x.Add(children[0])
		x.Add(children[1])
		commit(t, l, &nest.Edit{Index: x})
		desc = x.Descriptor()
	}
	if err := nest.CheckDepth(t.Context(), l, []ocispec.Descriptor{shallow, desc}); !errors.Is(err, layout.ErrInvalid) {
		t.Errorf("16 indexes over a manifest: %v, want ErrInvalid", err)
	}
}
