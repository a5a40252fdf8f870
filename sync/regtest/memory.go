package regtest

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
)

// MemoryOptions changes what [NewMemory] makes. Nil is the zero value: a strict
// registry that does what the reference registry does, to anybody.
type MemoryOptions struct {
	// Users are the names and passwords of basic authentication; empty means
	// that nobody has to log in.
	Users map[string]string
	// Bearer asks for tokens in place of basic authentication; Users may have
	// them.
	Bearer bool
	// TokenUses ends a token after so many requests; 0 means never.
	TokenUses int
	// Delete allows DELETE of manifests and tags.
	Delete bool
	// Referrers offers the referrers API and answers OCI-Subject. The reference
	// registry does not.
	Referrers bool
	// ImmutableTags refuses to move a tag that is there.
	ImmutableTags bool
	// ManifestLimit bounds a manifest in bytes; 0 means 4 MiB.
	ManifestLimit int64
	// MediaTypes are the media types of manifests, configs and layers that are
	// taken; nil means all.
	MediaTypes []string
	// RefuseNested refuses an index that names an index.
	RefuseNested bool
	// Lax takes manifests whose blobs and entries are not there, as the
	// specification allows.
	Lax bool
	// Conditional answers 412 to a PUT of a manifest whose If-Match or
	// If-None-Match does not fit.
	Conditional bool
	// Redirect sends who asks for a blob to another origin.
	Redirect bool
	// PageSize is the most tags that one list has; 0 means as many as wanted.
	PageSize int
	// LagTags is for how many further requests a tag that was written still
	// names what it named before; LagList the same for the list of tags.
	LagTags, LagList int
}

// A Memory is a registry of this process: strict, in memory, with its whole
// history, and with faults where a test wants them. Nothing in it depends on
// the clock or on chance. Its methods may be called from several goroutines;
// each request is carried out at one instant.
type Memory struct {
	opts MemoryOptions

	mu        sync.Mutex
	repos     map[string]*repo
	history   []Mutation
	requests  []Request
	leaks     []Request
	uploads   int
	tokens    map[string]*memoryToken
	inject    func(n int, r *http.Request) *Fault
	late      []func()
	after     func(Mutation)
	origin    string // scheme and host, as clients call it
	elsewhere string // the other origin
}

type repo struct {
	blobs     map[digest.Digest][]byte
	manifests map[digest.Digest]manifest
	tags      map[string]digest.Digest
	moves     []tagMove // for the lag
	uploads   map[string][]byte
}

type manifest struct {
	mediaType string
	raw       []byte
}

// A tagMove remembers what a tag named before.
type tagMove struct {
	tag     string
	before  digest.Digest
	request int
}

// The hosts of a registry that is reached by [Memory.Transport].
const (
	MemoryHost = "registry.test"
	otherHost  = "blobs.test"
)

// NewMemory returns an empty registry.
func NewMemory(opts *MemoryOptions) *Memory {
	m := &Memory{repos: map[string]*repo{}, tokens: map[string]*memoryToken{}, origin: "https://" + MemoryHost, elsewhere: "https://" + otherHost}
	if opts != nil {
		m.opts = *opts
	}
	return m
}

// Clone returns a registry with the same options and content, and without
// history, requests or faults.
func (m *Memory) Clone() *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := NewMemory(&m.opts)
	for name, r := range m.repos {
		to := c.repo(name)
		maps.Copy(to.blobs, r.blobs)
		maps.Copy(to.manifests, r.manifests)
		maps.Copy(to.tags, r.tags)
	}
	return c
}

// Serve answers on a free port of loopback, in plain HTTP, until t ends, and
// returns HOST:PORT. The other origin of Options.Redirect has a port of its
// own.
func (m *Memory) Serve(t testing.TB) string {
	t.Helper()
	server, other := httptest.NewServer(m), httptest.NewServer(m)
	t.Cleanup(server.Close)
	t.Cleanup(other.Close)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.origin, m.elsewhere = server.URL, other.URL
	return server.Listener.Addr().String()
}

// ServeHTTP answers one request.
func (m *Memory) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a := m.answer(r)
	a.write(w)
}

// Transport reaches the registry as https://[MemoryHost] without a network.
func (m *Memory) Transport() http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) { return m.answer(r).response(r) })
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// answer reads a request, applies the fault that is due, and carries it out.
func (m *Memory) answer(r *http.Request) *answer {
	m.mu.Lock()
	m.requests = append(m.requests, Request{Method: r.Method, Path: r.URL.Path, Query: r.URL.Query(), Header: r.Header.Clone()})
	n := len(m.requests)
	inject := m.inject
	m.mu.Unlock()
	var f *Fault
	if inject != nil {
		f = inject(n, r)
	}
	a := m.faulty(n, r, f)
	m.mu.Lock()
	defer m.mu.Unlock()
	if n <= len(m.requests) { // not after Reset
		m.requests[n-1].Status = a.status
	}
	return a
}

