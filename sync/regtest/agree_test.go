package regtest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// A caller asks one registry. It keeps the place of the upload that is open.
type caller struct {
	t      *testing.T
	base   string
	upload string
}

// An outcome is what a client could see of an answer, with what differs
// between registries by right taken out.
type outcome struct {
	Status  int
	Headers map[string]string
	Codes   []string // of errors
	Body    string   // of all else
}

// the headers that clients look at
var headersThatMatter = []string{
	"Content-Type", "Content-Length", "Docker-Content-Digest", "Docker-Distribution-Api-Version", "Etag", "Range", "Content-Range", "Accept-Ranges",
	"OCI-Subject", "OCI-Filters-Applied",
}

var uploadPath = regexp.MustCompile(`/uploads/[^?]*`)

// call sends a request; "UPLOAD" in path stands for where the open upload is.
func (c *caller) call(method, path string, body []byte, header ...string) outcome {
	c.t.Helper()
	target := c.base + path
	if rest, found := strings.CutPrefix(path, "UPLOAD"); found {
		u, err := url.Parse(c.upload)
		if err != nil {
			c.t.Fatal(err)
		}
		extra, err := url.ParseQuery(strings.TrimPrefix(rest, "?"))
		if err != nil {
			c.t.Fatal(err)
		}
		query := u.Query()
		for key, values := range extra {
			query[key] = values
		}
		u.RawQuery = query.Encode()
		target = u.String()
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, target, bytes.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	o := outcome{Status: resp.StatusCode, Headers: map[string]string{}}
	for _, name := range headersThatMatter {
		if value := resp.Header.Get(name); value != "" {
			o.Headers[name] = value
		}
	}
	if at := resp.Header.Get("Location"); at != "" {
		u, err := resp.Request.URL.Parse(at)
		if err != nil {
			c.t.Fatal(err)
		}
		if strings.Contains(u.Path, "/uploads/") {
			c.upload = u.String()
		}
		o.Headers["Location"] = uploadPath.ReplaceAllString(u.Path, "/uploads/ID")
	}
	if link := resp.Header.Get("Link"); link != "" {
		target, rel, _ := strings.Cut(strings.TrimPrefix(link, "<"), ">")
		u, err := url.Parse(target)
		if err != nil {
			c.t.Fatal(err)
		}
		o.Headers["Link"] = u.Path + " " + u.Query().Encode() + rel
	}
	var list struct {
		Errors []struct{ Code string }
	}
	if json.Unmarshal(raw, &list) == nil && len(list.Errors) > 0 {
		for _, e := range list.Errors {
			if len(o.Codes) == 0 || o.Codes[len(o.Codes)-1] != e.Code { // one for each blob that is missing
				o.Codes = append(o.Codes, e.Code)
			}
		}
		delete(o.Headers, "Content-Length") // its messages are its own
		return o
	}
	o.Body = string(raw)
	if o.Status >= 400 && o.Status != http.StatusRequestedRangeNotSatisfiable {
		delete(o.Headers, "Content-Length")
		o.Body = strings.TrimSpace(o.Body)
	}
	return o
}

// A manifest of one layer, and what it needs.
type content struct {
	layer, config, manifest, index []byte
}

func sample(s string) content {
	c := content{layer: []byte("layer " + s), config: []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"x":"` + s + `"}`)}
	c.manifest = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`,
		digest.FromBytes(c.config), len(c.config), digest.FromBytes(c.layer), len(c.layer))
	c.index = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":%d}]}`,
		digest.FromBytes(c.manifest), len(c.manifest))
	return c
}

