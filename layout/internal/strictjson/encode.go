package strictjson

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// common are strings of nearly every manifest, which are shared instead of being
// made for each.
var common = func() map[string]string {
	m := map[string]string{}
	for _, s := range []string{
		"schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations",
		"digest", "size", "platform", "os", "architecture", "variant", "linux", "amd64", "arm64",
		"application/vnd.oci.image.index.v1+json",
		"application/vnd.oci.image.manifest.v1+json",
		"application/vnd.oci.image.config.v1+json",
		"application/vnd.oci.empty.v1+json",
		"application/vnd.oci.image.layer.v1.tar",
		"application/vnd.oci.image.layer.v1.tar+gzip",
		"application/vnd.oci.image.layer.v1.tar+zstd",
		"org.opencontainers.image.ref.name", "org.opencontainers.image.title",
		"cname", "feature_set", "commit", "version",
	} {
		m[s] = s
	}
	return m
}()

// unquote decodes a string that the scanner has accepted.
func unquote(v []byte) (string, error) {
	if len(v) < 2 || v[0] != '"' || v[len(v)-1] != '"' {
		return "", fmt.Errorf("%w: not a string", ErrSyntax)
	}
	v = v[1 : len(v)-1]
	if s, ok := common[string(v)]; ok {
		return s, nil
	}
	if bytes.IndexByte(v, '\\') < 0 {
		return string(v), nil
	}
	out := make([]byte, 0, len(v))
	for i := 0; i < len(v); {
		if v[i] != '\\' {
			out = append(out, v[i])
			i++
			continue
		}
		switch v[i+1] {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, _ := hex4(v, i+2)
			if utf16.IsSurrogate(r) {
				low, _ := hex4(v, i+8)
				r = utf16.DecodeRune(r, low)
				i += 6
			}
			out = utf8.AppendRune(out, r)
			i += 4
		default:
			out = append(out, v[i+1])
		}
		i += 2
	}
	return string(out), nil
}

// Quote encodes s in the one form that canonical documents use: only what JSON
// demands is escaped, so neither HTML nor non-ASCII characters are. Bytes that
// are no UTF-8 become U+FFFD.
func Quote(s string) Value {
	out := make([]byte, 0, len(s)+2)
	out = append(out, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			out = append(out, '\\', byte(r))
		case r == '\n':
			out = append(out, '\\', 'n')
		case r == '\r':
			out = append(out, '\\', 'r')
		case r == '\t':
			out = append(out, '\\', 't')
		case r < 0x20 || r == 0x7f:
			out = fmt.Appendf(out, "\\u%04x", r)
		default:
			out = utf8.AppendRune(out, r)
		}
	}
	return append(out, '"')
}

// FromInt encodes n.
func FromInt(n int64) Value { return strconv.AppendInt(nil, n, 10) }

// FromItems encodes an array.
func FromItems(items []Value) Value {
	out := []byte{'['}
	for i, item := range items {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, item...)
	}
	return append(out, ']')
}

// FromMembers encodes an object in the order given.
func FromMembers(members []Member) Value {
	out := []byte{'{'}
	for i, m := range members {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(append(append(out, Quote(m.Name)...), ':'), m.Value...)
	}
	return append(out, '}')
}

// FromMap encodes m with its names sorted; an empty text is null where nulls has
// its name.
func FromMap(m map[string]string, nulls map[string]bool) Value {
	members := make([]Member, 0, len(m))
	for name, text := range m {
		value := Quote(text)
		if text == "" && nulls[name] {
			value = Value("null")
		}
		members = append(members, Member{name, value})
	}
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return FromMembers(members)
}

// Compact removes the white space between the tokens of v. Nothing else
// changes: escapes and the spelling of numbers stay.
func (v Value) Compact() Value {
	if !bytes.ContainsAny(v, " \t\n\r") {
		return v
	}
	out := make([]byte, 0, len(v))
	inString := false
	for i := 0; i < len(v); i++ {
		c := v[i]
		if inString {
			out = append(out, c)
			switch c {
			case '\\':
				i++
				out = append(out, v[i])
			case '"':
				inString = false
			}
			continue
		}
		switch c {
		case ' ', '\t', '\n', '\r':
		case '"':
			inString = true
			out = append(out, c)
		default:
			out = append(out, c)
		}
	}
	return out
}

// Canonical orders members: the names of order first, in that order, then the
// others by their bytes.
func Canonical(members []Member, order []string) []Member {
	rank := func(name string) int {
		if i := slices.Index(order, name); i >= 0 {
			return i
		}
		return len(order)
	}
	sorted := slices.Clone(members)
	slices.SortStableFunc(sorted, func(a, b Member) int {
		if d := rank(a.Name) - rank(b.Name); d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
	return sorted
}

// CheckNames refuses a member whose name differs from one of known only in
// case (Unicode folding, as encoding/json compares names): a Go program would
// read it as that field, another program would not.
func CheckNames(members []Member, known []string) error {
	for _, m := range members {
		if slices.Contains(known, m.Name) {
			continue
		}
		for _, k := range known {
			if strings.EqualFold(k, m.Name) {
				return fmt.Errorf("%w: name %s is not %q but readers may take it for that", ErrSyntax, clip(strconv.Quote(m.Name)), k)
			}
		}
	}
	return nil
}
