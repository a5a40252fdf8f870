package publish_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	layoutsync "github.com/gardenlinux/gloci-layout/sync"
	"github.com/gardenlinux/gloci-layout/sync/publish"
	"github.com/gardenlinux/gloci-layout/sync/pushtest"
	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// A faultCase is a publish that is disturbed: two flavours, of which one was
// there with other content, an image, a removal and an alias, beside a flavour of
// somebody else and an index entry of a program without the protocol.
type faultCase struct {
	start *regtest.Memory
	kit   *kit
	want  map[string]string // tags of a run without a fault
	calls int               // requests of that run
}

const lifetime = 77 * time.Second

func newFaultCase(t *testing.T) *faultCase {
	t.Helper()
	c := &faultCase{start: regtest.NewMemory(nil)}
	c.kit = newKit(t, func(m pushtest.Maker) []ocispec.Descriptor {
		return []ocispec.Descriptor{rebuild(m)[0], build(m, base(1), "kernel 1"), m.Image("arm64", "layer")}
	})
	before := flavorKit(t, 0, 2, 3)
	putForeign(t, c.start, newForeign(t), version)
	opts := publishing(memoryOptions(t, c.start), before)
	opts.Aliases = []string{"latest"}
	mustPublish(t, memoryRepository(t), before, opts)
	m := c.start.Clone()
	if _, err := c.publish(t.Context(), t, m); err != nil {
		t.Fatal(err)
	}
	c.want, c.calls = tagNames(m), len(m.Requests())
	if len(published(t, m, version)) != 5 {
		t.Fatalf("index %v", published(t, m, version))
	}
	return c
}

func tagNames(m *regtest.Memory) map[string]string {
	names := map[string]string{}
	for tag, d := range m.Tags(repoName) {
		names[tag] = string(d)
	}
	return names
}

// publish runs it once. What comes late lands when its time is waited for.
func (c *faultCase) publish(ctx context.Context, t *testing.T, m *regtest.Memory) (*publish.Report, error) {
	opts := publishing(memoryOptions(t, m), c.kit)
	opts.Remove, opts.Aliases, opts.RequestLifetime = []string{"flavor3-amd64"}, []string{"latest"}, lifetime
	publish.SetSleep(opts, func(ctx context.Context, d time.Duration) error {
		if d == lifetime {
			m.Land()
		}
		return context.Cause(ctx)
	})
	return publish.Run(ctx, c.kit, memoryRepository(t), opts)
}

// check looks at what a disturbed run has left, and that a run without a fault
// makes it what it would have been.
func (c *faultCase) check(t *testing.T, m *regtest.Memory, report *publish.Report, err error) error {
	t.Helper()
	m.Land()
	tags := m.Tags(repoName)
	if err == nil {
		if diff := cmp.Diff(c.want, tagNames(m)); diff != "" {
			return fmt.Errorf("success, but (-want +got):\n%s", diff)
		}
	}
	for _, p := range append(append([]layoutsync.TagReport{}, report.Parts...), report.Removed...) {
		names := tags[p.Tag] == p.Digest
		switch p.State {
		case layoutsync.TagUnchanged, layoutsync.TagCreated, layoutsync.TagMoved, layoutsync.TagLeft:
			if !names {
				return fmt.Errorf("%s is reported as %s, and names something else", p.Tag, p.State)
			}
		case layoutsync.TagRestored, layoutsync.TagPending:
			if names {
				return fmt.Errorf("%s is reported as %s, and names what was published", p.Tag, p.State)
			}
			if p.Before != "" && tags[p.Tag] != p.Before {
				return fmt.Errorf("%s is reported as %s, and does not name what it did", p.Tag, p.State)
			}
		}
	}
	got := published(t, m, version)
	if got[base(2)] == "" || got["linux/amd64"] == "" {
		return fmt.Errorf("entries of others are gone: %v", got)
	}
	m.Reset()
	if _, err := c.publish(t.Context(), t, m); err != nil {
		return fmt.Errorf("the next run: %w", err)
	}
	if diff := cmp.Diff(c.want, tagNames(m)); diff != "" {
		return fmt.Errorf("after the next run (-want +got):\n%s", diff)
	}
	return nil
}

