package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/gardenlinux/gloci-layout/layout"
)

// ErrUnclear reports a write of which nobody can tell whether it was, or still
// will be, carried out.
var ErrUnclear = errors.New("no answer that tells whether it was written")

// ErrPrecondition reports a registry that has refused a write because the tag
// names something else by now.
var ErrPrecondition = errors.New("the tag was moved by somebody else")

type (
	freshKey   struct{}
	ifMatchKey struct{}
)

// Fresh makes requests in the returned context ask caches to step aside.
func Fresh(ctx context.Context) context.Context { return context.WithValue(ctx, freshKey{}, true) }

// addHeaders sets what the context of a request asks for.
func addHeaders(req *http.Request) *http.Request {
	ctx := req.Context()
	name, value := "", ""
	switch fresh, _ := ctx.Value(freshKey{}).(bool); req.Method {
	case http.MethodGet, http.MethodHead:
		if fresh {
			name, value = "Cache-Control", "no-cache"
		}
	case http.MethodPut:
		if before, ok := ctx.Value(ifMatchKey{}).(digest.Digest); ok {
			if name, value = "If-Match", `"`+string(before)+`"`; before == "" {
				name, value = "If-None-Match", "*"
			}
		}
	}
	if name != "" {
		req.Header = req.Header.Clone()
		req.Header.Set(name, value)
	}
	return req
}

// unclearError keeps a request from being sent again.
type unclearError struct{ err error }

func (e *unclearError) Error() string        { return ErrUnclear.Error() + ": " + e.err.Error() }
func (e *unclearError) Unwrap() error        { return e.err }
func (e *unclearError) Is(target error) bool { return target == ErrUnclear }

// PutTag makes tag name desc, whose content is raw. It is sent again only after
// answers that say that nothing was done; where that is not known, the error is
// [ErrUnclear], and the write may still happen later.
//
// With before, the registry is asked to write only if the tag still names that,
// or nothing if it is empty (distribution-spec, "Pushing Manifests", If-Match).
// Few look at it; one that does may answer [ErrPrecondition].
func (c *Client) PutTag(ctx context.Context, desc ocispec.Descriptor, raw []byte, tag string, before *digest.Digest) error {
	if before != nil {
		ctx = context.WithValue(ctx, ifMatchKey{}, *before)
	}
	err := c.run(ctx, tag, func(ctx context.Context) error {
		err := c.repo.Manifests().PushReference(ctx, desc, bytes.NewReader(raw), tag)
		if unclear(err) {
			return &unclearError{err}
		}
		return err
	})
	var e *Error
	if errors.As(err, &e) && e.Status == http.StatusPreconditionFailed && before != nil {
		return fmt.Errorf("%w: %w", ErrPrecondition, err)
	}
	return err
}

// unclear tells whether a write that ended with err may have been carried out,
// or may be later.
func unclear(err error) bool {
	var resp *errcode.ErrorResponse
	var local *localError
	var op *net.OpError
	switch {
	case err == nil, errors.As(err, &local), errors.Is(err, ErrTokenHost), errors.Is(err, errRedirect):
		return false
	case errors.As(err, &resp):
		return resp.StatusCode == http.StatusRequestTimeout || resp.StatusCode >= http.StatusInternalServerError
	case errors.As(err, &op) && op.Op == "dial":
		return false
	case errors.Is(err, layout.ErrMismatch):
		return true // it says that it has written something else
	}
	return retryable(err) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
