package sync_test

import (
	"fmt"
	"net/http"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	layoutsync "github.com/gardenlinux/gloci-layout/sync"
	"github.com/gardenlinux/gloci-layout/sync/pushtest"
	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// roundTrip is how long the registry of a slowWorld takes for an answer.
const roundTrip = 20 * time.Millisecond

// A slowWorld counts the requests that are under way.
type slowWorld struct {
	base http.RoundTripper
	big  map[string]bool // digests of what has more than 64 KiB

	mu        sync.Mutex
	now, most int
	large     int // those that move more than 64 KiB
	mostLarge int
}

func (w *slowWorld) RoundTrip(r *http.Request) (*http.Response, error) {
	large := 0
	if r.ContentLength > 64<<10 || r.Method == http.MethodGet && w.big[path.Base(r.URL.Path)] {
		large = 1
	}
	w.count(1, large)
	defer w.count(-1, -large)
	time.Sleep(roundTrip)
	return w.base.RoundTrip(r)
}

func (w *slowWorld) count(n, large int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now += n
	w.large += large
	w.most, w.mostLarge = max(w.most, w.now), max(w.mostLarge, w.large)
}

// TestJobs counts the round trips of a push and a pull by a clock that only they
// move: few requests wait for others, and few large blobs travel at once.
func TestJobs(t *testing.T) {
	big := map[string]bool{}
	src := pushtest.NewLayout(t, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		var all []ocispec.Descriptor
		for i := range 64 {
			content := fmt.Sprint(i)
			if i < 10 {
				content += strings.Repeat("x", 100<<10)
				big[string(digest.FromString(content))] = true
			}
			all = append(all, m.Artifact("application/vnd.example.thing", content, nil))
		}
		return map[string]ocispec.Descriptor{"all": m.Index(all...)}
	})
	for _, test := range []struct {
		jobs, most int
		push, pull time.Duration // in round trips
	}{
		{1, 1, 270, 140},
		{4, 16, 24, 14},
	} {
		bubble(t, fmt.Sprint(test.jobs), func(t *testing.T) {
			reg := regtest.NewMemory(nil)
			world := &slowWorld{base: reg.Transport(), big: big}
			opts := pushtest.Options(t, nil)
			opts.Transport, opts.Jobs = world, test.jobs
			repo, err := layoutsync.ParseRepository(regtest.MemoryHost + "/garden")
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			if _, err := layoutsync.Push(t.Context(), src, repo, &layoutsync.PushOptions{Registry: opts}); err != nil {
				t.Fatal(err)
			}
			world.check(t, "push", test.most, test.jobs, time.Since(start), test.push)

			dest := pushtest.NewLayout(t, empty)
			stage, err := dest.Stage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer stage.Close()
			start = time.Now()
			r, err := layoutsync.OpenTags(t.Context(), repo, func(tags []string) []string { return tags }, &opts)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if _, err := layoutsync.Pull(t.Context(), r, entries(t, r), stage, &layoutsync.PullOptions{Jobs: test.jobs}); err != nil {
				t.Fatal(err)
			}
			// Documents are read beside blobs.
			world.check(t, "pull", 2*test.most, test.jobs, time.Since(start), test.pull)
			compareTrees(t, src, stage, entries(t, src))
		})
	}
}

// check compares what was seen with what may be, and begins anew.
func (w *slowWorld) check(t *testing.T, what string, most, mostLarge int, took, limit time.Duration) {
	t.Helper()
	t.Logf("%s: %d round trips, %d requests at once, %d large ones", what, took/roundTrip, w.most, w.mostLarge)
	if w.most > most || w.mostLarge > mostLarge {
		t.Errorf("%s: %d requests at once, %d of them large, want at most %d and %d", what, w.most, w.mostLarge, most, mostLarge)
	}
	if took > limit*roundTrip {
		t.Errorf("%s: %d round trips, want at most %d", what, took/roundTrip, limit)
	}
	w.most, w.mostLarge = 0, 0
}
