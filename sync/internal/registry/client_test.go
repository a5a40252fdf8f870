package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

func describe(content []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromBytes(content), Size: int64(len(content))}
}

func opener(content []byte) func(context.Context) (io.ReadCloser, error) {
	return func(ctx context.Context) (io.ReadCloser, error) {
		return layout.VerifyReader(ctx, io.NopCloser(bytes.NewReader(content)), describe(content)), nil
	}
}

// newClient returns a client of the repository app at host, plain HTTP.
func newClient(t *testing.T, host string, opts *Options) *Client {
	t.Helper()
	opts.RegistriesConf, opts.RegistriesConfDir = filepath.Join(t.TempDir(), "none"), t.TempDir()
	opts.NoCreds = opts.Creds == ""
	named, err := ParseName(host + "/app")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Open(t.Context(), Endpoint{Named: named, Insecure: true}, true, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestSecret(t *testing.T) {
	const canary = "canary-Pa55"
	s := struct{ Creds Secret }{canary}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "creds", s.Creds, "all", s)
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprintf("%v %+v %#v %s %q %x", s, s, s, s.Creds, s.Creds, s.Creds), log.String(), string(raw)} {
		if strings.Contains(text, canary) || strings.Contains(text, fmt.Sprintf("%x", canary)) {
			t.Errorf("the secret stands in %q", text)
		}
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain",
		`Put "https://u:p@s3.example/b/x?X-Amz-Signature=abc&x=1": EOF`: `Put "https://s3.example/b/x": EOF`,
		"a\x1b[31mred\x07\nb": "a\uFFFD[31mred\uFFFD b",
		"\u202Eevil":          "\uFFFDevil",
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
	if got := clean(strings.Repeat("ä", 5000)); len(got) > 4100 {
		t.Errorf("%d bytes", len(got))
	}
}

func TestValidTag(t *testing.T) {
	for tag, want := range map[string]bool{
		"1.0": true, "_x": true, "A-b_c.d": true, strings.Repeat("a", 128): true,
		"": false, ".x": false, "-x": false, "a/b": false, "a:b": false, "a b": false, "ä": false, strings.Repeat("a", 129): false,
	} {
		if got := ValidTag(tag); got != want {
			t.Errorf("ValidTag(%q) = %v", tag, got)
		}
	}
}

func TestParseName(t *testing.T) {
	for in, want := range map[string]string{
		"127.0.0.1:5000/a/b": "127.0.0.1:5000/a/b", "docker://ghcr.io/x": "ghcr.io/x", "alpine": "docker.io/library/alpine",
		"ghcr.io/x:1": "", "ghcr.io/X": "", "": "", "ghcr.io/x@sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a": "",
	} {
		named, err := ParseName(in)
		if want == "" {
			if !errors.Is(err, layout.ErrInvalid) {
				t.Errorf("ParseName(%q) = %v, %v", in, named, err)
			}
			continue
		}
		if err != nil || named.Name() != want {
			t.Errorf("ParseName(%q) = %v, %v; want %s", in, named, err, want)
		}
	}
}

// TestMountAsQuestion: one request tells whether a blob is there, and starts its
// upload if not. Where a registry never mounts, nothing large is sent twice.
func TestMountAsQuestion(t *testing.T) {
	reg := regtest.Start(t, nil)
	content, large := []byte("content"), bytes.Repeat([]byte("x"), askFirst)
	put := func(c *Client, content []byte) []string {
		t.Helper()
		reg.Reset()
		if _, err := c.PutBlob(t.Context(), describe(content), opener(content), nil); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range reg.Requests() {
			got = append(got, fmt.Sprint(r.Method, " ", r.Status))
		}
		return got
	}
	c := newClient(t, reg.Host, &Options{})
	for _, step := range []struct {
		content []byte
		want    []string
	}{
		{large, []string{"POST 202", "HEAD 404", "PUT 201"}}, // does it mount? not known yet
		{content, []string{"POST 202", "PUT 201"}},
		{content, []string{"POST 201"}}, // now it is
		{large, []string{"POST 201"}},
		{append([]byte("y"), large...), []string{"POST 202", "PUT 201"}},
	} {
		if diff := cmp.Diff(step.want, put(c, step.content)); diff != "" {
			t.Errorf("%d bytes (-want +got):\n%s", len(step.content), diff)
		}
	}

	for _, kind := range []string{"ignores mounts", "refuses mounts"} {
		t.Run(kind, func(t *testing.T) {
			c := newClient(t, reg.Host, &Options{})
			without := func(content []byte) []string {
				reg.Intercept(func(_ int, w http.ResponseWriter, r *http.Request) bool {
					if r.Method != http.MethodPost || r.URL.Query().Get("mount") == "" {
						return false
					}
					if kind == "refuses mounts" {
						w.WriteHeader(http.StatusBadRequest)
						return true
					}
					r.URL.RawQuery = ""
					return false
				})
				var got []string
				if _, err := c.PutBlob(t.Context(), describe(content), opener(content), nil); err != nil {
					t.Fatal(err)
				}
				for _, r := range reg.Requests() {
					got = append(got, fmt.Sprint(r.Method, " ", r.Status))
				}
				return got
			}
			first := map[string][]string{"ignores mounts": {"POST 202", "HEAD 200"}, "refuses mounts": {"POST 400", "HEAD 200"}}
			for _, want := range [][]string{first[kind], {"HEAD 200"}} {
				reg.Reset()
				if diff := cmp.Diff(want, without(large)); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}
		})
	}
}

// TestPutBlobRetries: every request of an upload fails once, and the blob gets
// there; what is no fault of the registry is not tried again.
func TestPutBlobRetries(t *testing.T) {
	reg := regtest.Start(t, nil)
	for k := 1; k <= 2; k++ {
		for _, status := range []int{429, 500, 502, 503, 504, 0} {
			content := fmt.Appendf(nil, "%d %d", k, status)
			c := newClient(t, reg.Host, &Options{})
			reg.Reset()
			reg.Intercept(func(n int, w http.ResponseWriter, _ *http.Request) bool {
				if n != k {
					return false
				}
				if status == 0 {
					panic(http.ErrAbortHandler) // the connection breaks
				}
				w.WriteHeader(status)
				return true
			})
			var sent int
			uploaded, err := c.PutBlob(t.Context(), describe(content), opener(content), func(n int) { sent += n })
			if err != nil || !uploaded {
				t.Errorf("request %d answered %d: %v, %v", k, status, uploaded, err)
			}
			if _, err := c.ResolveBlob(t.Context(), digest.FromBytes(content)); err != nil {
				t.Error(err)
			}
		}
	}
	c := newClient(t, reg.Host, &Options{})
	reg.Reset()
	broken := errors.New("broken disk")
	_, err := c.PutBlob(t.Context(), describe([]byte("abc")), func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(strings.NewReader("ab"), errReader{broken})), nil
	}, nil)
	if !errors.Is(err, broken) || reg.Count("POST", "") != 1 {
		t.Errorf("PutBlob = %v after %d uploads", err, reg.Count("POST", ""))
	}
	reg.Reset()
	_, err = c.PutBlob(t.Context(), describe([]byte("abc")), func(ctx context.Context) (io.ReadCloser, error) {
		return layout.VerifyReader(ctx, io.NopCloser(strings.NewReader("abd")), describe([]byte("abc"))), nil
	}, nil)
	if !errors.Is(err, layout.ErrMismatch) || reg.Count("POST", "") != 1 {
		t.Errorf("PutBlob = %v after %d uploads", err, reg.Count("POST", ""))
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

// TestPutManifestUnclear: a PUT that worked, but whose answer was lost, is not
// sent twice.
func TestPutManifestUnclear(t *testing.T) {
	reg := regtest.Start(t, nil)
	c := newClient(t, reg.Host, &Options{})
	if _, err := c.PutBlob(t.Context(), describe([]byte("{}")), opener([]byte("{}")), nil); err != nil {
		t.Fatal(err)
	}
	raw, err := layout.EncodeManifest(ocispec.Manifest{ArtifactType: "text/x", Config: ocispec.DescriptorEmptyJSON})
	if err != nil {
		t.Fatal(err)
	}
	desc := describe(raw)
	desc.MediaType = ocispec.MediaTypeImageManifest
	reg.Reset()
	reg.Intercept(func(n int, w http.ResponseWriter, r *http.Request) bool {
		if n != 1 {
			return false
		}
		// Our own request to the registry behind the proxy, and no answer.
		again, err := http.NewRequestWithContext(r.Context(), r.Method, reg.URL()+r.URL.Path, r.Body)
		if err != nil {
			t.Error(err)
			return false
		}
		again.Header, again.ContentLength = r.Header, r.ContentLength
		resp, err := reg.Client().Do(again)
		if err != nil || resp.StatusCode != http.StatusCreated {
			t.Errorf("%v %v", resp, err)
		}
		w.WriteHeader(http.StatusBadGateway)
		return true
	})
	if _, err := c.PutManifest(t.Context(), desc, raw, "tag"); err != nil {
		t.Fatal(err)
	}
	if n := reg.Count("PUT", "/manifests/"); n != 2 { // one is the hook's
		t.Errorf("%d PUTs", n)
	}
}

// TestBlobResumes reads over connections that break, and asks only for what is
// missing.
func TestBlobResumes(t *testing.T) {
	reg := regtest.Start(t, nil)
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<15)
	c := newClient(t, reg.Host, &Options{})
	if _, err := c.PutBlob(t.Context(), describe(content), opener(content), nil); err != nil {
		t.Fatal(err)
	}
	reg.Reset()
	breaks := 3
	reg.Intercept(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || breaks == 0 {
			return false
		}
		breaks--
		from := 0
		if h := r.Header.Get("Range"); h != "" {
			if _, err := fmt.Sscanf(h, "bytes=%d-", &from); err != nil {
				t.Error(err)
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(content)-1, len(content)))
		}
		w.Header().Set("Accept-Ranges", "bytes")
		w.Header().Set("Content-Length", fmt.Sprint(len(content)-from))
		if from > 0 {
			w.WriteHeader(http.StatusPartialContent)
		}
		if _, err := w.Write(content[from : from+100_000]); err != nil {
			t.Error(err)
		}
		panic(http.ErrAbortHandler)
	})
	rc, err := c.Blob(t.Context(), describe(content))
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	got, err := io.ReadAll(rc)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	if breaks != 0 {
		t.Errorf("%d breaks left", breaks)
	}
}

