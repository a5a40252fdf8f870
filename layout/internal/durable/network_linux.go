package durable

import (
	"os"

	"golang.org/x/sys/unix"
)

// OnNetwork tells whether f lies on a file system where a flock may be known to
// this machine alone: NFS with the mount option nolock or local_lock, CIFS.
func OnNetwork(f *os.File) bool {
	var st unix.Statfs_t
	conn, err := f.SyscallConn()
	if err != nil {
		return false
	}
	if cerr := conn.Control(func(fd uintptr) { err = unix.Fstatfs(int(fd), &st) }); cerr != nil || err != nil {
		return false
	}
	const smb2 = 0xfe534d42
	switch uint32(st.Type) { //nolint:gosec // a magic number of 32 bits, whatever the width of the field
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, smb2:
		return true
	}
	return false
}

// bootID tells boots of one machine apart, "" if the system does not say.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return string(id)
}
