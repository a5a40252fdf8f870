package archive_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/archive"
	"github.com/gardenlinux/gloci-layout/layout/sourcetest"
)

// withoutOwn returns the files of a layout without its working files, and with
// its marker as we write it.
func withoutOwn(t testing.TB, dir string) map[string]string {
	m := files(t, dir)
	for name := range m {
		if strings.HasPrefix(name, ".gloci/") {
			delete(m, name)
		}
	}
	m["oci-layout"] = markerJSON
	return m
}

// pack, unpack and pack give back the bytes, and an unpacked layout is what a
// direct copy would be.
func TestUnpackRoundTrip(t *testing.T) {
	dir, _ := sample(t)
	l := openDir(t, dir)
	for _, format := range []compress.Format{compress.None, compress.Gzip, compress.Zstd} {
		opts := &archive.PackOptions{All: true, Compression: format}
		want := packed(t, l, opts)
		a, err := openBytes(t, want, nil)
		if err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(t.TempDir(), "out")
		if err := archive.Unpack(t.Context(), a, out, nil); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(withoutOwn(t, dir), withoutOwn(t, out)); diff != "" {
			t.Errorf("%v: unpacked (-want +got):\n%.2000s", format, diff)
		}
		if !bytes.Equal(packed(t, openDir(t, out), opts), want) {
			t.Errorf("%v: pack(unpack(x)) is not x", format)
		}
		direct := filepath.Join(t.TempDir(), "direct")
		if err := archive.Unpack(t.Context(), l, direct, nil); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(withoutOwn(t, direct), withoutOwn(t, out)); diff != "" {
			t.Errorf("%v: a copy and what was unpacked (-copy +unpacked):\n%.2000s", format, diff)
		}
	}
}

func TestUnpackModes(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	dir, _ := sample(t)
	out := filepath.Join(t.TempDir(), "out")
	if err := archive.Unpack(t.Context(), openDir(t, dir), out, nil); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(out, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == ".gloci" {
			return filepath.SkipDir
		}
		info, err := d.Info()
		want := fs.FileMode(0o644)
		if d.IsDir() {
			want = 0o755
		}
		if err == nil && info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, want %v", path, info.Mode().Perm(), want)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestUnpackTarget(t *testing.T) {
	dir, c := sample(t)
	src := openDir(t, dir)
	parent := t.TempDir()
	for _, tt := range []struct {
		name string
		make func(out string) error
		want error
	}{
		{"absent", func(string) error { return nil }, nil},
		{"empty directory", func(out string) error { return os.Mkdir(out, 0o755) }, nil},
		{"empty layout", func(out string) error {
			l, err := layout.Create(t.Context(), out, nil)
			if err != nil {
				return err
			}
			return l.Close()
		}, nil},
		{"layout with entries", func(out string) error { return archive.Unpack(t.Context(), src, out, nil) }, layout.ErrExists},
		{"directory with a file", func(out string) error {
			return errors.Join(os.Mkdir(out, 0o755), os.WriteFile(filepath.Join(out, "x"), nil, 0o644))
		}, layout.ErrExists},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out := filepath.Join(parent, strings.ReplaceAll(tt.name, " ", "-"))
			if err := tt.make(out); err != nil {
				t.Fatal(err)
			}
			var before map[string]string
			if tt.want != nil {
				before = files(t, out)
			}
			if err := archive.Unpack(t.Context(), src, out, nil); !errors.Is(err, tt.want) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			if tt.want != nil {
				if diff := cmp.Diff(before, files(t, out)); diff != "" {
					t.Errorf("changed (-before +after):\n%s", diff)
				}
				return
			}
			x, err := openDir(t, out).Index(t.Context())
			if err != nil || string(x.Bytes()) != c.Index {
				t.Errorf("index.json = %v, %v", x, err)
			}
		})
	}
	file := filepath.Join(parent, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := archive.Unpack(t.Context(), src, file, nil); err == nil {
		t.Error("unpacked over a file")
	}
	if err := archive.Unpack(t.Context(), src, filepath.Join(parent, "no", "out"), nil); !errors.Is(err, layout.ErrNotFound) {
		t.Errorf("no parent: error %v, want ErrNotFound", err)
	}
	entries, err := filepath.Glob(filepath.Join(parent, ".*"))
	if err != nil || len(entries) > 0 {
		t.Errorf("left %v, %v", entries, err)
	}
}

