package layout

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// An editor rewrites documents from below: what names a document that has
// become another one is written anew, up to index.json.
type editor struct {
	tx        *Tx
	opts      EditOptions
	manifests map[digest.Digest]func(*Manifest) error
	indexes   map[digest.Digest]func(*Index) error
	replace   map[digest.Digest]outcome // what the caller has put in the place of documents
	links     bool                      // manifests that are not edited need not be read

	done  map[digest.Digest]outcome
	found map[digest.Digest]bool
	refs  []Referrer // all that was met, with what they refer to before the edit
	edit  Edit
}

// An outcome is what has become of a document.
type outcome struct {
	desc    ocispec.Descriptor // media type, digest and size
	changed bool
	retype  bool      // desc has the artifactType that entries get
	edited  *Manifest // what EditOptions.Entry is told
	data    []byte    // for entries that embed the document
}

func (tx *Tx) newEditor(opts *EditOptions) *editor {
	e := &editor{tx: tx, done: map[digest.Digest]outcome{}, found: map[digest.Digest]bool{}}
	if opts != nil {
		e.opts = *opts
	}
	return e
}

func (e *editor) run(ctx context.Context) (*Edit, error) {
	x := e.tx.index
	changed := false
	for i, entry := range x.entries {
		to, err := e.rewrite(ctx, entry.desc, 0)
		if err != nil {
			return nil, err
		}
		if to.changed {
			x.Set(i, link(entry.desc, to))
			changed = true
		}
	}
	for d := range e.manifests {
		if !e.found[d] {
			return nil, fmt.Errorf("%s: manifest %s: %w", e.tx.stage, d, ErrNotFound)
		}
	}
	for d := range e.indexes {
		if !e.found[d] {
			return nil, fmt.Errorf("%s: index %s: %w", e.tx.stage, d, ErrNotFound)
		}
	}
	e.moveAnnotations(x)
	if err := e.moveRefNames(); err != nil {
		return nil, err
	}
	e.sortOut()
	if changed {
		x.Sort()
	}
	return &e.edit, nil
}

// rewrite returns what has become of desc.
func (e *editor) rewrite(ctx context.Context, desc ocispec.Descriptor, depth int) (outcome, error) {
	if !IsIndex(desc.MediaType) && !IsManifest(desc.MediaType) {
		return outcome{}, nil
	}
	if to, ok := e.replace[desc.Digest]; ok {
		return to, nil
	}
	if to, ok := e.done[desc.Digest]; ok {
		return to, nil
	}
	if e.links && !IsIndex(desc.MediaType) {
		return outcome{}, nil
	}
	if depth == DefaultMaxDepth {
		return outcome{}, fmt.Errorf("%s: %w: nested more than %d deep", desc.Digest, ErrInvalid, DefaultMaxDepth)
	}
	if len(e.done) == DefaultMaxDocuments {
		return outcome{}, fmt.Errorf("%s: %w: more than %d manifests", e.tx.stage, ErrInvalid, DefaultMaxDocuments)
	}
	doc, err := ReadDocument(ctx, e.tx.Source(), desc)
	if errors.Is(err, ErrNotFound) && !e.links {
		return outcome{}, nil // a subject, or a member of a sparse index
	}
	if err != nil {
		return outcome{}, err
	}
	to, err := e.document(ctx, doc, depth)
	if err != nil {
		return outcome{}, err
	}
	e.done[desc.Digest] = to
	return to, nil
}

func (e *editor) document(ctx context.Context, doc *Document, depth int) (to outcome, err error) {
	d := doc.Descriptor.Digest
	var raw []byte
	var mediaType string
	if doc.IsIndex {
		x, err := ParseIndex(doc.Raw)
		if err != nil {
			return to, err
		}
		if fn := e.indexes[d]; fn != nil {
			e.found[d] = true
			if err := fn(x); err != nil {
				return to, err
			}
		}
		for i, entry := range x.entries {
			to, err := e.rewrite(ctx, entry.desc, depth+1)
			if err != nil {
				return to, err
			}
			if to.changed {
				x.Set(i, e.link(entry.desc, to))
			}
			if to.changed && OCIType(entry.desc.MediaType) == to.desc.MediaType && to.desc.MediaType != entry.desc.MediaType {
				x.useOCIType() // a list of Docker names none of OCI
			}
		}
		e.moveAnnotations(x)
		if err := e.moveSubject(ctx, doc, &x.body, depth); err != nil {
			return to, err
		}
		raw, mediaType = x.Bytes(), x.MediaType()
	} else {
		m, err := ParseManifest(doc.Raw, doc.MediaType)
		if err != nil {
			return to, err
		}
		if fn := e.manifests[d]; fn != nil {
			e.found[d] = true
			if err := fn(m); err != nil {
				return to, err
			}
		}
		if err := e.moveSubject(ctx, doc, &m.body, depth); err != nil {
			return to, err
		}
		raw, mediaType = m.Bytes(), m.MediaType()
		if to, err = e.put(doc, raw, mediaType); e.manifests[d] != nil {
			to.edited = m
		}
		return e.met(doc, to, err)
	}
	to, err = e.put(doc, raw, mediaType)
	return e.met(doc, to, err)
}

