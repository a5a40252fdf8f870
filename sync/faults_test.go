package sync_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
	"github.com/gardenlinux/gloci-layout/sync/pushtest"
	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// faults are what may happen to any request. What holds after each of them is
// in faultRun.check.
var faults = map[string]regtest.Fault{
	"drop":              {Kind: regtest.Drop},
	"reset":             {Kind: regtest.Reset, After: 100},
	"400":               {Kind: regtest.Answer, Status: 400},
	"401":               {Kind: regtest.Answer, Status: 401},
	"403":               {Kind: regtest.Answer, Status: 403},
	"404":               {Kind: regtest.Answer, Status: 404},
	"413":               {Kind: regtest.Answer, Status: 413},
	"429":               {Kind: regtest.Answer, Status: 429},
	"429 wait":          {Kind: regtest.Answer, Status: 429, RetryAfter: "3"},
	"429 wait for ever": {Kind: regtest.Answer, Status: 429, RetryAfter: "86400"},
	"500":               {Kind: regtest.Answer, Status: 500},
	"503":               {Kind: regtest.Answer, Status: 503},
	"200":               {Kind: regtest.Answer, Status: 200},
	"lost":              {Kind: regtest.Lost},
	"lost, 504":         {Kind: regtest.LostAnswer, Status: 504},
	"late":              {Kind: regtest.Late},
	"wrong digest":      {Kind: regtest.WrongDigest},
	"wrong body":        {Kind: regtest.WrongBody},
	"truncated":         {Kind: regtest.Truncated, After: 20},
	"short":             {Kind: regtest.Short, After: 20},
	"overlong":          {Kind: regtest.Overlong, After: 20},
	"slow":              {Kind: regtest.Slow, Delay: 10 * time.Second},
	"stalled":           {Kind: regtest.Slow, Delay: time.Hour},
}

// flavors is a version of three flavours with an image, an SBOM that refers to
// it, and a signature of the index.
func flavors(commit string) func(m pushtest.Maker) map[string]ocispec.Descriptor {
	return func(m pushtest.Maker) map[string]ocispec.Descriptor {
		image := m.Image("amd64", "base", "image "+commit)
		x := []ocispec.Descriptor{image}
		for _, name := range []string{"baremetal", "aws", "azure"} {
			desc := m.Artifact("application/io.gardenlinux.example", name+" "+commit, nil)
			desc.Annotations = map[string]string{"cname": name + "-amd64-1.0-" + commit, "architecture": "amd64"}
			desc.Platform = &ocispec.Platform{OS: "gardenlinux", Architecture: "amd64", OSVersion: "1.0"}
			x = append(x, desc)
		}
		index := m.Index(x...)
		return map[string]ocispec.Descriptor{
			"1.0": index, "latest": index,
			"sha256-" + index.Digest.Encoded() + ".sig": m.Artifact("application/vnd.example.signature", "signature "+commit, nil),
			" sbom": m.Artifact("application/vnd.example.sbom", "sbom "+commit, &image),
		}
	}
}

// oneRoot is such a version with nothing beside it: the index goes to the registry
// with its tag.
func oneRoot(commit string) func(m pushtest.Maker) map[string]ocispec.Descriptor {
	return func(m pushtest.Maker) map[string]ocispec.Descriptor {
		all := flavors(commit)(m)
		return map[string]ocispec.Descriptor{"1.0": all["1.0"], "latest": all["latest"]}
	}
}

// A faultStart is what all runs of a test begin with: a registry that has one
// version, which each run clones, and a layout with the next, which is only read.
type faultStart struct {
	reg      *regtest.Memory
	src      *layout.Layout
	registry layoutsync.RegistryOptions
	replace  bool // entries of tags that the layout lacks may go: there is nothing to look for
}

func newFaultStart(t *testing.T, versions [2]*layout.Layout, opts regtest.MemoryOptions) *faultStart {
	t.Helper()
	opts.Delete = true
	s := &faultStart{reg: regtest.NewMemory(&opts), src: versions[1], registry: pushtest.Options(t, nil), replace: true}
	s.registry.Tries, s.registry.StallTimeout = 0, 30*time.Second
	for user, password := range opts.Users {
		s.registry.Creds = layoutsync.Secret(user + ":" + password)
	}
	w := &faultWorld{reg: s.reg, registry: s.registry}
	w.registry.Transport = s.reg.Transport()
	if _, err := w.push(t.Context(), versions[0]); err != nil {
		t.Fatal(err)
	}
	return s
}