// roundTrip is a network in a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(r *http.Request, status int, header http.Header, body string) *http.Response {
	if header == nil {
		header = http.Header{}
	}
	return &http.Response{
		StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
		Request: r, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
}

// TestRetryWaits runs on a clock of its own.
func TestRetryWaits(t *testing.T) {
	for _, tt := range []struct {
		name     string
		status   int
		header   http.Header
		tries    int
		min, max time.Duration
		hint     string
	}{
		{"busy", 503, nil, 6, 3500 * time.Millisecond, 12 * time.Second, ""},
		{"seconds", 429, http.Header{"Retry-After": {"7"}}, 6, 35 * time.Second, 36 * time.Second, ""},
		{"date", 429, http.Header{"Date": {"Fri, 20 Nov 2026 20:00:00 GMT"}, "Retry-After": {"Fri, 20 Nov 2026 20:00:10 GMT"}}, 6, 50 * time.Second, 51 * time.Second, ""},
		{"huge", 429, http.Header{"Retry-After": {"3600"}}, 1, 0, 0, "1h0m0s"},
		{"forbidden", 403, nil, 1, 0, 0, ""},
		{"bad request", 400, nil, 1, 0, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tries := -1 // without the ping
				c := newClient(t, "registry.example", &Options{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
					if tries++; tries == 0 {
						return answer(r, 200, nil, ""), nil
					}
					return answer(r, tt.status, tt.header, ""), nil
				})})
				begin := time.Now()
				_, err := c.Resolve(t.Context(), "tag")
				took := time.Since(begin)
				var e *Error
				if !errors.As(err, &e) || e.Status != tt.status {
					t.Errorf("Resolve = %v", err)
				}
				if tries != tt.tries || took < tt.min || took > tt.max {
					t.Errorf("%d tries in %v, want %d in %v to %v", tries, took, tt.tries, tt.min, tt.max)
				}
				var hint *layout.HintError
				if errors.As(err, &hint) != (tt.hint != "") || hint != nil && !strings.Contains(hint.Hint, tt.hint) {
					t.Errorf("hint %v, want %q", hint, tt.hint)
				}
			})
		})
	}
}

