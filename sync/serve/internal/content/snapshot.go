package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/internal/pattern"
	"github.com/gardenlinux/gloci-layout/layout"
)

// A snapshot is a source as it was at one time. It does not change.
type snapshot struct {
	name   string
	host   string // what it is a mirror of, or ""
	src    layout.Source
	index  []byte // index.json
	stamps []Stamp

	roots     []ocispec.Descriptor
	docs      map[digest.Digest]*Document
	blobs     map[digest.Digest]*Blob // also documents
	referrers map[digest.Digest][]ocispec.Descriptor
	bytes     int64 // of the documents that are kept in memory

	refs int // how many sets have it; guarded by Store.mu
}

// A Document is a manifest, an index, or another entry of index.json.
type Document struct {
	Digest digest.Digest
	// Values of headers, made once.
	ContentType, ContentLength, ContentDigest, ETag []string

	size int64
	raw  []byte    // verified; nil where memory is short
	home *snapshot // to read it from; nil where raw is there
}

// A Blob is any content that can be had by its digest alone.
type Blob struct {
	Digest digest.Digest
	Size   int64
	Data   []byte // embedded in a descriptor, verified, and stored nowhere

	home  *snapshot
	state *verdict // shared by all snapshots of the source
}

// Read returns the content, verified.
func (d *Document) Read(ctx context.Context) ([]byte, error) {
	if d.raw != nil {
		return d.raw, nil
	}
	return layout.ReadAll(ctx, d.home.src, ocispec.Descriptor{Digest: d.Digest, Size: d.size}, layout.MaxDocument)
}

// Open opens the content that only the source itself can read; it is verified
// while it is read.
func (b *Blob) Open(ctx context.Context) (io.ReadCloser, error) {
	return b.home.src.Blob(ctx, b.descriptor())
}

func (b *Blob) descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{Digest: b.Digest, Size: b.Size}
}

// Error names the blob and its source in front of err.
func (b *Blob) Error(err error) error {
	return fmt.Errorf("%s: blob %s: %w", b.home.src, b.Digest, err)
}

// maxDocuments is how many bytes of documents one snapshot keeps in memory.
// Others are read, and verified, each time.
const maxDocuments = 64 << 20 // 64 MiB

// load opens source i and reads all its documents. old is what is served of it
// now, or nil.
func (s *Store) load(ctx context.Context, i int, old *snapshot) (*snapshot, error) {
	def := s.opts.Sources[i]
	snap := &snapshot{
		name: def.Name, host: def.Host, stamps: StampsOf(def.Files),
		docs: map[digest.Digest]*Document{}, blobs: map[digest.Digest]*Blob{}, referrers: map[digest.Digest][]ocispec.Descriptor{},
	}
	src, err := def.Open(ctx)
	if err != nil {
		return nil, err
	}
	snap.src = src
	if err := snap.read(ctx, def, s.opts.Sparse, old); err != nil {
		return nil, errors.Join(err, src.Close())
	}
	return snap, nil
}

func (snap *snapshot) read(ctx context.Context, def Source, sparse bool, old *snapshot) error {
	x, err := snap.src.Index(ctx)
	if err != nil {
		return err
	}
	snap.index = slices.Clone(x.Bytes())
	if snap.roots, err = layout.Resolve(ctx, frozen{snap}, def.RefName, def.Digest); err != nil {
		return err
	}
	for n, err := range layout.Walk(ctx, snap.src, snap.roots, &layout.WalkOptions{Sparse: sparse, KeepGoing: sparse}) {
		switch {
		case errors.Is(err, layout.ErrNotFound) && sparse:
			continue // an entry of index.json itself
		case errors.Is(err, layout.ErrNotFound):
			return layout.WithHint(err, "--sparse serves what is there")
		case err != nil:
			return err
		case n.Absent:
			continue
		case n.Document != nil:
			snap.addDocument(n.Document, old)
		}
		if err := snap.addBlob(ctx, n, sparse, old); err != nil {
			return err
		}
	}
	return nil
}

func (snap *snapshot) addDocument(doc *layout.Document, old *snapshot) {
	desc := doc.Descriptor
	if snap.docs[desc.Digest] != nil {
		return
	}
	snap.addRaw(desc, doc.Raw, old)
	if doc.Subject != nil {
		subject := doc.Subject.Digest
		snap.referrers[subject] = append(snap.referrers[subject], referrerOf(doc))
	}
}

