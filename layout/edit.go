package layout

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// EditOptions changes what an edit deep inside a layout does with what refers
// to the documents that it replaces. Nil is the zero value.
type EditOptions struct {
	// MoveReferrers puts copies, which refer to the new documents, in the place
	// of referrers; ref names sha256-HEX.sig and their like get the new digest.
	// Without it referrers stay as they are, and [Edit.Stale] lists them. A
	// signature over an old document says nothing of the new one in any case.
	MoveReferrers bool
	// Entry, if not nil, may edit the entries of indexes below index.json that
	// name an edited manifest, m, after they were re-linked.
	Entry func(entry *ocispec.Descriptor, m *Manifest)
}

// An Edit tells what an edit deep inside a layout has changed.
type Edit struct {
	Changes []Change   // every document that another one now stands for, children first
	Stale   []Referrer // what still refers to a document that was replaced
	Moved   []Referrer // copies of referrers, and what they refer to now
}

// EditManifest lets fn edit the manifest d, wherever index.json or an index
// below it names it, and re-links all that lead to it: every index at any
// depth, and every ref name. Entries keep their platform, annotations and
// unknown fields, indexes their order; index.json is left sorted. If fn changes
// nothing, nothing changes. A manifest that index.json does not reach is
// [ErrNotFound].
func (tx *Tx) EditManifest(ctx context.Context, d digest.Digest, opts *EditOptions, fn func(m *Manifest) error) (*Edit, error) {
	e := tx.newEditor(opts)
	e.manifests = map[digest.Digest]func(*Manifest) error{d: fn}
	return e.run(ctx)
}

// EditIndexes is [Tx.EditManifest] for indexes below index.json: fn is called
// once for each of them.
func (tx *Tx) EditIndexes(ctx context.Context, digests []digest.Digest, opts *EditOptions, fn func(x *Index) error) (*Edit, error) {
	e := tx.newEditor(opts)
	e.indexes = map[digest.Digest]func(*Index) error{}
	for _, d := range digests {
		e.indexes[d] = fn
	}
	return e.run(ctx)
}

// EditEntries lets fn edit those entries with the digest d that stand in
// index.json under these numbers, or in the indexes that these reach, and
// re-links what leads to them. The indexes that lead there from elsewhere
// change too, for they are the same. None is [ErrNotFound].
func (tx *Tx) EditEntries(ctx context.Context, numbers []int, d digest.Digest, opts *EditOptions, fn func(entry *ocispec.Descriptor) error) (*Edit, error) {
	entries := tx.index.Entries()
	var roots []ocispec.Descriptor
	found, sort := false, false
	for _, i := range numbers {
		roots = append(roots, entries[i])
		if entries[i].Digest != d {
			continue
		}
		found = true
		changed, err := tx.index.editEntry(i, fn)
		if err != nil {
			return nil, err
		}
		sort = sort || changed
	}
	var holders []digest.Digest
	for n, err := range Walk(ctx, tx.Source(), roots, &WalkOptions{DocumentsOnly: true, indexesOnly: true}) {
		if err != nil {
			return nil, err
		}
		if n.Document == nil {
			continue
		}
		for _, m := range n.Document.Manifests {
			if m.Digest == d {
				holders = append(holders, n.Desc.Digest)
				break
			}
		}
	}
	if len(holders) == 0 && !found {
		return nil, fmt.Errorf("%s: no entry has the digest %s: %w", tx.stage, d, ErrNotFound)
	}
	edit, err := tx.EditIndexes(ctx, holders, opts, func(x *Index) error {
		for i, e := range x.entries {
			if e.desc.Digest != d {
				continue
			}
			if _, err := x.editEntry(i, fn); err != nil {
				return err
			}
		}
		return nil
	})
	if sort {
		tx.index.Sort()
	}
	return edit, err
}

// editEntry lets fn edit entry i and tells whether it did.
func (x *Index) editEntry(i int, fn func(entry *ocispec.Descriptor) error) (changed bool, err error) {
	desc := cloneDescriptor(x.entries[i].desc)
	if err := fn(&desc); err != nil {
		return false, err
	}
	changed = x.entries[i].set(desc)
	x.changed = x.changed || changed
	return changed, nil
}
