package sync

import (
	"context"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout/consumer"
)

// Tag asks the registry what a tag names, also one that [Remote.Index] leaves out
// because r was opened for another. A tag that is not there is
// [layout.ErrNotFound].
func (r *Remote) Tag(ctx context.Context, tag string) (ocispec.Descriptor, error) {
	desc, err := r.client.Resolve(ctx, tag)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%s: tag %q: %w", r, tag, err)
	}
	return named(desc, tag), nil
}

// Package consumer asks for tags so.
var _ consumer.Tagger = (*Remote)(nil)
