package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"

	"github.com/gardenlinux/gloci-layout/layout"
)

// ManifestTypes are the media types of documents, as registries need them in
// Accept: without those of indexes, many answer with one of its members.
var ManifestTypes = []string{
	ocispec.MediaTypeImageIndex,
	ocispec.MediaTypeImageManifest,
	"application/vnd.docker.distribution.manifest.list.v2+json",
	"application/vnd.docker.distribution.manifest.v2+json",
	"application/vnd.oci.artifact.manifest.v1+json",
}

// Resolve asks for a tag or digest of a manifest or index and returns its
// descriptor. Only the registry's 404 is [layout.ErrNotFound].
func (c *Client) Resolve(ctx context.Context, tagOrDigest string) (desc ocispec.Descriptor, err error) {
	err = c.run(ctx, tagOrDigest, func(ctx context.Context) error {
		desc, err = c.repo.Manifests().Resolve(ctx, tagOrDigest)
		return err
	})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if _, err := layout.ParseDigest(string(desc.Digest)); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%s:%s: %w", c.Named.Name(), tagOrDigest, err)
	}
	return desc, nil
}

// Fetch is [Client.Resolve] and [Client.Manifest] in one request.
func (c *Client) Fetch(ctx context.Context, tagOrDigest string) (desc ocispec.Descriptor, raw []byte, err error) {
	err = c.run(ctx, tagOrDigest, func(ctx context.Context) error {
		found, rc, err := c.repo.Manifests().FetchReference(ctx, tagOrDigest)
		if err != nil {
			return err
		}
		defer rc.Close() //nolint:errcheck // read to its verified end
		if _, err := layout.ParseDigest(string(found.Digest)); err != nil {
			return err
		}
		if found.Size > layout.MaxDocument {
			return fmt.Errorf("%w: %d bytes, more than the limit of %d", layout.ErrInvalid, found.Size, layout.MaxDocument)
		}
		desc = found
		raw, err = io.ReadAll(layout.VerifyReader(ctx, rc, desc))
		return err
	})
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	return desc, raw, nil
}

