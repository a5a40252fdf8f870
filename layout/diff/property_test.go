package diff_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout/diff"
	"github.com/gardenlinux/gloci-layout/layout/diff/filediff"
)

// A model is a layout that can be edited: images below ref names, by platform,
// and artifacts.
type model map[string]*modelRef

type modelRef struct {
	images map[string]*modelImage // by architecture; nil for an artifact
	layers map[string]string      // of an artifact, by title
	note   string                 // an annotation of it
}

type modelImage struct {
	env   string
	files map[string]string
	zstd  bool
}

func (m model) clone() model {
	c := model{}
	for ref, r := range m {
		n := &modelRef{layers: maps.Clone(r.layers), note: r.note}
		if r.images != nil {
			n.images = map[string]*modelImage{}
			for arch, i := range r.images {
				n.images[arch] = &modelImage{i.env, maps.Clone(i.files), i.zstd}
			}
		}
		c[ref] = n
	}
	return c
}

// store writes the model.
func (m model) store() *store {
	s := newStore()
	for _, ref := range slices.Sorted(maps.Keys(m)) {
		r := m[ref]
		if r.images == nil {
			annotations := map[string]string{"note": r.note}
			s.entries = append(s.entries, named(s.artifact("application/x-"+ref, annotations, r.layers), ref))
			continue
		}
		var entries []ocispec.Descriptor
		for _, arch := range slices.Sorted(maps.Keys(r.images)) {
			i := r.images[arch]
			f := compress.Gzip
			if i.zstd {
				f = compress.Zstd
			}
			entries = append(entries, s.image(arch, ocispec.ImageConfig{Env: []string{"V=" + i.env}}, f, i.files))
		}
		s.entries = append(s.entries, named(s.index(entries...), ref))
	}
	return s
}

var (
	refNames = []string{"app", "base", "db", "web"}
	arches   = []string{"amd64", "arm64", "riscv64"}
	paths    = []string{"bin/sh", "etc/hosts", "etc/motd", "usr/lib/a.so", "usr/lib/b.so", "var/x"}
	titles   = []string{"image.raw", "image.vhd", "notes.txt"}
)

func drawModel(t *rapid.T) model {
	content := rapid.StringMatching(`[a-z]{0,20}`)
	some := func(label string, from []string, least int) []string {
		return rapid.SliceOfNDistinct(rapid.SampledFrom(from), least, len(from), rapid.ID[string]).Draw(t, label)
	}
	m := model{}
	for _, ref := range some("refs", refNames, 1) {
		r := &modelRef{note: content.Draw(t, "note")}
		m[ref] = r
		if rapid.Bool().Draw(t, "artifact") {
			r.layers = map[string]string{}
			for _, title := range some("titles", titles, 0) {
				r.layers[title] = title + content.Draw(t, "layer")
			}
			continue
		}
		r.images = map[string]*modelImage{}
		for _, arch := range some("arches", arches, 1) {
			i := &modelImage{env: content.Draw(t, "env"), files: map[string]string{}, zstd: rapid.Bool().Draw(t, "zstd")}
			for _, p := range some("paths", paths, 0) {
				i.files[p] = content.Draw(t, "content")
			}
			// No two images are the same, or the edit of one would be the other.
			i.files["id"] = ref + arch
			r.images[arch] = i
		}
	}
	return m
}

