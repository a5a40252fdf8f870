package extract_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/extract"
	. "github.com/gardenlinux/gloci-layout/layout/extract/extracttest" //nolint:revive // its constructors read like a list of files
)

// list describes what is below dir: one line for each name.
func list(t testing.TB, dir string) []string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil || rel == "." {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		line := rel
		switch {
		case d.IsDir():
			line += "/"
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line += " -> " + target
		case d.Type().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += " = " + string(b)
		default:
			line += " " + info.Mode().String()
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// layersOf stores archives as layers of one media type.
func layersOf(src *Source, mediaType string, archives ...[]byte) []extract.Layer {
	var layers []extract.Layer
	for i, a := range archives {
		layers = append(layers, extract.Layer{Desc: src.Add(a, mediaType), Dir: fmt.Sprintf("%02d", i), Name: fmt.Sprintf("layer%d", i)})
	}
	return layers
}

// A merge is what becomes of some archives.
type merge struct {
	name     string
	media    string // default PlainTar
	archives [][]byte
	opts     extract.Options
	want     []string
	err      error
}

func (m merge) run(t *testing.T) {
	src := NewSource()
	media := m.media
	if media == "" {
		media = PlainTar
	}
	opts := m.opts
	if opts.Mode == extract.Rootfs {
		config := src.Config(m.archives...)
		opts.Config = &config
	}
	out := filepath.Join(t.TempDir(), "out")
	_, err := extract.Extract(t.Context(), src, layersOf(src, media, m.archives...), out, &opts)
	if !errors.Is(err, m.err) {
		t.Fatalf("Extract = %v, want %v", err, m.err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(out), ".*")); left != nil {
		t.Errorf("left over: %q", left)
	}
	if err != nil {
		if _, err := os.Lstat(out); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("something is at %s after an error", out)
		}
		return
	}
	if opts.Mode == extract.Rootfs {
		if _, err := os.Stat(filepath.Join(out, "config.json")); err != nil {
			t.Error(err)
		}
		out = filepath.Join(out, "rootfs")
	}
	if diff := cmp.Diff(m.want, list(t, out)); diff != "" {
		t.Errorf("Extract (-want +got)\n%s", diff)
	}
}

func archives(a ...[]byte) [][]byte { return a }

// TestOverlay: layers of images as layer.md says.
func TestOverlay(t *testing.T) {
	for _, m := range []merge{
		{
			name:     "explicit whiteouts",
			archives: archives(Tar(File("file1", "1"), Dir("a"), File("a/file2", "2"), Dir("b"), File("b/x", "x"), Dir("c"), File("c/file3", "3")), Tar(File(".wh.file1", ""), File("a/.wh.file2", ""), File(".wh.b", ""), File("file4", "4"))),
			want:     []string{"a/", "c/", "c/file3 = 3", "file4 = 4"},
		},
		{
			name:     "opaque directory, first",
			archives: archives(Tar(Dir("a"), Dir("a/b"), Dir("a/b/c"), File("a/b/c/bar", "b")), Tar(Dir("a"), File("a/.wh..wh..opq", ""), Dir("a/b"), Dir("a/b/c"), File("a/b/c/foo", "f"))),
			want:     []string{"a/", "a/b/", "a/b/c/", "a/b/c/foo = f"},
		},
		{
			name:     "opaque directory, last",
			archives: archives(Tar(Dir("a"), Dir("a/b"), Dir("a/b/c"), File("a/b/c/bar", "b"), File("a/old", "o")), Tar(Dir("a"), Dir("a/b"), Dir("a/b/c"), File("a/b/c/foo", "f"), File("a/.wh..wh..opq", ""))),
			want:     []string{"a/", "a/b/", "a/b/c/", "a/b/c/foo = f"},
		},
		{
			name:     "a whiteout does not hide what its own layer has",
			archives: archives(Tar(File("f", "old"), Dir("d"), File("d/old", "")), Tar(File("f", "new"), File(".wh.f", ""), File("d/new", "n"), File(".wh.d", ""))),
			want:     []string{"d/", "d/new = n", "f = new"},
		},
		{
			name:     "types change",
			archives: archives(Tar(File("a", "file"), Dir("b"), File("b/x", "x"), Symlink("c", "b"), Dir("d"), File("d/y", "y")), Tar(Dir("a"), File("a/in", "i"), File("b", "file"), Dir("c"), File("c/z", "z"), Symlink("d", "a"))),
			want:     []string{"a/", "a/in = i", "b = file", "c/", "c/z = z", "d -> a"},
		},
		{
			name:     "a file in a directory that a lower layer has as a file",
			archives: archives(Tar(File("a", "file")), Tar(File("a/b", "b"))),
			want:     []string{"a/", "a/b = b"},
		},
		{
			name:     "hard link across layers, then the name is replaced",
			archives: archives(Tar(File("a", "old")), Tar(Link("b", "a")), Tar(File("a", "new"))),
			want:     []string{"a = new", "b = old"},
		},
		{
			name:     "whiteout of a hard link leaves the other name",
			archives: archives(Tar(File("a", "x"), Link("b", "a")), Tar(File(".wh.a", ""))),
			want:     []string{"b = x"},
		},
		{
			name:     "through a link of a lower layer",
			archives: archives(Tar(Dir("usr/bin"), Symlink("bin", "usr/bin")), Tar(File("bin/sh", "sh"))),
			want:     []string{"bin -> usr/bin", "usr/", "usr/bin/", "usr/bin/sh = sh"},
		},
		{
			name:     "leftovers of AUFS",
			archives: archives(Tar(Dir(".wh..wh.plnk"), File(".wh..wh.plnk/1.2", "x"), File(".wh..wh.aufs", ""), File("f", "f"))),
			want:     []string{"f = f"},
		},
	} {
		m.media = ImageTar
		t.Run(m.name, func(t *testing.T) {
			m.opts.Mode = extract.MergeDir
			m.run(t)
		})
		t.Run(m.name+" in a root file system", func(t *testing.T) {
			m.opts.Mode = extract.Rootfs
			m.run(t)
		})
	}
}

// TestRootfsLinks: in a root file system "/" is its root.
func TestRootfsLinks(t *testing.T) {
	merge{
		archives: archives(
			Tar(Dir("run"), Dir("var"), Symlink("var/run", "/run"), Symlink("up", "../../../../run"), Symlink("out", "/proc/self/exe")),
			Tar(File("var/run/pid", "1"), File("up/lock", "2"), File("/abs", "3"), Link("abs2", "/abs")),
		),
		opts: extract.Options{Mode: extract.Rootfs},
		want: []string{"abs = 3", "abs2 = 3", "out -> /proc/self/exe", "run/", "run/lock = 2", "run/pid = 1", "up -> ../../../../run", "var/", "var/run -> /run"},
	}.run(t)
}

// TestMerge: several archives that are no layers of an image.
func TestMerge(t *testing.T) {
	two := func(a, b Entry) [][]byte { return archives(Tar(Dir("d"), a), Tar(Dir("d"), b)) }
	same := two(File("d/f", "x"), Entry{Name: "d/f", Type: '0', Body: "x", Time: 5})
	differ := two(File("d/f", "one"), File("d/f", "two"))
	modes := two(File("d/f", "x"), Entry{Name: "d/f", Type: '0', Body: "x", Mode: 0o600})
	unreadable := two(Entry{Name: "d/f", Type: '0', Body: "x", Mode: 0o200}, Entry{Name: "d/f", Type: '0', Body: "x", Mode: 0o200})
	types := two(Entry{Name: "x", Type: '5'}, File("x", "x"))
	links := two(Symlink("l", "d"), Symlink("l", "d"))
	other := two(Symlink("l", "d"), Symlink("l", "e"))
	dirs := archives(Tar(Entry{Name: "d", Type: '5', Mode: 0o700}), Tar(Entry{Name: "d", Type: '5', Mode: 0o755}))
	below := archives(Tar(File("x", "x")), Tar(File("x/y", "y")))
	hard := two(Link("d/g", "d/f"), Link("d/g", "d/f"))
	for i := range hard {
		hard[i] = Tar(Dir("d"), File("d/f", "x"), Link("d/g", "d/f"))
	}
	for _, m := range []merge{
		{name: "disjoint", archives: archives(Tar(File("a", "a")), Tar(File("b", "b"))), want: []string{"a = a", "b = b"}},
		{name: "whiteouts are files", archives: archives(Tar(File("a", "a")), Tar(File(".wh.a", ""))), want: []string{".wh.a = ", "a = a"}},
		{name: "identical", archives: same, want: []string{"d/", "d/f = x"}},
		{name: "identical, error", archives: same, opts: extract.Options{OnConflict: extract.ConflictError}, err: layout.ErrConflict},
		{name: "identical and not readable", archives: unreadable, opts: extract.Options{Files: true}, want: nil},
		{name: "content", archives: differ, err: layout.ErrConflict},
		{name: "content, first", archives: differ, opts: extract.Options{OnConflict: extract.ConflictFirst}, want: []string{"d/", "d/f = one"}},
		{name: "content, last", archives: differ, opts: extract.Options{OnConflict: extract.ConflictLast}, want: []string{"d/", "d/f = two"}},
		{name: "mode", archives: modes, err: layout.ErrConflict},
		{name: "type", archives: types, err: layout.ErrConflict},
		{name: "type, first", archives: types, opts: extract.Options{OnConflict: extract.ConflictFirst}, want: []string{"d/", "x/"}},
		{name: "type, last", archives: types, opts: extract.Options{OnConflict: extract.ConflictLast}, want: []string{"d/", "x = x"}},
		{name: "links", archives: links, want: []string{"d/", "l -> d"}},
		{name: "other links", archives: other, err: layout.ErrConflict},
		{name: "hard links", archives: hard, want: []string{"d/", "d/f = x", "d/g = x"}},
		{name: "modes of directories", archives: dirs, err: layout.ErrConflict},
		{name: "modes of directories, last", archives: dirs, opts: extract.Options{OnConflict: extract.ConflictLast}, want: []string{"d/"}},
		{name: "below a file", archives: below, err: layout.ErrConflict},
		{name: "below a file, first", archives: below, opts: extract.Options{OnConflict: extract.ConflictFirst}, want: []string{"x = x"}},
		{name: "below a file, last", archives: below, opts: extract.Options{OnConflict: extract.ConflictLast}, want: []string{"x/", "x/y = y"}},
		{name: "twice in one archive", archives: archives(Tar(File("a", "1"), File("a", "2"))), opts: extract.Options{OnConflict: extract.ConflictError}, want: []string{"a = 2"}},
	} {
		t.Run(m.name, func(t *testing.T) {
			if m.want == nil && m.err == nil { // cannot be listed by a plain user
				m.want = []string{"d/", "d/f = x"}
				if os.Geteuid() != 0 {
					t.Skip("only root reads a file without the bit")
				}
			}
			m.opts.Mode = extract.MergeDir
			m.run(t)
		})
	}
}

func TestModes(t *testing.T) {
	ctx := t.Context()
	src := NewSource()
	layers := layersOf(src, PlainTar, Tar(Dir("d"), File("d/f", "x")), Tar(File(".wh.d", ""), File("g", "y")))
	manifest := src.Add([]byte("{}"), ocispec.MediaTypeImageManifest)
	text := extract.Layer{Desc: src.Add([]byte("text"), "text/plain"), Manifest: manifest, Dir: "02", Name: "notes/a.txt"}
	layers = append(layers, text)
	try := func(mode extract.Mode, layers []extract.Layer) (*extract.Result, []string) {
		t.Helper()
		out := filepath.Join(t.TempDir(), "out")
		res, err := extract.Extract(ctx, src, layers, out, &extract.Options{Mode: mode, Files: true})
		if err != nil {
			t.Fatalf("%s: %v", mode, err)
		}
		return res, list(t, out)
	}
	res, got := try(extract.MergeDir, layers)
	want := []string{".wh.d = ", "d/", "d/f = x", "g = y"}
	if diff := cmp.Diff(want, got); diff != "" || res.Written[2].Path != "" || res.Written[0].Path != "." {
		t.Errorf("merge: %+v\n%s", res.Written, diff)
	}
	res, got = try(extract.ExtractAll, layers)
	want = []string{".wh.d = ", "d/", "d/f = x", "g = y", "notes/", "notes/a.txt = text"}
	wantText := extract.Written{Path: "notes/a.txt", Bytes: 4, Source: text.Desc, Manifest: manifest}
	if diff := cmp.Diff(want, got) + cmp.Diff(wantText, res.Written[2]); diff != "" {
		t.Errorf("all: %s", diff)
	}
	file := extract.File{Path: "notes/a.txt", Mode: 0o644, Size: 4, Digest: text.Desc.Digest, Layer: 2}
	if i := slices.IndexFunc(res.Files, func(f extract.File) bool { return f.Path == file.Path }); i < 0 || res.Files[i] != file {
		t.Errorf("all: files %+v, want %+v in it", res.Files, file)
	}
	_, got = try(extract.LayerPerDir, layers)
	want = []string{"00/", "00/d/", "00/d/f = x", "01/", "01/.wh.d = ", "01/g = y", "02/", "02/notes/", "02/notes/a.txt = text"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("layer-per-dir: %s", diff)
	}
	_, got = try(extract.Single, layers[:1])
	if diff := cmp.Diff([]string{"d/", "d/f = x"}, got); diff != "" {
		t.Errorf("single: %s", diff)
	}

	for _, tt := range []struct {
		name   string
		layers []extract.Layer
		opts   extract.Options
		want   error
	}{
		{"two for single", layers[:2], extract.Options{}, layout.ErrInvalid},
		{"no archive for single", layers[2:], extract.Options{}, layout.ErrInvalid},
		{"no archive for a root file system", layers[2:], extract.Options{Mode: extract.Rootfs, Config: ptr(src.Config([]byte("text")))}, layout.ErrInvalid},
		{"no config", layers[:1], extract.Options{Mode: extract.Rootfs}, layout.ErrInvalid},
		{"too few diffIDs", layers[:1], extract.Options{Mode: extract.Rootfs, Config: ptr(src.Config())}, layout.ErrInvalid},
		{"another diffID", layers[:1], extract.Options{Mode: extract.Rootfs, Config: ptr(src.Config([]byte("other")))}, layout.ErrMismatch},
		{"unsafe directory", []extract.Layer{{Desc: layers[0].Desc, Dir: "../x"}}, extract.Options{Mode: extract.LayerPerDir}, layout.ErrUnsafe},
		{"nested directories", []extract.Layer{{Desc: layers[0].Desc, Dir: "a"}, {Desc: layers[1].Desc, Dir: "a/b"}}, extract.Options{Mode: extract.LayerPerDir}, layout.ErrInvalid},
		{"unsafe name", []extract.Layer{{Desc: text.Desc, Name: "../x"}}, extract.Options{Mode: extract.ExtractAll}, layout.ErrUnsafe},
		{"no such layer", []extract.Layer{{Desc: ocispec.Descriptor{MediaType: PlainTar, Digest: "sha256:" + "00000000000000000000000000000000" + "00000000000000000000000000000000", Size: 1}}}, extract.Options{}, layout.ErrNotFound},
		{"unknown mode", layers[:1], extract.Options{Mode: "x"}, layout.ErrInvalid},
		{"unknown policy", layers[:1], extract.Options{Symlinks: "x"}, layout.ErrInvalid},
		{"entries", layers[:1], extract.Options{MaxEntries: 1}, layout.ErrInvalid},
		{"depth", layers[:1], extract.Options{MaxDepth: 1}, layout.ErrInvalid},
		{"bytes", layers[:1], extract.Options{MaxBytes: 100}, layout.ErrInvalid},
		{"name", layers[:1], extract.Options{MaxName: 2}, layout.ErrInvalid},
	} {
		dir := t.TempDir()
		_, err := extract.Extract(ctx, src, tt.layers, filepath.Join(dir, "out"), &tt.opts)
		if names, readErr := os.ReadDir(dir); !errors.Is(err, tt.want) || readErr != nil || len(names) > 0 {
			t.Errorf("%s: %v, want %v; left over: %v", tt.name, err, tt.want, names)
		}
	}
}

func ptr[T any](v T) *T { return &v }

// TestMetadata: what a plain extraction gives to files.
func TestMetadata(t *testing.T) {
	src := NewSource()
	data := Tar(
		Entry{Name: "ro", Type: '5', Mode: 0o555, Time: 1000},
		Entry{Name: "ro/f", Type: '0', Body: "x", Mode: 0o6755, Time: 2000, UID: 77, GID: 77},
		Entry{Name: "tmp", Type: '5', Mode: 0o1777, Time: 3000},
		Entry{Name: "ns", Type: '0', PAX: map[string]string{"mtime": "4000.123456789"}},
		Entry{Name: "l", Type: '2', Link: "ns", Time: 5000},
		File("implied/f", "x"),
		Entry{Name: "late", Type: '5', Mode: 0o700, Time: 6000},
		Entry{Name: "./", Type: '5', Mode: 0o750, Time: 7000},
		Sparse("sparse", 64<<20, 32<<20, "data"),
	)
	for _, f := range []compress.Format{compress.None, compress.Gzip, compress.Zstd} {
		mediaType := "application/vnd.example.tar"
		if f != compress.None {
			mediaType += "+" + f.String()
		}
		out := filepath.Join(t.TempDir(), "out")
		layers := []extract.Layer{{Desc: src.Add(Compress(data, f), mediaType)}}
		if _, err := extract.Extract(t.Context(), src, layers, out, nil); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			path string
			mode fs.FileMode
			time time.Time
		}{
			{"ro", fs.ModeDir | 0o555, time.Unix(1000, 0)},
			{"ro/f", 0o755, time.Unix(2000, 0)},
			{"tmp", fs.ModeDir | fs.ModeSticky | 0o777, time.Unix(3000, 0)},
			{"ns", 0o644, time.Unix(4000, 123456789)},
			{"l", fs.ModeSymlink | 0o777, time.Unix(5000, 0)},
			{"implied", fs.ModeDir | 0o755, time.Unix(0, 0)},
			{"late", fs.ModeDir | 0o700, time.Unix(6000, 0)},
			{".", fs.ModeDir | 0o750, time.Unix(7000, 0)},
		} {
			info, err := os.Lstat(filepath.Join(out, tt.path))
			if err != nil || info.Mode() != tt.mode || !info.ModTime().Equal(tt.time) {
				t.Errorf("%v: %s: %v %v, %v; want %v %v", f, tt.path, info.Mode(), info.ModTime(), err, tt.mode, tt.time)
			}
			if uid := ownerOf(info); uid != os.Geteuid() {
				t.Errorf("%v: %s belongs to %d", f, tt.path, uid)
			}
		}
		info, err := os.Stat(filepath.Join(out, "sparse"))
		if err != nil || info.Size() != 64<<20 {
			t.Errorf("sparse file: %v, %v", info, err)
		} else if used := blocksOf(info) * 512; used > 1<<20 {
			t.Errorf("a sparse file takes %d bytes", used)
		}
		makeReadable(t, out)
	}
}

