//go:build linux && (amd64 || arm64)

package main_test

import (
	"os"
	"strings"
	"testing"

	"github.com/gardenlinux/gloci-layout/layout/bugtest"
)

// The tests that look for planted bugs, each as small as it can be.
const (
	runOrder  = "^TestCrash$/^order$"
	runKill   = "^TestCrash$/^kill$"
	runTorn   = "^TestCrash$/^torn$"
	runErrno  = "^TestCrash$/^errno$"
	runSyncfs = "^TestCrash$/^syncfs$"
	runStress = "^TestStressProcesses$"
	runHeals  = "^TestAddHealsDamagedBlobs$"
)

// cases runs those cases of the crash tests only, by a regular expression for
// their names: a few cases show all bugs. They are run at all of their points, and
// with all errors.
func cases(names string) []string {
	return []string{crashCasesVariable + "=" + names, "GLOCI_KILL=full"}
}

// window keeps the moment open between the last look at index.json and its
// replacement. Without a lock other processes come in between; they would
// without it too, but not in every run on every machine.
var window = bugtest.Edit{
	File: "layout/tx.go",
	Old:  "\tif err := s.publish(); err != nil {\n",
	New:  "\tif PLANTED {\n\t\ttime.Sleep(20 * time.Millisecond)\n\t}\n\tif err := s.publish(); err != nil {\n",
}

