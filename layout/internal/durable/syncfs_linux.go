package durable

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// CanSyncFS tells whether [SyncFS] of f's file system is as good as [Finish] of
// every file in it: it is one that is known to write everything and to report
// errors, which file systems above others (overlayfs, FUSE, NFS) are not, and
// the kernel reports them by syncfs (Linux 5.8, see sync(2)).
func CanSyncFS(f *os.File) bool {
	if !reportsSyncErrors() {
		return false
	}
	var st unix.Statfs_t
	conn, err := f.SyscallConn()
	if err != nil {
		return false
	}
	if cerr := conn.Control(func(fd uintptr) { err = unix.Fstatfs(int(fd), &st) }); cerr != nil || err != nil {
		return false
	}
	switch uint32(st.Type) { //nolint:gosec // a magic number of 32 bits, whatever the width of the field
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC:
		return true
	}
	return false
}

// SyncFS forces all that was written to the file system of f to the disk. An
// error is one that happened since f was opened, on whatever file.
func SyncFS(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := conn.Control(func(fd uintptr) {
		for {
			if err = unix.Syncfs(int(fd)); !errors.Is(err, unix.EINTR) {
				return
			}
		}
	})
	if err != nil {
		err = &os.PathError{Op: "syncfs", Path: f.Name(), Err: err}
	}
	return errors.Join(err, cerr)
}

var reportsSyncErrors = sync.OnceValue(func() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	return atLeast(unix.ByteSliceToString(u.Release[:]), 5, 8)
})

// atLeast tells whether a kernel release is major.minor or later.
func atLeast(release string, major, minor int) bool {
	parts := strings.SplitN(release, ".", 3)
	if len(parts) < 2 {
		return false
	}
	rest := strings.IndexFunc(parts[1], func(r rune) bool { return r < '0' || r > '9' })
	if rest >= 0 {
		parts[1] = parts[1][:rest]
	}
	have, err := strconv.Atoi(parts[0])
	more, merr := strconv.Atoi(parts[1])
	return err == nil && merr == nil && (have > major || have == major && more >= minor)
}
