// Package diff tells what differs between two layouts, or two parts of them,
// level by level: ref names, entries of indexes, manifests, configs, layers, and
// the files in layers (package filediff).
//
// Each level is looked at only where the one above differs, so the cost grows
// with the difference: what has the same digest on both sides is not opened.
// The summary of bytes is the one exception: it needs the manifests of what is
// equal, never its configs or layers, and [Options.Total] tells from which side.
//
// # Changes and headings
//
// A change at a level says in its fields what differs there. Where nothing but
// a digest does, the change is a heading for those below it, and it comes only if
// one of them counts: with Ignore.Times, two images of the same files with other
// times are equal, though every digest above the files differs.
//
// Nothing is printed here, and nothing is written but temporary files.
package diff

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/diff/filediff"
	"github.com/gardenlinux/gloci-layout/layout/diff/internal/explain"
	"github.com/gardenlinux/gloci-layout/layout/diff/pkglist"
)

// A Level is how deep a difference lies.
type Level int

// The levels, from the top. Packages belong to the level of files.
const (
	LevelDefault Level = iota
	LevelRefs
	LevelIndex
	LevelManifest
	LevelConfig
	LevelLayer
	LevelFile
	LevelPackage
)

var levelNames = [...]string{"", "refs", "index", "manifest", "config", "layer", "file", "package"}

func (l Level) String() string { return levelNames[l] }

// ParseLevel reads one of refs, index, manifest, config, layer and file; any
// other is [layout.ErrInvalid].
func ParseLevel(s string) (Level, error) {
	for l := LevelRefs; l <= LevelFile; l++ {
		if s == l.String() {
			return l, nil
		}
	}
	return 0, fmt.Errorf("%w level %q: want %s", layout.ErrInvalid, s, strings.Join(levelNames[LevelRefs:LevelPackage], ", "))
}

// A Kind is that of package filediff.
type Kind = filediff.Kind

// A Field is that of package filediff.
type Field = filediff.Field

// A Change is one difference.
type Change struct {
	Level Level
	Kind  Kind
	Ref   string // ref name of the entry of index.json it lies below; "" if that has none
	Entry string // what the manifest or index it is or lies in is called, see [Options.Name]; "" above entries
	Layer string // title of the layer it is or lies in, else "layer N", counted from 1 in A or, if A lacks it, in B

	A, B   *ocispec.Descriptor // the content of each side, nil where it has none; nil at the levels of files and packages
	Fields []Field
	// Bytes is the size of all that an entry names which only one side has, each
	// blob counted once; 0 above LevelManifest.
	Bytes int64

	Path         []string       // of a file or list of packages, see [filediff.Change]
	FileA, FileB *filediff.File // nil where that side lacks it
	Ranges       []filediff.Range
	Differing    int64 // bytes, where content was compared byte by byte
	Text         string
	Package      *pkglist.Change
}

// A Side is one of the two that are compared.
type Side struct {
	Source layout.Source
	// Roots are the descriptors that are compared. Nil means index.json as a
	// whole: its ref names and own fields too.
	Roots []ocispec.Descriptor
}

// Ignore says which differences do not count; see [ParseIgnore].
type Ignore struct {
	filediff.Ignore
	History     bool     // of the configs of images
	Annotations []string // keys, as globs of path.Match
	Labels      []string // keys of labels of the configs of images, as globs
}

// Options changes what is compared. Nil is the zero value.
type Options struct {
	Level  Level // the last one that is looked at; LevelDefault means LevelFile
	Ignore Ignore
	Files  filediff.Options // of the level of files; its Ignore is not used

	// Key names what an entry is a state of, whatever its version, so that the
	// states of two versions are compared; "" if it does not know. Entries with
	// the same [layout.EntryKey] are matched before.
	Key func(desc ocispec.Descriptor) string
	// Name names an entry for people; "" means by its ref name, platform,
	// artifactType or digest.
	Name func(desc ocispec.Descriptor) string
	// Select leaves out pairs of manifests of which neither fits, and then the
	// fields and the order of indexes.
	Select *layout.Selector
	// Total says whose manifests are read to sum up what is equal: "a", "b", or
	// "" for none.
	Total string
}

