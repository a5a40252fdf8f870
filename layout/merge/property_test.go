package merge_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/merge"
)

// A world holds the indexes of all layouts of a test.
type world struct {
	docs map[digest.Digest]*layout.Document
}

func newWorld() *world { return &world{docs: map[digest.Digest]*layout.Document{}} }

type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

func (w *world) put(t fataler, x *layout.Index) ocispec.Descriptor {
	t.Helper()
	doc, err := layout.ParseDocument(x.Descriptor(), x.Bytes())
	if err != nil {
		t.Fatalf("%v", err)
	}
	w.docs[doc.Descriptor.Digest] = doc
	return doc.Descriptor
}

func (w *world) read(_ context.Context, desc ocispec.Descriptor) (*layout.Document, error) {
	if doc := w.docs[desc.Digest]; doc != nil {
		return doc, nil
	}
	return nil, fmt.Errorf("%s: %w", desc.Digest, layout.ErrNotFound)
}

func (w *world) side(name string, x *layout.Index) merge.Side {
	return merge.Side{Name: name, Index: x, Read: w.read}
}

// merge returns the new index.json.
func (w *world) merge(t fataler, base, ours *layout.Index, opts *merge.Options, theirs ...*layout.Index) (*layout.Index, *merge.Result, error) {
	t.Helper()
	var b *merge.Side
	if base != nil {
		side := w.side("base", base)
		b = &side
	}
	var sides []merge.Side
	for i, x := range theirs {
		sides = append(sides, w.side(fmt.Sprintf("s%d", i+1), x))
	}
	r, err := merge.Merge(context.Background(), b, w.side("ours", ours), sides, opts)
	if err != nil {
		return nil, nil, err
	}
	for _, doc := range r.Documents {
		w.docs[doc.Descriptor.Digest] = doc
	}
	if r.Index == nil {
		if len(r.Changes) > 0 {
			t.Fatalf("changes without a change: %+v", r.Changes)
		}
		for i, needed := range r.Needed {
			if len(needed) > 0 {
				t.Fatalf("%d descriptors of source %d are needed for no change", len(needed), i)
			}
		}
		return ours, r, nil
	}
	if len(r.Changes) == 0 {
		t.Fatalf("a change without changes")
	}
	return r.Index, r, nil
}

func (w *world) must(t fataler, base, ours *layout.Index, theirs ...*layout.Index) *layout.Index {
	t.Helper()
	x, _, err := w.merge(t, base, ours, nil, theirs...)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return x
}

// flat lists all that stands in x and below: each entry and each annotation
// with the way to it. Digests of indexes are left out, for they follow.
func (w *world) flat(t fataler, x *layout.Index) []string {
	t.Helper()
	var lines []string
	var walk func(way string, x *layout.Index, key func(ocispec.Descriptor) string)
	walk = func(way string, x *layout.Index, key func(ocispec.Descriptor) string) {
		for k, v := range x.Annotations() {
			lines = append(lines, fmt.Sprintf("%s @%s=%s", way, k, v))
		}
		lines = append(lines, way+" type="+x.ArtifactType())
		for _, e := range x.Entries() {
			here := way + "/" + key(e)
			for k, v := range e.Annotations {
				lines = append(lines, fmt.Sprintf("%s %s=%s", here, k, v))
			}
			if e.Platform != nil {
				lines = append(lines, fmt.Sprintf("%s platform=%v", here, *e.Platform))
			}
			if !layout.IsIndex(e.MediaType) {
				lines = append(lines, here+" "+string(e.Digest))
				continue
			}
			doc, err := w.read(context.Background(), e)
			if err != nil {
				t.Fatalf("%v", err)
			}
			child, err := layout.ParseIndex(doc.Raw)
			if err != nil {
				t.Fatalf("%v", err)
			}
			walk(here, child, merge.Key)
		}
	}
	walk("", x, merge.RootKey)
	slices.Sort(lines)
	return lines
}

// A maker draws layouts.
type maker struct {
	t        *rapid.T
	w        *world
	conflict bool // may one key have several states?
}

