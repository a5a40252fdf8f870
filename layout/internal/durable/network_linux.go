package durable

import (
	"os"

	"golang.org/x/sys/unix"
)

// OnNetwork tells whether f lies on a file system where a flock may be known to
// this machine alone: NFS with the mount option nolock or local_lock, CIFS.
func OnNetwork(f *os.File) bool {
	const smb2 = 0xfe534d42
	switch fileSystem(f) {
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, smb2:
		return true
	}
	return false
}

// Sparse tells whether f lies on a file system where a write behind the end of a
// file costs no more than any other. Elsewhere, as on FAT, the gap is filled with
// zeros first.
func Sparse(f *os.File) bool {
	switch fileSystem(f) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.OVERLAYFS_SUPER_MAGIC:
		return true
	}
	return false
}

// fileSystem returns the magic number of statfs(2); 0 if it is not told.
func fileSystem(f *os.File) uint32 {
	var st unix.Statfs_t
	conn, err := f.SyscallConn()
	if err != nil {
		return 0
	}
	if cerr := conn.Control(func(fd uintptr) { err = unix.Fstatfs(int(fd), &st) }); cerr != nil || err != nil {
		return 0
	}
	return uint32(st.Type) //nolint:gosec // a magic number of 32 bits, whatever the width of the field
}

// bootID tells boots of one machine apart, "" if the system does not say.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return string(id)
}
