package serve_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/sync/serve"
)

// eventually waits for what has to come, for as long as a busy machine needs.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it did not come: %s", what)
		}
	}
}

// version writes a layout whose tag "app" is an image that says what it is.
func version(t testing.TB, dir, content string) (manifest, layer ocispec.Descriptor) {
	t.Helper()
	l, err := layout.Create(t.Context(), dir, nil)
	if err != nil {
		if l, err = layout.Open(t.Context(), dir, nil); err != nil {
			t.Fatal(err)
		}
	}
	defer l.Close()
	s, err := l.Stage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if layer, err = s.AddBytes(t.Context(), []byte("layer of "+content), "application/x.layer"); err != nil {
		t.Fatal(err)
	}
	config, err := s.AddBytes(t.Context(), []byte("{}"), "application/x.config")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := layout.EncodeManifest(ocispec.Manifest{Config: config, Layers: []ocispec.Descriptor{layer}})
	if err != nil {
		t.Fatal(err)
	}
	if manifest, err = s.AddBytes(t.Context(), raw, ocispec.MediaTypeImageManifest); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(t.Context(), func(tx *layout.Tx) error { tx.SetRef("app", manifest); return nil }); err != nil {
		t.Fatal(err)
	}
	return manifest, layer
}

// An archive that is replaced is served anew; who has the old manifest still gets
// its blobs, as long as Keep says, and not from a source of another name.
func TestReplaceArchive(t *testing.T) {
	one, two := filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "two")
	oldManifest, oldLayer := version(t, one, "one")
	newManifest, newLayer := version(t, two, "two")
	for _, keep := range []time.Duration{time.Hour, -1} {
		file := filepath.Join(t.TempDir(), "garden.oci")
		pack(t, one, file)
		s := start(t, serve.Options{Sources: []serve.Source{fromPath("garden", file)}, Keep: keep, Poll: 10 * time.Millisecond})
		if got := s.get("/v2/garden/manifests/app"); digest.FromString(got.body) != oldManifest.Digest {
			t.Fatalf("app is %q", got.body)
		}
		pack(t, two, file)
		eventually(t, "the new version", func() bool {
			return s.do(http.MethodHead, "/v2/garden/manifests/app").header.Get("Docker-Content-Digest") == string(newManifest.Digest)
		})
		if got := s.get("/v2/garden/blobs/" + string(newLayer.Digest)); got.body != "layer of two" {
			t.Errorf("new layer: %d %q", got.status, got.body)
		}
		want := http.StatusOK
		if keep < 0 {
			want = http.StatusNotFound
		}
		if got := s.get("/v2/garden/blobs/" + string(oldLayer.Digest)); got.status != want || want == 200 && got.body != "layer of one" {
			t.Errorf("keep %v: old layer: %d %q", keep, got.status, got.body)
		}
		if got := s.get("/v2/garden/manifests/" + string(oldManifest.Digest)); got.status != want {
			t.Errorf("keep %v: old manifest: %d %q", keep, got.status, got.body)
		}
	}
}

// Keep ends.
func TestKeepEnds(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "garden")
	old, _ := version(t, dir, "one")
	s := start(t, serve.Options{Sources: []serve.Source{fromPath("garden", dir)}, Keep: 300 * time.Millisecond, Poll: 10 * time.Millisecond})
	version(t, dir, "two")
	eventually(t, "the end of the old version", func() bool { return s.get("/v2/garden/manifests/"+string(old.Digest)).status == 404 })
}

