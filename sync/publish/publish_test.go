package publish_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
	"github.com/gardenlinux/gloci-layout/sync/publish"
	"github.com/gardenlinux/gloci-layout/sync/pushtest"
	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

func TestPublish(t *testing.T) {
	m := regtest.NewMemory(nil)
	watch(t, m)
	dest := memoryRepository(t)
	one := newKit(t, func(m pushtest.Maker) []ocispec.Descriptor {
		return []ocispec.Descriptor{build(m, base(0), "kernel 0"), m.Image("amd64", "layer"), m.Index(build(m, base(1), "kernel 1"))}
	})
	opts := publishing(memoryOptions(t, m), one)
	opts.Aliases = []string{"latest", "2150"}
	report := mustPublish(t, dest, one, opts)
	tags := m.Tags(repoName)
	for tag, want := range map[string]bool{flavorTag(0): true, flavorTag(1): true, "amd64-" + version: true, version: true, "latest": true, "2150": true} {
		if (tags[tag] != "") != want {
			t.Errorf("tag %s: %q", tag, tags[tag])
		}
	}
	if len(tags) != 6 || tags["latest"] != tags[version] || report.Digest != tags[version] || report.Entries != 3 || report.Rounds != 2 {
		t.Errorf("tags %v, report %+v", tags, report)
	}
	got := published(t, m, version)
	if len(got) != 3 || got["linux/amd64"] != tags["amd64-"+version] {
		t.Errorf("index %v", got)
	}
	// The entries are those that the build has made.
	doc, err := layout.ParseIndex(m.Manifest(repoName, tags[version]))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range doc.Entries() {
		if e.Annotations["cname"] == base(0) && (e.Annotations["feature_set"] != "base" || e.Platform == nil || e.Platform.OSVersion != version) {
			t.Errorf("entry %+v", e)
		}
	}

	// again: nothing is written
	before := len(m.History())
	m.Reset()
	report = mustPublish(t, dest, one, opts)
	if n := len(m.History()) - before; n != 0 || report.Rounds != 1 || m.Count("PUT", "") != 0 {
		t.Errorf("%d changes in %d rounds: %v", n, report.Rounds, m.History()[before:])
	}

	// another machine, then a removal, then the flavour again with other content
	two := flavorKit(t, 2)
	mustPublish(t, dest, two, publishing(memoryOptions(t, m), two))
	if got := published(t, m, version); len(got) != 4 || got["linux/amd64"] == "" {
		t.Errorf("index %v", got)
	}
	opts = publishing(memoryOptions(t, m), nil)
	opts.Remove = []string{"flavor0-amd64", "linux/amd64"}
	report = mustPublish(t, dest, nil, opts)
	if err := wantFlavors(t, m, 1, 2); err != nil || len(report.Removed) != 2 || report.Removed[0].State != layoutsync.TagMoved {
		t.Errorf("%v, report %+v", err, report)
	}
	again := newKit(t, func(m pushtest.Maker) []ocispec.Descriptor {
		return []ocispec.Descriptor{build(m, strings.Replace(base(0), "abc12345", "def67890", 1), "kernel 0, rebuilt")}
	})
	mustPublish(t, dest, again, publishing(memoryOptions(t, m), again))
	if got := published(t, m, version); len(got) != 3 || got[base(0)] != "" || got[strings.Replace(base(0), "abc12345", "def67890", 1)] == "" {
		t.Errorf("index %v", got)
	}
}

func TestPublishDryRun(t *testing.T) {
	m := regtest.NewMemory(nil)
	k := flavorKit(t, 0, 1)
	first := publishing(memoryOptions(t, m), flavorKit(t, 5))
	first.Roots = nil
	opts := publishing(memoryOptions(t, m), k)
	opts.DryRun = true
	planned, err := publish.Run(t.Context(), k, memoryRepository(t), opts)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.History()) != 0 || planned.Blobs != 3 || len(planned.Parts) != 2 || planned.Parts[0].State != layoutsync.TagPending {
		t.Errorf("report %+v, history %v", planned, m.History())
	}
	opts.DryRun = false
	if report := mustPublish(t, memoryRepository(t), k, opts); report.Digest != planned.Digest || report.Entries != planned.Entries {
		t.Errorf("planned %s, got %s", planned.Digest, report.Digest)
	}
}

