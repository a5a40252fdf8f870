package web_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"flag"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/layout/diff"
	"github.com/gardenlinux/gloci-layout/layout/diff/difftext"
	"github.com/gardenlinux/gloci-layout/layout/sourcetest"
	"github.com/gardenlinux/gloci-layout/sync/serve/web"
)

var update = flag.Bool("update", false, "write testdata")

func get(t testing.TB, url string) (*http.Response, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

var (
	tagGrammar       = regexp.MustCompile(`<[a-z][^>]*>`)
	attributeGrammar = regexp.MustCompile(`\s([a-z-]+)="([^"]*)"`)
	valueGrammar     = regexp.MustCompile(`="[^"]*"`)
	handlerGrammar   = regexp.MustCompile(`[\s"'/]on[a-z]+=`)
)

// links returns what the page leads to. Values of other attributes may end in what
// looks like a link.
func links(body string) []string {
	var all []string
	for _, tag := range tagGrammar.FindAllString(body, -1) {
		for _, m := range attributeGrammar.FindAllStringSubmatch(tag, -1) {
			if m[1] == "href" || m[1] == "src" || m[1] == "action" {
				all = append(all, html.UnescapeString(m[2]))
			}
		}
	}
	return all
}

// crawl opens start and whatever leads from there, and calls check with each
// page.
func crawl(t testing.TB, start string, most int, check func(path string, resp *http.Response, body string)) {
	t.Helper()
	base, err := url.Parse(start)
	if err != nil {
		t.Fatal(err)
	}
	queue, seen := []*url.URL{base}, map[string]bool{base.String(): true}
	for n := 0; len(queue) > 0 && n < most; n++ {
		at := queue[0]
		queue = queue[1:]
		resp, err := http.Get(at.String())
		if err == nil {
			defer resp.Body.Close()
		} else if strings.Contains(at.Path, "/-/get/") {
			continue // of what only says that it is large, no byte may come
		} else {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		body := string(raw)
		check(at.RequestURI(), resp, body)
		if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
			continue
		}
		for _, link := range links(body) {
			if id, ok := strings.CutPrefix(link, "#"); ok {
				if !strings.Contains(body, ` id="`+html.EscapeString(id)+`"`) {
					t.Errorf("%s: there is no place %s", at, link)
				}
				continue
			}
			to, err := at.Parse(link)
			if err != nil || to.Host != base.Host || to.Scheme != "http" {
				t.Errorf("%s: a link to %q", at, link)
				continue
			}
			if to.Fragment = ""; !seen[to.String()] {
				seen[to.String()] = true
				queue = append(queue, to)
			}
		}
	}
}

// Every link of every page leads to something, and every answer is guarded.
func TestLinks(t *testing.T) {
	s := start(t, web.Repository{Name: "gardenlinux", Source: newGarden(t)}, web.Repository{Name: "team/empty", Source: sourcetest.NewMemory(t)})
	pages, downloads, lists := 0, 0, 0
	crawl(t, s.URL+"/", 400, func(path string, resp *http.Response, body string) {
		h := resp.Header
		switch {
		case strings.Contains(path, "/-/get/"): // of what only says that it is large, the answer is an error
			downloads++
			if resp.StatusCode == 200 {
				if d := h.Get("Docker-Content-Digest"); d != string(digest.FromString(body)) {
					t.Errorf("%s: the body is not %s", path, d)
				}
				if !strings.HasPrefix(h.Get("Content-Disposition"), "attachment; ") || h.Get("Content-Type") != "application/octet-stream" {
					t.Errorf("%s: a browser might show it: %v", path, h)
				}
			}
		case resp.StatusCode != http.StatusOK:
			t.Errorf("%s: %s", path, resp.Status)
		case strings.Contains(path, "/-/files/"):
			lists++
		}
		pages++
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
			"X-Content-Type-Options":  "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY", "Set-Cookie": "",
		} {
			if have := h.Get(name); have != want {
				t.Errorf("%s: %s is %q, want %q", path, name, have, want)
			}
		}
		if strings.Contains(body, " style=") || strings.Contains(body, " onclick=") {
			t.Errorf("%s has what its policy forbids", path)
		}
	})
	if pages < 300 || downloads < 50 || lists < 10 {
		t.Errorf("only %d pages, %d downloads and %d lists of files", pages, downloads, lists)
	}
}

