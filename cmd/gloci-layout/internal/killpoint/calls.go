//go:build linux && (amd64 || arm64)

package killpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A shape says which arguments of a system call name what it changes. Places
// count from 1; 0 is "has none".
type shape struct {
	name string
	fd   int // descriptor of the file
	// at and path: a directory descriptor (none is the working directory) and a
	// path below it; at2 and path2 the same for a second path.
	at, path, at2, path2 int
	open                 int // flags of an open: it counts only if it may write
	how                  int // pointer to struct open_how, in place of open
	size                 int // number of bytes to write
	from, off            int // where a copy takes them: descriptor, and pointer to an offset
	iov                  int // pointer to the vector whose number is in size
	clone                int // request of an ioctl: only clones count
}

// shapes are the calls that both architectures have.
var shapes = map[uint64]shape{
	unix.SYS_OPENAT:          {name: "openat", at: 1, path: 2, open: 3},
	unix.SYS_OPENAT2:         {name: "openat2", at: 1, path: 2, how: 3},
	unix.SYS_WRITE:           {name: "write", fd: 1, size: 3},
	unix.SYS_PWRITE64:        {name: "pwrite64", fd: 1, size: 3},
	unix.SYS_WRITEV:          {name: "writev", fd: 1, size: 3, iov: 2},
	unix.SYS_PWRITEV:         {name: "pwritev", fd: 1, size: 3, iov: 2},
	unix.SYS_PWRITEV2:        {name: "pwritev2", fd: 1, size: 3, iov: 2},
	unix.SYS_COPY_FILE_RANGE: {name: "copy_file_range", fd: 3, size: 5, from: 1, off: 2},
	unix.SYS_SENDFILE:        {name: "sendfile", fd: 1, size: 4, from: 2, off: 3},
	unix.SYS_SPLICE:          {name: "splice", fd: 3, size: 5, from: 1, off: 2},
	unix.SYS_IOCTL:           {name: "ioctl", fd: 1, clone: 2},
	unix.SYS_TRUNCATE:        {name: "truncate", path: 1},
	unix.SYS_FTRUNCATE:       {name: "ftruncate", fd: 1},
	unix.SYS_FALLOCATE:       {name: "fallocate", fd: 1},
	unix.SYS_RENAMEAT:        {name: "renameat", at: 1, path: 2, at2: 3, path2: 4},
	unix.SYS_RENAMEAT2:       {name: "renameat2", at: 1, path: 2, at2: 3, path2: 4},
	unix.SYS_LINKAT:          {name: "linkat", at: 1, path: 2, at2: 3, path2: 4},
	unix.SYS_SYMLINKAT:       {name: "symlinkat", at: 2, path: 3},
	unix.SYS_UNLINKAT:        {name: "unlinkat", at: 1, path: 2},
	unix.SYS_MKDIRAT:         {name: "mkdirat", at: 1, path: 2},
	unix.SYS_MKNODAT:         {name: "mknodat", at: 1, path: 2},
	unix.SYS_FCHMOD:          {name: "fchmod", fd: 1},
	unix.SYS_FCHMODAT:        {name: "fchmodat", at: 1, path: 2},
	unix.SYS_FCHMODAT2:       {name: "fchmodat2", at: 1, path: 2},
	unix.SYS_FCHOWN:          {name: "fchown", fd: 1},
	unix.SYS_FCHOWNAT:        {name: "fchownat", at: 1, path: 2},
	unix.SYS_UTIMENSAT:       {name: "utimensat", at: 1, path: 2},
	unix.SYS_SETXATTR:        {name: "setxattr", path: 1},
	unix.SYS_LSETXATTR:       {name: "lsetxattr", path: 1},
	unix.SYS_FSETXATTR:       {name: "fsetxattr", fd: 1},
	unix.SYS_REMOVEXATTR:     {name: "removexattr", path: 1},
	unix.SYS_LREMOVEXATTR:    {name: "lremovexattr", path: 1},
	unix.SYS_FREMOVEXATTR:    {name: "fremovexattr", fd: 1},
	unix.SYS_FSYNC:           {name: "fsync", fd: 1},
	unix.SYS_FDATASYNC:       {name: "fdatasync", fd: 1},
	unix.SYS_SYNC_FILE_RANGE: {name: "sync_file_range", fd: 1},
	unix.SYS_SYNCFS:          {name: "syncfs", fd: 1},
}

