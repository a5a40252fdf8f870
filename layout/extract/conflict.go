package extract

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/gardenlinux/gloci-layout/layout"
)

// makeRoom takes away what is in the way of an entry that is to become a node of
// kind k. It is false where the entry is to be left out: because it is already
// there, or because the first layer wins. content is that of a regular file.
func (g *group) makeRoom(d *dir, name string, k kind, h *tar.Header, content io.Reader) (bool, error) {
	n := d.children[name]
	if n == nil {
		return true, nil
	}
	// Within one archive, and in an image, the last one is meant.
	if n.layer == g.layer || g.overlay {
		return true, g.remove(d, name)
	}
	switch g.x.opts.OnConflict {
	case ConflictLast:
		return true, g.remove(d, name)
	case ConflictFirst:
		return false, nil
	case ConflictError:
		return false, g.conflict(d, name, n, "")
	}
	why, err := g.difference(d, name, n, k, h, content)
	if err == nil && why != "" {
		err = g.conflict(d, name, n, why)
	}
	return false, err
}

func (g *group) conflict(d *dir, name string, n *node, why string) error {
	if why != "" {
		why = ", " + why
	}
	err := fmt.Errorf("%w: layers %s and %s both have %s%s", layout.ErrConflict,
		g.layerDigest(n), g.x.layers[g.layer].Desc.Digest, d.path(name), why)
	return layout.WithHint(err, "--on-conflict first or last says which one is wanted")
}

// difference says in what an entry is not identical to the node n; "" if in
// nothing that counts.
func (g *group) difference(d *dir, name string, n *node, k kind, h *tar.Header, content io.Reader) (string, error) {
	if n.kind != k {
		return fmt.Sprintf("once as a %s and once as a %s", n.kind, k), nil
	}
	if h.Typeflag == tar.TypeLink {
		return g.linkDifference(d, name, h)
	}
	if k == kindSymlink {
		if n.target != h.Linkname {
			return fmt.Sprintf("as links to %q and %q", n.target, h.Linkname), nil
		}
		return "", nil
	}
	m, err := g.metaOf(h)
	if err != nil {
		return "", err
	}
	st, err := g.disk.stat(d, name)
	if err != nil {
		return "", err
	}
	there := meta{mode: uint32(st.Mode) & 0o7777, uid: int(st.Uid), gid: int(st.Gid)} //nolint:unconvert // narrower on other systems
	switch {
	case !there.same(m, g.x.opts.Preserve):
		return fmt.Sprintf("with the modes %#o and %#o", there.mode, m.mode), nil
	case k == kindSpecial:
		return "of which devices and FIFOs are never taken for the same", nil
	case st.Size != h.Size:
		return "with different content", nil
	}
	f, err := g.disk.readFile(d, name)
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // only read
	same, err := sameContent(f, content, g.buf)
	if err == nil && !same {
		return "with different content", nil
	}
	return "", err
}

// linkDifference is difference for a hard link.
func (g *group) linkDifference(d *dir, name string, h *tar.Header) (string, error) {
	parts, err := g.split(h.Linkname)
	if err != nil {
		return "", err
	}
	from, fromName, _, err := g.linked(parts)
	if err != nil {
		return "", err
	}
	a, err := g.disk.stat(d, name)
	if err != nil {
		return "", err
	}
	b, err := g.disk.stat(from, fromName)
	if err != nil {
		return "", err
	}
	if a.Ino != b.Ino {
		return fmt.Sprintf("as a hard link to %s and as another file", h.Linkname), nil
	}
	return "", nil
}

// sameContent tells whether a and b give the same bytes.
func sameContent(a, b io.Reader, buf []byte) (bool, error) {
	half := len(buf) / 2
	for {
		n, err := io.ReadFull(a, buf[:half])
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return false, err
		}
		m, err2 := io.ReadFull(b, buf[half:half+half])
		if err2 != nil && !errors.Is(err2, io.EOF) && !errors.Is(err2, io.ErrUnexpectedEOF) {
			return false, err2
		}
		if !bytes.Equal(buf[:n], buf[half:half+m]) {
			return false, nil
		}
		if n < half { // both have ended
			return true, nil
		}
	}
}
