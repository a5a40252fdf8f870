package durable

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// RenameNoReplace renames from to to, which must not exist (fs.ErrExist).
func RenameNoReplace(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return renameChecked(from, to) // a file system without the flag
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// WriteBehind asks the kernel to begin writing f's bytes from off on to the
// disk, so that the fsync at the end finds little left to do.
func WriteBehind(f *os.File, off, n int64) {
	if conn, err := f.SyscallConn(); err == nil {
		// Only a hint: fsync reports what goes wrong.
		_ = conn.Control(func(fd uintptr) { _ = unix.SyncFileRange(int(fd), off, n, unix.SYNC_FILE_RANGE_WRITE) })
	}
}

// Clone makes to, an empty file, share the blocks of from; false where the
// file system cannot.
func Clone(to, from *os.File) bool {
	source, err := from.SyscallConn()
	if err != nil {
		return false
	}
	target, err := to.SyscallConn()
	if err != nil {
		return false
	}
	cloned := false
	_ = source.Control(func(src uintptr) {
		_ = target.Control(func(dst uintptr) { cloned = unix.IoctlFileClone(int(dst), int(src)) == nil })
	})
	return cloned
}

// Link gives the file f the further name name in dir; false where that cannot
// be, as on another file system.
func Link(f, dir *os.File, name string) bool {
	source, err := f.SyscallConn()
	if err != nil {
		return false
	}
	target, err := dir.SyscallConn()
	if err != nil {
		return false
	}
	linked := false
	_ = source.Control(func(src uintptr) {
		_ = target.Control(func(dst uintptr) {
			// AT_EMPTY_PATH would need CAP_DAC_READ_SEARCH (open(2), O_TMPFILE).
			path := "/proc/self/fd/" + strconv.Itoa(int(src))
			linked = unix.Linkat(unix.AT_FDCWD, path, int(dst), name, unix.AT_SYMLINK_FOLLOW) == nil
		})
	})
	return linked
}
