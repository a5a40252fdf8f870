package casengine

import (
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"
)

// errNoAttribute is what a file says that lacks an extended attribute.
const errNoAttribute = unix.ENODATA

// changeTime is when anything of a file was changed last, in nanoseconds.
func changeTime(info fs.FileInfo) int64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Ctim.Nano()
	}
	return 0
}
