//go:build !linux

package extract

import (
	"archive/tar"
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// omit would leave the access time as it is; here it becomes the epoch.
var omit = unix.Timespec{}

func timespec(t time.Time) unix.Timespec { return unix.NsecToTimespec(t.UnixNano()) }

func (k *disk) lsetxattrs(d *dir, name string, xattrs map[string]string) error {
	if len(xattrs) == 0 {
		return nil
	}
	return pathError("set extended attributes of", d, name, errors.ErrUnsupported)
}

func (k *disk) mknod(d *dir, name string, _ *tar.Header) error {
	return pathError("mknod", d, name, errors.ErrUnsupported)
}