func TestPublishErrors(t *testing.T) {
	m := regtest.NewMemory(nil)
	other := newKit(t, func(m pushtest.Maker) []ocispec.Descriptor {
		return []ocispec.Descriptor{build(m, "x-amd64-1.0.0-abc12345", "x"), m.Artifact("application/vnd.example", "y", nil)}
	})
	twice := newKit(t, func(m pushtest.Maker) []ocispec.Descriptor {
		return []ocispec.Descriptor{build(m, base(0), "a"), build(m, base(0), "b")}
	})
	good := flavorKit(t, 0)
	for _, tt := range []struct {
		name string
		kit  *kit
		edit func(*publish.Options)
		want error
	}{
		{name: "no parts", kit: other, want: layout.ErrInvalid},
		{name: "one tag for two", kit: twice, want: layout.ErrAmbiguous},
		{name: "version", kit: good, edit: func(o *publish.Options) { o.Version = "-x" }, want: layout.ErrInvalid},
		{name: "alias", kit: good, edit: func(o *publish.Options) { o.Aliases = []string{version + "-x"} }, want: layout.ErrConflict},
		{name: "remove", kit: good, edit: func(o *publish.Options) { o.Remove = []string{"x"} }, want: layout.ErrInvalid},
		{name: "both", kit: good, edit: func(o *publish.Options) { o.Remove = []string{"flavor0-amd64"} }, want: layout.ErrConflict},
		{name: "expect", kit: good, edit: func(o *publish.Options) { o.Expect = []string{"x"} }, want: layout.ErrInvalid},
	} {
		opts := publishing(memoryOptions(t, m), tt.kit)
		if tt.edit != nil {
			tt.edit(opts)
		}
		if _, err := publish.Run(t.Context(), tt.kit, memoryRepository(t), opts); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	if len(m.History()) != 0 {
		t.Errorf("written: %v", m.History())
	}
}

// What a program without the protocol has put under the version's tag is kept,
// with fields that nobody knows; a tagged image counts before an untagged one.
func TestPublishAdopts(t *testing.T) {
	podman := func(layers ...string) *layout.Layout {
		return pushtest.NewLayout(t, func(m pushtest.Maker) map[string]ocispec.Descriptor {
			amd64, arm64 := m.Image("amd64", layers...), m.Image("arm64", layers...)
			doc := m.Artifact("application/vnd.example.docs", "docs "+layers[0], nil)
			raw := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[`+
				`{"mediaType":%q,"digest":%q,"size":%d,"platform":{"architecture":"amd64","os":"linux"},"x-unknown":[1]},`+
				`{"mediaType":%q,"digest":%q,"size":%d,"platform":{"architecture":"arm64","os":"linux"}},`+
				`{"mediaType":%q,"digest":%q,"size":%d,"annotations":{"note":"kept"}}]}`,
				amd64.MediaType, amd64.Digest, amd64.Size, arm64.MediaType, arm64.Digest, arm64.Size, doc.MediaType, doc.Digest, doc.Size)
			return map[string]ocispec.Descriptor{"index": m.Blob(raw, ocispec.MediaTypeImageIndex), "arm64-" + version: arm64}
		})
	}
	m := regtest.NewMemory(nil)
	watch(t, m)
	dest := memoryRepository(t)
	putForeign(t, m, podman("first"), version)
	first := published(t, m, version)
	k := flavorKit(t, 0)
	report := mustPublish(t, dest, k, publishing(memoryOptions(t, m), k))
	got := published(t, m, version)
	if len(report.Adopted) != 2 || len(got) != 4 || got["linux/amd64"] != first["linux/amd64"] || got["linux/arm64"] != first["linux/arm64"] {
		t.Errorf("adopted %+v, index %v, was %v", report.Adopted, got, first)
	}
	raw := string(m.Manifest(repoName, m.Tags(repoName)[version]))
	for _, want := range []string{`"x-unknown":[1]`, `"note":"kept"`} {
		if !strings.Contains(raw, want) {
			t.Errorf("the index lacks %s: %s", want, raw)
		}
	}

	// It pushes again, in our absence: the new amd64 image takes the place of the
	// old one, whose tag becomes a tombstone; the docs of both stay.
	putForeign(t, m, podman("second"), version)
	second := published(t, m, version)
	report = mustPublish(t, dest, nil, publishing(memoryOptions(t, m), nil))
	got = published(t, m, version)
	if len(report.Adopted) != 2 || len(got) != 5 || got["linux/amd64"] != second["linux/amd64"] || got["linux/arm64"] != second["linux/arm64"] || got[base(0)] == "" {
		t.Errorf("adopted %+v, index %v, was %v", report.Adopted, got, second)
	}

	// A tag of our own kind counts before what was adopted.
	own := newKit(t, func(m pushtest.Maker) []ocispec.Descriptor { return []ocispec.Descriptor{m.Image("amd64", "own")} })
	mustPublish(t, dest, own, publishing(memoryOptions(t, m), own))
	got = published(t, m, version)
	if len(got) != 5 || got["linux/amd64"] != m.Tags(repoName)["amd64-"+version] {
		t.Errorf("index %v", got)
	}
	// What was adopted can be removed by its tag.
	opts := publishing(memoryOptions(t, m), nil)
	opts.Remove = tagsLike(m, "-adopted-")
	mustPublish(t, dest, nil, opts)
	if got = published(t, m, version); len(got) != 3 {
		t.Errorf("index %v", got)
	}
}

// A single image under the version's tag is no reason to fail, and not lost.
func TestPublishAdoptsImage(t *testing.T) {
	m := regtest.NewMemory(nil)
	l := pushtest.NewLayout(t, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		return map[string]ocispec.Descriptor{"index": m.Image("amd64", "x")}
	})
	putForeign(t, m, l, version)
	image := m.Tags(repoName)[version]
	k := flavorKit(t, 0)
	mustPublish(t, memoryRepository(t), k, publishing(memoryOptions(t, m), k))
	if got := published(t, m, version); len(got) != 2 || got["linux/amd64"] != image {
		t.Errorf("index %v, the image is %s", got, image)
	}
}

// Flavours that another tool has tagged by its own rules are parts by their
// annotations; tags of other versions that look alike are not.
func TestPublishReadsAnnotations(t *testing.T) {
	m := regtest.NewMemory(nil)
	dest := memoryRepository(t)
	old := pushtest.NewLayout(t, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		return map[string]ocispec.Descriptor{
			version + "-" + base(1) + "-amd64": build(m, base(1), "kernel 1"),
			version + "-" + base(2) + "-amd64": build(m, base(2), "kernel 2, old"),
			version + "-1-x-amd64":             build(m, "x-amd64-2150.1.0-abc12345", "x"),
			version + "-other":                 build(m, "y-amd64-2150.1-abc12345", "y"),
			version + "-docs":                  m.Artifact("application/vnd.example", "docs", nil),
			"arm64-" + version:                 m.Image("arm64", "x"),
			"amd64-2150.1":                     m.Image("amd64", "x"),
		}
	})
	targets, err := layoutsync.Targets(t.Context(), old, layout.Reference{}, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := layoutsync.Push(t.Context(), old, dest, &layoutsync.PushOptions{Registry: memoryOptions(t, m), Targets: targets}); err != nil {
		t.Fatal(err)
	}
	k := flavorKit(t, 2)
	mustPublish(t, dest, k, publishing(memoryOptions(t, m), k))
	got := published(t, m, version)
	if len(got) != 4 || got[base(1)] == "" || got["linux/arm64"] == "" || got["x-amd64-2150.1.0-abc12345"] == "" || got[base(2)] != m.Tags(repoName)[flavorTag(2)] {
		t.Errorf("index %v", got)
	}
	// A tombstone takes out the old tool's tag, too.
	opts := publishing(memoryOptions(t, m), nil)
	opts.Remove = []string{"flavor1-amd64"}
	mustPublish(t, dest, nil, opts)
	if got := published(t, m, version); len(got) != 3 || got[base(1)] != "" {
		t.Errorf("index %v", got)
	}
}

// Every order in which flavours are published gives the same bytes.
func TestPublishSameBytes(t *testing.T) {
	var want string
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 2, 0}} {
		m := regtest.NewMemory(nil)
		for _, i := range order {
			k := newKit(t, func(m pushtest.Maker) []ocispec.Descriptor {
				// images that tell nothing apart but their digests
				return []ocispec.Descriptor{build(m, base(i), fmt.Sprint("kernel ", i)), m.Image([]string{"amd64", "arm64", "riscv64"}[i], "layer")}
			})
			mustPublish(t, memoryRepository(t), k, publishing(memoryOptions(t, m), k))
		}
		got := string(m.Manifest(repoName, m.Tags(repoName)[version]))
		if want == "" {
			want = got
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("order %v:\n%s", order, diff)
		}
	}
}

// Entries that nothing but their digests tell apart have a fixed order, too,
// whichever order they come in. The second half goes through the map of tags,
// whose order is another one each time, or happens to be the same.
func TestPublishSameBytesOfEqualEntries(t *testing.T) {
	start := regtest.NewMemory(nil)
	variants := pushtest.NewLayout(t, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		var entries []ocispec.Descriptor
		for i := range 6 {
			entries = append(entries, m.Image("amd64", fmt.Sprint("variant ", i)))
		}
		return map[string]ocispec.Descriptor{"index": m.Index(entries...)}
	})
	putForeign(t, start, variants, version)
	x, err := variants.Index(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	entries := indexOf(t, variants, x.Entries()[0]).Entries()
	var want string
	for i := range entries {
		// The first by turns, and both directions.
		turned := append(slices.Clone(entries[i:]), entries[:i]...)
		for range 2 {
			raw, err := publish.Index(turned)
			if err != nil {
				t.Fatal(err)
			}
			if got := string(raw); want == "" {
				want = got
			} else if got != want {
				t.Fatalf("other bytes of the same entries:\n%s\n%s", got, want)
			}
			slices.Reverse(turned)
		}
	}
	for range 5 {
		m := start.Clone()
		report := mustPublish(t, memoryRepository(t), nil, publishing(memoryOptions(t, m), nil))
		if report.Entries != 6 {
			t.Fatalf("%d entries", report.Entries)
		}
		if got := string(m.Manifest(repoName, report.Digest)); got != want {
			t.Errorf("other bytes of the same tags:\n%s\n%s", got, want)
		}
	}
}

// A rollback leaves alone what somebody else has moved meanwhile.
func TestPublishRollsBackOwnOnly(t *testing.T) {
	m := regtest.NewMemory(nil)
	theirs := newKit(t, rebuild)
	mustPublish(t, memoryRepository(t), theirs, publishing(memoryOptions(t, m), theirs))
	rebuilt := m.Tags(repoName)[flavorTag(0)]
	other := flavorKit(t, 0, 1)
	mustPublish(t, memoryRepository(t), flavorKit(t, 2), publishing(memoryOptions(t, m), flavorKit(t, 2)))
	m.Inject(func(_ int, r *http.Request) *regtest.Fault {
		if r.Method != http.MethodPut || !strings.HasSuffix(r.URL.Path, "/"+version) {
			return nil
		}
		m.Inject(nil)
		// Somebody else publishes flavour 0 just now, and this write is refused.
		req, err := http.NewRequestWithContext(r.Context(), http.MethodPut, "https://"+regtest.MemoryHost+"/v2/"+repoName+"/manifests/"+flavorTag(0), strings.NewReader(string(m.Manifest(repoName, rebuilt))))
		if err != nil {
			t.Error(err)
			return nil
		}
		req.Header.Set("Content-Type", ocispec.MediaTypeImageManifest)
		if _, err := m.Transport().RoundTrip(req); err != nil {
			t.Error(err)
		}
		return &regtest.Fault{Kind: regtest.Answer, Status: http.StatusForbidden}
	})
	report, err := publish.Run(t.Context(), other, memoryRepository(t), publishing(memoryOptions(t, m), other))
	if !errors.Is(err, layoutsync.ErrUnauthorized) {
		t.Fatalf("%v", err)
	}
	moves := 0
	for _, mu := range m.History() {
		if mu.Tag == flavorTag(0) {
			moves++
		}
	}
	// theirs, ours, theirs again; not one by the rollback
	if moves != 3 || m.Tags(repoName)[flavorTag(0)] != rebuilt || report.Parts[0].State != layoutsync.TagPending || report.Parts[1].State != layoutsync.TagRestored {
		t.Errorf("%d moves, %+v", moves, report.Parts)
	}
	if got := published(t, m, version); len(got) != 2 || got[base(1)] != "" || got[base(2)] == "" {
		t.Errorf("index %v", got)
	}
}

// A registry that looks at conditions, and one that refuses all of them.
func TestPublishConditions(t *testing.T) {
	m := regtest.NewMemory(&regtest.MemoryOptions{Conditional: true})
	for i := range 2 {
		k := flavorKit(t, i)
		mustPublish(t, memoryRepository(t), k, publishing(memoryOptions(t, m), k))
	}
	if err := wantFlavors(t, m, 0, 1); err != nil {
		t.Error(err)
	}
	conditions := 0
	for _, r := range m.Requests() {
		if r.Header.Get("If-Match")+r.Header.Get("If-None-Match") != "" {
			if conditions++; !strings.HasSuffix(r.Path, "/"+version) {
				t.Errorf("a condition for %s", r.Path)
			}
		}
	}
	if conditions != 2 {
		t.Errorf("%d conditions, want 2", conditions)
	}
	m = regtest.NewMemory(nil)
	m.Inject(func(_ int, r *http.Request) *regtest.Fault {
		if r.Header.Get("If-Match")+r.Header.Get("If-None-Match") != "" {
			return &regtest.Fault{Kind: regtest.Answer, Status: http.StatusPreconditionFailed}
		}
		return nil
	})
	k := flavorKit(t, 0)
	mustPublish(t, memoryRepository(t), k, publishing(memoryOptions(t, m), k))
	if err := wantFlavors(t, m, 0); err != nil {
		t.Error(err)
	}
}

// A list that lags: what is expected is found by name, the rest after the lag.
func TestPublishLag(t *testing.T) {
	m := regtest.NewMemory(&regtest.MemoryOptions{LagList: 1000})
	for i := range 2 {
		k := flavorKit(t, i)
		opts := publishing(memoryOptions(t, m), k)
		opts.Expect = []string{"flavor0-amd64", "flavor1-amd64", "flavor2-amd64"}
		report := mustPublish(t, memoryRepository(t), k, opts)
		if want := []string{"flavor1-amd64", "flavor2-amd64"}[i:]; !cmp.Equal(report.Missing, want) {
			t.Errorf("missing %v, want %v", report.Missing, want)
		}
	}
	if err := wantFlavors(t, m, 0, 1); err != nil {
		t.Error(err)
	}
	// What the index has is looked up by its own name, even if nobody expects it.
	k := flavorKit(t, 2)
	report := mustPublish(t, memoryRepository(t), k, publishing(memoryOptions(t, m), k))
	if err := wantFlavors(t, m, 0, 1, 2); err != nil || len(report.Adopted) != 0 {
		t.Errorf("%v, adopted %v", err, report.Adopted)
	}

	// Tags that show late are never the ground for success.
	for lag := range 40 {
		m := regtest.NewMemory(&regtest.MemoryOptions{LagTags: lag})
		k := flavorKit(t, 0)
		report, err := publish.Run(t.Context(), k, memoryRepository(t), publishing(memoryOptions(t, m), k))
		if err == nil {
			err = wantFlavors(t, m, 0)
		}
		if err != nil && !errors.Is(err, publish.ErrNotConverged) || err == nil != report.Converged {
			t.Errorf("lag %d: %v", lag, err)
		}
	}
}

// Somebody who overwrites the index again and again keeps publish from ending
// well, and it says so.
func TestPublishNotConverged(t *testing.T) {
	m := regtest.NewMemory(nil)
	l := pushtest.NewLayout(t, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		amd64 := m.Image("amd64", "x")
		return map[string]ocispec.Descriptor{"index": m.Index(amd64), "amd64-" + version: amd64}
	})
	putForeign(t, m, l, version)
	podmans := m.Manifest(repoName, m.Tags(repoName)[version])
	k := flavorKit(t, 0)
	opts := publishing(memoryOptions(t, m), k)
	var waits []time.Duration
	publish.SetSleep(opts, func(ctx context.Context, d time.Duration) error {
		waits = append(waits, d)
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, "https://"+regtest.MemoryHost+"/v2/"+repoName+"/manifests/"+version, strings.NewReader(string(podmans)))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", ocispec.MediaTypeImageIndex)
		_, err = m.Transport().RoundTrip(req)
		return err
	})
	opts.Lag = time.Millisecond
	report, err := publish.Run(t.Context(), k, memoryRepository(t), opts)
	if !errors.Is(err, publish.ErrNotConverged) || report.Converged || report.Rounds != 20 || report.Parts[0].State != layoutsync.TagCreated {
		t.Errorf("%v, %+v", err, report)
	}
	if len(waits) != 20 || waits[19] == waits[0] {
		t.Errorf("waits %v", waits)
	}
	mustPublish(t, memoryRepository(t), nil, publishing(memoryOptions(t, m), nil))
	if got := published(t, m, version); len(got) != 2 {
		t.Errorf("healed: %v", got)
	}
}
