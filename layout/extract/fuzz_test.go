package extract_test

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/extract"
	. "github.com/gardenlinux/gloci-layout/layout/extract/extracttest" //nolint:revive // as in extract_test.go
)

// FuzzExtract: whatever is in a layer, the directory around OUT stays as it is,
// an error leaves nothing, and what was kept leads nowhere else.
func FuzzExtract(f *testing.F) {
	dir := f.TempDir()
	for _, h := range HostileLayers("/nonexistent") {
		if layer := h.Layer; !h.Slow {
			if b := layer(); len(b) < 8<<10 {
				f.Add(b, uint8(0))
				f.Add(b, uint8(1))
			}
		}
	}
	f.Add(Tar(Dir("a"), File("a/b", "c"), Symlink("d", "a"), Link("e", "a/b"), File("d/f", "g")), uint8(2))
	f.Add(Compress(Tar(File("a", "b")), compress.Zstd), uint8(3))
	if err := os.WriteFile(filepath.Join(dir, Victim), []byte("safe"), 0o600); err != nil {
		f.Fatal(err)
	}
	before := snapshot(f, dir)
	out := filepath.Join(dir, "out")
	f.Fuzz(func(t *testing.T, data []byte, how uint8) {
		if len(data) > 1<<20 {
			return
		}
		src := NewSource()
		mediaType := PlainTar
		switch compress.Detect(data) {
		case compress.Gzip:
			mediaType = ImageGzip
		case compress.Zstd:
			mediaType = ImageTar + "+zstd"
		}
		opts := extract.Options{MaxBytes: 16 << 20, MaxEntries: 2000, Files: how&8 != 0, Special: extract.SpecialSkip}
		if how&1 != 0 {
			opts.Symlinks = extract.SymlinksSkip
		}
		layers := []extract.Layer{{Desc: src.Add(data, mediaType)}}
		if how&2 != 0 { // twice: all has to be identical, or to be replaced
			opts.Mode = extract.MergeDir
			layers = append(layers, layers[0])
		}
		if how&4 != 0 {
			opts.Mode = extract.Rootfs
			config := src.Config(plain(data))
			if len(layers) == 2 {
				config = src.Config(plain(data), plain(data))
			}
			opts.Config = &config
		}
		_, err := extract.Extract(t.Context(), src, layers, out, &opts)
		if err == nil {
			if opts.Mode != extract.Rootfs {
				checkLinks(t, out)
			}
			makeReadable(t, out)
			if err := os.RemoveAll(out); err != nil {
				t.Fatal(err)
			}
		} else if !errors.Is(err, layout.ErrUnsafe) && !errors.Is(err, layout.ErrInvalid) && !errors.Is(err, layout.ErrConflict) && !errors.Is(err, layout.ErrMismatch) {
			t.Errorf("%v is not an error of package layout", err)
		}
		if after := snapshot(t, dir); !maps.Equal(before, after) {
			t.Fatalf("ESCAPED or left over: %v", slices.Collect(maps.Keys(after)))
		}
	})
}

// plain returns what is uncompressed of data.
func plain(data []byte) []byte {
	r, err := compress.NewReaderOptions(bytes.NewReader(data), compress.Detect(data), &compress.ReaderOptions{MaxBytes: 16 << 20})
	if err != nil {
		return nil
	}
	defer r.Close() //nolint:errcheck // of memory
	var b bytes.Buffer
	_, _ = b.ReadFrom(r) // what is broken is refused before the diffID is looked at
	return b.Bytes()
}

// checkLinks resolves every symbolic link with the kernel's own eyes, which may
// not see anything outside of dir.
func checkLinks(t *testing.T, dir string) {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return // not readable
	}
	defer root.Close()
	for p, text := range snapshotNames(t, dir) {
		if text != "link" {
			continue
		}
		if _, err := root.Stat(strings.TrimPrefix(p, "/")); err != nil && strings.Contains(err.Error(), "escapes") {
			t.Errorf("the link %q leads out: %v", p, err)
		}
	}
}

func snapshotNames(t *testing.T, dir string) map[string]string {
	m := map[string]string{}
	_ = filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error { //nolint:errcheck // what cannot be read is left out
		if err != nil {
			return filepath.SkipDir
		}
		if d.Type()&os.ModeSymlink != 0 {
			m[strings.TrimPrefix(p, dir)] = "link"
		}
		return nil
	})
	return m
}

