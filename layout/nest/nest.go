// Package nest changes how the entries of an index are spread over indexes
// below it: [Group] puts them into nested indexes, [Flatten] takes them out.
// Entries keep their unknown fields, and their order keeps its meaning.
//
// What they return was not written: an [Edit] has the new index and those that
// are below it.
package nest

import (
	"context"
	"fmt"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/merge"
)

// An Edit is an index and the new indexes below it, children first.
type Edit struct {
	Index *layout.Index
	Below []*layout.Index
	// Moved are the entries that are at another place now, and Dropped, those
	// that stood twice or were indexes and are no more.
	Moved, Dropped []ocispec.Descriptor
}

// A KeyFunc names entries that stand for the same thing; see [merge.Key].
type KeyFunc func(desc ocispec.Descriptor) string

// A Conflict is two entries that would have one key in one index. It is
// [layout.ErrConflict].
type Conflict struct {
	Key  string
	A, B ocispec.Descriptor
}

func (c *Conflict) Error() string {
	return fmt.Sprintf("%s: %s and %s have one key: %v", c.Key, c.A.Digest, c.B.Digest, layout.ErrConflict)
}

// Unwrap returns [layout.ErrConflict].
func (*Conflict) Unwrap() error { return layout.ErrConflict }

// Put adds desc to x. An entry with its digest and key gets desc's platform,
// artifact type and annotations, and keeps what else it says; an entry with its
// key and another digest is a [Conflict], unless replace is set: then it is
// returned and gone.
func Put(x *layout.Index, desc ocispec.Descriptor, key KeyFunc, replace bool) (replaced *ocispec.Descriptor, err error) {
	for i, old := range x.Entries() {
		if key(old) != key(desc) {
			continue
		}
		if old.Digest == desc.Digest {
			x.Set(i, update(old, desc))
			x.Sort()
			return nil, nil
		}
		if !replace {
			return nil, &Conflict{Key: key(desc), A: old, B: desc}
		}
		x.Remove(i)
		replaced = &old
		break
	}
	x.Add(desc)
	x.Sort()
	return replaced, nil
}

// update gives the entry old what desc says.
func update(old, desc ocispec.Descriptor) ocispec.Descriptor {
	if desc.Platform != nil {
		old.Platform = desc.Platform
	}
	if desc.ArtifactType != "" {
		old.ArtifactType = desc.ArtifactType
	}
	for k, v := range desc.Annotations {
		setAnnotation(&old, k, v)
	}
	return old
}

func setAnnotation(desc *ocispec.Descriptor, key, value string) {
	if desc.Annotations == nil {
		desc.Annotations = map[string]string{}
	}
	desc.Annotations[key] = value
}

// By tells into which nested index an entry belongs: that whose entry has the
// annotation name with this value. "" as value leaves it where it is.
type By func(desc ocispec.Descriptor) (name, value string)

// Group puts the entries of x that by knows into nested indexes, one for each
// value; a nested index of that value that x has already is added to. Entries
// that are indexes stay. Two entries with one key in one nested index are a
// [Conflict].
func Group(ctx context.Context, src layout.Source, x *layout.Index, by By, key KeyFunc) (*Edit, error) {
	out, err := layout.ParseIndex(x.Bytes())
	if err != nil {
		return nil, err
	}
	edit := &Edit{Index: out}
	entries := x.Entries()
	var order []group // in the order of entries, so that nothing depends on a map
	var gone []int
	for i, e := range entries {
		name, value := by(e)
		if value == "" || layout.IsIndex(e.MediaType) {
			continue
		}
		at := slices.IndexFunc(order, func(g group) bool { return g.name == name && g.value == value })
		if at < 0 {
			at = len(order)
			order = append(order, group{name: name, value: value})
		}
		order[at].numbers = append(order[at].numbers, i)
		gone = append(gone, i)
		edit.Moved = append(edit.Moved, e)
	}
	for _, g := range order {
		child, at, err := g.existing(ctx, src, entries)
		if err != nil {
			return nil, err
		}
		for _, i := range g.numbers {
			if err := addOnce(child, x, i, key); err != nil {
				return nil, err
			}
		}
		child.Sort()
		edit.Below = append(edit.Below, child)
		desc := child.Descriptor()
		if at >= 0 {
			old := entries[at]
			old.Digest, old.Size, old.Data = desc.Digest, desc.Size, nil
			out.Set(at, old)
			continue
		}
		desc.Annotations = map[string]string{g.name: g.value}
		out.Add(desc)
	}
	out.Remove(gone...)
	out.Sort()
	return edit, nil
}

type group struct {
	name, value string
	numbers     []int
}

// existing returns the nested index of the group and the number of its entry,
// or a new one and -1.
func (g group) existing(ctx context.Context, src layout.Source, entries []ocispec.Descriptor) (*layout.Index, int, error) {
	for i, e := range entries {
		if !layout.IsIndex(e.MediaType) || e.Annotations[g.name] != g.value {
			continue
		}
		doc, err := layout.ReadDocument(ctx, src, e)
		if err != nil {
			return nil, 0, err
		}
		x, err := layout.ParseIndex(doc.Raw)
		return x, i, err
	}
	return layout.NewIndex(), -1, nil
}

// addOnce adds entry i of from to x. One that x has word for word counts once.
func addOnce(x, from *layout.Index, i int, key KeyFunc) error {
	desc := from.Entries()[i]
	for at, old := range x.Entries() {
		if key(old) != key(desc) {
			continue
		}
		if old.Digest != desc.Digest {
			return &Conflict{Key: key(desc), A: old, B: desc}
		}
		for k, v := range desc.Annotations {
			if have, ok := old.Annotations[k]; ok && have != v {
				return fmt.Errorf("%s: annotation %s is %q and %q: %w", desc.Digest, k, have, v, layout.ErrConflict)
			}
		}
		x.Set(at, update(old, desc))
		return nil
	}
	x.AddFrom(from, i)
	return nil
}

// Key is [merge.Key], but for what named knows.
func Key(named func(desc ocispec.Descriptor) string) KeyFunc {
	return func(desc ocispec.Descriptor) string {
		if named != nil {
			if key := named(desc); key != "" {
				return key
			}
		}
		return merge.Key(desc)
	}
}
