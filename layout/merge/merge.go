// Package merge makes one index of several: those of other layouts, tarballs or
// repositories are merged into that of a layout.
//
// # Rules
//
// Entries are told apart by keys: in index.json by their ref name, else by
// their digest ([RootKey]); in the indexes below it as [Key] says. Against a
// base, what one side changed is taken, what sides changed alike is taken, and
// what they changed differently is a conflict; so is what one deleted and
// another changed. Without a base, the base is empty: whatever any side has is
// taken, and the same key with different content is a conflict. If all the
// contents are indexes, they are merged by the same rules instead, at any depth.
//
// Members of indexes and of entries, annotations too, are merged one by one by
// the same rules.
//
// # Same input, same bytes
//
// The order of the sources makes no difference: two that differ are a conflict,
// whichever comes first. An index that was merged is written in the canonical
// form (docs/format.md), unless one side has it already, with all its entries:
// then the bytes and the digest of that side stay.
package merge

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// A Policy says which side wins where sides conflict.
type Policy int

// The policies. Under Theirs, sources that conflict among themselves are still
// an error; under Ours, so are sources that conflict where we have nothing.
const (
	Refuse Policy = iota // it is an error
	Ours
	Theirs
)

// Options changes how [Merge] merges. Nil is the zero value.
type Options struct {
	OnConflict Policy
	// Key names entries that are known better than by [Key]; "" leaves the name
	// to Key.
	Key func(desc ocispec.Descriptor) string
}

// A Side is one of the indexes that are merged.
type Side struct {
	Name  string        // in messages
	Index *layout.Index // index.json; only read
	// Read returns the indexes below it.
	Read func(ctx context.Context, desc ocispec.Descriptor) (*layout.Document, error)
	// Scope tells whether the side speaks of an entry of index.json. What it
	// does not speak of, it did not change; and it does not speak of the members
	// of index.json. Nil means that it speaks of everything.
	Scope func(desc ocispec.Descriptor) bool
}

// A Result is what a merge comes to. Nothing was written.
type Result struct {
	// Index is the new index.json; nil if it stays as it is.
	Index *layout.Index
	// Documents are the new indexes below it, children first.
	Documents []*layout.Document
	// Needed is, for each source, what has to be copied from it, with all that
	// it names.
	Needed [][]ocispec.Descriptor
	// Changes tells how the new state differs from ours.
	Changes []Change
	// Moved tells of indexes that were merged what became of them.
	Moved map[digest.Digest]ocispec.Descriptor
	// Stale are referrers of the indexes in Moved; only [Into] looks for them.
	Stale []Stale
}

// A Change is a difference between the new state and ours.
type Change struct {
	Action string             // added, removed, replaced, merged (an index), annotated (its members or annotations)
	Path   []string           // ref name and keys of the indexes that it is in; none for index.json
	Key    string             // of the entry; "" for the index itself
	Old    ocispec.Descriptor // as it was; zero if added
	New    ocispec.Descriptor // as it is now; zero if removed
	From   string             // name of the source that the content is from; "" if of none or several
}

// Merge merges theirs into ours. Without base it is a union. Conflicts, all of
// them, are a [ConflictError].
func Merge(ctx context.Context, base *Side, ours Side, theirs []Side, opts *Options) (*Result, error) {
	m := merger{ctx: ctx, sides: append([]Side{ours}, theirs...), nodes: map[digest.Digest]*node{}}
	m.result = &Result{Needed: make([][]ocispec.Descriptor, len(theirs)), Moved: map[digest.Digest]ocispec.Descriptor{}}
	if opts != nil {
		m.opts = *opts
	}
	var err error
	root := emptyNode()
	if base != nil {
		m.base = *base
		if root, err = parseNode(base.Index, RootKey); err != nil {
			return nil, fmt.Errorf("%s: %w", base.Name, err)
		}
	}
	nodes := make([]*node, len(m.sides))
	for i, side := range m.sides {
		n, err := parseNode(side.Index, RootKey)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", side.Name, err)
		}
		nodes[i] = side.limit(n, root)
	}
	merged, err := m.node(nil, root, nodes)
	if err != nil {
		return nil, err
	}
	if len(m.conflicts) > 0 {
		return nil, &ConflictError{Into: ours.Name, Conflicts: m.conflicts}
	}
	if merged.says() != nodes[0].says() {
		if m.result.Index, err = merged.index(); err != nil {
			return nil, fmt.Errorf("%s: index.json: %w", ours.Name, err)
		}
	}
	return m.result, nil
}

// limit gives n the state of base in all of which the side does not speak.
func (s Side) limit(n, base *node) *node {
	if s.Scope == nil {
		return n
	}
	limited := &node{members: base.members, annotations: base.annotations, groups: map[string]group{}}
	take := func(from *node, inScope bool) {
		for key, g := range from.groups {
			if s.Scope(g[0].desc) == inScope {
				limited.groups[key] = g
			}
		}
	}
	take(base, false)
	take(n, true)
	return limited
}