// An edit changes b, which came from a, and returns what has to be found; ""
// where it cannot be done. what says on which thing it works, so that no other
// does.
func drawEdit(t *rapid.T, b model, taken map[string]bool) []string {
	refs := slices.Sorted(maps.Keys(b))
	ref := rapid.SampledFrom(refs).Draw(t, "ref")
	r := b[ref]
	claim := func(what string) bool {
		if taken[what] {
			return false
		}
		taken[what] = true
		return true
	}
	if r.images == nil {
		switch rapid.IntRange(0, 3).Draw(t, "edit of an artifact") {
		case 0:
			if claim(ref + "/note") {
				old := r.note
				r.note += "!"
				return []string{fmt.Sprintf("manifest changed %s %s /annotations/note=%s>%s", ref, ref, old, r.note)}
			}
		case 1:
			title := rapid.SampledFrom(titles).Draw(t, "title")
			if _, ok := r.layers[title]; ok && claim(ref+"/"+title) {
				r.layers[title] += "!"
				return []string{"layer changed " + ref + " " + ref + " " + title}
			}
		case 2:
			title := rapid.SampledFrom(titles).Draw(t, "title")
			if _, ok := r.layers[title]; ok && claim(ref+"/"+title) {
				delete(r.layers, title)
				return []string{"layer removed " + ref + " " + ref + " " + title}
			}
		case 3:
			title := rapid.SampledFrom(titles).Draw(t, "title")
			if _, ok := r.layers[title]; !ok && claim(ref+"/"+title) {
				r.layers[title] = title + " new"
				return []string{"layer added " + ref + " " + ref + " " + title}
			}
		}
		return nil
	}
	arch := rapid.SampledFrom(slices.Sorted(maps.Keys(r.images))).Draw(t, "arch")
	i, at := r.images[arch], ref+" linux/"+arch
	p := rapid.SampledFrom(paths).Draw(t, "path")
	_, there := i.files[p]
	switch rapid.IntRange(0, 4).Draw(t, "edit of an image") {
	case 0:
		if claim(at + "/env") {
			old := i.env
			i.env += "!"
			return []string{fmt.Sprintf("config changed %s /config/Env/V=%s>%s", at, old, i.env)}
		}
	case 1:
		if there && claim(at+"/"+p) {
			i.files[p] += "!"
			return []string{"file changed " + at + " layer 1 " + p}
		}
	case 2:
		if there && claim(at+"/"+p) {
			delete(i.files, p)
			return []string{"file removed " + at + " layer 1 " + p}
		}
	case 3:
		if !there && claim(at+"/"+p) {
			i.files[p] = "new"
			return []string{"file added " + at + " layer 1 " + p}
		}
	case 4:
		for _, other := range arches {
			if r.images[other] == nil && claim(ref+" linux/"+other) {
				r.images[other] = &modelImage{files: map[string]string{"id": ref + other}}
				for _, what := range []string{"/env", "/bin/sh", "/etc/hosts", "/etc/motd", "/usr/lib/a.so", "/usr/lib/b.so", "/var/x"} {
					taken[ref+" linux/"+other+what] = true
				}
				return []string{"index added " + ref + " linux/" + other}
			}
		}
	}
	return nil
}

// Edits of a random layout are found, each where it was made, and nothing else
// but the headings above them.
func TestEdits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawModel(t)
		b := a.clone()
		var want []string
		taken := map[string]bool{}
		for range rapid.IntRange(0, 6).Draw(t, "edits") {
			want = append(want, drawEdit(t, b, taken)...)
		}
		sa, sb := diff.Side{Source: a.store()}, diff.Side{Source: b.store()}
		forth, back := list(t, sa, sb), list(t, sb, sa)
		var have []string
		for _, ch := range forth {
			if !heading(ch, forth) {
				ch.Fields = slices.DeleteFunc(slices.Clone(ch.Fields), func(f diff.Field) bool { return f.Name == "size" || f.Name == "content" })
				have = append(have, short(ch))
			}
		}
		slices.Sort(want)
		slices.Sort(have)
		if diff := cmp.Diff(want, have); diff != "" {
			t.Errorf("edits (-made +found):\n%s", diff)
		}
		if diff := cmp.Diff(mirrored(forth), plain(back)); diff != "" {
			t.Errorf("not the mirror (-A to B, mirrored +B to A):\n%s", diff)
		}
		if same := list(t, sa, sa); len(same) > 0 {
			t.Errorf("A differs from itself: %v", same)
		}
	})
}

