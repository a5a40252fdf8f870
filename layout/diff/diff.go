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
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
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

// roots reads both sides at once: a large index.json takes a while.
func (c *comparer) roots(ctx context.Context, a, b Side) (la, lb *list, err error) {
	var errB error
	done := make(chan struct{})
	go func() {
		defer close(done)
		lb, errB = rootList(ctx, b)
	}()
	la, err = rootList(ctx, a)
	<-done
	if err == nil {
		err = errB
	}
	return la, lb, err
}

// entries compares two lists of entries. top tells that they are those of
// index.json, which have ref names.
func (c *comparer) entries(ctx context.Context, a, b *list, at place, top bool) error {
	if at.depth > layout.DefaultMaxDepth {
		return fmt.Errorf("%s: %w: indexes nested deeper than %d", at.entry, layout.ErrInvalid, layout.DefaultMaxDepth)
	}
	m := c.match(a, b, at, top)
	for i, desc := range a.descs {
		var err error
		if j := m.toB[i]; j >= 0 {
			err = c.entryPair(ctx, a, i, b, j, at, top)
		} else {
			err = c.oneSided(ctx, sideA, desc, at, top)
		}
		if err != nil {
			return err
		}
	}
	for j, desc := range b.descs {
		if m.toA[j] < 0 {
			if err := c.oneSided(ctx, sideB, desc, at, top); err != nil {
				return err
			}
		}
	}
	if m.reordered() && !c.opts.Ignore.Order && c.opts.Select == nil {
		return c.emit(c.change(LevelIndex, filediff.Reordered, at, nil, nil))
	}
	return nil
}

// below is the place of an entry at another place.
func (c *comparer) below(at place, desc ocispec.Descriptor, top bool) place {
	at.depth++
	if top {
		at.ref = layout.RefName(desc)
	}
	at.entry = c.name(desc)
	return at
}

// name is what an entry is called.
func (c *comparer) name(desc ocispec.Descriptor) string {
	name := ""
	if c.opts.Name != nil {
		name = c.opts.Name(desc)
	}
	platform := ""
	if desc.Platform != nil && desc.Platform.OS != "" {
		platform = layout.FormatPlatform(*desc.Platform)
	}
	short := string(desc.Digest)
	if len(short) > 19 {
		short = short[:19]
	}
	return cmp.Or(name, layout.RefName(desc), platform, desc.ArtifactType, short)
}

// oneSided reports an entry that only one side has.
func (c *comparer) oneSided(ctx context.Context, on side, desc ocispec.Descriptor, at place, top bool) error {
	at = c.below(at, desc, top)
	kind := filediff.Added
	if on == sideA {
		kind = filediff.Removed
	}
	src := c.source(on)
	if c.opts.Select != nil && documentType(desc) {
		matches, err := layout.Select(ctx, src, []ocispec.Descriptor{desc}, *c.opts.Select)
		if err != nil && !errors.Is(err, layout.ErrNotFound) {
			return err
		}
		if len(matches) == 0 {
			return nil
		}
	}
	c.found = true
	level := LevelIndex
	if top && at.ref != "" {
		level = LevelRefs
	}
	if level > c.opts.Level {
		return nil
	}
	ch := c.change(level, kind, at, nil, nil)
	if on == sideA {
		ch.A = &desc
	} else {
		ch.B = &desc
	}
	var err error
	if ch.Bytes, err = c.bytes.tree(ctx, c, on, desc); err != nil {
		return err
	}
	return c.emit(ch)
}

func (c *comparer) source(on side) layout.Source {
	if on == sideA {
		return c.a
	}
	return c.b
}