// A callInfo is what PTRACE_GET_SYSCALL_INFO tells of a stop.
type callInfo struct {
	entry  bool
	nr     uint64
	args   [6]uint64
	result int64
}

// syscallInfo asks the kernel which call tid stopped at. Unlike the registers it
// also tells entry from exit.
func syscallInfo(tid int) (callInfo, error) {
	// struct ptrace_syscall_info: op, arch, instruction and stack pointer, then
	// the number and arguments (entry) or the result (exit).
	var raw [88]byte
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid),
		uintptr(len(raw)), uintptr(unsafe.Pointer(&raw)), 0, 0)
	if errno == unix.EIO {
		return callInfo{}, fmt.Errorf("%w: no PTRACE_GET_SYSCALL_INFO", ErrUnsupported)
	}
	if errno != 0 {
		return callInfo{}, errno
	}
	word := func(i int) uint64 { return binary.NativeEndian.Uint64(raw[24+8*i:]) }
	info := callInfo{}
	switch raw[0] {
	case unix.PTRACE_SYSCALL_INFO_ENTRY, unix.PTRACE_SYSCALL_INFO_SECCOMP:
		info.entry, info.nr = true, word(0)
		for i := range info.args {
			info.args[i] = word(1 + i)
		}
	case unix.PTRACE_SYSCALL_INFO_EXIT:
		info.result = int64(word(0))
	default:
		return info, errStale
	}
	return info, nil
}

// errStale reports that tid has left the stop that was waited for: another
// thread ended the process, and tid stands at its own end. That is a stop of its
// own, to be waited for, so tid must not be resumed from here.
var errStale = errors.New("the thread is no longer at a system call")

// arg returns the argument at place i, counted from 1.
func (info callInfo) arg(i int) uint64 { return info.args[i-1] }

// decode returns the call that tid is about to make, or nil if it changes no file.
func decode(tid int, info callInfo) (*Call, shape) {
	sh, ok := shapes[info.nr]
	if !ok {
		return nil, sh
	}
	flags := uint64(unix.O_WRONLY)
	switch {
	case sh.open > 0:
		flags = info.arg(sh.open)
	case sh.how > 0:
		if b := peek(tid, info.arg(sh.how), 8); len(b) == 8 {
			flags = binary.NativeEndian.Uint64(b)
		}
	case sh.clone > 0:
		if r := info.arg(sh.clone); r != unix.FICLONE && r != unix.FICLONERANGE {
			return nil, sh
		}
	}
	if flags&(unix.O_ACCMODE|unix.O_CREAT|unix.O_TRUNC) == 0 {
		return nil, sh
	}
	c := &Call{Name: sh.name}
	if sh.fd > 0 {
		c.Path = fdPath(tid, int32(info.arg(sh.fd)))
	}
	if sh.path > 0 {
		c.Path = argPath(tid, info, sh.at, sh.path)
	}
	if sh.path2 > 0 {
		c.To = argPath(tid, info, sh.at2, sh.path2)
	}
	if sh.size > 0 {
		c.Size = sh.length(tid, info)
	}
	return c, sh
}

