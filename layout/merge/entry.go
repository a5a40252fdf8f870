package merge

import (
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/internal/strictjson"
)

// group merges the entries with one key, and notes what changes.
func (m *merger) group(path []string, key string, base group, sides []group) (group, error) {
	changes := len(m.result.Changes)
	merged, err := m.mergeGroup(path, key, base, sides)
	if err != nil {
		return nil, err
	}
	if merged.says() == sides[0].says() {
		m.result.Changes = m.result.Changes[:changes]
		return sides[0], nil
	}
	for i := range max(len(merged), len(sides[0])) {
		c := Change{Path: path, Key: key}
		if i < len(merged) {
			c.New = merged[i].desc
			c.From = m.from(merged[i], i, sides)
		}
		if i < len(sides[0]) {
			c.Old = sides[0][i].desc
		}
		switch {
		case c.Old.Digest == "":
			c.Action = "added"
			m.result.Changes = m.result.Changes[:changes] // what is in it is new as well
		case c.New.Digest == "":
			c.Action = "removed"
		case c.Old.Digest == c.New.Digest:
			c.Action = "annotated"
		case len(m.result.Changes) > changes:
			c.Action = "merged"
		default:
			c.Action = "replaced"
		}
		m.result.Changes = append(m.result.Changes, c)
		changes = len(m.result.Changes)
	}
	return merged, nil
}

// from returns the name of the one source that has the content of e.
func (m *merger) from(e entry, i int, sides []group) string {
	name := ""
	for k, g := range sides[1:] {
		if i < len(g) && g[i].content() == e.content() {
			if name != "" {
				return ""
			}
			name = m.sides[k+1].Name
		}
	}
	return name
}

func (m *merger) mergeGroup(path []string, key string, base group, sides []group) (group, error) {
	prints := make([]string, len(sides))
	for i, g := range sides {
		prints[i] = g.says()
	}
	from, ok := choose(base.says(), prints, Refuse)
	if !ok && mergeable(base, prints, sides) {
		return m.entries(path, key, base, sides)
	}
	if !ok {
		if from, ok = choose(base.says(), prints, m.opts.OnConflict); !ok {
			m.conflictOfGroups(conflictAt{path: path, key: key}, base, sides)
			return nil, nil
		}
	}
	if from < 0 {
		return sides[0], nil // all are as the base is
	}
	taken := sides[from]
	for i, g := range sides {
		if prints[i] == prints[from] && g.text() < taken.text() {
			taken = g
		}
	}
	for _, e := range taken {
		m.need(e, sides)
	}
	return taken, nil
}

// mergeable tells whether the entries of groups correspond one to one, so that
// they can be looked at one by one.
func mergeable(base group, prints []string, sides []group) bool {
	var first group
	same := true
	for i, g := range sides {
		switch {
		case prints[i] == base.says():
		case len(g) == 0: // deleted
			return false
		case first == nil:
			first = g
		default:
			same = same && g.contents() == first.contents()
		}
	}
	return same || len(base) <= 1 && !slices.ContainsFunc(sides, func(g group) bool { return len(g) > 1 })
}

// need notes that the content of e has to be copied, unless it is ours.
func (m *merger) need(e entry, sides []group) {
	for i, g := range sides {
		if !slices.ContainsFunc(g, func(have entry) bool { return have.content() == e.content() }) {
			continue
		}
		if i > 0 {
			m.result.Needed[i-1] = append(m.result.Needed[i-1], e.desc)
		}
		return
	}
}

// entries merges groups whose entries correspond one to one.
func (m *merger) entries(path []string, key string, base group, sides []group) (group, error) {
	n := 0
	for _, g := range sides {
		n = max(n, len(g))
	}
	at := func(g group, i int) *entry {
		if i < len(g) {
			return &g[i]
		}
		return nil
	}
	merged := make(group, n)
	for i := range merged {
		b := at(base, i)
		each := make([]*entry, len(sides))
		for k, g := range sides {
			if each[k] = at(g, i); each[k] == nil || g.says() == base.says() {
				each[k] = b // it has changed nothing
			}
		}
		e, err := m.entry(path, key, b, each)
		if err != nil || e == nil {
			return nil, err
		}
		merged[i] = *e
	}
	return merged, nil
}

