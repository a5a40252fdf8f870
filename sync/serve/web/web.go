// Package web shows what is in layouts to people: pages of a server, and the
// same pages as single files.
//
// # Pages
//
// A [Handler] serves a list of repositories, and for each an overview, a page for
// each index and manifest, the list of files of a layer, downloads, and what
// differs between two of them. Pages are made on the server; they work without
// scripts, and ask no other host for anything. [WriteReport] and [WriteDiff]
// write files that need no server and no network.
//
// # What is hostile
//
// All that comes out of a layout: it is escaped for HTML, and characters that
// could turn around, hide or forge text are shown as escapes (package show).
// Behind that stands a Content-Security-Policy that allows this package's own
// stylesheet and script, and nothing else. A download is an attachment of no
// type that a browser would show, and its bytes are verified.
//
// # What it costs
//
// All documents of a source are read once for each state of its index.json; a
// request for a page whose state is known reads nothing but index.json, or not
// even that where [Repository].Version tells the state.
package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/consumer"
	"github.com/gardenlinux/gloci-layout/layout/lint"
)

// A Repository is a source under a name.
type Repository struct {
	Name   string // in addresses of pages: unique, and no component of it is "-"
	Pull   string // what clients call it; "" is Name
	Source layout.Source
	// Version changes whenever what Source has does. "" means that index.json
	// tells: it is read for each request.
	Version string
	// Release is called when a request no longer needs Source. Nil is none.
	Release func()
}

// A Flavor is what the name of an artifact says.
type Flavor struct {
	Name     string // without architecture and version
	Arch     string
	Version  string
	Features []string
}

// Knowledge is what this package is told about content. The zero value knows
// nothing of flavors, finds nothing and asks nobody.
type Knowledge struct {
	// Flavor names an artifact; false for what has no such name. doc is nil where
	// only the entry is known.
	Flavor    func(desc ocispec.Descriptor, doc *layout.Document) (Flavor, bool)
	Rules     []lint.Rule         // whose findings are shown
	Consumers []consumer.Consumer // whose answers are shown
}

func (k *Knowledge) flavor(desc ocispec.Descriptor, doc *layout.Document) (Flavor, bool) {
	if k.Flavor == nil {
		return Flavor{}, false
	}
	return k.Flavor(desc, doc)
}

// key names an entry whatever its version; "" if it has no such name.
func (k *Knowledge) key(desc ocispec.Descriptor) string {
	f, ok := k.flavor(desc, nil)
	if !ok || f.Arch == "" {
		return ""
	}
	return f.Name + "-" + f.Arch
}

// Options are those of a [Handler].
type Options struct {
	Knowledge
	// Repositories returns what is served now. It is called once a request, with
	// the context of that, and Release of each when that ends.
	Repositories func(ctx context.Context) []Repository
	Logger       *slog.Logger // of errors; nil discards
}

// A Handler serves the pages at "/", "/r/" and "/-/". It reads only.
type Handler struct {
	opts  Options
	cache cache
	heavy chan struct{} // those who read layers
}

const (
	maxHeavy     = 4                // requests that read layers at once
	heavyWait    = 10 * time.Second // for one of them to end
	heavyTimeout = 2 * time.Minute  // of one of them
)

// New returns a handler.
func New(opts Options) *Handler {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return &Handler{opts: opts, heavy: make(chan struct{}, maxHeavy)}
}

const policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// A request is one request and what it is about.
type request struct {
	h     *Handler
	w     http.ResponseWriter
	r     *http.Request
	repos []Repository
	repo  Repository
	snap  *snapshot
}

// A httpError is an answer that is no page.
type httpError struct {
	status int
	msg    string
}

func (e *httpError) Error() string { return e.msg }