// entryPair compares two entries that were matched.
func (c *comparer) entryPair(ctx context.Context, la *list, i int, lb *list, j int, at place, top bool) error {
	if la.descs[i].Digest == lb.descs[j].Digest && bytes.Equal(la.item(i), lb.item(j)) {
		c.bytes.equal(&la.descs[i])
		return nil
	}
	a, b := la.descs[i], lb.descs[j]
	at = c.below(at, a, top)
	fields, err := c.descriptorFields(la.item(i), lb.item(j))
	if err != nil {
		return err
	}
	ch := c.change(LevelIndex, filediff.Changed, at, &a, &b)
	if top {
		refA, refB := layout.RefName(a), layout.RefName(b)
		switch {
		case refA != refB:
			ch.Level, ch.Kind = LevelRefs, filediff.Renamed
			fields = append(fields, Field{Name: refField, A: text(refA), B: text(refB)})
		case refA != "" && a.Digest != b.Digest:
			ch.Level, ch.Kind = LevelRefs, filediff.Moved
		}
	}
	fields = slices.DeleteFunc(fields, func(f Field) bool { return f.Name == "/annotations/"+escapePointer(ocispec.AnnotationRefName) })
	ch.Fields = fields
	if a.Digest == b.Digest {
		c.bytes.equal(&a)
		if len(fields) == 0 || ch.Level > c.opts.Level {
			return nil
		}
		if c.opts.Select != nil {
			fits, err := c.fits(ctx, a, b)
			if err != nil || !fits {
				return err
			}
			c.found = true
		}
		return c.emit(ch)
	}
	if c.opts.Level < LevelIndex && ch.Level > c.opts.Level {
		return nil
	}
	if c.opts.Select != nil && (!layout.IsIndex(a.MediaType) || !layout.IsIndex(b.MediaType)) {
		fits, err := c.fits(ctx, a, b)
		if err != nil || !fits {
			return err
		}
		c.found = true
	}
	c.out.Push(ch)
	defer c.out.Pop()
	switch {
	case len(fields) > 0 && (c.opts.Select == nil || !layout.IsIndex(a.MediaType)):
		c.out.Say()
	case c.opts.Level == LevelRefs, c.opts.Level == LevelIndex && !(layout.IsIndex(a.MediaType) && layout.IsIndex(b.MediaType)):
		c.out.Say() // no deeper look can explain it away
	}
	if err := c.ended(); err != nil || c.opts.Level == LevelRefs {
		return err
	}
	return c.contents(ctx, a, b, at)
}

// fits tells whether Select fits one of two entries.
func (c *comparer) fits(ctx context.Context, a, b ocispec.Descriptor) (bool, error) {
	for _, side := range []struct {
		src  layout.Source
		desc ocispec.Descriptor
	}{{c.a, a}, {c.b, b}} {
		if !documentType(side.desc) {
			continue
		}
		matches, err := layout.Select(ctx, side.src, []ocispec.Descriptor{side.desc}, *c.opts.Select)
		if err != nil && !errors.Is(err, layout.ErrNotFound) {
			return false, err
		}
		if len(matches) > 0 {
			return true, nil
		}
	}
	return false, nil
}

func documentType(desc ocispec.Descriptor) bool {
	return layout.IsIndex(desc.MediaType) || layout.IsManifest(desc.MediaType)
}

// contents compares what two entries name.
func (c *comparer) contents(ctx context.Context, a, b ocispec.Descriptor, at place) error {
	switch {
	case layout.IsIndex(a.MediaType) && layout.IsIndex(b.MediaType):
		return c.indexes(ctx, a, b, at)
	case layout.IsManifest(a.MediaType) && layout.IsManifest(b.MediaType):
		return c.manifests(ctx, a, b, at)
	}
	if documentType(a) || documentType(b) {
		c.out.Say() // an index here, something else there: that is the difference
		_, errA := c.bytes.tree(ctx, c, sideA, a)
		_, errB := c.bytes.tree(ctx, c, sideB, b)
		return errors.Join(errA, errB, c.ended())
	}
	c.bytes.add(sideA, a)
	c.bytes.add(sideB, b)
	if c.opts.Level < LevelLayer {
		c.out.Say()
		return c.ended()
	}
	return c.layer(ctx, layerPair{a: a, b: b, at: at})
}

// documents reads both sides of a pair. false means that one lacks it, which
// was reported.
func (c *comparer) documents(ctx context.Context, a, b ocispec.Descriptor) (da, db *layout.Document, ok bool, err error) {
	c.bytes.add(sideA, a)
	c.bytes.add(sideB, b)
	da, errA := layout.ReadDocument(ctx, c.a, a)
	db, errB := layout.ReadDocument(ctx, c.b, b)
	absentA, absentB := errors.Is(errA, layout.ErrNotFound), errors.Is(errB, layout.ErrNotFound)
	if absentA || absentB {
		// The index is sparse: that the digests differ is all that can be told.
		c.bytes.incomplete()
		c.out.Say()
		return nil, nil, false, c.ended()
	}
	return da, db, errA == nil && errB == nil, errors.Join(errA, errB)
}

func (c *comparer) indexes(ctx context.Context, a, b ocispec.Descriptor, at place) error {
	da, db, ok, err := c.documents(ctx, a, b)
	if !ok {
		return err
	}
	la, lb := documentList(da), documentList(db)
	if c.opts.Select == nil {
		fields, err := c.documentFields(la, lb)
		if err != nil {
			return err
		}
		if len(fields) > 0 {
			ch := c.change(LevelIndex, filediff.Changed, at, &a, &b)
			ch.Fields = fields
			if err := c.emit(ch); err != nil {
				return err
			}
		}
	}
	return c.entries(ctx, la, lb, at, false)
}

// digestOf is d as a field has it.
func digestOf(d digest.Digest) *string { s := string(d); return &s }