func (m maker) flip(label string) bool { return rapid.Bool().Draw(m.t, label) }

// state is the content of a key: one for all layouts, unless they may conflict.
func (m maker) state(way string) string {
	if m.conflict {
		return fmt.Sprintf("%s#%d", way, rapid.IntRange(0, 2).Draw(m.t, "state"))
	}
	return way
}

func (m maker) annotations(way string) map[string]string {
	a := map[string]string{}
	for _, k := range []string{"one", "two"} {
		if m.flip(k) {
			a[k] = m.state(way + "@" + k)
		}
	}
	return a
}

func (m maker) manifest(way string) ocispec.Descriptor {
	text := m.state(way)
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(text), Size: int64(len(text)), Annotations: m.annotations(way)}
}

// index draws an image index; depth more levels may be below it.
func (m maker) index(way string, depth int) *layout.Index {
	x := layout.NewIndex()
	for k, v := range m.annotations(way) {
		x.SetAnnotation(k, v)
	}
	if m.flip("type") {
		x.SetArtifactType(m.state("application/x." + strings.ReplaceAll(way, "/", ".")))
	}
	for _, arch := range []string{"amd64", "arm64"} {
		if m.flip("runtime " + arch) {
			e := m.manifest(way + "/" + arch)
			e.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
			x.Add(e)
		}
	}
	for _, cname := range []string{"aws", "kvm"} {
		if m.flip(cname) {
			e := m.manifest(way + "/" + cname)
			e.Annotations["cname"] = cname + "-amd64-1.0"
			e.Platform = &ocispec.Platform{OS: "gardenlinux", Architecture: "amd64", OSVersion: "1.0"}
			x.Add(e)
		}
	}
	if m.flip("other") {
		e := m.manifest(way + "/other")
		x.Add(e)
	}
	for _, name := range []string{"p", "q"} {
		if depth > 0 && m.flip("nested "+name) {
			e := m.w.put(m.t, m.index(way+"/"+name, depth-1))
			e.Annotations = map[string]string{"group": name}
			if m.flip("ref") { // known by its ref name, and free to say more
				e.Annotations = m.annotations(way + "/ref")
				e.Annotations[ocispec.AnnotationRefName] = name
			}
			x.Add(e)
		}
	}
	x.Sort()
	return x
}

// layout draws an index.json.
func (m maker) layout() *layout.Index {
	x := layout.NewIndex()
	for k, v := range m.annotations("root") {
		x.SetAnnotation(k, v)
	}
	for _, name := range []string{"1.0", "latest"} {
		if m.flip(name) {
			e := m.w.put(m.t, m.index(name, 2))
			e.Annotations = m.annotations(name)
			e.Annotations[ocispec.AnnotationRefName] = name
			x.Add(e)
		}
	}
	if m.flip("image") {
		e := m.manifest("image")
		e.Annotations[ocispec.AnnotationRefName] = "image"
		x.Add(e)
	}
	if m.flip("unnamed") {
		x.Add(m.manifest("unnamed"))
	}
	x.Sort()
	return x
}

func check(t *testing.T, conflict bool, fn func(t *rapid.T, w *world, m maker)) {
	t.Helper()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		fn(t, w, maker{t, w, conflict})
	})
}

func same(t *rapid.T, what string, a, b *layout.Index) {
	t.Helper()
	if string(a.Bytes()) != string(b.Bytes()) {
		t.Fatalf("%s:\n%s\n%s", what, a.Bytes(), b.Bytes())
	}
}

