package extract

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

const (
	maxComponent = 255  // bytes of a file name, on the file systems in use
	maxName      = 1024 // bytes of a whole name
)

// extensions are the facets of a media type that say how a file is encoded.
var extensions = map[string]bool{
	"tar": true, "gz": true, "zst": true, "xz": true, "json": true, "yaml": true, "xml": true, "log": true, "txt": true,
	"crt": true, "der": true, "auth": true, "arn": true, "iso": true, "raw": true, "qcow2": true, "vhd": true, "vmdk": true,
	"ova": true, "squashfs": true, "prov": true, "sig": true, "pem": true, "zip": true,
}

// MediaTypeName returns the file name that a media type stands for, as base and
// ext, which is empty or begins with a dot. Parameters and case do not count.
//
// What is no media type of RFC 6838, and application/octet-stream, is layer.bin;
// text/plain is layer.txt. Of all else the subtype is taken: its suffixes ("+")
// and facets (".") one after another, without vnd. and io.gardenlinux. in front,
// gzip as gz and zstd as zst. The facets at the end that say how a file is
// encoded (tar, gz, json, ...) are ext, what is before them is base, or "layer"
// if nothing is.
func MediaTypeName(mediaType string) (base, ext string) {
	mediaType, _, _ = strings.Cut(mediaType, ";")
	mediaType = strings.ToLower(strings.TrimSpace(mediaType))
	kind, subtype, ok := strings.Cut(mediaType, "/")
	switch {
	case !ok || !isRestrictedName(kind) || !isRestrictedName(subtype) || mediaType == "application/octet-stream":
		return "layer", ".bin"
	case mediaType == "text/plain":
		return "layer", ".txt"
	}
	subtype = strings.TrimPrefix(subtype, "vnd.")
	subtype = strings.TrimPrefix(subtype, "io.gardenlinux.")
	facets := strings.FieldsFunc(subtype, func(r rune) bool { return r == '.' || r == '+' })
	for i, f := range facets {
		switch f {
		case "gzip":
			facets[i] = "gz"
		case "zstd":
			facets[i] = "zst"
		}
	}
	n := len(facets)
	for n > 0 && extensions[facets[n-1]] {
		n--
	}
	if n < len(facets) {
		ext = "." + strings.Join(facets[n:], ".")
	}
	return cmp.Or(strings.Join(facets[:n], "."), "layer"), ext
}

