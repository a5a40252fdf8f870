package layout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout/internal/strictjson"
)

// A Selector chooses manifests. Every field that is set has to fit. Where the
// entry of a manifest alone tells that it does not fit (by its digest, platform
// or artifact type), the manifest is not read.
type Selector struct {
	Digest       string            // all of a digest, or the first 12 or more hex digits, with or without the algorithm
	Platform     *ocispec.Platform // os and architecture, and variant where set; a manifest without platform never fits
	ArtifactType string
	Annotations  map[string]string // of the manifest or of the entry that names it
	Attestations bool              // attestation manifests are searched too

	// Match is a further test; nil passes all. What says in messages what it asks
	// for, as "cname kvm".
	Match func(desc ocispec.Descriptor, doc *Document) bool
	What  string
	// Skip tells that desc, the entry of a manifest, alone is reason enough not
	// to read it: it cannot pass Match. Nil skips none.
	Skip func(desc ocispec.Descriptor) bool
}

// A Match is a manifest that a [Selector] chose.
type Match struct {
	Desc     ocispec.Descriptor
	Document *Document
	Parents  []ocispec.Descriptor // from the root down
	RefName  string               // of the root
}

// String returns one line with what tells candidates apart, the digest ready
// to be pasted.
func (m Match) String() string { return m.line(nil) }

// line is String, with all of an operand in place of the digest where source
// is given.
func (m Match) line(source *Reference) string {
	name := "@" + string(m.Desc.Digest)
	if source != nil {
		name = quote(Reference{Transport: source.Transport, Location: source.Location, Digest: m.Desc.Digest}.String())
	}
	parts := []string{name, m.Desc.MediaType}
	if p := m.Desc.Platform; p != nil {
		parts = append(parts, FormatPlatform(*p))
	}
	if m.Document != nil && m.Document.ArtifactType != "" {
		parts = append(parts, "artifactType="+m.Document.ArtifactType)
	}
	if cname := annotated(m.Desc, m.Document, "cname"); cname != "" {
		parts = append(parts, "cname="+cname)
	}
	if m.RefName != "" {
		parts = append(parts, "ref="+m.RefName)
	}
	return strings.Join(parts, "  ")
}

// quote returns s as a shell takes it for one word.
func quote(s string) string {
	plain := func(r rune) bool {
		return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("@%+=:,./_-", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// ParsePlatform reads os/architecture[/variant]; anything else is
// [ErrInvalid].
func ParsePlatform(s string) (*ocispec.Platform, error) {
	parts := strings.Split(s, "/")
	if len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, "") {
		return nil, fmt.Errorf("%w platform %q: want os/architecture[/variant]", ErrInvalid, s)
	}
	p := &ocispec.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p, nil
}

// FormatPlatform is the inverse of [ParsePlatform].
func FormatPlatform(p ocispec.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// Select returns the manifests below roots that sel chooses, depth first in
// listed order, each digest once. Subjects are not searched. None is no error.
func Select(ctx context.Context, src Source, roots []ocispec.Descriptor, sel Selector) ([]Match, error) {
	var matches []Match
	err := sel.search(ctx, src, roots, &survey{}, func(m Match) error {
		matches = append(matches, m)
		return nil
	})
	return matches, err
}

// search calls found for each manifest that sel chooses, and tells seen of those
// that it does not.
func (sel Selector) search(ctx context.Context, src Source, roots []ocispec.Descriptor, seen *survey, found func(Match) error) error {
	if err := sel.check(); err != nil {
		return err
	}
	opts := &WalkOptions{NoSubjects: true, DocumentsOnly: true, pass: func(desc ocispec.Descriptor) bool {
		if !sel.Attestations && IsAttestation(desc) {
			seen.attestation(desc)
			return false
		}
		if sel.mayFit(desc) {
			return true
		}
		seen.add(desc, nil)
		return false
	}}
	for n, err := range Walk(ctx, src, roots, opts) {
		if err != nil {
			return err
		}
		if n.Document == nil || n.Document.IsIndex {
			continue
		}
		if !sel.Attestations && n.Document.ArtifactType == attestationType {
			seen.attestation(n.Desc)
			continue
		}
		fits, err := sel.fits(ctx, src, n)
		if err != nil {
			return err
		}
		if !fits {
			seen.add(n.Desc, n.Document)
			continue
		}
		m := Match{Desc: n.Desc, Document: n.Document, Parents: n.Parents, RefName: RefName(n.Desc)}
		if len(n.Parents) > 0 {
			m.RefName = RefName(n.Parents[0])
		}
		if err := found(m); err != nil {
			return err
		}
	}
	return nil
}

// SelectOne is [Select] where exactly one manifest is wanted: none is
// [ErrNotFound], more are an [AmbiguousError].
func SelectOne(ctx context.Context, src Source, roots []ocispec.Descriptor, sel Selector) (Match, error) {
	matches, err := Select(ctx, src, roots, sel)
	switch {
	case err != nil:
		return Match{}, err
	case len(matches) == 0:
		return Match{}, fmt.Errorf("%s: %s: %w", src, sel, ErrNotFound)
	case len(matches) > 1:
		return Match{}, WithHint(&AmbiguousError{What: src.String() + ": " + sel.String(), Candidates: matches}, "choose one with --digest")
	}
	return matches[0], nil
}

// String returns the selector as the flags that make it.
func (sel Selector) String() string {
	var parts []string
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+" "+value)
		}
	}
	add("digest", sel.Digest)
	if sel.Platform != nil {
		add("platform", FormatPlatform(*sel.Platform))
	}
	add("artifact type", sel.ArtifactType)
	for k, v := range sel.Annotations {
		add("annotation", k+"="+v)
	}
	slices.Sort(parts)
	if sel.What != "" {
		parts = append(parts, sel.What)
	}
	if len(parts) == 0 {
		return "manifest"
	}
	return "manifest with " + strings.Join(parts, ", ")
}

