package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containers/image/v5/pkg/tlsclientconfig"

	"github.com/gardenlinux/gloci-layout/layout"
)

// newTransports returns the transport to host, HOST[:PORT] as the user says it,
// and one for token servers elsewhere.
func (o *Options) newTransports(host string, insecure bool) (base, outside *http.Transport, err error) {
	tlsConfig, err := o.tlsConfig(host, insecure)
	if err != nil {
		return nil, nil, err
	}
	t := tlsclientconfig.NewTransport()
	t.TLSClientConfig = tlsConfig
	// The default of 2 makes more workers than that dial again and again.
	// A pull reads documents beside blobs.
	t.MaxIdleConnsPerHost = 2 * o.small()
	t.MaxIdleConns = 2 * t.MaxIdleConnsPerHost
	// Bytes are what their digest says: nobody may compress them on the way.
	t.DisableCompression = true
	t.WriteBufferSize, t.ReadBufferSize = connBuffer, connBuffer
	t.MaxResponseHeaderBytes = 1 << 20
	t.DialContext = wide((&net.Dialer{Timeout: o.stall(), KeepAlive: 30 * time.Second}).DialContext)
	outside = t.Clone()
	// Checked when the address is dialed, as a name may resolve to another one
	// each time.
	outside.DialContext = wide((&net.Dialer{Timeout: o.stall(), Control: refuseInternal}).DialContext)
	return t, outside, nil
}

// observed is what the transport saw of the last answer to one operation and
// oras-go does not hand on. It travels in the context of the request.
type observed struct {
	mu         sync.Mutex
	subject    string        // OCI-Subject
	digest     string        // Docker-Content-Digest
	retryAfter time.Duration // 0 if the registry did not say
}

type observedKey struct{}

func observe(ctx context.Context) (context.Context, *observed) {
	o := &observed{}
	return context.WithValue(ctx, observedKey{}, o), o
}

func (o *observed) see(resp *http.Response) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.subject, o.digest = resp.Header.Get("OCI-Subject"), resp.Header.Get("Docker-Content-Digest")
	o.retryAfter = retryAfter(resp)
}

func (o *observed) get() (subject, digest string, retryAfter time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.subject, o.digest, o.retryAfter
}

// retryAfter reads the header of that name (RFC 9110, section 10.2.3). A date
// is measured against the server's own clock.
func retryAfter(resp *http.Response) time.Duration {
	value := resp.Header.Get("Retry-After")
	if seconds, err := strconv.Atoi(value); err == nil && seconds > 0 {
		return time.Duration(min(seconds, 1<<20)) * time.Second
	}
	until, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return 0
	}
	return max(0, until.Sub(now))
}

const (
	// paceTime is how long a body may move at less than pace.
	paceTime = 60 * time.Second
	pace     = 1 << 10 // 1 KiB per second
)

// watcher ends requests on which nothing moves, or next to nothing, and tells
// what it saw.
type watcher struct {
	base  http.RoundTripper
	stall time.Duration
	slow  bool // the user asked for a low rate
	trace func(Exchange)
	// answer is told how long answers take to requests without a body; nil if
	// nobody wants to know.
	answer *answerTime
}

