package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"

	"github.com/containers/image/v5/docker/reference"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// A Client speaks to one repository. Its methods may be called from several
// goroutines; they share connections, tokens and the pauses that a registry
// asks for.
type Client struct {
	Named reference.Named

	opts    *Options
	repo    *remote.Repository
	actions []string // scope of the tokens: "pull", or "pull" and "push"
	close   func()

	mu    sync.Mutex
	pause <-chan struct{} // closed when requests may go on; nil if they may

	from      string        // a repository of the same registry that has the blobs, or ""
	noMount   atomic.Bool   // these credentials may not read there
	mounts    atomic.Bool   // a mount from the repository itself has told of a present blob
	headFirst atomic.Bool   // it tells nothing here
	learning  chan struct{} // closed when that was found out; nil if nobody does

	referrers atomic.Int32 // whether the registry lists referrers
	anonymous bool         // see Anonymous
	answer    answerTime
}

// Open returns a client of the endpoint; push asks for the right to write. An
// insecure endpoint is asked once whether it speaks HTTPS; else nothing is sent.
func Open(ctx context.Context, e Endpoint, push bool, opts *Options) (*Client, error) {
	if opts == nil {
		opts = &Options{}
	}
	if opts.shared != nil {
		return opts.shared.open(ctx, e, push, opts)
	}
	return open(ctx, e, push, opts)
}

func open(ctx context.Context, e Endpoint, push bool, opts *Options) (*Client, error) {
	cred, err := opts.credential(ctx, e.Named)
	if err != nil {
		return nil, err
	}
	repo, err := remote.NewRepository(e.Named.Name())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.Named.Name(), err)
	}
	c := &Client{Named: e.Named, opts: opts, repo: repo, actions: []string{auth.ActionPull}, close: func() {}}
	if push {
		c.actions = append(c.actions, auth.ActionPush)
	}
	// Without this, oras-go edits the list of referrers behind our back; see
	// Client.PutManifest.
	if err := repo.SetReferrersCapability(true); err != nil {
		return nil, err
	}
	repo.ManifestMediaTypes = ManifestTypes
	repo.TagListMaxPages = maxTagPages

	base, outside := opts.Transport, opts.Transport
	if base == nil {
		b, o, err := opts.newTransports(reference.Domain(e.Named), e.Insecure)
		if err != nil {
			return nil, err
		}
		base, outside = b, o
		c.close = func() {
			b.CloseIdleConnections()
			o.CloseIdleConnections()
		}
	}
	under := opts.limit(base, outside)
	base, outside = under[0], under[1]
	watched := &watcher{base: base, stall: opts.stall(), slow: opts.Rate > 0, trace: opts.Trace, answer: &c.answer}
	host := repo.Reference.Host()
	if e.Insecure {
		if repo.PlainHTTP, err = c.speaksPlain(ctx, watched, host); err != nil {
			return nil, c.wrap(ctx, "", err)
		}
	}
	origin := &url.URL{Scheme: "https", Host: host}
	if repo.PlainHTTP {
		origin.Scheme = "http"
	}
	g := newGuard(watched, &watcher{base: outside, stall: opts.stall(), slow: opts.Rate > 0, trace: opts.Trace}, origin, repo.Reference.Repository, opts.TrustAuthHosts)
	client := &auth.Client{
		Client: &http.Client{Transport: g, CheckRedirect: g.redirect},
		Cache:  auth.NewCache(),
		Credential: func(_ context.Context, hostport string) (auth.Credential, error) {
			if hostport != host {
				return auth.EmptyCredential, nil
			}
			return cred, nil
		},
		ClientID: "gloci-layout",
	}
	client.SetUserAgent(opts.userAgent())
	repo.Client = client
	return c, nil
}

func (o *Options) userAgent() string {
	if o.UserAgent == "" {
		return "gloci-layout"
	}
	return o.UserAgent
}

// speaksPlain tells whether the registry at host must be asked in plain HTTP:
// HTTPS is tried first, as podman does.
func (c *Client) speaksPlain(ctx context.Context, rt http.RoundTripper, host string) (bool, error) {
	var plain bool
	err := c.retry(ctx, func(ctx context.Context) error {
		err := c.ping(ctx, rt, "https", host)
		if plain = false; err == nil {
			return nil
		}
		if errPlain := c.ping(ctx, rt, "http", host); errPlain != nil {
			return errors.Join(err, errPlain)
		}
		plain = true
		return nil
	})
	return plain, err
}

// ping returns nil if anything answers. What it says, even an error, is judged
// with the first request that matters.
func (c *Client) ping(ctx context.Context, rt http.RoundTripper, scheme, host string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+host+"/v2/", nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", c.opts.userAgent())
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return &url.Error{Op: req.Method, URL: req.URL.String(), Err: err}
	}
	// So that the connection is used again.
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // its content is of no interest
	c.anonymous = resp.StatusCode == http.StatusOK
	return resp.Body.Close()
}

// MountFrom has uploads ask the registry to take blobs from another of its
// repositories. It must be called before the first upload.
func (c *Client) MountFrom(repository string) { c.from = repository }

// Close ends idle connections.
func (c *Client) Close() { c.close() }

// run calls op, and again where that may help, with the scope of all our
// requests in its context, so that one token serves them all.
func (c *Client) run(ctx context.Context, what string, op func(context.Context) error) error {
	ctx = auth.AppendRepositoryScope(ctx, c.repo.Reference, c.actions...)
	return c.wrap(ctx, what, c.retry(ctx, op))
}