// Exists tells whether the repository has the manifest or index d.
func (c *Client) Exists(ctx context.Context, d digest.Digest) (bool, error) {
	_, err := c.Resolve(ctx, string(d))
	if errors.Is(err, layout.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// ResolveBlob returns the size of a blob that is no manifest, or
// [layout.ErrNotFound].
func (c *Client) ResolveBlob(ctx context.Context, d digest.Digest) (size int64, err error) {
	err = c.run(ctx, string(d), func(ctx context.Context) error {
		desc, err := c.repo.Blobs().Resolve(ctx, string(d))
		size = desc.Size
		return err
	})
	return size, err
}

// Manifest returns the verified bytes of the manifest or index desc.
func (c *Client) Manifest(ctx context.Context, desc ocispec.Descriptor) (raw []byte, err error) {
	if desc.Size > layout.MaxDocument {
		return nil, fmt.Errorf("%s@%s: %w: %d bytes, more than the limit of %d", c.Named.Name(), desc.Digest, layout.ErrInvalid, desc.Size, layout.MaxDocument)
	}
	err = c.run(ctx, string(desc.Digest), func(ctx context.Context) error {
		rc, err := c.repo.Manifests().Fetch(ctx, desc)
		if err != nil {
			return err
		}
		rc = layout.VerifyReader(ctx, rc, desc)
		defer rc.Close() //nolint:errcheck // read to its verified end
		raw, err = io.ReadAll(rc)
		return err
	})
	return raw, err
}

// Blob opens a blob that is no manifest. The bytes are not verified. A transfer
// that breaks goes on where it broke, as often as Options.Tries says without a
// byte in between.
func (c *Client) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	return c.BlobFrom(ctx, desc, 0)
}

// BlobFrom is [Client.Blob] from the byte offset on.
func (c *Client) BlobFrom(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	r := &resumed{c: c, ctx: ctx, desc: desc, at: offset}
	if err := r.open(); err != nil {
		return nil, err
	}
	return r, nil
}

// resumed reads a blob over as many requests as it takes.
type resumed struct {
	c     *Client
	ctx   context.Context //nolint:containedctx // bounds the reads, as layout.Source says of Blob
	desc  ocispec.Descriptor
	rc    io.ReadCloser
	at    int64 // bytes read
	tries int   // since the last byte
}

func (r *resumed) open() error {
	return r.c.run(r.ctx, string(r.desc.Digest), func(ctx context.Context) (err error) {
		if r.at > 0 {
			r.rc, err = r.c.rest(ctx, r.desc, r.at)
		} else {
			r.rc, err = r.c.repo.Blobs().Fetch(ctx, r.desc)
		}
		return err
	})
}

// rest asks for the bytes of a blob from offset on (distribution-spec,
// "Pulling blobs"). A registry that knows no ranges sends all of it.
func (c *Client) rest(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url("blobs", string(desc.Digest)), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	resp, err := c.repo.Client.Do(req)
	if err != nil {
		return nil, err
	}
	switch resp.StatusCode {
	case http.StatusPartialContent:
		want := fmt.Sprintf("bytes %d-", offset)
		if got := resp.Header.Get("Content-Range"); !strings.HasPrefix(got, want) {
			err = fmt.Errorf("%w: Content-Range is %.100q where %s was asked for", layout.ErrMismatch, got, want)
		}
	case http.StatusOK:
		_, err = io.CopyN(io.Discard, resp.Body, offset)
	default:
		err = answered(resp)
	}
	if err != nil {
		return nil, errors.Join(err, resp.Body.Close())
	}
	return resp.Body, nil
}

// url returns that of a thing of the repository: "manifests", "blobs" or
// "referrers", and its tag or digest.
func (c *Client) url(kind, name string) string {
	scheme := "https"
	if c.repo.PlainHTTP {
		scheme = "http"
	}
	return scheme + "://" + c.repo.Reference.Host() + "/v2/" + c.repo.Reference.Repository + "/" + kind + "/" + name
}

func (r *resumed) Read(p []byte) (int, error) {
	for {
		n, err := r.rc.Read(p)
		r.at += int64(n)
		if n > 0 {
			r.tries = 0
			if !errors.Is(err, io.EOF) {
				err = nil // it comes again with the next read
			}
			return n, err
		}
		if errors.Is(err, io.EOF) && r.at < r.desc.Size {
			err = io.ErrUnexpectedEOF
		}
		if err == nil || errors.Is(err, io.EOF) {
			return n, err
		}
		if r.tries++; r.ctx.Err() != nil || !retryable(err) || r.tries >= r.c.opts.tries() {
			return n, r.c.wrap(r.ctx, string(r.desc.Digest), err)
		}
		_ = r.rc.Close() // broken already
		if err := r.open(); err != nil {
			r.rc = io.NopCloser(bytes.NewReader(nil))
			return n, err
		}
	}
}

func (r *resumed) Close() error { return r.rc.Close() }

// PutManifest writes raw, the content of desc, under its digest or under a tag.
// It reports whether the registry has noticed a subject (OCI-Subject); one that
// has not does not list referrers, and its list is the client's to keep
// (distribution-spec, "Referrers Tag Schema"). When it is unclear whether a
// request has moved a tag, the registry is asked before the next; what has the
// right digest can be written again at any time.
func (c *Client) PutManifest(ctx context.Context, desc ocispec.Descriptor, raw []byte, tag string) (subject bool, err error) {
	name := tag
	if name == "" {
		name = string(desc.Digest)
	}
	unclear := false
	err = c.run(ctx, name, func(ctx context.Context) error {
		if unclear && tag != "" {
			got, err := c.repo.Manifests().Resolve(ctx, name)
			if err == nil && got.Digest == desc.Digest {
				return nil
			}
			if err != nil && !errors.Is(err, errdef.ErrNotFound) {
				return err
			}
		}
		err := c.repo.Manifests().PushReference(ctx, desc, bytes.NewReader(raw), name)
		if err != nil {
			unclear = true
			return err
		}
		observed, _ := ctx.Value(observedKey{}).(*observed)
		header, echoed, _ := observed.get()
		subject = header != ""
		if tag == "" || echoed != "" {
			return nil // oras-go has compared the digest
		}
		got, err := c.repo.Manifests().Resolve(ctx, tag)
		if err == nil && got.Digest != desc.Digest {
			err = fmt.Errorf("%w: the registry has %s under the tag after %s was written", layout.ErrMismatch, got.Digest, desc.Digest)
		}
		return err
	})
	return subject, err
}

// DeleteTag asks the registry to forget a tag. Many cannot.
func (c *Client) DeleteTag(ctx context.Context, tag string) error {
	return c.run(ctx, tag, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodDelete, c.url("manifests", tag), nil)
		if err != nil {
			return err
		}
		resp, err := c.repo.Client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close() //nolint:errcheck // not read
		if resp.StatusCode != http.StatusAccepted && resp.StatusCode != http.StatusNotFound {
			return answered(resp)
		}
		return nil
	})
}

// ValidTag tells whether s is a tag (distribution-spec, "Pulling manifests").
func ValidTag(s string) bool {
	if s == "" || len(s) > 128 || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '.', c == '-':
		default:
			return false
		}
	}
	return true
}
