package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// A LockedDir is a temporary directory that this process holds a lock on, so that
// [SweepDirs] lets it be.
type LockedDir struct {
	Name string   // in its parent
	Root *os.Root // the directory

	lock *os.File
}

// MkdirLocked makes a temporary directory in parent, whose name begins with
// prefix, and locks it.
func MkdirLocked(parent *os.Root, prefix string) (*LockedDir, error) {
	for range 100 {
		d, err := mkdirLocked(parent, prefix)
		if d != nil || err != nil {
			return d, err
		}
	}
	return nil, fmt.Errorf("no temporary directory in %s", parent.Name())
}

// mkdirLocked returns nil if another process took the directory for an old one
// before it was locked.
func mkdirLocked(parent *os.Root, prefix string) (*LockedDir, error) {
	name, err := MkdirTemp(parent, prefix)
	if err != nil {
		return nil, err
	}
	d := &LockedDir{Name: name}
	d.Root, err = parent.OpenRoot(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, errors.Join(err, parent.Remove(name))
	}
	if d.lock, err = d.Root.Open("."); err != nil {
		return nil, errors.Join(err, d.Root.Close(), parent.Remove(name))
	}
	locked, err := TryLock(d.lock, Exclusive)
	if err == nil && locked {
		if _, err = parent.Lstat(name); err == nil {
			return d, nil
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = nil // it is theirs to remove
	case err != nil:
		err = errors.Join(err, parent.Remove(name))
	}
	return nil, errors.Join(err, d.Close())
}

// Close unlocks the directory, which stays.
func (d *LockedDir) Close() error { return errors.Join(d.Root.Close(), d.lock.Close()) }

// SweepDirs has remove take away the directories in dir whose names begin with
// prefix, and that nobody holds: they were made by [MkdirLocked] in processes that
// were killed. Errors are not told, as it is for tidiness only.
func SweepDirs(dir, prefix string, remove func(name string) error) {
	names, err := filepath.Glob(filepath.Join(escapeGlob(dir), escapeGlob(prefix)+"*"))
	if err != nil {
		return
	}
	for _, name := range names {
		// In a directory for everybody anything may have such a name.
		f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		if free, err := TryLock(f, Exclusive); free && err == nil {
			_ = remove(name)
		}
		_ = f.Close()
	}
}

func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(s)
}
