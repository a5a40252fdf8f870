package publish_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"

	layoutsync "github.com/gardenlinux/gloci-layout/sync"
	"github.com/gardenlinux/gloci-layout/sync/publish"
	"github.com/gardenlinux/gloci-layout/sync/pushtest"
	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// A race is some publishers, each of which does one thing, on a registry of
// which a scheduler holds every request.
type race struct {
	runs []run
	// want checks what is there in the end; it gets the numbers of those that
	// were killed.
	want func(t testing.TB, m *regtest.Memory, crashed map[int]bool) error
	// before fills the registry.
	before func(m *regtest.Memory)

	start *regtest.Memory // as each run finds it
}

// A run is what one publisher does.
type run struct {
	kit  *kit
	edit func(*publish.Options)
}

// A choice is one step of a race: which client goes on, or dies.
type choice struct {
	client int
	crash  bool
}

// play runs the race by the choices that next makes until all have ended. next
// sees the state and who waits; it returns false to give the run up.
func (r *race) play(t *testing.T, opts layoutsync.RegistryOptions, next func(state string, waiting []int) (choice, bool)) (*regtest.Memory, map[int]bool, bool) {
	t.Helper()
	r.begin(t, opts)
	m := r.start.Clone()
	dest := memoryRepository(t)
	watch(t, m)
	s := m.Schedule(len(r.runs))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	errs := make([]error, len(r.runs))
	for i := range r.runs {
		go func() {
			defer s.End(i)
			errs[i] = r.publish(ctx, opts, dest, i, s.Transport(i))
		}()
	}
	crashed := map[int]bool{}
	for {
		waiting := s.Waiting()
		if len(waiting) == 0 {
			break
		}
		local := false
		for _, i := range waiting {
			if s.Local(i) {
				s.Step(i)
				local = true
			}
		}
		if local {
			continue
		}
		c, ok := next(s.State(), waiting)
		if !ok {
			for range r.runs { // let all come to their end
				for _, i := range s.Waiting() {
					s.Crash(i)
				}
			}
			for len(s.Waiting()) > 0 {
				t.Fatal("a client does not end")
			}
			return nil, nil, false
		}
		if c.crash {
			crashed[c.client] = true
			s.Crash(c.client)
			continue
		}
		s.Step(c.client)
	}
	for i, err := range errs {
		if err != nil && !crashed[i] {
			t.Fatalf("publisher %d: %v", i, err)
		}
		if err == nil && crashed[i] {
			t.Fatalf("publisher %d was killed and says that all is well", i)
		}
	}
	return m, crashed, true
}

