package sync_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
	"github.com/gardenlinux/gloci-layout/sync/pushtest"
	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// pull pulls tags of a repository, all of them if there are none, into l and
// names what came.
func pull(t *testing.T, reg *regtest.Registry, name string, l *layout.Layout, opts *layoutsync.PullOptions, tags ...string) ([]layoutsync.Pulled, error) {
	t.Helper()
	registry := pushtest.Options(t, reg)
	choose := func(all []string) []string {
		if len(tags) == 0 {
			return all
		}
		return slices.DeleteFunc(all, func(tag string) bool { return !slices.Contains(tags, tag) })
	}
	r, err := layoutsync.OpenTags(t.Context(), pushtest.Repository(t, reg, name), choose, &registry)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return pullAll(t, r, l, opts)
}

// pullAll pulls all that r has.
func pullAll(t *testing.T, r *layoutsync.Remote, l *layout.Layout, opts *layoutsync.PullOptions) ([]layoutsync.Pulled, error) {
	t.Helper()
	stage, err := l.Stage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stage.Close()
	pulled, err := layoutsync.Pull(t.Context(), r, entries(t, r), stage, opts)
	if err != nil {
		return nil, err
	}
	return pulled, stage.Update(t.Context(), func(tx *layout.Tx) error {
		for _, p := range pulled {
			if name := layout.RefName(p.Desc); name != "" {
				tx.SetRef(name, p.Desc)
			} else {
				tx.Index().Add(p.Desc)
			}
		}
		return nil
	})
}

func names(l []ocispec.Descriptor) []string {
	var list []string
	for _, e := range l {
		list = append(list, layout.RefName(e))
	}
	slices.Sort(list)
	return list
}

func empty(m pushtest.Maker) map[string]ocispec.Descriptor { return nil }

// TestPull pulls back what was pushed, with referrers of both kinds: one in the
// list that the push has kept for a registry without the API, one under a tag
// of cosign, which refers to the index.
func TestPull(t *testing.T) {
	reg := regtest.Start(t, nil)
	src := pushtest.NewLayout(t, everything)
	pushtest.Edit(t, src, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		app := digestOf(t, src, "1.0")
		return map[string]ocispec.Descriptor{"sha256-" + app.Encoded() + ".sig": m.Artifact("application/vnd.dev.cosign.simplesigning.v1+json", "signature", nil)}
	})
	if _, err := layoutsync.Push(t.Context(), src, pushtest.Repository(t, reg, "team/app"), &layoutsync.PushOptions{Registry: pushtest.Options(t, reg)}); err != nil {
		t.Fatal(err)
	}
	reg.Reset()
	all := pushtest.NewLayout(t, empty)
	if _, err := pull(t, reg, "team/app", all, nil); err != nil {
		t.Fatal(err)
	}
	compareTrees(t, src, all, entries(t, src))
	want := names(entries(t, src))
	want[slices.Index(want, "example.org/team/app:docker")] = "docker"
	slices.Sort(want)
	if got := names(entries(t, all)); !slices.Equal(got, want) {
		t.Errorf("ref names %q, want %q", got, want)
	}
	// Tags: the list, to choose and to find referrers; a HEAD for each.
	// Documents: one GET each, and one for the list of referrers. Blobs likewise.
	n := counts(reg)
	t.Log(n)
	// The signature is one more of each, and "{}" is in the manifests.
	documents, blobs := documentsOfEverything+2, blobsOfEverything
	tags := tagsOfEverything + 2
	for kind, want := range map[string]int{"GET manifest": documents, "GET blob": blobs, "GET other": 2, "HEAD manifest": tags + 2} {
		if n[kind] != want {
			t.Errorf("%d requests %s, want %d", n[kind], kind, want)
		}
	}

	// One tag brings its signature and the SBOM of its member, and no other tag.
	one := pushtest.NewLayout(t, empty)
	pulled, err := pull(t, reg, "team/app", one, nil, "1.0")
	if err != nil {
		t.Fatal(err)
	}
	if len(pulled) != 3 || pulled[0].Subject != "" {
		t.Errorf("pulled %+v", pulled)
	}
	for _, p := range pulled[1:] {
		if p.Subject == "" {
			t.Errorf("%s refers to nothing", p.Desc.Digest)
		}
	}
	if res, err := layout.Verify(t.Context(), one, nil); err != nil || len(res.Findings) > 0 {
		t.Errorf("verify: %+v, %v", res, err)
	}
	if pulled, err = pull(t, reg, "team/app", pushtest.NewLayout(t, empty), &layoutsync.PullOptions{NoReferrers: true}, "1.0"); err != nil || len(pulled) != 1 {
		t.Errorf("without referrers: %+v, %v", pulled, err)
	}

	// What is there already is not fetched again.
	reg.Reset()
	if _, err := pull(t, reg, "team/app", all, &layoutsync.PullOptions{NoReferrers: true}); err != nil {
		t.Fatal(err)
	}
	if n := reg.Count("GET", "/blobs/"); n != 0 {
		t.Errorf("%d blobs were fetched again", n)
	}
}

