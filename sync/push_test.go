package sync_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
	"github.com/gardenlinux/gloci-layout/sync/pushtest"
	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

func entries(t *testing.T, src layout.Source) []ocispec.Descriptor {
	t.Helper()
	x, err := src.Index(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return x.Entries()
}

func digestOf(t *testing.T, src layout.Source, refName string) digest.Digest {
	t.Helper()
	desc, err := layout.ResolveOne(t.Context(), src, refName, "")
	if err != nil {
		t.Fatal(err)
	}
	return desc.Digest
}

func openRemote(t *testing.T, reg *regtest.Registry, name string) layout.Source {
	t.Helper()
	opts := pushtest.Options(t, reg)
	src, err := layoutsync.OpenSource(t.Context(), layout.Reference{Transport: "docker", Location: reg.Host + "/" + name}, &opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = src.Close() })
	return src
}

// TestPush sends everything, reads it back, and counts the requests.
func TestPush(t *testing.T) {
	reg := regtest.Start(t, nil)
	l := pushtest.NewLayout(t, everything)
	dest := pushtest.Repository(t, reg, "team/app")
	var mu sync.Mutex
	events := map[string]int{}
	bytesOf := map[digest.Digest]int64{}
	opts := &layoutsync.PushOptions{Registry: pushtest.Options(t, reg), Progress: func(e layout.Event) {
		mu.Lock()
		defer mu.Unlock()
		events[e.Kind]++
		bytesOf[e.Desc.Digest] += e.Bytes
	}}

	report, err := layoutsync.Push(t.Context(), l, dest, opts)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{
		"GET ping": 1, // without checked HTTPS: which scheme?
		// tags, documents, roots, list of referrers
		"HEAD manifest": tagsOfEverything + documentsOfEverything + 4 + 1,
		"POST upload":   blobsOfEverything,
		"PUT upload":    blobsOfEverything,
		"PUT manifest":  documentsOfEverything + 1 + tagsOfEverything,
	}
	if diff := cmp.Diff(want, counts(reg)); diff != "" {
		t.Errorf("requests of the first push (-want +got):\n%s", diff)
	}
	if report.Manifests != documentsOfEverything || report.Blobs != blobsOfEverything || len(report.Untagged) != 1 || len(report.Referrers) != 1 {
		t.Errorf("report %+v", report)
	}
	if n := events["done"]; n != documentsOfEverything+blobsOfEverything {
		t.Errorf("%d events of done, want %d", n, documentsOfEverything+blobsOfEverything)
	}
	for _, tag := range report.Tags {
		if tag.State != layoutsync.TagCreated {
			t.Errorf("tag %s is %s", tag.Tag, tag.State)
		}
	}
	remote := openRemote(t, reg, "team/app")
	compareTrees(t, l, remote, entries(t, l))
	for node, err := range layout.Walk(t.Context(), l, entries(t, l), nil) {
		if err != nil {
			t.Fatal(err)
		}
		if got := bytesOf[node.Desc.Digest]; got != node.Desc.Size {
			t.Errorf("%d bytes of %s were reported, want %d", got, node.Desc.Digest, node.Desc.Size)
		}
	}
	app := digestOf(t, l, "1.0")
	tags := pushtest.ResolveTags(t, reg, "team/app")
	if tags["1.0"] != app || tags["latest"] != app || tags["docker"] == "" || tags["empty"] == "" {
		t.Errorf("tags %v", tags)
	}

	// The list of referrers names the one that has a subject.
	amd64, err := layout.SelectOne(t.Context(), l, entries(t, l), layout.Selector{Platform: &ocispec.Platform{OS: "linux", Architecture: "amd64"}, Match: func(d ocispec.Descriptor, _ *layout.Document) bool {
		return d.MediaType == ocispec.MediaTypeImageManifest
	}})
	if err != nil {
		t.Fatal(err)
	}
	list, ok := tags["sha256-"+amd64.Desc.Digest.Encoded()]
	if !ok {
		t.Fatalf("no list of referrers among %v", tags)
	}
	found, err := layout.Resolve(t.Context(), remote, "", list)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := layout.ReadDocument(t.Context(), remote, found[0])
	if err != nil {
		t.Fatal(err)
	}
	if len(doc.Manifests) != 1 || doc.Manifests[0].ArtifactType != "application/vnd.example.sbom" {
		t.Errorf("list of referrers %s", doc.Raw)
	}

	// Again: one request for each tag, and one for the entry that has none. That
	// refers to something: is there a list (no), and is it in the one of ours?
	reg.Reset()
	if report, err = layoutsync.Push(t.Context(), l, dest, opts); err != nil {
		t.Fatal(err)
	}
	want = map[string]int{"GET ping": 1, "HEAD manifest": tagsOfEverything + 1 + 1, "GET other": 1, "GET manifest": 1}
	if diff := cmp.Diff(want, counts(reg)); diff != "" {
		t.Errorf("requests of a push without changes (-want +got):\n%s", diff)
	}
	if report.Changed() {
		t.Errorf("report of a push without changes: %+v", report)
	}
}

