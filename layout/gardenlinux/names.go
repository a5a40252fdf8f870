package gardenlinux

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrName reports a name outside the grammar of ADR 0035.
var ErrName = errors.New("not a Garden Linux name")

// architectures are those that Garden Linux is built for, as Debian, Go and OCI
// spell them.
var architectures = []string{"amd64", "arm64"}

const (
	// versionToday is the version of what is built from the main branch.
	versionToday = "today"
	// commitLocal stands for the commit of a dirty working tree.
	commitLocal = "local"
	// commitLength is that of an abbreviated commit, in hexadecimal digits.
	commitLength = 8
	// maxName bounds a name so that a file name still has room for a suffix.
	maxName = 200
)

// A Name is a name of ADR 0035, in its parts. Which of them are set tells which
// name it is:
//
//	CName                          cname               aws-gardener_prod
//	CName, Arch                    flavor              aws-gardener_prod-amd64
//	CName, Arch, Version           versioned flavor    aws-gardener_prod-amd64-1877.3
//	CName, Arch, Version, Commit   artifact base name  aws-gardener_prod-amd64-1877.3-a1b2c3d4
type Name struct {
	// CName names the features, in the order platform, elements, flags: joined
	// by "-", but for flags, which bring their own "_". Case matters.
	CName string
	// Arch is amd64 or arm64.
	Arch string
	// Version is MAJOR.MINOR.PATCH, MAJOR.MINOR (before 2017.0.0) or today. The
	// patch number is 0 but in forks (ADR 0011). No number is padded.
	Version string
	// Commit is 8 lower-case hexadecimal digits, or local.
	Commit string
}

// ParseName reads any of the four names. What is none of them is [ErrName].
func ParseName(s string) (Name, error) {
	n, err := parseName(s)
	if err != nil {
		return Name{}, fmt.Errorf("%w: %.80q: %w", ErrName, s, err)
	}
	return n, nil
}

func parseName(s string) (Name, error) {
	if len(s) > maxName {
		return Name{}, fmt.Errorf("%d bytes, more than %d", len(s), maxName)
	}
	// No feature is named like an architecture: the first one ends the cname.
	parts := strings.Split(s, "-")
	i := slices.IndexFunc(parts, isArch)
	if i < 0 {
		n := Name{CName: s}
		return n, n.check()
	}
	n := Name{CName: strings.Join(parts[:i], "-"), Arch: parts[i]}
	rest := parts[i+1:]
	if len(rest) > 2 {
		return Name{}, fmt.Errorf("more than a version and a commit after %s", n.Arch)
	}
	if len(rest) > 0 {
		if n.Version = rest[0]; n.Version == "" {
			return Name{}, errors.New("empty version")
		}
	}
	if len(rest) > 1 {
		if n.Commit = rest[1]; n.Commit == "" {
			return Name{}, errors.New("empty commit")
		}
	}
	return n, n.check()
}

// Validate returns [ErrName] if a part that is set breaks the grammar, or one
// before it is not set.
func (n Name) Validate() error {
	if err := n.check(); err != nil {
		return fmt.Errorf("%w: %.80q: %w", ErrName, n.String(), err)
	}
	return nil
}

func (n Name) check() error {
	if _, err := decodeCName(n.CName); err != nil {
		return err
	}
	switch {
	case n.Arch != "" && !isArch(n.Arch):
		return fmt.Errorf("architecture %.20q, want one of %s", n.Arch, strings.Join(architectures, ", "))
	case n.Version != "" && n.Arch == "":
		return errors.New("a version without an architecture")
	case n.Version != "" && !isVersion(n.Version):
		return fmt.Errorf("version %.40q, want MAJOR.MINOR.PATCH, MAJOR.MINOR or %s", n.Version, versionToday)
	case n.Commit != "" && n.Version == "":
		return errors.New("a commit without a version")
	case n.Commit != "" && !isCommit(n.Commit):
		return fmt.Errorf("commit %.40q, want %d hexadecimal digits in lower case or %s", n.Commit, commitLength, commitLocal)
	case len(n.String()) > maxName:
		return fmt.Errorf("%d bytes, more than %d", len(n.String()), maxName)
	}
	return nil
}

// String joins the parts that are set; for a valid name it is the inverse of
// [ParseName].
func (n Name) String() string {
	s := n.CName
	for _, part := range []string{n.Arch, n.Version, n.Commit} {
		if part != "" {
			s += "-" + part
		}
	}
	return s
}

// Flavor returns {cname}-{arch}, or "" unless both are set.
func (n Name) Flavor() string {
	if n.CName == "" || n.Arch == "" {
		return ""
	}
	return n.CName + "-" + n.Arch
}

