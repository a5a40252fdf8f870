package extract

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/gardenlinux/gloci-layout/layout"
)

// kind is the type of a node, as far as it matters for paths.
type kind uint8

const (
	kindFile kind = iota
	kindDir
	kindSymlink
	kindSpecial
)

func (k kind) String() string {
	return [...]string{"regular file", "directory", "symbolic link", "device or FIFO"}[k]
}

// A node is what this extraction has made at one path. All that exists below
// the root is in the tree, so paths are followed here and not on the disk.
type node struct {
	kind  kind
	layer int32 // that made it last
	dir   *dir  // of a directory
	// target of a symbolic link
	target string
}

// A dir is the part of a node that only directories have.
type dir struct {
	node     *node
	parent   *dir // nil for the root
	name     string
	depth    int
	children map[string]*node
	meta     meta
	implied  bool  // no entry has spoken of it
	opaque   int32 // the layer whose opaque whiteout was applied here, plus 1
	handle   *handle
}

// meta is what is set on a node when its content is complete.
type meta struct {
	mode     uint32 // as chmod(2) takes it
	mtime    time.Time
	uid, gid int
	xattrs   map[string]string // nil if there are none or they do not count
}

func (d *dir) path(name string) string {
	if d == nil {
		return name
	}
	parts := []string{}
	if name != "" {
		parts = append(parts, name)
	}
	for ; d.parent != nil; d = d.parent {
		parts = append(parts, d.name)
	}
	if len(parts) == 0 {
		return "."
	}
	slices.Reverse(parts)
	return strings.Join(parts, "/")
}

// names returns the names in d in a defined order.
func (d *dir) names() []string { return slices.Sorted(maps.Keys(d.children)) }

// A tree is the record of one directory that layers are unpacked into.
type tree struct {
	root   *dir
	chroot bool // absolute targets and ".." above the root stay inside, as after chroot(2)
	layer  int32
	limits limits
	// implied is what directories get that no entry speaks of.
	implied meta
	nodes   int64
	bytes   int64 // of names
	steps   int64 // components that were looked at
	mkdir   func(parent *dir, name string) error
}

type limits struct {
	entries int64
	name    int
	depth   int
}

const (
	// maxNames bounds the memory of a tree: the bytes of names, of targets of
	// links and of what is kept until the end. Two million files with names
	// of 32 bytes fit; where more files are allowed, so are more bytes.
	maxNames = 64 << 20 // 64 MiB
	nameOf   = 32
	dirSize  = 200 // bytes that a directory takes more than a file, about
	// maxSteps bounds the time that following links takes: real root file
	// systems need some thousands for links and ten for an entry.
	maxSteps = 64 << 20
	// maxLinks is how many links a path may lead through (MAXSYMLINKS of Linux).
	maxLinks = 40
)

func newTree(l limits, chroot bool) *tree {
	t := &tree{chroot: chroot, limits: l, implied: meta{mode: 0o755, mtime: time.Unix(0, 0), uid: os.Geteuid(), gid: os.Getegid()}}
	n := &node{kind: kindDir, layer: -1}
	n.dir = &dir{node: n, meta: t.implied, implied: true}
	t.root = n.dir
	return t
}

var (
	errOutside = fmt.Errorf("%w: it leads out of the directory", layout.ErrUnsafe)
	errMaze    = fmt.Errorf("%w: it leads through more than %d symbolic links", layout.ErrInvalid, maxLinks)
	errAbsent  = errors.New("not there")
)

// A notDirError says that a path goes on below something that is no directory.
type notDirError struct {
	dir  *dir
	name string
}

func (e *notDirError) node() *node { return e.dir.children[e.name] }

func (e *notDirError) Error() string {
	return fmt.Sprintf("%s is a %s, no directory", e.dir.path(e.name), e.node().kind)
}

func (e *notDirError) Is(target error) bool { return target == layout.ErrInvalid }

// split returns the components of a name in an archive. A name that is absolute
// or has ".." in it is refused, the empty result means the root. Where the tree
// is a root file system a leading slash means its root.
func (t *tree) split(name string) ([]string, error) {
	if strings.HasPrefix(name, "/") && !t.chroot {
		return nil, fmt.Errorf("%w: the name is absolute", layout.ErrUnsafe)
	}
	if name == "" {
		return nil, fmt.Errorf("%w: the name is empty", layout.ErrInvalid)
	}
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		switch part {
		case "", ".":
		case "..":
			return nil, fmt.Errorf(`%w: the name has ".." in it`, layout.ErrUnsafe)
		default:
			parts = append(parts, part)
		}
	}
	return parts, nil
}

// A walk follows a path through the tree.
type walk struct {
	t      *tree
	create bool // make directories that are absent
	links  int
	absent int // components behind the last one that exists
}

