package casengine

import (
	"bytes"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The attributes of overlayfs that umoci makes whiteouts of. Mounts of plain
// users have them under user.
const (
	overlayTrusted = "trusted.overlay."
	overlayUser    = "user.overlay."
)

var overlayMarks = []string{"opaque", "whiteout"}

// portable tells whether an attribute means the same on another host. The labels
// of SELinux, Smack and AppArmor, the HMAC of EVM, NFSv4 ACLs and what a file
// system keeps for itself do not.
func portable(name string) bool {
	switch name {
	case "security.capability", "security.ima", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, overlayUser) || strings.HasPrefix(name, "trusted.")
}

// llistxattr lists the attributes that go into a layer, sorted, and those by
// which umoci knows whiteouts.
func (t *tree) llistxattr() ([]string, error) {
	raw, err := attribute(func(buf []byte) (int, error) { return unix.Llistxattr(t.at, buf) })
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "llistxattr", Path: t.at, Err: err}
	}
	var names []string
	for part := range bytes.SplitSeq(raw, []byte{0}) {
		name := string(part)
		if mark, ok := strings.CutPrefix(name, overlayUser); ok && slices.Contains(overlayMarks, mark) {
			names = append(names, overlayTrusted+mark)
			continue
		}
		if !portable(name) {
			continue
		}
		if value, err := t.lgetxattr(name); err == nil && len(value) == 0 && !strings.HasPrefix(name, overlayTrusted) {
			// Nor does any other tar hold it: PAX takes the empty value for none.
			t.logger.Warn("left out: a layer holds no extended attribute that is empty", "file", filepath.Join(t.dir, t.path), "attribute", name)
			continue
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func (t *tree) lgetxattr(name string) ([]byte, error) {
	value, err := attribute(func(buf []byte) (int, error) { return unix.Lgetxattr(t.at, name, buf) })
	if mark, ok := strings.CutPrefix(name, overlayTrusted); ok && errors.Is(err, errNoAttribute) && slices.Contains(overlayMarks, mark) {
		value, err = attribute(func(buf []byte) (int, error) { return unix.Lgetxattr(t.at, overlayUser+mark, buf) })
	}
	if errors.Is(err, errNoAttribute) {
		err = unix.ENODATA // what umoci knows; they differ on systems other than Linux
	}
	if err != nil {
		return nil, &fs.PathError{Op: "lgetxattr " + name, Path: t.at, Err: err}
	}
	return value, nil
}

// attribute calls get with a buffer that is large enough.
func attribute(get func(buf []byte) (int, error)) ([]byte, error) {
	for size := 256; ; size *= 2 {
		buf := make([]byte, size)
		n, err := get(buf)
		if errors.Is(err, unix.ERANGE) && size < 1<<20 { // the system has none above 64 KiB
			continue
		}
		if err != nil {
			return nil, err
		}
		return buf[:n], nil
	}
}
