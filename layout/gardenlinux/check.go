package gardenlinux

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gardenlinux/gloci-layout/layout"
)

var (
	// ErrDisagree reports two sources that contradict each other; a
	// [DisagreeError] has both.
	ErrDisagree = errors.New("disagreement")
	// ErrMissing reports layers that a flavor must have; a [MissingError] lists
	// them.
	ErrMissing = errors.New("missing layers")
)

// A DisagreeError names two values for one thing, and where each came from. It
// is an [ErrDisagree].
type DisagreeError struct {
	What                  string // such as "version"
	Value, From           string
	OtherValue, OtherFrom string
}

func (e *DisagreeError) Error() string {
	return fmt.Sprintf("%s is %q in %s, but %q in %s", e.What, e.Value, e.From, e.OtherValue, e.OtherFrom)
}

// Is tells errors.Is that e is an [ErrDisagree].
func (e *DisagreeError) Is(target error) bool { return target == ErrDisagree }

// A MissingError lists the required layers that a flavor lacks. It is an
// [ErrMissing].
type MissingError struct {
	Name    Name
	Missing []string // as in [Flavor].Required
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("%s: %v: %s", e.Name, ErrMissing, strings.Join(e.Missing, ", "))
}

// Is tells errors.Is that e is an [ErrMissing].
func (e *MissingError) Is(target error) bool { return target == ErrMissing }

// readRelease reads the .release file of a flavor and compares it with the
// names of the files.
func (b *build) readRelease(f *Flavor) {
	files := f.titles(mediaTypeRelease)
	if len(files) == 0 {
		return
	}
	if len(files) > 1 {
		b.failf("%s: %w: %d files say what it is: %s", filepath.Join(b.dir, f.Name.BaseName()), layout.ErrAmbiguous, len(files), strings.Join(files, ", "))
		return
	}
	where := filepath.Join(b.dir, files[0])
	raw, err := b.readSmall(files[0], maxRelease)
	if err != nil {
		b.fail(err)
		return
	}
	r, err := ParseRelease(raw)
	if err != nil {
		b.failf("%s: %w", where, err)
		return
	}
	if r.FeatureSet == "" {
		b.log.Warn("no GARDENLINUX_FEATURES: the manifest will have no feature_set", "file", where)
	}
	f.Release = r
	b.errs = append(b.errs, r.compare(f.Name, where)...)
}

// compare returns what r says against n.
func (r *Release) compare(n Name, where string) []error {
	var errs []error
	files := "the names of the files"
	disagree := func(what, value, key, other string) {
		errs = append(errs, &DisagreeError{what, value, fmt.Sprintf("%s (%s)", where, key), other, files})
	}
	if r.CName != "" {
		const key = "GARDENLINUX_CNAME"
		c, err := ParseName(r.CName)
		if err != nil {
			disagree("cname", r.CName, key, n.VersionedFlavor())
		}
		for _, p := range parts(c, n) {
			if p.value != p.other {
				disagree(p.what, p.value, key, p.other)
			}
		}
	}
	// VARIANT_ID is a key of os-release(5), so a derivative may use it for
	// something else. It may not hold capital letters there, hence the folding.
	if v, err := ParseName(r.Variant); err == nil && v.Arch != "" {
		for _, p := range parts(v, n) {
			if !strings.EqualFold(p.value, p.other) {
				disagree(p.what, p.value, "VARIANT_ID", p.other)
			}
		}
	}
	if r.Version != "" && r.Version != n.Version {
		disagree("version", r.Version, "GARDENLINUX_VERSION", n.Version)
	}
	if r.Commit != "" && !sameCommit(r.Commit, n.Commit) {
		disagree("commit", r.Commit, "GARDENLINUX_COMMIT_ID", n.Commit)
	}
	if r.CommitLong != "" && !sameCommit(r.CommitLong, n.Commit) {
		disagree("commit", r.CommitLong, "GARDENLINUX_COMMIT_ID_LONG", n.Commit)
	}
	// The cname has the minimal feature set; the file has those and all that
	// they include.
	if len(r.Features) > 0 {
		for _, feature := range n.Features() {
			if !slices.Contains(r.Features, feature) {
				disagree("feature set", strings.Join(r.Features, ","), "GARDENLINUX_FEATURES", n.CName)
				break
			}
		}
	}
	return errs
}

// minCommit is the shortest abbreviation that git makes of its own accord. Old
// images have it.
const minCommit = 7

// sameCommit compares abbreviated hashes, of which one may be longer.
func sameCommit(a, b string) bool {
	if len(a) < minCommit || len(b) < minCommit || !isHex(a) || !isHex(b) {
		return a == b
	}
	return strings.HasPrefix(a, b) || strings.HasPrefix(b, a)
}

type part struct{ what, value, other string }

// parts pairs what is set in n with the same part of other.
func parts(n, other Name) []part {
	all := []part{
		{"cname", n.CName, other.CName},
		{"architecture", n.Arch, other.Arch},
		{"version", n.Version, other.Version},
		{"commit", n.Commit, other.Commit},
	}
	return slices.DeleteFunc(all, func(p part) bool { return p.value == "" })
}

// compareWant compares the names of the files with what the caller expects.
func (b *build) compareWant(n Name) {
	for _, p := range parts(b.opts.Want, n) {
		if p.value != p.other {
			b.fail(&DisagreeError{p.what, p.value, "what was asked for", p.other, filepath.Join(b.dir, n.BaseName()) + ".*"})
		}
	}
}

// Check finds what cannot go into one index together: two builds that have the
// same [Key], of which the second would replace the first, and two container
// images for one platform. The error joins all, each a [layout.ErrConflict].
func Check(flavors []Flavor) error {
	var errs []error
	builds := make(map[string]Name)
	images := make(map[string]Name)
	for _, f := range flavors {
		key := f.Name.VersionedFlavor()
		if before, twice := builds[key]; twice {
			errs = append(errs, fmt.Errorf("%w: %s and %s are two builds of one flavor and version", layout.ErrConflict, before, f.Name))
			continue
		}
		builds[key] = f.Name
		if f.titles(MediaTypeOCI) == nil {
			continue
		}
		platform := "linux/" + f.Name.Arch
		if before, twice := images[platform]; twice {
			errs = append(errs, layout.WithHint(
				fmt.Errorf("%w: %s and %s both have a container image for %s", layout.ErrConflict, before, f.Name, platform),
				"add them under two ref names: an index has one image for a platform"))
			continue
		}
		images[platform] = f.Name
	}
	return errors.Join(errs...)
}
