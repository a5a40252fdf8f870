package filediff

import (
	"archive/tar"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

const xattrPrefix = "SCHILY.xattr."

// cleanName is the name by which members are matched: without "./" or "/" in
// front and "/" behind.
func cleanName(name string) string {
	for {
		switch {
		case strings.HasPrefix(name, "./"):
			name = name[2:]
		case strings.HasPrefix(name, "/"):
			name = name[1:]
		case strings.HasSuffix(name, "/"):
			name = name[:len(name)-1]
		case name == "":
			return "."
		default:
			return name
		}
	}
}

func typeOf(h *tar.Header) Type {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeRegA, tar.TypeGNUSparse, tar.TypeCont: //nolint:staticcheck // archives have TypeRegA
		return TypeFile
	case tar.TypeDir:
		return TypeDir
	case tar.TypeSymlink:
		return TypeSymlink
	case tar.TypeLink:
		return TypeLink
	case tar.TypeChar:
		return TypeChar
	case tar.TypeBlock:
		return TypeBlock
	case tar.TypeFifo:
		return TypeFIFO
	}
	return TypeOther
}

func fileOf(h *tar.Header) *File {
	f := &File{
		Type: typeOf(h), Mode: h.Mode & 0o7777, UID: h.Uid, GID: h.Gid, Owner: h.Uname, Group: h.Gname,
		ModTime: h.ModTime.UTC(), Link: h.Linkname,
	}
	if f.Type == TypeFile {
		f.Size = h.Size
	}
	return f
}

// metaFields compares everything but content. ignored tells that something
// differs that does not count.
func metaFields(a, b *tar.Header, ign *Ignore) (fields []Field, ignored bool) {
	add := func(name, va, vb string, skip bool) {
		switch {
		case va == vb:
		case skip:
			ignored = true
		default:
			fields = append(fields, Field{Name: name, A: present(va), B: present(vb)})
		}
	}
	ta, tb := typeOf(a), typeOf(b)
	add("type", string(ta), string(tb), false)
	add("link", a.Linkname, b.Linkname, false)
	if a.Mode&0o7777 != b.Mode&0o7777 {
		add("mode", octal(a.Mode), octal(b.Mode), ign.Mode)
	}
	if a.Uid != b.Uid {
		add("uid", strconv.Itoa(a.Uid), strconv.Itoa(b.Uid), ign.Owner)
	}
	if a.Gid != b.Gid {
		add("gid", strconv.Itoa(a.Gid), strconv.Itoa(b.Gid), ign.Owner)
	}
	add("user", a.Uname, b.Uname, ign.Owner || ign.OwnerNames)
	add("group", a.Gname, b.Gname, ign.Owner || ign.OwnerNames)
	if a.Devmajor != b.Devmajor || a.Devminor != b.Devminor {
		if isDevice(ta) || isDevice(tb) {
			add("device", fmt.Sprintf("%d:%d", a.Devmajor, a.Devminor), fmt.Sprintf("%d:%d", b.Devmajor, b.Devminor), false)
		}
	}
	for _, t := range []struct {
		name string
		a, b time.Time
	}{{"mtime", a.ModTime, b.ModTime}, {"atime", a.AccessTime, b.AccessTime}, {"ctime", a.ChangeTime, b.ChangeTime}} {
		if !t.a.Equal(t.b) {
			add(t.name, timeText(t.a), timeText(t.b), ign.Times)
		}
	}
	if len(a.PAXRecords) > 0 || len(b.PAXRecords) > 0 {
		for _, k := range xattrNames(a, b) {
			va, okA := a.PAXRecords[k]
			vb, okB := b.PAXRecords[k]
			name := "xattr " + strings.TrimPrefix(k, xattrPrefix)
			switch {
			case va == vb && okA == okB:
			case ign.Xattrs:
				ignored = true
			default:
				f := Field{Name: name}
				if okA {
					f.A = &va
				}
				if okB {
					f.B = &vb
				}
				fields = append(fields, f)
			}
		}
	}
	return fields, ignored
}

func xattrNames(a, b *tar.Header) []string {
	names := map[string]bool{}
	for _, h := range []*tar.Header{a, b} {
		for k := range h.PAXRecords {
			if strings.HasPrefix(k, xattrPrefix) {
				names[k] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

func isDevice(t Type) bool { return t == TypeChar || t == TypeBlock }

func octal(mode int64) string { return fmt.Sprintf("%04o", mode&0o7777) }

func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// present is nil for what is not there.
func present(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// comparePaths orders as a walk through directories does, so that what is in a
// directory comes right after it: as GNU tar --sort=name and most builders of
// images write.
func comparePaths(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		ca, cb := a[i], b[i]
		if ca == cb {
			continue
		}
		// The end of a part is less than any byte of one.
		if ca == '/' {
			return -1
		}
		if cb == '/' {
			return 1
		}
		return cmp.Compare(ca, cb)
	}
	return cmp.Compare(len(a), len(b))
}
