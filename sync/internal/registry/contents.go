package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// keepDocuments bounds the bytes of manifests that a Contents remembers, as a
// copy asks for each more than once.
const keepDocuments = 64 << 20

// Contents are what a repository holds, by digest. As a [layout.Source] they
// have no names, so their index.json is empty.
type Contents struct {
	client *Client

	mu        sync.Mutex
	documents map[digest.Digest][]byte
	room      int // bytes that documents may still take
}

// NewContents returns what c can read. It asks for nothing yet.
func NewContents(c *Client) *Contents {
	return &Contents{client: c, documents: map[digest.Digest][]byte{}, room: keepDocuments}
}

// Blob implements [layout.Source]. A transfer that breaks goes on where it
// broke.
func (s *Contents) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	return layout.OpenBlob(ctx, desc, func(d digest.Digest) (io.ReadCloser, error) {
		plain := ocispec.Descriptor{MediaType: desc.MediaType, Digest: d, Size: desc.Size}
		if IsDocument(desc) {
			raw, err := s.document(ctx, plain)
			if !errors.Is(err, layout.ErrNotFound) {
				return io.NopCloser(bytes.NewReader(raw)), err
			}
			// A layer may be called a manifest, too.
		}
		rc, err := s.client.Blob(ctx, plain)
		if IsDocument(desc) || !errors.Is(err, layout.ErrNotFound) {
			return rc, err
		}
		// A registry keeps manifests apart from blobs; this may be one of which
		// the caller knows the digest only.
		found, resolveErr := s.client.Resolve(ctx, string(d))
		if resolveErr != nil || found.Size != desc.Size {
			return nil, err
		}
		raw, err := s.document(ctx, found)
		return io.NopCloser(bytes.NewReader(raw)), err
	})
}

// IsDocument tells whether desc is a manifest or an index.
func IsDocument(desc ocispec.Descriptor) bool {
	return layout.IsIndex(desc.MediaType) || layout.IsManifest(desc.MediaType)
}

// document returns the verified bytes of a manifest or index.
func (s *Contents) document(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	s.mu.Lock()
	raw, ok := s.documents[desc.Digest]
	s.mu.Unlock()
	if ok {
		return raw, nil
	}
	raw, err := s.client.Manifest(ctx, desc)
	if err != nil {
		return nil, err
	}
	s.Keep(desc.Digest, raw)
	return raw, nil
}

// Keep remembers the bytes of a document, if there is room for them.
func (s *Contents) Keep(d digest.Digest, raw []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.documents[d]; !ok && len(raw) <= s.room {
		s.documents[d] = raw
		s.room -= len(raw)
	}
}

// Stat implements [layout.Source].
func (s *Contents) Stat(ctx context.Context, d digest.Digest) (layout.BlobInfo, error) {
	if _, err := layout.ParseDigest(string(d)); err != nil {
		return layout.BlobInfo{}, err
	}
	size, err := s.client.ResolveBlob(ctx, d)
	if errors.Is(err, layout.ErrNotFound) {
		var desc ocispec.Descriptor
		desc, err = s.client.Resolve(ctx, string(d))
		size = desc.Size
	}
	if err != nil {
		return layout.BlobInfo{}, err
	}
	return layout.BlobInfo{Digest: d, Size: size}, nil
}

// Index implements [layout.Source]: it is empty.
func (s *Contents) Index(context.Context) (*layout.Index, error) { return layout.NewIndex(), nil }

// Blobs implements [layout.Source]: a registry lists none.
func (s *Contents) Blobs(context.Context) iter.Seq2[layout.BlobInfo, error] {
	return func(func(layout.BlobInfo, error) bool) {}
}

// String returns docker://HOST/REPOSITORY.
func (s *Contents) String() string { return "docker://" + s.client.Named.Name() }

// Close does nothing: the client is the caller's.
func (s *Contents) Close() error { return nil }
