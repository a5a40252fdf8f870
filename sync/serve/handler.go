package serve

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/sync/serve/internal/content"
)

// A call is one request while it is answered.
type call struct {
	s     *Server
	w     http.ResponseWriter
	r     *http.Request
	held  *content.Set
	start time.Time

	route  string // for metrics: the kind of request
	status int
	bytes  int64 // of the body
	user   string
	err    error // why the answer is no better, for the log
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{s: s, w: w, r: r, start: now(), route: "other"}
	c.held = s.content.Acquire()
	s.metrics.inFlight.Add(1)
	defer func() {
		s.metrics.inFlight.Add(-1)
		if c.held != nil {
			s.content.Release(c.held)
		}
		broken := recover()
		c.done(broken)
		if broken != nil {
			panic(broken) // net/http breaks the connection
		}
	}()
	c.answer()
}

func (c *call) answer() {
	path := c.r.URL.Path
	if path == "/healthz" {
		c.route = "healthz"
		c.health()
		return
	}
	if c.s.opts.Users != nil && !c.login() {
		return
	}
	isRegistry := path == "/v2" || strings.HasPrefix(path, "/v2/")
	if isRegistry {
		c.w.Header()["Docker-Distribution-Api-Version"] = apiVersion
	}
	switch {
	case c.r.Method != http.MethodGet && c.r.Method != http.MethodHead:
		c.w.Header().Set("Allow", "GET, HEAD")
		c.fail(http.StatusMethodNotAllowed, "UNSUPPORTED", "this registry is read-only", nil)
	case c.held == nil:
		c.fail(http.StatusServiceUnavailable, "UNAVAILABLE", "the server ends", nil)
	case isRegistry:
		c.registry(path)
	case path == "/metrics":
		c.route = "metrics"
		c.showMetrics()
	case c.s.opts.Page != nil:
		c.route = "page"
		c.page()
	default:
		c.fail(http.StatusNotFound, "NOT_FOUND", "there is nothing at this path; the registry is at /v2/", nil)
	}
}

var (
	apiVersion = []string{"registry/2.0"}
	noSniff    = []string{"nosniff"}
	typeJSON   = []string{"application/json"}
	typeBlob   = []string{content.TypeBytes}
	inBytes    = []string{"bytes"}
)

// A route is what the path of a request to the registry asks for.
type route struct {
	kind      string // "ping", "catalog", "tags", "manifests", "blobs", "referrers" or "" for nothing known
	name      string // of the repository, unchecked
	reference string // a tag or a digest, unchecked
}

// parseRoute reads a path that begins with /v2 (distribution-spec,
// "Endpoints").
func parseRoute(path string) route {
	rest := strings.TrimPrefix(strings.TrimPrefix(path, "/v2"), "/")
	switch rest {
	case "":
		return route{kind: "ping"}
	case "_catalog":
		return route{kind: "catalog"}
	}
	before, last, ok := cutLast(rest)
	if !ok {
		return route{}
	}
	name, kind, ok := cutLast(before)
	switch {
	case !ok || name == "":
	case kind == "manifests" || kind == "blobs" || kind == "referrers":
		return route{kind: kind, name: name, reference: last}
	case kind == "tags" && last == "list":
		return route{kind: "tags", name: name}
	}
	return route{}
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return "", s, false
	}
	return s[:i], s[i+1:], true
}

func (c *call) registry(path string) {
	to := parseRoute(path)
	if to.kind != "" {
		c.route = to.kind
	}
	switch to.kind {
	case "":
		c.fail(http.StatusNotFound, "NOT_FOUND", "there is nothing at this path", nil)
		return
	case "ping":
		c.json(struct{}{})
		return
	case "catalog":
		c.catalog()
		return
	}
	rep := c.held.Repos[to.name]
	if rep == nil {
		if !content.IsName(to.name) {
			c.fail(http.StatusBadRequest, "NAME_INVALID", "invalid repository name", map[string]string{"name": to.name})
			return
		}
		c.fail(http.StatusNotFound, "NAME_UNKNOWN", "repository name not known to registry", map[string]string{"name": to.name})
		return
	}
	switch to.kind {
	case "tags":
		c.tags(rep)
	case "manifests":
		c.manifest(rep, to.reference)
	case "blobs":
		c.blob(rep, to.reference)
	case "referrers":
		c.referrers(rep, to.reference)
	}
}

