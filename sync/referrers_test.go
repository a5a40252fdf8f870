package sync_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
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

func dashed(d digest.Digest) string { return strings.Replace(string(d), ":", "-", 1) }

// A signedLayout has referrers of an image, of the index above it, and of one
// another, and what cosign stores.
type signedLayout struct {
	*layout.Layout
	app, image, sbom, sbomSig, appSig, cosign, other ocispec.Descriptor
}

func newSigned(t *testing.T) *signedLayout {
	t.Helper()
	l := &signedLayout{}
	l.Layout = pushtest.NewLayout(t, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		l.image, l.other = m.Image("amd64", "base"), m.Image("arm64", "elsewhere")
		l.app = m.Index(l.image)
		plain := func(d ocispec.Descriptor) *ocispec.Descriptor {
			return &ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
		}
		l.sbom = m.Artifact("application/vnd.example.sbom", "sbom", plain(l.image))
		l.sbomSig = m.Artifact("application/vnd.example.signature", "signature of the sbom", plain(l.sbom))
		l.appSig = m.Artifact("application/vnd.example.signature", "signature of the index", plain(l.app))
		l.cosign = m.Artifact("application/vnd.dev.cosign", "cosign", nil)
		return map[string]ocispec.Descriptor{
			"app": l.app, "other": l.other, " 1": l.sbom, " 2": l.sbomSig, " 3": l.appSig,
			"example.org/team/app:" + dashed(l.image.Digest) + ".sig": l.cosign,
			" 4": m.Artifact("application/vnd.example.sbom", "elsewhere", plain(l.other)),
		}
	})
	return l
}

func pushApp(t *testing.T, reg *regtest.Registry, l *signedLayout, alone bool) *layoutsync.Report {
	t.Helper()
	opts := &layoutsync.PushOptions{Registry: pushtest.Options(t, reg)}
	var err error
	if opts.Targets, err = layoutsync.Targets(t.Context(), l, layout.Reference{RefName: "app"}, ""); err != nil {
		t.Fatal(err)
	}
	if !alone {
		more, err := layoutsync.ReferrerTargets(t.Context(), l, opts.Targets)
		if err != nil {
			t.Fatal(err)
		}
		opts.Targets = append(opts.Targets, more...)
	}
	report, err := layoutsync.Push(t.Context(), l, pushtest.Repository(t, reg, "team/app"), opts)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func openRepo(t *testing.T, reg *regtest.Registry, ref layout.Reference) layout.Source {
	t.Helper()
	opts := pushtest.Options(t, reg)
	ref.Transport, ref.Location = "docker", reg.Host+"/team/app"
	src, err := layoutsync.OpenSource(t.Context(), ref, &opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = src.Close() })
	return src
}

// what lists referrers as "digest by how".
func what(refs []layout.Referrer) []string {
	list := []string{}
	for _, r := range refs {
		list = append(list, string(r.Desc.Digest)+" by "+string(r.By))
	}
	slices.Sort(list)
	return list
}

