package extract

import (
	"fmt"
	"strings"

	"github.com/gardenlinux/gloci-layout/layout"
)

// Names of layer.md, "Whiteouts".
const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
	// metaPrefix begins what AUFS kept for itself. Docker wrote such entries
	// into layers before 1.10, and every program leaves them out.
	metaPrefix = ".wh..wh."
)

// whiteout tells whether an entry of a layer of an image is a whiteout, and if
// so takes away what it hides: what lower layers have, and nothing that this
// layer has, whichever comes first in it.
func (g *group) whiteout(parts []string) (done bool, err error) {
	name := parts[len(parts)-1]
	for i, part := range parts {
		switch {
		case !strings.HasPrefix(part, whiteoutPrefix):
		case strings.HasPrefix(part, metaPrefix) && (part != opaqueName || i < len(parts)-1):
			return true, nil
		case i < len(parts)-1:
			return true, fmt.Errorf("%w: %s is the name of a whiteout, and is used as a directory", layout.ErrInvalid, part)
		}
	}
	if !strings.HasPrefix(name, whiteoutPrefix) {
		return false, nil
	}
	hidden := strings.TrimPrefix(name, whiteoutPrefix)
	if name != opaqueName && (hidden == "" || hidden == "." || hidden == "..") {
		return true, fmt.Errorf("%w: a whiteout of %q", layout.ErrUnsafe, hidden)
	}
	d, err := g.parent(parts, false)
	if err != nil {
		if isAbsent(err) {
			return true, nil // there is nothing to hide
		}
		return true, err
	}
	if name == opaqueName {
		return true, g.hideBelow(d)
	}
	if n := d.children[hidden]; n != nil {
		return true, g.hide(d, hidden, n)
	}
	return true, nil
}

// hideBelow removes all in d that lower layers have made.
func (g *group) hideBelow(d *dir) error {
	if d.opaque == g.layer+1 {
		return nil // nothing of a lower layer can have come since
	}
	for _, name := range d.names() {
		if err := g.hide(d, name, d.children[name]); err != nil {
			return err
		}
	}
	d.opaque = g.layer + 1
	return nil
}

// hide removes n and what is below it, but for what this layer has made.
func (g *group) hide(d *dir, name string, n *node) error {
	if n.kind == kindDir {
		if err := g.hideBelow(n.dir); err != nil {
			return err
		}
		if len(n.dir.children) > 0 {
			return nil
		}
	}
	if n.layer == g.layer {
		return nil
	}
	return g.unlink(d, name, n)
}
