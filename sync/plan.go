package sync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

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
	if err := p.compare(ctx, pl.moves); err != nil {
		return nil, err
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
	if err := w.walk(ctx, roots); err != nil {
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

// relist finds roots without a tag that are there and refer to something.
func (w *planner) relist(ctx context.Context) error {
	for _, doc := range w.plan.untagged {
		if !doc.present {
			continue
		}
		read, err := layout.ReadDocument(ctx, w.p.src, doc.desc)
		if err != nil {
			return fmt.Errorf("%s: %w", w.p.src, err)
		}
		if read.Subject != nil {
			read.Raw = nil
			w.plan.relist = append(w.plan.relist, &document{desc: doc.desc, present: true, read: read})
		}
	}
	return nil
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
	err = each(ctx, p.client.SmallJobs(), prunes, func(ctx context.Context, m *move) (err error) {
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
	return each(ctx, client.Askers(len(items)), items, fn)
}

// each calls fn for every item, at most jobs at once, and returns the first
// error. One goroutine goes from item to item: a request needs a large stack,
// which each new one would have to grow.
func each[T any](ctx context.Context, jobs int, items []T, fn func(context.Context, T) error) error {
	group, inner := errgroup.WithContext(ctx)
	var taken atomic.Int64
	for range min(jobs, len(items)) {
		group.Go(func() error {
			for inner.Err() == nil {
				i := taken.Add(1)
				if i > int64(len(items)) {
					break
				}
				if err := fn(inner, items[i-1]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// A planner finds the missing documents, from the roots down.
type planner struct {
	p         *pusher
	plan      *plan
	documents map[digest.Digest]*document
	missing   []*document
	room      atomic.Int64 // bytes of documents that may still be kept until they are sent
}

// keepUnsent bounds the bytes of documents that are kept from when they are read
// until they are sent.
const keepUnsent = 4 << 20 // 4 MiB

// intern returns the document of that digest and appends a new one to list.
func (w *planner) intern(doc *document, list *[]*document) *document {
	if have, ok := w.documents[doc.desc.Digest]; ok {
		return have
	}
	w.documents[doc.desc.Digest] = doc
	*list = append(*list, doc)
	return doc
}

func (w *planner) walk(ctx context.Context, level []*document) error {
	for depth := 0; len(level) > 0; depth++ {
		if depth == layout.DefaultMaxDepth {
			return fmt.Errorf("%s: %w: %s is nested more than %d deep", w.p.src, layout.ErrInvalid, level[0].desc.Digest, layout.DefaultMaxDepth)
		}
		if len(w.documents) > layout.DefaultMaxDocuments {
			return fmt.Errorf("%s: %w: more than %d manifests", w.p.src, layout.ErrInvalid, layout.DefaultMaxDocuments)
		}
		if err := w.ask(ctx, level, w.p.opts.Sparse && depth > 0); err != nil {
			return err
		}
		var next []*document
		for _, doc := range level {
			if doc.present {
				w.plan.present++
				continue
			}
			if doc.absent {
				continue
			}
			w.missing = append(w.missing, doc)
			for i, child := range doc.children {
				doc.children[i] = w.intern(child, &next)
			}
		}
		level = next
	}
	return nil
}

// ask finds out which documents of a level are there and reads the others;
// those that the source lacks too are absent, if that is allowed.
func (w *planner) ask(ctx context.Context, level []*document, sparse bool) error {
	one := func(ctx context.Context, doc *document) (err error) {
		if doc.present, err = w.p.client.Exists(ctx, doc.desc.Digest); err != nil || doc.present {
			return err
		}
		if sparse {
			if _, err := w.p.src.Stat(ctx, doc.desc.Digest); errors.Is(err, layout.ErrNotFound) {
				doc.absent = true
				return nil
			}
		}
		return w.expand(ctx, doc)
	}
	return ask(ctx, w.p.client, len(w.plan.moves) > 0, level, one)
}

// expand reads a missing document and notes what it names.
func (w *planner) expand(ctx context.Context, doc *document) error {
	if doc.made {
		return nil
	}
	if doc.origin != nil {
		return w.expandMerged(ctx, doc)
	}
	done, err := w.p.hold(ctx, doc.desc.Size)
	if err != nil {
		return err
	}
	defer done()
	read, err := layout.ReadDocument(ctx, w.p.src, doc.desc)
	if err != nil {
		return fmt.Errorf("%s: %w", w.p.src, err)
	}
	doc.read = read
	if read.Config != nil {
		doc.blobs = append(doc.blobs, *read.Config)
	}
	doc.blobs = append(doc.blobs, read.Layers...)
	doc.addEntries(read.Manifests)
	if s := read.Subject; s != nil && isDocument(*s) {
		// A subject may be missing (manifest.md, "subject"): then the registry
		// may have it, or nobody.
		if _, err := w.p.src.Stat(ctx, s.Digest); err == nil {
			doc.children = append(doc.children, &document{desc: *s})
		} else if !errors.Is(err, layout.ErrNotFound) {
			return err
		}
	}
	if w.room.Add(-int64(len(read.Raw))) >= 0 {
		doc.raw = read.Raw
	}
	read.Raw = nil
	return nil
}

// expandMerged notes which entries of a merged index come from the source; the
// registry has the others.
func (w *planner) expandMerged(ctx context.Context, doc *document) (err error) {
	if doc.read, err = layout.ParseDocument(doc.desc, doc.raw); err != nil {
		return err
	}
	if !layout.IsIndex(doc.origin.MediaType) {
		doc.addEntries([]ocispec.Descriptor{*doc.origin})
		return nil
	}
	ours, err := layout.ReadDocument(ctx, w.p.src, *doc.origin)
	if err != nil {
		return fmt.Errorf("%s: %w", w.p.src, err)
	}
	doc.addEntries(ours.Manifests)
	return nil
}

func (doc *document) addEntries(entries []ocispec.Descriptor) {
	for _, e := range entries {
		if isDocument(e) {
			doc.children = append(doc.children, &document{desc: e})
		} else {
			doc.blobs = append(doc.blobs, e)
		}
	}
}

func isDocument(desc ocispec.Descriptor) bool {
	return layout.IsIndex(desc.MediaType) || layout.IsManifest(desc.MediaType)
}

// order sorts what is missing into the order in which it is sent.
func (w *planner) order() {
	var height func(doc *document) int
	done := map[*document]bool{}
	height = func(doc *document) int {
		if done[doc] {
			return doc.height
		}
		done[doc] = true
		for _, child := range doc.children {
			if !child.present && !child.absent {
				doc.height = max(doc.height, height(child)+1)
			}
		}
		return doc.height
	}
	blobs := map[digest.Digest]ocispec.Descriptor{}
	for _, doc := range w.missing {
		h := height(doc)
		for len(w.plan.levels) <= h {
			w.plan.levels = append(w.plan.levels, nil)
		}
		w.plan.levels[h] = append(w.plan.levels[h], doc)
		for _, b := range doc.blobs {
			if have, ok := blobs[b.Digest]; !ok || have.Data == nil && b.Data != nil || len(have.URLs) > 0 && len(b.URLs) == 0 {
				blobs[b.Digest] = b
			}
		}
	}
	for _, level := range w.plan.levels {
		slices.SortFunc(level, func(a, b *document) int { return cmp.Compare(a.desc.Digest, b.desc.Digest) })
	}
	for _, b := range blobs {
		w.plan.blobs = append(w.plan.blobs, b)
	}
	// Large ones first: nobody should wait at the end for one that began last.
	slices.SortFunc(w.plan.blobs, func(a, b ocispec.Descriptor) int {
		return cmp.Or(cmp.Compare(b.Size, a.Size), cmp.Compare(a.Digest, b.Digest))
	})
}
