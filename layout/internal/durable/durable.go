// Package durable writes files so that they survive a crash: temporary file,
// fsync, rename, fsync of the directory, and advisory locks between processes.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// SyncDir makes the names in dir survive a power cut. File systems that cannot
// sync a directory (EINVAL) give no such promise, and no error.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return syncAndClose(d)
}

// SyncRootDir is [SyncDir] for a directory inside root.
func SyncRootDir(root *os.Root, name string) error {
	d, err := root.Open(name)
	if err != nil {
		return err
	}
	return syncAndClose(d)
}

func syncAndClose(d *os.File) error {
	err := d.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		err = nil
	}
	return errors.Join(err, d.Close())
}

// Finish gives f the mode, whatever the umask was, forces its bytes to the
// disk and closes it. A failed fsync means that the bytes are lost: the file
// has to be thrown away, a second fsync would lie.
func Finish(f *os.File, mode fs.FileMode) error {
	err := f.Chmod(mode)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// A File is a temporary file that will replace path.
type File struct {
	*os.File
	path string
	temp string
}

// Replace opens a temporary file beside path. The file at path stays as it is
// until [File.Commit]; [File.Discard] removes the temporary file, and does
// nothing after a Commit, so that it can be deferred.
func Replace(path string) (*File, error) {
	dir, base := filepath.Split(path)
	f, temp, err := createTemp(func(name string) (*os.File, error) {
		return os.OpenFile(dir+name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	}, "."+base+".tmp-")
	if err != nil {
		var named *fs.PathError
		if errors.As(err, &named) {
			named.Path = path // what the caller knows it by
		}
		return nil, err
	}
	return &File{File: f, path: path, temp: dir + temp}, nil
}

// Commit syncs the file, gives it the mode and renames it to its path.
func (f *File) Commit(mode fs.FileMode) error { return f.commit(mode, os.Rename) }

// CommitNew is [File.Commit] to a path where nothing may be (fs.ErrExist).
func (f *File) CommitNew(mode fs.FileMode) error { return f.commit(mode, RenameNoReplace) }

func (f *File) commit(mode fs.FileMode, rename func(from, to string) error) error {
	if err := Finish(f.File, mode); err != nil {
		return err
	}
	if err := rename(f.temp, f.path); err != nil {
		return err
	}
	f.temp = ""
	return SyncDir(filepath.Dir(f.path))
}

// Discard removes the temporary file of a File that was not committed.
func (f *File) Discard() error {
	if f.temp == "" {
		return nil
	}
	_ = f.Close() // it may be closed by a failed Commit
	temp := f.temp
	f.temp = ""
	return os.Remove(temp)
}

// CreateTemp creates a file with a free name that begins with prefix in root.
func CreateTemp(root *os.Root, prefix string) (f *os.File, name string, err error) {
	return createTemp(func(name string) (*os.File, error) {
		return root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	}, prefix)
}

// MkdirTemp creates a directory with a free name that begins with prefix in
// root; only its owner may enter it.
func MkdirTemp(root *os.Root, prefix string) (name string, err error) {
	for range 10000 {
		name = prefix + strconv.FormatUint(rand.Uint64(), 36)
		err = root.Mkdir(name, 0o700)
		if !errors.Is(err, fs.ErrExist) {
			return name, err
		}
	}
	return "", fmt.Errorf("no free name for %s*: %w", prefix, err)
}

func createTemp(open func(string) (*os.File, error), prefix string) (f *os.File, name string, err error) {
	for range 10000 {
		name = prefix + strconv.FormatUint(rand.Uint64(), 36)
		f, err = open(name)
		if !errors.Is(err, fs.ErrExist) {
			return f, name, err
		}
	}
	return nil, "", fmt.Errorf("no free name for %s*: %w", prefix, err)
}

// renameChecked is for systems that cannot rename without replacing. A
// directory never replaces another that holds something, so the window between
// look and rename is harmless for those.
func renameChecked(from, to string) error {
	if _, err := os.Lstat(to); err == nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: fs.ErrExist}
	}
	return os.Rename(from, to)
}