func (w *watcher) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(w.stall, func() { cancel(ErrStalled) })
	out := addHeaders(req.WithContext(ctx))
	start := time.Now() //nolint:forbidigo // decides how many requests run at once, and no byte
	hasBody := req.Body != nil && req.Body != http.NoBody
	switch {
	case hasBody && req.ContentLength > 0 && req.ContentLength <= smallBody:
		var err error
		if out.Body, err = whole(req.Body, req.ContentLength); err != nil {
			timer.Stop()
			cancel(nil)
			return nil, err
		}
		// All is as good as sent; see below.
		timer.Reset(10 * w.stall)
	case hasBody:
		watch := func(body io.ReadCloser) io.ReadCloser {
			// Once all is sent, a registry may be busy for long: some copy
			// and hash the blob before they answer.
			return &watchedBody{ReadCloser: body, timer: timer, step: w.stall, end: 10 * w.stall, pacer: w.pacer(cancel)}
		}
		out.Body = watch(req.Body)
		if get := req.GetBody; get != nil {
			out.GetBody = func() (io.ReadCloser, error) {
				body, err := get()
				if err != nil {
					return nil, err
				}
				return watch(body), nil
			}
		}
	}
	resp, err := w.base.RoundTrip(out)
	exchange := Exchange{Method: req.Method, Host: req.URL.Host, Path: req.URL.Path}
	if err != nil {
		timer.Stop()
		if cause := context.Cause(ctx); cause == ErrStalled { //nolint:errorlint // set above, never wrapped
			err = cause
		}
		cancel(nil)
	} else {
		exchange.Status = resp.StatusCode
		if w.answer != nil && !hasBody {
			w.answer.see(time.Since(start))
		}
		if resp.Body == http.NoBody {
			timer.Stop()
			cancel(nil)
		} else {
			timer.Reset(w.stall)
			resp.Body = &watchedBody{ReadCloser: resp.Body, timer: timer, step: w.stall, ctx: ctx, cancel: cancel, pacer: w.pacer(cancel)}
		}
		if o, ok := ctx.Value(observedKey{}).(*observed); ok {
			o.see(resp)
		}
	}
	if w.trace != nil {
		w.trace(exchange)
	}
	return resp, err
}

// smallBody is the size in bytes up to which the content of a request is read
// before it is sent, so that it leaves together with the header: net/http sends
// that apart, unless it knows that reading the body cannot take time.
const smallBody = 64 << 10

// whole reads a body of n bytes to its end, which tells whether it is what it
// should be, and closes it.
func whole(body io.ReadCloser, n int64) (io.ReadCloser, error) {
	raw := make([]byte, n)
	_, err := io.ReadFull(body, raw)
	if err == nil {
		var extra [1]byte
		if more, end := body.Read(extra[:]); more > 0 || !errors.Is(end, io.EOF) {
			if err = end; err == nil {
				err = fmt.Errorf("%w: more than %d bytes", layout.ErrMismatch, n)
			}
		}
	}
	if err = errors.Join(err, body.Close()); err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(raw)), nil
}

// A pacer ends a request whose body trickles: each byte puts off the end of one
// that stalls, so a byte a second would keep it for ever.
type pacer struct {
	cancel context.CancelCauseFunc
	moved  atomic.Int64
	begun  atomic.Bool
	timer  *time.Timer
}

// pacer returns one that is not started; nil does nothing.
func (w *watcher) pacer(cancel context.CancelCauseFunc) *pacer {
	if w.slow {
		return nil
	}
	p := &pacer{cancel: cancel}
	p.timer = time.AfterFunc(paceTime, p.check)
	p.timer.Stop()
	return p
}

// move counts n bytes, the first call begins to count.
func (p *pacer) move(n int) {
	if p == nil {
		return
	}
	p.moved.Add(int64(n))
	if p.begun.CompareAndSwap(false, true) {
		p.timer.Reset(paceTime)
	}
}

func (p *pacer) check() {
	if p.moved.Swap(0) < pace*int64(paceTime/time.Second) {
		p.cancel(ErrStalled)
		return
	}
	p.timer.Reset(paceTime)
}

func (p *pacer) stop() {
	if p != nil {
		p.timer.Stop()
	}
}

// watchedBody puts off the end of its request with each read.
type watchedBody struct {
	io.ReadCloser
	timer     *time.Timer
	step, end time.Duration
	ctx       context.Context //nolint:containedctx // of a response, to tell why reading ended
	cancel    context.CancelCauseFunc
	pacer     *pacer
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.pacer.move(0)
	n, err := b.ReadCloser.Read(p)
	if b.pacer.move(n); err != nil {
		b.pacer.stop()
	}
	switch {
	case err == nil:
		b.timer.Reset(b.step)
	case b.cancel == nil:
		b.timer.Reset(b.end)
	case context.Cause(b.ctx) == ErrStalled: //nolint:errorlint // never wrapped
		err = ErrStalled
	}
	return n, err
}

func (b *watchedBody) Close() error {
	err := b.ReadCloser.Close()
	b.pacer.stop()
	if b.cancel != nil {
		b.timer.Stop()
		b.cancel(nil)
	}
	return err
}
