package sync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/sync/internal/registry"
)

// dryRun counts what send would send.
func (p *pusher) dryRun(ctx context.Context) error {
	pl := p.plan
	if err := p.allowedTags(ctx); err != nil {
		return err
	}
	for _, level := range pl.levels {
		p.report.Manifests += len(level)
		if err := registry.Each(ctx, p.client.Jobs(), level, func(ctx context.Context, doc *document) error { return p.allowed(ctx, doc) }); err != nil {
			return err
		}
	}
	return registry.Each(ctx, p.client.SmallJobs(), pl.blobs, func(ctx context.Context, desc ocispec.Descriptor) error {
		_, err := p.client.ResolveBlob(ctx, desc.Digest)
		p.mu.Lock()
		defer p.mu.Unlock()
		switch {
		case err == nil:
			p.report.Present++
		case errors.Is(err, layout.ErrNotFound):
			p.report.Blobs++
			p.report.Bytes += desc.Size
		default:
			return err
		}
		return nil
	})
}

// send makes the repository hold everything, by digest, but the last root.
func (p *pusher) send(ctx context.Context) error {
	pl := p.plan
	if err := p.allowedTags(ctx); err != nil {
		return err
	}
	if len(pl.levels) == 0 {
		return nil
	}
	jobs := p.client.Jobs()
	for _, level := range pl.levels { // before the first byte leaves
		if err := registry.Each(ctx, jobs, level, p.allowed); err != nil {
			return err
		}
	}
	if err := p.putBlobs(ctx, pl.blobs); err != nil {
		return err
	}
	for _, level := range pl.levels {
		err := registry.Each(ctx, p.client.SmallJobs(), level, func(ctx context.Context, doc *document) error {
			if doc == pl.last {
				return nil
			}
			done, err := p.hold(ctx, doc.desc.Size)
			if err != nil {
				return err
			}
			defer done()
			raw := doc.raw
			if raw == nil {
				if raw, err = layout.ReadAll(ctx, p.src, doc.desc, layout.MaxDocument); err != nil {
					return fmt.Errorf("%s: %w", p.src, err)
				}
			}
			return p.putDocument(ctx, doc, raw)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// allowed asks the signature policy.
func (p *pusher) allowed(ctx context.Context, doc *document) error {
	if doc.made {
		return nil
	}
	desc := doc.desc
	if doc.origin != nil {
		desc = *doc.origin
	}
	names := doc.names
	if len(names) == 0 {
		names = []string{""}
	}
	for _, name := range names {
		if err := p.policies.check(ctx, p.src, p.src, desc, name); err != nil {
			return err
		}
	}
	return nil
}

// allowedTags asks the signature policy about what tags are to name, where the
// registry has it already.
func (p *pusher) allowedTags(ctx context.Context) error {
	return registry.Each(ctx, p.client.Jobs(), p.plan.moves, func(ctx context.Context, m *move) error {
		if m.prune || m.state == TagUnchanged || !m.root.present {
			return nil
		}
		return p.allowed(ctx, m.root)
	})
}

// smallBlob is the size in bytes up to which a blob is gone before the registry
// has answered: what takes long is the answer.
const smallBlob = 64 << 10 // 64 KiB

// hold waits until a document of size bytes may be in memory: small
// ones at once, of others as many as there are jobs. done has to be called after
// it.
func (p *pusher) hold(ctx context.Context, size int64) (done func(), err error) {
	if size <= smallBlob {
		return func() {}, nil
	}
	if err := p.large.Acquire(ctx, 1); err != nil {
		return nil, context.Cause(ctx)
	}
	return func() { p.large.Release(1) }, nil
}

// putBlobs sends blobs, which are sorted by size, the largest first. Small ones
// go beside the large ones, more of them at once.
func (p *pusher) putBlobs(ctx context.Context, blobs []ocispec.Descriptor) error {
	at := slices.IndexFunc(blobs, func(b ocispec.Descriptor) bool { return b.Size <= smallBlob })
	jobs := p.client.Jobs()
	if at < 0 {
		return registry.Each(ctx, jobs, blobs, p.putBlob)
	}
	large, small := blobs[:at], blobs[at:]
	ask := slices.IndexFunc(large, func(b ocispec.Descriptor) bool { return !p.client.Large(b) })
	if ask < 0 {
		ask = at
	}
	learn := p.client.LearnMounts(ask)
	putSmall := func(ctx context.Context, jobs int) error {
		defer learn(ctx, ocispec.Descriptor{})
		return registry.Each(ctx, jobs, small, func(ctx context.Context, desc ocispec.Descriptor) error {
			err := p.putBlob(ctx, desc)
			if err == nil && p.has(desc.Digest) {
				learn(ctx, desc)
			}
			return err
		})
	}
	switch {
	case at == 0:
		return putSmall(ctx, p.client.SmallJobs())
	case jobs == 1:
		if err := putSmall(ctx, 1); err != nil {
			return err
		}
		return registry.Each(ctx, 1, large, p.putBlob)
	}
	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error { return registry.Each(inner, jobs, large, p.putBlob) })
	group.Go(func() error { return putSmall(inner, p.client.SmallJobs()-jobs) })
	if err := group.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// putBlob sends one blob if the repository lacks it.
func (p *pusher) putBlob(ctx context.Context, desc ocispec.Descriptor) error {
	if len(desc.URLs) > 0 {
		// A layer that is to be had elsewhere may be missing here
		// (descriptor.md, "urls"). It is never fetched from there.
		if _, err := p.src.Stat(ctx, desc.Digest); errors.Is(err, layout.ErrNotFound) {
			return nil
		}
	}
	var sent int64
	open := func(ctx context.Context) (io.ReadCloser, error) {
		if sent == 0 {
			p.event("start", desc, 0)
		} else {
			p.event("bytes", desc, -sent)
			sent = 0
		}
		if raw, ok := p.made[desc.Digest]; ok {
			return io.NopCloser(bytes.NewReader(raw)), nil
		}
		return p.src.Blob(ctx, desc)
	}
	uploaded, err := p.client.PutBlob(ctx, desc, open, func(n int) {
		sent += int64(n)
		p.event("bytes", desc, int64(n))
	})
	if err != nil {
		return fmt.Errorf("push %s: %w", desc.Digest, err)
	}
	p.mu.Lock()
	p.held[desc.Digest] = true
	if uploaded {
		p.report.Blobs++
		p.report.Bytes += desc.Size
	} else {
		p.report.Present++
	}
	p.mu.Unlock()
	if uploaded {
		p.event("done", desc, 0)
	} else {
		p.event("skip", desc, 0)
	}
	return nil
}

// has tells whether the repository holds a blob for sure.
func (p *pusher) has(d digest.Digest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held[d]
}

// putDocument sends one manifest or index by digest.
func (p *pusher) putDocument(ctx context.Context, doc *document, raw []byte) error {
	p.event("start", doc.desc, 0)
	noticed, err := p.client.PutManifest(ctx, doc.desc, raw, "")
	if err != nil {
		return refused(doc, err)
	}
	p.mu.Lock()
	p.report.Manifests++
	if doc.read.Subject != nil && !noticed {
		p.unlisted = append(p.unlisted, doc)
	}
	p.mu.Unlock()
	p.event("bytes", doc.desc, int64(len(raw)))
	p.event("done", doc.desc, 0)
	return nil
}
