package web

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/lint"
	"github.com/gardenlinux/gloci-layout/layout/show"
)

// build reads all documents of src, and lets lint look at them. index may be nil.
func (k *Knowledge) build(ctx context.Context, src layout.Source, index *layout.Index) (s *snapshot, err error) {
	if index == nil {
		if index, err = src.Index(ctx); err != nil {
			return nil, err
		}
	}
	var findings []lint.Finding
	docs := &documents{src: src, read: map[documentKey]*reading{}}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		s, err = k.read(ctx, src, index.Entries(), docs)
		return err
	})
	g.Go(func() (err error) {
		findings, err = runRules(ctx, src, k.Rules, docs)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	s.findings, s.byFinding = findings, map[digest.Digest][]lint.Finding{}
	for _, f := range findings {
		if len(f.Path) > 0 {
			d := f.Path[len(f.Path)-1]
			s.byFinding[d] = append(s.byFinding[d], f)
		}
	}
	return s, nil
}

// documents are read once for what a page lists, for what refers to what, and for
// lint.
type documents struct {
	src  layout.Source
	mu   sync.Mutex
	read map[documentKey]*reading
}

type documentKey struct {
	digest    digest.Digest
	size      int64
	mediaType string
}

type reading struct {
	once sync.Once
	doc  *layout.Document
	err  error
}

// document is layout.ReadDocument.
func (d *documents) document(ctx context.Context, desc ocispec.Descriptor) (*layout.Document, error) {
	if desc.Data != nil {
		return layout.ReadDocument(ctx, d.src, desc) // what it embeds need not be what others do
	}
	key := documentKey{desc.Digest, desc.Size, desc.MediaType}
	d.mu.Lock()
	r := d.read[key]
	if r == nil {
		r = &reading{}
		d.read[key] = r
	}
	d.mu.Unlock()
	r.once.Do(func() { r.doc, r.err = layout.ReadDocument(ctx, d.src, desc) })
	if errors.Is(r.err, context.Canceled) && ctx.Err() == nil {
		return layout.ReadDocument(ctx, d.src, desc) // the other walk has ended
	}
	if r.err != nil {
		return nil, r.err
	}
	own := *r.doc
	own.Descriptor = desc
	return &own, nil
}

// runRules returns what the rules find.
func runRules(ctx context.Context, src layout.Source, rules []lint.Rule, docs *documents) ([]lint.Finding, error) {
	if len(rules) == 0 {
		return nil, nil
	}
	tree, err := lint.Load(ctx, src, "", "", &lint.LoadOptions{Sparse: true, Read: docs.document})
	if err != nil {
		return nil, err
	}
	return lint.Run(ctx, tree, rules)
}

// read reads the documents below entries.
func (k *Knowledge) read(ctx context.Context, src layout.Source, entries []ocispec.Descriptor, docs *documents) (*snapshot, error) {
	s := &snapshot{byDigest: map[digest.Digest]*document{}, uses: map[digest.Digest]int32{}}
	opts := &layout.WalkOptions{KeepGoing: true, Sparse: true, DocumentsOnly: true, MaxDocuments: maxDocuments, Read: docs.document}
	named := 0
	for n, err := range layout.Walk(ctx, src, entries, opts) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if s.byDigest[n.Desc.Digest] != nil {
			continue // the same bytes under another media type
		}
		if len(s.documents) == maxDocuments || named > maxDescriptors {
			s.truncated = true
			break
		}
		d := k.document(ctx, src, n, err)
		named += len(d.layers) + len(d.manifests)
		s.add(d)
	}
	for _, e := range entries {
		d := s.byDigest[e.Digest]
		if d == nil {
			if len(s.documents) >= maxDocuments {
				continue
			}
			d = &document{desc: e, role: roleOther} // an entry of no known type
			s.add(d)
		}
		if d.refNames == nil {
			s.roots = append(s.roots, d)
			d.refNames = []string{}
		}
		if name := layout.RefName(e); name != "" {
			d.refNames = append(d.refNames, name)
			if layout.IsReferrerRefName(name) && !d.role.refers() {
				d.role = referrerRole(name)
			}
		}
	}
	s.count()
	return s, s.refer(ctx, src, docs)
}

func (s *snapshot) add(d *document) {
	s.documents = append(s.documents, d)
	s.byDigest[d.desc.Digest] = d
}

func referrerRole(refName string) role {
	switch {
	case strings.HasSuffix(refName, ".sig"):
		return roleSignature
	case strings.HasSuffix(refName, ".att"):
		return roleAttestation
	case strings.HasSuffix(refName, ".sbom"):
		return roleSBOM
	}
	return roleReferrer
}

