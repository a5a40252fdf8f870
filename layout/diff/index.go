package diff

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/diff/filediff"
)

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