// A change that is not whole yet is not served: neither an index.json whose blobs
// are still on their way, nor half an index.json, nor no source at all.
func TestHalfASource(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "garden")
	old, _ := version(t, dir, "one")
	next := copyDir(t, dir)
	manifest, layer := version(t, next, "two")
	s := start(t, serve.Options{Sources: []serve.Source{fromPath("garden", dir)}, Poll: 10 * time.Millisecond})
	app := func() digest.Digest {
		t.Helper()
		got := s.get("/v2/garden/manifests/app")
		if got.status != 200 {
			t.Fatalf("app: status %d %q", got.status, got.body)
		}
		return digest.FromString(got.body)
	}
	index := filepath.Join(dir, "index.json")
	before, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(filepath.Join(next, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	warned := func(n int) func() bool {
		return func() bool { return strings.Count(s.log.String(), "what was there before is served") >= n }
	}
	writeFile(t, index, string(after[:len(after)/2]))
	eventually(t, "a warning", warned(1))
	if got := app(); got != old.Digest {
		t.Errorf("with half an index.json, app is %s", got)
	}
	writeFile(t, index, string(after))
	eventually(t, "a warning", warned(2))
	for _, d := range []digest.Digest{layer.Digest, manifest.Digest} { // the manifest first would not do
		if got := app(); got != old.Digest {
			t.Errorf("before its %s is there, app is %s", d, got)
		}
		b, err := os.ReadFile(blobFile(next, d))
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, blobFile(dir, d), string(b))
	}
	eventually(t, "the new version, though index.json did not change again", func() bool { return app() == manifest.Digest })
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a warning", warned(3))
	if got := app(); got != manifest.Digest {
		t.Errorf("without a source, app is %s", got)
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	writeFile(t, index, string(before))
	eventually(t, "the old version again", func() bool { return app() == old.Digest })
}

// A reload that would give one tag two meanings changes nothing.
func TestReloadConflict(t *testing.T) {
	one, two := filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "two")
	version(t, one, "same")
	version(t, two, "same")
	s := start(t, serve.Options{Sources: []serve.Source{fromPath("garden", one), fromPath("garden", two)}})
	want := s.get("/v2/garden/manifests/app").body
	version(t, two, "other")
	if err := s.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "tag app of repository garden") {
		t.Errorf("Reload: %v", err)
	}
	if got := s.get("/v2/garden/manifests/app").body; got != want {
		t.Errorf("app is %q, want what it was", got)
	}
	version(t, one, "other")
	if err := s.Reload(t.Context()); err != nil {
		t.Errorf("Reload: %v", err)
	}
	if got := s.get("/v2/garden/manifests/app").body; got == want {
		t.Error("app is what it was, after both sources changed")
	}
}

// A source that is no longer needed is closed, once nobody uses it.
func TestSourcesAreClosed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "garden")
	version(t, dir, "0")
	var opened []*counted
	src := fromPath("garden", dir)
	open := src.Open
	src.Open = func(ctx context.Context) (layout.Source, error) {
		l, err := open(ctx)
		c := &counted{Source: l}
		opened = append(opened, c)
		return c, err
	}
	entered, leave := make(chan bool), make(chan bool)
	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		entered <- true
		<-leave
		for _, repo := range serve.Repositories(r.Context()) {
			x, err := repo.Source.Index(r.Context())
			if err != nil || x.Len() != 1 || repo.Name != "garden" {
				t.Errorf("Repositories: %s: %v", repo.Name, err)
				return
			}
			b, err := layout.ReadAll(r.Context(), repo.Source, x.Entries()[0], layout.MaxDocument)
			if err != nil {
				t.Errorf("read of a snapshot: %v", err)
			}
			if _, err := w.Write(b); err != nil {
				t.Error(err)
			}
		}
	})
	s := start(t, serve.Options{Sources: []serve.Source{src}, Page: page, Keep: -1})
	first := s.get("/v2/garden/manifests/app").body
	got := make(chan answer)
	go func() { got <- s.get("/page") }()
	<-entered
	for range 3 {
		version(t, dir, t.Name()+string(rune('a'+len(opened))))
		if err := s.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(opened); n != 4 || opened[0].closed || !opened[1].closed || !opened[2].closed || opened[3].closed {
		t.Errorf("%d sources were opened; closed: %t", n, []bool{opened[0].closed, opened[1].closed, opened[2].closed, opened[3].closed})
	}
	close(leave)
	if a := <-got; a.body != first || a.status != 200 {
		t.Errorf("the page sees %d %q, want what was served when it was asked for", a.status, a.body)
	}
	eventually(t, "the end of the first source", func() bool { return opened[0].isClosed() })
}