// TestAgree runs the same calls against the reference registry and the one in
// memory: status, headers that matter, and bodies are the same. It is what keeps
// the one in memory honest.
func TestAgree(t *testing.T) {
	real := regtest.Start(t, &regtest.Options{Delete: true})
	memory := regtest.NewMemory(&regtest.MemoryOptions{Delete: true})
	callers := []*caller{{t: t, base: real.URL()}, {t: t, base: "http://" + memory.Serve(t)}}
	number := 0
	both := func(method, path string, body []byte, header ...string) outcome {
		t.Helper()
		number++
		want, got := callers[0].call(method, path, body, header...), callers[1].call(method, path, body, header...)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("call %d: %s %s %v (-reference +memory):\n%s", number, method, path, header, diff)
		}
		return want
	}
	const image, index = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
	a, b := sample("a"), sample("b")
	d := func(data []byte) string { return string(digest.FromBytes(data)) }
	absent := d([]byte("absent"))

	both("GET", "/v2/", nil)
	both("GET", "/v2/x/tags/list", nil)
	both("HEAD", "/v2/x/blobs/"+absent, nil)
	both("GET", "/v2/x/blobs/"+absent, nil)
	both("GET", "/v2/x/manifests/"+absent, nil, "Accept", image)
	both("HEAD", "/v2/x/manifests/v1", nil, "Accept", image)
	both("GET", "/v2/x/manifests/v1", nil, "Accept", image)
	both("GET", "/v2/x/referrers/"+absent, nil)

	// uploads: in one piece, in pieces, at the wrong place, with the wrong digest
	both("POST", "/v2/x/blobs/uploads/", nil)
	both("PUT", "UPLOAD?digest="+d(a.layer), a.layer, "Content-Type", "application/octet-stream")
	both("HEAD", "/v2/x/blobs/"+d(a.layer), nil)
	both("GET", "/v2/x/blobs/"+d(a.layer), nil)
	both("GET", "/v2/x/blobs/"+d(a.layer), nil, "Range", "bytes=2-")
	both("GET", "/v2/x/blobs/"+d(a.layer), nil, "Range", "bytes=2-4")
	both("GET", "/v2/x/blobs/"+d(a.layer), nil, "Range", "bytes=100-")
	both("POST", "/v2/x/blobs/uploads/", nil)
	both("PATCH", "UPLOAD", a.config[:5], "Content-Type", "application/octet-stream")
	both("PATCH", "UPLOAD", a.config[9:], "Content-Type", "application/octet-stream", "Content-Range", fmt.Sprintf("9-%d", len(a.config)-1))
	both("GET", "UPLOAD", nil)
	both("PATCH", "UPLOAD", a.config[5:], "Content-Type", "application/octet-stream", "Content-Range", fmt.Sprintf("5-%d", len(a.config)-1))
	both("PUT", "UPLOAD?digest="+d(a.config), nil)
	both("GET", "/v2/x/blobs/"+d(a.config), nil)
	both("POST", "/v2/x/blobs/uploads/", nil)
	both("PUT", "UPLOAD?digest="+d(b.layer), []byte("something else"), "Content-Type", "application/octet-stream")
	both("HEAD", "/v2/x/blobs/"+d(b.layer), nil)
	both("POST", "/v2/x/blobs/uploads/", nil)
	both("PUT", "UPLOAD", []byte("no digest"), "Content-Type", "application/octet-stream")
	both("POST", "/v2/x/blobs/uploads/", nil)
	both("DELETE", "UPLOAD", nil)
	both("PUT", "UPLOAD?digest="+d(a.config), a.config)

	// mounts
	both("POST", "/v2/y/blobs/uploads/?mount="+d(a.layer)+"&from=x", nil)
	both("HEAD", "/v2/y/blobs/"+d(a.layer), nil)
	both("POST", "/v2/y/blobs/uploads/?mount="+absent+"&from=x", nil)
	both("POST", "/v2/x/blobs/uploads/?mount="+d(a.layer)+"&from=x", nil)

	// manifests: without their blobs, with, wrong digest, not JSON, tags
	both("PUT", "/v2/x/manifests/v1", b.manifest, "Content-Type", image)
	both("PUT", "/v2/x/manifests/v1", a.index, "Content-Type", index)
	both("PUT", "/v2/x/manifests/"+d(a.manifest), a.manifest, "Content-Type", image)
	both("PUT", "/v2/x/manifests/"+d(b.manifest), a.manifest, "Content-Type", image)
	both("PUT", "/v2/x/manifests/v1", []byte("{"), "Content-Type", image)
	both("PUT", "/v2/x/manifests/v1", a.index, "Content-Type", index)
	both("PUT", "/v2/x/manifests/v1", a.index, "Content-Type", index)
	both("PUT", "/v2/x/manifests/-bad", a.index, "Content-Type", index)
	both("PUT", "/v2/x/manifests/v2", a.manifest, "Content-Type", image)
	both("PUT", "/v2/x/manifests/v1", a.manifest, "Content-Type", image)
	for _, name := range []string{"v1", "v2", d(a.manifest), d(a.index), "v3"} {
		for _, method := range []string{"GET", "HEAD"} {
			both(method, "/v2/x/manifests/"+name, nil, "Accept", image+", "+index)
		}
	}
	both("GET", "/v2/x/manifests/"+d(a.index), nil, "Accept", index)
	both("GET", "/v2/x/manifests/v1", nil, "Accept", image, "If-None-Match", `"`+d(a.manifest)+`"`)
	both("PUT", "/v2/x/manifests/big", append(bytes.Repeat([]byte(" "), 4<<20), a.manifest...), "Content-Type", image)
	both("PUT", "/v2/x/manifests/cond", a.manifest, "Content-Type", image, "If-Match", `"`+absent+`"`)

	// tags
	for _, tag := range []string{"b", "a.1", "_x", "1.0-rc", "A"} {
		both("PUT", "/v2/x/manifests/"+tag, a.manifest, "Content-Type", image)
	}
	both("GET", "/v2/x/tags/list", nil)
	both("GET", "/v2/x/tags/list?n=2", nil)
	both("GET", "/v2/x/tags/list?n=2&last=a.1", nil)
	both("GET", "/v2/x/tags/list?n=100", nil)
	both("GET", "/v2/x/tags/list?last=b", nil)
	both("GET", "/v2/x/tags/list?n=x", nil)
	both("GET", "/v2/y/tags/list", nil)

	// deletion
	both("DELETE", "/v2/x/manifests/b", nil)
	both("HEAD", "/v2/x/manifests/b", nil, "Accept", image)
	both("HEAD", "/v2/x/manifests/"+d(a.manifest), nil, "Accept", image)
	both("DELETE", "/v2/x/manifests/b", nil)
	both("DELETE", "/v2/x/manifests/"+d(a.manifest), nil)
	both("GET", "/v2/x/tags/list", nil)
	both("HEAD", "/v2/x/manifests/v2", nil, "Accept", image)
	both("DELETE", "/v2/x/manifests/"+absent, nil)
	if number < 60 {
		t.Errorf("only %d calls were compared", number)
	}
}

// Without leave, both refuse to delete.
func TestAgreeNoDelete(t *testing.T) {
	real := regtest.Start(t, nil)
	memory := regtest.NewMemory(nil)
	a := sample("a")
	for _, path := range []string{"/v2/x/manifests/v1", "/v2/x/manifests/" + string(digest.FromBytes(a.manifest))} {
		want := (&caller{t: t, base: real.URL()}).call("DELETE", path, nil)
		got := (&caller{t: t, base: "http://" + memory.Serve(t)}).call("DELETE", path, nil)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("DELETE %s (-reference +memory):\n%s", path, diff)
		}
	}
}