// TestStall: a registry that goes silent, before its answer or in it, is given
// up.
func TestStall(t *testing.T) {
	content := []byte("0123456789")
	for _, where := range []string{"header", "body"} {
		t.Run(where, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/v2/" {
					return
				}
				if where == "body" {
					w.Header().Set("Content-Length", "10")
					_, _ = w.Write(content[:5])
					_ = http.NewResponseController(w).Flush()
				}
				<-r.Context().Done()
			}))
			defer server.Close()
			c := newClient(t, strings.TrimPrefix(server.URL, "http://"), &Options{Tries: 1, StallTimeout: 50 * time.Millisecond})
			rc, err := c.Blob(t.Context(), describe(content))
			if err == nil {
				_, err = io.ReadAll(rc)
				_ = rc.Close()
			}
			if !errors.Is(err, ErrStalled) {
				t.Errorf("Blob = %v, want ErrStalled", err)
			}
		})
	}
}

var errAny = errors.New("any error")

// TestCredentialsStay: they reach the registry and no other origin, whatever
// the registry says.
func TestCredentialsStay(t *testing.T) {
	content := []byte("content")
	for _, tt := range []struct {
		name   string
		https  bool
		realm  string // of the token server
		bounce string // where blobs are redirected to
		trust  []string
		want   error // of reading a blob; nil: it works
		leak   bool  // the other host may see them
	}{
		{name: "basic", bounce: ""},
		{name: "redirect to another host", bounce: "http://other.example/blob"},
		{name: "redirect to another port", bounce: "http://registry.example:81/blob"},
		{name: "redirect of https to http", https: true, bounce: "http://registry.example/blob", want: errRedirect},
		{name: "redirect without end", bounce: "http://registry.example/v2/app/blobs/" + string(digest.FromBytes(content)), want: errRedirect},
		{name: "token server elsewhere", realm: "http://other.example/token", want: ErrTokenHost},
		{name: "token server elsewhere, trusted", realm: "http://other.example/token", trust: []string{"other.example"}, leak: true},
		{name: "token server in the same private network", realm: "http://127.0.0.9/token?a=b", want: errAny},
		{name: "token server in the same private network, trusted", realm: "http://127.0.0.9/token?a=b", trust: []string{"127.0.0.9"}, leak: true},
		{name: "token server of a stand-in", realm: "http://registry.example/v2/.token/" + base64.RawURLEncoding.EncodeToString([]byte("http://other.example/token")), want: ErrTokenHost},
		{name: "token server at the registry", realm: "http://registry.example/token"},
		{name: "token server that redirects", realm: "http://registry.example/bounce", want: errRedirect},
		{name: "token server without https", https: true, realm: "http://registry.example/token", want: nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			scheme := "http"
			if tt.https {
				scheme = "https"
			}
			leaked, requests := "", 0
			network := roundTrip(func(r *http.Request) (*http.Response, error) {
				if r.URL.Scheme != scheme && r.URL.Path == "/v2/" {
					return nil, errors.New("nobody speaks " + r.URL.Scheme)
				}
				requests++
				auth := r.Header.Get("Authorization")
				own := r.URL.Host == "registry.example" && r.URL.Scheme == scheme
				if !own && auth != "" {
					leaked = r.URL.String()
				}
				switch {
				case r.URL.Path == "/token":
					return answer(r, 200, nil, `{"token":"t0ken"}`), nil
				case r.URL.Path == "/bounce":
					return answer(r, 307, http.Header{"Location": {"/token"}}, ""), nil
				case r.URL.Path == "/blob":
					return answer(r, 200, nil, string(content)), nil
				case auth == "" && tt.realm != "":
					return answer(r, 401, http.Header{"Www-Authenticate": {`Bearer realm="` + tt.realm + `",service="s"`}}, ""), nil
				case auth == "":
					return answer(r, 401, http.Header{"Www-Authenticate": {`Basic realm="r"`}}, ""), nil
				case tt.bounce != "":
					return answer(r, 307, http.Header{"Location": {tt.bounce}}, ""), nil
				}
				return answer(r, 200, nil, string(content)), nil
			})
			c := newClient(t, "registry.example", &Options{Transport: network, Creds: "user:secret", TrustAuthHosts: tt.trust, Tries: 1})
			rc, err := c.Blob(t.Context(), describe(content))
			if err == nil {
				_, err = io.ReadAll(rc)
				_ = rc.Close()
			}
			if tt.name == "token server without https" {
				if err == nil {
					t.Error("the token server was asked in plain HTTP")
				}
			} else if !errors.Is(err, tt.want) && (!errors.Is(tt.want, errAny) || err == nil) {
				t.Errorf("Blob = %v, want %v", err, tt.want)
			}
			if requests > 2+1+5 { // ping, 401, blob, redirects
				t.Errorf("%d requests", requests)
			}
			if (leaked != "") != tt.leak {
				t.Errorf("credentials were sent to %q", leaked)
			}
		})
	}
}