// A source without a name is called like its file.
func TestNameOf(t *testing.T) {
	for path, want := range map[string]string{
		"gardenlinux-2150.1.0.oci": "gardenlinux-2150.1.0", "/x/App_A.oci.gz": "app_a", "a..b": "a-b", "x.tar.zst": "x", "__": "layout", "a b": "a-b",
		"x.tgz": "x", "x.oci.parts.json": "x", "Ünï": "n", "a.-_b": "a-b", "end-.": "end",
	} {
		if got := serve.NameOf(path); got != want || serve.ValidateName(got) != nil {
			t.Errorf("NameOf(%q) = %q, want %q", path, got, want)
		}
	}
}

// An entry without ref name is latest where it is the only one; a ref name of two
// things is no tag.
func TestLatest(t *testing.T) {
	dir, c := sample(t)
	write := func(entries ...ocispec.Descriptor) *server {
		dir := copyDir(t, dir)
		x := layout.NewIndex()
		for _, desc := range entries {
			x.Add(desc)
		}
		writeFile(t, filepath.Join(dir, "index.json"), string(x.Bytes()))
		return start(t, serve.Options{Sources: []serve.Source{fromPath("garden", dir)}})
	}
	named := func(desc ocispec.Descriptor, name string) ocispec.Descriptor {
		desc.Annotations = map[string]string{ocispec.AnnotationRefName: name}
		return desc
	}
	if got := write(c.AMD64).get("/v2/garden/manifests/latest"); got.body != c.Stored[c.AMD64.Digest] {
		t.Errorf("one entry: %d %q", got.status, got.body)
	}
	if got := write(c.AMD64, c.ARM64).get("/v2/garden/tags/list"); got.body != `{"name":"garden","tags":[]}` {
		t.Errorf("two entries: %q", got.body)
	}
	s := write(named(c.AMD64, "both"), named(c.ARM64, "both"), named(c.AMD64, "a+b"), named(c.AMD64, "one"))
	if got := s.get("/v2/garden/tags/list"); got.body != `{"name":"garden","tags":["one"]}` {
		t.Errorf("one name for two things: %q", got.body)
	}
	if log := s.log.String(); !strings.Contains(log, "both") || !strings.Contains(log, "a+b") {
		t.Errorf("no word of it:\n%s", log)
	}
}

// Content of types that nobody knows can be named, but a browser is told nothing
// that it would run.
func TestContentTypes(t *testing.T) {
	dir, c := sample(t)
	for mediaType, want := range map[string]string{
		"application/x.thing+json": "application/x.thing+json", "text/html": "application/octet-stream",
		"application/xhtml+xml": "application/octet-stream", "image/svg+xml": "application/octet-stream", "application/x; a=b": "application/octet-stream",
	} {
		dir := copyDir(t, dir)
		desc := c.Layer
		desc.MediaType = mediaType
		desc.Annotations = map[string]string{ocispec.AnnotationRefName: "x"}
		x := layout.NewIndex()
		x.Add(desc)
		writeFile(t, filepath.Join(dir, "index.json"), string(x.Bytes()))
		s := start(t, serve.Options{Sources: []serve.Source{fromPath("garden", dir)}})
		if got := s.get("/v2/garden/manifests/x"); got.body != c.Stored[c.Layer.Digest] || !slices.Equal(got.header["Content-Type"], []string{want}) {
			t.Errorf("%s: %d, Content-Type %q", mediaType, got.status, got.header["Content-Type"])
		}
	}
}