func notFound(format string, args ...any) error {
	return &httpError{http.StatusNotFound, fmt.Sprintf(format, args...)}
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	for _, kv := range [][2]string{
		{"Content-Security-Policy", policy},
		{"X-Content-Type-Options", "nosniff"},
		{"X-Frame-Options", "DENY"},
		{"Referrer-Policy", "no-referrer"},
		{"Cross-Origin-Opener-Policy", "same-origin"},
		{"Cross-Origin-Resource-Policy", "same-origin"},
	} {
		header.Set(kv[0], kv[1])
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD: this is for reading", http.StatusMethodNotAllowed)
		return
	}
	if name, ok := strings.CutPrefix(r.URL.Path, "/-/"); ok {
		serveAsset(w, r, name)
		return
	}
	x := &request{h: h, w: w, r: r, repos: h.opts.Repositories(r.Context())}
	defer func() {
		for _, repo := range x.repos {
			if repo.Release != nil {
				repo.Release()
			}
		}
	}()
	if err := x.serve(); err != nil {
		x.fail(err)
	}
}

func (x *request) serve() error {
	p := x.r.URL.Path
	if p == "/" {
		if len(x.repos) != 1 {
			return x.home()
		}
		http.Redirect(x.w, x.r, "/r/"+x.repos[0].Name, http.StatusFound) // the names may be others soon
		return nil
	}
	rest, ok := strings.CutPrefix(p, "/r/")
	if !ok {
		return notFound("there is no page %s", p)
	}
	name, what, inner := strings.Cut(rest, "/-/")
	for _, repo := range x.repos {
		if repo.Name == strings.TrimSuffix(name, "/") {
			x.repo = repo
		}
	}
	if x.repo.Source == nil {
		return notFound("there is no repository %s", name)
	}
	var err error
	if x.snap, err = x.snapshot(x.repo); err != nil {
		return err
	}
	if !inner {
		return x.overview()
	}
	kind, rest, _ := strings.Cut(what, "/")
	switch kind {
	case "m":
		return x.manifest(rest)
	case "files":
		return x.files(rest)
	case "get":
		return x.download(rest)
	case "diff":
		return x.diff()
	}
	return notFound("there is no page %s", p)
}

// fail answers with an error, unless the answer has begun.
func (x *request) fail(err error) {
	if x.r.Context().Err() != nil {
		return // nobody listens
	}
	var known *httpError
	status, head := http.StatusInternalServerError, "This cannot be shown"
	switch {
	case errors.As(err, &known):
		status = known.status
		if status == http.StatusNotFound {
			head = "Not found"
		}
	case errors.Is(err, layout.ErrNotFound):
		status, head = http.StatusNotFound, "Not found"
	case errors.Is(err, context.DeadlineExceeded):
		status, head = http.StatusServiceUnavailable, "This takes too long"
	}
	if status >= http.StatusInternalServerError {
		x.h.opts.Logger.Error("page", "path", x.r.URL.Path, "error", err.Error())
	}
	if status == http.StatusServiceUnavailable {
		x.w.Header().Set("Retry-After", "10")
	}
	v := errorView{frame: x.frame(head), Message: err.Error()}
	var b bytes.Buffer
	if err := templates().ExecuteTemplate(&b, "error", v); err != nil {
		http.Error(x.w, "error", http.StatusInternalServerError)
		return
	}
	x.w.Header().Del("ETag")
	x.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	x.w.Header().Set("Cache-Control", "no-store")
	x.w.WriteHeader(status)
	if x.r.Method != http.MethodHead {
		_, _ = x.w.Write(b.Bytes()) // whoever hung up does not want it
	}
}

type errorView struct {
	frame
	Message string
}

// fresh sets the entity tag of a page that depends on the address, the state of
// the repositories named and this program. It is true where the browser has it.
func (x *request) fresh(states ...string) bool {
	parts := append([]string{buildID(), x.r.Host, x.r.URL.RequestURI(), strconv.FormatBool(x.r.TLS != nil)}, states...)
	for _, repo := range x.repos {
		parts = append(parts, repo.Name)
	}
	hash := sha256.Sum256([]byte(fmt.Sprintf("%q", parts)))
	tag := `"` + hex.EncodeToString(hash[:16]) + `"`
	x.w.Header().Set("ETag", tag)
	x.w.Header().Set("Cache-Control", "no-cache")
	for want := range strings.SplitSeq(x.r.Header.Get("If-None-Match"), ",") {
		if strings.TrimPrefix(strings.TrimSpace(want), "W/") == tag {
			x.w.WriteHeader(http.StatusNotModified)
			return true
		}
	}
	return false
}

