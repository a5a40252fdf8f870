package regtest

import (
	"io"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"
)

// A FaultKind is what goes wrong with one request.
type FaultKind int

// The kinds of faults.
const (
	// Drop ends the connection; the request is not carried out.
	Drop FaultKind = iota + 1
	// Reset ends the connection after Fault.After bytes of the request's body;
	// the request is not carried out.
	Reset
	// Answer answers with Fault.Status, and Fault.RetryAfter if it is set; the
	// request is not carried out.
	Answer
	// Lost carries the request out and ends the connection in place of an
	// answer.
	Lost
	// LostAnswer carries the request out and answers with Fault.Status all the
	// same, as a proxy does whose server is slow.
	LostAnswer
	// Late ends the connection; the request is carried out when [Memory.Land]
	// is called.
	Late
	// WrongDigest carries the request out and names another digest in the
	// answer's header.
	WrongDigest
	// WrongBody gives out other bytes of the same length.
	WrongBody
	// Truncated ends the connection after Fault.After bytes of the answer's
	// body.
	Truncated
	// Short gives out Fault.After bytes of the answer's body as if that were all.
	Short
	// Overlong gives out Fault.After bytes more than there are.
	Overlong
	// Slow waits Fault.Delay before the answer.
	Slow
)

// A Fault is what goes wrong with one request.
type Fault struct {
	Kind       FaultKind
	Status     int
	RetryAfter string
	After      int
	Delay      time.Duration
}

// Inject asks fn for a fault before each request, whose numbers begin with 1 at
// the start or the last Reset. Nil means none. fn runs concurrently.
func (m *Memory) Inject(fn func(n int, r *http.Request) *Fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inject = fn
}

// FaultAt makes f happen to request k.
func (m *Memory) FaultAt(k int, f Fault) {
	m.Inject(func(n int, _ *http.Request) *Fault {
		if n == k {
			return &f
		}
		return nil
	})
}

// Land carries out what was kept back by [Late], and returns how many requests
// that were.
func (m *Memory) Land() int {
	m.mu.Lock()
	late := m.late
	m.late = nil
	m.mu.Unlock()
	for _, do := range late {
		do()
	}
	return len(late)
}

// faulty carries a request out as far as f lets it.
func (m *Memory) faulty(n int, r *http.Request, f *Fault) *answer {
	if f == nil {
		f = &Fault{}
	}
	limit := int64(-1)
	if f.Kind == Reset {
		limit = int64(f.After)
	}
	body, err := m.readBody(n, r, limit)
	if err != nil { // the client has gone
		return &answer{drop: true}
	}
	switch f.Kind {
	case Drop, Reset:
		return &answer{drop: true}
	case Late:
		later := r.Clone(r.Context())
		m.mu.Lock()
		m.late = append(m.late, func() { m.carryOut(n, later, body) })
		m.mu.Unlock()
		return &answer{drop: true}
	case Answer:
		return f.answer()
	case Slow:
		time.Sleep(f.Delay)
	}
	a := m.carryOut(n, r, body)
	a.cut = -1
	switch f.Kind {
	case Lost:
		return &answer{drop: true}
	case LostAnswer:
		return f.answer()
	case WrongDigest:
		if a.header.Get("Docker-Content-Digest") != "" {
			a.with("Docker-Content-Digest", "sha256:0000000000000000000000000000000000000000000000000000000000000000")
		}
	case WrongBody:
		a.body = append([]byte{}, a.body...)
		if len(a.body) > 0 {
			a.body[len(a.body)/2] ^= 1
		}
	case Truncated:
		a.cut, a.partial = min(f.After, len(a.body)), true
	case Short:
		a.body = a.body[:min(f.After, len(a.body))]
	case Overlong:
		a.body = append(append([]byte{}, a.body...), make([]byte, f.After)...)
	}
	return a
}

func (f *Fault) answer() *answer {
	a := fault(f.Status, "UNKNOWN", "injected")
	if f.RetryAfter != "" {
		a.with("Retry-After", f.RetryAfter)
	}
	return a
}

// finish sets the length.
func (a *answer) finish() {
	if a.header.Get("Content-Length") == "" && a.status != http.StatusNoContent && a.status != http.StatusNotModified {
		a.header.Set("Content-Length", strconv.Itoa(len(a.body)))
	}
}

// write sends the answer to a client of the network.
func (a *answer) write(w http.ResponseWriter) {
	if a.drop {
		panic(http.ErrAbortHandler)
	}
	a.finish()
	for key, values := range a.header {
		w.Header()[key] = values
	}
	w.WriteHeader(a.status)
	if a.head {
		return
	}
	body := a.body
	if a.partial {
		body = body[:a.cut]
	}
	_, _ = w.Write(body) // a client that has gone needs no answer
	if a.partial {
		_ = http.NewResponseController(w).Flush() // it is cut in any case
		panic(http.ErrAbortHandler)
	}
}

// response makes the answer of a transport in this process.
func (a *answer) response(r *http.Request) (*http.Response, error) {
	if a.drop {
		return nil, &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	}
	a.finish()
	resp := &http.Response{
		StatusCode: a.status, Status: strconv.Itoa(a.status) + " " + http.StatusText(a.status),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: a.header, Request: r,
	}
	resp.ContentLength = -1
	if n, err := strconv.ParseInt(a.header.Get("Content-Length"), 10, 64); err == nil {
		resp.ContentLength = n
	}
	switch {
	case a.head:
		resp.Body = http.NoBody
	case a.partial:
		resp.Body = io.NopCloser(&brokenBody{a.body[:a.cut]})
	default:
		resp.Body = io.NopCloser(&wholeBody{a.body})
	}
	return resp, nil
}

// brokenBody ends with a reset.
type brokenBody struct{ rest []byte }

func (b *brokenBody) Read(p []byte) (int, error) {
	if len(b.rest) == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

type wholeBody struct{ rest []byte }

func (b *wholeBody) Read(p []byte) (int, error) {
	if len(b.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}