// TestReferrersTravel: pushed with one ref name, referrers and their referrers
// are at the registry, in the lists that it does not keep itself, and come back;
// the tag of a signature stands before the tag of what it signs.
func TestReferrersTravel(t *testing.T) {
	l := newSigned(t)
	reg := regtest.Start(t, nil)
	report := pushApp(t, reg, l, false)
	wantTags := []string{"app", dashed(l.image.Digest) + ".sig"}
	var gotTags []string
	for _, tag := range report.Tags {
		gotTags = append(gotTags, tag.Tag)
	}
	if diff := cmp.Diff(wantTags, gotTags); diff != "" || len(report.Referrers) != 3 || len(report.Untagged) != 3 {
		t.Errorf("tags (-want +got):\n%s, lists %v, untagged %v", diff, report.Referrers, report.Untagged)
	}
	var order []string
	for _, r := range reg.Requests() {
		if i := strings.LastIndex(r.Path, "/manifests/"); r.Method == http.MethodPut && i > 0 && !strings.Contains(r.Path[i:], ":") {
			order = append(order, strings.TrimPrefix(r.Path[i:], "/manifests/"))
		}
	}
	// Lists of referrers, then signatures, then the rest.
	if n := len(order); n != 5 || order[3] != dashed(l.image.Digest)+".sig" || order[4] != "app" {
		t.Errorf("tags were written in the order %v", order)
	}

	for name, ref := range map[string]layout.Reference{"all tags": {}, "one tag": {RefName: "app"}} {
		src := openRepo(t, reg, ref)
		for _, tt := range []struct {
			of   ocispec.Descriptor
			want []string
		}{
			{l.app, []string{string(l.appSig.Digest) + " by subject"}},
			{l.image, []string{string(l.sbom.Digest) + " by subject", string(l.cosign.Digest) + " by refName"}},
			{l.sbom, []string{string(l.sbomSig.Digest) + " by subject"}},
			{l.sbomSig, []string{}},
			{l.other, []string{}}, // was not pushed
		} {
			slices.Sort(tt.want)
			found, err := layout.Referrers(t.Context(), src, tt.of.Digest)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, what(found)); diff != "" {
				t.Errorf("%s: referrers of %s (-want +got):\n%s", name, tt.of.Digest, diff)
			}
		}
	}
	src := openRepo(t, reg, layout.Reference{RefName: "app"})
	x, err := src.Index(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	below, err := layout.ReferrersBelow(t.Context(), src, x.Entries())
	if err != nil || len(below) != 4 {
		t.Errorf("%d referrers below app, %v; want 4", len(below), err)
	}
	for _, r := range below {
		compareTrees(t, l, src, []ocispec.Descriptor{{MediaType: r.Desc.MediaType, Digest: r.Desc.Digest, Size: r.Desc.Size}})
	}

	// From one registry to the next, all of it and again nothing.
	second := regtest.Start(t, nil)
	opts := pushtest.Options(t, second)
	for _, want := range []bool{true, false} {
		all := openRepo(t, reg, layout.Reference{})
		report, err := layoutsync.Push(t.Context(), all, pushtest.Repository(t, second, "team/app"), &layoutsync.PushOptions{Registry: opts})
		if err != nil || report.Changed() != want {
			t.Errorf("registry to registry: changed %v, %v", report.Changed(), err)
		}
	}
	if diff := cmp.Diff(pushtest.ResolveTags(t, reg, "team/app"), pushtest.ResolveTags(t, second, "team/app")); diff != "" {
		t.Errorf("tags (-first +second):\n%s", diff)
	}
}

func TestReferrersStay(t *testing.T) {
	l := newSigned(t)
	reg := regtest.Start(t, nil)
	if report := pushApp(t, reg, l, true); len(report.Tags) != 1 || len(report.Untagged) != 0 || report.Referrers != nil {
		t.Errorf("%+v", report)
	}
	if found, err := layout.Referrers(t.Context(), openRepo(t, reg, layout.Reference{RefName: "app"}), l.image.Digest); err != nil || len(found) != 0 {
		t.Errorf("referrers %v, %v", found, err)
	}
}

// lists answers for a registry that keeps lists of referrers, which the
// reference registry does not, from the manifests that it is sent: it says so in
// the answer to the PUT, and gives a page for each entry.
type lists struct {
	mu  sync.Mutex
	all map[string][]ocispec.Descriptor
}

func (k *lists) page(w http.ResponseWriter, r *http.Request) bool {
	_, subject, ok := strings.Cut(r.URL.Path, "/referrers/")
	if !ok {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	found := k.all[subject]
	if r.URL.RawQuery == "page=2" {
		found = found[1:]
	} else if len(found) > 1 {
		w.Header().Set("Link", "<"+r.URL.Path+`?page=2>; rel="next"`)
		found = found[:1]
	}
	x := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: append([]ocispec.Descriptor{}, found...)}
	x.SchemaVersion = 2
	w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
	_ = json.NewEncoder(w).Encode(x)
	return true
}

// put notes the subject of a manifest, and lets the registry take it.
func (k *lists) put(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(raw))
	var m ocispec.Manifest
	if json.Unmarshal(raw, &m) != nil || m.Subject == nil {
		return
	}
	subject := string(m.Subject.Digest)
	desc := ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw)), ArtifactType: m.ArtifactType, Annotations: m.Annotations}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !slices.ContainsFunc(k.all[subject], func(d ocispec.Descriptor) bool { return d.Digest == desc.Digest }) {
		k.all[subject] = append(k.all[subject], desc)
	}
	w.Header().Set("OCI-Subject", subject)
}

