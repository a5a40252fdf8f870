package layout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/internal/pattern"
)

// ReferredBy says how a referrer names what it refers to.
type ReferredBy string

// How referrers name what they refer to.
const (
	// BySubject is the field subject of a manifest or index.
	BySubject ReferredBy = "subject"
	// ByRefName is a ref name made of the digest: sha256-HEX.sig, .att or .sbom
	// as cosign writes it, or sha256-HEX, the list of referrers of registries
	// that keep none (distribution-spec, "Referrers Tag Schema").
	ByRefName ReferredBy = "refName"
	// ByAnnotation is the annotation that BuildKit gives the entry of an
	// attestation.
	ByAnnotation ReferredBy = "annotation"
)

// A Referrer is a document that says something about another one: a signature,
// an attestation, an SBOM.
type Referrer struct {
	Desc    ocispec.Descriptor // as it is listed, with the artifact type of the document
	Subject digest.Digest      // what it refers to
	By      ReferredBy
}

// A ReferrerLister is a [Source] that knows what refers to a digest without
// reading all that it has: a repository of a registry. What it returns stands
// for all but attestations of BuildKit.
type ReferrerLister interface {
	Referrers(ctx context.Context, d digest.Digest) ([]Referrer, error)
}

const annotationAttested = "vnd.docker.reference.digest"

// attestedDigest returns what an attestation of BuildKit is about, or "".
func attestedDigest(desc ocispec.Descriptor) digest.Digest {
	if !IsAttestation(desc) {
		return ""
	}
	d, err := ParseDigest(desc.Annotations[annotationAttested])
	if err != nil {
		return ""
	}
	return d
}

var referrerGrammar = pattern.New(`^(sha256-[0-9a-f]{64}|sha512-[0-9a-f]{119,128})(\.(?:sig|att|sbom))?$`)

// referrerRefName returns the digest that a ref name of a referrer is made of;
// list tells whether it is that of a list of referrers. Other ref names give "".
// A registry cuts the name of a sha512 list at 128 characters; such a name is
// no digest, and is not taken for one.
func referrerRefName(refName string) (d digest.Digest, list bool) {
	m := referrerGrammar.FindStringSubmatch(refName[strings.LastIndexByte(refName, ':')+1:])
	if m == nil {
		return "", false
	}
	d, err := ParseDigest(strings.Replace(m[1], "-", ":", 1))
	if err != nil {
		return "", false
	}
	return d, m[2] == ""
}

// moveRefName puts one digest in the place of another in a ref name.
func moveRefName(refName string, from, to digest.Digest) string {
	dashed := func(d digest.Digest) string { return strings.Replace(string(d), ":", "-", 1) }
	i := strings.LastIndexByte(refName, ':') + 1
	return refName[:i] + strings.Replace(refName[i:], dashed(from), dashed(to), 1)
}

// IsReferrerRefName tells whether refName, a tag or a full reference, is made
// of the digest that its content refers to: sha256-HEX, or that with .sig, .att
// or .sbom.
func IsReferrerRefName(refName string) bool {
	d, _ := referrerRefName(refName)
	return d != ""
}

// ReferrerRefName returns the digest that refName is made of, "" if
// [IsReferrerRefName] says no.
func ReferrerRefName(refName string) digest.Digest {
	d, _ := referrerRefName(refName)
	return d
}

func newReferrer(doc *Document, desc ocispec.Descriptor, subject digest.Digest, by ReferredBy) Referrer {
	if desc.ArtifactType == "" {
		desc.ArtifactType = doc.ArtifactType
	}
	return Referrer{Desc: desc, Subject: subject, By: by}
}

// Referrers returns what refers to d, in the order in which src lists it:
// documents with d as their subject anywhere below index.json, entries of
// index.json and of lists of referrers whose ref name is made of d, and
// attestations of BuildKit. What refers to those is not looked for. None is no
// error, and d itself need not be there.
func Referrers(ctx context.Context, src Source, d digest.Digest) ([]Referrer, error) {
	return NewReferrerSet(src).Of(ctx, d)
}