// TestPushChange sends only what is new, and what it shares with the old state
// is found by the request that would start its upload.
func TestPushChange(t *testing.T) {
	reg := regtest.Start(t, nil)
	l := pushtest.NewLayout(t, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		return map[string]ocispec.Descriptor{"app": m.Index(m.Image("amd64", "base", "one"), m.Image("arm64", "base", "two"))}
	})
	dest := pushtest.Repository(t, reg, "app")
	opts := &layoutsync.PushOptions{Registry: pushtest.Options(t, reg)}
	if _, err := layoutsync.Push(t.Context(), l, dest, opts); err != nil {
		t.Fatal(err)
	}
	pushtest.Edit(t, l, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		return map[string]ocispec.Descriptor{"app": m.Index(m.Image("amd64", "base", "three"), m.Image("arm64", "base", "two"))}
	})
	reg.Reset()
	report, err := layoutsync.Push(t.Context(), l, dest, opts)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{
		"GET ping":      1,
		"HEAD manifest": 1 + 3 + 1, // tag; index, amd64, arm64 (there: pruned); root
		"GET manifest":  1,         // what the tag names: are entries lost?
		"POST upload":   3,         // config and base are there
		"PUT upload":    1,
		"PUT manifest":  2, // amd64, index under its tag
	}
	if diff := cmp.Diff(want, counts(reg)); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if report.Blobs != 1 || report.Bytes != int64(len("three")) || report.Present != 3 || report.Tags[0].State != layoutsync.TagMoved {
		t.Errorf("report %+v", report)
	}
}

