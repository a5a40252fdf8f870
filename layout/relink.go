package layout

import (
	"cmp"
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Relink puts desc in the place of the digest old, in every index that
// index.json reaches, at any depth, and in index.json itself. Entries keep
// their platform, annotations and unknown fields. It returns the documents
// that changed because of it, children first.
func (tx *Tx) Relink(ctx context.Context, old digest.Digest, desc ocispec.Descriptor) ([]Change, error) {
	e := tx.newEditor(nil)
	e.links = true
	e.replace = map[digest.Digest]outcome{old: {desc: desc, changed: true, retype: true, data: desc.Data}}
	edit, err := e.run(ctx)
	if err != nil {
		return nil, err
	}
	return edit.Changes, nil
}

// A Removal is an entry that [Tx.RemoveEntries] took out.
type Removal struct {
	Entry ocispec.Descriptor
	Into  string // ref name, else digest, of the index below index.json that held it; "" for index.json
}

// RemoveEntries takes the entries with the digests gone out of index.json and
// of the indexes below it: of its entries with these numbers, and of all that
// they reach. Indexes that lose something are written anew, and so are those
// above them. Nothing found is no error.
func (tx *Tx) RemoveEntries(ctx context.Context, numbers []int, gone map[digest.Digest]bool) ([]Removal, error) {
	r := remover{tx: tx, gone: gone, done: map[digest.Digest]outcome{}}
	entries := tx.index.Entries()
	var remove []int
	for _, i := range numbers {
		if gone[entries[i].Digest] {
			r.removals = append(r.removals, Removal{Entry: entries[i]})
			remove = append(remove, i)
			continue
		}
		to, err := r.rewrite(ctx, entries[i], RefName(entries[i]), 1)
		if err != nil {
			return nil, err
		}
		if to.Digest != entries[i].Digest {
			tx.index.Set(i, to)
		}
	}
	tx.index.Remove(remove...)
	tx.index.Sort()
	return r.removals, nil
}

type remover struct {
	tx       *Tx
	gone     map[digest.Digest]bool
	done     map[digest.Digest]outcome // indexes that were seen, and what they became
	removals []Removal
}

// rewrite returns desc as it is without the digests: the same if it had none.
func (r *remover) rewrite(ctx context.Context, desc ocispec.Descriptor, into string, depth int) (ocispec.Descriptor, error) {
	if !IsIndex(desc.MediaType) {
		return desc, nil
	}
	if depth > DefaultMaxDepth {
		return desc, fmt.Errorf("%s: %w: nested more than %d deep", desc.Digest, ErrInvalid, DefaultMaxDepth)
	}
	to, ok := r.done[desc.Digest]
	if !ok {
		var err error
		if to, err = r.edit(ctx, desc, into, depth); err != nil {
			return desc, err
		}
		r.done[desc.Digest] = to
	}
	return to.at(desc), nil
}

func (r *remover) edit(ctx context.Context, desc ocispec.Descriptor, into string, depth int) (to outcome, err error) {
	doc, err := ReadDocument(ctx, r.tx.Source(), desc)
	if err != nil {
		return to, err
	}
	x, err := ParseIndex(doc.Raw)
	if err != nil {
		return to, err
	}
	var remove []int
	changed := false
	for i, entry := range x.Entries() {
		if r.gone[entry.Digest] {
			r.removals = append(r.removals, Removal{Entry: entry, Into: cmp.Or(into, string(desc.Digest))})
			remove = append(remove, i)
			continue
		}
		now, err := r.rewrite(ctx, entry, into, depth+1)
		if err != nil {
			return to, err
		}
		if now.Digest != entry.Digest {
			x.Set(i, now)
			changed = true
		}
	}
	if !changed && len(remove) == 0 {
		return to, nil
	}
	x.Remove(remove...)
	to = outcome{changed: true, data: x.Bytes()}
	to.desc, err = r.tx.putIndex(x)
	return to, err
}

// putIndex makes x part of the edit.
func (tx *Tx) putIndex(x *Index) (ocispec.Descriptor, error) {
	desc, err := tx.PutDocument(x.Bytes(), x.MediaType())
	desc.ArtifactType = x.ArtifactType()
	return desc, err
}