// A ReferrerSet finds referrers in one source, which it reads once. It may not
// be shared between goroutines.
type ReferrerSet struct {
	// Read is as in [WalkOptions].
	Read func(ctx context.Context, desc ocispec.Descriptor) (*Document, error)

	src  Source
	all  map[digest.Digest][]Referrer
	read bool
}

// NewReferrerSet returns a set that reads src when it is first asked.
func NewReferrerSet(src Source) *ReferrerSet {
	return &ReferrerSet{src: src, all: map[digest.Digest][]Referrer{}}
}

// Of does what [Referrers] does.
func (s *ReferrerSet) Of(ctx context.Context, d digest.Digest) ([]Referrer, error) {
	if lister, ok := s.src.(ReferrerLister); ok {
		if found, ok := s.all[d]; ok {
			return found, nil
		}
		found, err := lister.Referrers(ctx, d)
		if err == nil {
			s.all[d] = found
		}
		return found, err
	}
	if !s.read {
		if err := s.scan(ctx); err != nil {
			return nil, err
		}
		s.read = true
	}
	return s.all[d], nil
}

// scan reads all documents of the source. One that is not there refers to
// nothing.
func (s *ReferrerSet) scan(ctx context.Context) error {
	x, err := s.src.Index(ctx)
	if err != nil {
		return err
	}
	clear(s.all)
	roots := x.Entries()
	for _, desc := range roots {
		if d, _ := referrerRefName(RefName(desc)); d != "" {
			s.add(Referrer{Desc: desc, Subject: d, By: ByRefName})
		}
	}
	types := map[digest.Digest]string{}
	for n, err := range Walk(ctx, s.src, roots, &WalkOptions{NoSubjects: true, DocumentsOnly: true, Sparse: true, KeepGoing: true, Read: s.Read}) {
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if n.Document == nil {
			continue
		}
		types[n.Desc.Digest] = n.Document.ArtifactType
		if subject := n.Document.Subject; subject != nil {
			s.add(newReferrer(n.Document, n.Desc, subject.Digest, BySubject))
		}
		list, isList := referrerRefName(RefName(n.Desc))
		for _, desc := range n.Document.Manifests {
			if d := attestedDigest(desc); d != "" {
				s.add(Referrer{Desc: desc, Subject: d, By: ByAnnotation})
			}
			if isList && len(n.Parents) == 0 {
				s.add(Referrer{Desc: desc, Subject: list, By: ByRefName})
			}
		}
	}
	// Entries of lists are mostly documents that were met with their subject.
	for d, found := range s.all {
		for i := range found {
			if desc := &found[i].Desc; desc.ArtifactType == "" {
				desc.ArtifactType = types[desc.Digest]
			}
		}
		s.all[d] = dropListed(found)
	}
	return nil
}

func (s *ReferrerSet) add(r Referrer) { s.all[r.Subject] = append(s.all[r.Subject], r) }

// dropListed leaves out entries that come again, and lists of referrers all
// entries of which come for themselves, by their subject.
func dropListed(found []Referrer) []Referrer {
	bySubject := map[digest.Digest]bool{}
	for _, r := range found {
		if r.By == BySubject {
			bySubject[r.Desc.Digest] = true
		}
	}
	isList := func(r Referrer) bool {
		_, list := referrerRefName(RefName(r.Desc))
		return list
	}
	only := slices.ContainsFunc(found, func(r Referrer) bool {
		return r.By == ByRefName && RefName(r.Desc) == "" && !bySubject[r.Desc.Digest]
	})
	seen := map[digest.Digest]bool{}
	var kept []Referrer
	for _, r := range found {
		if seen[r.Desc.Digest] || isList(r) && !only || r.By != BySubject && bySubject[r.Desc.Digest] {
			continue
		}
		seen[r.Desc.Digest] = true
		kept = append(kept, r)
	}
	return kept
}

