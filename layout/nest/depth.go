package nest

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// CheckDepth refuses, with [layout.ErrInvalid], roots with more documents above
// one another than [layout.Walk] follows. A walk comes to each digest once, and
// so need not see the longest way.
func CheckDepth(ctx context.Context, src layout.Source, roots []ocispec.Descriptor) error {
	d := depths{ctx: ctx, src: src, known: map[digest.Digest]int{}}
	for _, desc := range roots {
		n, err := d.of(desc, 1)
		if err != nil {
			return err
		}
		if n > layout.DefaultMaxDepth {
			return tooDeep(desc)
		}
	}
	return nil
}

func tooDeep(desc ocispec.Descriptor) error {
	return fmt.Errorf("%s: %w index: nested more than %d deep", desc.Digest, layout.ErrInvalid, layout.DefaultMaxDepth)
}

type depths struct {
	ctx   context.Context //nolint:containedctx // lives as long as CheckDepth
	src   layout.Source
	known map[digest.Digest]int
}

// of returns how many documents stand above one another from desc down.
func (d depths) of(desc ocispec.Descriptor, level int) (int, error) {
	if !layout.IsIndex(desc.MediaType) {
		return 1, nil
	}
	if n, ok := d.known[desc.Digest]; ok {
		return n, nil
	}
	if level > layout.DefaultMaxDepth {
		return 0, tooDeep(desc)
	}
	doc, err := layout.ReadDocument(d.ctx, d.src, desc)
	if errors.Is(err, layout.ErrNotFound) && level > 1 {
		return 1, nil // of a sparse index
	}
	if err != nil {
		return 0, err
	}
	most := 0
	for _, child := range doc.Manifests {
		n, err := d.of(child, level+1)
		if err != nil {
			return 0, err
		}
		most = max(most, n)
	}
	d.known[desc.Digest] = most + 1
	return most + 1, nil
}
