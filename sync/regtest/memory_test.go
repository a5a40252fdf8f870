package regtest_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

const (
	imageType = "application/vnd.oci.image.manifest.v1+json"
	indexType = "application/vnd.oci.image.index.v1+json"
)

// ask sends one request without a network.
func ask(t *testing.T, m *regtest.Memory, method, path string, body []byte, header ...string) (*http.Response, string, error) {
	t.Helper()
	url := path
	if strings.HasPrefix(path, "/") {
		url = "https://" + regtest.MemoryHost + path
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := m.Transport().RoundTrip(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return resp, string(raw), err
}

// put fills a repository with sample s and tags its index.
func put(t *testing.T, m *regtest.Memory, s, tag string) content {
	t.Helper()
	c := sample(s)
	for _, blob := range [][]byte{c.layer, c.config} {
		resp, _, err := ask(t, m, "POST", "/v2/x/blobs/uploads/", nil)
		if err != nil {
			t.Fatal(err)
		}
		wantStatus(t, m, http.StatusCreated, "PUT", resp.Header.Get("Location")+"&digest="+string(digest.FromBytes(blob)), blob)
	}
	wantStatus(t, m, http.StatusCreated, "PUT", "/v2/x/manifests/"+string(digest.FromBytes(c.manifest)), c.manifest, "Content-Type", imageType)
	wantStatus(t, m, http.StatusCreated, "PUT", "/v2/x/manifests/"+tag, c.index, "Content-Type", indexType)
	return c
}

func wantStatus(t *testing.T, m *regtest.Memory, want int, method, path string, body []byte, header ...string) (*http.Response, string) {
	t.Helper()
	resp, text, err := ask(t, m, method, path, body, header...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	if resp.StatusCode != want {
		t.Errorf("%s %s = %d %s, want %d", method, path, resp.StatusCode, text, want)
	}
	return resp, text
}

func TestMemoryFaults(t *testing.T) {
	fill := func() (*regtest.Memory, content) {
		m := regtest.NewMemory(nil)
		c := put(t, m, "a", "v1")
		m.Reset()
		return m, c
	}
	get := func(m *regtest.Memory) (*http.Response, string, error) {
		return ask(t, m, "GET", "/v2/x/manifests/v1", nil, "Accept", indexType)
	}
	for _, kind := range []regtest.FaultKind{regtest.Drop, regtest.Reset, regtest.Lost, regtest.Late} {
		m, c := fill()
		m.FaultAt(1, regtest.Fault{Kind: kind})
		_, _, err := ask(t, m, "PUT", "/v2/x/manifests/v2", c.index, "Content-Type", indexType)
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("fault %d: %v", kind, err)
		}
		if got, want := m.Tags("x")["v2"] != "", kind == regtest.Lost; got != want {
			t.Errorf("fault %d: carried out: %t, want %t", kind, got, want)
		}
		if kind == regtest.Late && (m.Land() != 1 || m.Tags("x")["v2"] == "" || m.Land() != 0) {
			t.Error("a late request was not carried out, or twice")
		}
	}
	m, c := fill()
	m.FaultAt(1, regtest.Fault{Kind: regtest.Answer, Status: http.StatusTooManyRequests, RetryAfter: "3"})
	resp, _ := wantStatus(t, m, http.StatusTooManyRequests, "PUT", "/v2/x/manifests/v2", c.index, "Content-Type", indexType)
	if resp.Header.Get("Retry-After") != "3" || m.Tags("x")["v2"] != "" {
		t.Errorf("429: %v %v", resp.Header, m.Tags("x"))
	}
	m.FaultAt(2, regtest.Fault{Kind: regtest.LostAnswer, Status: http.StatusBadGateway})
	wantStatus(t, m, http.StatusBadGateway, "PUT", "/v2/x/manifests/v2", c.index, "Content-Type", indexType)
	if m.Tags("x")["v2"] == "" {
		t.Error("LostAnswer did not carry the request out")
	}
	want := string(c.index)
	for _, tt := range []struct {
		fault regtest.Fault
		body  func(string) bool
		err   error
	}{
		{fault: regtest.Fault{Kind: regtest.Truncated, After: 5}, body: func(s string) bool { return s == want[:5] }, err: io.ErrUnexpectedEOF},
		{fault: regtest.Fault{Kind: regtest.Short, After: 5}, body: func(s string) bool { return s == want[:5] }},
		{fault: regtest.Fault{Kind: regtest.Overlong, After: 5}, body: func(s string) bool { return len(s) == len(want)+5 }},
		{fault: regtest.Fault{Kind: regtest.WrongBody}, body: func(s string) bool { return len(s) == len(want) && s != want }},
		{fault: regtest.Fault{Kind: regtest.Slow, Delay: 1}, body: func(s string) bool { return s == want }},
	} {
		m, _ := fill()
		m.FaultAt(1, tt.fault)
		_, body, err := get(m)
		if !errors.Is(err, tt.err) || !tt.body(body) {
			t.Errorf("fault %+v: %q, %v", tt.fault, body, err)
		}
		if _, body, err = get(m); err != nil || body != want {
			t.Errorf("after fault %+v: %q, %v", tt.fault, body, err)
		}
	}
	m, _ = fill()
	m.FaultAt(1, regtest.Fault{Kind: regtest.WrongDigest})
	if resp, _, err := get(m); err != nil || resp.Header.Get("Docker-Content-Digest") == string(digest.FromString(want)) {
		t.Errorf("WrongDigest: %v %v", resp, err)
	}
}

// The same faults over the network: the client sees a connection that ends.
func TestMemoryFaultsServed(t *testing.T) {
	m := regtest.NewMemory(nil)
	c := put(t, m, "a", "v1")
	m.Reset()
	host := m.Serve(t)
	for kind, wantErr := range map[regtest.FaultKind]bool{regtest.Drop: true, regtest.Truncated: true, regtest.Short: false} {
		m.Reset()
		m.Inject(func(int, *http.Request) *regtest.Fault { return &regtest.Fault{Kind: kind, After: 5} })
		resp, err := http.Get("http://" + host + "/v2/x/blobs/" + string(digest.FromBytes(c.config)))
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		if (err != nil) != wantErr {
			t.Errorf("fault %d: %v", kind, err)
		}
	}
}

// A clone has the content, and goes its own way.
func TestMemoryClone(t *testing.T) {
	m := regtest.NewMemory(nil)
	a := put(t, m, "a", "v1")
	c := m.Clone()
	wantStatus(t, c, http.StatusCreated, "PUT", "/v2/x/manifests/v1", a.manifest, "Content-Type", imageType)
	if c.Complete("x", digest.FromBytes(a.index)) != nil || m.Tags("x")["v1"] != digest.FromBytes(a.index) || c.Tags("x")["v1"] == m.Tags("x")["v1"] || len(c.History()) != 1 {
		t.Errorf("tags %v and %v, history %v", m.Tags("x"), c.Tags("x"), c.History())
	}
}

func TestMemoryOptions(t *testing.T) {
	a, b := sample("a"), sample("b")
	t.Run("immutable tags", func(t *testing.T) {
		m := regtest.NewMemory(&regtest.MemoryOptions{ImmutableTags: true})
		put(t, m, "a", "v1")
		wantStatus(t, m, http.StatusCreated, "PUT", "/v2/x/manifests/v1", a.index, "Content-Type", indexType)
		wantStatus(t, m, http.StatusForbidden, "PUT", "/v2/x/manifests/v1", a.manifest, "Content-Type", imageType)
	})
	t.Run("conditions", func(t *testing.T) {
		m := regtest.NewMemory(&regtest.MemoryOptions{Conditional: true})
		put(t, m, "a", "v1")
		etag := `"` + string(digest.FromBytes(a.index)) + `"`
		wantStatus(t, m, http.StatusPreconditionFailed, "PUT", "/v2/x/manifests/v1", a.manifest, "Content-Type", imageType, "If-Match", `"sha256:0"`)
		wantStatus(t, m, http.StatusPreconditionFailed, "PUT", "/v2/x/manifests/v1", a.manifest, "Content-Type", imageType, "If-None-Match", "*")
		wantStatus(t, m, http.StatusPreconditionFailed, "PUT", "/v2/x/manifests/v2", a.manifest, "Content-Type", imageType, "If-Match", etag)
		wantStatus(t, m, http.StatusCreated, "PUT", "/v2/x/manifests/v1", a.manifest, "Content-Type", imageType, "If-Match", etag)
	})
	t.Run("limits", func(t *testing.T) {
		m := regtest.NewMemory(&regtest.MemoryOptions{ManifestLimit: 300, MediaTypes: []string{indexType, imageType}, RefuseNested: true})
		wantStatus(t, m, http.StatusBadRequest, "PUT", "/v2/x/manifests/v1", a.manifest, "Content-Type", imageType) // too large
		m = regtest.NewMemory(&regtest.MemoryOptions{MediaTypes: []string{indexType, imageType}, RefuseNested: true, Lax: true})
		wantStatus(t, m, http.StatusBadRequest, "PUT", "/v2/x/manifests/v1", a.manifest, "Content-Type", imageType) // the config's type
		wantStatus(t, m, http.StatusCreated, "PUT", "/v2/x/manifests/v1", a.index, "Content-Type", indexType)       // lax
		if m.Complete("x", digest.FromBytes(a.index)) == nil {
			t.Error("an index without its manifests is complete")
		}
		nested := bytes.Replace(b.index, []byte(imageType), []byte(indexType), 1)
		wantStatus(t, m, http.StatusBadRequest, "PUT", "/v2/x/manifests/v2", nested, "Content-Type", indexType)
	})
	t.Run("referrers", func(t *testing.T) {
		m := regtest.NewMemory(&regtest.MemoryOptions{Referrers: true})
		c := put(t, m, "a", "v1")
		subject := string(digest.FromBytes(c.manifest))
		signature := bytes.Replace(c.manifest, []byte(`"layers"`), []byte(`"artifactType":"application/vnd.example.sig","subject":{"mediaType":"`+imageType+`","digest":"`+subject+`","size":1},"layers"`), 1)
		resp, _ := wantStatus(t, m, http.StatusCreated, "PUT", "/v2/x/manifests/"+string(digest.FromBytes(signature)), signature, "Content-Type", imageType)
		if resp.Header.Get("OCI-Subject") != subject {
			t.Errorf("OCI-Subject is %q", resp.Header.Get("OCI-Subject"))
		}
		for filter, want := range map[string]bool{"": true, "?artifactType=application/vnd.example.sig": true, "?artifactType=other": false} {
			_, body := wantStatus(t, m, http.StatusOK, "GET", "/v2/x/referrers/"+subject+filter, nil)
			if got := strings.Contains(body, string(digest.FromBytes(signature))); got != want {
				t.Errorf("referrers%s: %s", filter, body)
			}
		}
	})
	t.Run("redirect", func(t *testing.T) {
		m := regtest.NewMemory(&regtest.MemoryOptions{Redirect: true})
		c := put(t, m, "a", "v1")
		resp, _ := wantStatus(t, m, http.StatusTemporaryRedirect, "GET", "/v2/x/blobs/"+string(digest.FromBytes(c.layer)), nil)
		_, body := wantStatus(t, m, http.StatusOK, "GET", resp.Header.Get("Location"), nil)
		if body != string(c.layer) || len(m.Leaks()) != 0 {
			t.Errorf("%q, leaks %v", body, m.Leaks())
		}
		wantStatus(t, m, http.StatusOK, "GET", resp.Header.Get("Location"), nil, "Authorization", "Basic eDp5")
		if len(m.Leaks()) != 1 {
			t.Errorf("leaks: %v", m.Leaks())
		}
	})
	t.Run("tokens end", func(t *testing.T) {
		m := regtest.NewMemory(&regtest.MemoryOptions{Bearer: true, TokenUses: 2, Users: map[string]string{"u": "p"}})
		resp, _ := wantStatus(t, m, http.StatusUnauthorized, "GET", "/v2/x/tags/list", nil)
		if h := resp.Header.Get("WWW-Authenticate"); !strings.Contains(h, `scope="repository:x:pull"`) {
			t.Errorf("challenge %q", h)
		}
		wantStatus(t, m, http.StatusUnauthorized, "GET", "/token?scope=repository:x:pull", nil)
		_, body := wantStatus(t, m, http.StatusOK, "GET", "/token?scope=repository:x:pull", nil, "Authorization", "Basic dTpw")
		token := "Bearer " + strings.Split(body, `"`)[3]
		for i, want := range []int{404, 404, 401} {
			if resp, _, _ := ask(t, m, "GET", "/v2/x/tags/list", nil, "Authorization", token); resp.StatusCode != want {
				t.Errorf("use %d = %d, want %d", i, resp.StatusCode, want)
			}
		}
		wantStatus(t, m, http.StatusUnauthorized, "POST", "/v2/x/blobs/uploads/", nil, "Authorization", token)
	})
	t.Run("lag", func(t *testing.T) {
		m := regtest.NewMemory(&regtest.MemoryOptions{LagTags: 2, LagList: 4})
		put(t, m, "a", "v1")
		var tags, lists []bool
		for range 3 {
			resp, _, _ := ask(t, m, "HEAD", "/v2/x/manifests/v1", nil, "Accept", indexType)
			_, list, _ := ask(t, m, "GET", "/v2/x/tags/list", nil)
			tags, lists = append(tags, resp.StatusCode == 200), append(lists, strings.Contains(list, "v1"))
		}
		if tags[0] || !tags[1] || lists[0] || lists[1] || !lists[2] {
			t.Errorf("tags %v, lists %v", tags, lists)
		}
	})
	t.Run("pages", func(t *testing.T) {
		m := regtest.NewMemory(&regtest.MemoryOptions{PageSize: 2})
		for _, tag := range []string{"a", "b", "c"} {
			put(t, m, "a", tag)
		}
		resp, body := wantStatus(t, m, http.StatusOK, "GET", "/v2/x/tags/list", nil)
		if !strings.Contains(body, `["a","b"]`) || !strings.Contains(resp.Header.Get("Link"), "last=b") {
			t.Errorf("%s %v", body, resp.Header)
		}
	})
	t.Run("history", func(t *testing.T) {
		m := regtest.NewMemory(nil)
		var seen int
		m.AfterEach(func(mu regtest.Mutation) {
			if seen++; mu.Kind == "tag" {
				if err := m.Complete("x", mu.Digest); err != nil {
					t.Error(err)
				}
			}
		})
		put(t, m, "a", "v1")
		h := m.History()
		if last := h[len(h)-1]; len(h) != 5 || seen != 5 || last.Kind != "tag" || last.Tag != "v1" || last.Before != "" {
			t.Errorf("history %+v", h)
		}
	})
}

// Two clients, each with one request: the scheduler decides which is first.
func TestScheduler(t *testing.T) {
	for first := range 2 {
		m := regtest.NewMemory(nil)
		c := put(t, m, "a", "v0")
		s := m.Schedule(2)
		for i, body := range [][]byte{c.index, c.manifest} {
			go func() {
				defer s.End(i)
				req, _ := http.NewRequest("PUT", "https://"+regtest.MemoryHost+"/v2/x/manifests/v1", bytes.NewReader(body))
				req.Header.Set("Content-Type", []string{indexType, imageType}[i])
				if resp, err := s.Transport(i).RoundTrip(req); err == nil {
					resp.Body.Close()
				}
			}()
		}
		if w := s.Waiting(); len(w) != 2 || s.Local(0) {
			t.Fatalf("waiting: %v", w)
		}
		before := s.State()
		s.Step(first)
		if w := s.Waiting(); len(w) != 1 || w[0] == first || s.State() == before {
			t.Fatalf("waiting after a step: %v", w)
		}
		s.Step(1 - first)
		if w := s.Waiting(); len(w) != 0 {
			t.Fatalf("waiting at the end: %v", w)
		}
		want := digest.FromBytes([][]byte{c.index, c.manifest}[1-first])
		if got := m.Tags("x")["v1"]; got != want {
			t.Errorf("first %d: the tag names %s, want %s", first, got, want)
		}
	}
}
