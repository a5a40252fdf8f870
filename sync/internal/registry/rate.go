package registry

import (
	"context"
	"io"
	"net/http"

	"golang.org/x/time/rate"
)

// burst is the most bytes that pass at once under a limit, and what a read is
// cut to.
const burst = 32 << 10

// limited lets the bodies of requests and answers pass at a limited rate.
type limited struct {
	base    http.RoundTripper
	limiter *rate.Limiter
}

// limit returns base under the limit of o, if there is one. All transports of
// one client share it.
func (o *Options) limit(transports ...http.RoundTripper) []http.RoundTripper {
	if o.Rate <= 0 {
		return transports
	}
	l := rate.NewLimiter(rate.Limit(o.Rate), int(min(burst, o.Rate)))
	for i, t := range transports {
		transports[i] = &limited{base: t, limiter: l}
	}
	return transports
}

func (l *limited) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	if req.Body != nil && req.Body != http.NoBody {
		req = req.Clone(ctx)
		req.Body = &limitedBody{ReadCloser: req.Body, ctx: ctx, limiter: l.limiter}
		if get := req.GetBody; get != nil {
			req.GetBody = func() (io.ReadCloser, error) {
				body, err := get()
				if err != nil {
					return nil, err
				}
				return &limitedBody{ReadCloser: body, ctx: ctx, limiter: l.limiter}, nil
			}
		}
	}
	resp, err := l.base.RoundTrip(req)
	if err == nil {
		resp.Body = &limitedBody{ReadCloser: resp.Body, ctx: ctx, limiter: l.limiter}
	}
	return resp, err
}

type limitedBody struct {
	io.ReadCloser
	ctx     context.Context //nolint:containedctx // of the request, whose bodies these are
	limiter *rate.Limiter
}

func (b *limitedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(len(p), b.limiter.Burst())])
	if n > 0 {
		if werr := b.limiter.WaitN(b.ctx, n); werr != nil && err == nil {
			err = werr
		}
	}
	return n, err
}
