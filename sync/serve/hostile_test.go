package serve_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/layout/sourcetest"
	"github.com/gardenlinux/gloci-layout/sync/serve"
)

// Whatever is asked for, the answer is one of those that are meant to be, its
// body is content of that digest, and nothing breaks.
func FuzzRequest(f *testing.F) {
	dir, c := sample(f)
	s, err := serve.New(f.Context(), serve.Options{Sources: []serve.Source{fromPath("garden", dir)}, Poll: -1})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	for _, path := range []string{
		"", "/", "/v2", "/v2/", "/v2//", "/v2/_catalog?n=1&last=x", "/v2/garden/tags/list?n=0", "/v2/garden/tags/list?n=99999999999999999999",
		"/v2/garden/manifests/app", "/v2/app/manifests/1.0", "/v2/garden/blobs/" + string(c.Large.Digest), "/v2/garden/blobs/" + string(c.Long.Digest),
		"/v2/garden/referrers/" + string(c.Artifact.Digest) + "?artifactType=application/x.note&last=sha256:0", "/v2/garden/../garden/manifests/app",
		"/v2/garden/blobs/sha256:%2e%2e%2f%2e%2e", "/v2/garden/blobs/sha256:" + strings.Repeat("g", 64), "/v2/%00/manifests/x", "/healthz", "/metrics",
		"/v2/garden/manifests/" + strings.Repeat("a", 200), "/v2/manifests/x", "/v2/blobs/uploads/", "/v2/garden/blobs/" + string(c.Unreferenced.Digest),
		"/v2/garden/blobs/" + strings.ToUpper(string(c.Layer.Digest)), "/v2/garden/tags/list/", "/v2/\xff/tags/list", "//v2/garden/tags/list", "/v2/garden/manifests/",
	} {
		for _, header := range []string{"", "bytes=0-0", "bytes=-1", "bytes=5-,6-", "bytes=18446744073709551616-", "bytes= 1 - 2 "} {
			f.Add("GET", path, header, `"x"`)
		}
	}
	f.Add("CONNECT", "/v2/garden/manifests/app", "", "*")
	f.Add("PUT", "/v2/garden/manifests/app", "", "")
	f.Add("HEAD", "/v2/garden/blobs/"+string(c.Layer.Digest), "bytes=0-3", "")
	f.Fuzz(func(t *testing.T, method, target, ranged, match string) {
		checkRequest(t, s, c, method, target, ranged, match)
	})
}

func checkRequest(t *testing.T, s *serve.Server, c *sourcetest.Content, method, target, ranged, match string) {
	path, query, _ := strings.Cut(target, "?")
	r := httptest.NewRequest(http.MethodGet, "http://x/", nil)
	r.Method, r.URL.Path, r.URL.RawQuery, r.URL.RawPath = method, path, query, ""
	r.Header["Range"], r.Header["If-None-Match"] = []string{ranged}, []string{match}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	body := w.Body.String()
	known := []int{200, 206, 304, 400, 404, 405, 416}
	switch {
	case !slices.Contains(known, w.Code):
		t.Errorf("%q %q: status %d", method, target, w.Code)
	case method != "GET" && method != "HEAD" && path != "/healthz" && w.Code != 405:
		t.Errorf("%q %q: status %d, want 405", method, target, w.Code)
	case method == "HEAD" && body != "":
		t.Errorf("HEAD %q: %d bytes", target, len(body))
	case w.Code == 304 && body != "":
		t.Errorf("%q: 304 with %d bytes", target, len(body))
	}
	if w.Code != 304 && strings.HasPrefix(path, "/v2/") && w.Header().Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%q %q: a browser may guess", method, target)
	}
	if kind := w.Header().Get("Content-Type"); strings.Contains(kind, "html") || strings.Contains(kind, "svg") {
		t.Errorf("%q %q: Content-Type %q", method, target, kind)
	}
	d := digest.Digest(w.Header().Get("Docker-Content-Digest"))
	if method != "GET" || d == "" || w.Code > 206 {
		return
	}
	want, ok := c.Stored[d]
	if !ok || !slices.Contains(c.Reachable, d) {
		t.Fatalf("%q: content %s that nobody may have", target, d)
	}
	if w.Code == 206 {
		var start, end, size int
		if _, err := fmt.Sscanf(w.Header().Get("Content-Range"), "bytes %d-%d/%d", &start, &end, &size); err != nil || size != len(want) {
			t.Fatalf("%q: Content-Range %q", target, w.Header().Get("Content-Range"))
		}
		want = want[start : end+1]
	}
	if body != want {
		t.Errorf("%q, Range %q: %d bytes that are not the content", target, ranged, len(body))
	}
}

