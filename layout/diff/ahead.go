package diff

import (
	"context"
	"runtime"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// An aheadReader reads the manifests of entries that both sides have while the
// others are still compared. What it could not read is left to the walk, which
// says why.
type aheadReader struct {
	queue  chan<- *ocispec.Descriptor // nil after the end
	queued map[digest.Digest]bool
	order  []*ocispec.Descriptor // of what was queued
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	found  []named // what the manifests name
	failed map[digest.Digest]bool
}

// named is a blob that a manifest names. A whole descriptor would be five times as
// large, and there are thousands.
type named struct {
	digest   digest.Digest
	size     int64
	document *ocispec.Descriptor // of a config or layer that is called a manifest or index
}

func nameOf(desc *ocispec.Descriptor) named {
	n := named{digest: desc.Digest, size: desc.Size}
	if documentType(*desc) {
		n.document = desc
	}
	return n
}

func newAheadReader(ctx context.Context, src layout.Source) *aheadReader {
	ctx, cancel := context.WithCancel(ctx)
	queue := make(chan *ocispec.Descriptor, 64)
	r := &aheadReader{queue: queue, queued: map[digest.Digest]bool{}, failed: map[digest.Digest]bool{}, cancel: cancel}
	// More than processors: a registry makes us wait.
	for range 4 * runtime.GOMAXPROCS(0) {
		r.wg.Go(func() { r.read(ctx, src, queue) })
	}
	return r
}

func (r *aheadReader) read(ctx context.Context, src layout.Source, queue <-chan *ocispec.Descriptor) {
	var found []named
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.found = append(r.found, found...)
	}()
	for desc := range queue {
		doc, err := layout.ReadDocument(ctx, src, *desc)
		if err != nil {
			r.mu.Lock()
			r.failed[desc.Digest] = true
			r.mu.Unlock()
			continue
		}
		if doc.Config != nil {
			found = append(found, nameOf(doc.Config))
		}
		for i := range doc.Layers {
			found = append(found, nameOf(&doc.Layers[i]))
		}
	}
}

// add queues a manifest; desc must stay as it is.
func (r *aheadReader) add(desc *ocispec.Descriptor) {
	if !r.queued[desc.Digest] {
		r.queued[desc.Digest] = true
		r.order = append(r.order, desc)
		r.queue <- desc
	}
}

// end waits for all that was queued, and returns what the manifests name and which
// of them could not be read; these are no longer in queued.
func (r *aheadReader) end() (found []named, failed []ocispec.Descriptor) {
	close(r.queue)
	r.queue = nil
	r.wg.Wait()
	r.cancel()
	for _, desc := range r.order {
		if r.failed[desc.Digest] {
			delete(r.queued, desc.Digest)
			failed = append(failed, *desc)
		}
	}
	return r.found, failed
}

// stop gives up what was queued, if it has not ended.
func (r *aheadReader) stop() {
	if r.cancel(); r.queue != nil {
		close(r.queue)
		r.wg.Wait()
	}
}