func TestUnionLaws(t *testing.T) {
	check(t, false, func(t *rapid.T, w *world, m maker) {
		a, b, c := m.layout(), m.layout(), m.layout()
		ab := w.must(t, nil, a, b)
		same(t, "not commutative", ab, w.must(t, nil, b, a))
		same(t, "not associative", w.must(t, nil, ab, c), w.must(t, nil, a, w.must(t, nil, b, c)))
		same(t, "not as one by one", w.must(t, nil, ab, c), w.must(t, nil, a, b, c))
		same(t, "not the same in another order", w.must(t, nil, a, b, c), w.must(t, nil, a, c, b))
		want := map[string]bool{}
		for _, x := range []*layout.Index{a, b} {
			for _, line := range w.flat(t, x) {
				want[line] = true
			}
		}
		got := w.flat(t, ab)
		for _, line := range got { // an index without a type has none of its own
			delete(want, strings.TrimSuffix(line, "type=")+"type=")
			delete(want, line)
		}
		for line := range want {
			if way, rest, ok := strings.Cut(line, " type="); ok && rest == "" && slices.ContainsFunc(got, func(g string) bool { return strings.HasPrefix(g, way+" type=") }) {
				delete(want, line)
			}
		}
		if len(want) > 0 {
			t.Fatalf("lost: %q\nof %q", slices.Sorted(maps.Keys(want)), got)
		}
	})
}

func TestIdempotent(t *testing.T) {
	check(t, true, func(t *rapid.T, w *world, m maker) {
		a, b, c := m.layout(), m.layout(), m.layout()
		if _, r, err := w.merge(t, nil, a, nil, a, a); err != nil || r.Index != nil {
			t.Fatalf("merged with itself: %v, changed: %v", err, r)
		}
		for _, opts := range []*merge.Options{nil, {OnConflict: merge.Ours}, {OnConflict: merge.Theirs}} {
			once, _, err := w.merge(t, nil, a, opts, b, c)
			if err != nil {
				if !errors.Is(err, layout.ErrConflict) {
					t.Fatalf("%v", err)
				}
				_, _, other := w.merge(t, nil, a, opts, c, b)
				if other == nil {
					t.Fatalf("a conflict only in one order: %v", err)
				}
				continue
			}
			other, _, err := w.merge(t, nil, a, opts, c, b)
			if err != nil {
				t.Fatalf("a conflict only in one order: %v", err)
			}
			same(t, "not the same in another order", once, other)
			if _, r, err := w.merge(t, nil, once, opts, b, c); err != nil || r.Index != nil {
				t.Fatalf("the second time: %v, changes %+v", err, r)
			}
		}
	})
}

func TestThreeWayLaws(t *testing.T) {
	check(t, true, func(t *rapid.T, w *world, m maker) {
		base, a, b := m.layout(), m.layout(), m.layout()
		got := w.flat(t, w.must(t, base, base, a))
		if want := w.flat(t, a); !slices.Equal(got, want) {
			t.Fatalf("we changed nothing, and have not what they have:\n%q\n%q", got, want)
		}
		same(t, "they changed nothing, but we have something else", a, w.must(t, base, a, base))
		same(t, "both changed alike, but we have something else", a, w.must(t, base, a, a))
		same(t, "one changed, another not", w.must(t, base, base, a), w.must(t, base, base, base, a))
		ab, _, errAB := w.merge(t, base, a, nil, b)
		ba, _, errBA := w.merge(t, base, b, nil, a)
		if (errAB == nil) != (errBA == nil) {
			t.Fatalf("a conflict on one side only: %v, %v", errAB, errBA)
		}
		if errAB == nil {
			if x, y := w.flat(t, ab), w.flat(t, ba); !slices.Equal(x, y) {
				t.Fatalf("not commutative:\n%q\n%q", x, y)
			}
			same(t, "not the same bytes", ab, ba)
		}
	})
}

// Deleting and adding: what nobody names in a three-way merge stays.
func TestThreeWayKeepsTheRest(t *testing.T) {
	check(t, false, func(t *rapid.T, w *world, m maker) {
		a, b := m.layout(), m.layout()
		union := w.must(t, nil, a, b)
		// From the union, one side takes out what only a has, the other nothing.
		got := w.must(t, union, union, b)
		if x, y := w.flat(t, got), w.flat(t, b); !slices.Equal(x, y) {
			t.Fatalf("not deleted:\n%q\n%q", x, y)
		}
	})
}