// dial opens a connection and sends text.
func (s *server) dial(text string) net.Conn {
	s.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		s.t.Fatal(err)
	}
	// The server may have hung up before the end of a text that is too long.
	_, _ = io.WriteString(conn, text)
	return conn
}

// Requests that are no good HTTP, or too much of it, get an error and no more.
func TestRawRequests(t *testing.T) {
	dir, _ := sample(t)
	s := start(t, serve.Options{Sources: []serve.Source{fromPath("garden", dir)}})
	for name, tt := range map[string]struct {
		text   string
		status int
	}{
		"no HTTP":          {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400},
		"a giant header":   {"GET /v2/ HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("a", 1<<20) + "\r\n\r\n", 431},
		"many headers":     {"GET /v2/ HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("A: b\r\n", 1<<18) + "\r\n", 431},
		"a giant path":     {"GET /v2/" + strings.Repeat("a/", 1<<20) + " HTTP/1.1\r\nHost: x\r\n\r\n", 431},
		"no host":          {"GET /v2/ HTTP/1.1\r\n\r\n", 400},
		"two lengths":      {"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400},
		"a hostile header": {"GET /v2/ HTTP/1.1\r\nHost: x\r\nX\x00: a\r\n\r\n", 400},
		"a body":           {"POST /v2/garden/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nConnection: close\r\n\r\n0123456789", 405},
		"another scheme":   {"GET ftp://x/v2/garden/tags/list HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 200},
	} {
		resp, err := http.ReadResponse(bufio.NewReader(s.dial(tt.text)), nil)
		if err != nil {
			// The reset of a connection with unread bytes may overtake the answer.
			if tt.status != 431 {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if resp.StatusCode != tt.status {
			t.Errorf("%s: status %d, want %d", name, resp.StatusCode, tt.status)
		}
		resp.Body.Close()
	}
	if got := s.get("/healthz"); got.body != "ok\n" {
		t.Errorf("afterwards: %d %q", got.status, got.body)
	}
}

// What a client sends is one quoted line of the log.
func TestHostileLog(t *testing.T) {
	dir, _ := sample(t)
	s := start(t, serve.Options{Sources: []serve.Source{fromPath("garden", dir)}})
	s.get("/v2/x%1b%5b31m%0a%0dlevel=ERROR/"+strings.Repeat("y", 3000), "User-Agent: \"quoted\" \u202e level=ERROR")
	log := s.log.String()
	if strings.ContainsAny(log, "\x1b\u202e\r") || strings.Contains(log, "\nlevel=ERROR") || !strings.Contains(log, `agent="\"quoted\" \u202e level=ERROR"`) {
		t.Errorf("log:\n%q", log)
	}
	for line := range strings.Lines(log) {
		if len(line) > 4096 {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
}

// Clients that send or read slowly, and more of them than may be served at once,
// are cut off, and the others are served; memory stays small.
func TestSlowClients(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "garden")
	large := bigLayer(t, dir, strings.Repeat("0123456789abcdef", 24<<20/16))
	s := start(t, serve.Options{
		Sources: []serve.Source{fromPath("garden", dir)}, MaxConnections: 40, VerifyLimit: 1 << 20,
		HeaderTimeout: 300 * time.Millisecond, ReadTimeout: 300 * time.Millisecond, WriteTimeout: 300 * time.Millisecond, IdleTimeout: 300 * time.Millisecond,
	})
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	var conns []net.Conn
	for range 30 {
		conns = append(conns,
			s.dial("GET /v2/ HTTP/1.1\r\nHost: x\r\nX: "),
			s.dial("GET /v2/garden/blobs/"+string(large)+" HTTP/1.1\r\nHost: x\r\n\r\n"), // never reads
			s.dial(""),
		)
	}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if got := s.get("/v2/garden/manifests/app"); got.status != 200 {
				t.Errorf("beside slow clients: status %d, %v", got.status, got.err)
			}
		})
	}
	wg.Wait()
	var during runtime.MemStats
	runtime.ReadMemStats(&during)
	if grown := int64(during.HeapInuse) - int64(before.HeapInuse); grown > 48<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	http.DefaultClient.CloseIdleConnections()
	eventually(t, "the end of all slow connections", func() bool {
		http.DefaultClient.CloseIdleConnections()
		return s.metric("gloci_serve_connections") <= 1 && strings.Contains(s.log.String(), "cut=true")
	})
	for _, conn := range conns {
		if n, err := io.Copy(io.Discard, conn); n >= 24<<20 {
			t.Errorf("a client that did not read got all %d bytes, %v", n, err)
		}
	}
}
