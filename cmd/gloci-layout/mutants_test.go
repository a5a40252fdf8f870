//go:build linux && (amd64 || arm64)

package main_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A mutant is a bug planted into the program, and the test that has to find it.
type mutant struct {
	name     string
	file     string // in the directory of the module
	old, new string // old stands once in file
	run      string // the test, for go test -run
	says     string // what that test says when it finds the bug: a regular expression
	every    bool   // it takes every point to find it, not those of -short only
}

// The tests that look for mutants, each as small as it can be.
const (
	runOrder  = "^TestCrash$/^order$"
	runKill   = "^TestCrash$/^kill$"
	runTorn   = "^TestCrash$/^torn$"
	runErrno  = "^TestCrash$/^errno$"
	runSyncfs = "^TestCrash$/^syncfs$"
	runStress = "^TestStressProcesses$"
	runHeals  = "^TestAddHealsDamagedBlobs$"
)

// mutants are the ways in which other programs lose layouts, and the promises
// that are easily lost again in ours.
var mutants = []mutant{
	{
		name: "files are not synced", file: "layout/internal/durable/durable.go",
		old: "\t\terr = f.Sync()\n",
		new: "\t\terr = nil\n",
		run: runOrder, says: "a power cut could undo what is reported as done",
	},
	{
		name: "a few staged blobs are not synced", file: "layout/batch.go",
		old: "\t\t\terr = errors.Join(err, f.Sync())\n",
		new: "\t\t\t_ = f\n",
		run: runOrder, says: "a power cut could undo what is reported as done",
	},
	{
		name: "many staged blobs are not synced", file: "layout/batch.go",
		old: "\t\terr = durable.SyncFS(s.dir)\n",
		new: "\t\terr = nil\n",
		run: runOrder, says: "merge of many blobs: a power cut could undo what is reported as done",
	},
	{
		name: "a failed sync of staged blobs is ignored", file: "layout/batch.go",
		old: "\t\t\terr = errors.Join(err, f.Sync())\n",
		new: "\t\t\t_ = f.Sync()\n",
		run: runErrno, says: "exit 0 after a failed sync",
	},
	{
		name: "a failed syncfs is ignored", file: "layout/batch.go",
		old: "\t\terr = durable.SyncFS(s.dir)\n",
		new: "\t\t_ = durable.SyncFS(s.dir)\n",
		run: runSyncfs, says: "exit 0 after a failed sync",
	},
	{
		name: "directories are not synced", file: "layout/internal/durable/durable.go",
		old: "\terr := d.Sync()\n",
		new: "\tvar err error\n",
		run: runOrder, says: "a power cut could undo what is reported as done",
	},
	{
		name: "a failed sync of a file is ignored", file: "layout/internal/durable/durable.go",
		old: "\t\terr = f.Sync()\n",
		new: "\t\t_ = f.Sync()\n",
		run: runErrno, says: "exit 0 after a failed sync",
	},
	{
		name: "a failed sync of a directory is ignored", file: "layout/internal/durable/durable.go",
		old: "\tif errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {\n",
		new: "\tif err != nil || errors.Is(err, unix.EINVAL) {\n",
		run: runErrno, says: "exit 0 after a failed sync",
	},
	{
		name: "index.json is written in place", file: "layout/tx.go",
		old: "\tconst name = \"index\"\n",
		new: "\tif f, err := s.l.root.OpenFile(indexFile, os.O_WRONLY|os.O_TRUNC, 0); err == nil {\n" +
			"\t\t_, err = f.Write(raw)\n\t\treturn errors.Join(err, durable.Finish(f, fileMode))\n\t}\n" +
			"\tconst name = \"index\"\n",
		run: runTorn, says: `the promise is broken: L/index\.json`, every: true,
	},
	{
		name: "index.json is replaced before the blobs are there", file: "layout/tx.go",
		old: "\tif err := s.publish(); err != nil {\n",
		new: "\tif err := errors.Join(s.swapIndex(raw), s.publish()); err != nil {\n",
		run: runKill, says: "layout L is damaged",
	},
	{
		name: "what is done already is not synced", file: "layout/tx.go",
		old: "\t\treturn true, durable.SyncRootDir(s.l.root, \".\")\n",
		new: "\t\treturn true, nil\n",
		run: runKill, says: "again: a power cut could undo what is reported as done",
	},
	{
		name: "a stored blob is trusted by its size", file: "layout/stage.go",
		old: "\tswitch err := verifyBlob(ctx, s.l, desc, nil, make([]byte, copyBuffer)); {\n",
		new: "\tswitch err := error(nil); {\n",
		run: runHeals, says: "content does not match its descriptor",
	},
	{
		name: "a stored blob is not synced", file: "layout/stage.go",
		old: "\tif err := s.l.syncBlob(desc.Digest); err != nil {\n",
		new: "\tif err := error(nil); err != nil {\n",
		run: runKill, says: "again: a power cut could undo what is reported as done", every: true,
	},
	{
		name: "locks lock nothing", file: "layout/internal/durable/lock.go",
		old: "\t\terr := flock(f, int(mode)|unix.LOCK_NB)\n",
		new: "\t\tvar err error\n",
		run: runStress, says: "acknowledged and lost|no such file or directory",
	},
	{
		name: "writers of index.json do not exclude each other", file: "layout/tx.go",
		old: "\tif err := durable.Lock(ctx, lock, durable.Exclusive); err != nil {\n",
		new: "\tif err := durable.Lock(ctx, lock, durable.Shared); err != nil {\n",
		run: runStress, says: "acknowledged and lost",
	},
	{
		name: "gc does not wait for writers", file: "layout/gc.go",
		old: "\tif err := durable.Lock(ctx, lock, durable.Exclusive); err != nil {\n",
		new: "\tif err := durable.Lock(ctx, lock, durable.Shared); err != nil {\n",
		run: runStress, says: "acknowledged and lost|no such file or directory|gc: exit 6",
	},
}

