package diff

import (
	"context"
	"encoding/json"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/internal/strictjson"
)

// A list is the entries of an index, or layers of a manifest.
type list struct {
	raw   []byte // the document that has them; nil for roots that were picked
	name  string // of the member of raw
	descs []ocispec.Descriptor

	split   bool // what follows is made when it is needed
	members []strictjson.Member
	items   []strictjson.Value // as they stand in raw; nil if there are none
}

// rootList returns the entries of a side.
func rootList(ctx context.Context, s Side) (*list, error) {
	if s.Roots != nil {
		return &list{descs: s.Roots}, nil
	}
	x, err := s.Source.Index(ctx)
	if err != nil {
		return nil, err
	}
	l := &list{raw: x.Bytes(), name: "manifests", descs: x.Entries()}
	l.parse() // while the other side is read
	return l, nil
}

func documentList(d *layout.Document) *list {
	if d.IsIndex {
		return &list{raw: d.Raw, name: "manifests", descs: d.Manifests}
	}
	l := &list{raw: d.Raw, name: "layers", descs: d.Layers}
	if l.parse(); l.items == nil && len(l.descs) > 0 {
		return &list{raw: d.Raw, name: "blobs", descs: d.Layers} // of an artifact manifest
	}
	return l
}

// parse splits raw, which was read before.
func (l *list) parse() {
	if l.split {
		return
	}
	l.split = true
	var err error
	if l.members, err = strictjson.Parsed(l.raw).Members(); err != nil {
		return
	}
	for _, m := range l.members {
		if m.Name == l.name {
			if items, err := m.Value.Items(); err == nil && len(items) == len(l.descs) {
				l.items = items
			}
		}
	}
}

// item returns the text of entry i, unknown members included.
func (l *list) item(i int) strictjson.Value {
	if l.parse(); l.items != nil {
		return l.items[i]
	}
	text, err := json.Marshal(l.descs[i])
	if err != nil {
		return nil // a descriptor can always be encoded
	}
	return text
}

// rest returns the document without the list.
func (l *list) rest() []byte {
	l.parse()
	members := slices.DeleteFunc(slices.Clone(l.members), func(m strictjson.Member) bool { return m.Name == l.name })
	return strictjson.FromMembers(members)
}

// A matching says which items of two lists are the same thing; -1 is none.
type matching struct{ toA, toB []int }

// A key names an item so that those with the same name are matched, the first
// with the first; "" if it has no such name.
type key func(desc ocispec.Descriptor) string

func newMatching(na, nb int) *matching {
	m := &matching{toB: make([]int, na), toA: make([]int, nb)}
	for i := range m.toB {
		m.toB[i] = -1
	}
	for j := range m.toA {
		m.toA[j] = -1
	}
	return m
}

// by matches what is not matched yet by a key.
func (m *matching) by(a, b []ocispec.Descriptor, keyA, keyB key) {
	waiting := map[string][]int{}
	for i, desc := range a {
		if m.toB[i] < 0 {
			if k := keyA(desc); k != "" {
				waiting[k] = append(waiting[k], i)
			}
		}
	}
	if len(waiting) == 0 {
		return
	}
	for j, desc := range b {
		if m.toA[j] >= 0 {
			continue
		}
		k := keyB(desc)
		if k == "" || len(waiting[k]) == 0 {
			continue
		}
		i := waiting[k][0]
		waiting[k] = waiting[k][1:]
		m.toB[i], m.toA[j] = j, i
	}
}

// single matches by a key what is left, where one is left on each side.
func (m *matching) single(a, b []ocispec.Descriptor, k key) {
	left := func(descs []ocispec.Descriptor, matched []int) map[string]int {
		n := map[string]int{}
		for i, desc := range descs {
			if matched[i] < 0 {
				n[k(desc)]++
			}
		}
		return n
	}
	na, nb := left(a, m.toB), left(b, m.toA)
	once := func(desc ocispec.Descriptor) string {
		if s := k(desc); na[s] == 1 && nb[s] == 1 {
			return s
		}
		return ""
	}
	m.by(a, b, once, once)
}

// reordered tells whether what both lists have stands in another order.
func (m *matching) reordered() bool {
	last := -1
	for _, j := range m.toB {
		if j < 0 {
			continue
		}
		if j < last {
			return true
		}
		last = j
	}
	return false
}

// match matches the entries of two indexes: by what they are a state of, from
// the closest name to the loosest.
func (c *comparer) match(a, b *list, at place, top bool) *matching {
	m := newMatching(len(a.descs), len(b.descs))
	by := func(k key) { m.by(a.descs, b.descs, k, k) }
	if top {
		c.matchRefs(by)
	}
	exact := func(desc ocispec.Descriptor) string { return layout.EntryKey(desc) + "\x00" + string(desc.Digest) }
	byDigest := func(desc ocispec.Descriptor) string { return string(desc.Digest) }
	by(unnamed(exact, top))
	by(byDigest)
	by(unnamed(layout.EntryKey, top))
	if c.opts.Key != nil {
		by(c.opts.Key)
	}
	by(unnamed(c.without(platformKey), top))
	by(unnamed(c.without(artifactKey), top))
	if top {
		m.single(a.descs, b.descs, mediaKey)
	} else {
		by(c.without(looseKey))
	}
	if len(a.descs) == 1 && len(b.descs) == 1 && !top && at.depth == 0 {
		by(func(ocispec.Descriptor) string { return "what was asked for" })
	}
	return m
}

