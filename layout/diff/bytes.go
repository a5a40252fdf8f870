package diff

import (
	"context"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// A side is A or B.
type side uint8

const (
	sideA side = 1 << iota
	sideB
)

// A ledger counts the bytes of blobs, each once, without opening them.
type ledger struct {
	on      bool
	blobs   map[digest.Digest]entry
	equals  []ocispec.Descriptor // documents that both sides have, not opened
	ahead   *aheadReader         // of the manifests of these, which are then not in equals; may be nil
	lacking bool                 // something could not be counted
}

type entry struct {
	size int64
	on   side
}

func newLedger(on bool) *ledger { return &ledger{on: on, blobs: map[digest.Digest]entry{}} }

func (l *ledger) add(on side, desc ocispec.Descriptor) { l.blob(on, desc.Digest, desc.Size) }

func (l *ledger) blob(on side, d digest.Digest, size int64) {
	if l.on {
		l.blobs[d] = entry{size: size, on: l.blobs[d].on | on}
	}
}

// document counts what a manifest names.
func (l *ledger) document(on side, doc *layout.Document) {
	if doc.Config != nil {
		l.add(on, *doc.Config)
	}
	for _, layer := range doc.Layers {
		l.add(on, layer)
	}
}

// equal notes an entry that both sides have; desc must stay as it is.
func (l *ledger) equal(desc *ocispec.Descriptor) {
	if !l.on {
		return
	}
	l.blob(sideA|sideB, desc.Digest, desc.Size)
	switch {
	case l.ahead != nil && layout.IsManifest(desc.MediaType):
		l.ahead.add(desc)
	case documentType(*desc):
		l.equals = append(l.equals, *desc)
	}
}

func (l *ledger) incomplete() { l.lacking = true }

// tree counts an entry that one side has, and all below it, and returns how many
// bytes those are.
func (l *ledger) tree(ctx context.Context, c *comparer, on side, desc ocispec.Descriptor) (int64, error) {
	if !l.on {
		return 0, nil
	}
	n, bytes, err := l.walk(ctx, c, on, c.source(on), []ocispec.Descriptor{desc})
	c.sum.Manifests += n
	c.sum.Changed += n
	if on == sideA {
		c.sum.Removed += n
	} else {
		c.sum.Added += n
	}
	return bytes, err
}

// walk counts roots and all below them, and returns how many manifests and bytes
// those are. Only documents are read.
func (l *ledger) walk(ctx context.Context, c *comparer, on side, src layout.Source, roots []ocispec.Descriptor) (manifests int, bytes int64, err error) {
	seen := map[digest.Digest]bool{}
	add := func(desc ocispec.Descriptor) {
		if l.add(on, desc); !seen[desc.Digest] {
			seen[desc.Digest] = true
			bytes += desc.Size
		}
	}
	if c.opts.Select != nil {
		matches, err := layout.Select(ctx, src, roots, *c.opts.Select)
		for _, m := range matches {
			add(m.Desc)
			if m.Document.Config != nil {
				add(*m.Document.Config)
			}
			for _, layer := range m.Document.Layers {
				add(layer)
			}
		}
		return len(matches), bytes, err
	}
	for n, err := range layout.Walk(ctx, src, roots, &layout.WalkOptions{Sparse: true, NoSubjects: true}) {
		if err != nil {
			return manifests, bytes, err
		}
		if n.Absent {
			l.lacking = true
			continue
		}
		add(n.Desc)
		if n.Document != nil && !n.Document.IsIndex && !(l.ahead != nil && l.ahead.queued[n.Desc.Digest]) {
			manifests++
		}
	}
	return manifests, bytes, nil
}

// totalSource is the side whose manifests are read to sum up what is equal, nil
// for none.
func (c *comparer) totalSource() layout.Source {
	return map[string]layout.Source{"a": c.a, "b": c.b}[c.opts.Total]
}

// total sums up.
func (c *comparer) total(ctx context.Context) error {
	l := c.bytes
	if !l.on {
		return nil
	}
	c.sum.Complete = !l.lacking
	if l.ahead != nil {
		found, failed := l.ahead.end()
		c.sum.Manifests += len(l.ahead.queued)
		l.equals = append(failed, l.equals...) // an index may do without them, index.json may not
		for _, n := range found {
			if l.blob(sideA|sideB, n.digest, n.size); n.document != nil {
				l.equals = append(l.equals, *n.document)
			}
		}
	}
	switch src := c.totalSource(); {
	case len(l.equals) == 0:
	case src == nil:
		c.sum.Complete = false
	default:
		n, _, err := l.walk(ctx, c, sideA|sideB, src, l.equals)
		if err != nil {
			return err
		}
		c.sum.Manifests += n
		c.sum.Complete = !l.lacking
	}
	for _, e := range l.blobs {
		switch e.on {
		case sideA:
			c.sum.OnlyA += e.size
		case sideB:
			c.sum.OnlyB += e.size
		default:
			c.sum.Shared += e.size
		}
	}
	return nil
}
