//go:build linux && (amd64 || arm64)

package main_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gardenlinux/gloci-layout/cmd/gloci-layout/internal/killpoint"
)

// What is recompressed on the way lies in TMPDIR: an interrupt leaves nothing
// there, and what a kill leaves the next run takes away.
func TestRecompressLeavesNothing(t *testing.T) {
	dir := fastDir(t)
	l := newRawLayout(t, filepath.Join(dir, "L"))
	l.index(named(l.image("the layer of app"), "app"))
	temp := filepath.Join(dir, "tmp")
	if err := os.Mkdir(temp, 0o700); err != nil {
		t.Fatal(err)
	}
	run := func(plan killpoint.Plan) (res *killpoint.Result, left int) {
		t.Helper()
		res, err := killpoint.Run(t.Context(), killpoint.Command{
			Path: binary(t), Args: []string{"pack", "L", "out.oci", "--to-zstd", "--quiet"}, Dir: dir, Under: dir,
			Env: append(binaryEnv(dir), "TMPDIR="+temp), Timeout: 30 * time.Second,
		}, plan)
		if errors.Is(err, killpoint.ErrUnsupported) {
			t.Skipf("SKIPPED, what a kill leaves is not tested here: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(temp)
		if err != nil {
			t.Fatal(err)
		}
		return res, len(entries)
	}
	whole, left := run(killpoint.Plan{})
	if whole.Exit != 0 || left != 0 {
		t.Fatalf("undisturbed: exit %d, %d files are left in TMPDIR\n%s", whole.Exit, left, whole.Stderr)
	}
	kills := 0
	for n := 1; n <= len(whole.Trace); n += 5 {
		if _, left = run(killpoint.Plan{Action: killpoint.Kill, N: n}); left > 1 {
			t.Errorf("killed at %d: %d files are left, want those of this run only", n, left)
		}
		kills += left
		res, left := run(killpoint.Plan{Action: killpoint.Interrupt, N: n})
		if left != 0 || res.Exit != 0 && res.Exit != 130 {
			t.Errorf("interrupted at %d: exit %d, %d files are left\n%s", n, res.Exit, left, res.Stderr)
		}
	}
	if kills == 0 {
		t.Error("no kill left anything: the test shows nothing")
	}
	if res, left := run(killpoint.Plan{}); res.Exit != 0 || left != 0 {
		t.Errorf("again: exit %d, %d files are left\n%s", res.Exit, left, res.Stderr)
	}
	mustRun(t, dir, "verify", "out.oci")
}
