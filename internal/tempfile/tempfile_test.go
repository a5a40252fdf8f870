package tempfile

import (
	"errors"
	"io/fs"
	"os"
	"testing"
)

// A file can be written, read and reserved, and the directory never shows it.
func TestNew(t *testing.T) {
	for name, open := range map[string]func(dir string) (*os.File, error){"new": New, "removed": removed} {
		dir := t.TempDir()
		f, err := open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := Reserve(f, 1<<20); err != nil {
			t.Error(err)
		}
		if _, err := f.WriteString("some bytes"); err != nil {
			t.Error(err)
		}
		got := make([]byte, 5)
		if _, err := f.ReadAt(got, 5); err != nil || string(got) != "bytes" {
			t.Errorf("%s: read %q, %v", name, got, err)
		}
		if info, err := f.Stat(); err != nil || info.Size() != 10 || info.Mode() != 0o600 {
			t.Errorf("%s: %d bytes, mode %v, %v", name, info.Size(), info.Mode(), err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Errorf("%s: in the directory are %v, %v", name, entries, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := New(t.TempDir() + "/missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	t.Setenv("TMPDIR", t.TempDir())
	f, err := New("")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}