func TestPushDryRun(t *testing.T) {
	reg := regtest.Start(t, nil)
	l := pushtest.NewLayout(t, everything)
	dest := pushtest.Repository(t, reg, "app")
	report, err := layoutsync.Push(t.Context(), l, dest, &layoutsync.PushOptions{Registry: pushtest.Options(t, reg), DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	if report.Manifests != documentsOfEverything || report.Blobs != blobsOfEverything || !report.DryRun {
		t.Errorf("report %+v", report)
	}
	for method := range counts(reg) {
		if !strings.HasPrefix(method, "HEAD ") && !strings.HasPrefix(method, "GET ") {
			t.Errorf("a dry run sent %s", method)
		}
	}
	if sent, err := layoutsync.Push(t.Context(), l, dest, &layoutsync.PushOptions{Registry: pushtest.Options(t, reg)}); err != nil || sent.Bytes != report.Bytes {
		t.Errorf("sent %d bytes, the dry run said %d (%v)", sent.Bytes, report.Bytes, err)
	}
}

// TestPushDamaged: a blob that is not what its name says is never complete at
// the registry, and no tag appears.
func TestPushDamaged(t *testing.T) {
	reg := regtest.Start(t, nil)
	l := pushtest.NewLayout(t, everything)
	for node, err := range layout.Walk(t.Context(), l, entries(t, l), nil) {
		if err != nil {
			t.Fatal(err)
		}
		name := "damaged-" + node.Desc.Digest.Encoded()[:12] // what one has sent, the next would not
		t.Run(node.Role.String()+" "+node.Desc.MediaType, func(t *testing.T) {
			file := filepath.Join(l.Dir(), layout.BlobPath(node.Desc.Digest))
			good, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			bad := append([]byte(nil), good...)
			bad[len(bad)-1] ^= 1
			replace(t, file, bad)
			defer replace(t, file, good)
			if node.Desc.Data != nil {
				t.Skip("its content stands in its descriptor, too")
			}
			reg.Reset()
			_, err = layoutsync.Push(t.Context(), l, pushtest.Repository(t, reg, name), &layoutsync.PushOptions{Registry: pushtest.Options(t, reg)})
			if !errors.Is(err, layout.ErrMismatch) {
				t.Errorf("Push = %v, want ErrMismatch", err)
			}
			for _, r := range reg.Requests() {
				if r.Method == http.MethodPut && r.Query.Get("digest") == string(node.Desc.Digest) && r.Bytes == node.Desc.Size {
					t.Error("the registry got all of a damaged blob")
				}
			}
			if tags := pushtest.ResolveTags(t, reg, name); tags["1.0"] != "" || tags["empty"] != "" {
				t.Errorf("tags %v", tags)
			}
		})
	}
}

func replace(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil { //nolint:gosec // as a layout has it
		t.Fatal(err)
	}
}

// TestPushCanceled cancels at every request: no tag may name what is not
// whole, and the next push heals.
func TestPushCanceled(t *testing.T) {
	reg := regtest.Start(t, &regtest.Options{Delete: true})
	l := pushtest.NewLayout(t, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		app := m.Index(m.Image("amd64", "base"), m.Artifact("application/vnd.example.kernel", "kernel", nil))
		return map[string]ocispec.Descriptor{"a": app, "b": m.Image("arm64", "base")}
	})
	for k := 2; ; k++ { // 1 asks for the scheme
		name := "canceled" + strings.Repeat("x", k)
		ctx, cancel := context.WithCancel(t.Context())
		reg.Reset()
		reg.Intercept(func(n int, _ http.ResponseWriter, r *http.Request) bool {
			if n == k && strings.Contains(r.URL.Path, "/"+name+"/") {
				cancel()
			}
			return false
		})
		report, err := layoutsync.Push(ctx, l, pushtest.Repository(t, reg, name), &layoutsync.PushOptions{Registry: pushtest.Options(t, reg)})
		total := len(reg.Requests())
		reg.Reset()
		if err == nil {
			if k < total-2 {
				t.Errorf("canceled at request %d of %d, and Push succeeded", k, total)
			}
			if ctx.Err() == nil {
				cancel()
				break
			}
		} else if !errors.Is(err, context.Canceled) {
			t.Errorf("request %d: %v", k, err)
		}
		cancel()
		for tag, d := range pushtest.ResolveTags(t, reg, name) {
			if err != nil && (tag == "a" || tag == "b") {
				t.Errorf("canceled at request %d: tag %s names %s; report %+v", k, tag, d, report.Tags)
			}
		}
		if _, err := layoutsync.Push(t.Context(), l, pushtest.Repository(t, reg, name), &layoutsync.PushOptions{Registry: pushtest.Options(t, reg)}); err != nil {
			t.Errorf("after a cancel at request %d: %v", k, err)
		}
		compareTrees(t, l, openRemote(t, reg, name), entries(t, l))
		if k > 200 {
			t.Fatal("the push never ends")
		}
	}
}

// TestPushRestores fails the PUT of one of several tags: those that moved are
// put back, to what they named or to nothing.
func TestPushRestores(t *testing.T) {
	reg := regtest.Start(t, &regtest.Options{Delete: true})
	l := pushtest.NewLayout(t, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		return map[string]ocispec.Descriptor{"a": m.Image("amd64", "old a"), "b": m.Image("amd64", "old b")}
	})
	dest := pushtest.Repository(t, reg, "app")
	opts := &layoutsync.PushOptions{Registry: pushtest.Options(t, reg)}
	opts.Registry.Jobs = 1
	if _, err := layoutsync.Push(t.Context(), l, dest, opts); err != nil {
		t.Fatal(err)
	}
	before := pushtest.ResolveTags(t, reg, "app")
	pushtest.Edit(t, l, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		return map[string]ocispec.Descriptor{
			"a": m.Image("amd64", "new a"), "b": m.Image("amd64", "new b"),
			"c": m.Image("amd64", "new c"), "z": m.Image("amd64", "new z"),
		}
	})
	reg.Intercept(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || !strings.HasSuffix(r.URL.Path, "/manifests/z") {
			return false
		}
		w.WriteHeader(http.StatusForbidden)
		return true
	})
	report, err := layoutsync.Push(t.Context(), l, dest, opts)
	if !errors.Is(err, layoutsync.ErrUnauthorized) {
		t.Errorf("Push = %v, want ErrUnauthorized", err)
	}
	if diff := cmp.Diff(before, pushtest.ResolveTags(t, reg, "app")); diff != "" {
		t.Errorf("tags (-before +after):\n%s", diff)
	}
	states := map[string]layoutsync.TagState{}
	for _, tag := range report.Tags {
		states[tag.Tag] = tag.State
	}
	want := map[string]layoutsync.TagState{"a": layoutsync.TagRestored, "b": layoutsync.TagRestored, "c": layoutsync.TagRestored, "z": layoutsync.TagPending}
	if diff := cmp.Diff(want, states); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
}

// TestPushOnly404IsEmpty: no other answer about a tag means that it is not
// there.
func TestPushOnly404IsEmpty(t *testing.T) {
	for _, status := range []int{401, 403, 429, 500, 502, 503} {
		reg := regtest.Start(t, nil)
		l := pushtest.NewLayout(t, everything)
		opts := &layoutsync.PushOptions{Registry: pushtest.Options(t, reg)}
		reg.FailAt(2, status)
		_, err := layoutsync.Push(t.Context(), l, pushtest.Repository(t, reg, "app"), opts)
		if err == nil || errors.Is(err, layout.ErrNotFound) {
			t.Errorf("status %d: Push = %v", status, err)
		}
		if got := counts(reg); got["POST upload"]+got["PUT manifest"] > 0 {
			t.Errorf("status %d: sent %v", status, got)
		}
	}
}

