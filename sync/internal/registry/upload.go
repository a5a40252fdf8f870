package registry

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/gardenlinux/gloci-layout/layout"
)

// askFirst is the size in bytes from which one more request is cheap beside an
// upload that may not be needed.
const askFirst = 4 << 20

// errPresent stops an upload whose blob turns out to be there.
var errPresent = errors.New("the blob is present")

// A localError is one of reading what is to be sent: no fault of the registry,
// and no reason to try again.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// PutBlob makes the repository hold desc. The content is opened, and read up to
// its verified end, only if it has to be sent; sent is called with the bytes
// that left. A failed transfer starts again with a new upload. PutBlob returns
// whether the content was sent.
//
// A mount of the blob from the repository itself asks whether it is there and
// starts the upload if it is not, in one request (distribution-spec, "Mounting
// a blob from another repository"); so does one from the repository that
// [Client.MountFrom] has named. Where that tells nothing, as some
// registries never mount, a HEAD does.
func (c *Client) PutBlob(ctx context.Context, desc ocispec.Descriptor, open func(context.Context) (io.ReadCloser, error), sent func(int)) (bool, error) {
	uploaded := false
	upload := func(ctx context.Context) error {
		body := &uploadBody{ctx: ctx, open: open, sent: sent}
		defer body.abandon()
		err := c.putBlob(ctx, desc, body)
		// What went wrong in reading is the cause of what http makes of it.
		if local := body.failed(); local != nil {
			return &localError{local}
		}
		if errors.Is(err, errPresent) {
			return nil
		}
		uploaded = err == nil && body.opened()
		return err
	}
	err := c.run(ctx, string(desc.Digest), func(ctx context.Context) error {
		err := upload(ctx)
		// oras-go sends the content with the token that has opened the upload. If
		// that has expired in between, a new upload begins with a new one.
		var resp *errcode.ErrorResponse
		if errors.As(err, &resp) && resp.Method == http.MethodPut && resp.StatusCode == http.StatusUnauthorized {
			err = upload(ctx)
		}
		return err
	})
	var local *localError
	if errors.As(err, &local) {
		return false, local.err
	}
	return uploaded, err
}

func (c *Client) putBlob(ctx context.Context, desc ocispec.Descriptor, body *uploadBody) error {
	if c.headFirst.Load() {
		present, err := c.hasBlob(ctx, desc)
		if err != nil || present {
			return err
		}
		return c.repo.Blobs().Push(ctx, desc, body)
	}
	from := c.from
	if c.noMount.Load() {
		from = ""
	}
	err := c.repo.Mount(ctx, desc, cmp.Or(from, c.repo.Reference.Repository), func() (io.ReadCloser, error) {
		if from == "" && c.Large(desc) && !c.tells(ctx) {
			if present, err := c.hasBlob(ctx, desc); err != nil {
				return nil, err
			} else if present {
				c.headFirst.Store(true)
				return nil, errPresent
			}
		}
		return body, nil
	})
	var resp *errcode.ErrorResponse
	if from != "" && errors.As(err, &resp) && (resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden) {
		// Who may write here need not be one who may read there.
		c.noMount.Store(true)
		return c.putBlob(ctx, desc, body)
	}
	if errors.As(err, &resp) && resp.Method == http.MethodPost && refusesMount(resp.StatusCode) {
		c.headFirst.Store(true)
		return c.putBlob(ctx, desc, body)
	}
	if err == nil && !body.opened() && from == "" {
		c.mounts.Store(true)
	}
	return err
}

// LearnMounts spares large blobs the question whether a mount tells that they
// are there: their uploads wait for the answer. The function that it returns
// finds out by a blob that the repository holds for sure; with a zero descriptor
// it gives up. It has to be called, and only the first call counts.
// LearnMounts itself must be called before the first upload, with the number of
// blobs to come that are [Client.Large]: for one, no request is made for it.
func (c *Client) LearnMounts(large int) (learn func(ctx context.Context, held ocispec.Descriptor)) {
	if large == 0 || c.from != "" {
		return func(context.Context, ocispec.Descriptor) {}
	}
	c.learning = make(chan struct{})
	var begun atomic.Bool
	return func(ctx context.Context, held ocispec.Descriptor) {
		if !begun.CompareAndSwap(false, true) {
			return
		}
		defer close(c.learning)
		if held.Digest == "" || large == 1 || c.mounts.Load() || c.headFirst.Load() {
			return
		}
		// What fails here, fails again where it matters.
		_ = c.run(ctx, string(held.Digest), func(ctx context.Context) error {
			err := c.repo.Mount(ctx, held, c.repo.Reference.Repository, func() (io.ReadCloser, error) { return nil, errPresent })
			if err == nil {
				c.mounts.Store(true)
			}
			return err
		})
	}
}

// Large tells whether a blob is one of which it is asked whether it is there,
// before it is sent in vain.
func (*Client) Large(desc ocispec.Descriptor) bool { return desc.Size >= askFirst }

// tells tells whether a mount from the repository itself tells of what is there.
func (c *Client) tells(ctx context.Context) bool {
	if c.learning != nil && !c.mounts.Load() {
		select {
		case <-c.learning:
		case <-ctx.Done():
		}
	}
	return c.mounts.Load()
}

// refusesMount tells whether a registry that answers a mount so may still take
// an upload.
func refusesMount(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false
	}
	return status >= 400 && status < 500
}

func (c *Client) hasBlob(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	_, err := c.repo.Blobs().Resolve(auth.AppendRepositoryScope(ctx, c.repo.Reference, c.actions...), string(desc.Digest))
	if errors.Is(err, errdef.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// uploadBody is the body of one request. It opens the content with the first
// read and keeps the error that ended it. Its last bytes are given out only
// after the whole was verified: the registry never gets all of a damaged blob.
type uploadBody struct {
	ctx  context.Context //nolint:containedctx // of the request, which reads the body
	open func(context.Context) (io.ReadCloser, error)
	sent func(int)

	mu     sync.Mutex // http may still read when it has returned
	rc     io.ReadCloser
	err    error
	closed bool
}

func (b *uploadBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return 0, b.err
	}
	if b.closed {
		return 0, http.ErrBodyReadAfterClose
	}
	if b.rc == nil {
		if b.rc, b.err = b.open(b.ctx); b.err != nil {
			return 0, b.err
		}
	}
	n, err := b.rc.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
		return 0, err
	}
	if b.sent != nil && n > 0 {
		b.sent(n)
	}
	return n, err
}

func (b *uploadBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.shut()
}

func (b *uploadBody) shut() error {
	if b.closed || b.rc == nil {
		b.closed = true
		return nil
	}
	b.closed = true
	return b.rc.Close()
}

// abandon ends reading when the request is over.
func (b *uploadBody) abandon() {
	b.mu.Lock()
	defer b.mu.Unlock()
	_ = b.shut() // the content was only read
}

func (b *uploadBody) opened() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rc != nil
}

// failed returns the error of reading, unless the context's end caused it.
func (b *uploadBody) failed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil || b.ctx.Err() != nil && !errors.Is(b.err, layout.ErrMismatch) {
		return nil
	}
	return b.err
}