// TestGuardStrips: the guard does not rely on others to take credentials out.
func TestGuardStrips(t *testing.T) {
	origin := &url.URL{Scheme: "https", Host: "registry.example"}
	for target, want := range map[string]string{
		"https://registry.example/x": "secret", "https://registry.example:443/x": "secret",
		"https://registry.example:444/x": "", "https://sub.registry.example/x": "", "https://other.example/x": "",
	} {
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodHead} {
			got := "none"
			g := newGuard(roundTrip(func(r *http.Request) (*http.Response, error) {
				got = r.Header.Get("Authorization")
				return answer(r, 200, nil, ""), nil
			}), nil, origin, "app", nil)
			req, err := http.NewRequestWithContext(t.Context(), method, target, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "secret")
			req.Response = answer(req, 307, nil, "") // it is the hop of a redirect
			if _, err := g.RoundTrip(req); err != nil || got != want {
				t.Errorf("%s %s: Authorization %q, %v; want %q", method, target, got, err, want)
			}
			if req.Header.Get("Authorization") != "secret" {
				t.Error("the caller's request was changed")
			}
		}
	}
}

func TestRefuseInternal(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1:80": true, "[::1]:80": true, "10.0.0.1:80": true, "192.168.1.1:443": true, "169.254.169.254:80": true,
		"[::ffff:10.0.0.1]:80": true, "100.100.100.200:80": true, "0.0.0.0:80": true, "[fd00::1]:80": true, "224.0.0.1:80": true,
		"93.184.216.34:443": false, "[2606:2800:220:1::1]:443": false,
	} {
		if got := refuseInternal("tcp", address, nil) != nil; got != want {
			t.Errorf("%s is refused: %v, want %v", address, got, want)
		}
	}
}

