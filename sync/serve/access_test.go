package serve_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/sync/serve"
)

func hash(t testing.TB, password string) string {
	t.Helper()
	b, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Only users come in, as the file has them now; anybody may ask for the health.
func TestUsers(t *testing.T) {
	dir, _ := sample(t)
	file := filepath.Join(t.TempDir(), "users")
	writeFile(t, file, "# who\n\nann:"+hash(t, "secret:with colon")+"\nbob:"+hash(t, "other")+"\n")
	users, err := serve.ReadUsers(file)
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, serve.Options{Sources: []serve.Source{fromPath("garden", dir)}, Users: users})
	basic := func(pair string) string {
		return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(pair))
	}
	check := func(want int, headers ...string) {
		t.Helper()
		for range 2 { // remembered, or not
			for _, path := range []string{"/v2/", "/v2/garden/manifests/app", "/metrics", "/v2/garden/blobs/x"} {
				got := s.get(path, headers...)
				ok := got.status == 200 || path == "/v2/garden/blobs/x" && got.status == 400
				if want == 401 {
					ok = got.status == 401 && got.header.Get("WWW-Authenticate") == `Basic realm="gloci-layout"` && strings.Contains(got.body, "UNAUTHORIZED")
				}
				if !ok {
					t.Errorf("%s %q: status %d, want %d", path, headers, got.status, want)
				}
			}
		}
		if got := s.get("/healthz"); got.status != 200 {
			t.Errorf("healthz: %d", got.status)
		}
	}
	check(401)
	check(401, basic("ann:other"))
	check(401, basic("nobody:secret"))
	check(401, basic("ann:"))
	check(401, "Authorization: Bearer x")
	check(200, basic("ann:secret:with colon"))
	check(200, basic("bob:other"))
	if log := s.log.String(); strings.Contains(log, "secret") || !strings.Contains(log, "user=ann") {
		t.Errorf("log:\n%s", log)
	}
	writeFile(t, file, "ann:"+hash(t, "new")+"\n")
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(401, basic("ann:secret:with colon"))
	check(401, basic("bob:other"))
	check(200, basic("ann:new"))
	writeFile(t, file, "ann:$apr1$no$bcrypt\n")
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(200, basic("ann:new"))
	if _, err := serve.ReadUsers(file); !errors.Is(err, layout.ErrInvalid) || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("ReadUsers: %v", err)
	}
}

// HTTPS, and with it HTTP/2, gives the same content; damage breaks its streams.
func TestTLS(t *testing.T) {
	dir, c := sample(t)
	other := httptest.NewTLSServer(nil) // for its certificate
	defer other.Close()
	b := []byte(c.Stored[c.Long.Digest])
	b[3] ^= 1
	writeFile(t, blobFile(dir, c.Long.Digest), string(b))
	for _, protocol := range []string{"h2", "http/1.1"} {
		s, err := serve.New(t.Context(), serve.Options{
			Sources: []serve.Source{fromPath("garden", dir)}, VerifyLimit: 1,
			TLS: &tls.Config{Certificates: other.TLS.Certificates, NextProtos: []string{protocol}, MinVersion: tls.VersionTLS12},
		})
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(ctx, l) }()
		run := &server{Server: s, t: t, url: "https://" + l.Addr().String(), log: &logBuffer{}}
		transport, ok := other.Client().Transport.(*http.Transport)
		if !ok {
			t.Fatal("no transport")
		}
		transport = transport.Clone()
		transport.ForceAttemptHTTP2 = protocol == "h2"
		run.client = &http.Client{Transport: transport}
		for range 2 {
			if got := run.get("/v2/garden/blobs/" + string(c.Large.Digest)); got.status != 200 || got.body != c.Stored[c.Large.Digest] || got.err != nil {
				t.Errorf("%s: status %d, %d bytes, %v", protocol, got.status, len(got.body), got.err)
			}
			if got := run.get("/v2/garden/blobs/" + string(c.Long.Digest)); got.status < 500 && got.err == nil {
				t.Errorf("%s: a damaged blob: status %d, %d bytes, %v", protocol, got.status, len(got.body), got.err)
			}
			age(t)
		}
		transport.CloseIdleConnections()
		stop()
		if err := errors.Join(<-ended, s.Close()); err != nil {
			t.Errorf("%s: %v", protocol, err)
		}
	}
}

// Who is in the middle of a blob when the server is told to end gets all of it.
func TestGracefulEnd(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "garden")
	content := strings.Repeat("0123456789abcdef", 16<<20/16)
	large := bigLayer(t, dir, content)
	s, err := serve.New(t.Context(), serve.Options{Sources: []serve.Source{fromPath("garden", dir)}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	url := "http://" + l.Addr().String()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/v2/garden/blobs/"+string(large), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	stop()
	eventually(t, "the end of listening", func() bool {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	got := new(strings.Builder)
	if _, err := io.Copy(got, resp.Body); err != nil || got.String() != content {
		t.Errorf("%d bytes, %v", got.Len(), err)
	}
	if err := errors.Join(<-ended, s.Close()); err != nil {
		t.Error(err)
	}
}
