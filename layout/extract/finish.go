package extract

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gardenlinux/gloci-layout/layout"
)

// finish does what has to wait until all is there: it looks at where the
// symbolic links lead, and sets the metadata of directories.
func (g *group) finish() error {
	if g.x.opts.Symlinks != SymlinksKeep {
		if err := g.root.descend(g.checkLink); err != nil {
			return err
		}
	}
	set := func(d *dir, name string, n *node) error {
		if n.kind == kindDir {
			if err := g.disk.setDir(n.dir, g.x.opts.Preserve); err != nil {
				return err
			}
		}
		return g.list(d, name, n)
	}
	if err := g.root.descend(set); err != nil {
		return err
	}
	if err := g.list(nil, "", g.root.node); err != nil {
		return err
	}
	return g.disk.setDir(g.root, g.x.opts.Preserve)
}

func (g *group) checkLink(d *dir, name string, n *node) error {
	if n.kind != kindSymlink {
		return nil
	}
	out, err := g.leadsOut(d, n.target)
	if !out || err != nil {
		return err
	}
	if g.x.opts.Symlinks == SymlinksError {
		err := fmt.Errorf("%s: %w: the symbolic link %s -> %s leads out of the directory", g.layerDigest(n), layout.ErrUnsafe, d.path(name), n.target)
		return layout.WithHint(err, "--symlinks skip leaves such links out, --symlinks keep makes them")
	}
	g.x.result.Skipped = append(g.x.result.Skipped, Skipped{
		Path: joinPath(g.dir, d.path(name)), Source: g.layerDigest(n), Why: fmt.Sprintf("a symbolic link to %s, which leads out of the directory", n.target),
	})
	return g.unlink(d, name, n)
}

// list reports one node, if that is wanted. For the root d is nil.
func (g *group) list(d *dir, name string, n *node) error {
	if !g.x.opts.Files {
		return nil
	}
	if d == nil {
		if g.dir == "." {
			return nil
		}
		g.x.result.Files = append(g.x.result.Files, File{Path: g.dir, Mode: fs.ModeDir | fileMode(n.dir.meta.mode), Layer: g.layerOf(n)})
		return nil
	}
	f := File{Path: joinPath(g.dir, d.path(name)), Layer: g.layerOf(n), Target: n.target}
	switch n.kind {
	case kindDir:
		f.Mode = fs.ModeDir | fileMode(n.dir.meta.mode)
	case kindSymlink:
		f.Mode = fs.ModeSymlink | 0o777
	default:
		st, err := g.disk.stat(d, name)
		if err != nil {
			return err
		}
		f.Mode = fileMode(uint32(st.Mode)) //nolint:unconvert // narrower on other systems
		f.Digest, f.Size = g.infos[n].digest, g.infos[n].size
	}
	g.x.result.Files = append(g.x.result.Files, f)
	return nil
}

func (g *group) layerOf(n *node) int {
	if n.kind == kindDir && n.dir.implied {
		return -1
	}
	return int(n.layer)
}

// fileMode returns what stat(2) says as [fs.FileMode].
func fileMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	for _, b := range []struct {
		unix uint32
		mode fs.FileMode
	}{{unix.S_ISUID, fs.ModeSetuid}, {unix.S_ISGID, fs.ModeSetgid}, {unix.S_ISVTX, fs.ModeSticky}} {
		if mode&b.unix != 0 {
			m |= b.mode
		}
	}
	switch mode & unix.S_IFMT {
	case unix.S_IFCHR:
		m |= fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFBLK:
		m |= fs.ModeDevice
	case unix.S_IFIFO:
		m |= fs.ModeNamedPipe
	}
	return m
}

// diffID returns what layer i has to hash to uncompressed, "" if nobody says.
func (g *group) diffID(i int) digest.Digest {
	if g.x.diffIDs == nil {
		return ""
	}
	return g.x.diffIDs[i]
}

func isAbsent(err error) bool {
	var blocked *notDirError
	return errors.Is(err, errAbsent) || errors.As(err, &blocked)
}
