package merge

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gardenlinux/gloci-layout/layout"
)

// A Conflict is one thing that sides have changed differently.
type Conflict struct {
	Path   []string // ref name and keys of the indexes that it is in
	Key    string   // of the entry; "" for a member of the index itself
	Member string   // member or annotation; "" for the content
	States []State  // the base first, if there is one, then ours, then the sources
}

// A State is what some sides say of one thing.
type State struct {
	Value string // a digest, several with commas, or the JSON text of a member; "" if it is absent
	Sides []string
}

// String returns one line.
func (c Conflict) String() string {
	var b strings.Builder
	b.WriteString(pathText(c.Path))
	if c.Key != "" {
		if len(c.Path) > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(c.Key)
	}
	if c.Member != "" {
		b.WriteByte(' ')
		b.WriteString(c.Member)
	}
	for i, s := range c.States {
		value := s.Value
		if value == "" {
			value = "absent"
		}
		sides := s.Sides
		if len(sides) > 3 {
			sides = append(slices.Clone(sides[:3]), fmt.Sprintf("%d more", len(s.Sides)-3))
		}
		fmt.Fprintf(&b, "%s %s (%s)", map[bool]string{true: ":"}[i == 0], value, strings.Join(sides, ", "))
	}
	return strings.TrimPrefix(b.String(), " ")
}

func pathText(path []string) string { return strings.Join(path, " > ") }

// A ConflictError is all conflicts of a merge, one line each. It is
// [layout.ErrConflict].
type ConflictError struct {
	Into      string
	Conflicts []Conflict
}

func (e *ConflictError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "merge into %s: %d conflict", e.Into, len(e.Conflicts))
	if len(e.Conflicts) > 1 {
		b.WriteByte('s')
	}
	for _, c := range e.Conflicts {
		b.WriteString("\n" + c.String())
	}
	return b.String()
}

// Unwrap returns [layout.ErrConflict].
func (*ConflictError) Unwrap() error { return layout.ErrConflict }

// conflictAt is where a conflict is.
type conflictAt struct {
	path      []string
	key, what string
}

func (at conflictAt) member(name string) Conflict {
	if at.what != "" {
		name = at.what + " " + name
	}
	return Conflict{Path: at.path, Key: at.key, Member: name}
}

// conflict notes that sides differ in c.
func (m *merger) conflict(c Conflict, base string, values []string) {
	add := func(value, side string) {
		for i := range c.States {
			if c.States[i].Value == value {
				c.States[i].Sides = append(c.States[i].Sides, side)
				return
			}
		}
		c.States = append(c.States, State{Value: value, Sides: []string{side}})
	}
	if m.base.Index != nil {
		add(base, "base")
	}
	for i, v := range values {
		if v != "" || m.base.Index != nil {
			add(v, m.sides[i].Name)
		}
	}
	m.conflicts = append(m.conflicts, c)
}

func (m *merger) conflictOfGroups(at conflictAt, base group, sides []group) {
	digests := func(g group) string {
		texts := make([]string, len(g))
		for i, e := range g {
			texts[i] = string(e.desc.Digest)
		}
		return strings.Join(texts, ",")
	}
	values := make([]string, len(sides))
	for i, g := range sides {
		values[i] = digests(g)
	}
	m.conflict(Conflict{Path: at.path, Key: at.key}, digests(base), values)
}
