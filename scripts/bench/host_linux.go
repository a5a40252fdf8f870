package main

import (
	"errors"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// rssUnit is that of ru_maxrss, in bytes (getrusage(2)).
const rssUnit = 1 << 10

// settle writes what the file system of dir still has to write.
func settle(dir string) (err error) {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return unix.Syncfs(int(d.Fd()))
}

// discard takes up to n bytes off a connection and copies none of them: the kernel
// counts them and lets them go (tcp(7), MSG_TRUNC). 0 is the end.
func discard(c *net.TCPConn, n int64) (taken int, err error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var errno syscall.Errno
	err = rc.Read(func(fd uintptr) bool {
		for {
			var got uintptr
			got, _, errno = syscall.Syscall6(syscall.SYS_RECVFROM, fd, 0, uintptr(n), syscall.MSG_TRUNC, 0, 0)
			if errno != syscall.EINTR {
				taken = int(got)
				return errno != syscall.EAGAIN
			}
		}
	})
	if err == nil && errno != 0 {
		return 0, os.NewSyscallError("recvfrom", errno)
	}
	return taken, err
}
