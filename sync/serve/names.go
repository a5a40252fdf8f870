package serve

import (
	"path/filepath"
	"strings"

	"github.com/gardenlinux/gloci-layout/layout"
)

const (
	maxNameLength = 255
	maxTagLength  = 128
)

func isAlphanumeric(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

// isName tells whether s is the name of a repository: components of letters and
// digits with ".", "_", "__" or any number of "-" between them.
func isName(s string) bool {
	if len(s) > maxNameLength {
		return false
	}
	for component := range strings.SplitSeq(s, "/") {
		if !isComponent(component) {
			return false
		}
	}
	return true
}

func isComponent(s string) bool {
	for {
		n := 0
		for n < len(s) && isAlphanumeric(s[n]) {
			n++
		}
		if n == 0 {
			return false
		}
		if s = s[n:]; s == "" {
			return true
		}
		separator := len(s) - len(strings.TrimLeft(s, s[:1]))
		switch {
		case s[0] == '.' && separator == 1, s[0] == '_' && separator <= 2, s[0] == '-':
			s = s[separator:]
		default:
			return false
		}
	}
}

// isTag tells whether s may be a tag.
func isTag(s string) bool {
	if s == "" || len(s) > maxTagLength || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !isAlphanumeric(c) && (c < 'A' || c > 'Z') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

// SplitHost cuts the host off a name, as in ghcr.io/gardenlinux/gardenlinux. A
// host has a dot or a port, or is localhost; the host of other names is "".
func SplitHost(name string) (host, repository string) {
	first, rest, ok := strings.Cut(name, "/")
	if ok && (strings.ContainsAny(first, ".:") || first == "localhost") {
		return first, rest
	}
	return "", name
}

// SplitRefName returns what a ref name is in a registry: [host/]repository:tag
// names a repository, anything else is a tag of the repository of the source,
// for which host and repository are "". False means that it can be no tag.
func SplitRefName(refName string) (host, repository, tag string, ok bool) {
	tag = refName
	if colon := strings.LastIndexByte(refName, ':'); colon > strings.LastIndexByte(refName, '/') {
		host, repository = SplitHost(refName[:colon])
		tag = refName[colon+1:]
		if !isName(repository) {
			return "", "", "", false
		}
	}
	return host, repository, tag, isTag(tag)
}

// NameOf makes the name of a repository from the path of a source: its base name
// without the endings of archives, in lower case.
func NameOf(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs // "." has a name, too
	}
	name := strings.ToLower(strings.TrimSuffix(filepath.Base(path), layout.PartsSuffix))
	for _, suffix := range []string{".gz", ".zst", ".tgz", ".tar", ".oci"} {
		name = strings.TrimSuffix(name, suffix)
	}
	var b strings.Builder
	pending := byte(0)
	for i := range len(name) {
		switch c := name[i]; {
		case isAlphanumeric(c):
			if pending != 0 && b.Len() > 0 {
				b.WriteByte(pending)
			}
			pending = 0
			b.WriteByte(c)
		case pending == 0 && (c == '.' || c == '_'):
			pending = c
		default:
			pending = '-'
		}
	}
	if b.Len() == 0 {
		return "layout"
	}
	return b.String()
}
