package filediff

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// ErrGlob reports a pattern that means nothing.
var ErrGlob = errors.New("bad pattern")

// CheckGlob tells whether a pattern can be used. Patterns are those of
// path.Match for each part between slashes; a part ** fits any number of parts,
// none included. A pattern without a slash fits the last part of a path. A
// pattern that fits a directory fits what is in it.
func CheckGlob(pattern string) error {
	if strings.Trim(pattern, "/") == "" {
		return fmt.Errorf("%w %q: it fits nothing", ErrGlob, pattern)
	}
	for part := range strings.SplitSeq(strings.Trim(pattern, "/"), "/") {
		if _, err := path.Match(part, ""); err != nil {
			return fmt.Errorf("%w %q: %w", ErrGlob, pattern, err)
		}
	}
	return nil
}

// matchGlob tells whether name, or a directory above it, fits.
func matchGlob(pattern, name string) bool {
	names := strings.Split(strings.Trim(name, "/"), "/")
	trimmed := strings.Trim(pattern, "/")
	if !strings.Contains(pattern, "/") {
		for _, n := range names {
			if ok, err := path.Match(trimmed, n); err == nil && ok {
				return true
			}
		}
		return false
	}
	return matchParts(strings.Split(trimmed, "/"), names)
}

// matchParts needs a time that grows with the product of the lengths: a
// hostile path has no say in how often a ** is tried.
func matchParts(pattern, names []string) bool {
	reach := make([]bool, len(names)+1) // reach[j]: the pattern so far can end before names[j]
	reach[0] = true
	for _, part := range pattern {
		next := make([]bool, len(names)+1)
		for j := range reach {
			switch {
			case part == "**":
				next[j] = reach[j] || j > 0 && next[j-1]
			case j > 0 && reach[j-1]:
				ok, err := path.Match(part, names[j-1])
				next[j] = err == nil && ok
			}
		}
		reach = next
	}
	for j := 1; j < len(reach); j++ {
		if reach[j] { // the whole name, or a directory above
			return true
		}
	}
	return false
}

// counts tells whether the file at the end of path counts.
func (o *Options) counts(filePath []string) bool {
	for _, p := range filePath {
		for _, glob := range o.Exclude {
			if matchGlob(glob, p) {
				return false
			}
		}
	}
	if len(o.Only) == 0 {
		return true
	}
	for _, p := range filePath {
		for _, glob := range o.Only {
			if matchGlob(glob, p) {
				return true
			}
		}
	}
	return false
}