// control changes nothing that could be found: if it is found, so is everything.
var control = mutant{
	name: "control", file: "layout/tx.go",
	old: "\tconst name = \"index\"\n",
	new: "\tconst name = \"in\" + \"dex\"\n",
	run: strings.Join([]string{runOrder, runKill, runTorn, runErrno, runSyncfs, runStress, runHeals}, "|"),
}

// Each planted bug is found by the test that is there for it. A test of crash
// safety that finds nothing would look like one that has nothing to find.
func TestMutants(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program once for each mutant")
	}
	atOnce := make(chan struct{}, 2)
	for _, m := range append(slices.Clone(mutants), control) {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			atOnce <- struct{}{}
			defer func() { <-atOnce }()
			exit, out := m.test(t, m.build(t))
			found := regexp.MustCompile(".*(" + m.says + ").*").FindString(out)
			switch {
			case strings.Contains(out, "--- SKIP"):
				t.Skipf("SKIPPED, it cannot be shown here that this is found:\n%s", shorten(out))
			case m.says == "" && exit != 0:
				t.Errorf("%s finds a bug where there is none:\n%s", m.run, shorten(out))
			case m.says == "":
				for name := range strings.SplitSeq(m.run, "|") {
					name, _, _ = strings.Cut(strings.TrimPrefix(name, "^"), "$")
					if !strings.Contains(out, "--- PASS: "+name+" ") {
						t.Errorf("%s did not run:\n%s", name, shorten(out))
					}
				}
			case exit == 0:
				t.Errorf("%s does not find it", m.run)
			// A test that fails ends with 1; 2 is a panic or a wrong flag.
			case exit != 1 || found == "":
				t.Errorf("%s ends with exit %d and does not say %q:\n%s", m.run, exit, m.says, shorten(out))
			default:
				t.Logf("found: %s", strings.TrimSpace(found))
			}
		})
	}
}

// build builds the program with the bug in it. The sources stay as they are.
func (m mutant) build(t *testing.T) string {
	t.Helper()
	file, err := filepath.Abs(filepath.Join("../..", filepath.FromSlash(m.file)))
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), m.old); n != 1 {
		t.Fatalf("%s holds the text to be changed %d times, want once: the mutant has to follow the program:\n%s", m.file, n, m.old)
	}
	dir := t.TempDir()
	changed := filepath.Join(dir, filepath.Base(file))
	if err := os.WriteFile(changed, []byte(strings.Replace(string(source), m.old, m.new, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {file: changed}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o644); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "gloci-layout")
	args := []string{"build", "-overlay=" + filepath.Join(dir, "overlay.json"), "-o", out}
	if tags := buildTags(); tags != "" {
		args = append(args, "-tags="+tags)
	}
	cmd := exec.CommandContext(t.Context(), "go", append(args, ".")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the mutant does not build: %v\n%s", err, b)
	}
	return out
}

// test runs the test in a process of its own, which tests the binary at path.
func (m mutant) test(t *testing.T, path string) (exit int, out string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// -test.v tells a test that was skipped from one that passed.
	cmd := exec.CommandContext(t.Context(), self, "-test.run="+m.run, "-test.short", "-test.v", "-test.timeout=5m")
	if m.every {
		cmd.Args = append(cmd.Args, "-test.short=false")
	}
	cmd.Env = append(os.Environ(), "GLOCI_BINARY="+path)
	b, err := cmd.CombinedOutput()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(b)
}

// shorten returns the end of a long output.
func shorten(out string) string {
	const most = 4000
	if len(out) <= most {
		return out
	}
	return "...\n" + out[len(out)-most:]
}
