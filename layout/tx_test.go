package layout_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// files returns every file of a layout with its content, but for our own
// directory.
func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	m := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if rel == ".gloci" {
			return fs.SkipDir
		}
		if !d.IsDir() {
			m[rel] = readFile(t, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestUpdateManyWriters(t *testing.T) {
	l := newLayout(t)
	const writers, rounds = 8, 10
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			own, err := layout.Open(t.Context(), l.Dir(), nil) // as another process would
			if err != nil {
				t.Error(err)
				return
			}
			defer own.Close()
			for r := range rounds {
				edit(t, own, func(s *layout.Stage, tx *layout.Tx) {
					name := fmt.Sprintf("w%d-%d", w, r)
					desc := artifact(t, s, name, map[string]string{"name": name})
					tx.SetRef(name, desc)
					if _, err := tx.EditIndex(t.Context(), "all", true, func(x *layout.Index) error { x.PutEntry(desc); return nil }); err != nil {
						t.Error(err)
					}
				})
			}
		})
	}
	wg.Wait()
	if got := len(roots(t, l)); got != writers*rounds+1 {
		t.Errorf("%d entries, want %d: some were lost", got, writers*rounds+1)
	}
	all, err := layout.Resolve(t.Context(), l, "all", "")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := layout.ReadDocument(t.Context(), l, all[0])
	if err != nil {
		t.Fatal(err)
	}
	if len(doc.Manifests) != writers*rounds {
		t.Errorf("the nested index has %d entries, want %d", len(doc.Manifests), writers*rounds)
	}
	mustVerify(t, l)
	if left, err := filepath.Glob(filepath.Join(l.Dir(), ".gloci", "tmp-*")); len(left) > 0 || err != nil {
		t.Errorf("temporary files left: %v %v", left, err)
	}
}

// TestUpdateOrderDoesNotMatter: the same edits in another order give the same
// bytes.
func TestUpdateOrderDoesNotMatter(t *testing.T) {
	build := func(order ...string) string {
		l := newLayout(t)
		for _, name := range order {
			edit(t, l, func(s *layout.Stage, tx *layout.Tx) {
				desc := artifact(t, s, name, nil)
				tx.SetRef(name, desc)
				if _, err := tx.EditIndex(t.Context(), "all", true, func(x *layout.Index) error { x.PutEntry(desc); return nil }); err != nil {
					t.Fatal(err)
				}
			})
		}
		return indexJSON(t, l)
	}
	if a, b := build("a", "b", "c"), build("c", "a", "b"); a != b {
		t.Errorf("index.json depends on the order:\n%s\n%s", a, b)
	}
}

func TestUpdateErrorLeavesTheLayout(t *testing.T) {
	l := newLayout(t)
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) { tx.SetRef("a", artifact(t, s, "a", nil)) })
	before := files(t, l.Dir())
	s, err := l.Stage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cause := errors.New("no")
	err = s.Update(t.Context(), func(tx *layout.Tx) error {
		tx.SetRef("b", artifact(t, s, "b", nil))
		return cause
	})
	if !errors.Is(err, cause) {
		t.Errorf("Update = %v, want %v", err, cause)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, files(t, l.Dir())); diff != "" {
		t.Errorf("the layout changed (-before +after):\n%s", diff)
	}
}

// TestUpdateAgainstAProgramWithoutLocks: what another tool wrote while fn ran
// is kept, for fn runs again on it.
func TestUpdateAgainstAProgramWithoutLocks(t *testing.T) {
	l := newLayout(t)
	calls := 0
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) {
		if calls++; calls == 1 {
			writeFile(t, filepath.Join(l.Dir(), "index.json"),
				`{"schemaVersion":2,"manifests":[{"mediaType":"application/x","digest":"`+digestA+`","size":1,"annotations":{"org.opencontainers.image.ref.name":"theirs"}}]}`)
		}
		tx.SetRef("ours", artifact(t, s, "ours", nil))
	})
	if calls != 2 || len(roots(t, l)) != 2 {
		t.Errorf("%d calls, %d entries; want 2 and 2", calls, len(roots(t, l)))
	}
}

func TestUpdateWritesOnlyWhatIsNamed(t *testing.T) {
	l := newLayout(t)
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) {
		for _, name := range []string{"a", "b", "c"} { // two indexes on the way are superseded
			desc := artifact(t, s, name, nil)
			if _, err := tx.EditIndex(t.Context(), "all", true, func(x *layout.Index) error { x.PutEntry(desc); return nil }); err != nil {
				t.Fatal(err)
			}
		}
	})
	if r := mustVerify(t, l); r.Unreferenced != 0 {
		t.Errorf("%d blobs that nothing names", r.Unreferenced)
	}
}