// A faultWorld is one run.
type faultWorld struct {
	reg      *regtest.Memory
	src      *layout.Layout
	registry layoutsync.RegistryOptions
	replace  bool
	before   map[string]digest.Digest
}

func newFaultWorld(t *testing.T, start *faultStart) *faultWorld {
	t.Helper()
	w := &faultWorld{reg: start.reg.Clone(), src: start.src, registry: start.registry, replace: start.replace}
	w.registry.Transport = w.reg.Transport()
	w.before = w.reg.Tags("garden")
	w.reg.AfterEach(func(m regtest.Mutation) {
		if m.Kind != "tag" {
			return
		}
		if err := w.reg.Complete(m.Repo, m.Digest); err != nil {
			t.Errorf("request %d: tag %s: %v", m.Request, m.Tag, err)
		}
	})
	return w
}

func (w *faultWorld) push(ctx context.Context, src layout.Source) (*layoutsync.Report, error) {
	repo, err := layoutsync.ParseRepository(regtest.MemoryHost + "/garden")
	if err != nil {
		return nil, err
	}
	return layoutsync.Push(ctx, src, repo, &layoutsync.PushOptions{Registry: w.registry, Replace: w.replace})
}

// twoVersions are the layouts of a faultStart.
func twoVersions(t *testing.T, version func(commit string) func(pushtest.Maker) map[string]ocispec.Descriptor) [2]*layout.Layout {
	t.Helper()
	return [2]*layout.Layout{pushtest.NewLayout(t, version("00000000")), pushtest.NewLayout(t, version("11111111"))}
}

// requests counts those of an undisturbed push.
func (w *faultWorld) requests() int { return len(w.reg.Requests()) }

// undisturbed returns what an undisturbed push leaves.
func undisturbed(t *testing.T, start *faultStart) (tags map[string]digest.Digest, requests int) {
	t.Helper()
	w := newFaultWorld(t, start)
	if _, err := w.push(t.Context(), w.src); err != nil {
		t.Fatal(err)
	}
	return w.reg.Tags("garden"), w.requests()
}

// lists are tags that a push only adds to: a failed one may leave them.
func withoutLists(tags map[string]digest.Digest) map[string]digest.Digest {
	tags = maps.Clone(tags)
	maps.DeleteFunc(tags, func(tag string, _ digest.Digest) bool {
		return strings.HasPrefix(tag, "sha256-") && !strings.Contains(tag, ".")
	})
	return tags
}

// check looks at a push that has ended with err, and pushes again.
func (w *faultWorld) check(t *testing.T, report *layoutsync.Report, err error, want map[string]digest.Digest) {
	t.Helper()
	tags := w.reg.Tags("garden")
	switch {
	case err == nil:
		if !maps.Equal(tags, want) {
			t.Errorf("success, and the tags are %v, want %v", tags, want)
		}
	case !maps.Equal(withoutLists(tags), withoutLists(w.before)):
		// The report must say so.
		for tag, d := range tags {
			if d == w.before[tag] || strings.HasPrefix(tag, "sha256-") && !strings.Contains(tag, ".") {
				continue
			}
			if !slices.ContainsFunc(report.Tags, func(r layoutsync.TagReport) bool {
				return r.Tag == tag && (r.State == layoutsync.TagLeft || r.State == layoutsync.TagUnknown)
			}) {
				t.Errorf("failed, and tag %s is %s, was %s; the report says %+v\n%v", tag, d, w.before[tag], report.Tags, err)
			}
		}
	}
	if leaks := w.reg.Leaks(); len(leaks) > 0 {
		t.Errorf("credentials went elsewhere: %+v", leaks)
	}
	w.reg.Reset()
	w.reg.Land()
	if _, err := w.push(t.Context(), w.src); err != nil {
		t.Errorf("again: %v", err)
	}
	if tags := w.reg.Tags("garden"); !maps.Equal(tags, want) {
		t.Errorf("after another push the tags are %v, want %v", tags, want)
	}
	for tag, d := range w.reg.Tags("garden") {
		if err := w.reg.Complete("garden", d); err != nil {
			t.Errorf("tag %s: %v", tag, err)
		}
	}
}

