// Package regtest has the registries of the tests: the reference registry, and
// one in memory.
//
// [Start] runs the real binary of github.com/distribution/distribution v3
// behind a small proxy of ours on a free loopback port. [NewMemory] makes a
// strict registry inside the test, with a history of all changes, many more
// faults, and a scheduler that holds requests; a test runs the same calls against
// both and wants the same answers.
//
// The proxy counts every request, can answer any of them with a fault in place
// of the registry, and adds what tests need around it: TLS with a private
// certificate authority, and a token server as large registries have one.
//
// # Finding the registry
//
// [Start] looks for the binary in the variable GLOCI_REGISTRY, then as
// .tools/bin/registry in the working directory and every directory above it,
// then as registry in PATH. Without one the test is skipped, or fails when the
// variable CI is set: a green run must not mean that nothing ran.
package regtest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Options changes what [Start] runs. Nil is the zero value: plain HTTP, no
// authentication. Content lies in a temporary directory.
type Options struct {
	// TLS serves HTTPS with a certificate of a private authority, which
	// [Registry.CAFile] names.
	TLS bool
	// Users are the names and passwords of basic authentication, checked by the
	// registry itself. Empty means that nobody has to log in.
	Users map[string]string
	// Bearer asks for tokens of a token server, which the registry itself checks,
	// in place of basic authentication; Users may log in there.
	Bearer bool
	// TokenHost replaces the host of the token server in the challenge, with its
	// port or without, to test clients that must not follow it. The server
	// answers at every host name that resolves to it.
	TokenHost string
	// Delete allows DELETE, which the registry refuses otherwise.
	Delete bool
}

// A Request is one request that came to the proxy.
type Request struct {
	Method string
	Path   string // without the query
	Query  url.Values
	Status int
	Bytes  int64       // of the request's body that were read
	Header http.Header // of the request
}

// A Hook sees request n, counted from 1 since the start or the last
// [Registry.Reset], before the registry does. It reports whether it has
// answered the request. Hooks run concurrently.
type Hook func(n int, w http.ResponseWriter, r *http.Request) bool

// A Registry is a running registry. Its methods may be called from several
// goroutines.
type Registry struct {
	Host string // HOST:PORT of the proxy
	Root string // directory of the content

	dir    string
	behind *http.Transport // to the registry itself
	server *httptest.Server
	ca     *authority
	tokens *tokenServer

	mu       sync.Mutex
	requests []*Request
	hook     Hook
}

// Start runs a registry that ends with t.
func Start(t testing.TB, opts *Options) *Registry {
	t.Helper()
	if opts == nil {
		opts = &Options{}
	}
	binary := find(t)
	// Not t.TempDir: the path of a Unix socket has room for about 100 bytes,
	// and names of tests do not fit.
	dir, err := os.MkdirTemp(tempDir(), "regtest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	r := &Registry{dir: dir, Root: filepath.Join(dir, "root"), server: httptest.NewUnstartedServer(nil)}
	t.Cleanup(func() { r.server.Close() })
	r.Host = r.server.Listener.Addr().String()
	if opts.Bearer {
		scheme := "http://"
		if opts.TLS {
			scheme = "https://"
		}
		if r.tokens, err = newTokenServer(dir, scheme+r.Host, opts); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(dir, "socket")
	config, err := writeConfig(dir, socket, opts, r.tokens)
	if err != nil {
		t.Fatal(err)
	}
	if err := run(t, binary, config, filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	if err := r.serve(socket, opts); err != nil {
		t.Fatal(err)
	}
	if err := r.wait(t.Context()); err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "log"))
		t.Fatalf("start %s: %v\n%s", binary, err, log)
	}
	r.Reset()
	return r
}

// find returns the path of the registry's binary, or ends the test.
func find(t testing.TB) string {
	t.Helper()
	path, err := Binary()
	if err == nil {
		return path
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%v", err)
	}
	t.Skipf("SKIPPED, NOTHING WAS TESTED: %v", err)
	return ""
}