// readBody reads the body of a request, at most limit bytes of it if that is
// not negative.
func (m *Memory) readBody(n int, r *http.Request, limit int64) ([]byte, error) {
	if r.Body == nil {
		return nil, nil
	}
	var from io.Reader = r.Body
	if limit >= 0 {
		from = io.LimitReader(from, limit)
	}
	body, err := io.ReadAll(from)
	_ = r.Body.Close() // what counts was read
	m.mu.Lock()
	defer m.mu.Unlock()
	if n <= len(m.requests) {
		m.requests[n-1].Bytes = int64(len(body))
	}
	return body, err
}

// carryOut does what a request asks for.
func (m *Memory) carryOut(n int, r *http.Request, body []byte) *answer {
	m.mu.Lock()
	a, done := m.route(n, r, body)
	after := m.after
	m.mu.Unlock()
	if after != nil {
		for _, mutation := range done {
			after(mutation)
		}
	}
	a.head = r.Method == http.MethodHead
	return a
}

// route finds the handler. It returns what changed.
func (m *Memory) route(n int, r *http.Request, body []byte) (*answer, []Mutation) {
	before := len(m.history)
	host := r.Host
	if host == "" {
		host = r.URL.Host
	}
	var a *answer
	switch {
	case strings.HasSuffix(m.elsewhere, "//"+host):
		a = m.other(n, r)
	case r.URL.Path == "/token":
		a = m.giveToken(r)
	case !strings.HasPrefix(r.URL.Path, "/v2/"):
		a = &answer{status: http.StatusNotFound, header: http.Header{}}
	default:
		if a = m.authorize(r); a == nil {
			q := &request{n: n, r: r, body: body}
			a = m.distribution(q)
		}
		a.header.Set("Docker-Distribution-Api-Version", "registry/2.0")
	}
	return a, append([]Mutation{}, m.history[before:]...)
}

// A request is one of the distribution specification.
type request struct {
	n    int
	r    *http.Request
	body []byte
	name string // of the repository
	rest string // what follows the kind
}

// distribution answers below /v2/.
func (m *Memory) distribution(q *request) *answer {
	path := strings.TrimPrefix(q.r.URL.Path, "/v2/")
	if path == "" {
		return ok(http.StatusOK, []byte("{}")).with("Content-Type", "application/json")
	}
	for _, kind := range []string{"/blobs/uploads/", "/blobs/", "/manifests/", "/referrers/", "/tags/list"} {
		i := strings.LastIndex(path, kind)
		if i < 0 {
			continue
		}
		q.name, q.rest = path[:i], path[i+len(kind):]
		if !validName(q.name) {
			return fault(http.StatusBadRequest, "NAME_INVALID", "invalid repository name")
		}
		switch kind {
		case "/blobs/uploads/":
			return m.upload(q)
		case "/blobs/":
			return m.blob(q)
		case "/manifests/":
			return m.manifest(q)
		case "/tags/list":
			return m.tags(q)
		case "/referrers/":
			if m.opts.Referrers {
				return m.referrers(q)
			}
		}
	}
	return &answer{status: http.StatusNotFound, header: http.Header{"Content-Type": {"text/plain; charset=utf-8"}}, body: []byte("404 page not found\n")}
}

func (m *Memory) repo(name string) *repo {
	if m.repos[name] == nil {
		m.repos[name] = &repo{blobs: map[digest.Digest][]byte{}, manifests: map[digest.Digest]manifest{}, tags: map[string]digest.Digest{}, uploads: map[string][]byte{}}
	}
	return m.repos[name]
}

// validName tells whether s is a repository name (distribution-spec, "Pulling
// manifests").
func validName(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789._-") != "" || strings.Trim(part[:1]+part[len(part)-1:], "._-") == "" && len(part) == 1 ||
			strings.ContainsAny(part[:1], "._-") || strings.ContainsAny(part[len(part)-1:], "._-") {
			return false
		}
	}
	return true
}

// An answer is what the registry says, and how much of it arrives.
type answer struct {
	status int
	header http.Header
	body   []byte
	head   bool

	drop    bool // no answer at all
	cut     int  // bytes of the body after which the connection ends; -1 for none
	partial bool
}

func ok(status int, body []byte) *answer {
	return &answer{status: status, header: http.Header{}, body: body}
}

func (a *answer) with(key, value string) *answer {
	a.header.Set(key, value)
	return a
}

// fault is an error in the form of the distribution specification.
func fault(status int, code, message string) *answer {
	type item struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	body, err := json.Marshal(map[string][]item{"errors": {{code, message}}})
	if err != nil {
		panic(err) // strings only
	}
	return ok(status, body).with("Content-Type", "application/json")
}

// Requests returns what came since the start or the last Reset.
func (m *Memory) Requests() []Request {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Request{}, m.requests...)
}

// Count returns the number of requests with method, or of all if it is empty,
// whose path contains part.
func (m *Memory) Count(method, part string) int {
	n := 0
	for _, req := range m.Requests() {
		if (method == "" || req.Method == method) && strings.Contains(req.Path, part) {
			n++
		}
	}
	return n
}

// Reset forgets requests and faults, but neither content nor history. Do not
// call it while requests are at work.
func (m *Memory) Reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests, m.inject, m.leaks = nil, nil, nil
	for _, r := range m.repos {
		r.moves = nil
	}
}

// location returns where a client finds path.
func location(path string, query url.Values) string {
	u := url.URL{Path: path, RawQuery: query.Encode()}
	return u.String()
}
