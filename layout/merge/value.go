package merge

import (
	"slices"
	"strings"

	"github.com/gardenlinux/gloci-layout/layout/internal/strictjson"
)

// A value is one member of a JSON object. Two values are the same if they mean
// the same, however they are spelled.
type value struct {
	norm string // one spelling for each meaning; "" where the member is absent
	text string // as it stands, without white space
}

func newValue(v strictjson.Value) value {
	return value{norm: string(normalize(v)), text: string(v.Compact())}
}

// normalize sorts the members of objects and writes strings in one form.
// Numbers stay as they are: nobody says which precision is meant.
func normalize(v strictjson.Value) strictjson.Value {
	switch v.Kind() {
	case strictjson.Object:
		members, err := v.Members()
		if err != nil {
			return v // it was parsed before
		}
		for i := range members {
			members[i].Value = normalize(members[i].Value)
		}
		slices.SortFunc(members, func(a, b strictjson.Member) int { return strings.Compare(a.Name, b.Name) })
		return strictjson.FromMembers(members)
	case strictjson.Array:
		items, err := v.Items()
		if err != nil {
			return v
		}
		for i := range items {
			items[i] = normalize(items[i])
		}
		return strictjson.FromItems(items)
	case strictjson.String:
		if text, err := v.Text(); err == nil {
			return strictjson.Quote(text)
		}
	case strictjson.Null, strictjson.Bool, strictjson.Number:
	}
	return v.Compact()
}

// toMembers lists values by name.
func toMembers(values map[string]value) []strictjson.Member {
	members := make([]strictjson.Member, 0, len(values))
	for name, v := range values {
		members = append(members, strictjson.Member{Name: name, Value: strictjson.Value(v.text)})
	}
	slices.SortFunc(members, func(a, b strictjson.Member) int { return strings.Compare(a.Name, b.Name) })
	return members
}

// printValues returns a text that is the same for the same values.
func printValues(values map[string]value) string {
	members := toMembers(values)
	for i, m := range members {
		members[i].Value = strictjson.Value(values[m.Name].norm)
	}
	return string(strictjson.FromMembers(members))
}