// golden compares with a file in testdata.
func golden(t *testing.T, name string, have []byte) {
	t.Helper()
	name = "testdata/" + name
	if *update {
		if err := os.WriteFile(name, have, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if d := gocmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(have), "\n")); d != "" {
		t.Errorf("%s (-want +have; -update writes it):\n%s", name, d)
	}
}

// withoutAssets cuts what is the same in all files.
func withoutAssets(b []byte) []byte {
	b = regexp.MustCompile(`(?s)<(style|script)>.*?</(style|script)>`).ReplaceAll(b, []byte("<$1/>"))
	return regexp.MustCompile(`sha256-([A-Za-z0-9+/=]|&#43;)+`).ReplaceAll(b, []byte("sha256-HASH"))
}

func small(t testing.TB) *garden {
	g := &garden{sourcetest.NewMemory(t), t}
	g.release("2150.1.0", "9d2e7f31", 2, true)
	return g
}

func report(t testing.TB, g *garden) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := web.WriteReport(t.Context(), &b, g, web.ReportOptions{Knowledge: knowledge(), Name: "garden"}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReport(t *testing.T) {
	b := report(t, small(t))
	if !bytes.Equal(b, report(t, small(t))) {
		t.Error("the same content gave other bytes")
	}
	checkFile(t, b)
	golden(t, "report.html", withoutAssets(b))
}

// differences returns the file that says how two gardens differ.
func differences(t testing.TB, a, b *garden, nameA, nameB string) []byte {
	t.Helper()
	var all difftext.Collection
	var sum diff.Summary
	n := 0
	for ch, err := range diff.Compare(t.Context(), diff.Side{Source: a}, diff.Side{Source: b}, &diff.Options{Level: diff.LevelLayer, Total: "b"}, &sum) {
		if err != nil {
			t.Fatal(err)
		}
		all.Add(&ch)
		n++
	}
	var out bytes.Buffer
	if err := web.WriteDiff(&out, &web.Diff{A: nameA, B: nameB, Collection: &all, Summary: difftext.NewSummary(&sum, n)}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestWriteDiff(t *testing.T) {
	b := &garden{sourcetest.NewMemory(t), t}
	b.release("2150.1.0", "00000000", 3, false)
	out := differences(t, small(t), b, "old\u202e", "<new>")
	checkFile(t, out)
	golden(t, "diff.html", withoutAssets(out))
}

// checkFile holds a file against its own policy: nothing in it leads elsewhere,
// and the hashes are those of its style and its script.
func checkFile(t testing.TB, b []byte) {
	t.Helper()
	policy := html.UnescapeString(string(regexp.MustCompile(`<meta http-equiv="Content-Security-Policy" content="([^"]*)">`).FindSubmatch(b)[1]))
	for _, tag := range []string{"style", "script"} {
		m := regexp.MustCompile(`(?s)<`+tag+`>(.*?)</`+tag+`>`).FindAllSubmatch(b, -1)
		if len(m) != 1 {
			t.Fatalf("%d elements %s", len(m), tag)
		}
		hash := sha256.Sum256(m[0][1])
		if want := tag + "-src 'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) + "'"; !strings.Contains(policy, want) {
			t.Errorf("the policy %q lacks %s", policy, want)
		}
	}
	if !strings.HasPrefix(policy, "default-src 'none'; ") {
		t.Errorf("policy %q", policy)
	}
	for _, link := range links(string(b)) {
		if id, ok := strings.CutPrefix(link, "#"); !ok || !bytes.Contains(b, []byte(` id="`+html.EscapeString(id)+`"`)) {
			t.Errorf("a link to %q", link)
		}
	}
	checkText(t, "file", string(b))
}

// checkText wants text that prints, and no markup but ours.
func checkText(t testing.TB, where, body string) {
	t.Helper()
	if !utf8.ValidString(body) {
		t.Errorf("%s: no UTF-8", where)
	}
	body = regexp.MustCompile(`(?s)<input [^>]*>|<option [^>]*>`).ReplaceAllString(body, "") // values are what is sent, not what is shown
	for _, r := range body {
		if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
			t.Errorf("%s: the character %U", where, r)
			break
		}
	}
	text := strings.ToLower(withoutScript.ReplaceAllString(body, ""))
	for _, tag := range tagGrammar.FindAllString(text, -1) {
		// A value may end in what begins an attribute.
		if m := handlerGrammar.FindString(valueGrammar.ReplaceAllString(tag, `=""`)); m != "" {
			t.Errorf("%s: a tag with%s", where, m)
		}
	}
	for _, bad := range []string{"<script>", "<img", "<svg onload", `href="javascript`} {
		if strings.Contains(text, bad) {
			t.Errorf("%s: %s got through", where, bad)
		}
	}
}

var withoutScript = regexp.MustCompile(`(?s)<script>\n?// What pages.*?</script>|<script src="/-/[^"]*" defer></script>`)

func TestHostile(t *testing.T) {
	g := newHostile(t, hostileTexts)
	s := start(t, web.Repository{Name: "h", Source: g})
	pages := 0
	crawl(t, s.URL+"/r/h", 300, func(path string, resp *http.Response, body string) {
		pages++
		if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
			checkText(t, path, body)
		}
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", path, resp.Status)
		}
		if name := resp.Header.Get("Content-Disposition"); name != "" && !regexp.MustCompile(`^attachment; filename="[A-Za-z0-9_][A-Za-z0-9._+-]*"$`).MatchString(name) {
			t.Errorf("%s: %s", path, name)
		}
	})
	if pages < 100 {
		t.Errorf("only %d pages", pages)
	}
	checkFile(t, report(t, g))
	for _, q := range []string{"q", "feature", "type", "arch", "version"} {
		_, body := get(t, s.URL+"/r/h?"+q+"="+url.QueryEscape(`"><script>alert(1)</script>`))
		checkText(t, q, body)
	}
	_, body := get(t, s.URL+"/r/h/-/m/"+url.PathEscape("<script>\u202e"))
	checkText(t, "error", body)
}

