package layout

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/layout/internal/durable"
)

// openRegular opens a regular file of the layout, and nothing that a link, a
// FIFO or a device could make of it.
func (l *Layout) openRegular(root *os.Root, name string, flag int) (*os.File, fs.FileInfo, error) {
	full := filepath.Join(root.Name(), name)
	unsafe := func(what string) error { return fmt.Errorf("%s: %w: %s", full, ErrUnsafe, what) }
	// O_NONBLOCK: the open of a FIFO would wait for its writer.
	if l.opts.FollowSymlinks && flag == os.O_RDONLY {
		f, err := os.OpenFile(full, flag|syscall.O_NONBLOCK, 0)
		if err != nil {
			return nil, nil, err
		}
		info, err := f.Stat()
		if err == nil && !info.Mode().IsRegular() {
			err = unsafe("not a regular file")
		}
		if err != nil {
			return nil, nil, errors.Join(err, f.Close())
		}
		return f, info, nil
	}
	before, err := root.Lstat(name)
	if err != nil {
		return nil, nil, err
	}
	if before.Mode()&fs.ModeSymlink != 0 {
		return nil, nil, followHint(unsafe("a symbolic link"))
	}
	if !before.Mode().IsRegular() {
		return nil, nil, unsafe("not a regular file")
	}
	f, err := root.OpenFile(name, flag|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !os.SameFile(before, info) {
		// Not the file that was looked at: a link may have been put in its
		// place, or another process renamed a new blob or index over it.
		if again, lerr := root.Lstat(name); lerr != nil || !os.SameFile(again, info) || !info.Mode().IsRegular() {
			err = unsafe("it changed while it was opened")
		}
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}

func followHint(err error) error {
	return WithHint(err, "read it with --follow if the links are meant")
}

func (l *Layout) readFile(name string, limit int64) ([]byte, error) {
	f, info, err := l.openRegular(l.root, name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	var b bytes.Buffer
	b.Grow(int(min(info.Size(), limit)) + bytes.MinRead)
	if _, err := b.ReadFrom(io.LimitReader(f, limit+1)); err != nil {
		return nil, err
	}
	if int64(b.Len()) > limit {
		return nil, fmt.Errorf("%s: %w: more than %d bytes", filepath.Join(l.dir, name), ErrInvalid, limit)
	}
	return b.Bytes(), nil
}

// blobRoot returns the directory of the blobs of one algorithm.
func (l *Layout) blobRoot(a digest.Algorithm) (*os.Root, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.blobs[a]; r != nil {
		return r, nil
	}
	if l.blobs == nil {
		return nil, fs.ErrClosed
	}
	if l.opts.FollowSymlinks {
		r, err := openFollowing(filepath.Join(l.dir, blobsDir, string(a)))
		if err == nil {
			l.blobs[a] = r
		}
		return r, err
	}
	blobs, err := openDir(l.root, blobsDir)
	if err != nil {
		return nil, err
	}
	defer blobs.Close() //nolint:errcheck // only read
	r, err := openDir(blobs, string(a))
	if err == nil {
		l.blobs[a] = r
	}
	return r, err
}

// openFollowing opens a directory that may be reached by symbolic links. It
// looks before it opens, for the open of a FIFO would wait for its writer.
func openFollowing(path string) (*os.Root, error) {
	info, err := os.Stat(path)
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "open", Path: path, Err: syscall.ENOTDIR}
	}
	if err != nil {
		return nil, err
	}
	return os.OpenRoot(path)
}

// openDir opens a directory that is no symbolic link.
func openDir(root *os.Root, name string) (*os.Root, error) {
	before, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	full := filepath.Join(root.Name(), name)
	if before.Mode()&fs.ModeSymlink != 0 {
		return nil, followHint(fmt.Errorf("%s: %w: a symbolic link", full, ErrUnsafe))
	}
	if !before.IsDir() {
		return nil, fmt.Errorf("%s: %w: not a directory", full, ErrUnsafe)
	}
	r, err := root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	after, err := r.Stat(".")
	if err == nil && !os.SameFile(before, after) {
		err = fmt.Errorf("%s: %w: it changed while it was opened", full, ErrUnsafe)
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// names returns what stands in the directory of an algorithm, sorted; nothing
// if there is no such directory.
func (l *Layout) names(a digest.Algorithm) ([]string, error) {
	root, err := l.blobRoot(a)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return readNames(root, ".")
}

func readNames(root *os.Root, name string) ([]string, error) {
	dir, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close() //nolint:errcheck // only read
	names, err := dir.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// readOnly marks errors of media and directories that cannot be written.
func readOnly(err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	return err
}

// openLock opens the file of the content lock, and makes it where it is
// missing.
func (l *Layout) openLock() (*os.File, error) {
	if err := l.mkdir(ownDir); err != nil {
		return nil, err
	}
	own, err := openDir(l.root, ownDir)
	if err != nil {
		return nil, err
	}
	defer own.Close() //nolint:errcheck // only read
	const name = "lock"
	f, err := own.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
	if errors.Is(err, fs.ErrExist) {
		f, _, err = l.openRegular(own, name, os.O_RDWR)
	} else if err == nil {
		err = f.Chmod(fileMode) // whatever the umask
	}
	return f, err
}

// mkdir makes a directory with the mode that it shall have, whatever the
// umask; one that is there stays as it is.
func (l *Layout) mkdir(name string) error {
	err := l.root.Mkdir(name, dirMode)
	if err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	dir, err := l.root.Open(name) // and not by Root.Chmod: CVE-2026-32282
	if err != nil {
		return err
	}
	return errors.Join(dir.Chmod(dirMode), dir.Close())
}

// sweep removes what dead writers have left. The caller has the content lock
// alone.
func (l *Layout) sweep() (removed int, err error) {
	names, err := readNames(l.root, ownDir)
	for _, name := range names {
		if strings.HasPrefix(ownDir+"/"+name, tempPrefix) {
			removed++
			err = errors.Join(err, l.root.RemoveAll(ownDir+"/"+name))
		}
	}
	return removed, err
}

// syncBlob makes a stored blob and its name durable.
func (l *Layout) syncBlob(d digest.Digest) error {
	f, _, err := l.open(d)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return durable.SyncRootDir(l.root, blobsDir+"/"+string(d.Algorithm()))
}

// makeBlobDir makes sure that blobs of algorithm a have a directory, and that
// it is no link to another place.
func (l *Layout) makeBlobDir(a digest.Algorithm) error {
	if _, err := l.blobRoot(a); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range []string{blobsDir, blobsDir + "/" + string(a)} {
		if err := l.mkdir(name); err != nil {
			return err
		}
		if err := durable.SyncRootDir(l.root, filepath.Dir(name)); err != nil {
			return err
		}
	}
	_, err := l.blobRoot(a)
	return err
}