// TestPullReferrersAPI pulls from a registry that lists referrers itself.
func TestPullReferrersAPI(t *testing.T) {
	reg := regtest.Start(t, nil)
	var subject, sbom ocispec.Descriptor
	src := pushtest.NewLayout(t, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		subject = m.Image("amd64", "layer")
		sbom = m.Artifact("application/vnd.example.sbom", "sbom", &subject)
		return map[string]ocispec.Descriptor{"v1": subject, " sbom": sbom}
	})
	if _, err := layoutsync.Push(t.Context(), src, pushtest.Repository(t, reg, "app"), &layoutsync.PushOptions{Registry: pushtest.Options(t, reg)}); err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	answer := func(list string) {
		reg.Intercept(func(_ int, w http.ResponseWriter, r *http.Request) bool {
			_, d, ok := strings.Cut(r.URL.Path, "/referrers/")
			if !ok {
				return false
			}
			asked.Add(1)
			w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
			if d != string(subject.Digest) {
				list = ""
			}
			_, _ = fmt.Fprintf(w, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, ocispec.MediaTypeImageIndex, list)
			return true
		})
	}
	entry := fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"artifactType":%q,"annotations":{"a":"b"}}`, sbom.MediaType, sbom.Digest, sbom.Size, sbom.ArtifactType)
	answer(entry)
	l := pushtest.NewLayout(t, empty)
	pulled, err := pull(t, reg, "app", l, nil, "v1")
	if err != nil {
		t.Fatal(err)
	}
	if len(pulled) != 2 || pulled[1].Desc.Digest != sbom.Digest || pulled[1].Subject != subject.Digest || pulled[1].Desc.Annotations["a"] != "b" {
		t.Errorf("pulled %+v", pulled)
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("asked for %d lists, want one for the image and one for its SBOM", n)
	}
	compareTrees(t, src, l, entries(t, src))

	// A referrer that is listed and not there is an error, not less content.
	gone := digest.FromString("gone")
	answer(fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":7}`, ocispec.MediaTypeImageManifest, gone))
	if _, err := pull(t, reg, "app", pushtest.NewLayout(t, empty), nil, "v1"); !errors.Is(err, layout.ErrNotFound) || !strings.Contains(err.Error(), string(gone)) {
		t.Errorf("error %v", err)
	}
	for _, bad := range []string{`{"mediaType":"x","digest":"sha256:../../x","size":1}`, `{"mediaType":"text/plain","digest":"` + string(gone) + `","size":1}`} {
		answer(bad)
		if _, err := pull(t, reg, "app", pushtest.NewLayout(t, empty), nil, "v1"); !errors.Is(err, layout.ErrInvalid) {
			t.Errorf("%s: error %v", bad, err)
		}
	}
}