// link is the function link, and what the caller does to such entries.
func (e *editor) link(old ocispec.Descriptor, to outcome) ocispec.Descriptor {
	desc := link(cloneDescriptor(old), to)
	if to.edited != nil && e.opts.Entry != nil {
		e.opts.Entry(&desc, to.edited)
	}
	return desc
}

// met remembers what doc refers to.
func (e *editor) met(doc *Document, to outcome, err error) (outcome, error) {
	if doc.Subject != nil && err == nil {
		e.refs = append(e.refs, newReferrer(doc, to.at(doc.Descriptor), doc.Subject.Digest, BySubject))
	}
	return to, err
}

// put makes what has become of doc part of the transaction.
func (e *editor) put(doc *Document, raw []byte, mediaType string) (outcome, error) {
	if bytes.Equal(raw, doc.Raw) {
		return outcome{}, nil
	}
	desc, err := e.tx.PutDocument(raw, mediaType)
	if err != nil {
		return outcome{}, fmt.Errorf("edit %s: %w", doc.Descriptor.Digest, err)
	}
	to := outcome{desc: desc, changed: true, data: raw}
	if now := e.tx.docs[desc.Digest]; now.ArtifactType != doc.ArtifactType {
		to.desc.ArtifactType, to.retype = now.ArtifactType, true
	}
	e.edit.Changes = append(e.edit.Changes, Change{Old: doc.Descriptor, New: to.at(doc.Descriptor)})
	return to, nil
}

// at returns desc as it is after the edit.
func (to outcome) at(desc ocispec.Descriptor) ocispec.Descriptor {
	if !to.changed {
		return desc
	}
	return link(desc, to)
}

// link returns the entry old with the content of what stands there now. Its
// artifactType follows only if that of the document has changed, and embedded
// data only if it still is small.
func link(old ocispec.Descriptor, to outcome) ocispec.Descriptor {
	old.MediaType, old.Digest, old.Size = to.desc.MediaType, to.desc.Digest, to.desc.Size
	if to.retype {
		old.ArtifactType = to.desc.ArtifactType
	}
	switch {
	case old.Data == nil:
	case to.data == nil || len(to.data) > maxEmbedded:
		old.Data = nil
	default:
		old.Data = to.data
	}
	return old
}

// moveSubject lets the document refer to what has become of its subject.
func (e *editor) moveSubject(ctx context.Context, doc *Document, b *body, depth int) error {
	if doc.Subject == nil || !e.opts.MoveReferrers {
		return nil
	}
	to, err := e.rewrite(ctx, *doc.Subject, depth+1)
	if err != nil || !to.changed {
		return err
	}
	subject := link(*doc.Subject, to)
	b.SetSubject(&subject)
	return nil
}

// moveAnnotations does the same for attestations of BuildKit, which an
// annotation of their entry ties to an image of the same index.
func (e *editor) moveAnnotations(x *Index) {
	for i, entry := range x.entries {
		d := attestedDigest(entry.desc)
		if d == "" {
			continue
		}
		e.refs = append(e.refs, Referrer{Desc: entry.desc, Subject: d, By: ByAnnotation})
		to, ok := e.done[d]
		if !ok || !to.changed || !e.opts.MoveReferrers {
			continue
		}
		desc := cloneDescriptor(entry.desc)
		desc.Annotations[annotationAttested] = string(to.desc.Digest)
		x.Set(i, desc)
	}
}

// moveRefNames does the same for entries of index.json whose ref name has the
// digest.
func (e *editor) moveRefNames() error {
	x := e.tx.index
	for i, entry := range x.entries {
		d, _ := referrerRefName(RefName(entry.desc))
		if d == "" {
			continue
		}
		e.refs = append(e.refs, Referrer{Desc: entry.desc, Subject: d, By: ByRefName})
		to, ok := e.done[d]
		if !ok || !to.changed || !e.opts.MoveReferrers {
			continue
		}
		desc := cloneDescriptor(entry.desc)
		desc.Annotations[ocispec.AnnotationRefName] = moveRefName(RefName(desc), d, to.desc.Digest)
		for j, other := range x.entries {
			if j != i && RefName(other.desc) == RefName(desc) && other.desc.Digest != desc.Digest {
				err := fmt.Errorf("%s: ref name %s names %s, and %s would get it: %w", e.tx.stage, RefName(desc), other.desc.Digest, desc.Digest, ErrConflict)
				return WithHint(err, "take that ref name away with untag, or leave the referrers where they are")
			}
		}
		x.Set(i, desc)
	}
	return nil
}

// sortOut tells which of the referrers that were met have moved and which are
// left behind.
func (e *editor) sortOut() {
	type key struct {
		digest, subject digest.Digest
		by              ReferredBy
	}
	seen := map[key]bool{}
	for _, r := range e.refs {
		to, ok := e.done[r.Subject]
		if !ok || !to.changed || seen[key{r.Desc.Digest, r.Subject, r.By}] {
			continue
		}
		seen[key{r.Desc.Digest, r.Subject, r.By}] = true
		if !e.opts.MoveReferrers {
			e.edit.Stale = append(e.edit.Stale, r)
			continue
		}
		if r.By == ByRefName {
			r.Desc = cloneDescriptor(r.Desc)
			r.Desc.Annotations[ocispec.AnnotationRefName] = moveRefName(RefName(r.Desc), r.Subject, to.desc.Digest)
		}
		r.Subject = to.desc.Digest
		e.edit.Moved = append(e.edit.Moved, r)
	}
}
