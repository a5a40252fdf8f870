package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"

	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/gardenlinux/gloci-layout/layout"
)

const (
	maxLookaside     = 128     // signatures of one manifest, as containers/image has it
	maxLookasideSize = 4 << 20 // bytes of one
)

// Lookaside returns the signatures of d that lie outside the registry, where
// registries.d says (containers-registries.d(5), "lookaside"): those of GnuPG.
// They are numbered from 1, and the first that is missing ends them. No
// credentials are sent there. Nothing of them is verified.
func (c *Client) Lookaside(ctx context.Context, d digest.Digest) ([][]byte, error) {
	base, err := c.lookasideBase()
	if err != nil {
		return nil, fmt.Errorf("registries.d: %w", err)
	}
	var get func(context.Context, *url.URL) ([]byte, error)
	switch base.Scheme {
	case "file":
		get = readSignature
	case "http", "https":
		client, end, err := c.outsider(base)
		if err != nil {
			return nil, err
		}
		defer end()
		get = func(ctx context.Context, u *url.URL) (raw []byte, err error) {
			err = c.retry(ctx, func(ctx context.Context) error {
				raw, err = c.getSignature(ctx, client, u)
				return err
			})
			return raw, err
		}
	default:
		return nil, fmt.Errorf("registries.d: %w lookaside %s", layout.ErrInvalid, base.Redacted())
	}
	var found [][]byte
	for n := 1; n <= maxLookaside; n++ {
		u := *base
		u.Path = fmt.Sprintf("%s@%s=%s/signature-%d", base.Path, d.Algorithm(), d.Encoded(), n)
		raw, err := get(ctx, &u)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return found, nil
		case err != nil:
			return nil, &Error{Err: err, text: clean(u.Redacted()) + ": " + brief(err)}
		}
		found = append(found, raw)
	}
	return nil, fmt.Errorf("%s: %w: more than %d signatures", clean(base.Redacted()), layout.ErrInvalid, maxLookaside)
}

// brief is what err says beside the URL.
func brief(err error) string {
	var resp *errcode.ErrorResponse
	var urlErr *url.Error
	switch {
	case errors.As(err, &resp):
		return fmt.Sprintf("status %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	case errors.As(err, &urlErr):
		return clean(urlErr.Err.Error())
	}
	return clean(err.Error())
}

func (c *Client) lookasideBase() (*url.URL, error) {
	ref, err := docker.NewReference(reference.TagNameOnly(c.Named))
	if err != nil {
		return nil, err
	}
	return docker.SignatureStorageBaseURL(&types.SystemContext{RegistriesDirPath: c.opts.RegistriesDir}, ref, false)
}

// outsider returns a client for a server that is no registry.
func (c *Client) outsider(u *url.URL) (*http.Client, func(), error) {
	base := c.opts.Transport
	end := func() {}
	if base == nil {
		// What the user has said of certificates is for the registry's host.
		opts, insecure := *c.opts, false
		if u.Host == reference.Domain(c.Named) {
			insecure = c.opts.insecure(false)
		} else {
			opts.CertDir = ""
		}
		t, _, err := opts.newTransports(u.Host, insecure)
		if err != nil {
			return nil, nil, err
		}
		base, end = t, t.CloseIdleConnections
	}
	base = c.opts.limit(base)[0]
	return &http.Client{
		Transport: &watcher{base: base, stall: c.opts.stall(), slow: c.opts.Rate > 0, trace: c.opts.Trace},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			switch {
			case len(via) > mostRedirects:
				return fmt.Errorf("%w: more than %d", errRedirect, mostRedirects)
			case via[0].URL.Scheme == "https" && req.URL.Scheme != "https":
				return fmt.Errorf("%w: from https to %s", errRedirect, req.URL.Scheme)
			}
			return nil
		},
	}, end, nil
}

func (c *Client) getSignature(ctx context.Context, client *http.Client, u *url.URL) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", c.opts.userAgent())
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return nil, fs.ErrNotExist
	default:
		return nil, &errcode.ErrorResponse{Method: req.Method, URL: u, StatusCode: resp.StatusCode}
	}
	return readLimited(resp.Body)
}

// readSignature reads a file that the system's configuration names, so links
// in its path are followed.
func readSignature(_ context.Context, u *url.URL) ([]byte, error) {
	f, err := os.Open(u.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	return readLimited(f)
}

func readLimited(r io.Reader) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxLookasideSize+1))
	if err == nil && len(raw) > maxLookasideSize {
		err = fmt.Errorf("%w signature: more than %d bytes", layout.ErrInvalid, maxLookasideSize)
	}
	return raw, err
}
