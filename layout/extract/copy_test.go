package extract_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/extract"
)

// stored is a layout that holds contents as blobs, and their descriptors.
func stored(t *testing.T, contents ...string) (*layout.Layout, []ocispec.Descriptor) {
	t.Helper()
	l, err := layout.Create(t.Context(), filepath.Join(t.TempDir(), "layout"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	s, err := l.Stage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var descs []ocispec.Descriptor
	x := layout.NewIndex()
	for _, c := range contents {
		desc, err := s.AddBytes(t.Context(), []byte(c), "application/x.test")
		if err != nil {
			t.Fatal(err)
		}
		descs = append(descs, desc)
		x.Add(desc)
	}
	// An entry of index.json may be any blob.
	if err := s.Update(t.Context(), func(tx *layout.Tx) error { *tx.Index() = *x; return nil }); err != nil {
		t.Fatal(err)
	}
	return l, descs
}

// damage flips a byte of a stored blob.
func damage(t *testing.T, l *layout.Layout, desc ocispec.Descriptor) {
	t.Helper()
	file := filepath.Join(l.Dir(), filepath.FromSlash(layout.BlobPath(desc.Digest)))
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// listing is every file below dir with its mode and content, one a line.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		info, err := d.Info()
		if err != nil || rel == "." {
			return err
		}
		line := info.Mode().String() + " " + filepath.ToSlash(rel)
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += "=" + string(b)
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// A blobsOnly is a source whose blobs are no parts of files, as of a registry.
type blobsOnly struct{ layout.Source }

func TestCopyFile(t *testing.T) {
	l, descs := stored(t, "one", "two")
	for name, src := range map[string]layout.Source{"sections": l, "streams": blobsOnly{l}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "f")
			var events []string
			opts := &extract.CopyOptions{Progress: func(ev layout.Event) { events = append(events, ev.Kind) }}
			if err := extract.CopyFile(t.Context(), src, descs[0], file, opts); err != nil {
				t.Fatal(err)
			}
			if got, want := listing(t, dir), "-rw-r--r-- f=one"; got != want {
				t.Errorf("copied %q, want %q", got, want)
			}
			if got := strings.Join(events, " "); got != "start bytes done" {
				t.Errorf("events %q", got)
			}
			if err := extract.CopyFile(t.Context(), src, descs[1], file, nil); !errors.Is(err, layout.ErrExists) {
				t.Errorf("over another file: %v, want ErrExists", err)
			}
			if err := extract.CopyFile(t.Context(), src, descs[1], filepath.Join(dir, "no", "f"), nil); !errors.Is(err, layout.ErrNotFound) {
				t.Errorf("without a parent: %v, want ErrNotFound", err)
			}
			link := filepath.Join(dir, "link")
			if err := os.Symlink("f", link); err != nil {
				t.Fatal(err)
			}
			force := &extract.CopyOptions{Force: true}
			if err := extract.CopyFile(t.Context(), src, descs[1], link, force); err != nil {
				t.Fatal(err)
			}
			if got, want := listing(t, dir), "-rw-r--r-- f=two\nLrwxrwxrwx link"; got != want {
				t.Errorf("over a link: %q, want %q", got, want)
			}
			if err := extract.CopyFile(t.Context(), src, descs[1], dir, force); !errors.Is(err, layout.ErrExists) {
				t.Errorf("over a directory: %v, want ErrExists", err)
			}
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			if err := extract.CopyFile(ended, src, descs[0], filepath.Join(dir, "late"), nil); !errors.Is(err, context.Canceled) {
				t.Errorf("canceled: %v", err)
			}
			if got, want := listing(t, dir), "-rw-r--r-- f=two\nLrwxrwxrwx link"; got != want {
				t.Errorf("after errors: %q, want %q", got, want)
			}
		})
	}
}

// A blob with one wrong byte, the last, is never seen.
func TestCopyDamaged(t *testing.T) {
	l, descs := stored(t, "one", "two")
	damage(t, l, descs[1])
	layers := []extract.NamedLayer{{Layer: layout.Layer{Desc: descs[0]}, Name: "a"}, {Layer: layout.Layer{Desc: descs[1]}, Name: "d/b"}}
	for name, src := range map[string]layout.Source{"sections": l, "streams": blobsOnly{l}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file, fresh, full := filepath.Join(dir, "f"), filepath.Join(dir, "fresh"), filepath.Join(dir, "full")
			if err := os.Mkdir(full, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(full, "a"), []byte("old"), 0o644); err != nil {
				t.Fatal(err)
			}
			before := listing(t, dir)
			force := &extract.CopyOptions{Force: true}
			var out bytes.Buffer
			for what, err := range map[string]error{
				"CopyFile":              extract.CopyFile(t.Context(), src, descs[1], file, nil),
				"CopyFile over another": extract.CopyFile(t.Context(), src, descs[1], filepath.Join(full, "a"), force),
				"CopyDir":               extract.CopyDir(t.Context(), src, fresh, layers, nil),
				"CopyDir into another":  extract.CopyDir(t.Context(), src, full, layers, force),
				"CopyTo":                extract.CopyTo(t.Context(), src, descs[1], &out, nil),
			} {
				if !errors.Is(err, layout.ErrMismatch) {
					t.Errorf("%s: %v, want ErrMismatch", what, err)
				}
			}
			if got := listing(t, dir); got != before {
				t.Errorf("left behind:\n%s\nwant\n%s", got, before)
			}
			if out.Len() > 0 {
				t.Errorf("CopyTo wrote %q", out.String())
			}
		})
	}
}