func TestSetRef(t *testing.T) {
	l := newLayout(t)
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) {
		a, b := artifact(t, s, "a", nil), artifact(t, s, "b", nil)
		a.Annotations = map[string]string{"note": "kept"}
		tx.SetRef("x", a)
		a.Annotations = nil
		tx.SetRef("x", a) // the same digest again
		tx.SetRef("y", a)
		tx.SetRef("y", b)
	})
	var got []string
	for _, e := range roots(t, l) {
		got = append(got, layout.RefName(e)+" "+e.Annotations["note"])
	}
	if diff := cmp.Diff([]string{"x kept", "y "}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestEditIndexRefuses(t *testing.T) {
	l := newLayout(t)
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) { tx.SetRef("manifest", artifact(t, s, "a", nil)) })
	for name, want := range map[string]error{"manifest": layout.ErrConflict, "absent": layout.ErrNotFound} {
		err := l.Update(t.Context(), func(tx *layout.Tx) error {
			_, err := tx.EditIndex(t.Context(), name, false, func(*layout.Index) error { return nil })
			return err
		})
		if !errors.Is(err, want) {
			t.Errorf("EditIndex(%q) = %v, want %v", name, err, want)
		}
	}
}

// TestRelink: a manifest three indexes deep, which two of them share, is
// replaced; both follow, and every other byte stays.
func TestRelink(t *testing.T) {
	l := newLayout(t)
	var old, other ocispec.Descriptor
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) {
		old, other = artifact(t, s, "old", nil), artifact(t, s, "other", nil)
		old.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
		old.Annotations = map[string]string{"k": "v"}
		left := index(t, s, old, other)
		right := index(t, s, other, old)
		tx.SetRef("top", index(t, s, index(t, s, left), right))
		tx.SetRef("same", index(t, s, index(t, s, left), right))
		tx.SetRef("untouched", index(t, s, other))
	})
	before := files(t, l.Dir())
	var changes []layout.Change
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) {
		desc := artifact(t, s, "new", nil)
		var err error
		if changes, err = tx.Relink(t.Context(), old.Digest, desc); err != nil {
			t.Fatal(err)
		}
	})
	if len(changes) != 4 { // left, the one above it, right, top
		t.Errorf("%d documents changed, want 4", len(changes))
	}
	after := files(t, l.Dir())
	for name, data := range before {
		if name != "index.json" && after[name] != data {
			t.Errorf("%s changed", name)
		}
	}
	n := 0
	for _, ref := range []string{"top", "same"} {
		rs, err := layout.Resolve(t.Context(), l, ref, "")
		if err != nil {
			t.Fatal(err)
		}
		for node, err := range layout.Walk(t.Context(), l, rs, &layout.WalkOptions{DocumentsOnly: true}) {
			if err != nil {
				t.Fatal(err)
			}
			if node.Desc.Digest == old.Digest {
				t.Errorf("%s still reaches the old manifest", ref)
			}
			if node.Desc.Annotations["k"] == "v" {
				n++
				if node.Desc.Platform == nil || node.Desc.Platform.Architecture != "amd64" {
					t.Errorf("the entry lost its platform: %v", node.Desc)
				}
			}
		}
	}
	if n != 2 {
		t.Errorf("%d entries with their annotations, want 2", n)
	}
	mustVerify(t, l)
	if r, err := l.GC(t.Context(), layout.GCOptions{Now: time.Now()}); err != nil || len(r.Removed) != 6 { // 4 indexes, the old manifest, its layer
		t.Errorf("GC removed %v, %v; want 6 blobs", r, err)
	}
	mustVerify(t, l)
}

func TestStageHealsADamagedBlob(t *testing.T) {
	l := newLayout(t)
	var desc ocispec.Descriptor
	add := func() {
		edit(t, l, func(s *layout.Stage, tx *layout.Tx) {
			desc = artifact(t, s, "a", nil)
			tx.SetRef("a", desc)
		})
	}
	add()
	raw := readFile(t, blobFile(l, desc))
	writeFile(t, blobFile(l, desc), strings.Repeat("\x00", len(raw))) // as after a power cut
	add()
	if got := readFile(t, blobFile(l, desc)); got != raw {
		t.Errorf("the damaged blob is still there")
	}
}