// ReferrersBelow returns what refers to roots, to documents below them, and to
// those referrers in turn: all that has to come along when roots are copied and
// does not, because roots do not reach it. Each comes once, with the ref name
// of its entry if that is made of a digest. A list of referrers comes along if
// it names what has no subject. A referrer that src names and has not is
// [ErrNotFound], but for a member of an index (attestations of BuildKit).
func ReferrersBelow(ctx context.Context, src Source, roots []ocispec.Descriptor) ([]Referrer, error) {
	b := referrersBelow{src: src, set: NewReferrerSet(src), reached: map[digest.Digest]bool{}, named: map[string]bool{}}
	if _, ok := src.(ReferrerLister); !ok {
		// Most of what roots reach is read again to see what refers to it.
		b.read = remember(src)
		b.set.Read = b.read
	}
	for _, desc := range roots {
		b.named[RefName(desc)] = true
	}
	if err := b.reach(ctx, roots); err != nil {
		return nil, err
	}
	for len(b.queue) > 0 {
		d := b.queue[0]
		b.queue = b.queue[1:]
		if err := b.refer(ctx, d); err != nil {
			return nil, err
		}
	}
	return b.found, nil
}

// remember returns what reads a document of src once, and keeps of it what a walk
// that looks for referrers needs: no bytes, and only the documents that it names.
func remember(src Source) func(ctx context.Context, desc ocispec.Descriptor) (*Document, error) {
	var mu sync.Mutex
	known := map[visit]*Document{}
	leaf := func(desc ocispec.Descriptor) bool {
		_, document := visitOf(desc)
		return !document
	}
	return func(ctx context.Context, desc ocispec.Descriptor) (*Document, error) {
		v, _ := visitOf(desc)
		mu.Lock()
		doc := known[v]
		mu.Unlock()
		if doc != nil && doc.Descriptor.Size == desc.Size && desc.Data == nil {
			return doc, nil
		}
		doc, err := ReadDocument(ctx, src, desc)
		if err != nil {
			return nil, err
		}
		doc.Raw = nil
		if doc.Config != nil && leaf(*doc.Config) {
			doc.Config = nil
		}
		doc.Layers = slices.DeleteFunc(doc.Layers, leaf)
		if len(doc.Layers) == 0 {
			doc.Layers = nil // and the memory of all
		}
		mu.Lock()
		defer mu.Unlock()
		known[v] = doc
		return doc, nil
	}
}

type referrersBelow struct {
	src     Source
	read    func(ctx context.Context, desc ocispec.Descriptor) (*Document, error) // nil to read anew
	set     *ReferrerSet
	reached map[digest.Digest]bool
	named   map[string]bool // ref names that come along
	queue   []digest.Digest // documents whose referrers were not looked for
	found   []Referrer
}

func (b *referrersBelow) reach(ctx context.Context, roots []ocispec.Descriptor) error {
	for n, err := range Walk(ctx, b.src, roots, &WalkOptions{DocumentsOnly: true, Sparse: true, Read: b.read}) {
		if err != nil {
			return err
		}
		if n.Document != nil && !b.reached[n.Desc.Digest] {
			b.reached[n.Desc.Digest] = true
			b.queue = append(b.queue, n.Desc.Digest)
		}
	}
	return nil
}

func (b *referrersBelow) refer(ctx context.Context, d digest.Digest) error {
	found, err := b.set.Of(ctx, d)
	if err != nil {
		return WithHint(fmt.Errorf("look for referrers: %w", err), "--no-referrers leaves out what refers to the content")
	}
	for _, r := range found {
		name := RefName(r.Desc)
		if !IsReferrerRefName(name) {
			name = ""
			r.Desc = withoutRefName(r.Desc)
		}
		if b.reached[r.Desc.Digest] && (name == "" || b.named[name]) {
			continue
		}
		err := b.reach(ctx, []ocispec.Descriptor{r.Desc})
		if errors.Is(err, ErrNotFound) {
			if r.By == ByAnnotation {
				continue // a member of an index, which may have been left away there
			}
			return WithHint(fmt.Errorf("%s, which refers to %s: %w", r.Desc.Digest, d, ErrNotFound), "--no-referrers leaves out what refers to the content")
		}
		if err != nil {
			return err
		}
		b.named[name] = true
		b.found = append(b.found, r)
	}
	return nil
}

// withoutRefName returns desc as it is called outside of index.json.
func withoutRefName(desc ocispec.Descriptor) ocispec.Descriptor {
	if RefName(desc) == "" {
		return desc
	}
	desc = cloneDescriptor(desc)
	if delete(desc.Annotations, ocispec.AnnotationRefName); len(desc.Annotations) == 0 {
		desc.Annotations = nil
	}
	return desc
}
