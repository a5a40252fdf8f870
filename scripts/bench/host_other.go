//go:build !linux

package main

import (
	"errors"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// rssUnit is that of ru_maxrss, in bytes, on macOS (getrusage(2)).
const rssUnit = 1

// settle writes what all file systems still have to write.
func settle(string) error { return unix.Sync() }

// discard takes up to n bytes off a connection; here they are copied. 0 is the end.
func discard(c *net.TCPConn, n int64) (taken int, err error) {
	taken, err = c.Read(make([]byte, min(n, 128<<10)))
	if errors.Is(err, io.EOF) {
		return 0, nil
	}
	return taken, err
}
