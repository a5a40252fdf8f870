package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// A traffic is what a server saw since it was asked last.
type traffic struct {
	Requests int            `json:"requests"`
	In       int64          `json:"in"` // bytes of bodies that clients sent
	Kinds    map[string]int `json:"kinds"`
}

// A meter stands before a handler, counts requests, and lets each wait.
type meter struct {
	next    http.Handler
	latency time.Duration
	forget  func() // what was pushed; may be nil

	mu   sync.Mutex
	seen traffic
}

func (m *meter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/bench/traffic": // and counts from the start again
		m.mu.Lock()
		seen := m.seen
		m.seen = traffic{}
		m.mu.Unlock()
		_ = json.NewEncoder(w).Encode(seen) // who asked is told by the end of the connection
		return
	case "/bench/forget":
		m.forget()
		return
	}
	m.mu.Lock()
	m.seen.Requests++
	if m.seen.Kinds == nil {
		m.seen.Kinds = map[string]int{}
	}
	m.seen.Kinds[kindOf(r)]++
	m.mu.Unlock()
	r.Body = &meteredBody{ReadCloser: r.Body, m: m}
	time.Sleep(m.latency)
	m.next.ServeHTTP(w, r)
}

type meteredBody struct {
	io.ReadCloser
	m *meter
}

func (b *meteredBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.m.mu.Lock()
	b.m.seen.In += int64(n)
	b.m.mu.Unlock()
	return n, err
}

// kindOf says what a request is for: "HEAD tag", "PUT manifest", "POST upload".
func kindOf(r *http.Request) string {
	path := r.URL.Path
	for _, k := range []struct{ part, name string }{
		{"/blobs/uploads/", "upload"},
		{"/blobs/", "blob"},
		{"/manifests/sha256:", "manifest"},
		{"/manifests/", "tag"},
		{"/referrers/", "referrers"},
		{"/tags/list", "tags"},
	} {
		if strings.Contains(path, k.part) {
			return r.Method + " " + k.name
		}
	}
	return r.Method + " " + path
}

// serve is the process of a registry that forgets, or of a proxy before a real
// one. It prints its address and lasts until its stdin ends.
func serve(args []string, stdin io.Reader, stdout io.Writer) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	latency := flags.Duration("latency", 0, "wait before each answer")
	upstream := flags.String("upstream", "", "pass requests on to `HOST:PORT`")
	dir := flags.String("layout", "", "have the layout at `DIR` in each repository")
	if err := flags.Parse(args); err != nil {
		return err
	}
	m := &meter{latency: *latency}
	if *upstream != "" {
		transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true, WriteBufferSize: 128 << 10, ReadBufferSize: 128 << 10}
		m.next = &httputil.ReverseProxy{
			Rewrite: func(p *httputil.ProxyRequest) {
				p.Out.URL.Scheme, p.Out.URL.Host = "http", *upstream
				p.Out.Host = p.In.Host
			},
			Transport: transport, BufferPool: buffers{},
			ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // of clients that were ended
		}
		m.forget = transport.CloseIdleConnections // there is a new registry at the address
	} else {
		h, err := newHole(*dir)
		if err != nil {
			return err
		}
		m.next, m.forget = h, h.reset
	}
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(stdout, listener.Addr()); err != nil {
		return err
	}
	server := &http.Server{Handler: m, ReadHeaderTimeout: time.Minute}
	go func() {
		_, _ = io.Copy(io.Discard, stdin) // ends with the parent
		_ = server.Close()
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// buffers are those of a proxy.
type buffers struct{}

var bufferPool = sync.Pool{New: func() any { return new([256 << 10]byte) }}

func (buffers) Get() []byte {
	b, ok := bufferPool.Get().(*[256 << 10]byte)
	if !ok {
		b = new([256 << 10]byte)
	}
	return b[:]
}

func (buffers) Put(b []byte) { bufferPool.Put((*[256 << 10]byte)(b)) }

// A server is such a process, seen from outside.
type server struct {
	address string
	cmd     *exec.Cmd
	stdin   io.Closer
}

func (b *bench) startServer(ctx context.Context, args ...string) (*server, error) {
	s := &server{cmd: exec.CommandContext(ctx, b.self, append([]string{"peer", "serve"}, args...)...)}
	s.cmd.Env, s.cmd.Stderr = b.env, os.Stderr
	stdin, err := s.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.stdin = stdin
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		s.stop()
		return nil, fmt.Errorf("the server did not start: %w", err)
	}
	s.address = strings.TrimSpace(line)
	return s, nil
}

func (s *server) stop() {
	if s == nil || s.cmd == nil {
		return
	}
	_ = s.stdin.Close()
	_ = s.cmd.Wait() // it has no more to say
	s.cmd = nil
}

// forget has the server begin anew.
func (s *server) forget(ctx context.Context) error {
	_, err := s.ask(ctx, "forget")
	return err
}

// traffic returns what the server saw since the last call.
func (s *server) traffic(ctx context.Context) (seen traffic, err error) {
	raw, err := s.ask(ctx, "traffic")
	if err != nil {
		return seen, err
	}
	return seen, json.Unmarshal(raw, &seen)
}

func (s *server) ask(ctx context.Context, what string) (raw []byte, err error) {
	u := url.URL{Scheme: "http", Host: s.address, Path: "/bench/" + what}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	return io.ReadAll(resp.Body)
}