func TestStageAddFile(t *testing.T) {
	l := newLayout(t)
	dir := t.TempDir()
	small, empty, large := filepath.Join(dir, "small"), filepath.Join(dir, "empty"), filepath.Join(dir, "large")
	writeFile(t, small, "some text")
	writeFile(t, empty, "")
	writeFile(t, large, strings.Repeat("0123456789abcdef", 1<<20)) // 16 MiB: several chunks
	fifo := filepath.Join(dir, "dir")
	if err := os.Mkdir(fifo, 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := l.Stage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, path := range []string{small, empty, large} {
		desc, err := s.AddFile(t.Context(), path, "application/x")
		if err != nil {
			t.Fatal(err)
		}
		got, err := layout.ReadAll(t.Context(), s, desc, 32<<20)
		if err != nil || string(got) != readFile(t, path) {
			t.Errorf("%s: %d bytes, %v", path, len(got), err)
		}
	}
	if _, err := s.AddFile(t.Context(), fifo, "application/x"); !errors.Is(err, layout.ErrInvalid) {
		t.Errorf("a directory: %v, want ErrInvalid", err)
	}
	if _, err := s.AddFile(t.Context(), filepath.Join(dir, "absent"), "application/x"); !errors.Is(err, layout.ErrNotFound) {
		t.Errorf("an absent file: %v, want ErrNotFound", err)
	}
	wrong := ocispec.Descriptor{MediaType: "application/x", Digest: digestA, Size: 4}
	if err := s.AddExpect(t.Context(), strings.NewReader("text"), wrong); !errors.Is(err, layout.ErrMismatch) {
		t.Errorf("AddExpect of other bytes: %v, want ErrMismatch", err)
	}
	if s.Has(wrong.Digest) {
		t.Error("the wrong bytes are staged")
	}
}

func TestCopyTree(t *testing.T) {
	from := newLayout(t)
	edit(t, from, func(s *layout.Stage, tx *layout.Tx) {
		tx.SetRef("v", index(t, s, index(t, s, artifact(t, s, "a", nil)), image(t, s, "i", "amd64")))
	})
	to := newLayout(t)
	for range 2 { // the second time everything is there
		edit(t, to, func(s *layout.Stage, tx *layout.Tx) {
			if err := s.CopyTree(t.Context(), from, roots(t, from), nil); err != nil {
				t.Fatal(err)
			}
			tx.SetRef("v", roots(t, from)[0])
		})
	}
	if diff := cmp.Diff(files(t, from.Dir()), files(t, to.Dir())); diff != "" {
		t.Errorf("(-from +to):\n%s", diff)
	}
	// A damaged blob of the source never arrives.
	damaged := ocispec.Descriptor{}
	for n, err := range layout.Walk(t.Context(), from, roots(t, from), nil) {
		if err == nil && n.Role == layout.RoleLayer {
			damaged = n.Desc
		}
	}
	raw := []byte(readFile(t, blobFile(from, damaged)))
	raw[0] ^= 1
	writeFile(t, blobFile(from, damaged), string(raw))
	fresh := newLayout(t)
	s, err := fresh.Stage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.CopyTree(t.Context(), from, roots(t, from), nil); !errors.Is(err, layout.ErrMismatch) {
		t.Errorf("CopyTree of damage: %v, want ErrMismatch", err)
	}
}

// TestUpdateOnANetworkFileSystem: there a lock file is added to flock, which is
// never broken, and which does not survive an edit that failed.
func TestUpdateOnANetworkFileSystem(t *testing.T) {
	defer layout.PretendNetwork(30 * time.Millisecond)()
	l := newLayout(t)
	lock := filepath.Join(l.Dir(), ".gloci", "index.lock")
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) {
		if _, err := os.Stat(lock); err != nil {
			t.Errorf("no lock file during the edit: %v", err)
		}
		tx.SetRef("a", artifact(t, s, "a", nil))
	})
	cause := errors.New("no")
	if err := l.Update(t.Context(), func(*layout.Tx) error { return cause }); !errors.Is(err, cause) {
		t.Errorf("Update = %v, want %v", err, cause)
	}
	if _, err := os.Stat(lock); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the lock file is left: %v", err)
	}
	writeFile(t, lock, "host other\npid 1\n")
	err := l.Update(t.Context(), func(*layout.Tx) error { return nil })
	var hint *layout.HintError
	if !errors.Is(err, layout.ErrConflict) || !errors.As(err, &hint) || !strings.Contains(err.Error(), "host other pid 1") {
		t.Errorf("beside the lock of another machine: %v, want ErrConflict that names it, with a hint", err)
	}
	if _, err := os.Stat(lock); err != nil {
		t.Errorf("the lock of another machine was broken: %v", err)
	}
}