// TestPullSelected pulls part of an index, alone and in a sparse index.
func TestPullSelected(t *testing.T) {
	reg := regtest.Start(t, nil)
	src := pushtest.NewLayout(t, everything)
	if _, err := layoutsync.Push(t.Context(), src, pushtest.Repository(t, reg, "app"), &layoutsync.PushOptions{Registry: pushtest.Options(t, reg)}); err != nil {
		t.Fatal(err)
	}
	amd64 := &layout.Selector{Platform: &ocispec.Platform{OS: "linux", Architecture: "amd64"}}
	l := pushtest.NewLayout(t, empty)
	pulled, err := pull(t, reg, "app", l, &layoutsync.PullOptions{Select: amd64}, "1.0")
	if err != nil {
		t.Fatal(err)
	}
	if d := digestOf(t, l, "1.0"); d == digestOf(t, src, "1.0") || pulled[0].Desc.Digest != d {
		t.Errorf("1.0 is %s", d)
	}
	if res, err := layout.Verify(t.Context(), l, nil); err != nil || len(res.Findings) > 0 {
		t.Errorf("verify: %+v, %v", res, err)
	}

	sparse := pushtest.NewLayout(t, empty)
	if _, err := pull(t, reg, "app", sparse, &layoutsync.PullOptions{Select: amd64, Sparse: true, NoReferrers: true}, "1.0"); err != nil {
		t.Fatal(err)
	}
	if d := digestOf(t, sparse, "1.0"); d != digestOf(t, src, "1.0") {
		t.Errorf("the index is %s", d)
	}
	if res, err := layout.Verify(t.Context(), sparse, &layout.VerifyOptions{Sparse: true}); err != nil || len(res.Findings) > 0 || res.Documents != 2 {
		t.Errorf("verify: %+v, %v", res, err)
	}
	if res, err := layout.Verify(t.Context(), sparse, nil); err != nil || len(res.Findings) == 0 {
		t.Errorf("verify sees no gap: %+v, %v", res, err)
	}

	nothing := &layout.Selector{ArtifactType: "application/vnd.example.none"}
	if _, err := pull(t, reg, "app", pushtest.NewLayout(t, empty), &layoutsync.PullOptions{Select: nothing}, "1.0"); !errors.Is(err, layout.ErrNotFound) {
		t.Errorf("error %v", err)
	}
	if _, err := pull(t, reg, "app", pushtest.NewLayout(t, empty), &layoutsync.PullOptions{Select: &layout.Selector{}}, "1.0"); !errors.Is(err, layout.ErrAmbiguous) {
		t.Errorf("error %v", err)
	}
}

// TestPullResume breaks the transfer of a blob and begins anew, as another
// process would.
func TestPullResume(t *testing.T) {
	reg := regtest.Start(t, nil)
	content := strings.Repeat("0123456789abcde\n", 1<<16) // 1 MiB
	src := pushtest.NewLayout(t, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		return map[string]ocispec.Descriptor{"v1": m.Artifact("application/vnd.example", content, nil)}
	})
	if _, err := layoutsync.Push(t.Context(), src, pushtest.Repository(t, reg, "app"), &layoutsync.PushOptions{Registry: pushtest.Options(t, reg)}); err != nil {
		t.Fatal(err)
	}
	blob := digest.FromString(content)
	const sent = 300 << 10
	breaks := func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, string(blob)) {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		_, _ = w.Write([]byte(content[:sent]))
		panic(http.ErrAbortHandler)
	}
	for name, tt := range map[string]struct {
		damage func(t *testing.T, part string)
		ranges []string // of the requests for the blob in the second try
	}{
		"goes on": {nil, []string{fmt.Sprintf("bytes=%d-", sent)}},
		"damaged": {func(t *testing.T, part string) {
			f, err := os.OpenFile(part, os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteAt([]byte("X"), 1000)
			}
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
		}, []string{fmt.Sprintf("bytes=%d-", sent), ""}},
		"too long": {func(t *testing.T, part string) {
			if err := os.WriteFile(part, []byte(content+"more"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, []string{""}},
		"whole": {func(t *testing.T, part string) {
			if err := os.WriteFile(part, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}, nil},
		"a link": {func(t *testing.T, part string) {
			if err := errors.Join(os.Remove(part), os.Symlink("/etc/passwd", part)); err != nil {
				t.Fatal(err)
			}
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			l := pushtest.NewLayout(t, empty)
			reg.Reset()
			reg.Intercept(breaks)
			if _, err := pull(t, reg, "app", l, nil, "v1"); err == nil {
				t.Fatal("no error")
			}
			part := filepath.Join(l.Dir(), ".gloci", "part-sha256-"+blob.Encoded())
			if info, err := os.Lstat(part); err != nil || info.Size() != sent {
				t.Fatalf("%v, %v", info, err)
			}
			if got := entries(t, l); len(got) != 0 {
				t.Errorf("index.json names %v", got)
			}
			if tt.damage != nil {
				tt.damage(t, part)
			}
			reg.Reset()
			_, err := pull(t, reg, "app", l, nil, "v1")
			if name == "a link" {
				if !errors.Is(err, layout.ErrUnsafe) {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var ranges []string
			for _, r := range reg.Requests() {
				if strings.HasSuffix(r.Path, string(blob)) {
					ranges = append(ranges, r.Header.Get("Range"))
				}
			}
			if diff := cmp.Diff(tt.ranges, ranges); diff != "" {
				t.Errorf("ranges (-want +got):\n%s", diff)
			}
			compareTrees(t, src, l, entries(t, src))
			if _, err := os.Lstat(part); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is still there: %v", part, err)
			}
		})
	}
}