// TestSkipped: what the options leave out is told.
func TestSkipped(t *testing.T) {
	src := NewSource()
	layers := layersOf(src, PlainTar, Tar(Entry{Name: "p", Type: '6'}, Link("q", "p"), Symlink("out", "/etc"), Symlink("in", "f"), File("f", "x")))
	out := filepath.Join(t.TempDir(), "out")
	res, err := extract.Extract(t.Context(), src, layers, out, &extract.Options{Special: extract.SpecialSkip, Symlinks: extract.SymlinksSkip})
	if err != nil {
		t.Fatal(err)
	}
	var skipped []string
	for _, s := range res.Skipped {
		skipped = append(skipped, s.Path+": "+s.Why)
	}
	want := []string{"p: a FIFO", "q: a hard link to p, which was left out", "out: a symbolic link to /etc, which leads out of the directory"}
	if diff := cmp.Diff(want, skipped) + cmp.Diff([]string{"f = x", "in -> f"}, list(t, out)); diff != "" {
		t.Error(diff)
	}
}

// TestPlace: what may be at OUT, and what is there afterwards.
func TestPlace(t *testing.T) {
	src := NewSource()
	layers := layersOf(src, PlainTar, Tar(File("new", "n"), Entry{Name: "ro", Type: '5', Mode: 0o500}, File("ro/x", "x")))
	bad := layersOf(src, PlainTar, Tar(File("new", "n"), File("../x", "")))
	run := func(layers []extract.Layer, out string, opts extract.Options) error {
		_, err := extract.Extract(t.Context(), src, layers, out, &opts)
		return err
	}
	want := []string{"new = n", "ro/", "ro/x = x"}
	dir := t.TempDir()
	t.Cleanup(func() { makeReadable(t, dir) })
	out := filepath.Join(dir, "out")
	check := func(what string, err, wantErr error, want []string) {
		t.Helper()
		if !errors.Is(err, wantErr) {
			t.Fatalf("%s: %v, want %v", what, err, wantErr)
		}
		if diff := cmp.Diff(want, list(t, out)); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
		if names, err := os.ReadDir(dir); len(names) != 1 || err != nil {
			t.Errorf("%s: left over: %v", what, names)
		}
	}
	check("absent", run(layers, out, extract.Options{}), nil, want)
	check("full", run(layers, out, extract.Options{}), layout.ErrExists, want)
	if err := os.WriteFile(filepath.Join(out, "mine"), []byte("m"), 0o600); err != nil {
		t.Fatal(err)
	}
	check("force, and an error", run(bad, out, extract.Options{Force: true}), layout.ErrUnsafe, append([]string{"mine = m"}, want...))
	check("protected", run(layers, out, extract.Options{Force: true, Protect: []string{filepath.Join(out, "mine")}}), layout.ErrConflict, append([]string{"mine = m"}, want...))
	check("force", run(layers, out, extract.Options{Force: true}), nil, want)

	makeReadable(t, out)
	if err := errors.Join(os.RemoveAll(out), os.Mkdir(out, 0o700)); err != nil {
		t.Fatal(err)
	}
	check("empty, and an error", run(bad, out, extract.Options{}), layout.ErrUnsafe, nil)
	check("empty", run(layers, out, extract.Options{}), nil, want)

	makeReadable(t, out)
	if err := errors.Join(os.RemoveAll(out), os.Mkdir(out, 0o700)); err != nil {
		t.Fatal(err)
	}
	t.Chdir(out)
	check("the working directory, and an error", run(bad, ".", extract.Options{}), layout.ErrUnsafe, nil)
	check("the working directory", run(layers, ".", extract.Options{}), nil, want)
	check("the working directory, force", run(layers, ".", extract.Options{Force: true}), layout.ErrConflict, want)
	check("above the working directory, force", run(layers, dir, extract.Options{Force: true}), layout.ErrConflict, want)
	if err := run(layers, "/", extract.Options{Force: true}); !errors.Is(err, layout.ErrConflict) {
		t.Errorf("the root of the machine: %v", err)
	}

	for name, want := range map[string]error{"new": layout.ErrExists, "absent/out": layout.ErrNotFound, "new/out": fs.ErrInvalid} {
		err := run(layers, name, extract.Options{Force: true})
		if want == fs.ErrInvalid { //nolint:errorlint // stands for any error
			want = err
		}
		if err == nil || !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	check("after all", nil, nil, want)
}

// TestSweep: the next extraction removes what a killed one has left, and not
// what one that runs is making.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	stale, other := filepath.Join(dir, ".out.extract-1"), filepath.Join(dir, ".outer.extract-1")
	if err := errors.Join(os.MkdirAll(filepath.Join(stale, "ro"), 0o700), os.Mkdir(other, 0o700), os.Chmod(filepath.Join(stale, "ro"), 0o500)); err != nil {
		t.Fatal(err)
	}
	src := NewSource()
	layers := layersOf(src, PlainTar, Tar(File("f", "x")))
	running := filepath.Join(dir, "in")
	var nested error
	progress := func(e layout.Event) {
		if e.Kind == "start" { // in the middle of another extraction to the same place
			_, nested = extract.Extract(t.Context(), src, layers, filepath.Join(dir, "out"), nil)
		}
	}
	_, err := extract.Extract(t.Context(), src, layers, filepath.Join(dir, "out"), &extract.Options{Progress: progress})
	if nested != nil || !errors.Is(err, layout.ErrExists) {
		t.Errorf("two at once: %v and %v, want one that fails because of the other", nested, err)
	}
	_ = running
	var names []string
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if diff := cmp.Diff([]string{".outer.extract-1", "out"}, names); diff != "" || err != nil {
		t.Errorf("left over: %s %v", diff, err)
	}
}

// TestProgress: the bytes that are reported are those of the blob.
func TestProgress(t *testing.T) {
	src := NewSource()
	layers := layersOf(src, ImageGzip, Gzip(Tar(File("f", strings.Repeat("x", 1<<20)))))
	var kinds []string
	var n int64
	_, err := extract.Extract(t.Context(), src, layers, filepath.Join(t.TempDir(), "out"), &extract.Options{Progress: func(e layout.Event) {
		if n += e.Bytes; e.Kind != "bytes" {
			kinds = append(kinds, e.Kind)
		}
	}})
	if err != nil || n != layers[0].Desc.Size || !slices.Equal(kinds, []string{"start", "done"}) || src.Opened.Load() != 1 {
		t.Errorf("%v: %v, %d bytes of %d, %d times opened", err, kinds, n, layers[0].Desc.Size, src.Opened.Load())
	}
}