// Whatever a layout says, pages print, escape, and keep their form.
func FuzzNames(f *testing.F) {
	for _, s := range hostileTexts {
		f.Add(s)
	}
	f.Add("\xff\xfe")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 300 {
			return
		}
		text = strings.ToValidUTF8(text, "\ufffd")
		checkFile(t, report(t, newHostile(t, []string{text, "plain"})))
	})
}

func TestSearch(t *testing.T) {
	s := start(t, web.Repository{Name: "g", Source: newGarden(t)})
	for query, want := range map[string]string{
		"":                               "23 of 23 manifests of 2150.1.0",
		"q=azure":                        "2 of 23",
		"q=AZURE+vhd":                    "2 of 23",
		"q=azure+qcow2":                  "0 of 23",
		"feature=_tpm2":                  "2 of 23",
		"type=image":                     "2 of 23",
		"type=qcow2":                     "6 of 23",
		"type=signed&arch=arm64":         "10 of 23",
		"version=1877.9":                 "17 of 17",
		"version=*&q=metal_pxe":          "4 of 63",
		"arch=riscv64":                   "0 of 23",
		"q=sha256:0000000000&version=no": "0 of 63",
	} {
		_, body := get(t, s.URL+"/r/g?"+query)
		have := regexp.MustCompile(`role="status">([^<]*)<`).FindStringSubmatch(body)[1]
		if !strings.HasPrefix(have, want) {
			t.Errorf("%q: %q, want %q", query, have, want)
		}
		if rows := strings.Count(body, `class="cell `); strings.HasPrefix(want, "0 ") != (rows == 0) {
			t.Errorf("%q: %d rows", query, rows)
		}
	}
}

func TestMethodsAndErrors(t *testing.T) {
	g := newGarden(t)
	s := start(t, web.Repository{Name: "g", Source: g})
	resp, err := http.Post(s.URL+"/r/g", "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %s", resp.Status)
	}
	zero := "sha256:" + strings.Repeat("0", 64)
	for _, path := range []string{
		"/no", "/r/", "/r/no", "/r/g/-/no", "/r/g/-/m/", "/r/g/-/m/" + zero, "/r/g/-/m/sha256:..", "/r/g/-/files/" + zero + "/0", "/r/g/-/get/x/y",
		"/r/g/-/diff?a=g:no&b=g:2150.0.0", "/-/no.css", "/r/g/-/m/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
	} {
		if resp, _ := get(t, s.URL+path); resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	resp, err = http.Head(s.URL + "/r/g")
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 || len(b) > 0 || resp.ContentLength < 1000 {
		t.Errorf("HEAD: %s, %d bytes", resp.Status, resp.ContentLength)
	}
	resp.Body.Close()
}