// pushStarts are the pushes that faults happen to: everything at each registry,
// and a root that goes with its tag beside a look at what that names.
func pushStarts(t *testing.T) map[string]*faultStart {
	t.Helper()
	one := newFaultStart(t, twoVersions(t, oneRoot), faultRegistries["plain"])
	one.replace = false
	starts := map[string]*faultStart{"one root": one}
	for registry, opts := range faultRegistries {
		starts[registry] = newFaultStart(t, twoVersions(t, flavors), opts)
	}
	return starts
}

var faultRegistries = map[string]regtest.MemoryOptions{
	"plain":  {},
	"bearer": {Users: map[string]string{"user": "canary-secret"}, Bearer: true, Referrers: true, Redirect: true},
}

// bubble runs fn with a clock of its own. Whatever waits for the network there
// waits for no time at all.
func bubble(t *testing.T, name string, fn func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, fn) })
}

// stride is 1, so that every request has its turn, unless time is short.
func stride() int {
	if testing.Short() {
		return 31
	}
	return 1
}

// TestPushFaults has every fault happen to every request of a push.
func TestPushFaults(t *testing.T) {
	t.Parallel()
	pushtest.MuchGarbage(t)
	for registry, start := range pushStarts(t) {
		var want map[string]digest.Digest
		requests := 0
		bubble(t, registry, func(t *testing.T) { want, requests = undisturbed(t, start) })
		if requests < 20 {
			t.Errorf("%s: a push has %d requests only", registry, requests)
		}
		runs, failures := 0, 0
		for _, fault := range slices.Sorted(maps.Keys(faults)) {
			for k := 1; k <= requests; k += stride() {
				bubble(t, fmt.Sprintf("%s/%s at %d", registry, fault, k), func(t *testing.T) {
					w := newFaultWorld(t, start)
					w.reg.FaultAt(k, faults[fault])
					report, err := w.push(t.Context(), w.src)
					w.check(t, report, err, want)
					runs++
					if err != nil {
						failures++
					}
				})
			}
		}
		t.Logf("%s: %d requests, %d runs, %d of them failed", registry, requests, runs, failures)
	}
}

// TestPushFaultPairs has two faults happen to random requests.
func TestPushFaultPairs(t *testing.T) {
	t.Parallel()
	pushtest.MuchGarbage(t)
	start := newFaultStart(t, twoVersions(t, flavors), faultRegistries["plain"])
	names := slices.Sorted(maps.Keys(faults))
	var want map[string]digest.Digest
	requests := 0
	bubble(t, "undisturbed", func(t *testing.T) { want, requests = undisturbed(t, start) })
	for seed := range pushtest.Seeds(t, 500) {
		rnd := rand.New(rand.NewPCG(uint64(seed), 0))
		one, two := names[rnd.IntN(len(names))], names[rnd.IntN(len(names))]
		k, l := 1+rnd.IntN(requests), 1+rnd.IntN(requests+10)
		bubble(t, fmt.Sprintf("seed %d: %s at %d, %s at %d", seed, one, k, two, l), func(t *testing.T) {
			w := newFaultWorld(t, start)
			w.reg.Inject(func(n int, _ *http.Request) *regtest.Fault {
				for at, name := range map[int]string{k: one, l: two} {
					if n == at {
						f := faults[name]
						return &f
					}
				}
				return nil
			})
			report, err := w.push(t.Context(), w.src)
			w.check(t, report, err, want)
		})
	}
}

// TestPushInterrupted ends the context at every request: everything is put
// back, or done.
func TestPushInterrupted(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"plain", "one root"} {
		interruptPush(t, name, pushStarts(t)[name])
	}
}

