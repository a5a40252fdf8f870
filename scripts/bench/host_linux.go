package main

import (
	"errors"
	"os"

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
