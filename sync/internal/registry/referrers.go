package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

const (
	maxReferrers     = 10_000 // of one subject
	maxReferrerPages = 1000
)

// Whether the registry keeps lists of referrers.
const (
	referrersUnknown = iota
	referrersKept
	referrersNot
)

// Referrers returns what the registry lists as referrers of d (distribution-spec,
// "Listing Referrers"). A registry that cannot list any answers 404 to
// everybody: it is errors.ErrUnsupported. After it has given a list, a 404 is
// [layout.ErrNotFound].
func (c *Client) Referrers(ctx context.Context, d digest.Digest) (list []ocispec.Descriptor, err error) {
	unsupported := fmt.Errorf("%s: list of referrers: %w", c.Named.Name(), errors.ErrUnsupported)
	if c.referrers.Load() == referrersNot {
		return nil, unsupported
	}
	err = c.run(ctx, string(d), func(ctx context.Context) error {
		list = nil
		next, err := url.Parse(c.url("referrers", string(d)))
		if err != nil {
			return err
		}
		for range maxReferrerPages {
			var page []ocispec.Descriptor
			if page, next, err = c.referrersPage(ctx, next); err != nil {
				return err
			}
			if list = append(list, page...); len(list) > maxReferrers {
				return fmt.Errorf("%w list of referrers of %s: more than %d", layout.ErrInvalid, d, maxReferrers)
			}
			if next == nil {
				return nil
			}
		}
		return fmt.Errorf("%w list of referrers of %s: more than %d pages", layout.ErrInvalid, d, maxReferrerPages)
	})
	switch {
	case err == nil:
		c.referrers.Store(referrersKept)
	case errors.Is(err, layout.ErrNotFound) && c.referrers.CompareAndSwap(referrersUnknown, referrersNot):
		return nil, unsupported
	}
	return list, err
}

// referrersPage asks for one page and returns the address of the next, or nil.
func (c *Client) referrersPage(ctx context.Context, u *url.URL) ([]ocispec.Descriptor, *url.URL, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Accept", ocispec.MediaTypeImageIndex)
	resp, err := c.repo.Client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	if resp.StatusCode != http.StatusOK {
		return nil, nil, answered(resp)
	}
	mediaType, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || mediaType != ocispec.MediaTypeImageIndex {
		return nil, nil, fmt.Errorf("%w list of referrers: the answer is a %.100q", layout.ErrInvalid, resp.Header.Get("Content-Type"))
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, layout.MaxDocument+1))
	if err != nil {
		return nil, nil, err
	}
	x, err := layout.ParseIndex(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("list of referrers: %w", err)
	}
	next, err := nextPage(resp)
	return x.Entries(), next, err
}