// A model is a root file system as layer.md describes it, in the plainest way:
// a map of paths that is copied for each layer.
type model map[string]string

func (m model) removeAll(p string) {
	delete(m, p)
	for k := range m {
		if strings.HasPrefix(k, p+"/") {
			delete(m, k)
		}
	}
}

// applyModel applies one layer: first all that it hides, then all that it has.
func (m model) apply(entries []Entry) {
	for _, e := range entries {
		dir, base := split(e.Name)
		switch {
		case base == ".wh..wh..opq":
			for k := range m {
				if dir == "" || strings.HasPrefix(k, dir+"/") {
					delete(m, k)
				}
			}
		case strings.HasPrefix(base, ".wh."):
			m.removeAll(strings.Trim(dir+"/"+strings.TrimPrefix(base, ".wh."), "/"))
		}
	}
	for _, e := range entries {
		dir, base := split(e.Name)
		if strings.HasPrefix(base, ".wh.") {
			continue
		}
		for at := range dirs(dir) {
			if m[at] != "dir" {
				m.removeAll(at)
				m[at] = "dir"
			}
		}
		if e.Type == '5' && m[e.Name] == "dir" {
			continue
		}
		m.removeAll(e.Name)
		if e.Type == '5' {
			m[e.Name] = "dir"
		} else {
			m[e.Name] = "file " + e.Body
		}
	}
}

func split(name string) (dir, base string) {
	i := strings.LastIndexByte(name, '/')
	return name[:max(i, 0)], name[i+1:]
}

// dirs yields a path and all above it, the uppermost first.
func dirs(p string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for i, c := range p + "/" {
			if c == '/' && i > 0 && !yield(p[:i]) {
				return
			}
		}
	}
}

// FuzzWhiteouts: layers that are made of the bytes of the input give the tree
// that the model gives.
func FuzzWhiteouts(f *testing.F) {
	f.Add([]byte("\x00\x10\x20\xff\x05\x15"))
	f.Add([]byte("\x01\x11\x21\x31\xff\x42\x52\xff\x03\x60"))
	f.Add([]byte("\x30\x31\x32\xff\x80\x90\xa0\xff\xb1\x01"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 200 {
			return
		}
		names := []string{"a", "b", "a/a", "a/b", "b/a", "a/a/a", "a/b/a", "b/a/b"}
		var layers [][]Entry
		var layer []Entry
		seen := map[string]bool{}
		for i, c := range append(slices.Clone(data), 0xff) {
			if c == 0xff {
				layers, layer, seen = append(layers, layer), nil, map[string]bool{}
				continue
			}
			name := names[int(c>>4)%len(names)]
			e := File(name, string(rune('a'+i%26)))
			switch c & 3 {
			case 1:
				e = Dir(name)
			case 2:
				d, b := split(name)
				e = File(strings.TrimPrefix(d+"/.wh."+b, "/"), "")
			case 3:
				e = File(name+"/.wh..wh..opq", "")
			}
			// Within a layer each path is there once, and nothing is below a
			// file: the specification says nothing about others.
			bad := seen[e.Name]
			own, base := split(e.Name)
			for at := range dirs(own) {
				bad = bad || seen["file "+at]
			}
			if !strings.HasPrefix(base, ".wh.") && e.Type == '0' {
				for other := range seen {
					bad = bad || strings.HasPrefix(other, e.Name+"/")
				}
				if !bad {
					seen["file "+e.Name] = true
				}
			}
			if !bad {
				seen[e.Name] = true
				layer = append(layer, e)
			}
		}
		want := model{}
		src := NewSource()
		var stack []extract.Layer
		for _, entries := range layers {
			want.apply(entries)
			stack = append(stack, extract.Layer{Desc: src.Add(Tar(entries...), ImageTar)})
		}
		out := filepath.Join(dir, "out")
		if _, err := extract.Extract(t.Context(), src, stack, out, &extract.Options{Mode: extract.MergeDir}); err != nil {
			t.Fatal(err)
		}
		got := model{}
		for _, line := range list(t, out) {
			if name, ok := strings.CutSuffix(line, "/"); ok {
				got[name] = "dir"
			} else {
				name, body, _ := strings.Cut(line, " = ")
				got[name] = "file " + body
			}
		}
		if err := os.RemoveAll(out); err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(want, got) {
			t.Errorf("layers %+v\n want %v\n got %v", layers, want, got)
		}
	})
}
