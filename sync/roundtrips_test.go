package sync_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
	"github.com/gardenlinux/gloci-layout/sync/pushtest"
	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// A far is a registry that needs latency for each answer.
type far struct {
	http.RoundTripper
	latency time.Duration
}

func (f far) RoundTrip(r *http.Request) (*http.Response, error) {
	time.Sleep(f.latency)
	return f.RoundTripper.RoundTrip(r)
}

// TestRoundTrips measures how many answers of a registry that is 20 ms away are
// waited for one after the other, on a clock that stands still but for that. Needed
// are those of which each must be there before the next can be asked for; the
// first is alone, as it tells how to log in.
func TestRoundTrips(t *testing.T) {
	const (
		latency = 20 * time.Millisecond
		most    = 1.3
	)
	images := func(n int, prefix string) func(m pushtest.Maker) map[string]ocispec.Descriptor {
		return func(m pushtest.Maker) map[string]ocispec.Descriptor {
			all := map[string]ocispec.Descriptor{}
			for i := range n {
				all[fmt.Sprint("v", i)] = m.Image("amd64", "base", fmt.Sprint(prefix, i))
			}
			return all
		}
	}
	index := func(changed string) func(m pushtest.Maker) map[string]ocispec.Descriptor {
		return func(m pushtest.Maker) map[string]ocispec.Descriptor {
			entries := []ocispec.Descriptor{flavor(m, "kvm", "1a2b3c4d", changed)}
			for i := range 25 {
				entries = append(entries, m.Image("amd64", "base", fmt.Sprint(i)))
			}
			return map[string]ocispec.Descriptor{"all": m.Index(entries...)}
		}
	}
	for _, test := range []struct {
		name          string
		before, after func(m pushtest.Maker) map[string]ocispec.Descriptor
		pull, replace bool
		needed        int
	}{
		{
			// The first tag, the others, manifests, POST, PUT, PUT of manifests,
			// HEAD of them, PUT of tags.
			"first push", nil, images(24, "layer"), false, false, 8,
		},
		{"all tags moved", images(24, "old"), images(24, "new"), false, true, 8},
		{"nothing to do", images(24, "layer"), images(24, "layer"), false, false, 2},
		{
			// The tag, our index, its entries, POST, PUT, PUT of the manifest, of
			// the index under its tag, HEAD of that.
			"one of 26 changed", index("old"), index("new"), false, true, 8,
		},
		{
			// The same: that no entry is lost is found out beside it.
			"one of 26 changed, no entry lost", index("old"), index("new"), false, false, 8,
		},
		{
			// The list, the tags, manifests, blobs; whether there are lists of
			// referrers can be asked for beside blobs.
			"pull", images(24, "layer"), nil, true, false, 4,
		},
	} {
		// Layouts are made, and read, outside of the bubble's time.
		var before, after *layout.Layout
		if test.before != nil {
			before = pushtest.NewLayout(t, test.before)
		}
		if test.after != nil {
			after = pushtest.NewLayout(t, test.after)
		}
		bubble(t, test.name, func(t *testing.T) {
			m := regtest.NewMemory(nil)
			repo, err := layoutsync.ParseRepository(regtest.MemoryHost + "/app")
			if err != nil {
				t.Fatal(err)
			}
			opts := pushtest.Options(t, nil)
			push := func(l *layout.Layout) {
				t.Helper()
				if _, err := layoutsync.Push(t.Context(), l, repo, &layoutsync.PushOptions{Registry: opts, Replace: test.replace}); err != nil {
					t.Fatal(err)
				}
			}
			opts.Transport = m.Transport()
			if before != nil {
				push(before)
			}
			m.Reset()
			opts.Transport = far{m.Transport(), latency}
			start := time.Now()
			if test.pull {
				r, err := layoutsync.OpenTags(t.Context(), repo, func(tags []string) []string { return tags }, &opts)
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				if _, err := pullAll(t, r, pushtest.NewLayout(t, empty), nil); err != nil {
					t.Fatal(err)
				}
			} else {
				push(after)
			}
			trips := float64(time.Since(start)) / float64(latency)
			t.Logf("%.0f round trips, needed are %d: %.2f; %d requests", trips, test.needed, trips/float64(test.needed), len(m.Requests()))
			allowed := float64(test.needed)
			if test.pull {
				allowed *= most
			}
			if trips > allowed {
				t.Errorf("%.0f round trips where %d are needed", trips, test.needed)
			}
		})
	}
}
