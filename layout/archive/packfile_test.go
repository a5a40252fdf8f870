package archive_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/archive"
)

func TestPackFile(t *testing.T) {
	// Process-wide, so no test of this package may be parallel.
	defer syscall.Umask(syscall.Umask(0o077))
	dir, _ := sample(t)
	l := openDir(t, dir)
	for _, tt := range []struct {
		name string
		opts *archive.PackOptions
		want compress.Format
	}{
		{"x.oci", nil, compress.None},
		{"x.oci.gz", nil, compress.Gzip},
		{"x.oci.zst", nil, compress.Zstd},
		{"y.oci", &archive.PackOptions{Compression: compress.Zstd}, compress.Zstd},
		{"y.oci.gz", &archive.PackOptions{Compression: compress.Zstd}, compress.Zstd},
	} {
		file := filepath.Join(t.TempDir(), tt.name)
		for range 2 { // the second replaces the first
			got, err := archive.PackFile(t.Context(), l, file, tt.opts)
			if err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if want := (layout.BlobInfo{Digest: digest.FromBytes(data), Size: int64(len(data))}); got != want {
				t.Errorf("%s: PackFile = %v, want %v", tt.name, got, want)
			}
			if f := compress.Detect(data); f != tt.want {
				t.Errorf("%s: compressed as %v, want %v", tt.name, f, tt.want)
			}
			if want := packed(t, l, &archive.PackOptions{Compression: tt.want}); !bytes.Equal(data, want) {
				t.Errorf("%s: PackFile writes other bytes than Pack", tt.name)
			}
			info, err := os.Stat(file)
			if err != nil || info.Mode() != 0o644 {
				t.Errorf("%s: mode %v, %v; want 0644", tt.name, info.Mode(), err)
			}
		}
		if got := files(t, filepath.Dir(file)); len(got) != 1 {
			t.Errorf("%s: %d files are left", tt.name, len(got))
		}
	}
}

func TestPackFileNoDigest(t *testing.T) {
	dir, _ := sample(t)
	l := openDir(t, dir)
	file := filepath.Join(t.TempDir(), "x.oci")
	got, err := archive.PackFile(t.Context(), l, file, &archive.PackOptions{NoDigest: true})
	data, rerr := os.ReadFile(file)
	if err = errors.Join(err, rerr); err != nil {
		t.Fatal(err)
	}
	if want := (layout.BlobInfo{Size: int64(len(data))}); got != want || !bytes.Equal(data, packed(t, l, nil)) {
		t.Errorf("PackFile = %v, want %v and the bytes of Pack", got, want)
	}
}

func TestPackFileTarget(t *testing.T) {
	dir, _ := sample(t)
	l := openDir(t, dir)
	out := t.TempDir()
	target := filepath.Join(out, "target.oci")
	link := filepath.Join(out, "link.oci")
	fifo := filepath.Join(out, "fifo")
	if err := errors.Join(os.WriteFile(target, nil, 0o600), os.Symlink("target.oci", link), syscall.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := archive.PackFile(t.Context(), l, link, nil); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link became %v, %v", info.Mode(), err)
	}
	if info, err := os.Stat(target); err != nil || info.Size() == 0 {
		t.Errorf("the target was not written: %v, %v", info.Size(), err)
	}
	for _, file := range []string{fifo, out} {
		if _, err := archive.PackFile(t.Context(), l, file, nil); !errors.Is(err, layout.ErrExists) {
			t.Errorf("PackFile to %s: error %v, want ErrExists", filepath.Base(file), err)
		}
	}
	if _, err := archive.PackFile(t.Context(), l, filepath.Join(out, "no", "x.oci"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("PackFile into a directory that is not there: error %v", err)
	}
	// An archive may be packed over itself.
	a, err := archive.Open(t.Context(), target, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	before, err := os.ReadFile(target)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := archive.PackFile(t.Context(), a, target, nil); err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(target); err != nil || !bytes.Equal(before, after) {
		t.Errorf("packed over itself: %d bytes became %d, %v", len(before), len(after), err)
	}
}
