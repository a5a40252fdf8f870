package content

import (
	"strings"
)

const (
	maxNameLength = 255
	maxTagLength  = 128
)

func isAlphanumeric(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

// IsName tells whether s is the name of a repository: components of letters and
// digits with ".", "_", "__" or any number of "-" between them.
func IsName(s string) bool {
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

// SplitHost cuts the host off a name; see SplitHost of package serve.
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
		if !IsName(repository) {
			return "", "", "", false
		}
	}
	return host, repository, tag, isTag(tag)
}