// entry merges one entry. Sides that changed nothing have base, which may be
// nil. Nil is a conflict.
func (m *merger) entry(path []string, key string, base *entry, sides []*entry) (merged *entry, err error) {
	content := func(e *entry) string {
		if e == nil {
			return ""
		}
		return e.content()
	}
	groups := make([]group, len(sides))
	prints := make([]string, len(sides))
	for i, e := range sides {
		if prints[i] = content(e); e != nil {
			groups[i] = group{*e}
		}
	}
	was, none := content(base), &entry{}
	var wasGroup group
	if base == nil {
		base = none
	} else {
		wasGroup = group{*base}
	}
	var desc ocispec.Descriptor
	from, ok := choose(was, prints, Refuse)
	switch {
	case ok && from < 0:
		desc = base.desc
	case ok:
		desc = sides[from].desc
		m.need(*sides[from], groups)
	case allIndexes(was, sides):
		if desc, err = m.indexes(append(slices.Clip(path), key), base, sides); err != nil {
			return nil, err
		}
	default:
		if from, ok = choose(was, prints, m.opts.OnConflict); !ok {
			m.conflictOfGroups(conflictAt{path: path, key: key}, wasGroup, groups)
			return nil, nil
		}
		desc = sides[from].desc
		m.need(*sides[from], groups)
		// What the others say is said of other content.
		winners := make([]*entry, len(sides))
		for i, e := range sides {
			winners[i] = base
			if i == from || m.opts.OnConflict == Theirs && i > 0 && content(e) == prints[from] {
				winners[i] = e
			}
		}
		sides = winners
	}
	merged = &entry{desc: desc}
	each := func(of func(e *entry) map[string]value) []map[string]value {
		all := make([]map[string]value, len(sides))
		for i, e := range sides {
			if e == nil {
				e = none
			}
			all[i] = of(e)
		}
		return all
	}
	at := conflictAt{path: path, key: key}
	merged.members = m.values(at, base.members, each(func(e *entry) map[string]value { return e.members }))
	at.what = "annotation"
	merged.annotations = m.values(at, base.annotations, each(func(e *entry) map[string]value { return e.annotations }))
	merged.describe(append([]*entry{base}, sides...))
	return merged, nil
}

// describe makes desc say what the members say, which are those of one of from.
func (e *entry) describe(from []*entry) {
	e.desc.Annotations, e.desc.Platform, e.desc.ArtifactType = nil, nil, ""
	for name, v := range e.annotations {
		if text, err := strictjson.Value(v.norm).Text(); err == nil {
			setAnnotation(&e.desc, name, text)
		}
	}
	for _, f := range from {
		if f == nil {
			continue
		}
		if v := f.members["platform"]; v.norm != "" && v.norm == e.members["platform"].norm {
			e.desc.Platform = f.desc.Platform
		}
		if v := f.members["artifactType"]; v.norm != "" && v.norm == e.members["artifactType"].norm {
			e.desc.ArtifactType = f.desc.ArtifactType
		}
	}
}

func setAnnotation(desc *ocispec.Descriptor, name, text string) {
	if desc.Annotations == nil {
		desc.Annotations = map[string]string{}
	}
	desc.Annotations[name] = text
}

// allIndexes tells whether all contents other than base are indexes of one
// media type.
func allIndexes(base string, sides []*entry) bool {
	mediaType := ""
	for _, e := range sides {
		if e == nil || e.content() == base {
			continue
		}
		if !layout.IsIndex(e.desc.MediaType) || mediaType != "" && mediaType != e.desc.MediaType {
			return false
		}
		mediaType = e.desc.MediaType
	}
	return mediaType != ""
}

// indexes merges the indexes that entries name, and returns the descriptor of
// the result.
func (m *merger) indexes(path []string, base *entry, sides []*entry) (desc ocispec.Descriptor, err error) {
	root := emptyNode()
	if layout.IsIndex(base.desc.MediaType) {
		if root, err = m.read(m.base, base.desc); err != nil {
			return desc, err
		}
	}
	nodes := make([]*node, len(sides))
	for i, e := range sides {
		nodes[i] = root
		if e == nil || e.desc.Digest == base.desc.Digest {
			continue
		}
		if nodes[i], err = m.read(m.sides[i], e.desc); err != nil {
			return desc, err
		}
	}
	conflicts := len(m.conflicts)
	merged, err := m.node(path, root, nodes)
	if err != nil || len(m.conflicts) > conflicts {
		return desc, err
	}
	// Who has all of it already keeps its bytes: we first, else the source
	// whose digest is the least.
	all := merged.says()
	for i, n := range nodes {
		if n.says() != all || sides[i] == nil || !layout.IsIndex(sides[i].desc.MediaType) {
			continue
		}
		if d := sides[i].desc; desc.Digest == "" || d.Digest < desc.Digest {
			desc = d
		}
		if i == 0 {
			break
		}
	}
	if desc.Digest != "" {
		groups := make([]group, len(sides))
		for i, e := range sides {
			if e != nil {
				groups[i] = group{*e}
			}
		}
		m.need(entry{desc: desc}, groups)
	} else if desc, err = m.put(path, merged); err != nil {
		return desc, err
	}
	for _, e := range sides {
		if e != nil && e.desc.Digest != desc.Digest {
			m.result.Moved[e.desc.Digest] = desc
		}
	}
	return desc, nil
}