// What cannot be unpacked whole leaves everything as it was.
func TestUnpackRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(dir string, c *sourcetest.Content) error
		want   error
	}{
		{"flipped blob", func(dir string, c *sourcetest.Content) error {
			return flip(filepath.Join(dir, layout.BlobPath(c.Large.Digest)))
		}, layout.ErrMismatch},
		{"flipped blob that nothing names", func(dir string, c *sourcetest.Content) error {
			return flip(filepath.Join(dir, layout.BlobPath(c.Unreferenced.Digest)))
		}, layout.ErrMismatch},
		{"flipped sha512 blob", func(dir string, c *sourcetest.Content) error {
			return flip(filepath.Join(dir, layout.BlobPath(c.Long.Digest)))
		}, layout.ErrMismatch},
		{"short blob", func(dir string, c *sourcetest.Content) error {
			return os.Truncate(filepath.Join(dir, layout.BlobPath(c.Layer.Digest)), 3)
		}, layout.ErrMismatch},
		{"index.json", func(dir string, _ *sourcetest.Content) error {
			return os.WriteFile(filepath.Join(dir, "index.json"), []byte(`{"schemaVersion":2}`), 0o644)
		}, layout.ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, c := sample(t)
			if err := tt.damage(dir, c); err != nil {
				t.Fatal(err)
			}
			a, err := openBytes(t, tarDir(t, dir, compress.None), nil)
			if err != nil {
				t.Fatal(err)
			}
			parent := t.TempDir()
			if err := archive.Unpack(t.Context(), a, filepath.Join(parent, "out"), nil); !errors.Is(err, tt.want) {
				t.Errorf("absent: error %v, want %v", err, tt.want)
			}
			if entries, err := os.ReadDir(parent); err != nil || len(entries) > 0 {
				t.Errorf("absent: left %v, %v", entries, err)
			}
			empty := t.TempDir()
			if err := archive.Unpack(t.Context(), a, empty, nil); !errors.Is(err, tt.want) {
				t.Errorf("empty: error %v, want %v", err, tt.want)
			}
			if entries, err := os.ReadDir(empty); err != nil || len(entries) > 0 {
				t.Errorf("empty: left %v, %v", entries, err)
			}
		})
	}
}

func TestUnpackCanceled(t *testing.T) {
	dir, _ := sample(t)
	src := openDir(t, dir)
	for _, stop := range []int{0, 1, 7} {
		parent := t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		if stop == 0 {
			cancel()
		}
		err := archive.Unpack(ctx, src, filepath.Join(parent, "out"), &archive.UnpackOptions{Jobs: 1, Progress: func(layout.Event) {
			if n++; n == stop {
				cancel()
			}
		}})
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("canceled at event %d: error %v, want context.Canceled", stop, err)
		}
		if entries, err := os.ReadDir(parent); err != nil || len(entries) > 0 {
			t.Errorf("canceled at event %d: left %v, %v", stop, entries, err)
		}
	}
}

func TestUnpackProgress(t *testing.T) {
	dir, c := sample(t)
	done := map[digest.Digest]int64{}
	err := archive.Unpack(t.Context(), openDir(t, dir), filepath.Join(t.TempDir(), "out"), &archive.UnpackOptions{Progress: func(e layout.Event) {
		if e.Kind == "bytes" {
			done[e.Desc.Digest] += e.Bytes
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	for d, data := range c.Stored {
		if done[d] != int64(len(data)) {
			t.Errorf("%s: told of %d bytes of %d", d, done[d], len(data))
		}
	}
}

// Whoever adds to the empty layout meanwhile loses nothing.
func TestUnpackIntoBusyLayout(t *testing.T) {
	dir, c := sample(t)
	out := filepath.Join(t.TempDir(), "out")
	l, err := layout.Create(t.Context(), out, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	added := false
	err = archive.Unpack(t.Context(), openDir(t, dir), out, &archive.UnpackOptions{Progress: func(layout.Event) {
		if !added {
			added = true
			if err := l.Update(t.Context(), func(tx *layout.Tx) error { tx.Index().Add(c.Layer); return nil }); err != nil {
				t.Error(err)
			}
		}
	}})
	if !errors.Is(err, layout.ErrExists) {
		t.Errorf("error %v, want ErrExists", err)
	}
	if x, err := l.Index(t.Context()); err != nil || x.Len() != 1 {
		t.Errorf("index.json = %v, %v; want the entry that was added", x, err)
	}
}