// Two layouts that have nothing to do with each other: the mirror holds all the
// same, and the bytes add up.
func TestMirror(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawModel(t).store(), drawModel(t).store()
		sa, sb := diff.Side{Source: a}, diff.Side{Source: b}
		if diff := cmp.Diff(mirrored(list(t, sa, sb)), plain(list(t, sb, sa))); diff != "" {
			t.Errorf("not the mirror (-A to B, mirrored +B to A):\n%s", diff)
		}
		var forth, back diff.Summary
		for _, err := range diff.Compare(t.Context(), sa, sb, &diff.Options{Total: "a"}, &forth) {
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, err := range diff.Compare(t.Context(), sb, sa, &diff.Options{Total: "a"}, &back) {
			if err != nil {
				t.Fatal(err)
			}
		}
		sizeOf := func(s *store) (n int64) { // all is reachable
			for _, data := range s.blobs {
				n += int64(len(data))
			}
			return n
		}
		var shared int64
		for d, data := range a.blobs {
			if b.blobs[d] != nil {
				shared += int64(len(data))
			}
		}
		if forth.Shared != shared || forth.OnlyA+shared != sizeOf(a) || forth.OnlyB+shared != sizeOf(b) {
			t.Errorf("bytes %+v; shared are %d, A has %d, B %d", forth, shared, sizeOf(a), sizeOf(b))
		}
		if back.OnlyA != forth.OnlyB || back.OnlyB != forth.OnlyA || back.Shared != forth.Shared || back.Manifests != forth.Manifests || back.Changed != forth.Changed {
			t.Errorf("bytes %+v, and back %+v", forth, back)
		}
	})
}

func list(t *rapid.T, a, b diff.Side) []diff.Change {
	var changes []diff.Change
	for ch, err := range diff.Compare(t.Context(), a, b, nil, nil) {
		if err != nil {
			t.Fatal(err)
		}
		changes = append(changes, ch)
	}
	return changes
}

// heading tells whether ch only leads to another change.
func heading(ch diff.Change, all []diff.Change) bool {
	if ch.Kind != filediff.Changed && ch.Kind != filediff.Moved || len(ch.Fields) > 0 {
		return false
	}
	return slices.ContainsFunc(all, func(other diff.Change) bool {
		return other.Level > ch.Level && other.Ref == ch.Ref && (ch.Level < diff.LevelManifest || other.Entry == ch.Entry) &&
			(ch.Level < diff.LevelLayer || other.Layer == ch.Layer)
	})
}

// plain are changes as texts that can be compared, sorted.
func plain(changes []diff.Change) []string {
	var s []string
	for _, ch := range changes {
		raw, err := json.Marshal(ch)
		if err != nil {
			panic(err)
		}
		s = append(s, string(raw))
	}
	slices.Sort(s)
	return s
}

// mirrored are changes seen from the other side.
func mirrored(changes []diff.Change) []string {
	var m []diff.Change
	names := map[string]string{} // of refs of A, in B
	for _, ch := range changes {
		for _, f := range ch.Fields {
			if f.Name == "refName" {
				names[deref(f.A)] = deref(f.B)
			}
		}
	}
	for _, ch := range changes {
		if to, ok := names[ch.Ref]; ok && (ch.Level > diff.LevelRefs || ch.Kind != filediff.Added) {
			if ch.Entry == ch.Ref {
				ch.Entry = to
			}
			ch.Ref = to
		}
		ch.Kind = ch.Kind.Mirror()
		ch.A, ch.B = ch.B, ch.A
		ch.FileA, ch.FileB = ch.FileB, ch.FileA
		ch.Fields = slices.Clone(ch.Fields)
		for i, f := range ch.Fields {
			ch.Fields[i] = diff.Field{Name: f.Name, A: f.B, B: f.A}
		}
		ch.Ranges = slices.Clone(ch.Ranges)
		for i, r := range ch.Ranges {
			ch.Ranges[i].A, ch.Ranges[i].B = r.B, r.A
		}
		m = append(m, ch)
	}
	return plain(m)
}
