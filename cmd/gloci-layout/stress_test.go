package main_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

const (
	stressProcesses = 32
	stressRounds    = 25
)

func rounds() int {
	if testing.Short() {
		return 4
	}
	return stressRounds
}

// checkRefs fails for each of refs that does not name an artifact whose one
// layer is the content, and for all damage in dir.
func checkRefs(t *testing.T, dir string, refs map[string]string) (lost int) {
	t.Helper()
	l, err := layout.Open(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for ref, content := range refs {
		desc, err := layout.ResolveOne(t.Context(), l, ref, "")
		if err != nil {
			t.Errorf("acknowledged and lost: %s: %v", ref, err)
			lost++
			continue
		}
		doc, err := layout.ReadDocument(t.Context(), l, desc)
		if err != nil || len(doc.Layers) != 1 || doc.Layers[0].Digest != digest.FromString(content) {
			t.Errorf("%s names other content: %v", ref, err)
			lost++
		}
	}
	if err := verifyClean(t.Context(), dir); err != nil {
		t.Errorf("damaged: %v", err)
	}
	return lost
}

// Thirty-two processes at once, round after round, each of which adds one
// artifact: all that ended with exit status 0 is there. In every second round
// they replace what the round before them had named, and one more process takes
// what nothing names any more, without a grace age, all the time.
func TestStressProcesses(t *testing.T) {
	dir := fastDir(t)
	mustRun(t, dir, "init", "L")
	acknowledged, lost, collected := 0, 0, 0
	all := map[string]string{}
	for round := range rounds() {
		refs := map[string]string{}
		for i := range stressProcesses {
			ref := fmt.Sprintf("r%d-p%d", round, i)
			if round%2 == 1 {
				ref = fmt.Sprintf("shared-p%d", i)
			}
			refs[ref] = fmt.Sprintf("content of round %d, process %d\n", round, i)
		}
		ctx, stop := context.WithCancel(t.Context())
		var gc, adds sync.WaitGroup
		if round%2 == 1 {
			gc.Go(func() {
				for again := true; again; again = ctx.Err() == nil {
					if r := runBinary(t, dir, "gc", "L", "--grace", "0", "--quiet"); r.exit != 0 {
						t.Errorf("gc: exit %d\n%s", r.exit, r.stderr)
						return
					}
					collected++
				}
			})
		}
		var mu sync.Mutex
		for ref, content := range refs {
			file := filepath.Join(dir, ref)
			if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
			adds.Go(func() {
				r := runBinary(t, dir, "add", "artifact", "L", "--ref", ref, "--artifact-type", "application/vnd.example", ref+":text/plain", "--quiet")
				mu.Lock()
				defer mu.Unlock()
				if r.exit != 0 {
					t.Errorf("add %s: exit %d\n%s", ref, r.exit, r.stderr)
					return
				}
				acknowledged++
				all[ref] = content
			})
		}
		adds.Wait()
		stop()
		gc.Wait()
		lost += checkRefs(t, filepath.Join(dir, "L"), all)
		if t.Failed() {
			break // the rounds after it would only lose the same again
		}
	}
	t.Logf("%d of %d acknowledged adds lost in %d rounds of %d processes; gc ran %d times beside them",
		lost, acknowledged, rounds(), stressProcesses, collected)
	if collected == 0 {
		t.Error("gc never ran: the test shows nothing of it")
	}
}

// Eight processes at once merge layouts of one artifact each into one layout,
// and into one index of it: all of it is there in the end.
func TestStressMerge(t *testing.T) {
	t.Parallel()
	const processes = 8
	dir := fastDir(t)
	mustRun(t, dir, "init", "L")
	refs := map[string]string{}
	want := map[string]bool{}
	for round := range min(rounds(), 8) {
		// What is merged is made before, all at once too.
		var made, merges sync.WaitGroup
		commands := make([][]string, processes)
		for p := range processes {
			commands[p] = []string{"merge", "L", "--quiet"}
			for i := range 3 {
				ref := fmt.Sprintf("r%d-p%d-%d", round, p, i)
				refs[ref] = "content of " + ref
				if err := os.WriteFile(filepath.Join(dir, ref+".txt"), []byte(refs[ref]), 0o644); err != nil {
					t.Fatal(err)
				}
				commands[p] = append(commands[p], "job-"+ref)
				made.Go(func() {
					for _, args := range [][]string{
						{"init", "job-" + ref},
						{
							"add", "artifact", "job-" + ref, "--ref", ref, "--into", "all", "--annotation", "name=" + ref,
							"--artifact-type", "application/vnd.example", ref + ".txt:text/plain",
						},
					} {
						if r := runBinary(t, dir, args...); r.exit != 0 {
							t.Errorf("%q: exit %d\n%s", args, r.exit, r.stderr)
						}
					}
				})
			}
		}
		made.Wait()
		for _, args := range commands {
			merges.Go(func() {
				if r := runBinary(t, dir, args...); r.exit != 0 {
					t.Errorf("%q: exit %d\n%s", args, r.exit, r.stderr)
				}
			})
		}
		merges.Wait()
		checkRefs(t, filepath.Join(dir, "L"), refs)
	}
	l, err := layout.Open(t.Context(), filepath.Join(dir, "L"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for ref := range refs {
		desc, err := layout.ResolveOne(t.Context(), l, ref, "")
		if err != nil {
			t.Fatal(err)
		}
		want[string(desc.Digest)] = true
	}
	all, err := layout.Resolve(t.Context(), l, "all", "")
	if err != nil || len(all) != 1 {
		t.Fatalf("%d entries, %v", len(all), err)
	}
	doc, err := layout.ReadDocument(t.Context(), l, all[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, desc := range doc.Manifests {
		delete(want, string(desc.Digest))
	}
	if len(want) > 0 {
		t.Errorf("%d of %d entries of the index are lost", len(want), len(refs))
	}
	t.Logf("%d entries by %d processes at once", len(doc.Manifests), processes)
}

// The same inside one process: goroutines that share a layout and goroutines that
// have opened it for themselves, with gc beside them.
func TestStressUpdate(t *testing.T) {
	dir := filepath.Join(fastDir(t), "L")
	shared, err := layout.Create(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer shared.Close()
	const workers = 16
	var mu sync.Mutex
	refs := map[string]string{}
	open := make([]*layout.Layout, workers)
	for w := range open {
		open[w] = shared
		if w%2 == 1 {
			if open[w], err = layout.Open(t.Context(), dir, nil); err != nil {
				t.Fatal(err)
			}
			defer open[w].Close()
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	removed := 0
	var passes atomic.Int64
	var gc sync.WaitGroup
	gc.Go(func() {
		for ctx.Err() == nil {
			res, err := shared.GC(t.Context(), layout.GCOptions{Now: time.Now()})
			if err != nil {
				t.Errorf("gc: %v", err)
				return
			}
			removed += len(res.Removed)
			passes.Add(1)
		}
	})
	for i := range min(rounds(), 10) {
		var adds sync.WaitGroup
		for w, l := range open {
			adds.Go(func() {
				ref, content := fmt.Sprintf("w%d", w), fmt.Sprintf("worker %d, step %d", w, i)
				if i%2 == 0 {
					ref = fmt.Sprintf("w%d-%d", w, i)
				}
				if err := addArtifact(t.Context(), l, ref, content); err != nil {
					t.Errorf("%s: %v", ref, err)
					return
				}
				mu.Lock()
				refs[ref] = content
				mu.Unlock()
			})
		}
		adds.Wait()
		// While writers overlap, gc waits for them; between the rounds it has its
		// turn, and a whole one: the pass that ends first may have begun before.
		for least := passes.Load() + 2; passes.Load() < least && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
	}
	stop()
	gc.Wait()
	lost := checkRefs(t, dir, refs)
	t.Logf("%d of %d refs lost; gc removed %d blobs beside them", lost, len(refs), removed)
	if removed == 0 {
		t.Error("gc removed nothing: the test shows nothing of it")
	}
}

func addArtifact(ctx context.Context, l *layout.Layout, ref, content string) (err error) {
	s, err := l.Stage(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	config, err := s.AddBytes(ctx, []byte("{}"), "application/vnd.oci.empty.v1+json")
	if err != nil {
		return err
	}
	layer, err := s.AddBytes(ctx, []byte(content), "text/plain")
	if err != nil {
		return err
	}
	raw, err := layout.EncodeManifest(ocispec.Manifest{ArtifactType: "application/vnd.example", Config: config, Layers: []ocispec.Descriptor{layer}})
	if err != nil {
		return err
	}
	return s.Update(ctx, func(tx *layout.Tx) error {
		desc, err := tx.PutDocument(raw, testTypeManifest)
		if err != nil {
			return err
		}
		tx.SetRef(ref, desc)
		return nil
	})
}
