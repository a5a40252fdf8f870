package merge

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

type merger struct {
	ctx       context.Context //nolint:containedctx // lives as long as Merge
	opts      Options
	sides     []Side // ours, then the sources
	base      Side
	nodes     map[digest.Digest]*node // of indexes, once read
	result    *Result
	conflicts []Conflict
}

func (m *merger) key(desc ocispec.Descriptor) string {
	if m.opts.Key != nil {
		if key := m.opts.Key(desc); key != "" {
			return key
		}
	}
	return Key(desc)
}

// choose decides between the states that sides give one thing; "" is absent.
// It returns the side to be taken, or -1 for the base; false is a conflict.
func choose(base string, prints []string, policy Policy) (from int, ok bool) {
	differ := func(from int) []int { // the sides that changed it, one for each state
		var changed []int
		for i := from; i < len(prints); i++ {
			if prints[i] != base && !slices.ContainsFunc(changed, func(j int) bool { return prints[j] == prints[i] }) {
				changed = append(changed, i)
			}
		}
		return changed
	}
	all, theirs := differ(0), differ(1)
	switch {
	case len(all) == 0:
		return -1, true
	case len(all) == 1:
		return all[0], true
	case policy == Ours && prints[0] != base:
		return 0, true
	case policy == Theirs && len(theirs) == 1:
		return theirs[0], true
	}
	return 0, false
}

// node merges what stands in one index.
func (m *merger) node(path []string, base *node, sides []*node) (*node, error) {
	if len(path) >= layout.DefaultMaxDepth {
		return nil, fmt.Errorf("%w index: nested more than %d deep", layout.ErrInvalid, layout.DefaultMaxDepth)
	}
	if m.ctx.Err() != nil {
		return nil, context.Cause(m.ctx)
	}
	merged := &node{
		members:     m.values(conflictAt{path: path}, base.members, eachNode(sides, func(n *node) map[string]value { return n.members })),
		annotations: m.values(conflictAt{path: path, what: "annotation"}, base.annotations, eachNode(sides, func(n *node) map[string]value { return n.annotations })),
		groups:      map[string]group{},
	}
	keys := map[string]bool{}
	for _, n := range append([]*node{base}, sides...) {
		for key := range n.groups {
			keys[key] = true
		}
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		groups := make([]group, len(sides))
		for i, n := range sides {
			groups[i] = n.groups[key]
		}
		g, err := m.group(path, key, base.groups[key], groups)
		if err != nil {
			return nil, err
		}
		if len(g) > 0 {
			merged.groups[key] = g
		}
	}
	if merged.head() != sides[0].head() {
		m.result.Changes = append(m.result.Changes, Change{Action: "annotated", Path: path})
	}
	return merged, nil
}

func eachNode(sides []*node, of func(n *node) map[string]value) []map[string]value {
	all := make([]map[string]value, len(sides))
	for i, n := range sides {
		all[i] = of(n)
	}
	return all
}

// values merges members or annotations.
func (m *merger) values(at conflictAt, base map[string]value, sides []map[string]value) map[string]value {
	names := map[string]bool{}
	for _, values := range append([]map[string]value{base}, sides...) {
		for name := range values {
			names[name] = true
		}
	}
	merged := map[string]value{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		prints := make([]string, len(sides))
		for i := range sides {
			prints[i] = sides[i][name].norm
		}
		from, ok := choose(base[name].norm, prints, m.opts.OnConflict)
		if !ok {
			m.conflict(at.member(name), base[name].norm, prints)
			continue
		}
		norm := base[name].norm
		if from >= 0 {
			norm = prints[from]
		}
		if norm == "" {
			continue
		}
		// Of several spellings the first by its bytes: no side's place counts.
		v := value{norm: norm}
		for _, values := range sides {
			if have := values[name]; have.norm == norm && (v.text == "" || have.text < v.text) {
				v.text = have.text
			}
		}
		merged[name] = v
	}
	return merged
}

// put makes n one of the new documents.
func (m *merger) put(path []string, n *node) (ocispec.Descriptor, error) {
	x, err := n.index()
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("merge %s: %w", pathText(path), err)
	}
	desc := x.Descriptor()
	doc, err := layout.ParseDocument(desc, x.Bytes())
	if err != nil {
		return desc, fmt.Errorf("merge %s: %w", pathText(path), err)
	}
	m.result.Documents = append(m.result.Documents, doc)
	return desc, nil
}

// read returns the index desc of a side.
func (m *merger) read(side Side, desc ocispec.Descriptor) (*node, error) {
	if n := m.nodes[desc.Digest]; n != nil {
		return n, nil
	}
	doc, err := side.Read(m.ctx, desc)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cmp.Or(side.Name, "base"), err)
	}
	x, err := layout.ParseIndex(doc.Raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", side.Name, desc.Digest, err)
	}
	n, err := parseNode(x, m.key)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", side.Name, desc.Digest, err)
	}
	m.nodes[desc.Digest] = n
	return n, nil
}