// TestPushOddImages sends images that other programs change, or refuse: they go as
// they are.
func TestPushOddImages(t *testing.T) {
	reg := regtest.Start(t, nil)
	l := pushtest.NewLayout(t, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		image := func(config string, layers ...ocispec.Descriptor) ocispec.Descriptor {
			raw, err := layout.EncodeManifest(ocispec.Manifest{Config: m.Blob(config, ocispec.MediaTypeImageConfig), Layers: layers})
			return m.JSON(raw, err, ocispec.MediaTypeImageManifest)
		}
		here, gone := m.Blob("here", ocispec.MediaTypeImageLayerNonDistributableGzip), m.Blob("plain", ocispec.MediaTypeImageLayer) //nolint:staticcheck // old, and to be carried
		here.URLs = []string{"https://registry.invalid/layer"}
		gone.URLs = here.URLs
		return map[string]ocispec.Descriptor{
			"large-config": image(`{"architecture":"amd64","os":"linux","x":"` + strings.Repeat("x", 5<<20) + `"}`),
			"urls":         image(`{"architecture":"amd64","os":"linux","x":1}`, here, gone),
			"zstd":         m.Index(image(`{"architecture":"amd64","os":"linux","x":2}`, m.Blob("zstd", ocispec.MediaTypeImageLayerZstd))),
			"encrypted":    image(`{"architecture":"amd64","os":"linux","x":3}`, m.Blob("encrypted", ocispec.MediaTypeImageLayerGzip+"+encrypted")),
			"no-json":      image(`{`, m.Blob("any", "application/vnd.example.unknown")),
			"no-layers":    image(`{"architecture":"amd64","os":"linux","x":4}`),
		}
	})
	if _, err := layoutsync.Push(t.Context(), l, pushtest.Repository(t, reg, "app"), &layoutsync.PushOptions{Registry: pushtest.Options(t, reg)}); err != nil {
		t.Fatal(err)
	}
	for _, e := range entries(t, l) {
		remote := openRemote(t, reg, "app")
		for node, err := range layout.Walk(t.Context(), l, []ocispec.Descriptor{e}, nil) {
			if err != nil {
				t.Fatal(err)
			}
			if _, err := remote.Stat(t.Context(), node.Desc.Digest); err != nil {
				t.Errorf("%s: %v", layout.RefName(e), err)
			}
		}
	}
}

func TestTargets(t *testing.T) {
	for _, tt := range []struct {
		name    string
		fill    func(m pushtest.Maker) map[string]ocispec.Descriptor
		want    map[string]string // ref name -> tag
		wantErr error
		text    string
	}{
		{
			name: "ref names", fill: everything,
			want: map[string]string{"1.0": "1.0", "latest": "latest", "example.org/team/app:docker": "docker", "empty": "empty", "": ""},
		},
		{
			name: "no tag", wantErr: layout.ErrInvalid, text: "example.org/app",
			fill: func(m pushtest.Maker) map[string]ocispec.Descriptor {
				return map[string]ocispec.Descriptor{"good": m.Image("amd64"), "example.org/app": m.Image("arm64")}
			},
		},
		{
			name: "one tag twice", wantErr: layout.ErrAmbiguous, text: "example.org/b:1",
			fill: func(m pushtest.Maker) map[string]ocispec.Descriptor {
				return map[string]ocispec.Descriptor{"example.org/a:1": m.Image("amd64"), "example.org/b:1": m.Image("arm64")}
			},
		},
		{
			name: "no manifest", wantErr: layout.ErrInvalid, text: "text/plain",
			fill: func(m pushtest.Maker) map[string]ocispec.Descriptor {
				return map[string]ocispec.Descriptor{"file": m.Blob("x", "text/plain")}
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			targets, err := layoutsync.Targets(t.Context(), pushtest.NewLayout(t, tt.fill), layout.Reference{}, "")
			if !errors.Is(err, tt.wantErr) {
				t.Fatalf("Targets = %v, want %v", err, tt.wantErr)
			}
			if err != nil {
				if !strings.Contains(err.Error(), tt.text) {
					t.Errorf("%q does not name %q", err, tt.text)
				}
				return
			}
			got := map[string]string{}
			for _, target := range targets {
				got[target.RefName] = target.Tag
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("tags (-want +got):\n%s", diff)
			}
		})
	}
}
