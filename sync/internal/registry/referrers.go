package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"

	"github.com/gardenlinux/gloci-layout/layout"
)

// maxReferrers bounds what a registry may list for one subject.
const maxReferrers = 10_000

// Referrers returns what the registry lists as referrers of d (distribution-spec,
// "Listing Referrers"). A registry that cannot list any is
// errors.ErrUnsupported.
func (c *Client) Referrers(ctx context.Context, d digest.Digest) (list []ocispec.Descriptor, err error) {
	unsupported := false
	err = c.run(ctx, string(d), func(ctx context.Context) error {
		list = nil
		err := c.repo.Referrers(ctx, ocispec.Descriptor{Digest: d}, "", func(page []ocispec.Descriptor) error {
			for _, desc := range page {
				if _, err := layout.ParseDigest(string(desc.Digest)); err != nil || desc.MediaType == "" || desc.Size < 0 {
					return fmt.Errorf("%w list of referrers of %s: an entry has the digest %.100q", layout.ErrInvalid, d, desc.Digest)
				}
			}
			if list = append(list, page...); len(list) > maxReferrers {
				return fmt.Errorf("%w list of referrers of %s: more than %d", layout.ErrInvalid, d, maxReferrers)
			}
			return nil
		})
		if errors.Is(err, errdef.ErrUnsupported) {
			unsupported = true
			return nil
		}
		return err
	})
	if err == nil && unsupported {
		return nil, fmt.Errorf("%s: list of referrers: %w", c.Named.Name(), errors.ErrUnsupported)
	}
	return list, err
}
