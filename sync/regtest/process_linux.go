package regtest

import "syscall"

// dieWithParent lets the registry end with a test binary that was killed or
// timed out and so ran no cleanup.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// tempDir is where the registry keeps its content: in memory if there is room,
// as it syncs every file to the disk.
func tempDir() string {
	const memory, room = "/dev/shm", 2 << 30
	var fs syscall.Statfs_t
	if err := syscall.Statfs(memory, &fs); err != nil || fs.Bavail*uint64(fs.Bsize) < room { //nolint:gosec // a block size is positive
		return ""
	}
	return memory
}
