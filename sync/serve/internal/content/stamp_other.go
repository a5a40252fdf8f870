//go:build !linux

package content

import (
	"io/fs"
	"syscall"
)

func stampInfo(info fs.FileInfo) Stamp {
	s := Stamp{size: info.Size(), mtime: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.device, s.inode, s.links = uint64(st.Dev), st.Ino, uint64(st.Nlink)
	}
	return s
}