// document takes what is wanted of a node.
func (k *Knowledge) document(ctx context.Context, src layout.Source, n layout.Node, err error) *document {
	d := &document{desc: n.Desc, err: err, absent: n.Absent, artifactType: n.Desc.ArtifactType, isIndex: layout.IsIndex(n.Desc.MediaType)}
	doc := n.Document
	if p := n.Desc.Platform; p != nil {
		d.arch = archOf(*p)
	}
	if f, ok := k.flavor(n.Desc, doc); ok {
		d.flavor = f
		d.arch = cmp.Or(f.Arch, d.arch)
	}
	switch {
	case err != nil:
		d.role = roleDamaged
		if errors.Is(err, layout.ErrNotFound) {
			d.role = roleAbsent
		}
	case doc == nil:
		d.role = roleAbsent
	}
	if doc == nil {
		return d
	}
	d.isImage, d.config, d.layers, d.manifests, d.subject = doc.IsImage(), doc.Config, doc.Layers, doc.Manifests, doc.Subject
	d.annotations = doc.Annotations
	d.artifactType = cmp.Or(doc.ArtifactType, d.artifactType)
	d.role = roleOf(n.Desc, doc)
	if d.isImage && d.arch == "" && !d.role.refers() {
		// A damaged config is for verify to find: here it only has no platform.
		if p, err := layout.ImagePlatform(ctx, src, n.Desc, doc); err == nil && p != nil {
			d.arch = archOf(*p)
		}
	}
	return d
}

func archOf(p ocispec.Platform) string {
	if p.Variant != "" {
		return p.Architecture + "/" + p.Variant
	}
	return p.Architecture
}

func roleOf(desc ocispec.Descriptor, doc *layout.Document) role {
	kind := strings.ToLower(cmp.Or(doc.ArtifactType, desc.ArtifactType))
	switch {
	case layout.IsAttestation(desc):
		return roleAttestation
	case doc.Subject != nil && lint.IsSignature(doc):
		return roleSignature
	case doc.Subject != nil && (strings.Contains(kind, "cyclonedx") || strings.Contains(kind, "spdx") || strings.Contains(kind, "sbom")):
		return roleSBOM
	case doc.Subject != nil:
		return roleReferrer
	}
	return role(show.Kind(doc))
}

// count sums up sizes, and who names what.
func (s *snapshot) count() {
	size := map[digest.Digest]int64{}
	for _, d := range s.documents {
		for _, m := range d.manifests {
			if child := s.byDigest[m.Digest]; child != nil {
				child.parents = append(child.parents, d)
			}
		}
		if d.absent {
			continue
		}
		for desc := range d.content() {
			s.uses[desc.Digest]++
			size[desc.Digest] = max(desc.Size, 0)
		}
	}
	for _, d := range s.documents {
		if d.absent {
			continue
		}
		for desc := range d.content() {
			n := size[desc.Digest]
			if d.size += n; s.uses[desc.Digest] == 1 {
				d.own += n
			}
		}
		s.named += d.size
	}
	for _, n := range size {
		s.stored += n
	}
	s.blobs = len(size)
}

// content yields the document, its config and its layers, each digest once.
func (d *document) content() func(yield func(ocispec.Descriptor) bool) {
	return func(yield func(ocispec.Descriptor) bool) {
		seen := make(map[digest.Digest]bool, len(d.layers)+2)
		each := func(desc ocispec.Descriptor) bool {
			if seen[desc.Digest] {
				return true
			}
			seen[desc.Digest] = true
			return yield(desc)
		}
		if !each(d.desc) || d.config != nil && !each(*d.config) {
			return
		}
		for _, l := range d.layers {
			if !each(l) {
				return
			}
		}
	}
}

// below calls fn for d and all documents below it, each once.
func (s *snapshot) below(d *document, fn func(*document)) {
	seen := map[*document]bool{}
	var walk func(*document)
	walk = func(d *document) {
		if d == nil || seen[d] {
			return
		}
		seen[d] = true
		fn(d)
		for _, m := range d.manifests {
			walk(s.byDigest[m.Digest])
		}
	}
	walk(d)
}

// refer finds out what refers to what.
func (s *snapshot) refer(ctx context.Context, src layout.Source, docs *documents) error {
	set := layout.NewReferrerSet(src)
	set.Read = docs.document
	for _, d := range s.documents {
		found, err := set.Of(ctx, d.desc.Digest)
		if errors.Is(err, layout.ErrNotFound) || errors.Is(err, layout.ErrInvalid) || errors.Is(err, layout.ErrMismatch) {
			return nil // damage is told where it is
		}
		if err != nil {
			return err
		}
		for _, r := range found {
			if by := s.byDigest[r.Desc.Digest]; by != nil && by != d {
				d.referrers = append(d.referrers, by)
				if !by.role.refers() && !by.isIndex {
					by.role = roleReferrer
				}
			}
		}
	}
	return nil
}

// signed tells whether something signs d.
func (d *document) signed() bool {
	for _, r := range d.referrers {
		if r.role == roleSignature {
			return true
		}
	}
	return false
}