// TestReferrerMissing: a referrer that is named and not there is an error that
// tells of what it is one, before anything is sent; without referrers the content
// goes.
func TestReferrerMissing(t *testing.T) {
	for _, tt := range []struct {
		name string
		gone func(l *signedLayout) ocispec.Descriptor
	}{
		{"tag of cosign", func(l *signedLayout) ocispec.Descriptor { return l.cosign }},
		{"in a list", func(l *signedLayout) ocispec.Descriptor {
			gone := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("gone"), Size: 4}
			pushtest.Edit(t, l.Layout, func(m pushtest.Maker) map[string]ocispec.Descriptor {
				return map[string]ocispec.Descriptor{dashed(l.image.Digest): m.Index(gone)}
			})
			return gone
		}},
		{"layer of a signature", func(l *signedLayout) ocispec.Descriptor {
			return ocispec.Descriptor{Digest: digest.FromString("cosign"), Size: 6}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, reg := newSigned(t), regtest.NewMemory(nil)
			gone := tt.gone(l)
			if err := os.Remove(filepath.Join(l.Dir(), "blobs", "sha256", gone.Digest.Encoded())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			repo, err := layoutsync.ParseRepository(regtest.MemoryHost + "/app")
			if err != nil {
				t.Fatal(err)
			}
			opts := &layoutsync.PushOptions{Registry: pushtest.Options(t, nil)}
			opts.Registry.Transport = reg.Transport()
			if opts.Targets, err = layoutsync.Targets(t.Context(), l, layout.Reference{RefName: "app"}, ""); err != nil {
				t.Fatal(err)
			}
			more, err := layoutsync.ReferrerTargets(t.Context(), l, opts.Targets)
			if err == nil { // it is found when it is sent, and no tag moves
				with := *opts
				with.Targets = append(slices.Clip(opts.Targets), more...)
				_, err = layoutsync.Push(t.Context(), l, repo, &with)
			} else if !strings.Contains(err.Error(), string(l.image.Digest)) {
				t.Errorf("error %q does not name %s", err, l.image.Digest)
			}
			if !errors.Is(err, layout.ErrNotFound) || !strings.Contains(err.Error(), string(gone.Digest)) {
				t.Errorf("error %v, want that %s is not found", err, gone.Digest)
			}
			if tags := reg.Tags("app"); len(tags) > 0 {
				t.Errorf("tags %v", tags)
			}
			if _, err := layoutsync.Push(t.Context(), l, repo, opts); err != nil {
				t.Errorf("without referrers: %v", err)
			}
		})
	}
}

// TestReferrersAPI: where the registry keeps the lists, they are read, page by
// page, and none is kept under a tag.
func TestReferrersAPI(t *testing.T) {
	l := newSigned(t)
	reg := regtest.Start(t, nil)
	keeper := &lists{all: map[string][]ocispec.Descriptor{}}
	reg.Intercept(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") {
			keeper.put(w, r)
		}
		return keeper.page(w, r)
	})
	report := pushApp(t, reg, l, false)
	if len(report.Referrers) != 0 {
		t.Errorf("lists %v were written", report.Referrers)
	}
	pushtest.Edit(t, l.Layout, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		image := ocispec.Descriptor{MediaType: l.image.MediaType, Digest: l.image.Digest, Size: l.image.Size}
		return map[string]ocispec.Descriptor{" 5": m.Artifact("application/vnd.example.late", "late", &image)}
	})
	if report = pushApp(t, reg, l, false); report.Manifests != 1 {
		t.Errorf("%d manifests were sent for one more referrer", report.Manifests)
	}
	src := openRepo(t, reg, layout.Reference{RefName: "app"})
	found, err := layout.Referrers(t.Context(), src, l.image.Digest)
	if err != nil || len(found) != 3 || found[0].Desc.ArtifactType != "application/vnd.example.sbom" {
		t.Errorf("referrers %v, %v", found, err)
	}
	if below, err := layout.ReferrersBelow(t.Context(), src, []ocispec.Descriptor{l.app}); err != nil || len(below) != 5 {
		t.Errorf("%d referrers below app, %v; want 5", len(below), err)
	}
	for tag := range pushtest.ResolveTags(t, reg, "team/app") {
		if tag != "app" && !strings.HasSuffix(tag, ".sig") {
			t.Errorf("tag %s", tag)
		}
	}

	// What the registry says is checked, and an error is no empty list.
	for _, tt := range []struct {
		status int
		body   string
		want   error
	}{
		{http.StatusUnauthorized, "", layoutsync.ErrUnauthorized},
		{http.StatusOK, `{"manifests":[{"mediaType":"a/b","digest":"sha256:../..","size":1}]}`, layout.ErrInvalid},
	} {
		reg.Intercept(func(_ int, w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/referrers/") {
				return false
			}
			w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
			w.WriteHeader(tt.status)
			_, _ = w.Write([]byte(tt.body))
			return true
		})
		if found, err := layout.Referrers(t.Context(), openRepo(t, reg, layout.Reference{RefName: "app"}), l.app.Digest); !errors.Is(err, tt.want) {
			t.Errorf("status %d: %v, %v; want %v", tt.status, found, err, tt.want)
		}
	}
	reg.Intercept(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/referrers/") {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		return false
	})
	if found, err := layout.Referrers(t.Context(), openRepo(t, reg, layout.Reference{RefName: "app"}), l.app.Digest); err == nil {
		t.Errorf("status 503: %v, no error", found)
	}
}
