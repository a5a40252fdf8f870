package parts_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/archive/parts"
)

// noise returns n bytes that are the same in each run.
func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b) // never an error
	return b
}

// split writes data in parts of size bytes, in writes of odd sizes.
func split(t testing.TB, file string, data []byte, size int64) *parts.Manifest {
	t.Helper()
	w, err := parts.Create(file, size)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{bytes.NewReader(data)}, make([]byte, 777)); err != nil {
		t.Fatal(err)
	}
	m, err := w.Commit(t.Context())
	if err = errors.Join(err, w.Close(false)); err != nil {
		t.Fatal(err)
	}
	return m
}

// names returns the files in the directory of file.
func names(t testing.TB, file string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(file))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func readAll(t testing.TB, manifest string) []byte {
	t.Helper()
	f, err := parts.Open(manifest, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestSplit(t *testing.T) {
	data := noise(10_000)
	d := digest.FromBytes(data)
	for _, tt := range []struct {
		size int64
		want int
	}{{1 << 20, 1}, {10_000, 1}, {9_999, 2}, {1_000, 10}, {11, 910}} {
		file := filepath.Join(t.TempDir(), "x.oci")
		m := split(t, file, data, tt.size)
		if len(m.Parts) != tt.want || m.Digest != d || m.Size != 10_000 {
			t.Errorf("parts of %d bytes: %d of %s, %d bytes; want %d of %s", tt.size, len(m.Parts), m.Digest, m.Size, tt.want, d)
		}
		raw, err := os.ReadFile(file + ".parts.json")
		if err != nil || !bytes.Equal(raw, m.Bytes()) {
			t.Errorf("the manifest is %q, %v", raw, err)
		}
		// Joined in the order of their names they are the whole.
		var joined []byte
		list := names(t, file)
		for i, name := range list {
			if name == "x.oci.parts.json" {
				continue
			}
			if want := fmt.Sprintf("x.oci.%s.%03d-of-%03d", d.Encoded()[:8], i+1, tt.want); name != want {
				t.Errorf("part %d is named %s, want %s", i+1, name, want)
			}
			b, err := os.ReadFile(filepath.Join(filepath.Dir(file), name))
			if err != nil || m.Parts[i].Digest != digest.FromBytes(b) || m.Parts[i].Size != int64(len(b)) {
				t.Errorf("part %d is not what the manifest says: %v", i+1, err)
			}
			joined = append(joined, b...)
		}
		if len(list) != tt.want+1 || !bytes.Equal(joined, data) {
			t.Errorf("parts of %d bytes: %d files, joined right: %v", tt.size, len(list), bytes.Equal(joined, data))
		}
		f, err := parts.Open(file+".parts.json", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := iotest.TestReader(io.NewSectionReader(f, 0, f.Size()), data); err != nil {
			t.Error(err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if r, err := parts.Check(t.Context(), file+".parts.json", nil); err != nil || len(r.Findings) > 0 || r.Parts != tt.want || r.Bytes != 10_000 {
			t.Errorf("Check = %+v, %v", r, err)
		}
	}
}

func TestSection(t *testing.T) {
	data := noise(100)
	file := filepath.Join(t.TempDir(), "x")
	split(t, file, data, 30)
	p, err := parts.Open(file+".parts.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for off := int64(0); off <= 100; off++ {
		for size := int64(0); off+size <= 100; size++ {
			f, at, err := p.Section(off, size)
			inOne := off < 100 && (size == 0 || off/30 == (off+size-1)/30)
			if errors.Is(err, errors.ErrUnsupported) {
				if inOne && size > 0 {
					t.Errorf("Section(%d, %d) is unsupported", off, size)
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, size)
			if _, err := f.ReadAt(got, at); err != nil || !inOne || !bytes.Equal(got, data[off:off+size]) {
				t.Errorf("Section(%d, %d) has other bytes, or of several parts: %v", off, size, err)
			}
			f.Close()
		}
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "x.oci")
	if got := parts.Find(file); got != "" {
		t.Errorf("Find of nothing = %q", got)
	}
	m := split(t, file, noise(100), 30)
	if got := parts.Find(file); got != file+".parts.json" {
		t.Errorf("Find = %q", got)
	}
	for name, want := range map[string]string{
		m.Parts[1].Name: "x.oci.parts.json", "x.oci": "", "x.oci.parts.json": "", "x.oci.001-of-004": "", ".0123abcd.001-of-001": "",
		"y.0123abcd.001-of-001": "y.parts.json", "y.0123abcd.001-of-001.bak": "", "y.0123ABCD.001-of-001": "",
	} {
		if got := parts.Of(name); got != want {
			t.Errorf("Of(%q) = %q, want %q", name, got, want)
		}
	}
	if got := parts.Of(filepath.Join(dir, m.Parts[0].Name)); got != file+".parts.json" {
		t.Errorf("Of with a directory = %q", got)
	}
	// The whole file wins.
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := parts.Find(file); got != "" {
		t.Errorf("Find beside the whole = %q", got)
	}
	if _, err := parts.Create(file, 10); !errors.Is(err, layout.ErrExists) {
		t.Errorf("Create beside the whole: error %v, want ErrExists", err)
	}
}

func TestDamage(t *testing.T) {
	data := noise(100)
	for name, tt := range map[string]struct {
		damage func(part string) error
		open   error // of Open
		kind   string
	}{
		"missing":   {os.Remove, layout.ErrNotFound, "missing"},
		"short":     {func(p string) error { return os.Truncate(p, 29) }, layout.ErrMismatch, "size"},
		"long":      {func(p string) error { return os.Truncate(p, 31) }, layout.ErrMismatch, "size"},
		"empty":     {func(p string) error { return os.Truncate(p, 0) }, layout.ErrMismatch, "size"},
		"flipped":   {func(p string) error { return os.WriteFile(p, data[31:61], 0o644) }, nil, "digest"},
		"link":      {func(p string) error { return errors.Join(os.Rename(p, p+".x"), os.Symlink(p+".x", p)) }, layout.ErrUnsafe, "unsafe"},
		"dangling":  {func(p string) error { return errors.Join(os.Remove(p), os.Symlink("nothing", p)) }, layout.ErrUnsafe, "unsafe"},
		"directory": {func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o755)) }, layout.ErrUnsafe, "unsafe"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "x")
			m := split(t, file, data, 30)
			bad := m.Parts[1].Name
			if err := tt.damage(filepath.Join(filepath.Dir(file), bad)); err != nil {
				t.Fatal(err)
			}
			p, err := parts.Open(file+".parts.json", nil)
			if !errors.Is(err, tt.open) || err != nil && !strings.Contains(err.Error(), bad+": part 2 of 4: ") {
				t.Errorf("Open: error %v, want %v and the name of the part", err, tt.open)
			}
			if err == nil {
				p.Close()
			}
			r, err := parts.Check(t.Context(), file+".parts.json", nil)
			if err != nil || len(r.Findings) != 1 || r.Findings[0].Kind != tt.kind || r.Findings[0].Path != bad {
				t.Fatalf("Check = %+v, %v; want %s %s", r, err, tt.kind, bad)
			}
			if tt.open != nil && !errors.Is(r.Findings[0].Err, tt.open) {
				t.Errorf("Check: error %v, want %v", r.Findings[0].Err, tt.open)
			}
			for i, part := range m.Parts {
				r, err := parts.Check(t.Context(), file+".parts.json", &parts.CheckOptions{Only: part.Name})
				if want := map[bool]int{i == 1: 1}[true]; err != nil || len(r.Findings) != want {
					t.Errorf("Check of part %d = %+v, %v", i+1, r, err)
				}
			}
		})
	}
	// Followed where the user says so.
	file := filepath.Join(t.TempDir(), "x")
	m := split(t, file, data, 30)
	part := filepath.Join(filepath.Dir(file), m.Parts[0].Name)
	if err := errors.Join(os.Rename(part, part+".x"), os.Symlink(part+".x", part)); err != nil {
		t.Fatal(err)
	}
	p, err := parts.Open(file+".parts.json", &parts.Options{FollowSymlinks: true})
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	if _, err := parts.Check(t.Context(), file+".parts.json", &parts.CheckOptions{Only: "y"}); !errors.Is(err, layout.ErrNotFound) {
		t.Errorf("Check of a part that is none: error %v, want ErrNotFound", err)
	}
	// Right parts, put together wrongly.
	m.Parts[1], m.Parts[2] = m.Parts[2], m.Parts[1]
	if err := os.WriteFile(file+".parts.json", m.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := parts.Check(t.Context(), file+".parts.json", &parts.CheckOptions{Options: parts.Options{FollowSymlinks: true}})
	if err != nil || len(r.Findings) != 1 || r.Findings[0].Path != "x.parts.json" || r.Findings[0].Kind != "digest" {
		t.Errorf("Check of parts in the wrong order = %+v, %v", r, err)
	}
}

// What changes while it is read is an error.
func TestChanges(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x")
	m := split(t, file, noise(100), 30)
	p, err := parts.Open(file+".parts.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Unchanged(0, 100); err != nil {
		t.Error(err)
	}
	if err := os.Truncate(filepath.Join(filepath.Dir(file), m.Parts[2].Name), 10); err != nil {
		t.Fatal(err)
	}
	if err := p.Unchanged(0, 59); err != nil {
		t.Errorf("parts before the changed one: %v", err)
	}
	if err := p.Unchanged(50, 30); !errors.Is(err, layout.ErrMismatch) {
		t.Errorf("the changed part: error %v, want ErrMismatch", err)
	}
	if n, err := p.ReadAt(make([]byte, 100), 0); err == nil || n != 70 {
		t.Errorf("ReadAt over a cut part = %d, %v", n, err)
	}
}

// attempt writes some of data and then ends as a kill or an interruption would.
func attempt(t testing.TB, file string, data []byte, size int64) {
	t.Helper()
	w, err := parts.Create(file, size)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(data)
	if err := errors.Join(err, w.Close(true)); err != nil {
		t.Fatal(err)
	}
}

// writtenTo returns which of the files have another time than the epoch.
func writtenTo(t testing.TB, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			info, err := d.Info()
			if err == nil && info.ModTime().Unix() != 1 {
				list = append(list, d.Name())
			}
			return err
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestResume(t *testing.T) {
	data := noise(10_000)
	for done := 0; done <= len(data); done += 500 {
		file := filepath.Join(t.TempDir(), "x")
		attempt(t, file, data[:done], 3000)
		if got := names(t, file); !slices.Equal(got, []string{".x.tmp-split"}) {
			t.Fatalf("an unfinished split leaves %q", got)
		}
		work := filepath.Join(filepath.Dir(file), ".x.tmp-split")
		for n := range 4 { // so that it is seen what is written to
			backdate(t, filepath.Join(work, fmt.Sprintf("%03d", n+1)))
		}
		m := split(t, file, data, 3000)
		if got := readAll(t, file+".parts.json"); !bytes.Equal(got, data) {
			t.Fatalf("after %d bytes: other bytes", done)
		}
		for i, p := range m.Parts {
			fresh := slices.Contains(writtenTo(t, filepath.Dir(file)), p.Name)
			if whole := done >= min(3000*(i+1), len(data)); whole == fresh {
				t.Errorf("after %d bytes: part %d was whole: %v; written again: %v", done, i+1, whole, fresh)
			}
		}
		if got := names(t, file); len(got) != 5 {
			t.Errorf("after %d bytes: %q", done, got)
		}
	}
	// What was left of other content is overwritten, whatever its length.
	for _, other := range []int{1, 2999, 3001, 20_000} {
		file := filepath.Join(t.TempDir(), "x")
		attempt(t, file, bytes.Repeat([]byte("x"), other), 3000)
		split(t, file, data, 3000)
		if got := readAll(t, file+".parts.json"); !bytes.Equal(got, data) {
			t.Errorf("over %d bytes of an attempt with others: other bytes", other)
		}
	}
}

func backdate(t testing.TB, file string) {
	t.Helper()
	if err := os.Chtimes(file, epoch, epoch); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

// A split over another: parts that are right stay as they are, others are made
// anew, and those of the other are gone.
func TestSplitAgain(t *testing.T) {
	data := noise(10_000)
	file := filepath.Join(t.TempDir(), "x")
	m := split(t, file, data, 3000)
	dir := filepath.Dir(file)
	path := func(i int) string { return filepath.Join(dir, m.Parts[i].Name) }
	if err := errors.Join(os.Remove(path(1)), os.WriteFile(path(2), noise(3000), 0o644), os.Truncate(path(3), 10)); err != nil {
		t.Fatal(err)
	}
	backdate(t, path(0))
	split(t, file, data, 3000)
	if r, err := parts.Check(t.Context(), file+".parts.json", nil); err != nil || len(r.Findings) > 0 {
		t.Errorf("Check = %+v, %v", r, err)
	}
	if got := writtenTo(t, dir); slices.Contains(got, m.Parts[0].Name) || len(got) != 4 {
		t.Errorf("written again: %q", got)
	}
	// Other sizes, other content, more and fewer parts; something of ours that
	// has a name like theirs stays.
	if err := os.WriteFile(file+".0123abcd.bak", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, next := range []struct {
		data []byte
		size int64
		want int
	}{{data, 4000, 3}, {data[:9000], 3000, 3}, {append(bytes.Clone(data[:9000]), 1), 3000, 4}, {data[1:], 100, 100}, {data[:1], 10, 1}} {
		split(t, file, next.data, next.size)
		if got := readAll(t, file+".parts.json"); !bytes.Equal(got, next.data) {
			t.Errorf("%d bytes over another: other bytes", len(next.data))
		}
		if got := names(t, file); len(got) != next.want+2 {
			t.Errorf("%d bytes over another: %q", len(next.data), got)
		}
	}
}

// Until the new manifest is there the old split is whole.
func TestOldStays(t *testing.T) {
	old, data := noise(5000), noise(10_000)[5000:]
	file := filepath.Join(t.TempDir(), "x")
	split(t, file, old, 1000)
	w, err := parts.Create(file, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parts.Create(file, 1000); !errors.Is(err, layout.ErrConflict) {
		t.Errorf("a second writer: error %v, want ErrConflict", err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, file+".parts.json"); !bytes.Equal(got, old) {
		t.Error("the old split is not what it was")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Commit(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Commit, canceled: error %v", err)
	}
	if err := w.Close(false); err != nil {
		t.Error(err)
	}
	if got := readAll(t, file+".parts.json"); !bytes.Equal(got, old) || len(names(t, file)) != 6 {
		t.Errorf("the old split is not what it was: %q", names(t, file))
	}
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	for name, tt := range map[string]struct {
		file string
		size int64
		want error
	}{
		"no size":      {"x", 0, layout.ErrInvalid},
		"long name":    {strings.Repeat("x", 250), 10, layout.ErrInvalid},
		"no directory": {"no/x", 10, os.ErrNotExist},
		"directory":    {".", 10, layout.ErrExists},
	} {
		if _, err := parts.Create(filepath.Join(dir, tt.file), tt.size); !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v, want %v", name, err, tt.want)
		}
	}
	w, err := parts.Create(filepath.Join(dir, "x"), 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, parts.MaxParts+1)); !errors.Is(err, layout.ErrInvalid) {
		t.Errorf("too many parts: error %v, want ErrInvalid", err)
	}
	if err := w.Close(false); err != nil {
		t.Error(err)
	}
	if got := names(t, filepath.Join(dir, "x")); len(got) != 0 {
		t.Errorf("left over: %q", got)
	}
	for size, want := range map[int64]error{1: nil, 999: nil, 1000: layout.ErrInvalid, 1 << 62: layout.ErrInvalid} {
		if err := parts.Expect(size, 1); !errors.Is(err, want) {
			t.Errorf("Expect(%d, 1): error %v, want %v", size, err, want)
		}
	}
}

// A flipped bit of any file is found.
func TestEveryFlip(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x")
	split(t, file, noise(60), 25)
	want, err := parts.ReadManifest(file + ".parts.json")
	if err != nil {
		t.Fatal(err)
	}
	flips := 0
	for _, name := range names(t, file) {
		path := filepath.Join(filepath.Dir(file), name)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := range data {
			bad := bytes.Clone(data)
			bad[i] ^= 1 << (i % 8)
			if err := os.WriteFile(path, bad, 0o644); err != nil {
				t.Fatal(err)
			}
			flips++
			r, err := parts.Check(t.Context(), file+".parts.json", nil)
			// White space is no damage.
			if err == nil && len(r.Findings) == 0 && (name != "x.parts.json" || !maps.Equal(digests(want), digests(r.Manifest))) {
				t.Errorf("%s, byte %d: not found", name, i)
			}
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d flips", flips)
}

func digests(m *parts.Manifest) map[digest.Digest]int64 {
	all := map[digest.Digest]int64{m.Digest: m.Size}
	for _, p := range m.Parts {
		all[p.Digest] = p.Size
	}
	return all
}