func interruptPush(t *testing.T, name string, start *faultStart) {
	t.Helper()
	var want map[string]digest.Digest
	requests := 0
	bubble(t, name, func(t *testing.T) { want, requests = undisturbed(t, start) })
	for k := 1; k <= requests; k += stride() {
		bubble(t, fmt.Sprint(name, " at ", k), func(t *testing.T) {
			w := newFaultWorld(t, start)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w.reg.Inject(func(n int, _ *http.Request) *regtest.Fault {
				if n == k {
					cancel()
				}
				return nil
			})
			report, err := w.push(ctx, w.src)
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
			all := w.reg.Requests()
			if end := all[len(all)-1]; err == nil && name == "one root" && end.Method != http.MethodHead {
				t.Errorf("success, and %s %s was the last request: the root was not asked for", end.Method, end.Path)
			}
			for _, tag := range report.Tags {
				if err != nil && tag.State != layoutsync.TagRestored && tag.State != layoutsync.TagPending {
					t.Errorf("tag %s is %s", tag.Tag, tag.State)
				}
			}
			w.check(t, report, err, want)
		})
	}
}

// TestPullFaults has every fault happen to every request of a pull, which goes
// on afterwards.
func TestPullFaults(t *testing.T) {
	t.Parallel()
	pushtest.MuchGarbage(t)
	versions := twoVersions(t, flavors)
	pull := func(ctx context.Context, t *testing.T, w *faultWorld, l *layout.Layout) error {
		t.Helper()
		repo, err := layoutsync.ParseRepository(regtest.MemoryHost + "/garden")
		if err != nil {
			t.Fatal(err)
		}
		r, err := layoutsync.OpenTags(ctx, repo, func(tags []string) []string { return tags }, &w.registry)
		if err != nil {
			return err
		}
		defer r.Close()
		x, err := r.Index(ctx)
		if err != nil {
			return err
		}
		stage, err := l.Stage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer stage.Close()
		pulled, err := layoutsync.Pull(ctx, r, x.Entries(), stage, nil)
		if err != nil {
			return err
		}
		return stage.Update(ctx, func(tx *layout.Tx) error {
			for _, p := range pulled {
				if name := layout.RefName(p.Desc); name != "" {
					tx.SetRef(name, p.Desc)
				} else {
					tx.Index().Add(p.Desc)
				}
			}
			tx.Index().Sort()
			return nil
		})
	}
	for registry, opts := range faultRegistries {
		start := newFaultStart(t, versions, opts)
		var want []byte
		requests := 0
		unseen := map[int]string{}
		bubble(t, registry, func(t *testing.T) {
			w, l := newFaultWorld(t, start), pushtest.NewLayout(t, empty)
			if err := pull(t.Context(), t, w, l); err != nil {
				t.Fatal(err)
			}
			x, err := l.Index(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want, requests = x.Bytes(), w.requests()
			first := true
			for i, r := range w.reg.Requests() {
				switch {
				case strings.HasSuffix(r.Path, "/tags/list"):
					// Nothing says what a list of tags should hash to.
					unseen[i+1] = "wrong body"
				case first && strings.Contains(r.Path, "/referrers/"):
					// This is how a registry says that it keeps no such lists.
					unseen[i+1], first = "404", false
				}
			}
		})
		runs, failures := 0, 0
		for _, fault := range slices.Sorted(maps.Keys(faults)) {
			for k := 1; k <= requests; k += stride() {
				if unseen[k] == fault {
					continue
				}
				bubble(t, fmt.Sprintf("%s/%s at %d", registry, fault, k), func(t *testing.T) {
					w, l := newFaultWorld(t, start), pushtest.NewLayout(t, empty)
					w.reg.FaultAt(k, faults[fault])
					err := pull(t.Context(), t, w, l)
					runs++
					if err != nil {
						failures++
						if x, xerr := l.Index(t.Context()); xerr != nil || x.Len() > 0 {
							t.Errorf("failed, and index.json is %v, %v", x, xerr)
						}
						w.reg.Reset()
						if err := pull(t.Context(), t, w, l); err != nil {
							t.Fatalf("again: %v", err)
						}
					}
					x, err := l.Index(t.Context())
					if err != nil || string(x.Bytes()) != string(want) {
						t.Errorf("index.json is %s, %v, want %s", x.Bytes(), err, want)
					}
					if res, err := layout.Verify(t.Context(), l, nil); err != nil || len(res.Findings) > 0 {
						t.Errorf("verify: %+v, %v", res, err)
					}
					if leaks := w.reg.Leaks(); len(leaks) > 0 {
						t.Errorf("credentials went elsewhere: %+v", leaks)
					}
				})
			}
		}
		t.Logf("%s: %d requests, %d runs, %d of them failed", registry, requests, runs, failures)
	}
}
