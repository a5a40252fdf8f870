package archive_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/archive"
	"github.com/gardenlinux/gloci-layout/layout/archive/parts"
	"github.com/gardenlinux/gloci-layout/layout/sourcetest"
)

// tarDir returns the files of dir as they are in a tar archive that the standard
// library writes, compressed in format.
func tarDir(t testing.TB, dir string, format compress.Format) []byte {
	t.Helper()
	var out bytes.Buffer
	zw, err := compress.NewWriter(&out, format, 1)
	if err != nil {
		t.Fatal(err)
	}
	tw := tar.NewWriter(zw)
	if err := tw.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// openBytes opens data as an archive in a file.
func openBytes(t testing.TB, data []byte, opts *archive.Options) (*archive.Archive, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "test.oci")
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
	a, err := archive.Open(t.Context(), file, opts)
	if err == nil {
		t.Cleanup(func() { a.Close() })
	}
	return a, err
}

// splitBytes splits data into parts of size bytes, or into as many as there may
// be, and returns the name of the whole.
func splitBytes(t testing.TB, data []byte, size int64) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "test.oci")
	w, err := parts.Create(file, max(size, int64(len(data))/parts.MaxParts+1))
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(data)
	if err == nil {
		_, err = w.Commit(t.Context())
	}
	if err := errors.Join(err, w.Close(false)); err != nil {
		t.Fatal(err)
	}
	return file
}

// An archive keeps the guarantees of a source, in every form; package layout
// runs the same tests on a directory.
func TestArchiveIsSource(t *testing.T) {
	for _, format := range []compress.Format{compress.None, compress.Gzip, compress.Zstd} {
		t.Run(format.String(), func(t *testing.T) {
			sourcetest.Run(t, func(t *testing.T, dir string) layout.Source {
				a, err := openBytes(t, tarDir(t, dir, format), nil)
				if err != nil {
					t.Fatal(err)
				}
				return a
			})
		})
	}
	for format, size := range map[compress.Format]int64{compress.None: 10_000, compress.Zstd: 100_000} {
		t.Run(fmt.Sprintf("%v in parts", format), func(t *testing.T) {
			sourcetest.Run(t, func(t *testing.T, dir string) layout.Source {
				a, err := archive.Open(t.Context(), splitBytes(t, tarDir(t, dir, format), size), nil)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { a.Close() })
				return a
			})
		})
	}
	t.Run("stream", func(t *testing.T) {
		sourcetest.Run(t, func(t *testing.T, dir string) layout.Source {
			a, err := archive.OpenReader(t.Context(), bytes.NewReader(tarDir(t, dir, compress.None)), "stdin", nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { a.Close() })
			return a
		})
	})
}

// What Pack writes is a source with the same guarantees.
func TestPackedIsSource(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "l")
	c := sourcetest.Write(t, dir)
	l := openDir(t, dir)
	var out bytes.Buffer
	if err := archive.Pack(t.Context(), l, &out, &archive.PackOptions{All: true}); err != nil {
		t.Fatal(err)
	}
	a, err := openBytes(t, out.Bytes(), nil)
	if err != nil {
		t.Fatal(err)
	}
	x, err := a.Index(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := string(x.Bytes()); got != c.Index {
		t.Errorf("index.json = %q, want %q", got, c.Index)
	}
	n := 0
	for info, err := range a.Blobs(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if info.Size != int64(len(c.Stored[info.Digest])) {
			t.Errorf("blob %s has %d bytes", info.Digest, info.Size)
		}
		n++
	}
	if n != len(c.Stored) {
		t.Errorf("%d blobs, want %d", n, len(c.Stored))
	}
	res, err := layout.Verify(t.Context(), a, nil)
	if err != nil || len(res.Findings) > 0 {
		t.Errorf("Verify: %v, %v", res, err)
	}
}

func openDir(t testing.TB, dir string) *layout.Layout {
	t.Helper()
	l, err := layout.Open(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// A spooled archive leaves no file behind, not even while it is open.
func TestSpoolLeavesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "l")
	sourcetest.Write(t, dir)
	for name, data := range map[string][]byte{
		"sound":   tarDir(t, dir, compress.Gzip),
		"damaged": tarDir(t, dir, compress.Gzip)[:2000],
		"no tar":  {0x28, 0xb5, 0x2f, 0xfd, 0x04, 0x00, 0x01, 0x00, 0x00, 0x99, 0xe9, 0xd8, 0x51},
	} {
		temp := t.TempDir()
		a, err := openBytes(t, data, &archive.Options{TempDir: temp})
		if (err == nil) != (name == "sound") {
			t.Errorf("%s: error %v", name, err)
		}
		entries, err := os.ReadDir(temp)
		if err != nil || len(entries) > 0 {
			t.Errorf("%s: left %v, %v", name, entries, err)
		}
		if a != nil {
			if _, err := a.Index(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
}

// files returns the files below dir by name, with their content.
func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	m := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, name))
		m[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// members returns the headers and the content of an archive as the standard
// library reads them.
func members(t testing.TB, data []byte) ([]*tar.Header, map[string]string) {
	t.Helper()
	var headers []*tar.Header
	content := map[string]string{}
	tr := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return headers, content
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		headers = append(headers, h)
		content[h.Name] = string(b)
	}
}