func (sel Selector) check() error {
	if sel.Digest == "" {
		return nil
	}
	if _, err := ParseDigest(sel.Digest); err == nil {
		return nil
	}
	hex := sel.Digest
	if algorithm, rest, ok := strings.Cut(hex, ":"); ok && (algorithm == "sha256" || algorithm == "sha512") {
		hex = rest
	}
	if len(hex) < 12 || !isHex(hex) {
		return fmt.Errorf("%w digest %.140q: want a whole digest or 12 or more of its hex digits", ErrInvalid, sel.Digest)
	}
	return nil
}

func digestFits(d digest.Digest, want string) bool {
	return strings.HasPrefix(string(d), want) || strings.HasPrefix(d.Encoded(), want)
}

// mayFit is false if desc, the entry of a manifest, alone tells that it does not
// fit.
func (sel Selector) mayFit(desc ocispec.Descriptor) bool {
	switch {
	case !digestFits(desc.Digest, sel.Digest),
		sel.Platform != nil && desc.Platform != nil && !PlatformFits(*desc.Platform, *sel.Platform),
		sel.ArtifactType != "" && desc.ArtifactType != "" && desc.ArtifactType != sel.ArtifactType:
		return false
	}
	return sel.Skip == nil || !sel.Skip(desc)
}

func (sel Selector) fits(ctx context.Context, src Source, n Node) (bool, error) {
	if !sel.mayFit(n.Desc) {
		return false, nil
	}
	if sel.ArtifactType != "" && sel.ArtifactType != n.Document.ArtifactType {
		return false, nil
	}
	for k, v := range sel.Annotations {
		if have, ok := n.Desc.Annotations[k]; ok && have == v {
			continue
		}
		if have, ok := n.Document.Annotations[k]; !ok || have != v {
			return false, nil
		}
	}
	if sel.Match != nil && !sel.Match(n.Desc, n.Document) {
		return false, nil
	}
	if sel.Platform == nil {
		return true, nil
	}
	p, err := ImagePlatform(ctx, src, n.Desc, n.Document)
	if err != nil || p == nil {
		return false, err
	}
	return PlatformFits(*p, *sel.Platform), nil
}

// PlatformFits tells whether p is what want asks for: the same os and
// architecture, and the same variant where want names one.
func PlatformFits(p, want ocispec.Platform) bool {
	return p.OS == want.OS && p.Architecture == want.Architecture && (want.Variant == "" || p.Variant == want.Variant)
}

// ImagePlatform returns the platform of a manifest: what its descriptor says,
// else what the config of an image says; nil where neither does.
func ImagePlatform(ctx context.Context, src Source, desc ocispec.Descriptor, doc *Document) (*ocispec.Platform, error) {
	if desc.Platform != nil {
		p := *desc.Platform
		return &p, nil
	}
	if doc == nil || !doc.IsImage() {
		return nil, nil
	}
	raw, err := ReadAll(ctx, src, *doc.Config, MaxDocument)
	if err != nil {
		return nil, err
	}
	return configPlatform(*doc.Config, raw)
}

// configPlatform reads the platform of an image config, whose fields have the
// names of a platform's (config.md, "Properties"); nil where it has none.
func configPlatform(desc ocispec.Descriptor, raw []byte) (*ocispec.Platform, error) {
	v, err := strictjson.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("config %s: %w: %w", desc.Digest, ErrInvalid, err)
	}
	p, err := decodePlatform(v)
	if err != nil {
		return nil, fmt.Errorf("config %s: %w", desc.Digest, err)
	}
	if p == nil || p.OS == "" || p.Architecture == "" {
		return nil, nil
	}
	return p, nil
}

// Beside returns the artifact manifests, no images and no attestations, that
// stand in the same index as m, in listed order; beside an entry of index.json
// there are none.
func Beside(ctx context.Context, src Source, m Match) ([]Match, error) {
	if len(m.Parents) == 0 {
		return nil, nil
	}
	above := m.Parents[len(m.Parents)-1]
	doc, err := ReadDocument(ctx, src, above)
	if err != nil {
		return nil, err
	}
	var beside []Match
	for _, desc := range doc.Manifests {
		if desc.Digest == m.Desc.Digest || !IsManifest(desc.MediaType) || IsAttestation(desc) {
			continue
		}
		other, err := ReadDocument(ctx, src, desc)
		if errors.Is(err, ErrNotFound) {
			continue // a sparse index
		}
		if err != nil {
			return nil, err
		}
		if !other.IsImage() {
			beside = append(beside, Match{Desc: desc, Document: other, Parents: m.Parents, RefName: m.RefName})
		}
	}
	return beside, nil
}
