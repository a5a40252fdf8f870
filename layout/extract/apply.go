package extract

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/internal/layertar"
)

// A group is one directory and the layers that are unpacked into it.
type group struct {
	x       *extraction
	dir     string // below OUT, "." for OUT itself
	numbers []int  // of layers of x
	overlay bool   // whiteouts mean something, and later layers replace

	*tree
	disk  *disk
	buf   []byte
	skip  map[string]bool // paths of entries that were left out
	infos map[*node]info  // of regular files, with Options.Files

	entries, written int64 // of the layer
}

type info struct {
	digest digest.Digest
	size   int64
}

// layerDigest names the layer that has made a node.
func (g *group) layerDigest(n *node) digest.Digest { return g.x.layers[n.layer].Desc.Digest }

// apply unpacks the archive that r reads.
func (g *group) apply(ctx context.Context, r *layertar.Reader) error {
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		g.entries++
		if err := g.entry(h, r); err != nil {
			var blob *layout.BlobError
			if errors.As(err, &blob) { // of the stream, and says all
				return err
			}
			if errors.Is(err, unix.ENAMETOOLONG) {
				err = fmt.Errorf("%w: %w", layout.ErrInvalid, err)
			}
			return fmt.Errorf("%s: entry %d, %q: %w", g.x.layers[g.layer].Desc.Digest, g.entries, short(h.Name), err)
		}
	}
}

// short cuts a name that would fill the screen.
func short(name string) string {
	const most = 200
	if len(name) > most {
		return name[:most] + "..."
	}
	return name
}

// entry makes one entry.
func (g *group) entry(h *tar.Header, content io.Reader) error {
	parts, err := g.split(h.Name)
	if err != nil {
		return err
	}
	if len(parts) == 0 {
		if h.Typeflag != tar.TypeDir {
			return fmt.Errorf("%w: it would replace the directory itself", layout.ErrUnsafe)
		}
		return g.makeDir(g.root, "", h)
	}
	if g.overlay {
		if done, err := g.whiteout(parts); done || err != nil {
			return err
		}
	}
	k, err := kindOf(h)
	if err != nil {
		return err
	}
	if k == kindSpecial && !g.mayMake(h) {
		if g.x.opts.Special == SpecialSkip {
			return g.leaveOut(strings.Join(parts, "/"), "a "+typeName(h.Typeflag))
		}
		return layout.WithHint(fmt.Errorf("%w: a %s", layout.ErrUnsafe, typeName(h.Typeflag)), "--special skip leaves such entries out")
	}
	d, err := g.enterParent(parts)
	if d == nil || err != nil {
		return err
	}
	name := parts[len(parts)-1]
	switch {
	case h.Typeflag == tar.TypeLink:
		return g.makeLink(d, name, h)
	case k == kindDir:
		return g.makeDir(d, name, h)
	}
	if ok, err := g.makeRoom(d, name, k, h, content); !ok || err != nil {
		return err
	}
	switch k {
	case kindFile:
		return g.makeFile(d, name, h, content)
	case kindSymlink:
		return g.makeSymlink(d, name, h)
	}
	return g.makeSpecial(d, name, h)
}

// kindOf returns what an entry is to become; a hard link is taken for a file.
func kindOf(h *tar.Header) (kind, error) {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse, tar.TypeLink:
		if strings.HasSuffix(h.Name, "/") {
			return 0, fmt.Errorf("%w: the name of a file ends in a slash", layout.ErrInvalid)
		}
		return kindFile, nil
	case tar.TypeDir:
		return kindDir, nil
	case tar.TypeSymlink:
		return kindSymlink, nil
	}
	return kindSpecial, nil
}

func typeName(t byte) string {
	switch t {
	case tar.TypeChar:
		return "character device"
	case tar.TypeBlock:
		return "block device"
	case tar.TypeFifo:
		return "FIFO"
	}
	return fmt.Sprintf("entry of type %q", t)
}

// mayMake tells whether a special entry is wanted at all.
func (g *group) mayMake(h *tar.Header) bool {
	known := h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock || h.Typeflag == tar.TypeFifo
	return g.x.opts.Preserve && known
}

// leaveOut reports an entry that is not made.
func (g *group) leaveOut(path, why string) error {
	// What is reported takes more memory than what is made.
	if err := g.count(g.root, path, 2*len(path)+len(why)+400); err != nil {
		return err
	}
	g.skip[path] = true
	g.x.result.Skipped = append(g.x.result.Skipped, Skipped{
		Path: joinPath(g.dir, path), Source: g.x.layers[g.layer].Desc.Digest, Why: why,
	})
	return nil
}

// enterParent returns the directory of an entry; nil if the entry is to be left
// out because of a conflict that the first layer wins.
func (g *group) enterParent(parts []string) (*dir, error) {
	for {
		d, err := g.parent(parts, true)
		var blocked *notDirError
		if !errors.As(err, &blocked) || blocked.node().layer == g.layer {
			return d, err
		}
		// An earlier layer has a file where this one needs a directory.
		switch {
		case g.overlay || g.x.opts.OnConflict == ConflictLast:
			if err := g.remove(blocked.dir, blocked.name); err != nil {
				return nil, err
			}
		case g.x.opts.OnConflict == ConflictFirst:
			return nil, nil //nolint:nilnil // said above
		default:
			return nil, g.conflict(blocked.dir, blocked.name, blocked.node(), "the other needs a directory there")
		}
	}
}

// remove takes away a node and all below it.
func (g *group) remove(d *dir, name string) error {
	n := d.children[name]
	if n.kind == kindDir {
		err := n.dir.descend(func(d *dir, name string, n *node) error { return g.unlink(d, name, n) })
		if err != nil {
			return err
		}
	}
	return g.unlink(d, name, n)
}

func (g *group) unlink(d *dir, name string, n *node) error {
	if err := g.disk.remove(d, name, n); err != nil {
		return err
	}
	g.drop(d, name)
	delete(g.infos, n)
	return nil
}
