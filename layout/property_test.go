package layout_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"

	"github.com/gardenlinux/gloci-layout/layout"
)

// A grove is a random layout: indexes in indexes that share manifests, with
// fields and annotations at every level that nobody knows. Its documents are in
// canonical form, so that edits which undo each other give the same bytes.
type grove struct {
	t         *rapid.T
	dir       string
	n         int      // to make things differ
	manifests []object // descriptors
	indexes   []object
}

type object = map[string]any

// as returns v, which is a T, or the zero value.
func as[T any](v any) T {
	t, _ := v.(T)
	return t
}

func newGrove(t *rapid.T, dir string) *grove {
	g := &grove{t: t, dir: dir}
	must(t, os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
	for range rapid.IntRange(1, 4).Draw(t, "manifests") {
		g.manifests = append(g.manifests, g.manifest())
	}
	below := g.manifests
	for level := range rapid.IntRange(0, 4).Draw(t, "levels") {
		var made []object
		for range rapid.IntRange(1, 2).Draw(t, fmt.Sprintf("indexes of level %d", level)) {
			made = append(made, g.index(below))
		}
		g.indexes = append(g.indexes, made...)
		below = slices.Concat(below, made)
	}
	var entries []object
	for i, d := range below {
		if i > 0 && rapid.IntRange(0, 2).Draw(t, "listed") == 0 {
			continue
		}
		e := g.entry(d)
		if rapid.Bool().Draw(t, "named") {
			annotations, _ := e["annotations"].(object)
			e["annotations"] = object{ocispec.AnnotationRefName: fmt.Sprintf("ref-%d", i)}
			maps.Copy(as[object](e["annotations"]), annotations)
		}
		entries = append(entries, e)
	}
	x := g.strange(object{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "manifests": entries})
	must(t, os.WriteFile(filepath.Join(dir, "index.json"), g.canonical(x, true), 0o644))
	return g
}

func must(t rapid.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// strange adds unknown fields and annotations.
func (g *grove) strange(o object) object {
	g.n++
	for i := range rapid.IntRange(0, 2).Draw(g.t, "unknown fields") {
		o[fmt.Sprintf("x-%d", i)] = rapid.SampledFrom([]any{
			g.n, "text <&> \u2028 " + fmt.Sprint(g.n), nil, []any{true, object{"b": 1, "a": []any{}}}, json.Number("1.50"), json.Number("1e3"),
		}).Draw(g.t, "value")
	}
	if rapid.Bool().Draw(g.t, "annotated") {
		o["annotations"] = object{"note": fmt.Sprintf("a,b=%d", g.n), rapid.StringMatching(`[a-z]{1,3}/[a-z]`).Draw(g.t, "key"): ""}
	}
	return o
}

func (g *grove) blob(mediaType string, content []byte) object {
	d := digest.FromBytes(content)
	must(g.t, os.WriteFile(filepath.Join(g.dir, "blobs", "sha256", d.Encoded()), content, 0o644))
	return object{"mediaType": mediaType, "digest": string(d), "size": len(content)}
}

// canonical makes o a document as the program writes it.
func (g *grove) canonical(o object, sorted bool) []byte {
	raw, err := json.Marshal(o)
	must(g.t, err)
	if _, ok := o["manifests"]; ok {
		x, err := layout.ParseIndex(raw)
		must(g.t, err)
		x.SetAnnotation("touched", "")
		x.DeleteAnnotation("touched")
		if sorted {
			x.Sort()
		}
		return x.Bytes()
	}
	m, err := layout.ParseManifest(raw, ocispec.MediaTypeImageManifest)
	must(g.t, err)
	m.SetAnnotation("touched", "")
	m.DeleteAnnotation("touched")
	return m.Bytes()
}

func (g *grove) manifest() object {
	g.n++
	o := g.strange(object{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest, "config": g.strange(g.blob(ocispec.MediaTypeEmptyJSON, []byte("{}")))})
	var layers []object
	for range rapid.IntRange(0, 3).Draw(g.t, "layers") {
		g.n++
		layers = append(layers, g.strange(g.blob("application/x.layer", fmt.Appendf(nil, "layer %d", g.n))))
	}
	o["layers"] = layers
	if rapid.Bool().Draw(g.t, "typed") {
		o["artifactType"] = "application/x.test"
	}
	if len(g.manifests) > 0 && rapid.Bool().Draw(g.t, "refers") {
		o["subject"] = g.strange(maps.Clone(rapid.SampledFrom(g.manifests).Draw(g.t, "subject")))
	}
	return g.blob(ocispec.MediaTypeImageManifest, g.canonical(o, false))
}

func (g *grove) index(below []object) object {
	entries := []object{}
	for range rapid.IntRange(0, 3).Draw(g.t, "entries") {
		entries = append(entries, g.entry(rapid.SampledFrom(below).Draw(g.t, "entry")))
	}
	o := g.strange(object{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "manifests": entries})
	if rapid.Bool().Draw(g.t, "refers") {
		o["subject"] = maps.Clone(rapid.SampledFrom(g.manifests).Draw(g.t, "subject"))
	}
	return g.blob(ocispec.MediaTypeImageIndex, g.canonical(o, rapid.Bool().Draw(g.t, "sorted")))
}

func (g *grove) entry(desc object) object {
	e := g.strange(maps.Clone(desc))
	switch rapid.IntRange(0, 3).Draw(g.t, "entry") {
	case 0:
		e["platform"] = object{"os": rapid.SampledFrom([]string{"linux", "gardenlinux"}).Draw(g.t, "os"), "architecture": "amd64", "x-cpu": []any{1}}
	case 1:
		content, err := os.ReadFile(filepath.Join(g.dir, "blobs", "sha256", strings.TrimPrefix(as[string](desc["digest"]), "sha256:")))
		must(g.t, err)
		e["data"] = content
	case 2:
		e["artifactType"] = "application/x.entry"
	}
	return e
}

// A trial is an edit, what it is expected to do to the view, and what undoes it;
// undo may be nil.
type trial struct {
	name   string
	do     func(s *layout.Stage, tx *layout.Tx) (*layout.Edit, error)
	expect *view
	undo   func(s *layout.Stage, tx *layout.Tx, now digest.Digest) (*layout.Edit, error)
	target digest.Digest
}

func annotate(o object, key, value string) object {
	annotations, _ := o["annotations"].(object)
	annotations = maps.Clone(annotations)
	if annotations == nil {
		annotations = object{}
	}
	annotations[key] = value
	o["annotations"] = annotations
	return o
}

const newKey, newValue = "org.example/new", "a=1,b-"

func (g *grove) trial(ctx context.Context) trial {
	move := &layout.EditOptions{MoveReferrers: rapid.Bool().Draw(g.t, "move referrers")}
	target := as[string](rapid.SampledFrom(g.manifests).Draw(g.t, "manifest")["digest"])
	d := digest.Digest(target)
	v := &view{t: g.t, dir: g.dir, follow: move.MoveReferrers, edit: map[string]func(object){}, entry: map[string]func(object) object{}}
	onManifest := func(name string, do, undo func(s *layout.Stage, m *layout.Manifest) error, expect func(o object)) trial {
		v.edit[target] = expect
		return trial{
			name: name, target: d, expect: v,
			do: func(s *layout.Stage, tx *layout.Tx) (*layout.Edit, error) {
				return tx.EditManifest(ctx, d, move, func(m *layout.Manifest) error { return do(s, m) })
			},
			undo: func(s *layout.Stage, tx *layout.Tx, now digest.Digest) (*layout.Edit, error) {
				return tx.EditManifest(ctx, now, move, func(m *layout.Manifest) error { return undo(s, m) })
			},
		}
	}
	added := object{"new": object{"mediaType": "application/x.new", "content": "new layer"}}
	kinds := []string{"attach", "annotate", "annotate entries", "remove entries", "replace"}
	if len(g.indexes) > 0 {
		kinds = append(kinds, "annotate index")
	}
	switch kind := rapid.SampledFrom(kinds).Draw(g.t, "edit"); kind {
	case "attach":
		return onManifest(kind, func(s *layout.Stage, m *layout.Manifest) error {
			desc, err := s.AddBytes(ctx, []byte("new layer"), "application/x.new")
			m.AddLayer(desc)
			return err
		}, func(_ *layout.Stage, m *layout.Manifest) error {
			m.RemoveLayers(len(m.Layers()) - 1)
			return nil
		}, func(o object) { o["layers"] = append(as[[]any](o["layers"]), added) })
	case "replace":
		var old ocispec.Descriptor
		return onManifest(kind, func(s *layout.Stage, m *layout.Manifest) error {
			layers := m.Layers()
			if len(layers) == 0 {
				return nil
			}
			old = layers[0]
			desc, err := s.AddBytes(ctx, []byte("new layer"), "application/x.new")
			desc.Annotations = old.Annotations
			m.SetLayer(0, desc)
			return err
		}, func(_ *layout.Stage, m *layout.Manifest) error {
			if old.Digest != "" {
				m.SetLayer(0, old)
			}
			return nil
		}, func(o object) {
			if layers := as[[]any](o["layers"]); len(layers) > 0 {
				layer := maps.Clone(as[object](layers[0]))
				delete(layer, "digest")
				delete(layer, "size")
				layer["mediaType"], layer["content"] = "application/x.new", "new layer"
				layers[0] = object{"new": layer}
			}
		})
	case "annotate":
		return onManifest(kind, func(_ *layout.Stage, m *layout.Manifest) error {
			m.SetAnnotation(newKey, newValue)
			return nil
		}, func(_ *layout.Stage, m *layout.Manifest) error {
			m.DeleteAnnotation(newKey)
			return nil
		}, func(o object) { annotate(o, newKey, newValue) })
	case "annotate index":
		target = as[string](rapid.SampledFrom(g.indexes).Draw(g.t, "index")["digest"])
		v.edit[target] = func(o object) { annotate(o, newKey, newValue) }
		run := func(tx *layout.Tx, d digest.Digest, fn func(x *layout.Index)) (*layout.Edit, error) {
			return tx.EditIndexes(ctx, []digest.Digest{d}, move, func(x *layout.Index) error { fn(x); return nil })
		}
		return trial{
			name: kind, target: digest.Digest(target), expect: v,
			do: func(_ *layout.Stage, tx *layout.Tx) (*layout.Edit, error) {
				return run(tx, digest.Digest(target), func(x *layout.Index) { x.SetAnnotation(newKey, newValue) })
			},
			undo: func(_ *layout.Stage, tx *layout.Tx, now digest.Digest) (*layout.Edit, error) {
				return run(tx, now, func(x *layout.Index) { x.DeleteAnnotation(newKey) })
			},
		}
	case "annotate entries":
		v.entry[target] = func(o object) object { return annotate(o, newKey, newValue) }
		run := func(tx *layout.Tx, fn func(e *ocispec.Descriptor)) (*layout.Edit, error) {
			return tx.EditEntries(ctx, numbers(tx), d, move, func(e *ocispec.Descriptor) error { fn(e); return nil })
		}
		return trial{
			name: kind, target: d, expect: v,
			do: func(_ *layout.Stage, tx *layout.Tx) (*layout.Edit, error) {
				return run(tx, func(e *ocispec.Descriptor) {
					if e.Annotations == nil {
						e.Annotations = map[string]string{}
					}
					e.Annotations[newKey] = newValue
				})
			},
			undo: func(_ *layout.Stage, tx *layout.Tx, _ digest.Digest) (*layout.Edit, error) {
				return run(tx, func(e *ocispec.Descriptor) { delete(e.Annotations, newKey) })
			},
		}
	default:
		v.entry[target] = func(object) object { return nil }
		v.follow = false
		return trial{name: kind, target: d, expect: v, do: func(_ *layout.Stage, tx *layout.Tx) (*layout.Edit, error) {
			_, err := tx.RemoveEntries(ctx, numbers(tx), map[digest.Digest]bool{d: true})
			return &layout.Edit{}, err
		}}
	}
}

func numbers(tx *layout.Tx) []int {
	all := make([]int, tx.Index().Len())
	for i := range all {
		all[i] = i
	}
	return all
}

// reachableFiles returns index.json and what it leads to by entries.
func reachableFiles(t rapid.TB, l *layout.Layout) map[string]string {
	raw, err := os.ReadFile(filepath.Join(l.Dir(), "index.json"))
	must(t, err)
	m := map[string]string{"index.json": string(raw)}
	x, err := l.Index(context.Background())
	must(t, err)
	for n, err := range layout.Walk(context.Background(), l, x.Entries(), &layout.WalkOptions{NoSubjects: true}) {
		must(t, err)
		m[string(n.Desc.Digest)] = ""
	}
	return m
}

// reaches tells whether the edit would find its target.
func (g *grove) reaches(l *layout.Layout, d digest.Digest) bool {
	_, ok := reachableFiles(g.t, l)[string(d)]
	return ok
}

// TestEditProperties: random edits of random layouts do to what the layout says
// what they should and nothing else, leave it sound, and are undone to the byte.
func TestEditProperties(t *testing.T) {
	ctx := t.Context()
	undone, moved, deep := 0, 0, 0
	base, err := os.MkdirTemp("/dev/shm", "gloci-property-") // every edit syncs many files
	if err != nil {
		base = t.TempDir()
	}
	defer os.RemoveAll(base)
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(base, "grove")
		must(rt, err)
		defer os.RemoveAll(dir)
		g := newGrove(rt, dir)
		l, err := layout.Open(ctx, dir, nil)
		must(rt, err)
		defer l.Close()
		for range rapid.IntRange(1, 3).Draw(rt, "edits") {
			tr := g.trial(ctx)
			if !g.reaches(l, tr.target) {
				continue
			}
			before := reachableFiles(rt, l)
			want := tr.expect.layout()
			plain := view{t: rt, dir: dir}
			same := want == plain.layout()
			s, err := l.Stage(ctx)
			must(rt, err)
			var got *layout.Edit
			must(rt, s.Update(ctx, func(tx *layout.Tx) error { got, err = tr.do(s, tx); return err }))
			if diff := cmp.Diff(want, plain.layout()); diff != "" {
				rt.Fatalf("%s of %s (-want +got):\n%s", tr.name, tr.target, diff)
			}
			g.verify(l)
			if same && !maps.Equal(before, reachableFiles(rt, l)) {
				rt.Fatalf("%s of %s changes nothing but bytes", tr.name, tr.target)
			}
			moved += len(got.Moved)
			deep = max(deep, len(got.Changes))
			if tr.undo != nil {
				now := tr.target
				for _, c := range got.Changes {
					if c.Old.Digest == tr.target {
						now = c.New.Digest
					}
				}
				must(rt, s.Update(ctx, func(tx *layout.Tx) error { _, err = tr.undo(s, tx, now); return err }))
				if diff := cmp.Diff(before, reachableFiles(rt, l)); diff != "" {
					rt.Fatalf("%s of %s, and back (-before +after):\n%s", tr.name, tr.target, diff)
				}
				undone++
			}
			must(rt, s.Close())
		}
	})
	if undone == 0 || moved == 0 || deep < 4 {
		t.Errorf("%d edits undone, %d referrers moved, at most %d documents changed: the test shows nothing", undone, moved, deep)
	}
}

func (g *grove) verify(l *layout.Layout) {
	r, err := layout.Verify(context.Background(), l, nil)
	must(g.t, err)
	for _, f := range r.Findings {
		g.t.Errorf("verify: %s %s: %s", f.Kind, f.Path, f.Detail)
	}
}
