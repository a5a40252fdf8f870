package extract

import (
	"archive/tar"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// omit leaves the access time as it is.
var omit = unix.Timespec{Nsec: unix.UTIME_OMIT}

func timespec(t time.Time) unix.Timespec {
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

// lsetxattrs sets extended attributes of a node that cannot be opened. There is
// no call that takes a directory and a name, so the directory is named by its
// number in /proc.
func (k *disk) lsetxattrs(d *dir, name string, xattrs map[string]string) error {
	for _, key := range sortedKeys(xattrs) {
		err := k.at("set extended attribute "+key+" of", d, name, func(fd int) error {
			return unix.Lsetxattr("/proc/self/fd/"+strconv.Itoa(fd)+"/"+name, key, []byte(xattrs[key]), 0)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// mknod makes a device or FIFO.
func (k *disk) mknod(d *dir, name string, h *tar.Header) error {
	var mode uint32
	switch h.Typeflag {
	case tar.TypeChar:
		mode = unix.S_IFCHR
	case tar.TypeBlock:
		mode = unix.S_IFBLK
	case tar.TypeFifo:
		mode = unix.S_IFIFO
	default:
		return fmt.Errorf("entries of type %q cannot be made", h.Typeflag)
	}
	device := unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
	return k.at("mknod", d, name, func(fd int) error { return unix.Mknodat(fd, name, mode|0o600, int(device)) })
}
