package merge

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/internal/strictjson"
)

// A node is an index taken apart.
type node struct {
	members     map[string]value // without schemaVersion, manifests and annotations
	annotations map[string]value
	groups      map[string]group
}

// A group is the entries of one index that have one key: in general a single
// one.
type group []entry

type entry struct {
	desc        ocispec.Descriptor
	members     map[string]value // without what names the content, and annotations
	annotations map[string]value
}

// contentNames are the members of a descriptor that together name the content.
var contentNames = []string{"mediaType", "digest", "size", "data"}

// optionalNames are members for which null is as good as absent.
var optionalNames = []string{"mediaType", "artifactType", "subject", "annotations", "platform", "urls", "data"}

func emptyNode() *node {
	return &node{members: map[string]value{}, annotations: map[string]value{}, groups: map[string]group{}}
}

// parseNode takes x apart; key names its entries.
func parseNode(x *layout.Index, key func(desc ocispec.Descriptor) string) (*node, error) {
	v, err := strictjson.Parse(x.Bytes())
	if err != nil {
		return nil, err
	}
	n := emptyNode()
	var items []strictjson.Value
	members, err := v.Members()
	if err != nil {
		return nil, err
	}
	for _, m := range members {
		switch {
		case m.Name == "schemaVersion":
		case m.Name == "manifests" && m.Value.Kind() == strictjson.Null: // as Go writes no entries
		case m.Name == "manifests":
			items, err = m.Value.Items()
		case m.Name == "annotations":
			n.annotations, err = splitObject(m.Value)
		case m.Value.Kind() == strictjson.Null && slices.Contains(optionalNames, m.Name):
		default:
			n.members[m.Name] = newValue(m.Value)
		}
		if err != nil {
			return nil, err
		}
	}
	descs := x.Entries() // of the same bytes
	if len(items) != len(descs) {
		return nil, fmt.Errorf("%w index: %d entries, %d in the text", layout.ErrInvalid, len(descs), len(items))
	}
	for i, item := range items {
		e := entry{desc: descs[i], annotations: map[string]value{}}
		if e.members, err = splitObject(item); err != nil {
			return nil, err
		}
		if a, ok := e.members["annotations"]; ok {
			if e.annotations, err = splitObject(strictjson.Value(a.text)); err != nil {
				return nil, err
			}
		}
		for _, name := range append([]string{"annotations"}, contentNames...) {
			delete(e.members, name)
		}
		k := key(e.desc)
		n.groups[k] = append(n.groups[k], e)
	}
	for k, g := range n.groups {
		n.groups[k] = g.tidy()
	}
	return n, nil
}

// splitObject returns the members of an object, none for null.
func splitObject(v strictjson.Value) (map[string]value, error) {
	values := map[string]value{}
	if v.Kind() == strictjson.Null {
		return values, nil
	}
	members, err := v.Members()
	for _, m := range members {
		if m.Value.Kind() != strictjson.Null || !slices.Contains(optionalNames, m.Name) {
			values[m.Name] = newValue(m.Value)
		}
	}
	return values, err
}

// tidy drops entries that repeat another word for word, and orders those whose
// order has no meaning.
func (g group) tidy() group {
	var kept group
	seen := map[string]bool{}
	for _, e := range g {
		if p := e.says(); !seen[p] {
			seen[p] = true
			kept = append(kept, e)
		}
	}
	if len(kept) > 1 && !isRuntime(kept[0].desc) {
		slices.SortStableFunc(kept, func(a, b entry) int {
			return cmp.Or(cmp.Compare(a.desc.Digest, b.desc.Digest), strings.Compare(a.says(), b.says()))
		})
	}
	return kept
}

// content names what the entry leads to.
func (e entry) content() string {
	return fmt.Sprintf("%s %s %d", e.desc.Digest, e.desc.MediaType, e.desc.Size)
}

// says is the same for entries that say the same.
func (e entry) says() string {
	return e.content() + " " + printValues(e.members) + printValues(e.annotations)
}

// says is the same for groups that say the same; "" for an absent one.
func (g group) says() string {
	var b strings.Builder
	for _, e := range g {
		b.WriteString(e.says())
		b.WriteByte('\n')
	}
	return b.String()
}

// contents is says without what entries say beside their content.
func (g group) contents() string {
	var b strings.Builder
	for _, e := range g {
		b.WriteString(e.content())
		b.WriteByte('\n')
	}
	return b.String()
}

// text tells groups that say the same apart by their spelling.
func (g group) text() string {
	var b strings.Builder
	for _, e := range g {
		b.Write(e.encode())
	}
	return b.String()
}

// says is the same for indexes that say the same, in whatever order.
func (n *node) says() string {
	var b strings.Builder
	b.WriteString(n.head())
	for _, k := range slices.Sorted(maps.Keys(n.groups)) {
		fmt.Fprintf(&b, "\n%q\n%s", k, n.groups[k].says())
	}
	return b.String()
}

// head is says without the entries.
func (n *node) head() string { return printValues(n.members) + printValues(n.annotations) }

func (e entry) encode() strictjson.Value {
	members := toMembers(e.members)
	add := func(name string, v strictjson.Value) {
		members = append(members, strictjson.Member{Name: name, Value: v})
	}
	add("mediaType", strictjson.Quote(e.desc.MediaType))
	add("digest", strictjson.Quote(string(e.desc.Digest)))
	add("size", strictjson.FromInt(e.desc.Size))
	if len(e.annotations) > 0 {
		add("annotations", strictjson.FromMembers(toMembers(e.annotations)))
	}
	return strictjson.FromMembers(members)
}

// index puts the node together again, in the canonical form of docs/format.md.
func (n *node) index() (*layout.Index, error) {
	var items []strictjson.Value
	var data []ocispec.Descriptor
	for _, k := range slices.Sorted(maps.Keys(n.groups)) {
		for _, e := range n.groups[k] {
			items = append(items, e.encode())
			data = append(data, e.desc)
		}
	}
	members := append(toMembers(n.members),
		strictjson.Member{Name: "schemaVersion", Value: strictjson.FromInt(2)},
		strictjson.Member{Name: "manifests", Value: strictjson.FromItems(items)})
	if len(n.annotations) > 0 {
		members = append(members, strictjson.Member{Name: "annotations", Value: strictjson.FromMembers(toMembers(n.annotations))})
	}
	x, err := layout.ParseIndex(strictjson.FromMembers(members))
	if err != nil {
		return nil, err
	}
	for i, desc := range x.Entries() {
		if data[i].Data != nil {
			desc.Data = data[i].Data
			x.Set(i, desc)
		}
	}
	x.Sort()
	x.Canonicalize()
	return x, nil
}