// A page that the browser has is not sent again, until something changes.
func TestFresh(t *testing.T) {
	g := newGarden(t)
	s := start(t, web.Repository{Name: "g", Source: g})
	ask := func(path, tag string) (int, string) {
		req, err := http.NewRequest(http.MethodGet, s.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("If-None-Match", tag)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode, resp.Header.Get("ETag")
	}
	_, tag := ask("/r/g", "")
	if status, _ := ask("/r/g", tag); status != http.StatusNotModified {
		t.Errorf("status %d, want 304", status)
	}
	if status, _ := ask("/r/g?q=aws", tag); status != http.StatusOK {
		t.Errorf("another question: status %d", status)
	}
	g.Name("more", g.Image("more", "linux/arm64"))
	if status, _ := ask("/r/g", tag); status != http.StatusOK {
		t.Errorf("other content: status %d", status)
	}
	if _, body := get(t, s.URL+"/r/g"); !strings.Contains(body, ">more</a>") {
		t.Error("the new entry is not there")
	}
}

// Whoever is told the version of a source is not read again for each request,
// and lets go of it.
func TestVersionAndRelease(t *testing.T) {
	src := &counter{garden: newGarden(t)}
	version, released := "1", 0
	h := web.New(web.Options{Knowledge: knowledge(), Repositories: func(context.Context) []web.Repository {
		return []web.Repository{{Name: "g", Source: src, Version: version, Release: func() { released++ }}}
	}})
	ask := func(path string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != http.StatusOK {
			t.Errorf("%s: status %d", path, w.Code)
		}
	}
	ask("/r/g")
	read := src.blobs
	ask("/r/g?q=aws")
	if src.blobs != read || read == 0 {
		t.Errorf("%d blobs were read, then %d", read, src.blobs-read)
	}
	version = "2"
	ask("/r/g")
	if src.blobs == read {
		t.Error("a new version was not read")
	}
	if released != 3 {
		t.Errorf("released %d times, want 3", released)
	}
}

// A damaged blob arrives as an error or cut short, never whole with 200.
func TestDamaged(t *testing.T) {
	g := &garden{sourcetest.NewMemory(t), t}
	big := strings.Repeat("0123456789abcdef", 1<<20) // 16 MiB
	config := g.Put(sourcetest.TypeUnknownConfig, "{}")
	damaged := g.Put("application/x", "small!")
	damaged.Digest = digest.FromString("small?")
	g.Corrupt(damaged.Digest, "small!")
	large := g.Put("application/x", big)
	g.Corrupt(large.Digest, big[:len(big)-1]+"!")
	m := g.Manifest(config, damaged, large)
	g.Name("v", m)
	s := start(t, web.Repository{Name: "g", Source: g})
	base := fmt.Sprintf("%s/r/g/-/get/%s/", s.URL, m.Digest)
	if resp, _ := get(t, base+"0"); resp.StatusCode != http.StatusInternalServerError {
		t.Errorf("a small one: %s", resp.Status)
	}
	resp, err := http.Get(base + "1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Errorf("a large one: %s, %d bytes and no error", resp.Status, n)
	}
}

// What is folded and large stands in noscript elements, which a browser with
// scripts takes for text up to the first end tag: none may be in another one.
func TestPacked(t *testing.T) {
	_, large := get(t, start(t, web.Repository{Name: "large", Source: newLarge(t, 2*201)}).URL+"/r/large")
	_, hostile := get(t, start(t, web.Repository{Name: "hostile", Source: newHostile(t, hostileTexts)}).URL+"/r/hostile")
	for name, page := range map[string]string{
		"large": large, "hostile": hostile,
		"report": string(report(t, newGarden(t))), "hostile report": string(report(t, newHostile(t, hostileTexts))),
	} {
		packed := 0
		for _, tag := range regexp.MustCompile(`(?i)</?noscript`).FindAllString(page, -1) {
			if want := []string{"<noscript", "</noscript"}[packed%2]; tag != want {
				t.Errorf("%s: tag %d is %s, want %s", name, packed, tag, want)
			}
			packed++
		}
		if packed == 0 || packed%2 != 0 {
			t.Errorf("%s: %d tags", name, packed)
		}
	}
	if first, _, _ := strings.Cut(large, "<noscript>"); strings.Contains(first, "kvm-flavor200_") || !strings.Contains(large, "kvm-flavor200_") {
		t.Error("the last line is not folded")
	}
}

// What a page lists, what refers to what, and lint read each document once.
func TestReadOnce(t *testing.T) {
	src := &counter{garden: newLarge(t, 300)}
	get(t, start(t, web.Repository{Name: "large", Source: src}).URL+"/r/large")
	if src.blobs < 301 || src.blobs > 350 {
		t.Errorf("%d reads of 301 documents", src.blobs)
	}
}
