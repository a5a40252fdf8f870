package layout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/internal/pattern"
)

// RefName returns the ref name of an entry of index.json, "" if it has none.
func RefName(desc ocispec.Descriptor) string {
	return desc.Annotations[ocispec.AnnotationRefName]
}

// The ref names that we write: those of the grammar in annotations.md
// ("org.opencontainers.image.ref.name"), and those that a registry takes, which
// may hold underscores: a tag, or [host[:port]/]repository:tag.
var (
	refNameGrammar   = pattern.New(`^[A-Za-z0-9]+(([-._:@+]|--)[A-Za-z0-9]+)*(/[A-Za-z0-9]+(([-._:@+]|--)[A-Za-z0-9]+)*)*$`)
	referenceGrammar = pattern.New(`^(([A-Za-z0-9.-]+(:[0-9]+)?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*:)?[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
)

// maxRefName bounds a ref name in bytes: a host, a repository of 255 and a tag
// of 128 fit.
const maxRefName = 512

// ValidateRefName tells whether s may be written as a ref name; if not, the
// error is [ErrInvalid].
func ValidateRefName(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("%w ref name: it is empty", ErrInvalid)
	case len(s) > maxRefName:
		return fmt.Errorf("%w ref name: %d bytes, more than %d", ErrInvalid, len(s), maxRefName)
	case !refNameGrammar.MatchString(s) && !referenceGrammar.MatchString(s):
		return fmt.Errorf("%w ref name %q", ErrInvalid, s)
	}
	return nil
}

// FindRef returns the numbers of the entries with this ref name. If none has
// it, those whose ref name is a full reference (host/repository:tag) with name
// as its tag.
func (x *Index) FindRef(name string) []int {
	var exact, tagged []int
	for i, e := range x.entries {
		switch have := RefName(e.desc); {
		case have == "":
		case have == name:
			exact = append(exact, i)
		case strings.HasSuffix(have, ":"+name) && strings.Contains(have, "/"):
			tagged = append(tagged, i)
		}
	}
	if len(exact) > 0 {
		return exact
	}
	return tagged
}

// PartsSuffix ends the name of the manifest of an archive that is split into
// parts; see package layout/archive/parts.
const PartsSuffix = ".parts.json"

// A Reference names content of a source: TRANSPORT:LOCATION[:REFNAME][@DIGEST].
type Reference struct {
	Transport string // "oci", "oci-archive", "docker-archive", "docker" or "dir"
	Location  string // a path; for docker HOST/REPOSITORY
	RefName   string // ref name, tag, or NAME:TAG of a docker-archive; "" for all
	Digest    digest.Digest
}

// String returns the reference as [ParseReference] reads it.
func (r Reference) String() string {
	s := r.Transport + ":"
	if r.Transport == "docker" {
		s += "//"
	}
	s += r.Location
	if r.RefName != "" {
		s += ":" + r.RefName
	}
	if r.Digest != "" {
		s += "@" + string(r.Digest)
	}
	return s
}

// ParseReference reads what a user names a source with. Without a transport, a
// directory is taken as oci and a file as oci-archive, also one of which there are
// only parts; a path of either may hold colons if it exists. Errors are [ErrInvalid].
func ParseReference(s string) (Reference, error) {
	if rest, ok := strings.CutPrefix(s, "docker://"); ok {
		return parseRegistry(s, rest)
	}
	r := Reference{}
	rest := s
	for _, transport := range []string{"oci", "oci-archive", "docker-archive", "dir"} {
		if after, ok := strings.CutPrefix(s, transport+":"); ok {
			r.Transport, rest = transport, after
		}
	}
	if prefix, _, ok := strings.Cut(rest, "://"); ok && r.Transport == "" {
		return Reference{}, fmt.Errorf("%w reference %q: unknown transport %q", ErrInvalid, s, prefix)
	}
	var err error
	if r.Location, r.RefName, r.Digest, err = splitPath(rest); err != nil {
		return Reference{}, fmt.Errorf("reference %q: %w", s, err)
	}
	if r.Location == "" {
		return Reference{}, fmt.Errorf("%w reference %q: no path", ErrInvalid, s)
	}
	if r.Transport == "" {
		r.Transport = "oci"
		if info, err := os.Stat(r.Location); err == nil && !info.IsDir() || errors.Is(err, fs.ErrNotExist) && exists(r.Location) {
			r.Transport = "oci-archive"
		}
	}
	return r, nil
}

// splitPath cuts PATH[:REFNAME][@DIGEST]. The path is the longest beginning
// that exists, else it ends at the first colon.
func splitPath(s string) (path, refName string, d digest.Digest, err error) {
	if exists(s) {
		return s, "", "", nil
	}
	if at := strings.LastIndexByte(s, '@'); at >= 0 && strings.ContainsRune(s[at:], ':') {
		if d, err = ParseDigest(s[at+1:]); err != nil {
			return "", "", "", err
		}
		s = s[:at]
	}
	if exists(s) {
		return s, "", d, nil
	}
	first := strings.IndexByte(s, ':')
	if first < 0 {
		return s, "", d, nil
	}
	for at := strings.LastIndexByte(s, ':'); at > first; at = strings.LastIndexByte(s[:at], ':') {
		if exists(s[:at]) {
			return s[:at], s[at+1:], d, nil
		}
	}
	return s[:first], s[first+1:], d, nil
}

// exists tells whether there is something at path, also an archive in parts.
func exists(path string) bool {
	if path == "" {
		return false
	}
	for _, p := range []string{path, path + PartsSuffix} {
		if _, err := os.Stat(p); err == nil {
			return true
		}
	}
	return false
}

// parseRegistry cuts HOST/REPOSITORY[:TAG][@DIGEST]; package sync checks the
// names themselves.
func parseRegistry(s, rest string) (Reference, error) {
	r := Reference{Transport: "docker"}
	if at := strings.IndexByte(rest, '@'); at >= 0 {
		d, err := ParseDigest(rest[at+1:])
		if err != nil {
			return Reference{}, fmt.Errorf("reference %q: %w", s, err)
		}
		rest, r.Digest = rest[:at], d
	}
	slash := strings.IndexByte(rest, '/')
	if colon := strings.LastIndexByte(rest, ':'); colon > slash && slash >= 0 {
		rest, r.RefName = rest[:colon], rest[colon+1:]
		if r.RefName == "" {
			return Reference{}, fmt.Errorf("%w reference %q: the tag is empty", ErrInvalid, s)
		}
	}
	if slash <= 0 || slash == len(rest)-1 {
		return Reference{}, fmt.Errorf("%w reference %q: want docker://HOST/REPOSITORY", ErrInvalid, s)
	}
	r.Location = rest
	return r, nil
}

// Resolve returns the descriptors that a ref name or a digest names: with
// neither all entries of index.json, with a ref name the entries that have it
// ([Index.FindRef]), with a digest the first descriptor with it, searched from
// there at any depth. What is not there is [ErrNotFound].
func Resolve(ctx context.Context, src Source, refName string, d digest.Digest) ([]ocispec.Descriptor, error) {
	x, err := src.Index(ctx)
	if err != nil {
		return nil, err
	}
	roots := x.Entries()
	if refName != "" {
		found := x.FindRef(refName)
		if len(found) == 0 {
			return nil, noRef(src, refName, roots)
		}
		named := make([]ocispec.Descriptor, len(found))
		for i, n := range found {
			named[i] = roots[n]
		}
		roots = named
	}
	if d == "" {
		return roots, nil
	}
	desc, err := findDigest(ctx, src, roots, d)
	if err != nil {
		return nil, err
	}
	return []ocispec.Descriptor{desc}, nil
}

func noRef(src Source, refName string, entries []ocispec.Descriptor) error {
	var names []string
	seen := map[string]bool{"": true}
	for _, desc := range entries {
		if name := RefName(desc); !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	err := fmt.Errorf("%s: ref name %q: %w", src, refName, ErrNotFound)
	switch {
	case len(names) == 0:
		return WithHint(err, "no entry has a ref name; name one with @DIGEST")
	case len(names) > 8:
		return WithHint(err, fmt.Sprintf("there are %d ref names, %s ... %s", len(names), strings.Join(names[:6], " "), names[len(names)-1]))
	}
	return WithHint(err, "there are: "+strings.Join(names, " "))
}

// findDigest looks in the documents near the root first, so that the common
// case reads few of them.
func findDigest(ctx context.Context, src Source, roots []ocispec.Descriptor, d digest.Digest) (ocispec.Descriptor, error) {
	for _, desc := range roots {
		if desc.Digest == d {
			return desc, nil
		}
	}
	for _, opts := range []*WalkOptions{{DocumentsOnly: true, indexesOnly: true}, {}} {
		for n, err := range Walk(ctx, src, roots, opts) {
			if err != nil {
				return ocispec.Descriptor{}, err
			}
			if n.Document == nil || !n.Document.IsIndex {
				if n.Desc.Digest == d {
					return n.Desc, nil
				}
				continue
			}
			for _, desc := range n.Document.Manifests {
				if desc.Digest == d {
					return desc, nil
				}
			}
		}
	}
	return ocispec.Descriptor{}, fmt.Errorf("%s: %s: %w", src, d, ErrNotFound)
}

// ResolveOne is [Resolve] where exactly one descriptor is wanted; more are an
// [AmbiguousError]. Entries that repeat one descriptor count once.
func ResolveOne(ctx context.Context, src Source, refName string, d digest.Digest) (ocispec.Descriptor, error) {
	descs, err := Resolve(ctx, src, refName, d)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if len(descs) == 0 {
		return ocispec.Descriptor{}, fmt.Errorf("%s: index.json has no entries: %w", src, ErrNotFound)
	}
	var matches []Match
	seen := make(map[digest.Digest]bool, len(descs))
	for _, desc := range descs {
		if !seen[desc.Digest] {
			seen[desc.Digest] = true
			matches = append(matches, Match{Desc: desc, RefName: RefName(desc)})
		}
	}
	if len(matches) > 1 {
		return ocispec.Descriptor{}, WithHint(&AmbiguousError{What: strings.TrimSuffix(src.String()+":"+refName, ":"), Candidates: matches},
			"name one with :REFNAME or @DIGEST")
	}
	return descs[0], nil
}
