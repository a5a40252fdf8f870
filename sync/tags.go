package sync

import (
	"fmt"
	"path"
	"regexp"
	"slices"

	"github.com/Masterminds/semver/v3"

	"github.com/gardenlinux/gloci-layout/layout"
)

// A TagFilter chooses tags of a repository: those that fit any of Globs,
// Regexps and Semver, or all with All; without those that fit one of Exclude.
type TagFilter struct {
	All     bool
	Globs   []string // as in path.Match
	Regexps []string // RE2; the whole tag has to fit
	Semver  []string // ranges of versions, such as ">=1877 <2000"
	Exclude []string // globs
}

// Empty tells whether the filter asks for no tags.
func (f *TagFilter) Empty() bool {
	return !f.All && len(f.Globs)+len(f.Regexps)+len(f.Semver) == 0
}

// Compile returns the filter as a function, which keeps the order of the tags.
// A pattern that cannot be read is [layout.ErrInvalid].
func (f *TagFilter) Compile() (func(tags []string) []string, error) {
	for _, g := range slices.Concat(f.Globs, f.Exclude) {
		if _, err := path.Match(g, ""); err != nil {
			return nil, fmt.Errorf("%w glob %q", layout.ErrInvalid, g)
		}
	}
	var tests []func(tag string) bool
	if f.All {
		tests = append(tests, func(string) bool { return true })
	}
	for _, g := range f.Globs {
		tests = append(tests, func(tag string) bool { return fitsGlob(g, tag) })
	}
	for _, s := range f.Regexps {
		re, err := regexp.Compile(`^(?:` + s + `)$`)
		if err != nil {
			return nil, fmt.Errorf("%w regular expression %q", layout.ErrInvalid, s)
		}
		tests = append(tests, re.MatchString)
	}
	for _, s := range f.Semver {
		c, err := semver.NewConstraint(s)
		if err != nil {
			return nil, fmt.Errorf("%w range of versions %q", layout.ErrInvalid, s)
		}
		tests = append(tests, func(tag string) bool {
			v, err := semver.NewVersion(tag)
			return err == nil && c.Check(v)
		})
	}
	return func(tags []string) []string {
		var chosen []string
		for _, tag := range tags {
			fits := func(test func(string) bool) bool { return test(tag) }
			excluded := func(g string) bool { return fitsGlob(g, tag) }
			if slices.ContainsFunc(tests, fits) && !slices.ContainsFunc(f.Exclude, excluded) {
				chosen = append(chosen, tag)
			}
		}
		return chosen
	}, nil
}

func fitsGlob(glob, tag string) bool {
	ok, _ := path.Match(glob, tag) // it was looked at before
	return ok
}
