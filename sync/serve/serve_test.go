package serve_test

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/sync/serve"
)

// tarFile packs dir with the standard library, damaged blobs too.
func tarFile(t testing.TB, dir, file string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	if err := errors.Join(w.AddFS(os.DirFS(dir)), w.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// All that index.json names comes as it is stored, by GET and HEAD, whole and
// in parts; what it does not name does not come.
func TestContent(t *testing.T) {
	forms(t, func(t *testing.T, open func(t *testing.T, dir string) serve.Source) {
		dir, c := sample(t)
		s := start(t, serve.Options{Sources: []serve.Source{open(t, dir)}})
		for _, d := range c.Reachable {
			want := c.Stored[d]
			path := "/v2/garden/blobs/" + string(d)
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				got := s.do(method, path)
				body := want
				if method == http.MethodHead {
					body = ""
				}
				if got.status != 200 || got.body != body || got.err != nil {
					t.Errorf("%s %s: status %d, %d bytes, %v", method, path, got.status, len(got.body), got.err)
				}
				checkHeaders(t, got, map[string]string{
					"Docker-Content-Digest": string(d), "Etag": `"` + string(d) + `"`, "Content-Type": "application/octet-stream",
					"Content-Length": strconv.Itoa(len(want)), "X-Content-Type-Options": "nosniff", "Accept-Ranges": "bytes",
				})
			}
			if got := s.get(path, `If-None-Match: "`+string(d)+`"`); got.status != http.StatusNotModified || got.body != "" {
				t.Errorf("GET %s, If-None-Match: status %d, %d bytes", path, got.status, len(got.body))
			}
			checkRanges(t, s, path, want)
		}
		for _, desc := range []ocispec.Descriptor{c.App, c.AMD64, c.ARM64, c.Artifact, c.Attached} {
			for _, ref := range append([]string{string(desc.Digest)}, map[digest.Digest][]string{c.App.Digest: {"app"}, c.Artifact.Digest: {"1.0"}}[desc.Digest]...) {
				path := "/v2/garden/manifests/" + ref
				got := s.get(path)
				if got.status != 200 || got.body != c.Stored[desc.Digest] {
					t.Errorf("GET %s: status %d, %.80q", path, got.status, got.body)
				}
				head := s.do(http.MethodHead, path)
				if head.status != 200 || head.body != "" {
					t.Errorf("HEAD %s: status %d", path, head.status)
				}
				for _, a := range []answer{got, head} {
					checkHeaders(t, a, map[string]string{
						"Docker-Content-Digest": string(desc.Digest), "Content-Type": desc.MediaType, "Etag": `"` + string(desc.Digest) + `"`,
						"Content-Length": strconv.FormatInt(desc.Size, 10), "X-Content-Type-Options": "nosniff",
					})
				}
				if got := s.get(path, `If-None-Match: "x", W/"`+string(desc.Digest)+`"`); got.status != http.StatusNotModified {
					t.Errorf("GET %s, If-None-Match: status %d", path, got.status)
				}
			}
		}
		// The full ref name is a tag of its own repository, too.
		if got := s.get("/v2/app/manifests/1.0"); got.body != c.Stored[c.Artifact.Digest] {
			t.Errorf("GET of the full ref name: status %d", got.status)
		}
		if got := s.get("/v2/garden/blobs/" + string(c.Unreferenced.Digest)); got.status != http.StatusNotFound {
			t.Errorf("a blob that nothing names: status %d", got.status)
		}
		if got := s.get("/v2/garden/manifests/" + string(c.Layer.Digest)); got.status != http.StatusNotFound {
			t.Errorf("a layer as a manifest: status %d", got.status)
		}
	})
}

func checkHeaders(t *testing.T, got answer, want map[string]string) {
	t.Helper()
	for name, value := range want {
		if have := got.header[name]; len(have) != 1 || have[0] != value {
			t.Errorf("%s: %q, want %q", name, have, value)
		}
	}
}

func checkRanges(t *testing.T, s *server, path, want string) {
	t.Helper()
	n := len(want)
	type part struct {
		header      string
		start, stop int // of want; the same: not satisfiable; -1: the whole
	}
	parts := []part{
		{"bytes=0-", 0, n},
		{"bytes=0-0", 0, min(1, n)},
		{fmt.Sprintf("bytes=%d-", n), 0, 0},
		{fmt.Sprintf("bytes=%d-", n/2), n / 2, n},
		{fmt.Sprintf("bytes=%d-%d", n/3, n/2), n / 3, min(n/2+1, n)},
		{"bytes=-7", max(0, n-7), n},
		{"bytes=-0", 0, 0},
		{"bytes=0-99999999999999999999", 0, n},
		{"bytes=99999999999999999999-", 0, 0},
		{"bytes=0-1,3-4", -1, 0},
		{"bytes=5-2", -1, 0},
		{"bytes=-", -1, 0},
		{"bytes=+1-2", -1, 0},
		{"lines=1-2", -1, 0},
	}
	for _, p := range parts {
		got := s.get(path, "Range: "+p.header)
		switch {
		case p.start < 0:
			if got.status != 200 || got.body != want {
				t.Errorf("%s: Range %s: status %d, %d bytes, want the whole", path, p.header, got.status, len(got.body))
			}
		case p.start == p.stop:
			if got.status != http.StatusRequestedRangeNotSatisfiable || got.header.Get("Content-Range") != fmt.Sprintf("bytes */%d", n) {
				t.Errorf("%s: Range %s: status %d, %q", path, p.header, got.status, got.header.Get("Content-Range"))
			}
		default:
			if got.status != http.StatusPartialContent || got.body != want[p.start:p.stop] ||
				got.header.Get("Content-Range") != fmt.Sprintf("bytes %d-%d/%d", p.start, p.stop-1, n) {
				t.Errorf("%s: Range %s: status %d, %q, %d bytes", path, p.header, got.status, got.header.Get("Content-Range"), len(got.body))
			}
		}
	}
	if n == 0 {
		return
	}
	if got := s.get(path, "Range: bytes=0-0", `If-Range: "other"`); got.status != 200 || got.body != want {
		t.Errorf("%s: If-Range of other content: status %d", path, got.status)
	}
	etag := s.do(http.MethodHead, path).header.Get("Etag")
	if got := s.get(path, "Range: bytes=0-0", "If-Range: "+etag); got.status != http.StatusPartialContent {
		t.Errorf("%s: If-Range of this content: status %d", path, got.status)
	}
	if got := s.do(http.MethodHead, path, "Range: bytes=0-0"); got.status != 200 || got.header.Get("Content-Length") != strconv.Itoa(n) {
		t.Errorf("HEAD %s with Range: status %d, Content-Length %s", path, got.status, got.header.Get("Content-Length"))
	}
}

type errorAnswer struct {
	Errors []struct{ Code, Message string }
}

// Errors have the codes and the form of the specification.
func TestErrors(t *testing.T) {
	dir, c := sample(t)
	s := start(t, serve.Options{Sources: []serve.Source{fromPath("garden", dir)}})
	gone := digest.FromString("gone")
	for _, tt := range []struct {
		method, path string
		status       int
		code         string
	}{
		{"GET", "/v2/nobody/tags/list", 404, "NAME_UNKNOWN"},
		{"GET", "/v2/nobody/manifests/app", 404, "NAME_UNKNOWN"},
		{"GET", "/v2/Upper/manifests/app", 400, "NAME_INVALID"},
		{"GET", "/v2/a//b/manifests/app", 400, "NAME_INVALID"},
		{"GET", "/v2/" + strings.Repeat("a", 256) + "/tags/list", 400, "NAME_INVALID"},
		{"GET", "/v2/garden/manifests/nothing", 404, "MANIFEST_UNKNOWN"},
		{"GET", "/v2/garden/manifests/-", 404, "MANIFEST_UNKNOWN"},
		{"GET", "/v2/garden/manifests/" + string(gone), 404, "MANIFEST_UNKNOWN"},
		{"GET", "/v2/garden/manifests/sha256:xyz", 400, "DIGEST_INVALID"},
		{"GET", "/v2/garden/blobs/" + string(gone), 404, "BLOB_UNKNOWN"},
		{"GET", "/v2/garden/blobs/sha256:ABC", 400, "DIGEST_INVALID"},
		{"GET", "/v2/garden/blobs/sha384:" + strings.Repeat("0", 96), 400, "DIGEST_INVALID"},
		{"GET", "/v2/garden/blobs/../../../../etc/passwd", 404, "NOT_FOUND"},
		{"GET", "/v2/garden/blobs/%2e%2e%2f%2e%2e%2findex.json", 404, "NOT_FOUND"},
		{"GET", "/v2/garden/referrers/latest", 400, "DIGEST_INVALID"},
		{"GET", "/v2/garden/blobs/uploads/1", 404, "NOT_FOUND"},
		{"GET", "/v2/garden", 404, "NOT_FOUND"},
		{"GET", "/v2/blobs/x", 404, "NOT_FOUND"},
		{"GET", "/", 404, "NOT_FOUND"},
		{"GET", "/v2/garden/tags/list?n=x", 400, "PAGINATION_NUMBER_INVALID"},
		{"GET", "/v2/garden/tags/list?n=-1", 400, "PAGINATION_NUMBER_INVALID"},
		{"POST", "/v2/garden/blobs/uploads/", 405, "UNSUPPORTED"},
		{"PUT", "/v2/garden/manifests/app", 405, "UNSUPPORTED"},
		{"PATCH", "/v2/garden/blobs/uploads/1", 405, "UNSUPPORTED"},
		{"DELETE", "/v2/garden/manifests/" + string(c.App.Digest), 405, "UNSUPPORTED"},
		{"DELETE", "/v2/garden/blobs/" + string(c.Layer.Digest), 405, "UNSUPPORTED"},
		{"BREW", "/v2/", 405, "UNSUPPORTED"},
	} {
		got := s.do(tt.method, tt.path)
		var e errorAnswer
		err := json.Unmarshal([]byte(got.body), &e)
		if got.status != tt.status || err != nil || len(e.Errors) != 1 || e.Errors[0].Code != tt.code || e.Errors[0].Message == "" {
			t.Errorf("%s %.80s: status %d, %.200q, want %d %s", tt.method, tt.path, got.status, got.body, tt.status, tt.code)
		}
		if got.header.Get("Content-Type") != "application/json" || (tt.status == 405) != (got.header.Get("Allow") == "GET, HEAD") {
			t.Errorf("%s %.80s: headers %v", tt.method, tt.path, got.header)
		}
		if strings.HasPrefix(tt.path, "/v2/") != (got.header.Get("Docker-Distribution-Api-Version") == "registry/2.0") {
			t.Errorf("%s %.80s: headers %v", tt.method, tt.path, got.header)
		}
	}
	for _, path := range []string{"/v2", "/v2/"} {
		if got := s.get(path); got.status != 200 || got.body != "{}" || got.header.Get("Docker-Distribution-Api-Version") != "registry/2.0" {
			t.Errorf("GET %s: %d %q %v", path, got.status, got.body, got.header)
		}
	}
}

// Lists come whole, or in pages that lead from one to the next.
func TestLists(t *testing.T) {
	dir, c := sample(t)
	l, err := layout.Open(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	want := []string{"1.0", "app"}
	err = l.Update(t.Context(), func(tx *layout.Tx) error {
		for i := range 23 {
			tag := fmt.Sprintf("v%d", i)
			tx.SetRef(tag, c.AMD64)
			want = append(want, tag)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	s := start(t, serve.Options{Sources: []serve.Source{fromPath("garden", dir), fromPath("again/garden", dir)}})
	type list struct {
		Name               string
		Tags, Repositories []string
	}
	read := func(path string) (l list, next string) {
		t.Helper()
		got := s.get(path)
		if err := json.Unmarshal([]byte(got.body), &l); err != nil || got.status != 200 || got.header.Get("Content-Type") != "application/json" {
			t.Fatalf("GET %s: %d %q", path, got.status, got.body)
		}
		link := got.header.Get("Link")
		next, _, _ = strings.Cut(strings.TrimPrefix(link, "<"), ">")
		if link != "" && link != "<"+next+`>; rel="next"` {
			t.Errorf("Link: %s", link)
		}
		return l, next
	}
	all, next := read("/v2/garden/tags/list")
	if diff := cmp.Diff(want, all.Tags); diff != "" || next != "" || all.Name != "garden" {
		t.Errorf("tags of %s, next %q (-want +got):\n%s", all.Name, next, diff)
	}
	for _, n := range []int{1, 7, 25, 26} {
		var paged []string
		pages := 0
		for path := fmt.Sprintf("/v2/again/garden/tags/list?n=%d", n); path != ""; pages++ {
			var l list
			l, path = read(path)
			paged = append(paged, l.Tags...)
			if len(l.Tags) > n || pages > 30 {
				t.Fatalf("n=%d: %d tags in page %d", n, len(l.Tags), pages)
			}
		}
		if diff := cmp.Diff(want, paged); diff != "" || pages != (len(want)+n-1)/n {
			t.Errorf("n=%d, %d pages (-want +got):\n%s", n, pages, diff)
		}
	}
	if got := s.get("/v2/garden/tags/list?n=0"); got.body != `{"name":"garden","tags":[]}` || got.header.Get("Link") != "" {
		t.Errorf("n=0: %q, Link %q", got.body, got.header.Get("Link"))
	}
	if l, _ := read("/v2/garden/tags/list?last=v19a&n=2"); !slices.Equal(l.Tags, []string{"v2", "v20"}) {
		t.Errorf("last that is no tag: %q", l.Tags)
	}
	if got := s.get("/v2/garden/tags/list?last=zzz"); got.body != `{"name":"garden","tags":[]}` {
		t.Errorf("last behind all: %q", got.body)
	}
	if l, next := read("/v2/_catalog?n=2"); !slices.Equal(l.Repositories, []string{"again/garden", "app"}) || next == "" {
		t.Errorf("catalog: %q, next %q", l.Repositories, next)
	}
}

// Referrers are listed by their subject, filtered if asked for.
func TestReferrers(t *testing.T) {
	dir, c := sample(t)
	s := start(t, serve.Options{Sources: []serve.Source{fromPath("garden", dir)}})
	read := func(path string) (ocispec.Index, http.Header) {
		t.Helper()
		got := s.get(path)
		var x ocispec.Index
		if err := json.Unmarshal([]byte(got.body), &x); err != nil || got.status != 200 || x.SchemaVersion != 2 || x.Manifests == nil ||
			got.header.Get("Content-Type") != ocispec.MediaTypeImageIndex || x.MediaType != ocispec.MediaTypeImageIndex {
			t.Fatalf("GET %s: %d %q", path, got.status, got.body)
		}
		return x, got.header
	}
	path := "/v2/garden/referrers/" + string(c.Artifact.Digest)
	for query, want := range map[string]int{"": 1, "?artifactType=application/x.note": 1, "?artifactType=application/x.other": 0} {
		x, h := read(path + query)
		if len(x.Manifests) != want || (h.Get("OCI-Filters-Applied") == "artifactType") != (query != "") {
			t.Errorf("%s: %d referrers, OCI-Filters-Applied %q", query, len(x.Manifests), h.Get("OCI-Filters-Applied"))
		}
		for _, desc := range x.Manifests {
			if desc.Digest != c.Attached.Digest || desc.Size != c.Attached.Size || desc.MediaType != c.Attached.MediaType || desc.ArtifactType != "application/x.note" {
				t.Errorf("%s: %+v", query, desc)
			}
		}
	}
	for _, d := range []digest.Digest{c.App.Digest, digest.FromString("nothing"), c.Long.Digest} {
		if x, _ := read("/v2/garden/referrers/" + string(d)); len(x.Manifests) != 0 {
			t.Errorf("referrers of %s: %v", d, x.Manifests)
		}
	}
}

// A long list of referrers comes in pages.
func TestReferrersInPages(t *testing.T) {
	dir, c := sample(t)
	l, err := layout.Open(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const many = 40
	err = l.Update(t.Context(), func(tx *layout.Tx) error {
		for i := range many {
			raw := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/x.c","digest":%q,"size":%d},"layers":[],`+
				`"subject":{"mediaType":%q,"digest":%q,"size":%d},"annotations":{"n":"%d","long":%q}}`, ocispec.MediaTypeImageManifest,
				c.Config.Digest, c.Config.Size, c.App.MediaType, c.App.Digest, c.App.Size, i, strings.Repeat("x", 60_000))
			desc, err := tx.PutDocument([]byte(raw), ocispec.MediaTypeImageManifest)
			if err != nil {
				return err
			}
			tx.Index().Add(desc)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, serve.Options{Sources: []serve.Source{fromPath("garden", dir)}})
	seen := map[digest.Digest]bool{}
	pages := 0
	for path := "/v2/garden/referrers/" + string(c.App.Digest) + "?artifactType=application/x.c"; path != ""; pages++ {
		got := s.get(path)
		var x ocispec.Index
		if err := json.Unmarshal([]byte(got.body), &x); err != nil || got.header.Get("OCI-Filters-Applied") != "artifactType" || len(got.body) > layout.MaxDocument {
			t.Fatalf("GET %s: %d, %d bytes, %v", path, got.status, len(got.body), err)
		}
		for _, desc := range x.Manifests {
			if seen[desc.Digest] || desc.Annotations["long"] == "" || desc.ArtifactType != "application/x.c" {
				t.Errorf("%s: again, or without what it needs", desc.Digest)
			}
			seen[desc.Digest] = true
		}
		path, _, _ = strings.Cut(strings.TrimPrefix(got.header.Get("Link"), "<"), ">")
	}
	if len(seen) != many || pages < 2 || pages > many {
		t.Errorf("%d referrers in %d pages, want %d in a few", len(seen), pages, many)
	}
}

// What cannot be served, or not without a doubt, is an error that says why.
func TestNewRefuses(t *testing.T) {
	dir, c := sample(t)
	other, _ := sample(t)
	for name, tt := range map[string]struct {
		damage func(dir string)
		opts   func(dir string) serve.Options
		want   error
	}{
		"a missing layer":    {func(dir string) { os.Remove(blobFile(dir, c.Layer.Digest)) }, nil, layout.ErrNotFound},
		"a missing manifest": {func(dir string) { os.Remove(blobFile(dir, c.ARM64.Digest)) }, nil, layout.ErrNotFound},
		"a short layer":      {func(dir string) { writeFile(t, blobFile(dir, c.Large.Digest), "short") }, nil, layout.ErrMismatch},
		"a damaged manifest": {func(dir string) { flip(t, blobFile(dir, c.AMD64.Digest)) }, nil, layout.ErrMismatch},
		"index.json":         {func(dir string) { writeFile(t, filepath.Join(dir, "index.json"), "{") }, nil, layout.ErrInvalid},
		"a bad name":         {nil, func(dir string) serve.Options { return serve.Options{Sources: []serve.Source{fromPath("Garden", dir)}} }, layout.ErrInvalid},
		"one tag, two things": {func(dir string) { retag(t, dir, c.Artifact, "app") }, func(dir string) serve.Options {
			return serve.Options{Sources: []serve.Source{fromPath("x", other), fromPath("x", dir)}}
		}, layout.ErrConflict},
		"an unknown ref name": {nil, func(dir string) serve.Options {
			s := fromPath("x", dir)
			s.RefName = "no"
			return serve.Options{Sources: []serve.Source{s}}
		}, layout.ErrNotFound},
		"nothing at that path": {func(dir string) { os.RemoveAll(dir) }, nil, layout.ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			dir := copyDir(t, dir)
			opts := serve.Options{Sources: []serve.Source{fromPath("garden", dir)}}
			if tt.opts != nil {
				opts = tt.opts(dir)
			}
			if tt.damage != nil {
				tt.damage(dir)
			}
			s, err := serve.New(context.Background(), opts)
			if !errors.Is(err, tt.want) {
				t.Errorf("New: %v, want %v", err, tt.want)
			}
			if err == nil {
				s.Close()
			}
		})
	}
}

// flip changes one byte of a file.
func flip(t testing.TB, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	writeFile(t, file, string(b))
}

func retag(t testing.TB, dir string, desc ocispec.Descriptor, refName string) {
	t.Helper()
	l, err := layout.Open(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Update(t.Context(), func(tx *layout.Tx) error { tx.SetRef(refName, desc); return nil }); err != nil {
		t.Fatal(err)
	}
}

func copyDir(t testing.TB, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// With Sparse, what is not there is 404 and the rest is served. Layers with URLs
// need not be there in any case.
func TestSparse(t *testing.T) {
	dir, c := sample(t)
	for _, d := range []digest.Digest{c.ARM64.Digest, c.Large.Digest} {
		if err := os.Remove(blobFile(dir, d)); err != nil {
			t.Fatal(err)
		}
	}
	s := start(t, serve.Options{Sources: []serve.Source{fromPath("garden", dir)}, Sparse: true})
	for path, want := range map[string]int{
		"manifests/app": 200, "manifests/" + string(c.ARM64.Digest): 404, "blobs/" + string(c.Large.Digest): 404,
		"manifests/" + string(c.AMD64.Digest): 200, "blobs/" + string(c.Layer.Digest): 200,
	} {
		if got := s.get("/v2/garden/" + path); got.status != want {
			t.Errorf("GET %s: status %d, want %d", path, got.status, want)
		}
	}
}

// Layers with URLs may be absent: nobody fetches them. Content that is only
// embedded in its descriptor is served.
func TestForeignAndEmbedded(t *testing.T) {
	dir, c := sample(t)
	far, near := "far away", "embedded"
	l, err := layout.Open(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	raw, err := layout.EncodeManifest(ocispec.Manifest{
		Config: ocispec.Descriptor{MediaType: "application/x.c", Digest: digest.FromString(near), Size: int64(len(near)), Data: []byte(near)},
		Layers: []ocispec.Descriptor{{MediaType: "application/x.f", Digest: digest.FromString(far), Size: int64(len(far)), URLs: []string{"http://127.0.0.1:1/never"}}, c.Layer},
	})
	if err != nil {
		t.Fatal(err)
	}
	err = l.Update(t.Context(), func(tx *layout.Tx) error {
		desc, err := tx.PutDocument(raw, ocispec.MediaTypeImageManifest)
		if err == nil {
			tx.SetRef("far", desc)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, serve.Options{Sources: []serve.Source{fromPath("garden", dir)}})
	if got := s.get("/v2/garden/blobs/" + string(digest.FromString(far))); got.status != 404 {
		t.Errorf("foreign layer: status %d", got.status)
	}
	path := "/v2/garden/blobs/" + string(digest.FromString(near))
	if got := s.get(path); got.status != 200 || got.body != near {
		t.Errorf("embedded: status %d, %q", got.status, got.body)
	}
	checkRanges(t, s, path, near)
}