func TestSameOrigin(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"https://a/", "https://A:443/x", true},
		{"http://a:80", "http://a", true},
		{"https://a", "http://a", false},
		{"https://a", "https://a:444", false},
		{"https://a", "https://a.b", false},
		{"https://a:443", "http://a:443", false},
	} {
		a, errA := url.Parse(tt.a)
		b, errB := url.Parse(tt.b)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if got := sameOrigin(a, b); got != tt.want {
			t.Errorf("sameOrigin(%s, %s) = %v", tt.a, tt.b, got)
		}
	}
}

// FuzzRetryAfter: what a registry says never makes us wait less than nothing,
// or fail.
func FuzzRetryAfter(f *testing.F) {
	for _, seed := range [][2]string{{"7", ""}, {"-1", ""}, {"99999999999999999999", ""}, {"Fri, 20 Nov 2026 20:00:10 GMT", "Fri, 20 Nov 2026 20:00:00 GMT"}, {"x", "y"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, after, date string) {
		if d := retryAfter(&http.Response{Header: http.Header{"Retry-After": {after}, "Date": {date}}}); d < 0 {
			t.Errorf("wait %v", d)
		}
	})
}

func FuzzClean(f *testing.F) {
	f.Add("Get \"https://u:p@h/p?q=secret\": x\x1b[0m")
	f.Fuzz(func(t *testing.T, s string) {
		got := clean(s)
		if len(got) > 4096+4 || strings.ContainsAny(got, "\x1b\x00\n\r\x07") {
			t.Errorf("clean(%q) = %q", s, got)
		}
	})
}

// TestShare: with shared options a repository has one client, whose connections
// stay until all are done with it.
func TestShare(t *testing.T) {
	var pings, connections atomic.Int64
	reg := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			pings.Add(1)
			return
		}
		w.WriteHeader(http.StatusNotFound)
	}))
	reg.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	reg.StartTLS()
	defer reg.Close()
	shared, done := Share(Options{})
	first := newClient(t, reg.Listener.Addr().String(), &shared)
	first.Close()
	if second := newClient(t, reg.Listener.Addr().String(), &shared); second != first {
		t.Error("another client")
	}
	use := func() {
		t.Helper()
		if _, err := first.ResolveBlob(t.Context(), digest.FromString("x")); !errors.Is(err, layout.ErrNotFound) {
			t.Error(err)
		}
	}
	use()
	if pings.Load() != 1 || connections.Load() != 1 {
		t.Errorf("%d pings, %d connections, want 1", pings.Load(), connections.Load())
	}
	done()
	use()
	if connections.Load() != 2 {
		t.Errorf("%d connections, want a second one after all were ended", connections.Load())
	}
}