// isRestrictedName tells whether s, in lower case, is a restricted-name of RFC
// 6838, section 4.2.
func isRestrictedName(s string) bool {
	if s == "" || len(s) > 127 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case i > 0 && strings.IndexByte("!#$&-^_.+", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// CheckName tells whether name may be that of a file below a directory: a
// relative path in its shortest form, with slashes, that does not lead out. The
// error is [layout.ErrUnsafe].
func CheckName(name string) error {
	bad := ""
	switch {
	case name == "":
		bad = "it is empty"
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		bad = "it has control characters"
	case strings.Contains(name, `\`):
		bad = "it has a backslash"
	case path.IsAbs(name):
		bad = "it is absolute"
	case path.Clean(name) != name || name == "." || name == ".." || strings.HasPrefix(name, "../"):
		bad = "it is no clean relative path"
	case len(name) > maxName:
		bad = fmt.Sprintf("it is longer than %d bytes", maxName)
	case slices.ContainsFunc(strings.Split(name, "/"), func(s string) bool { return len(s) > maxComponent }):
		bad = fmt.Sprintf("a part is longer than %d bytes", maxComponent)
	}
	if bad == "" {
		return nil
	}
	return fmt.Errorf("file name %.200q: %s: %w", name, bad, layout.ErrUnsafe)
}

// A Template makes file names: text with fields in braces. {{ and }} stand for
// braces.
type Template struct {
	text  string
	parts []templatePart
}

type templatePart struct{ text, field, key string }

// TemplateFields are the fields of a [Template]:
//
//	{title}           annotation org.opencontainers.image.title of the layer
//	{base} {ext}      the parts of MediaTypeName
//	{index}           the number of the layer, counted from zero, or "config"
//	{digest12}        the first 12 hexadecimal digits of its digest
//	{cname}           annotation cname of the manifest
//	{annotation:KEY}  annotation KEY of the layer, else of the entry, else of the manifest
var TemplateFields = []string{"title", "base", "ext", "index", "digest12", "cname", "annotation:KEY"}

// ParseTemplate reads a template. An unknown field, or a brace without its
// partner, is [layout.ErrInvalid].
func ParseTemplate(text string) (*Template, error) {
	t := &Template{text: text}
	fail := func(format string, args ...any) (*Template, error) {
		return nil, fmt.Errorf("%w template %q: %s", layout.ErrInvalid, text, fmt.Sprintf(format, args...))
	}
	literal := func(s string) { t.parts = append(t.parts, templatePart{text: s}) }
	for rest := text; rest != ""; {
		i := strings.IndexAny(rest, "{}")
		switch {
		case i < 0:
			literal(rest)
			rest = ""
			continue
		case i > 0:
			literal(rest[:i])
			rest = rest[i:]
		}
		if strings.HasPrefix(rest, "{{") || strings.HasPrefix(rest, "}}") {
			literal(rest[:1])
			rest = rest[2:]
			continue
		}
		end := strings.IndexByte(rest, '}')
		if rest[0] == '}' || end < 0 {
			return fail("a brace without its partner")
		}
		field, key, hasKey := strings.Cut(rest[1:end], ":")
		rest = rest[end+1:]
		switch {
		case field == "annotation" && hasKey && key != "":
		case hasKey || field == "annotation" || !slices.Contains(TemplateFields, field):
			return fail("no field {%s}; there are {%s}", strings.TrimSuffix(field+":"+key, ":"), strings.Join(TemplateFields, "} {"))
		}
		t.parts = append(t.parts, templatePart{field: field, key: key})
	}
	if text == "" {
		return fail("it is empty")
	}
	return t, nil
}

// String returns the template as it was parsed.
func (t *Template) String() string { return t.text }

// Name returns the name of a layer of m. A field that has no value is
// [layout.ErrNotFound], a name that [CheckName] refuses [layout.ErrUnsafe].
func (t *Template) Name(m layout.Match, l layout.Layer) (string, error) {
	var b strings.Builder
	for _, p := range t.parts {
		if p.field == "" {
			b.WriteString(p.text)
			continue
		}
		value, ok := p.value(m, l)
		if !ok {
			return "", fmt.Errorf("template %q: %s has no {%s}: %w", t.text, l, strings.TrimSuffix(p.field+":"+p.key, ":"), layout.ErrNotFound)
		}
		b.WriteString(value)
	}
	if err := CheckName(b.String()); err != nil {
		return "", fmt.Errorf("template %q: %s: %w", t.text, l, err)
	}
	return b.String(), nil
}

func (p templatePart) value(m layout.Match, l layout.Layer) (value string, ok bool) {
	base, ext := MediaTypeName(l.Desc.MediaType)
	switch p.field {
	case "title":
		return l.Title(), l.Title() != ""
	case "base":
		return base, true
	case "ext":
		return ext, true
	case "index":
		if l.Number < 0 {
			return "config", true
		}
		return strconv.Itoa(l.Number), true
	case "digest12":
		return digest12(l.Desc.Digest), true
	case "cname":
		return CName(m), CName(m) != ""
	}
	sets := []map[string]string{l.Desc.Annotations, m.Desc.Annotations}
	if m.Document != nil {
		sets = append(sets, m.Document.Annotations)
	}
	for _, set := range sets {
		if value, ok = set[p.key]; ok {
			break
		}
	}
	return value, ok
}

// CName returns the Garden Linux name of a manifest: the annotation cname of its
// entry, else its own; "" if it has none.
func CName(m layout.Match) string {
	if name := m.Desc.Annotations["cname"]; name != "" || m.Document == nil {
		return name
	}
	return m.Document.Annotations["cname"]
}

func digest12(d digest.Digest) string { return d.Encoded()[:12] }

// LayerName returns the file name of a layer: its title, which has to be a clean
// relative path ([layout.ErrUnsafe]), else what [MediaTypeName] makes of its
// media type. A template that is not nil decides alone.
func LayerName(m layout.Match, l layout.Layer, t *Template) (string, error) {
	if t != nil {
		return t.Name(m, l)
	}
	if title, ok := l.Desc.Annotations[ocispec.AnnotationTitle]; ok {
		if err := CheckName(title); err != nil {
			return "", layout.WithHint(fmt.Errorf("%s: title: %w", l, err), "name the file with --name, as in --name '{base}{ext}'")
		}
		return title, nil
	}
	base, ext := MediaTypeName(l.Desc.MediaType)
	return base + ext, nil
}

// A NamedLayer is a layer and the name of its file.
type NamedLayer struct {
	layout.Layer
	Name string // with slashes
}

// NameLayers names all layers of m. Two layers with one name, or one whose name
// is a directory of another's, are [layout.ErrConflict]: no name is ever made up
// to tell them apart. Layers that share name and digest come once.
func NameLayers(m layout.LayerMatch, t *Template) ([]NamedLayer, error) {
	var named []NamedLayer
	taken := map[string]layout.Layer{}
	dirs := map[string]layout.Layer{}
	clash := func(name string, a, b layout.Layer) error {
		err := fmt.Errorf("two layers of manifest %s want the name %q: %w\n  %s\n  %s", m.Desc.Digest, name, layout.ErrConflict, a, b)
		return layout.WithHint(err, "tell them apart with --name, as in --name '{index}-{base}{ext}', or choose one with --layer N")
	}
	for _, l := range m.Layers {
		name, err := LayerName(m.Match, l, t)
		if err != nil {
			return nil, err
		}
		if other, ok := taken[name]; ok {
			if other.Desc.Digest != l.Desc.Digest {
				return nil, clash(name, other, l)
			}
			continue
		}
		if other, ok := dirs[name]; ok {
			return nil, clash(name, other, l)
		}
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if other, ok := taken[dir]; ok {
				return nil, clash(dir, other, l)
			}
			dirs[dir] = l
		}
		taken[name] = l
		named = append(named, NamedLayer{l, name})
	}
	return named, nil
}

// ManifestDirs names a directory for each of several manifests: its cname, or the
// first 12 digits of its digest where it has none. A cname that is no clean file
// name is [layout.ErrUnsafe], one of two manifests [layout.ErrConflict].
func ManifestDirs(matches []layout.LayerMatch) ([]string, error) {
	var dirs []string
	taken := map[string]digest.Digest{}
	for _, m := range matches {
		dir := cmp.Or(CName(m.Match), digest12(m.Desc.Digest))
		err := CheckName(dir)
		if err == nil && strings.Contains(dir, "/") {
			err = fmt.Errorf("file name %q: it has a slash: %w", dir, layout.ErrUnsafe)
		}
		if err != nil {
			return nil, fmt.Errorf("manifest %s: cname: %w", m.Desc.Digest, err)
		}
		if other, ok := taken[dir]; ok {
			err := fmt.Errorf("two manifests want the directory %q: %w\n  %s\n  %s", dir, layout.ErrConflict, other, m.Desc.Digest)
			return nil, layout.WithHint(err, "take them one after another, with --digest")
		}
		taken[dir] = m.Desc.Digest
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

// LayerDir names the directory of a layer among others of its manifest: its
// number in two digits or more, and the last part of its file name without the
// extensions that [MediaTypeName] knows.
func LayerDir(l layout.Layer, name string) string {
	facets := strings.Split(path.Base(name), ".")
	n := len(facets)
	for n > 1 && (extensions[facets[n-1]] || facets[n-1] == "tgz") {
		n--
	}
	number := "config"
	if l.Number >= 0 {
		number = fmt.Sprintf("%02d", l.Number)
	}
	return number + "-" + strings.Join(facets[:n], ".")
}