// pushContent sends what a kit names, by digest.
func pushContent(t *testing.T, opts layoutsync.RegistryOptions, k *kit) {
	t.Helper()
	doc, err := k.Index(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range doc.Entries() {
		x := indexOf(t, k, e)
		var targets []layoutsync.Target
		for _, leaf := range x.Entries() {
			targets = append(targets, layoutsync.Target{Desc: leaf})
		}
		if _, err := layoutsync.Push(t.Context(), k, memoryRepository(t), &layoutsync.PushOptions{Registry: opts, Targets: targets}); err != nil {
			t.Fatal(err)
		}
	}
}

// begin fills the registry that each run finds.
func (r *race) begin(t *testing.T, opts layoutsync.RegistryOptions) {
	t.Helper()
	if r.start != nil {
		return
	}
	r.start = regtest.NewMemory(nil)
	if r.before != nil {
		r.before(r.start)
	}
	opts.Transport = r.start.Transport()
	for _, run := range r.runs { // content goes first, and nobody sees it
		if run.kit != nil {
			pushContent(t, opts, run.kit)
		}
	}
}

// publish is publisher number i.
func (r *race) publish(ctx context.Context, opts layoutsync.RegistryOptions, dest layoutsync.Repository, i int, transport http.RoundTripper) error {
	run := r.runs[i]
	opts.Transport = transport
	p := publishing(opts, run.kit)
	if run.edit != nil {
		run.edit(p)
	}
	_, err := publish.Run(ctx, run.kit.source(), dest, p)
	return err
}

// An explored is where a walk stands: the registry, and all publishers.
type explored struct {
	m       *regtest.Memory
	turns   []*regtest.Turn
	crashed map[int]bool
	done    []choice
}

// fork returns a copy that goes on for itself.
func (x *explored) fork(t *testing.T) *explored {
	t.Helper()
	c := &explored{m: x.m.Fork(), turns: slices.Clone(x.turns), crashed: maps.Clone(x.crashed), done: slices.Clone(x.done)}
	watch(t, c.m)
	return c
}

// explore walks through every way in which the requests of a race may follow
// each other, with at most crashes deaths. Two ways to the same state, of the
// registry and in the eyes of all clients, go on alike, so only one is followed;
// and a publisher runs once for each course that its own answers can take.
func (r *race) explore(t *testing.T, crashes int) {
	t.Helper()
	opts, dest := memoryOptions(t, regtest.NewMemory(nil)), memoryRepository(t)
	r.begin(t, opts)
	first := &explored{m: r.start, crashed: map[int]bool{}}
	var clients []*regtest.Client
	for i := range r.runs {
		c := regtest.NewClient(func(rt http.RoundTripper) error { return r.publish(t.Context(), opts, dest, i, rt) })
		turn, err := c.Start()
		if err != nil {
			t.Fatal(err)
		}
		clients, first.turns = append(clients, c), append(first.turns, turn)
	}
	seen := map[string]bool{}
	ends := 0
	var walk func(x *explored)
	step := func(x *explored, i int) {
		turn, err := x.turns[i].Answer(x.m)
		if err != nil {
			t.Fatalf("publisher %d, schedule %v: %v", i, x.done, err)
		}
		if turn.Ended && turn.Err != nil {
			t.Fatalf("publisher %d, schedule %v: %v", i, x.done, turn.Err)
		}
		x.turns[i] = turn
	}
	walk = func(x *explored) {
		var waiting []int
		state := x.m.State()
		key := state[:]
		for i, turn := range x.turns {
			for !x.crashed[i] && turn.Local(x.m) {
				step(x, i)
				turn = x.turns[i]
			}
			if !x.crashed[i] && !turn.Ended {
				waiting = append(waiting, i)
			}
			if x.crashed[i] {
				key = append(key, "crashed,"...)
			} else {
				key = fmt.Appendf(key, "%d,", turn.ID)
			}
		}
		if t.Failed() {
			t.Fatalf("schedule: %v", x.done)
		}
		if seen[string(key)] {
			return
		}
		seen[string(key)] = true
		if len(waiting) == 0 {
			ends++
			if err := r.check(t, x.m, opts, x.crashed); err != nil {
				t.Fatalf("schedule %v: %v", x.done, err)
			}
			return
		}
		for _, i := range waiting {
			next := x.fork(t)
			next.done = append(next.done, choice{client: i})
			step(next, i)
			walk(next)
			if len(x.crashed) < crashes {
				next := x.fork(t)
				next.done, next.crashed[i] = append(next.done, choice{client: i, crash: true}), true
				walk(next)
			}
		}
	}
	walk(first.fork(t))
	runs := 0
	for i, c := range clients {
		if err := c.Kill(); err != nil {
			t.Errorf("publisher %d: %v", i, err)
		}
		runs += c.Runs
	}
	t.Logf("%d states, %d ends, %d runs", len(seen), ends, runs)
	if ends < 2 || len(seen) < 50 {
		t.Errorf("only %d states and %d ends: nothing was interleaved", len(seen), ends)
	}
}

// check looks at the end of a race; after a crash, one pass heals first.
func (r *race) check(t *testing.T, m *regtest.Memory, opts layoutsync.RegistryOptions, crashed map[int]bool) error {
	t.Helper()
	if len(crashed) > 0 {
		opts.Transport = m.Transport()
		if _, err := publish.Run(t.Context(), nil, memoryRepository(t), publishing(opts, nil)); err != nil {
			return fmt.Errorf("reindex: %w", err)
		}
	}
	return r.want(t, m, crashed)
}

// wantTagged is a race whose index must have every flavour that has a tag, and
// that of everybody who was not killed.
func wantTagged(runs ...run) *race {
	return &race{runs: runs, want: func(t testing.TB, m *regtest.Memory, crashed map[int]bool) error {
		var numbers []int
		for i := range runs {
			if m.Tags(repoName)[flavorTag(i)] != "" {
				numbers = append(numbers, i)
			} else if !crashed[i] {
				return fmt.Errorf("flavour %d has no tag", i)
			}
		}
		if len(numbers) == 0 {
			return nil
		}
		if adopted := tagsLike(m, "adopted"); len(adopted) > 0 {
			return fmt.Errorf("taken for strangers: %v", adopted)
		}
		return wantFlavors(t, m, numbers...)
	}}
}

// All interleavings of the requests of two real publishers, and of one that
// removes what another publishes.
func TestPublishInterleavings(t *testing.T) {
	pushtest.MuchGarbage(t)
	one, two := run{kit: flavorKit(t, 0)}, run{kit: flavorKit(t, 1)}
	t.Run("two flavours", func(t *testing.T) { t.Parallel(); wantTagged(one, two).explore(t, 0) })
	t.Run("one dies", func(t *testing.T) {
		if testing.Short() {
			t.Skip("takes thousands of runs")
		}
		t.Parallel()
		wantTagged(one, two).explore(t, 1)
	})
	t.Run("alias", func(t *testing.T) {
		if testing.Short() {
			t.Skip("takes ten thousand runs")
		}
		t.Parallel()
		alias := func(o *publish.Options) { o.Aliases = []string{"latest"} }
		r := wantTagged(run{kit: one.kit, edit: alias}, run{kit: two.kit, edit: alias})
		flavors := r.want
		r.want = func(t testing.TB, m *regtest.Memory, crashed map[int]bool) error {
			if tags := m.Tags(repoName); tags["latest"] != tags[version] {
				return errors.New("the alias names something else")
			}
			return flavors(t, m, crashed)
		}
		r.explore(t, 0)
	})
	t.Run("one flavour twice", func(t *testing.T) {
		t.Parallel()
		rebuilt := newKit(t, rebuild)
		r := &race{runs: []run{one, {kit: rebuilt}}, want: func(t testing.TB, m *regtest.Memory, _ map[int]bool) error {
			got := published(t, m, version)
			for _, d := range got {
				if len(got) == 1 && d == m.Tags(repoName)[flavorTag(0)] {
					return nil
				}
			}
			return fmt.Errorf("index %v, tags %v", got, m.Tags(repoName))
		}}
		r.explore(t, 0)
	})
	t.Run("removal", func(t *testing.T) {
		t.Parallel()
		r := &race{
			runs: []run{two, {edit: func(o *publish.Options) { o.Remove = []string{"flavor0-amd64"} }}},
			before: func(m *regtest.Memory) {
				mustPublish(t, memoryRepository(t), one.kit, publishing(memoryOptions(t, m), one.kit))
			},
			want: func(t testing.TB, m *regtest.Memory, _ map[int]bool) error { return wantFlavors(t, m, 1) },
		}
		r.explore(t, 0)
	})
	t.Run("untagged index of podman", func(t *testing.T) {
		t.Parallel()
		foreign := newForeign(t)
		r := &race{
			runs:   []run{one, two},
			before: func(m *regtest.Memory) { putForeign(t, m, foreign, version) },
			want: func(t testing.TB, m *regtest.Memory, _ map[int]bool) error {
				if got := published(t, m, version); len(got) != 3 || got["linux/amd64"] == "" || len(tagsLike(m, "adopted")) != 1 {
					return fmt.Errorf("index %v, tags %v", got, m.Tags(repoName))
				}
				return nil
			},
		}
		r.explore(t, 0)
	})
}

// Five publishers in random order, of which some die, and then one pass that
// heals: nothing that has a tag is missing.
func TestPublishSeeds(t *testing.T) {
	pushtest.MuchGarbage(t)
	var runs []run
	for i := range 5 {
		runs = append(runs, run{kit: flavorKit(t, i)})
	}
	r := wantTagged(runs...)
	opts := memoryOptions(t, regtest.NewMemory(nil))
	deaths, clean, n := 0, 0, pushtest.Seeds(t, 400)
	for seed := range n {
		random := rand.New(rand.NewPCG(1, uint64(seed)))
		mortality := []float64{0, 0.005, 0.02}[seed%3]
		m, crashed, _ := r.play(t, opts, func(_ string, waiting []int) (choice, bool) {
			return choice{client: waiting[random.IntN(len(waiting))], crash: random.Float64() < mortality}, true
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
		if err := r.check(t, m, opts, crashed); err != nil {
			t.Fatalf("seed %d, killed %v: %v", seed, crashed, err)
		}
		if deaths += len(crashed); len(crashed) == 0 {
			clean++
		}
	}
	t.Logf("%d seeds, %d deaths, %d runs without one", n, deaths, clean)
	if n >= 40 && (deaths == 0 || clean == 0) {
		t.Errorf("%d deaths, %d runs without one: the test does not test", deaths, clean)
	}
}