func (snap *snapshot) addRaw(desc ocispec.Descriptor, raw []byte, old *snapshot) {
	d := &Document{Digest: desc.Digest, size: desc.Size, home: snap}
	contentType := contentTypeOf(desc.MediaType)
	if raw != nil && (snap.bytes+desc.Size <= maxDocuments || desc.Data != nil) {
		d.raw, d.home = raw, nil
		if was := old.document(desc.Digest); was != nil && was.raw != nil {
			d.raw = was.raw // the same bytes, once
		}
		snap.bytes += desc.Size
	}
	d.ContentType = []string{contentType}
	d.ContentLength = []string{strconv.FormatInt(desc.Size, 10)}
	d.ContentDigest = []string{string(desc.Digest)}
	d.ETag = []string{ETagOf(desc.Digest)}
	snap.docs[desc.Digest] = d
}

func (snap *snapshot) document(d digest.Digest) *Document {
	if snap == nil {
		return nil
	}
	return snap.docs[d]
}

// addBlob takes stock of what n names. Nothing is hashed yet.
func (snap *snapshot) addBlob(ctx context.Context, n layout.Node, sparse bool, old *snapshot) error {
	desc := n.Desc
	if snap.blobs[desc.Digest] != nil {
		return nil
	}
	b := &Blob{Digest: desc.Digest, Size: desc.Size, home: snap}
	info, err := snap.src.Stat(ctx, desc.Digest)
	switch {
	case err == nil && info.Size != desc.Size:
		return &layout.BlobError{Op: "open", Desc: desc, Err: fmt.Errorf("%w: %d bytes, want %d", layout.ErrMismatch, info.Size, desc.Size)}
	case errors.Is(err, layout.ErrNotFound) && desc.Data != nil:
		if b.Data, err = layout.ReadAll(ctx, snap.src, desc, layout.MaxDocument); err != nil {
			return err
		}
	case errors.Is(err, layout.ErrNotFound) && (sparse || len(desc.URLs) > 0):
		return nil // 404: what URLs lead to is for clients to fetch
	case errors.Is(err, layout.ErrNotFound):
		return layout.WithHint(fmt.Errorf("%s %s: %w", n.Role, desc.Digest, err), "--sparse serves what is there")
	case err != nil:
		return err
	}
	if old != nil && old.blobs[desc.Digest] != nil {
		b.state = old.blobs[desc.Digest].state
	} else {
		b.state = &verdict{}
	}
	snap.blobs[desc.Digest] = b
	// An entry of index.json may be of a type that nobody here knows.
	if n.Document == nil && n.Role == layout.RoleEntry && len(n.Parents) == 0 && desc.Size <= layout.MaxDocument && snap.docs[desc.Digest] == nil {
		snap.addRaw(desc, b.Data, old)
	}
	return nil
}

// referrerOf returns the entry of doc in a list of referrers
// (distribution-spec, "Listing Referrers").
func referrerOf(doc *layout.Document) ocispec.Descriptor {
	desc := ocispec.Descriptor{
		MediaType: doc.Descriptor.MediaType, Digest: doc.Descriptor.Digest, Size: doc.Descriptor.Size,
		ArtifactType: doc.ArtifactType, Annotations: maps.Clone(doc.Annotations),
	}
	if desc.ArtifactType == "" && doc.Config != nil {
		desc.ArtifactType = doc.Config.MediaType
	}
	return desc
}

// TypeBytes is the media type of what nobody here knows.
const TypeBytes = "application/octet-stream"

var harmlessType = pattern.New(`^application/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}$`)

// contentTypeOf returns what a document is served as: its media type, unless a
// browser could be misled by it.
func contentTypeOf(mediaType string) string {
	if layout.IsIndex(mediaType) || layout.IsManifest(mediaType) {
		return mediaType
	}
	if harmlessType.MatchString(mediaType) && mediaType != "application/xhtml+xml" && mediaType != "application/xml" {
		return mediaType
	}
	return TypeBytes
}

// ETagOf returns the entity tag of content with this digest.
func ETagOf(d digest.Digest) string { return `"` + string(d) + `"` }

// A past is what a snapshot had and its successor has not.
type past struct {
	snap  *snapshot
	docs  map[digest.Digest]*Document
	blobs map[digest.Digest]*Blob
	until time.Time
}

// pastOf returns what old has and now has not; nil if there is no such thing.
func pastOf(old, now *snapshot, until time.Time) *past {
	p := &past{snap: old, until: until, docs: map[digest.Digest]*Document{}, blobs: map[digest.Digest]*Blob{}}
	for d, doc := range old.docs {
		if now.docs[d] == nil {
			p.docs[d] = doc
		}
	}
	for d, b := range old.blobs {
		if now.blobs[d] == nil {
			p.blobs[d] = b
		}
	}
	if len(p.docs) == 0 && len(p.blobs) == 0 {
		return nil
	}
	return p
}

// frozen is the source of a snapshot with the index.json that it was read with.
type frozen struct{ *snapshot }
