package serve

import (
	"io/fs"
	"syscall"
)

func stampInfo(info fs.FileInfo) stamp {
	s := stamp{size: info.Size(), mtime: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.device, s.inode, s.changed = st.Dev, st.Ino, st.Ctim.Nano()
	}
	return s
}