// without leaves entries out that have a name of their own: a flavour is never
// another one.
func (c *comparer) without(k key) key {
	return func(desc ocispec.Descriptor) string {
		if desc.Annotations["cname"] != "" || c.opts.Key != nil && c.opts.Key(desc) != "" {
			return ""
		}
		return k(desc)
	}
}

// matchRefs matches entries that have the same ref name. Several may.
func (c *comparer) matchRefs(by func(k key)) {
	named := func(k key) key {
		return func(desc ocispec.Descriptor) string {
			ref := layout.RefName(desc)
			if ref == "" {
				return ""
			}
			return ref + "\x00" + k(desc)
		}
	}
	by(named(func(desc ocispec.Descriptor) string { return string(desc.Digest) }))
	by(named(layout.EntryKey))
	if c.opts.Key != nil {
		by(named(c.opts.Key))
	}
	by(named(platformKey))
	by(named(func(ocispec.Descriptor) string { return "" }))
}

// unnamed leaves entries with a ref name out, where there are such: two of them
// are not the same thing because they are for the same platform.
func unnamed(k key, top bool) key {
	if !top {
		return k
	}
	return func(desc ocispec.Descriptor) string {
		if layout.RefName(desc) != "" {
			return ""
		}
		return k(desc)
	}
}

func platformKey(desc ocispec.Descriptor) string {
	if desc.Platform == nil || desc.Platform.OS == "" && desc.Platform.Architecture == "" {
		return ""
	}
	kind := ""
	if layout.IsAttestation(desc) {
		kind = "attestation"
	}
	return layout.FormatPlatform(*desc.Platform) + "\x00" + desc.ArtifactType + "\x00" + kind
}

func artifactKey(desc ocispec.Descriptor) string {
	if platformKey(desc) != "" {
		return "" // for another platform, it is another thing
	}
	return desc.ArtifactType
}

// looseKey is for entries that nothing names.
func looseKey(desc ocispec.Descriptor) string {
	if platformKey(desc) != "" || desc.ArtifactType != "" {
		return ""
	}
	return mediaKey(desc)
}

// mediaKey tells apart what can be compared: indexes, manifests, and the rest by
// media type.
func mediaKey(desc ocispec.Descriptor) string {
	switch {
	case layout.IsIndex(desc.MediaType):
		return "index"
	case layout.IsManifest(desc.MediaType):
		return "manifest\x00" + desc.ArtifactType
	}
	return desc.MediaType
}

// titles are the titles of layers without what all of them have in front, up to
// the last dot or dash of that: a release's name and version.
func titles(layers []ocispec.Descriptor) key {
	var prefix string
	n := 0
	for _, l := range layers {
		t := l.Annotations[ocispec.AnnotationTitle]
		if t == "" {
			continue
		}
		if n++; n == 1 {
			prefix = t
			continue
		}
		i := 0
		for i < len(prefix) && i < len(t) && prefix[i] == t[i] {
			i++
		}
		prefix = prefix[:i]
	}
	cut := 0
	if n > 1 {
		cut = lastSeparator(prefix) + 1
	}
	return func(desc ocispec.Descriptor) string {
		t := desc.Annotations[ocispec.AnnotationTitle]
		return t[min(cut, len(t)):]
	}
}

func lastSeparator(s string) int {
	for i := len(s) - 1; i >= 0; i-- {
		if slices.Contains([]byte(".-"), s[i]) {
			return i
		}
	}
	return -1
}

// MatchLayers says which layer of b each of a is a state of; -1 is none. They are
// matched as Compare does.
func MatchLayers(a, b []ocispec.Descriptor) []int { return matchLayers(a, b).toB }

// matchLayers matches layers by title, then content, then media type and
// position. Layers of images have no titles: those that are equal are matched
// first, so that one that was inserted does not shift all behind it.
func matchLayers(a, b []ocispec.Descriptor) *matching {
	m := newMatching(len(a), len(b))
	by := func(k key) { m.by(a, b, k, k) }
	title := func(desc ocispec.Descriptor) string { return desc.Annotations[ocispec.AnnotationTitle] }
	by(func(desc ocispec.Descriptor) string {
		if t := title(desc); t != "" {
			return t + "\x00" + string(desc.Digest)
		}
		return ""
	})
	by(title)
	by(func(desc ocispec.Descriptor) string { return string(desc.Digest) })
	m.by(a, b, titles(a), titles(b))
	by(func(desc ocispec.Descriptor) string { return desc.MediaType })
	by(func(desc ocispec.Descriptor) string { return plainType(desc.MediaType) })
	return m
}
