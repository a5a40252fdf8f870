package durable

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestSweepDirs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a[b]*")
	at := func(name string) string { return filepath.Join(dir, name) }
	err := errors.Join(
		os.MkdirAll(at("x-left/below"), 0o700), os.Mkdir(at("y-left"), 0o700), os.Mkdir(at("target"), 0o700),
		os.Symlink("target", at("x-link")), os.WriteFile(at("x-file"), nil, 0o600), syscall.Mkfifo(at("x-fifo"), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	held, err := MkdirLocked(root, "x-")
	if err != nil {
		t.Fatal(err)
	}
	SweepDirs(dir, "x-", os.RemoveAll)
	for name, want := range map[string]bool{"x-left": false, held.Name: true, "y-left": true, "x-link": true, "target": true, "x-file": true, "x-fifo": true} {
		if _, err := os.Lstat(at(name)); (err == nil) != want {
			t.Errorf("%s: %v, to be there: %v", name, err, want)
		}
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	SweepDirs(dir, "x-", os.RemoveAll)
	if _, err := os.Lstat(at(held.Name)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what nobody holds: %v, want it gone", err)
	}
}