// VersionedFlavor returns {cname}-{arch}-{version}, or "" unless all are set.
func (n Name) VersionedFlavor() string {
	if n.Flavor() == "" || n.Version == "" {
		return ""
	}
	return n.Flavor() + "-" + n.Version
}

// BaseName returns {cname}-{arch}-{version}-{commit}, the artifact base name,
// with which all files of a build begin. It is "" unless all parts are set.
func (n Name) BaseName() string {
	if n.VersionedFlavor() == "" || n.Commit == "" {
		return ""
	}
	return n.VersionedFlavor() + "-" + n.Commit
}

// RefName returns the flavor in lower case: the ref name inside a .oci file,
// as podman refuses capital letters there. It is "" without an architecture.
func (n Name) RefName() string { return strings.ToLower(n.Flavor()) }

// Features returns the features that the cname names, as [DecodeCName] does;
// nil if it is no cname.
func (n Name) Features() []string {
	features, err := decodeCName(n.CName)
	if err != nil {
		return nil
	}
	return features
}

// EncodeCName joins features, in the given order, to a cname. The order is the
// caller's: platform, elements, flags, each sorted, cannot be told from names
// alone. An empty list, a flag in front, a feature given twice or one that is
// no feature name is [ErrName].
func EncodeCName(features []string) (string, error) {
	var b strings.Builder
	for i, f := range features {
		if i > 0 && !strings.HasPrefix(f, "_") {
			b.WriteByte('-')
		}
		b.WriteString(f)
	}
	cname := b.String()
	decoded, err := DecodeCName(cname)
	if err != nil {
		return "", err
	}
	// A "feature" such as a-b or a_c would come back as two.
	if !slices.Equal(decoded, features) {
		return "", fmt.Errorf("%w: features %.200q", ErrName, features)
	}
	return cname, nil
}

// DecodeCName returns the features of a cname, flags with their "_", in its
// order. It is the inverse of [EncodeCName].
func DecodeCName(cname string) ([]string, error) {
	features, err := decodeCName(cname)
	if err != nil {
		return nil, fmt.Errorf("%w: %.80q: %w", ErrName, cname, err)
	}
	return features, nil
}

func decodeCName(cname string) ([]string, error) {
	if len(cname) > maxName {
		return nil, fmt.Errorf("cname of %d bytes, more than %d", len(cname), maxName)
	}
	if cname == "" || cname[0] < 'a' || cname[0] > 'z' {
		return nil, errors.New("cname does not begin with a lower-case letter")
	}
	features := strings.Split(strings.ReplaceAll(cname, "_", "-_"), "-")
	for i, f := range features {
		switch {
		case !isAlphanumeric(strings.TrimPrefix(f, "_")):
			return nil, fmt.Errorf("feature %.40q, want letters and digits, after a \"_\" if it is a flag", f)
		case isArch(f):
			return nil, fmt.Errorf("feature %q is an architecture", f)
		case slices.Contains(features[:i], f):
			return nil, fmt.Errorf("feature %q twice", f)
		}
	}
	return features, nil
}

func isArch(s string) bool { return slices.Contains(architectures, s) }

func isAlphanumeric(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return s != ""
}

func isVersion(s string) bool {
	if s == versionToday {
		return true
	}
	numbers := strings.Split(s, ".")
	return (len(numbers) == 2 || len(numbers) == 3) && !slices.ContainsFunc(numbers, func(n string) bool { return !isNumber(n) })
}

// isNumber wants no padding (ADR 0011), and what fits an int32.
func isNumber(s string) bool {
	if s == "" || len(s) > 9 || (s[0] == '0' && len(s) > 1) {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func isCommit(s string) bool { return s == commitLocal || len(s) == commitLength && isHex(s) }

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// splitFileName cuts the name of a build's file into the artifact base name and
// what follows the dot after it. It is false for all other files.
func splitFileName(file string) (n Name, suffix string, ok bool) {
	// A version has dots and a suffix may have a "-" (secureboot.aws-efivars), so
	// count from the architecture: the commit ends at the first dot behind the
	// second "-".
	parts := strings.Split(file, "-")
	i := slices.IndexFunc(parts, isArch)
	if i < 1 || len(parts) < i+3 {
		return Name{}, "", false
	}
	commit, _, found := strings.Cut(parts[i+2], ".")
	if !found {
		return Name{}, "", false
	}
	base := strings.Join(parts[:i+2], "-") + "-" + commit
	suffix = file[len(base)+1:]
	if suffix == "" {
		return Name{}, "", false
	}
	n, err := ParseName(base)
	if err != nil || n.Commit == "" {
		return Name{}, "", false
	}
	return n, suffix, true
}