// digest reads a digest, or answers why it cannot.
func (c *call) digest(s string) (digest.Digest, bool) {
	d, err := layout.ParseDigest(s)
	if err != nil {
		c.fail(http.StatusBadRequest, "DIGEST_INVALID", "want sha256: or sha512: and lower-case hexadecimal digits", map[string]string{"digest": s})
	}
	return d, err == nil
}

func (c *call) manifest(rep *content.Repo, reference string) {
	doc := rep.Tags[reference]
	if doc == nil && strings.IndexByte(reference, ':') >= 0 {
		d, ok := c.digest(reference)
		if !ok {
			return
		}
		doc = c.held.Document(rep, d, c.start)
	}
	if doc == nil {
		c.fail(http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown to registry", map[string]string{"name": rep.Name, "reference": reference})
		return
	}
	h := c.w.Header()
	h["Docker-Content-Digest"] = doc.ContentDigest
	h["Etag"] = doc.ETag
	if c.notModified(doc.ETag[0]) {
		return
	}
	var raw []byte
	if c.r.Method != http.MethodHead {
		var err error
		if raw, err = doc.Read(c.r.Context()); err != nil {
			c.broken(doc.Digest, err)
			return
		}
	}
	h["Content-Type"] = doc.ContentType
	h["Content-Length"] = doc.ContentLength
	h["X-Content-Type-Options"] = noSniff
	c.send(http.StatusOK, raw)
}

// notModified answers 304 if the client has the thing already.
func (c *call) notModified(etag string) bool {
	for _, header := range c.r.Header["If-None-Match"] {
		for have := range strings.SplitSeq(header, ",") {
			have = strings.TrimPrefix(strings.TrimSpace(have), "W/")
			if have == etag || have == "*" {
				c.send(http.StatusNotModified, nil)
				return true
			}
		}
	}
	return false
}

// send writes a header and, unless the method is HEAD, a body.
func (c *call) send(status int, body []byte) {
	c.status = status
	c.w.WriteHeader(status)
	if c.r.Method == http.MethodHead || len(body) == 0 {
		return
	}
	n, err := c.w.Write(body)
	c.bytes += int64(n)
	c.err = err
}

func (c *call) json(v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		c.fail(http.StatusInternalServerError, "UNKNOWN", "internal error", nil)
		c.err = err
		return
	}
	h := c.w.Header()
	if h["Content-Type"] == nil {
		h["Content-Type"] = typeJSON
	}
	h["X-Content-Type-Options"] = noSniff
	h.Set("Content-Length", strconv.Itoa(len(raw)))
	c.send(http.StatusOK, raw)
}

// An errorBody is distribution-spec's "Error Codes".
type errorBody struct {
	Errors []errorDetail `json:"errors"`
}

type errorDetail struct {
	Code    string            `json:"code"`
	Message string            `json:"message"`
	Detail  map[string]string `json:"detail,omitempty"`
}

// maxDetail is how much of a request an answer repeats, in bytes.
const maxDetail = 512

func (c *call) fail(status int, code, message string, detail map[string]string) {
	for k, v := range detail {
		detail[k] = strings.ToValidUTF8(v[:min(len(v), maxDetail)], "\uFFFD")
	}
	raw, _ := json.Marshal(errorBody{[]errorDetail{{code, message, detail}}}) // strings only: it cannot fail
	h := c.w.Header()
	for _, name := range []string{"Docker-Content-Digest", "Etag", "Accept-Ranges"} {
		delete(h, name) // they spoke of what is not sent
	}
	h["Content-Type"] = typeJSON
	h["X-Content-Type-Options"] = noSniff
	h.Set("Content-Length", strconv.Itoa(len(raw)))
	c.send(status, raw)
}

func (c *call) health() {
	c.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if c.held == nil {
		c.send(http.StatusServiceUnavailable, []byte("the server ends\n"))
		return
	}
	c.send(http.StatusOK, []byte("ok\n"))
}
