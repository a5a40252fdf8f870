package consumer

import (
	"context"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// maxMemo is how many bytes of documents are remembered.
const maxMemo = 64 << 20 // 64 MiB

type memoKey struct{}

// A memo holds documents of one source. Content under a digest does not change,
// so they stay true; what could not be read is tried again.
type memo struct {
	src  layout.Source
	mu   sync.Mutex
	docs map[memoEntry]*layout.Document
	size int
}

type memoEntry struct {
	digest    digest.Digest
	size      int64
	mediaType string
}

// Remember returns a context in which [ReadDocument] reads and parses each
// document of src once, up to 64 MiB of them. It is for who asks many consumers
// about one source: each of them reads the same indexes.
func Remember(ctx context.Context, src layout.Source) context.Context {
	return context.WithValue(ctx, memoKey{}, &memo{src: src, docs: map[memoEntry]*layout.Document{}})
}

func (m *memo) document(ctx context.Context, desc ocispec.Descriptor) (*layout.Document, error) {
	key := memoEntry{desc.Digest, desc.Size, desc.MediaType}
	m.mu.Lock()
	doc := m.docs[key]
	m.mu.Unlock()
	if doc == nil {
		var err error
		if doc, err = readDocument(ctx, m.src, desc); err != nil {
			return nil, err
		}
		m.mu.Lock()
		if m.size += len(doc.Raw); m.size <= maxMemo {
			m.docs[key] = doc
		}
		m.mu.Unlock()
	}
	// Each entry says something else of the same document.
	own := *doc
	own.Descriptor = desc
	return &own, nil
}
