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

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/sync/internal/registry"
)

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
	if s := read.Subject; s != nil && registry.IsDocument(*s) {
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
		if registry.IsDocument(e) {
			doc.children = append(doc.children, &document{desc: e})
		} else {
			doc.blobs = append(doc.blobs, e)
		}
	}
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
