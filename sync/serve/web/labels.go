package web

import (
	"cmp"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/show"
)

// title is what a manifest is called in the line of an overview, below the entry
// root of index.json.
func (d *document) title(root *document, flavored bool) string {
	switch {
	case d.flavor.Name != "":
		return d.flavor.Name
	case d.isImage && flavored:
		return "container image"
	case len(d.refNames) > 0:
		return d.refNames[0]
	case d.isImage && root != nil && len(root.refNames) > 0:
		return root.refNames[0]
	}
	a := cmp.Or(d.desc.Annotations[ocispec.AnnotationTitle], d.annotations[ocispec.AnnotationTitle])
	return cmp.Or(a, kindOf(d.artifactType), string(d.role))
}

// name is what a document is called where nothing tells where it is.
func (d *document) name() string {
	if d.flavor.Name != "" {
		s := d.flavor.Name
		for _, part := range []string{d.flavor.Arch, d.flavor.Version} {
			if part != "" {
				s += "-" + part
			}
		}
		return s
	}
	if len(d.refNames) > 0 {
		return d.refNames[0]
	}
	a := cmp.Or(d.desc.Annotations[ocispec.AnnotationTitle], d.annotations[ocispec.AnnotationTitle])
	if a == "" && d.desc.Platform != nil && d.desc.Platform.OS != "" {
		a = layout.FormatPlatform(*d.desc.Platform)
	}
	return cmp.Or(a, kindOf(d.artifactType), string(d.role)+" "+short(string(d.desc.Digest)))
}

// short is the beginning of a digest, which every command takes.
func short(d string) string {
	_, hex, ok := strings.Cut(d, ":")
	if !ok || len(hex) < 12 {
		return d
	}
	return hex[:12]
}

// words in media types that tell nothing apart.
var noise = []string{
	"application/", "vnd.", "oci.", "docker.", "io.gardenlinux.", "image.", "archive.", "format.", "distribution.", "container.", "cncf.",
}

// kindOf is a media type in a word or two: "qcow2", "layer tar+gzip".
func kindOf(mediaType string) string {
	mediaType, _, _ = strings.Cut(mediaType, ";")
	s := mediaType
	if strings.Contains(s, "image.rootfs.") || strings.Contains(s, "image.layer.") {
		return "image layer"
	}
	for again := true; again; {
		again = false
		for _, n := range noise {
			if rest, ok := strings.CutPrefix(s, n); ok && rest != "" {
				s, again = rest, true
			}
		}
	}
	s = strings.TrimSuffix(strings.TrimSuffix(s, "+json"), ".v1")
	if s == "octet-stream" {
		s = "other file"
	}
	return s
}

// natural compares names so that 9.10 comes after 9.9.
func natural(a, b string) int {
	digits := func(s string) int {
		n := 0
		for n < len(s) && s[n] >= '0' && s[n] <= '9' {
			n++
		}
		return n
	}
	x, y := a, b
	for x != "" && y != "" {
		n, m := digits(x), digits(y)
		if n > 0 && m > 0 {
			p, q := strings.TrimLeft(x[:n], "0"), strings.TrimLeft(y[:m], "0")
			if c := cmp.Or(cmp.Compare(len(p), len(q)), strings.Compare(p, q)); c != 0 {
				return c
			}
			x, y = x[n:], y[m:]
			continue
		}
		if x[0] != y[0] {
			return cmp.Compare(x[0], y[0])
		}
		x, y = x[1:], y[1:]
	}
	return cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(a, b))
}

// clean is every item as it may be shown.
func clean(items []string) []string {
	out := make([]string, len(items))
	for i, s := range items {
		out[i] = show.Clean(s)
	}
	return out
}

// sortedKeys returns the keys of m, sorted.
func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
