package extract

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gardenlinux/gloci-layout/layout"
)

// metaOf returns what an entry says that its node should get.
func (g *group) metaOf(h *tar.Header) (meta, error) {
	m := meta{mode: uint32(h.Mode & 0o777), mtime: h.ModTime}
	if h.Typeflag == tar.TypeDir {
		m.mode |= uint32(h.Mode & unix.S_ISVTX)
	}
	if !g.x.opts.Preserve {
		return m, nil
	}
	m.mode = uint32(h.Mode & 0o7777)
	const none = 1<<32 - 1 // chown(2) takes it for "as it is"
	if h.Uid < 0 || h.Gid < 0 || int64(h.Uid) >= none || int64(h.Gid) >= none {
		return m, fmt.Errorf("%w: owner %d:%d", layout.ErrInvalid, h.Uid, h.Gid)
	}
	m.uid, m.gid = h.Uid, h.Gid
	for key, value := range h.PAXRecords {
		if key, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
			if m.xattrs == nil {
				m.xattrs = map[string]string{}
			}
			m.xattrs[strings.Clone(key)] = strings.Clone(value) // not all of the header
		}
	}
	return m, nil
}

// makeDir makes a directory, or gives one that is there new metadata. With an
// empty name it is d itself.
func (g *group) makeDir(d *dir, name string, h *tar.Header) error {
	m, err := g.metaOf(h)
	if err != nil {
		return err
	}
	for key, value := range m.xattrs { // they are kept until the end
		g.bytes += int64(len(key) + len(value) + 100)
	}
	n := d.node
	if name != "" {
		n = d.children[name]
	}
	if n == nil || n.kind != kindDir {
		if ok, err := g.makeRoom(d, name, kindDir, h, nil); !ok || err != nil {
			return err
		}
		if _, err := g.addDir(d, name, m); err != nil {
			return err
		}
		return g.disk.mkdir(d, name)
	}
	if earlier := n.layer != g.layer && !n.dir.implied; earlier && !g.overlay && !n.dir.meta.same(m, g.x.opts.Preserve) {
		switch g.x.opts.OnConflict {
		case ConflictFirst:
			return nil
		case ConflictLast:
		default:
			return g.conflict(d, name, n, fmt.Sprintf("with the modes %#o and %#o", n.dir.meta.mode, m.mode))
		}
	}
	n.layer, n.dir.implied, n.dir.meta = g.layer, false, m
	return nil
}

// same tells whether two nodes are identical as far as OnConflict goes: times
// do not count.
func (m meta) same(other meta, preserve bool) bool {
	return m.mode == other.mode && (!preserve || m.uid == other.uid && m.gid == other.gid)
}

func (g *group) makeFile(d *dir, name string, h *tar.Header, content io.Reader) (err error) {
	m, err := g.metaOf(h)
	if err != nil {
		return err
	}
	n, err := g.add(d, name, kindFile, "")
	if err != nil {
		return err
	}
	fd, err := g.disk.create(d, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pathError("close", d, name, unix.Close(fd))) }()
	s := &sink{fd: fd, sparse: isSparse(h)}
	w := io.Writer(s)
	hash := digest.SHA256.Hash()
	if g.infos != nil {
		w = io.MultiWriter(s, hash)
	}
	if err := g.pass(content, w); err != nil {
		var failed unix.Errno
		if errors.As(err, &failed) {
			return pathError("write", d, name, err)
		}
		return err
	}
	if g.infos != nil {
		g.infos[n] = info{digest.NewDigest(digest.SHA256, hash), s.off}
	}
	g.written += s.off
	if err := s.finish(); err != nil {
		return pathError("truncate", d, name, err)
	}
	if err := setFile(fd, m, g.x.opts.Preserve); err != nil {
		return pathError("set", d, name, err)
	}
	return g.disk.setTime(d, name, m.mtime)
}

// pass copies the content of one entry.
func (g *group) pass(r io.Reader, w io.Writer) error {
	for {
		n, err := r.Read(g.buf)
		if n > 0 {
			if _, err := w.Write(g.buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func (g *group) makeSymlink(d *dir, name string, h *tar.Header) error {
	if h.Linkname == "" {
		return fmt.Errorf("%w: a symbolic link without a target", layout.ErrInvalid)
	}
	m, err := g.metaOf(h)
	if err != nil {
		return err
	}
	if _, err := g.add(d, name, kindSymlink, h.Linkname); err != nil {
		return err
	}
	if err := g.disk.symlink(d, name, h.Linkname); err != nil {
		return err
	}
	return g.disk.setOther(d, name, m, true, g.x.opts.Preserve)
}

func (g *group) makeSpecial(d *dir, name string, h *tar.Header) error {
	m, err := g.metaOf(h)
	if err != nil {
		return err
	}
	if _, err := g.add(d, name, kindSpecial, ""); err != nil {
		return err
	}
	if err := g.disk.mknod(d, name, h); err != nil {
		return layout.WithHint(err, "only root may make devices; --special skip leaves them out")
	}
	return g.disk.setOther(d, name, m, false, true)
}

// makeLink makes a hard link to something that this extraction has made.
func (g *group) makeLink(d *dir, name string, h *tar.Header) error {
	parts, err := g.split(h.Linkname)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", h.Linkname, err)
	}
	if g.skip[strings.Join(parts, "/")] {
		return g.leaveOut(d.path(name), fmt.Sprintf("a hard link to %s, which was left out", h.Linkname))
	}
	from, fromName, n, err := g.linked(parts)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", h.Linkname, err)
	}
	if from == d && fromName == name {
		return nil // to itself: nothing is to be done
	}
	if ok, err := g.makeRoom(d, name, n.kind, h, nil); !ok || err != nil {
		return err
	}
	// It may have been in what had to make room.
	if from, fromName, n, err = g.linked(parts); err != nil {
		return fmt.Errorf("hard link to %q: %w", h.Linkname, err)
	}
	made, err := g.add(d, name, n.kind, n.target)
	if err != nil {
		return err
	}
	if in, ok := g.infos[n]; ok {
		g.infos[made] = in
	}
	return g.disk.link(from, fromName, d, name)
}

// linked finds what a hard link is to be made to.
func (g *group) linked(parts []string) (*dir, string, *node, error) {
	if len(parts) == 0 {
		return nil, "", nil, fmt.Errorf("%w: it is a directory", layout.ErrUnsafe)
	}
	name := parts[len(parts)-1]
	d, err := g.parent(parts, false)
	if err == nil && d.children[name] == nil {
		err = errAbsent
	}
	if errors.Is(err, errAbsent) {
		return nil, "", nil, fmt.Errorf("%w: there is no such entry before it", layout.ErrInvalid)
	}
	if err != nil {
		return nil, "", nil, err
	}
	n := d.children[name]
	if n.kind == kindDir {
		return nil, "", nil, fmt.Errorf("%w: it is a directory", layout.ErrUnsafe)
	}
	return d, name, n, nil
}
