package extract

import (
	"container/list"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A disk makes the nodes of a tree. It asks the kernel for one component at a
// time, relative to the open directory above, and never to follow a link, so
// that no path is resolved by anything but the tree.
type disk struct {
	root *os.File // the directory that is the root of the tree
	open list.List
}

// A handle is an open directory. The kernel allows some thousand at once, so
// those that were not used for longest are closed.
type handle struct {
	fd   int
	d    *dir
	elem *list.Element
}

const maxHandles = 64

// again calls fn until no signal interrupts it.
func again(fn func() error) error {
	for {
		if err := fn(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func pathError(op string, d *dir, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: d.path(name), Err: err}
}

// fd returns the open directory d. It is valid until the next call.
func (k *disk) fd(d *dir) (int, error) {
	if d.parent == nil {
		return int(k.root.Fd()), nil
	}
	if d.handle != nil {
		k.open.MoveToFront(d.handle.elem)
		return d.handle.fd, nil
	}
	parent, err := k.fd(d.parent)
	if err != nil {
		return -1, err
	}
	fd := -1
	err = again(func() error {
		fd, err = unix.Openat(parent, d.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return -1, pathError("open", d, "", err)
	}
	if k.open.Len() >= maxHandles {
		k.forget(k.open.Back().Value.(*dir)) //nolint:errcheck,forcetypeassert // nothing else is in the list
	}
	d.handle = &handle{fd: fd, d: d, elem: k.open.PushFront(d)}
	return fd, nil
}

// forget closes d if it is open.
func (k *disk) forget(d *dir) {
	if d.handle != nil {
		k.open.Remove(d.handle.elem)
		_ = unix.Close(d.handle.fd) // only read
		d.handle = nil
	}
}

func (k *disk) close() error {
	for k.open.Len() > 0 {
		k.forget(k.open.Back().Value.(*dir)) //nolint:errcheck,forcetypeassert // as above
	}
	return k.root.Close()
}

// at calls fn with the open directory d.
func (k *disk) at(op string, d *dir, name string, fn func(fd int) error) error {
	fd, err := k.fd(d)
	if err != nil {
		return err
	}
	return pathError(op, d, name, again(func() error { return fn(fd) }))
}

// mkdir makes a directory that only we may enter until its content is complete.
func (k *disk) mkdir(d *dir, name string) error {
	return k.at("mkdir", d, name, func(fd int) error { return unix.Mkdirat(fd, name, 0o700) })
}

func (k *disk) symlink(d *dir, name, target string) error {
	return k.at("symlink", d, name, func(fd int) error { return unix.Symlinkat(target, fd, name) })
}

// link makes another name of the node at from, which may be a symbolic link.
func (k *disk) link(from *dir, fromName string, to *dir, name string) error {
	old, err := k.fd(from)
	if err != nil {
		return err
	}
	// The second call may close what the first has opened.
	if old, err = unix.FcntlInt(uintptr(old), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return pathError("link", to, name, err)
	}
	defer unix.Close(old) //nolint:errcheck // only read
	return k.at("link", to, name, func(fd int) error { return unix.Linkat(old, fromName, fd, name, 0) })
}

// remove unlinks one node; a directory has to be empty.
func (k *disk) remove(d *dir, name string, n *node) error {
	flags := 0
	if n.kind == kindDir {
		k.forget(n.dir)
		flags = unix.AT_REMOVEDIR
	}
	return k.at("remove", d, name, func(fd int) error { return unix.Unlinkat(fd, name, flags) })
}

// create opens a new file.
func (k *disk) create(d *dir, name string) (fd int, err error) {
	fd = -1
	err = k.at("create", d, name, func(at int) error {
		fd, err = unix.Openat(at, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	return fd, err
}

// A sink is a file that is being written.
type sink struct {
	fd     int
	off    int64
	sparse bool // blocks of zeros become holes
}

// holeSize is the unit of holes; file systems have no smaller ones.
const holeSize = 4096

func (s *sink) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		n := len(p)
		if s.sparse {
			zero := 0
			if zero = zeros(p, s.off); zero > 0 {
				s.off += int64(zero)
				p = p[zero:]
				continue
			}
			n = data(p, s.off)
		}
		written, err := 0, error(nil)
		err = again(func() error {
			written, err = unix.Pwrite(s.fd, p[:n], s.off)
			return err
		})
		if err != nil {
			return total - len(p), err
		}
		s.off += int64(written)
		p = p[written:]
	}
	return total, nil
}

var zeroBlock [holeSize]byte

// zeros returns how many bytes at the beginning of p, which stands at off, are
// whole blocks of zeros.
func zeros(p []byte, off int64) int {
	n := 0
	for off%holeSize == 0 && len(p)-n >= holeSize && string(p[n:n+holeSize]) == string(zeroBlock[:]) {
		n += holeSize
	}
	return n
}

// data returns how many bytes of p come before the next whole block of zeros.
func data(p []byte, off int64) int {
	n := int((holeSize - off%holeSize) % holeSize)
	if n == 0 {
		n = holeSize
	}
	for n < len(p) && zeros(p[n:], off+int64(n)) == 0 {
		n += holeSize
	}
	return min(n, len(p))
}

// finish gives a sparse file its length.
func (s *sink) finish() error {
	if !s.sparse {
		return nil
	}
	return again(func() error { return unix.Ftruncate(s.fd, s.off) })
}

// readFile opens a file that this extraction has made, whatever its mode.
func (k *disk) readFile(d *dir, name string) (io.ReadCloser, error) {
	fd, err := -1, error(nil)
	openat := func(at int) error {
		fd, err = unix.Openat(at, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		return err
	}
	err = k.at("open", d, name, openat)
	if errors.Is(err, fs.ErrPermission) { // one without "r" for its owner
		var st unix.Stat_t
		if st, err = k.stat(d, name); err != nil {
			return nil, err
		}
		chmod := func(mode uint32) error {
			return k.at("chmod", d, name, func(at int) error { return unix.Fchmodat(at, name, mode, 0) })
		}
		err = errors.Join(chmod(0o600), k.at("open", d, name, openat), chmod(uint32(st.Mode)&0o7777)) //nolint:unconvert // narrower on other systems
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), d.path(name)), nil
}

// stat returns what is at name, which is not followed.
func (k *disk) stat(d *dir, name string) (st unix.Stat_t, err error) {
	err = k.at("stat", d, name, func(at int) error { return unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return st, err
}

// setFile sets the metadata of an open file, its times apart.
func setFile(fd int, m meta, preserve bool) error {
	if preserve {
		// The owner first: another one takes the bits above the permissions
		// and capabilities away.
		if err := again(func() error { return unix.Fchown(fd, m.uid, m.gid) }); err != nil {
			return fmt.Errorf("chown to %d:%d: %w", m.uid, m.gid, err)
		}
		for _, key := range sortedKeys(m.xattrs) {
			if err := again(func() error { return unix.Fsetxattr(fd, key, []byte(m.xattrs[key]), 0) }); err != nil {
				return fmt.Errorf("set extended attribute %s: %w", key, err)
			}
		}
	}
	return again(func() error { return unix.Fchmod(fd, m.mode) })
}

// setTime sets the modification time of a node, which is not followed.
func (k *disk) setTime(d *dir, name string, mtime time.Time) error {
	times := []unix.Timespec{omit, timespec(mtime)}
	return k.at("set the time of", d, name, func(fd int) error {
		return unix.UtimesNanoAt(fd, name, times, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// setDir sets the metadata of a directory whose content is complete, and that
// nothing will be done in any more.
func (k *disk) setDir(d *dir, preserve bool) error {
	var err error
	if d.parent == nil {
		err = k.setTime(d, ".", d.meta.mtime)
	} else {
		err = k.setTime(d.parent, d.name, d.meta.mtime)
	}
	if err != nil {
		return err
	}
	fd, err := k.fd(d)
	if err != nil {
		return err
	}
	err = pathError("set", d, "", setFile(fd, d.meta, preserve))
	if d.parent != nil {
		k.forget(d)
	}
	return err
}

// setOther sets the metadata of a symbolic link or a special file.
func (k *disk) setOther(d *dir, name string, m meta, link, preserve bool) error {
	if preserve {
		err := k.at("chown", d, name, func(fd int) error {
			return unix.Fchownat(fd, name, m.uid, m.gid, unix.AT_SYMLINK_NOFOLLOW)
		})
		if err != nil {
			return err
		}
		if err := k.lsetxattrs(d, name, m.xattrs); err != nil {
			return err
		}
	}
	if !link { // links have no mode
		err := k.at("chmod", d, name, func(fd int) error { return unix.Fchmodat(fd, name, m.mode, 0) })
		if err != nil {
			return err
		}
	}
	return k.setTime(d, name, m.mtime)
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