// bugs are the ways in which other programs lose layouts, and the promises that
// are easily lost again in ours.
var bugs = []bugtest.Bug{
	{
		Name: "files are not synced",
		Edits: []bugtest.Edit{{
			File: "layout/internal/durable/durable.go",
			Old:  "\t\terr = f.Sync()\n",
			New:  "\t\tif !PLANTED {\n\t\t\terr = f.Sync()\n\t\t}\n",
		}},
		Run: runOrder, Says: "a power cut could undo what is reported as done",
		Env: cases("add artifact"),
	},
	{
		Name: "a few staged blobs are not synced",
		Edits: []bugtest.Edit{{
			File: "layout/batch.go",
			Old:  "\t\t\terr = errors.Join(err, f.Sync())\n",
			New:  "\t\t\tif PLANTED {\n\t\t\t\tcontinue\n\t\t\t}\n\t\t\terr = errors.Join(err, f.Sync())\n",
		}},
		Run: runOrder, Says: "a power cut could undo what is reported as done",
		Env: cases("add artifact"),
	},
	{
		Name: "many staged blobs are not synced",
		Edits: []bugtest.Edit{{
			File: "layout/batch.go",
			Old:  "\t\terr = durable.SyncFS(s.dir)\n",
			New:  "\t\tif !PLANTED {\n\t\t\terr = durable.SyncFS(s.dir)\n\t\t}\n",
		}},
		Run: runOrder, Says: "merge of many blobs: a power cut could undo what is reported as done",
		Env: cases("merge of many blobs"),
	},
	{
		Name: "a failed sync of staged blobs is ignored",
		Edits: []bugtest.Edit{{
			File: "layout/batch.go",
			Old:  "\t\t\terr = errors.Join(err, f.Sync())\n",
			New:  "\t\t\terr = errors.Join(err, f.Sync())\n\t\t\tif PLANTED {\n\t\t\t\terr = nil\n\t\t\t}\n",
		}},
		Run: runErrno, Says: "exit 0 after a failed sync",
		Env: cases("add artifact"),
	},
	{
		Name: "a failed syncfs is ignored",
		Edits: []bugtest.Edit{{
			File: "layout/batch.go",
			Old:  "\t\terr = durable.SyncFS(s.dir)\n",
			New:  "\t\terr = durable.SyncFS(s.dir)\n\t\tif PLANTED {\n\t\t\terr = nil\n\t\t}\n",
		}},
		Run: runSyncfs, Says: "exit 0 after a failed sync",
		Env: cases("merge of many blobs"),
	},
	{
		Name: "directories are not synced",
		Edits: []bugtest.Edit{{
			File: "layout/internal/durable/durable.go",
			Old:  "\terr := d.Sync()\n",
			New:  "\tif PLANTED {\n\t\treturn d.Close()\n\t}\n\terr := d.Sync()\n",
		}},
		Run: runOrder, Says: "a power cut could undo what is reported as done",
		Env: cases("tag"),
	},
	{
		Name: "a failed sync of a file is ignored",
		Edits: []bugtest.Edit{{
			File: "layout/internal/durable/durable.go",
			Old:  "\t\terr = f.Sync()\n",
			New:  "\t\terr = f.Sync()\n\t\tif PLANTED {\n\t\t\terr = nil\n\t\t}\n",
		}},
		Run: runErrno, Says: "exit 0 after a failed sync",
		Env: cases("tag"),
	},
	{
		Name: "a failed sync of a directory is ignored",
		Edits: []bugtest.Edit{{
			File: "layout/internal/durable/durable.go",
			Old:  "\tif errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {\n",
			New:  "\tif PLANTED || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {\n",
		}},
		Run: runErrno, Says: "exit 0 after a failed sync",
		Env: cases("tag"),
	},
	{
		Name: "index.json is written in place",
		Edits: []bugtest.Edit{{
			File: "layout/tx.go",
			Old:  "\tconst name = \"index\"\n",
			New:  "\tif PLANTED {\n\t\tif f, err := s.l.root.OpenFile(indexFile, os.O_WRONLY|os.O_TRUNC, 0); err == nil {\n\t\t\t_, err = f.Write(raw)\n\t\t\treturn errors.Join(err, durable.Finish(f, fileMode))\n\t\t}\n\t}\n\tconst name = \"index\"\n",
		}},
		Run: runTorn, Says: `the promise is broken: L/index\.json`,
		Env: cases("tag"),
	},
	{
		Name: "index.json is replaced before the blobs are there",
		Edits: []bugtest.Edit{{
			File: "layout/tx.go",
			Old:  "\tif err := s.publish(); err != nil {\n",
			New:  "\tif PLANTED {\n\t\tif err := s.swapIndex(raw); err != nil {\n\t\t\treturn false, err\n\t\t}\n\t}\n\tif err := s.publish(); err != nil {\n",
		}},
		Run: runKill, Says: "layout L is damaged",
		Env: cases("add artifact"),
	},
	{
		Name: "what is done already is not synced",
		Edits: []bugtest.Edit{{
			File: "layout/tx.go",
			Old:  "\t\treturn true, durable.SyncRootDir(s.l.root, \".\")\n",
			New:  "\t\tif PLANTED {\n\t\t\treturn true, nil\n\t\t}\n\t\treturn true, durable.SyncRootDir(s.l.root, \".\")\n",
		}},
		Run: runKill, Says: "again: a power cut could undo what is reported as done",
		Env: cases("tag"),
	},
	{
		Name: "a stored blob is trusted by its size",
		Edits: []bugtest.Edit{{
			File: "layout/stage.go",
			Old:  "\tswitch err := verifyBlob(ctx, s.l, desc, nil, make([]byte, copyBuffer)); {\n",
			New:  "\tverify := verifyBlob\n\tif PLANTED {\n\t\tverify = func(context.Context, Source, ocispec.Descriptor, func(Event), []byte) error { return nil }\n\t}\n\tswitch err := verify(ctx, s.l, desc, nil, make([]byte, copyBuffer)); {\n",
		}},
		Run: runHeals, Says: "content does not match its descriptor",
	},
	{
		Name: "a stored blob is not synced",
		Edits: []bugtest.Edit{{
			File: "layout/stage.go",
			Old:  "\tif err := s.l.syncBlob(desc.Digest); err != nil {\n",
			New:  "\tif PLANTED {\n\t} else if err := s.l.syncBlob(desc.Digest); err != nil {\n",
		}},
		Run: runKill, Says: "again: a power cut could undo what is reported as done",
		Env: cases("add image"),
	},
	{
		Name: "temporary files of patches keep their names",
		Edits: []bugtest.Edit{{
			File: "internal/tempfile/tempfile.go",
			Old:  "\tf, err := unnamed(dir)\n",
			New:  "\tif PLANTED {\n\t\treturn os.CreateTemp(dir, \"gloci-layout-\")\n\t}\n\tf, err := unnamed(dir)\n",
		}},
		Run: runOrder, Says: "scratch/gloci-layout-[0-9]+ is left over",
		Env: cases("pack a delta of contents"),
	},
	{
		Name: "locks lock nothing",
		Edits: []bugtest.Edit{{
			File: "layout/internal/durable/lock.go",
			Old:  "\t\terr := flock(f, int(mode)|unix.LOCK_NB)\n",
			New:  "\t\tif PLANTED {\n\t\t\treturn true, nil\n\t\t}\n\t\terr := flock(f, int(mode)|unix.LOCK_NB)\n",
		}, window},
		Run: runStress, Says: "acknowledged and lost|no such file or directory",
	},
	{
		Name: "writers of index.json do not exclude each other",
		Edits: []bugtest.Edit{{
			File: "layout/tx.go",
			Old:  "\tif err := durable.Lock(ctx, lock, durable.Exclusive); err != nil {\n",
			New:  "\tmode := durable.Exclusive\n\tif PLANTED {\n\t\tmode = durable.Shared\n\t}\n\tif err := durable.Lock(ctx, lock, mode); err != nil {\n",
		}, window},
		Run: runStress, Says: "acknowledged and lost",
	},
	{
		Name: "gc does not wait for writers",
		Edits: []bugtest.Edit{{
			File: "layout/gc.go",
			Old:  "\tif err := durable.Lock(ctx, lock, durable.Exclusive); err != nil {\n",
			New:  "\tmode := durable.Exclusive\n\tif PLANTED {\n\t\tmode = durable.Shared\n\t}\n\tif err := durable.Lock(ctx, lock, mode); err != nil {\n",
		}},
		Run: runStress, Says: "acknowledged and lost|no such file or directory|gc: exit 6",
	},
}

// control has no bug: if it is found, so is everything.
var control = bugtest.Bug{
	Name: "control: no bug",
	Run:  strings.Join([]string{runOrder, runKill, runTorn, runErrno, runSyncfs, runStress, runHeals}, "|"),
	Env:  []string{crashCasesVariable + "=tag|add artifact|merge of many blobs"},
}

// Each planted bug is found by the test that is there for it.
func TestMutants(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the tests of crashes for each bug")
	}
	if os.Getenv(bugtest.Variable) != "" {
		t.Skip("inside a mutant")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := bugtest.Build(t, "../..", bugs, nil, "build")
	for _, b := range append(bugs, control) {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			b.Args = []string{"-test.short"} // fewer rounds of TestStressProcesses
			b.Find(t, self, "GLOCI_BINARY="+path)
		})
	}
}