// render writes a page. It is made whole before the first byte leaves.
func (x *request) render(name string, view any) error {
	var b bytes.Buffer
	if err := templates().ExecuteTemplate(&b, name, view); err != nil {
		return err
	}
	x.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	x.w.Header().Set("Content-Length", fmt.Sprint(b.Len()))
	if x.r.Method == http.MethodHead {
		return nil
	}
	_, _ = x.w.Write(b.Bytes()) // whoever hung up does not want it
	return nil
}

// reading waits for one of the few places of those who read layers.
func (x *request) reading() (ctx context.Context, done func(), err error) {
	ctx, cancel := context.WithTimeout(x.r.Context(), heavyTimeout)
	wait := time.NewTimer(heavyWait)
	defer wait.Stop()
	select {
	case x.h.heavy <- struct{}{}:
		return ctx, func() { <-x.h.heavy; cancel() }, nil
	case <-wait.C:
		cancel()
		return nil, nil, &httpError{http.StatusServiceUnavailable, "others are reading layers: try again in a moment"}
	case <-ctx.Done():
		cancel()
		return nil, nil, context.Cause(ctx)
	}
}

// A frame is what every page has.
type frame struct {
	Title   string
	Static  bool // a file, without a server
	Repo    string
	Repos   int
	Crumbs  []crumb
	links   links
	ForDiff bool // there is more than one thing to compare
}

// A crumb is a step of the way to a page; the last is the page itself.
type crumb struct{ Name, Link string }

// frame begins a page. Its title is the last step of the way to it.
func (x *request) frame(title string, way ...crumb) frame {
	f := frame{Title: title, Repo: x.repo.Name, Repos: len(x.repos), links: links{base: "/r/" + x.repo.Name}}
	if len(x.repos) > 1 && title != homeTitle {
		f.Crumbs = append(f.Crumbs, crumb{homeTitle, "/"})
	}
	if x.snap != nil {
		f.ForDiff = len(x.repos) > 1 || len(x.snap.versions()) > 1
		if title != x.repo.Name {
			f.Crumbs = append(f.Crumbs, crumb{x.repo.Name, f.links.Overview()})
		}
	}
	f.Crumbs = append(append(f.Crumbs, way...), crumb{Name: title})
	return f
}

const homeTitle = "Repositories"

// L makes links.
func (f frame) L() links { return f.links }

// links are where pages are: of a server, or places in a file.
type links struct {
	base   string
	static bool
	has    func(d string) bool // of a file: what it has a place for
}

// Overview is the page of the repository.
func (l links) Overview() string {
	if l.static {
		return "#top"
	}
	return l.base
}

// Manifest is the page of an index or manifest; "" where there is none.
func (l links) Manifest(digest string) string {
	if !l.static {
		return l.base + "/-/m/" + digest
	}
	if l.has == nil || !l.has(digest) {
		return ""
	}
	return "#" + anchor(digest)
}

// anchor names the place of a document in a file.
func anchor(digest string) string { return "m-" + strings.NewReplacer(":", "-").Replace(digest) }

// Files is the list of files of a layer, Get its download. part is its number or
// "config"; "" where there is no such page.
func (l links) Files(digest, part string) string { return l.part("files", digest, part) }

// Get is a download.
func (l links) Get(digest, part string) string { return l.part("get", digest, part) }

func (l links) part(kind, digest, part string) string {
	if l.static {
		return ""
	}
	return l.base + "/-/" + kind + "/" + path.Join(digest, part)
}

// Diff is the page that compares, with a form where a or b is "".
func (l links) Diff(a, b string) string {
	if l.static {
		return ""
	}
	q := url.Values{}
	for k, v := range map[string]string{"a": a, "b": b} {
		if v != "" {
			q.Set(k, v)
		}
	}
	if len(q) == 0 {
		return l.base + "/-/diff"
	}
	return l.base + "/-/diff?" + q.Encode()
}