// enter follows parts from d on and returns the directory that they lead to.
// Without create, what is absent is errAbsent, or, for a walk that looks only
// where a link would lead, counted.
func (w *walk) enter(d *dir, parts []string, look bool) (*dir, error) {
	for _, part := range parts {
		if w.t.steps++; w.t.steps > maxSteps {
			return nil, fmt.Errorf("%w: following the symbolic links takes more than %d steps", layout.ErrInvalid, maxSteps)
		}
		switch part {
		case "", ".":
			continue
		case "..":
			switch {
			case w.absent > 0:
				w.absent--
			case d.parent != nil:
				d = d.parent
			case !w.t.chroot:
				return nil, errOutside
			}
			continue
		}
		if w.absent > 0 {
			w.absent++
			continue
		}
		n := d.children[part]
		switch {
		case n == nil && w.create:
			made, err := w.t.addDir(d, part, w.t.implied)
			if err != nil {
				return nil, err
			}
			made.dir.implied = true
			if err := w.t.mkdir(d, part); err != nil {
				return nil, err
			}
			d = made.dir
		case n == nil && look:
			w.absent++
		case n == nil:
			return nil, errAbsent
		case n.kind == kindDir:
			d = n.dir
		case n.kind == kindSymlink:
			next, err := w.follow(d, n.target, look)
			if err != nil {
				return nil, err
			}
			d = next
		case look:
			w.absent++
		default:
			return nil, &notDirError{dir: d, name: part}
		}
	}
	return d, nil
}

// follow enters what a link in d points at.
func (w *walk) follow(d *dir, target string, look bool) (*dir, error) {
	if w.links++; w.links > maxLinks {
		return nil, errMaze
	}
	if strings.HasPrefix(target, "/") {
		if !w.t.chroot {
			return nil, errOutside
		}
		d = w.t.root
	}
	return w.enter(d, strings.Split(target, "/"), look)
}

// parent returns the directory that holds the entry with these components,
// following links inside of the tree, and makes it if create is set.
func (t *tree) parent(parts []string, create bool) (*dir, error) {
	w := &walk{t: t, create: create}
	return w.enter(t.root, parts[:len(parts)-1], false)
}

// leadsOut tells whether the target of a link in d leads out of the tree.
func (t *tree) leadsOut(d *dir, target string) (bool, error) {
	w := &walk{t: t}
	_, err := w.follow(d, target, true)
	switch {
	case errors.Is(err, errOutside):
		return true, nil
	case errors.Is(err, errMaze):
		return false, nil // a loop leads nowhere
	}
	return false, err
}

// count holds one more node against the limits.
func (t *tree) count(d *dir, name string, extra int) error {
	t.nodes++
	t.bytes += int64(len(name) + extra)
	switch {
	case t.limits.entries >= 0 && t.nodes > t.limits.entries:
		return fmt.Errorf("%w: more than %d files and directories", layout.ErrInvalid, t.limits.entries)
	case t.limits.entries >= 0 && t.bytes > max(maxNames, t.limits.entries*nameOf):
		return fmt.Errorf("%w: more than %d MiB of names and attributes", layout.ErrInvalid, max(maxNames, t.limits.entries*nameOf)>>20)
	case t.limits.depth >= 0 && d.depth >= t.limits.depth:
		return fmt.Errorf("%w: %s: directories nested deeper than %d", layout.ErrInvalid, d.path(name), t.limits.depth)
	}
	return nil
}

func (t *tree) addDir(d *dir, name string, m meta) (*node, error) {
	n, err := t.add(d, name, kindDir, "")
	if err != nil {
		return nil, err
	}
	t.bytes += dirSize
	n.dir = &dir{node: n, parent: d, name: name, depth: d.depth + 1, meta: m}
	return n, nil
}

// add records what is about to be made, where there is nothing.
func (t *tree) add(d *dir, name string, k kind, target string) (*node, error) {
	if err := t.count(d, name, len(target)); err != nil {
		return nil, err
	}
	n := &node{kind: k, layer: t.layer, target: target}
	if d.children == nil {
		d.children = map[string]*node{}
	}
	d.children[name] = n
	return n, nil
}

// drop forgets a child.
func (t *tree) drop(d *dir, name string) {
	t.nodes--
	t.bytes -= int64(len(name) + len(d.children[name].target))
	if d.children[name].kind == kindDir {
		t.bytes -= dirSize
	}
	delete(d.children, name)
}

// descend calls fn for all below d, children before their directories.
func (d *dir) descend(fn func(d *dir, name string, n *node) error) error {
	for _, name := range d.names() {
		n := d.children[name]
		if n.kind == kindDir {
			if err := n.dir.descend(fn); err != nil {
				return err
			}
		}
		if err := fn(d, name, n); err != nil {
			return err
		}
	}
	return nil
}
