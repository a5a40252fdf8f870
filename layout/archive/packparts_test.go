package archive_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/archive"
	"github.com/gardenlinux/gloci-layout/layout/archive/parts"
)

// joined returns the parts of file one after another, in the order of their
// names.
func joined(t testing.TB, file string) []byte {
	t.Helper()
	list, err := filepath.Glob(file + ".*-of-*")
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for _, name := range list {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return all
}

func TestPackParts(t *testing.T) {
	dir, _ := sample(t)
	l := openDir(t, dir)
	for _, name := range []string{"x.oci", "x.oci.gz", "x.oci.zst"} {
		whole := packed(t, l, &archive.PackOptions{Compression: compress.FormatOfName(name)})
		for _, size := range []int64{30_000, int64(len(whole)) - 1, int64(len(whole)), 1 << 30} {
			file := filepath.Join(t.TempDir(), name)
			m, err := archive.PackParts(t.Context(), l, file, size, nil)
			if err != nil {
				t.Fatal(err)
			}
			if m.Digest != digest.FromBytes(whole) || !bytes.Equal(joined(t, file), whole) {
				t.Errorf("%s in parts of %d bytes: other bytes than Pack writes", name, size)
			}
			for _, at := range []string{file, file + ".parts.json"} {
				a, err := archive.Open(t.Context(), at, nil)
				if err != nil {
					t.Fatal(err)
				}
				if res, err := layout.Verify(t.Context(), a, nil); err != nil || len(res.Findings) > 0 {
					t.Errorf("%s in parts of %d bytes: %v, %v", name, size, res, err)
				}
				if again := packed(t, a, &archive.PackOptions{Compression: compress.FormatOfName(name)}); !bytes.Equal(again, whole) {
					t.Errorf("%s in parts of %d bytes, packed again: other bytes", name, size)
				}
				if a.String() != at {
					t.Errorf("name %q, want %q", a, at)
				}
				if err := a.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// The size that is planned is the size that is written, or too many parts would
// be found late.
func TestPackPartsTooMany(t *testing.T) {
	dir, _ := sample(t)
	l := openDir(t, dir)
	whole := int64(len(packed(t, l, nil)))
	file, none := filepath.Join(t.TempDir(), "x.oci"), t.TempDir()
	least := (whole-1)/parts.MaxParts + 1
	if m, err := archive.PackParts(t.Context(), l, file, least, nil); err != nil || len(m.Parts) > parts.MaxParts {
		t.Errorf("parts of %d bytes: %v", least, err)
	}
	if _, err := archive.PackParts(t.Context(), l, filepath.Join(none, "x.oci"), (whole-1)/(parts.MaxParts+1), nil); !errors.Is(err, layout.ErrInvalid) {
		t.Errorf("too many parts: error %v, want ErrInvalid", err)
	}
	if got := files(t, none); len(got) != 0 {
		t.Errorf("left over: %v", got)
	}
	if _, err := archive.PackParts(t.Context(), l, file, 0, nil); !errors.Is(err, layout.ErrInvalid) {
		t.Errorf("parts of no bytes: error %v, want ErrInvalid", err)
	}
}

func TestPackPartsCanceled(t *testing.T) {
	dir, _ := sample(t)
	l := openDir(t, dir)
	file, none := filepath.Join(t.TempDir(), "x.oci"), t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	opts := &archive.PackOptions{Progress: func(layout.Event) { cancel() }}
	if _, err := archive.PackParts(ctx, l, file, 20_000, opts); !errors.Is(err, context.Canceled) {
		t.Fatalf("canceled: error %v", err)
	}
	if got := files(t, filepath.Dir(file)); len(got) == 0 {
		t.Error("nothing is left to go on with")
	}
	for name := range files(t, filepath.Dir(file)) {
		if !strings.HasPrefix(name, ".x.oci.tmp-split/") {
			t.Errorf("left in sight: %s", name)
		}
	}
	if _, err := archive.PackParts(t.Context(), l, file, 20_000, nil); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(joined(t, file), packed(t, l, nil)) {
		t.Error("gone on with: other bytes")
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(file), ".x.oci.tmp-split")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the working directory is left: %v", err)
	}
	// An error leaves nothing.
	if err := os.WriteFile(filepath.Join(dir, "index.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := archive.PackParts(t.Context(), openDir(t, dir), filepath.Join(none, "x.oci"), 20_000, nil); !errors.Is(err, layout.ErrInvalid) {
		t.Errorf("bad index.json: error %v", err)
	}
	if got := files(t, none); len(got) != 0 {
		t.Errorf("left over: %v", got)
	}
}

// One part is no archive, and the message says what to name instead.
func TestOpenOnePart(t *testing.T) {
	dir, _ := sample(t)
	file := filepath.Join(t.TempDir(), "x.oci")
	m, err := archive.PackParts(t.Context(), openDir(t, dir), file, 100_000, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range m.Parts {
		_, err := archive.Open(t.Context(), filepath.Join(filepath.Dir(file), p.Name), nil)
		var hint *layout.HintError
		if !errors.As(err, &hint) || !strings.Contains(hint.Hint, file+".parts.json") {
			t.Errorf("%s: error %v, want a hint that names the manifest", p.Name, err)
		}
	}
}
