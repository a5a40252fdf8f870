package sync_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
	"github.com/gardenlinux/gloci-layout/sync/pushtest"
	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// TestPushForgottenRoot pushes to a registry that acknowledges roots and does not
// give them out: no tag is left that names one.
func TestPushForgottenRoot(t *testing.T) {
	two := func(m pushtest.Maker) map[string]ocispec.Descriptor {
		return map[string]ocispec.Descriptor{"a": m.Image("amd64", "new a"), "b": m.Image("amd64", "new b")}
	}
	one := func(m pushtest.Maker) map[string]ocispec.Descriptor {
		root := m.Image("amd64", "new a")
		return map[string]ocispec.Descriptor{"a": root, "b": root}
	}
	for _, test := range []struct {
		name string
		fill func(m pushtest.Maker) map[string]ocispec.Descriptor
		tags int // PUT, and put back
	}{
		{"two roots", two, 0},
		{"one root with its tag", one, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			reg := regtest.Start(t, &regtest.Options{Delete: true})
			dest := pushtest.Repository(t, reg, "app")
			opts := &layoutsync.PushOptions{Registry: pushtest.Options(t, reg)}
			l := pushtest.NewLayout(t, func(m pushtest.Maker) map[string]ocispec.Descriptor {
				return map[string]ocispec.Descriptor{"a": m.Image("amd64", "old a")}
			})
			if _, err := layoutsync.Push(t.Context(), l, dest, opts); err != nil {
				t.Fatal(err)
			}
			before := pushtest.ResolveTags(t, reg, "app")
			pushtest.Edit(t, l, test.fill)
			reg.Reset()
			sent := false
			reg.Intercept(func(_ int, w http.ResponseWriter, r *http.Request) bool {
				sent = sent || r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/")
				if !sent || r.Method != http.MethodHead || !strings.Contains(r.URL.Path, "/manifests/sha256:") {
					return false
				}
				w.WriteHeader(http.StatusNotFound)
				return true
			})
			opts.Registry.Jobs = 1
			report, err := layoutsync.Push(t.Context(), l, dest, opts)
			if !errors.Is(err, layout.ErrNotFound) {
				t.Errorf("Push = %v, want ErrNotFound", err)
			}
			if diff := cmp.Diff(before, pushtest.ResolveTags(t, reg, "app")); diff != "" {
				t.Errorf("tags (-before +after):\n%s", diff)
			}
			states, want := map[string]layoutsync.TagState{}, layoutsync.TagPending
			if test.tags > 0 {
				want = layoutsync.TagRestored
			}
			for _, tag := range report.Tags {
				states[tag.Tag] = tag.State
			}
			if diff := cmp.Diff(map[string]layoutsync.TagState{"a": want, "b": want}, states); diff != "" {
				t.Errorf("states (-want +got):\n%s", diff)
			}
		})
	}
}

// tagTimes notes when each PUT of a tag began and ended.
type tagTimes struct {
	http.RoundTripper
	mu    sync.Mutex
	times map[string][2]time.Time
}

func (tt *tagTimes) RoundTrip(r *http.Request) (*http.Response, error) {
	start := time.Now()
	time.Sleep(time.Second)
	answer, err := tt.RoundTripper.RoundTrip(r)
	if _, tag, found := strings.Cut(r.URL.Path, "/manifests/"); found && r.Method == http.MethodPut && !strings.HasPrefix(tag, "sha256:") {
		tt.mu.Lock()
		tt.times[tag] = [2]time.Time{start, time.Now()}
		tt.mu.Unlock()
	}
	return answer, err
}

// TestPushTagsInOrder: while the tag of a manifest moves, none does whose index
// names that manifest; others move at once.
func TestPushTagsInOrder(t *testing.T) {
	l := pushtest.NewLayout(t, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		a, b := m.Image("amd64", "a"), m.Image("arm64", "b")
		x := m.Index(a, b)
		return map[string]ocispec.Descriptor{"a": a, "b": b, "x": x, "y": m.Index(x)}
	})
	bubble(t, "in order", func(t *testing.T) {
		repo, err := layoutsync.ParseRepository(regtest.MemoryHost + "/app")
		if err != nil {
			t.Fatal(err)
		}
		tt := &tagTimes{RoundTripper: regtest.NewMemory(nil).Transport(), times: map[string][2]time.Time{}}
		opts := &layoutsync.PushOptions{Registry: pushtest.Options(t, nil)}
		opts.Registry.Transport = tt
		if _, err := layoutsync.Push(t.Context(), l, repo, opts); err != nil {
			t.Fatal(err)
		}
		for _, pair := range [][2]string{{"a", "x"}, {"b", "x"}, {"x", "y"}} {
			if tt.times[pair[1]][0].Before(tt.times[pair[0]][1]) {
				t.Errorf("%s began to move before %s had moved", pair[1], pair[0])
			}
		}
		if !tt.times["a"][0].Equal(tt.times["b"][0]) {
			t.Error("a and b did not move at once")
		}
	})
}