// Every fault at every request.
func TestPublishFaults(t *testing.T) {
	pushtest.MuchGarbage(t)
	c := newFaultCase(t)
	faults := map[string]regtest.Fault{
		"drop":         {Kind: regtest.Drop},
		"reset":        {Kind: regtest.Reset, After: 10},
		"lost":         {Kind: regtest.Lost},
		"late":         {Kind: regtest.Late},
		"500":          {Kind: regtest.Answer, Status: http.StatusInternalServerError},
		"429":          {Kind: regtest.Answer, Status: http.StatusTooManyRequests},
		"403":          {Kind: regtest.Answer, Status: http.StatusForbidden},
		"404":          {Kind: regtest.Answer, Status: http.StatusNotFound},
		"412":          {Kind: regtest.Answer, Status: http.StatusPreconditionFailed},
		"502 done":     {Kind: regtest.LostAnswer, Status: http.StatusBadGateway},
		"wrong digest": {Kind: regtest.WrongDigest},
		"wrong body":   {Kind: regtest.WrongBody},
		"truncated":    {Kind: regtest.Truncated, After: 20},
		"short":        {Kind: regtest.Short, After: 20},
		"overlong":     {Kind: regtest.Overlong, After: 20},
	}
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			failed, done := 0, 0
			step := 1
			if testing.Short() {
				step = 17
			}
			for k := 1; k <= c.calls; k += step {
				m := c.start.Clone()
				watch(t, m)
				m.FaultAt(k, f)
				report, err := c.publish(t.Context(), t, m)
				if err == nil {
					done++
				} else {
					failed++
				}
				if f := c.check(t, m, report, err); f != nil {
					t.Errorf("request %d (the run ended with %v): %v", k, err, f)
				}
				if t.Failed() {
					return
				}
			}
			t.Logf("%d requests: %d runs failed, %d did not", c.calls, failed, done)
			if failed == 0 {
				t.Error("nothing was disturbed")
			}
		})
	}
}

// Interrupted at every request: the tags are put back, and it says so.
func TestPublishInterrupted(t *testing.T) {
	pushtest.MuchGarbage(t)
	c := newFaultCase(t)
	canceled := 0
	for k := 1; k <= c.calls; k++ {
		m := c.start.Clone()
		watch(t, m)
		ctx, cancel := context.WithCancel(t.Context())
		m.Inject(func(n int, _ *http.Request) *regtest.Fault {
			if n == k {
				cancel()
			}
			return nil
		})
		report, err := c.publish(ctx, t, m)
		cancel()
		if err != nil {
			canceled++
			if !errors.Is(err, context.Canceled) {
				t.Errorf("request %d: %v", k, err)
			}
			for _, p := range report.Parts {
				if p.State != layoutsync.TagPending && p.State != layoutsync.TagRestored {
					t.Errorf("request %d: %s is %s", k, p.Tag, p.State)
				}
			}
			if got := published(t, m, version); got[base(1)] != "" || got[base(0)] == "" || got[base(3)] == "" {
				t.Errorf("request %d: the index was not put back: %v", k, got)
			}
			if tags := m.Tags(repoName); tags["latest"] != tags[version] && tags["latest"] != c.start.Tags(repoName)["latest"] {
				t.Errorf("request %d: the alias was not put back", k)
			}
		}
		if f := c.check(t, m, report, err); f != nil {
			t.Errorf("request %d (the run ended with %v): %v", k, err, f)
		}
		if t.Failed() {
			return
		}
	}
	if canceled < c.calls/2 {
		t.Errorf("%d of %d runs were interrupted", canceled, c.calls)
	}
}

// A write of which nobody knows whether it comes is waited for, and only that.
func TestPublishWaits(t *testing.T) {
	k := flavorKit(t, 0)
	for fault, want := range map[regtest.FaultKind]int{0: 0, regtest.Drop: 1, regtest.Lost: 1, regtest.Late: 1} {
		m := regtest.NewMemory(nil)
		opts := publishing(memoryOptions(t, m), k)
		opts.RequestLifetime = lifetime
		waits := 0
		publish.SetSleep(opts, func(context.Context, time.Duration) error { waits++; return nil })
		puts := 0
		m.Inject(func(_ int, r *http.Request) *regtest.Fault {
			if r.Method == http.MethodPut && r.URL.Path == "/v2/"+repoName+"/manifests/"+version {
				if puts++; puts == 1 && fault != 0 {
					return &regtest.Fault{Kind: fault}
				}
			}
			return nil
		})
		mustPublish(t, memoryRepository(t), k, opts)
		if got := waits; got < want || want == 0 && got > 0 {
			t.Errorf("fault %d: waited %d times", fault, got)
		}
	}
}

// A write of the index that got no answer is carried out after somebody else has
// published: who has sent it is still there to put that right.
func TestPublishLateWrite(t *testing.T) {
	m := regtest.NewMemory(nil)
	first, second := flavorKit(t, 0), flavorKit(t, 1)
	meanwhile := func() {
		if m.Tags(repoName)[flavorTag(1)] == "" {
			mustPublish(t, memoryRepository(t), second, publishing(memoryOptions(t, m), second))
		}
		m.Land()
	}
	opts := publishing(memoryOptions(t, m), first)
	opts.RequestLifetime = lifetime
	publish.SetSleep(opts, func(ctx context.Context, d time.Duration) error {
		if d == lifetime {
			meanwhile()
		}
		return context.Cause(ctx)
	})
	late := false
	m.Inject(func(_ int, r *http.Request) *regtest.Fault {
		if !late && r.Method == http.MethodPut && r.URL.Path == "/v2/"+repoName+"/manifests/"+version {
			late = true
			return &regtest.Fault{Kind: regtest.Late}
		}
		return nil
	})
	mustPublish(t, memoryRepository(t), first, opts)
	meanwhile()
	if err := wantFlavors(t, m, 0, 1); err != nil {
		t.Error(err)
	}
}
