package tempfile

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// unnamed makes a file that never had a name (open(2), O_TMPFILE). Not every file
// system can, and kernels that cannot take it for another flag.
func unnamed(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	for errors.Is(err, unix.EINTR) {
		fd, err = unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	}
	switch {
	case errors.Is(err, unix.EISDIR), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
		return nil, errors.ErrUnsupported // or dir is not there: the other way says so
	case err != nil && !errors.Is(err, errors.ErrUnsupported):
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	case err != nil:
		return nil, err
	}
	return os.NewFile(uintptr(fd), filepath.Join(dir, "gloci-layout-unnamed")), nil
}

// Reserve takes the room for size bytes of f. Without it the error is that of the
// system, such as ENOSPC; where the file system cannot tell ahead there is none.
func Reserve(f *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	// With FALLOC_FL_KEEP_SIZE the file is as long as what was written.
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
	for errors.Is(err, unix.EINTR) {
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
	}
	if err == nil || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
}