// TestPushRootWithTag looks at which manifests go by digest, and which with a tag
// alone: one root does, after all that it names, if nothing that is sent names it.
// A list is one of referrers.
func TestPushRootWithTag(t *testing.T) {
	for _, test := range []struct {
		name      string
		fill      func(m pushtest.Maker) map[string]ocispec.Descriptor
		want      []string // what is PUT: "digest", "list" or a tag
		manifests int      // that the registry lacked
	}{
		{
			"an index of two", func(m pushtest.Maker) map[string]ocispec.Descriptor {
				return map[string]ocispec.Descriptor{"v1": m.Index(m.Image("amd64", "a"), m.Image("arm64", "b"))}
			}, []string{"digest", "digest", "v1"}, 3,
		},
		{
			"one root, two tags", func(m pushtest.Maker) map[string]ocispec.Descriptor {
				root := m.Image("amd64", "a")
				return map[string]ocispec.Descriptor{"latest": root, "v1": root}
			}, []string{"latest", "v1"}, 1,
		},
		{
			"two roots", func(m pushtest.Maker) map[string]ocispec.Descriptor {
				return map[string]ocispec.Descriptor{"v1": m.Image("amd64", "a"), "v2": m.Image("amd64", "b")}
			}, []string{"digest", "digest", "v1", "v2"}, 2,
		},
		{
			"a root that another root names", func(m pushtest.Maker) map[string]ocispec.Descriptor {
				root := m.Image("amd64", "a")
				return map[string]ocispec.Descriptor{"v1": root, "v2": m.Index(root)}
			}, []string{"digest", "digest", "v1", "v2"}, 2,
		},
		{
			"a root with a tag and one without", func(m pushtest.Maker) map[string]ocispec.Descriptor {
				return map[string]ocispec.Descriptor{"v1": m.Image("amd64", "a"), " other": m.Image("amd64", "b")}
			}, []string{"digest", "v1"}, 2,
		},
		{
			"a root and its referrer", func(m pushtest.Maker) map[string]ocispec.Descriptor {
				root := m.Image("amd64", "a")
				return map[string]ocispec.Descriptor{"v1": root, " sbom": m.Artifact("application/vnd.example.sbom", "sbom", &root)}
			}, []string{"digest", "digest", "list", "v1"}, 2,
		},
		{
			"a root that refers to something", func(m pushtest.Maker) map[string]ocispec.Descriptor {
				subject := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("elsewhere"), Size: 9}
				return map[string]ocispec.Descriptor{"v1": m.Artifact("application/vnd.example.sbom", "sbom", &subject)}
			}, []string{"digest", "list", "v1"}, 1,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := regtest.NewMemory(nil)
			repo, err := layoutsync.ParseRepository(regtest.MemoryHost + "/app")
			if err != nil {
				t.Fatal(err)
			}
			opts := &layoutsync.PushOptions{Registry: pushtest.Options(t, nil)}
			opts.Registry.Transport = m.Transport()
			opts.Registry.Jobs = 1
			report, err := layoutsync.Push(t.Context(), pushtest.NewLayout(t, test.fill), repo, opts)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range m.Requests() {
				_, name, found := strings.Cut(r.Path, "/manifests/")
				if !found || r.Method != http.MethodPut {
					continue
				}
				switch {
				case strings.HasPrefix(name, "sha256:"):
					name = "digest"
				case strings.HasPrefix(name, "sha256-"):
					name = "list"
				}
				got = append(got, name)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("PUT of %q, want %q", got, test.want)
			}
			if report.Manifests != test.manifests {
				t.Errorf("%d manifests were sent, want %d", report.Manifests, test.manifests)
			}
		})
	}
}
