package sync

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/sync/internal/registry"
)

// A document is a manifest or index of the plan.
type document struct {
	desc     ocispec.Descriptor
	present  bool                 // at the registry, and so all below it
	absent   bool                 // nowhere, which is allowed for a member of a sparse index
	read     *layout.Document     // of a missing one
	raw      []byte               // of one that we have made, or for which there was room; others are read again when sent
	origin   *ocispec.Descriptor  // of one that we have made: the source's
	children []*document          // of a missing one
	blobs    []ocispec.Descriptor // of a missing one
	made     bool                 // signatures that we have put together; read and blobs are set
	names    []string             // ref names of the source that lead to it
	height   int                  // above the lowest missing document
}

// A move is a tag that is to name a root, or to be deleted.
type move struct {
	Target
	root   *document          // nil for one that is to be deleted
	before ocispec.Descriptor // zero if there is no such tag
	raw    []byte             // what the tag shall name; of one that is to be deleted, what it names
	prune  bool
	merged bool
	state  TagState
	// touched is set before the registry is asked to move or delete it.
	touched bool
}

// A plan is what a push has to do.
type plan struct {
	moves    []*move
	untagged []*document
	levels   [][]*document // missing ones, children first
	blobs    []ocispec.Descriptor
	present  int // documents that were found at the registry
	// last is the root that goes to the registry with its tag, when all else is
	// there, and not by digest before; nil if there is none. See chooseLast.
	last *document
	// relist are referrers that are at the registry. Whoever sent them may have
	// been killed before they were in the list of their subject.
	relist []*document
}

// plan asks the registry for what it has. Nothing is written.
func (p *pusher) makePlan(ctx context.Context, targets []Target) (*plan, error) {
	pl := &plan{}
	byTag := map[string]bool{}
	var untagged []Target
	for _, t := range targets {
		switch {
		case t.Tag == "":
			untagged = append(untagged, t)
		case !byTag[t.Tag]:
			byTag[t.Tag] = true
			pl.moves = append(pl.moves, &move{Target: t, state: TagPending})
		}
	}
	if err := p.resolveTags(ctx, pl.moves); err != nil {
		return nil, err
	}
	var first, beside []*move // what is asked for beside may be in vain
	for _, m := range pl.moves {
		if p.compareChanges(m) {
			first = append(first, m)
		} else {
			beside = append(beside, m)
		}
	}
	foreign, err := p.compare(ctx, first)
	if err != nil {
		return nil, err
	}
	if len(foreign) > 0 {
		more, err := p.compare(ctx, beside)
		return nil, cmp.Or(err, p.refuse(append(foreign, more...)))
	}
	if err := p.planSignatures(ctx, pl, untagged); err != nil {
		return nil, err
	}
	w := &planner{p: p, plan: pl, documents: map[digest.Digest]*document{}}
	w.room.Store(keepUnsent)
	for _, m := range pl.moves {
		if m.state == TagUnchanged {
			w.documents[m.before.Digest] = &document{desc: m.before, present: true}
		}
	}
	var roots []*document
	for _, m := range pl.moves {
		if m.root == nil {
			m.root = &document{desc: m.Desc}
		}
		m.root = w.intern(m.root, &roots)
	}
	for _, t := range untagged {
		pl.untagged = append(pl.untagged, w.intern(&document{desc: t.Desc}, &roots))
	}
	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error {
		foreign, err := p.compare(inner, beside)
		return cmp.Or(err, p.refuse(foreign))
	})
	group.Go(func() error { return w.walk(inner, roots) })
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if err := w.relist(ctx); err != nil {
		return nil, err
	}
	if err := p.checkQuirks(w.missing); err != nil {
		return nil, err
	}
	if !p.policies.open {
		pl.name()
	}
	w.order()
	if p.opts.Prune {
		return pl, p.prune(ctx, pl)
	}
	return pl, nil
}

// chooseLast finds the one missing root that all tags name which are to move, if
// nothing that is sent names it. A tag takes it to the registry: whether the
// registry refuses it or moves the tag, it is all or nothing. A registry may look
// for everything that an index names, and need not do so twice.
func (pl *plan) chooseLast() {
	var root *document
	for _, m := range pl.moves {
		if m.prune || m.state == TagUnchanged {
			continue
		}
		if root != nil && m.root != root {
			return
		}
		root = m.root
	}
	if root != nil && root.read != nil && root.read.Subject == nil && root.height == len(pl.levels)-1 {
		pl.last = root
	}
}

// name tells all documents by which ref names of the source they are reached.
func (pl *plan) name() {
	for _, m := range pl.moves {
		if m.RefName == "" || m.state == TagUnchanged {
			continue
		}
		var down func(doc *document)
		down = func(doc *document) {
			if n := len(doc.names); n > 0 && doc.names[n-1] == m.RefName {
				return
			}
			doc.names = append(doc.names, m.RefName)
			for _, child := range doc.children {
				down(child)
			}
		}
		down(m.root)
	}
}

// prune plans the end of the tags that no target has.
func (p *pusher) prune(ctx context.Context, pl *plan) error {
	tags, err := p.client.Tags(ctx)
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, m := range pl.moves {
		keep[m.Tag] = true
	}
	var prunes []*move
	for _, tag := range tags {
		if !keep[tag] && !referrerTag.MatchString(tag) {
			keep[tag] = true
			prunes = append(prunes, &move{Target: Target{Tag: tag}, prune: true, state: TagPending})
		}
	}
	err = registry.Each(ctx, p.client.SmallJobs(), prunes, func(ctx context.Context, m *move) (err error) {
		if m.before, err = p.client.Resolve(ctx, m.Tag); err == nil {
			m.raw, err = p.client.Manifest(ctx, m.before)
		}
		if errors.Is(err, layout.ErrNotFound) {
			m.before, err = ocispec.Descriptor{}, nil // gone already
		}
		return err
	})
	prunes = slices.DeleteFunc(prunes, func(m *move) bool { return m.before.Digest == "" })
	slices.SortFunc(prunes, func(a, b *move) int { return cmp.Compare(a.Tag, b.Tag) })
	pl.moves = append(pl.moves, prunes...)
	return err
}

// resolveTags asks for every tag.
func (p *pusher) resolveTags(ctx context.Context, moves []*move) error {
	one := func(ctx context.Context, m *move) error {
		desc, err := p.client.Resolve(ctx, m.Tag)
		if errors.Is(err, layout.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		m.before = desc
		if desc.Digest == m.Desc.Digest {
			m.state = TagUnchanged
		}
		return nil
	}
	return ask(ctx, p.client, false, moves, one)
}

// ask calls fn, which asks the registry one question, for every item. Unless
// somebody has loggedIn, or need not, the first goes alone, so that its answer
// tells all others how to.
func ask[T any](ctx context.Context, client *registry.Client, loggedIn bool, items []T, fn func(context.Context, T) error) error {
	if len(items) > 0 && !loggedIn && !client.Anonymous() {
		if err := fn(ctx, items[0]); err != nil {
			return err
		}
		items = items[1:]
	}
	return registry.Each(ctx, client.Askers(len(items)), items, fn)
}