// serve starts the proxy in front of the registry that listens on socket.
func (r *Registry) serve(socket string, opts *Options) error {
	r.behind = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
		MaxIdleConnsPerHost: 64,
		DisableCompression:  true,
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = "http", "registry"
			p.Out.Host = p.In.Host
		},
		Transport:     r.behind,
		FlushInterval: -1,
		// A client that hangs up is what half of the tests are about.
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			w.WriteHeader(http.StatusBadGateway)
		},
	}
	var handler http.Handler = proxy
	if r.tokens != nil {
		handler = r.tokens.guard(proxy)
	}
	r.server.Config.Handler = r.counted(handler)
	// Clients that refuse the certificate are what tests want to see.
	r.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	if opts.TLS {
		ca, err := newAuthority(r.dir)
		if err != nil {
			return err
		}
		r.ca = ca
		r.server.TLS = ca.serverConfig()
		r.server.StartTLS()
	} else {
		r.server.Start()
	}
	return nil
}

// counted records what handler answers and lets the hook answer first.
func (r *Registry) counted(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		entry := &Request{Method: req.Method, Path: req.URL.Path, Query: req.URL.Query(), Header: req.Header.Clone()}
		r.mu.Lock()
		r.requests = append(r.requests, entry)
		n, hook := len(r.requests), r.hook
		r.mu.Unlock()
		req.Body = &countingBody{ReadCloser: req.Body, r: r, entry: entry}
		sw := &statusWriter{ResponseWriter: w, r: r, entry: entry}
		if hook != nil && hook(n, sw, req) {
			return
		}
		handler.ServeHTTP(sw, req)
	})
}

// wait returns when the registry itself answers: the proxy and the token server
// do so before.
func (r *Registry) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://registry/v2/", nil)
		if err != nil {
			return err
		}
		resp, err := r.behind.RoundTrip(req)
		if err == nil {
			status := resp.StatusCode
			_ = resp.Body.Close()
			if status == http.StatusOK || status == http.StatusUnauthorized {
				return nil
			}
			err = fmt.Errorf("GET /v2/: status %d", status)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// URL is the scheme and the host, without a trailing slash.
func (r *Registry) URL() string { return r.server.URL }

// Client trusts the registry's certificate; it does not log in.
func (r *Registry) Client() *http.Client { return r.server.Client() }

// CAFile is the certificate authority in PEM form; empty without
// Options.TLS.
func (r *Registry) CAFile() string {
	if r.ca == nil {
		return ""
	}
	return r.ca.file
}

// Requests returns what came since the start or the last Reset, in the order of
// arrival. A request that has no answer yet has the status 0.
func (r *Registry) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]Request, len(r.requests))
	for i, req := range r.requests {
		list[i] = *req
	}
	return list
}

// Count returns the number of requests with method, or of all if it is empty,
// whose path contains part.
func (r *Registry) Count(method, part string) int {
	n := 0
	for _, req := range r.Requests() {
		if (method == "" || req.Method == method) && strings.Contains(req.Path, part) {
			n++
		}
	}
	return n
}

// Reset forgets the requests so far, starts to count at 1 again and removes the
// hook.
func (r *Registry) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests, r.hook = nil, nil
}

// Intercept sets the hook; nil removes it.
func (r *Registry) Intercept(hook Hook) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hook = hook
}

// ExpireTokens ends all tokens that were given so far: with Options.Bearer, the
// registry refuses them as it does those whose time is over.
func (r *Registry) ExpireTokens() { r.tokens.expire() }

// FailAt answers request k with status and no body.
func (r *Registry) FailAt(k, status int) {
	r.Intercept(func(n int, w http.ResponseWriter, _ *http.Request) bool {
		if n != k {
			return false
		}
		w.WriteHeader(status)
		return true
	})
}

// countingBody counts what is read of a request's body.
type countingBody struct {
	io.ReadCloser
	r     *Registry
	entry *Request
}

func (b *countingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.r.mu.Lock()
	b.entry.Bytes += int64(n)
	b.r.mu.Unlock()
	return n, err
}

// statusWriter records the status of a response before the client can see it.
type statusWriter struct {
	http.ResponseWriter
	r     *Registry
	entry *Request
}

func (w *statusWriter) record(status int) {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	if w.entry.Status == 0 {
		w.entry.Status = status
	}
}

func (w *statusWriter) WriteHeader(status int) {
	if status >= http.StatusOK { // not 100 Continue
		w.record(status)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	w.record(http.StatusOK)
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController flush and hijack.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
