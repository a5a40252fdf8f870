//go:build !linux

package extract

import (
	"io/fs"
	"syscall"
)

func exchange(a, b string) error { return exchangeSlowly(a, b) }

func deviceOf(info fs.FileInfo) uint64 {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return uint64(st.Dev)
}