// length returns how many bytes a call can write: as many as it asks for, but a
// copy no more than its source still has.
func (sh shape) length(tid int, info callInfo) int64 {
	n := int64(info.arg(sh.size))
	switch {
	case sh.iov > 0:
		n = 0
		for _, l := range iovLengths(tid, info, sh) {
			n += int64(l)
		}
	case sh.from > 0:
		fd := strconv.Itoa(int(int32(info.arg(sh.from))))
		source, err := os.Stat("/proc/" + strconv.Itoa(tid) + "/fd/" + fd)
		if err != nil || !source.Mode().IsRegular() {
			break
		}
		at := int64(0)
		if addr := info.arg(sh.off); addr != 0 {
			if b := peek(tid, addr, 8); len(b) == 8 {
				at = int64(binary.NativeEndian.Uint64(b))
			}
		} else if text, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/fdinfo/" + fd); err == nil {
			if _, err := fmt.Sscanf(string(text), "pos: %d", &at); err != nil {
				break
			}
		}
		n = min(n, max(0, source.Size()-at))
	}
	return n
}

// halve cuts the write that tid is about to make to half its bytes, rounded down.
func (sh shape) halve(tid int, info callInfo, size int64) error {
	if sh.iov == 0 {
		return setArg(tid, sh.size, uint64(size/2))
	}
	// Only the first part is written, and half of it when it is the only one.
	lengths := iovLengths(tid, info, sh)
	if len(lengths) == 1 {
		var b [8]byte
		binary.NativeEndian.PutUint64(b[:], lengths[0]/2)
		if _, err := unix.PtracePokeData(tid, uintptr(info.arg(sh.iov)+8), b[:]); err != nil {
			return err
		}
	}
	return setArg(tid, sh.size, uint64(max(1, len(lengths)/2)))
}

func iovLengths(tid int, info callInfo, sh shape) []uint64 {
	n := min(info.arg(sh.size), 1024) // IOV_MAX
	b := peek(tid, info.arg(sh.iov), int(16*n))
	var out []uint64
	for ; len(b) >= 16; b = b[16:] {
		out = append(out, binary.NativeEndian.Uint64(b[8:]))
	}
	return out
}

// argPath returns the absolute path that a pair of arguments names.
func argPath(tid int, info callInfo, at, path int) string {
	dirfd := int32(unix.AT_FDCWD)
	if at > 0 {
		dirfd = int32(info.arg(at))
	}
	p := ""
	if addr := info.arg(path); addr != 0 { // null: the descriptor itself
		p = peekString(tid, addr)
	}
	if filepath.IsAbs(p) {
		return filepath.Clean(p)
	}
	return filepath.Join(fdPath(tid, dirfd), p)
}

// fdPath returns the path behind a descriptor of tid, or "" if there is none.
func fdPath(tid int, fd int32) string {
	name := "/proc/" + strconv.Itoa(tid)
	if fd == unix.AT_FDCWD {
		name += "/cwd"
	} else {
		name += "/fd/" + strconv.Itoa(int(fd))
	}
	p, err := os.Readlink(name)
	if err != nil || !filepath.IsAbs(p) { // a pipe or a socket
		return ""
	}
	return strings.TrimSuffix(p, " (deleted)")
}

// peek reads n bytes of tid's memory, less where it ends.
func peek(tid int, addr uint64, n int) []byte {
	if n == 0 {
		return nil
	}
	b := make([]byte, n)
	got, err := unix.ProcessVMReadv(tid,
		[]unix.Iovec{{Base: &b[0], Len: uint64(n)}},
		[]unix.RemoteIovec{{Base: uintptr(addr), Len: n}}, 0)
	if err != nil {
		return nil
	}
	return b[:got]
}

// peekString reads a string that ends in a zero byte, PATH_MAX bytes at most.
func peekString(tid int, addr uint64) string {
	var out []byte
	for len(out) < unix.PathMax {
		// Up to the end of the page: what lies behind it may not be mapped.
		b := peek(tid, addr, int(256-addr%256))
		if i := bytes.IndexByte(b, 0); i >= 0 {
			return string(append(out, b[:i]...))
		}
		if len(b) == 0 {
			break
		}
		out = append(out, b...)
		addr += uint64(len(b))
	}
	return string(out)
}