// Summary is what was compared.
type Summary struct {
	Changes map[Level]int // by level
	// Manifests is how many there are, those of A and B that were matched counted
	// once; Changed is how many of them differ, are added or removed.
	Manifests, Added, Removed, Changed int
	// Shared, OnlyA and OnlyB are the bytes of blobs that both sides have and that
	// one has, each blob counted once. OnlyB is the size of a delta from A to B.
	Shared, OnlyA, OnlyB int64
	// Complete tells that Shared and Manifests include what is equal, and that
	// OnlyA and OnlyB leave out what the other side has elsewhere.
	Complete bool
}

// Compare yields what differs from a to b. summary, which may be nil, is whole
// when the sequence has ended. An error ends the sequence: a manifest or layer
// that is damaged, or a source that fails. Manifests that a sparse index names
// and one side lacks are no error.
func Compare(ctx context.Context, a, b Side, opts *Options, summary *Summary) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		c := &comparer{a: a.Source, b: b.Source}
		if opts != nil {
			c.opts = *opts
		}
		c.opts.Level = cmp.Or(c.opts.Level, LevelFile)
		c.opts.Files.Ignore = c.opts.Ignore.Ignore
		c.sum.Changes = map[Level]int{}
		c.bytes = newLedger(c.opts.Level >= LevelManifest)
		if src := c.totalSource(); c.bytes.on && src != nil && c.opts.Select == nil {
			c.bytes.ahead = newAheadReader(ctx, src)
			defer c.bytes.ahead.stop()
		}
		c.out = explain.New(func(ch *Change) bool {
			c.sum.Changes[ch.Level]++
			return yield(*ch, nil)
		})
		err := c.run(ctx, a, b)
		if c.out.Ended() {
			return
		}
		if err == nil {
			err = c.total(ctx)
		}
		if summary != nil {
			*summary = c.sum
		}
		if err != nil {
			yield(Change{}, err)
		}
	}
}

var errEnded = errors.New("nobody listens")

// A comparer does one [Compare].
type comparer struct {
	a, b  layout.Source
	opts  Options
	out   *explain.Stack[*Change]
	sum   Summary
	bytes *ledger
	found bool // something that Select fits
}

// A place is where a change lies.
type place struct {
	ref, entry string
	depth      int // of indexes
}

func (c *comparer) change(level Level, kind Kind, at place, a, b *ocispec.Descriptor) *Change {
	return &Change{Level: level, Kind: kind, Ref: at.ref, Entry: at.entry, A: a, B: b}
}

// emit passes a change on; errEnded means that nobody wants more.
func (c *comparer) emit(ch *Change) error {
	c.out.Emit(ch)
	return c.ended()
}

func (c *comparer) ended() error {
	if c.out.Ended() {
		return errEnded
	}
	return nil
}

func (c *comparer) run(ctx context.Context, a, b Side) error {
	la, lb, err := c.roots(ctx, a, b)
	if err != nil {
		return err
	}
	if a.Roots == nil && b.Roots == nil && c.opts.Select == nil {
		fields, err := c.documentFields(la, lb)
		if err != nil {
			return err
		}
		if len(fields) > 0 {
			ch := c.change(LevelIndex, filediff.Changed, place{}, nil, nil)
			ch.Fields = fields
			if err := c.emit(ch); err != nil {
				return err
			}
		}
	}
	err = c.entries(ctx, la, lb, place{}, a.Roots == nil && b.Roots == nil)
	if err != nil || c.opts.Select == nil || c.found {
		return err
	}
	// A typing error in a selector must not look like equality.
	for _, side := range []struct {
		src  layout.Source
		list *list
	}{{c.a, la}, {c.b, lb}} {
		matches, err := layout.Select(ctx, side.src, side.list.descs, *c.opts.Select)
		if err != nil || len(matches) > 0 {
			return err
		}
	}
	return fmt.Errorf("%s and %s: %s: %w", c.a, c.b, c.opts.Select, layout.ErrNotFound)
}
