package extracttest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// Media types of layers.
const (
	ImageTar  = ocispec.MediaTypeImageLayer
	ImageGzip = ocispec.MediaTypeImageLayerGzip
	PlainTar  = "application/x-tar"
)

// A Source holds blobs in memory. It is a [layout.Source].
type Source struct {
	Opened atomic.Int64 // how often a blob was opened
	blobs  map[digest.Digest][]byte
}

// NewSource returns an empty source.
func NewSource() *Source { return &Source{blobs: map[digest.Digest][]byte{}} }

// Add stores data and returns its descriptor.
func (s *Source) Add(data []byte, mediaType string) ocispec.Descriptor {
	d := digest.FromBytes(data)
	s.blobs[d] = data
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

// Replace makes the source give other bytes for d than it should.
func (s *Source) Replace(d digest.Digest, data []byte) { s.blobs[d] = data }

// Config stores the config of an image whose layers are these archives, not
// compressed, and returns its descriptor.
func (s *Source) Config(archives ...[]byte) ocispec.Descriptor {
	config := ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}},
	}
	for _, a := range archives {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(a))
	}
	raw, err := json.Marshal(config)
	if err != nil {
		panic(err) // of a test: strings can always be written
	}
	return s.Add(raw, ocispec.MediaTypeImageConfig)
}

// Index returns an empty index.
func (s *Source) Index(context.Context) (*layout.Index, error) { return layout.NewIndex(), nil }

// Blob opens a blob.
func (s *Source) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	s.Opened.Add(1)
	return layout.OpenBlob(ctx, desc, func(d digest.Digest) (io.ReadCloser, error) {
		data, ok := s.blobs[d]
		if !ok {
			return nil, &layout.BlobError{Op: "open", Desc: desc, Err: layout.ErrNotFound}
		}
		return io.NopCloser(bytes.NewReader(data)), nil
	})
}

// Blobs lists the blobs.
func (s *Source) Blobs(context.Context) iter.Seq2[layout.BlobInfo, error] {
	return func(yield func(layout.BlobInfo, error) bool) {
		for _, d := range slices.Sorted(maps.Keys(s.blobs)) {
			if !yield(layout.BlobInfo{Digest: d, Size: int64(len(s.blobs[d]))}, nil) {
				return
			}
		}
	}
}

// Stat returns what is stored under d.
func (s *Source) Stat(_ context.Context, d digest.Digest) (layout.BlobInfo, error) {
	data, ok := s.blobs[d]
	if !ok {
		return layout.BlobInfo{}, fmt.Errorf("%s: %w", d, layout.ErrNotFound)
	}
	return layout.BlobInfo{Digest: d, Size: int64(len(data))}, nil
}

func (s *Source) String() string { return "memory" }

// Close does nothing.
func (s *Source) Close() error { return nil }