func TestCopyTo(t *testing.T) {
	l, descs := stored(t, "one")
	for name, src := range map[string]layout.Source{"sections": l, "streams": blobsOnly{l}} {
		var out bytes.Buffer
		if err := extract.CopyTo(t.Context(), src, descs[0], &out, nil); err != nil || out.String() != "one" {
			t.Errorf("%s: %q, %v", name, out.String(), err)
		}
	}
}

func TestCopyDir(t *testing.T) {
	l, descs := stored(t, "one", "two")
	layers := []extract.NamedLayer{{Layer: layout.Layer{Desc: descs[0]}, Name: "a"}, {Layer: layout.Layer{Desc: descs[1]}, Name: "d/e/b"}}
	const whole = "-rw-r--r-- a=one\n-rw-r--r-- d/e/b=two\ndrwxr-xr-x d\ndrwxr-xr-x d/e"
	dir := filepath.Join(t.TempDir(), "out")
	if err := extract.CopyDir(t.Context(), l, dir+"/", layers, nil); err != nil {
		t.Fatal(err)
	}
	if got := listing(t, dir); got != whole {
		t.Errorf("new directory:\n%s\nwant\n%s", got, whole)
	}
	if err := extract.CopyDir(t.Context(), l, dir, layers, nil); !errors.Is(err, layout.ErrExists) {
		t.Errorf("again: %v, want ErrExists", err)
	}
	if err := extract.CopyDir(t.Context(), l, dir, layers, &extract.CopyOptions{Force: true}); err != nil {
		t.Errorf("again with force: %v", err)
	}
	if got := listing(t, dir); got != whole {
		t.Errorf("again with force:\n%s\nwant\n%s", got, whole)
	}
	if err := extract.CopyDir(t.Context(), l, filepath.Join(dir, "no", "such"), layers, nil); !errors.Is(err, layout.ErrNotFound) {
		t.Errorf("without a parent: %v, want ErrNotFound", err)
	}
	if err := extract.CopyDir(t.Context(), l, filepath.Join(dir, "a"), layers, nil); !errors.Is(err, layout.ErrExists) {
		t.Errorf("on a file: %v, want ErrExists", err)
	}
	bad := []extract.NamedLayer{{Layer: layout.Layer{Desc: descs[0]}, Name: "../x"}}
	if err := extract.CopyDir(t.Context(), l, filepath.Join(dir, "new"), bad, nil); !errors.Is(err, layout.ErrUnsafe) {
		t.Errorf("a name that leads out: %v, want ErrUnsafe", err)
	}
	// Beside other files; a directory in the way of a file stays.
	other := t.TempDir()
	if err := os.MkdirAll(filepath.Join(other, "a"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := extract.CopyDir(t.Context(), l, other, layers, &extract.CopyOptions{Force: true}); !errors.Is(err, layout.ErrExists) {
		t.Errorf("over a directory: %v, want ErrExists", err)
	}
	if err := extract.CopyDir(t.Context(), l, other, layers[1:], nil); err != nil {
		t.Error(err)
	}
	if got, want := listing(t, other), "-rw-r--r-- d/e/b=two\ndrwx------ a\ndrwxr-xr-x d\ndrwxr-xr-x d/e"; got != want {
		t.Errorf("beside others:\n%s\nwant\n%s", got, want)
	}
}

// A link in the directory does not lead the files out of it.
func TestCopyDirLinks(t *testing.T) {
	l, descs := stored(t, "one")
	layers := []extract.NamedLayer{{Layer: layout.Layer{Desc: descs[0]}, Name: "d/a"}}
	top := t.TempDir()
	dir := filepath.Join(top, "out")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Mkdir(filepath.Join(top, "else"), 0o755), os.Symlink("../else", filepath.Join(dir, "d"))); err != nil {
		t.Fatal(err)
	}
	before := listing(t, top)
	for _, force := range []bool{false, true} {
		err := extract.CopyDir(t.Context(), l, dir, layers, &extract.CopyOptions{Force: force})
		if !errors.Is(err, layout.ErrUnsafe) {
			t.Errorf("force %v: %v, want ErrUnsafe", force, err)
		}
	}
	if got := listing(t, top); got != before {
		t.Errorf("left behind:\n%s\nwant\n%s", got, before)
	}
}
