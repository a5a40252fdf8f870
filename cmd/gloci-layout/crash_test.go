//go:build linux && (amd64 || arm64)

package main_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/gardenlinux/gloci-layout/cmd/gloci-layout/internal/killpoint"
	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout/bugtest"
)

// minKillPoints may rise, never fall: fewer points mean that the harness sees
// less, not that the program does less.
const minKillPoints = 1380

// crashCasesVariable names some of the cases by a regular expression; only those
// are run then.
const crashCasesVariable = "GLOCI_CRASH"

// A crashCase is a command, and the state of its directory before and after.
type crashCase struct {
	name string
	args []string
	// layout is the directory that is edited; or output is the file or directory
	// that is made.
	layout, output string
	gc             bool // changes no index.json
	// split is an output in parts: output, which is never there, names its
	// manifest and parts. What is begun stays for the next run to go on with.
	split bool
	// again is the exit status of a second run, where that is not 0.
	again int
	// unsynced is a command that leaves it to the system when its output reaches
	// the disk, as tar does: a power cut may take it, a kill may not.
	unsynced bool
	// temps is a command that needs temporary files of the system: they are in the
	// directory scratch.
	temps bool
	// part is a command most of whose calls others make too: every third is enough
	// without GLOCI_KILL=full.
	part bool

	template      string // directory that the files of each run are copied from
	before, after state
	trace         []killpoint.Call // of an undisturbed run
	writes        int
}

func crashCases() []*crashCase {
	return []*crashCase{
		{name: "init", args: []string{"init", "N"}, output: "N", again: 6},
		{name: "add image", args: []string{"add", "image", "L", "oci:src:app", "--ref", "new"}, layout: "L"},
		{name: "add image into", args: []string{"add", "image", "L", "oci:src:app", "--into", "set", "--platform", "linux/arm64"}, layout: "L"},
		{name: "add image from a tarball", args: []string{"add", "image", "L", "oci-archive:in.oci:app", "--ref", "new"}, layout: "L"},
		{name: "add image of a root file system", args: []string{"add", "image", "L", "--rootfs", "root", "--ref", "new", "--platform", "linux/amd64"}, layout: "L"},
		{name: "add image of a layer", args: []string{"add", "image", "L", "--base", "oci:real:base", "--layer", "layer.tar", "--into", "set"}, layout: "L"},
		{name: "add artifact", args: []string{"add", "artifact", "L", "--ref", "new", "--artifact-type", "application/vnd.example", "a.txt:text/plain", "b.txt:text/plain"}, layout: "L"},
		{name: "add artifact over another", args: []string{"add", "artifact", "L", "--ref", "old", "--artifact-type", "application/vnd.example", "a.txt:text/plain"}, layout: "L"},
		{name: "add flavor", args: []string{"add", "flavor", "L", "--ref", "1877.3", "build"}, layout: "L"},
		{name: "tag", args: []string{"tag", "L", "old", "also"}, layout: "L"},
		{name: "untag", args: []string{"untag", "L", "old"}, layout: "L", again: 3},
		{name: "rm", args: []string{"rm", "L", "old"}, layout: "L", again: 3},
		{name: "rm below", args: []string{"rm", "L", "deep", "--artifact-type", "application/x.files"}, layout: "L", again: 3},
		{name: "attach layer", args: []string{"attach", "layer", "L", "deep", "--artifact-type", "application/x.files", "b.txt:text/plain"}, layout: "L"},
		{name: "attach layer and move referrers", args: []string{"attach", "layer", "L", "deep", "--artifact-type", "application/x.files", "--move-referrers", "b.txt:text/plain"}, layout: "L"},
		{name: "attach layer to an image", args: []string{"attach", "layer", "L", "set", "b.txt:application/vnd.oci.image.layer.v1.tar"}, layout: "L"},
		{name: "detach layer", args: []string{"detach", "layer", "L", "deep", "--artifact-type", "application/x.files", "--title", "a.txt"}, layout: "L", again: 3},
		{name: "replace layer", args: []string{"replace", "layer", "L", "deep", "--artifact-type", "application/x.files", "--title", "a.txt", "b.txt"}, layout: "L"},
		{name: "recompress", args: []string{"recompress", "L", "deep", "--all", "--to", "zstd", "--move-referrers"}, layout: "L"},
		{name: "attach referrer", args: []string{"attach", "referrer", "L", "deep", "--artifact-type", "application/x.sbom", "b.txt"}, layout: "L"},
		{name: "annotate", args: []string{"annotate", "L", "deep", "--artifact-type", "application/x.files", "k=v"}, layout: "L"},
		{name: "annotate entries", args: []string{"annotate", "L", "deep", "--artifact-type", "application/x.files", "--descriptor", "k=v"}, layout: "L"},
		{name: "annotate index", args: []string{"annotate", "L", "--index", "k=v"}, layout: "L"},
		{name: "merge", args: []string{"merge", "L", "job1", "in.oci", "job2"}, layout: "L"},
		{name: "merge of many blobs", args: []string{"merge", "L", "many"}, layout: "L"},
		{name: "merge by links", args: []string{"merge", "L", "job1", "--link"}, layout: "L"},
		{name: "merge three ways", args: []string{"merge", "L", "job1", "--base", "base"}, layout: "L"},
		{name: "index create", args: []string{"index", "create", "L", "--ref", "new", "oci:src:app", "--platform", "linux/arm64", "--annotation", "k=v"}, layout: "L"},
		{name: "index add", args: []string{"index", "add", "L", "set", "oci:src:app", "--platform", "linux/arm64"}, layout: "L"},
		{name: "index rm", args: []string{"index", "rm", "L", "set", "platform:linux/amd64"}, layout: "L", again: 3},
		{name: "index flatten", args: []string{"index", "flatten", "L", "deep"}, layout: "L"},
		{name: "index nest", args: []string{"index", "nest", "L", "set", "--by", "arch", "--images"}, layout: "L"},
		{name: "gc", args: []string{"gc", "L", "--grace", "0"}, layout: "L", gc: true},
		{name: "pack", args: []string{"pack", "L", "out.oci"}, output: "out.oci"},
		{name: "pack large blobs", args: []string{"pack", "large", "out.oci"}, output: "out.oci"},
		{name: "pack over another", args: []string{"pack", "L", "old.oci"}, output: "old.oci"},
		{name: "pack gz", args: []string{"pack", "L", "out.oci.gz"}, output: "out.oci.gz"},
		{name: "pack split", args: []string{"pack", "L", "out.oci", "--split", "8K"}, output: "out.oci", split: true},
		{name: "pack split over another", args: []string{"pack", "L", "split.oci", "--split", "8K"}, output: "split.oci", split: true},
		{name: "unpack", args: []string{"unpack", "in.oci", "N"}, output: "N", again: 6},
		{name: "pack a delta", args: []string{"pack", "next", "out.oci", "--base", "L"}, output: "out.oci"},
		{name: "unpack a delta over its base", args: []string{"unpack", "delta.oci", "L"}, layout: "L"},
		{name: "unpack a delta", args: []string{"unpack", "empty.oci", "N", "--base", "empty"}, output: "N"},
		{name: "pack a delta of contents", args: []string{"pack", "now", "out.oci", "--base", "was", "--delta-blobs"}, output: "out.oci", temps: true, part: true},
		{name: "unpack a delta of contents over its base", args: []string{"unpack", "contents.oci", "was"}, layout: "was", temps: true, part: true},
		{name: "unpack of parts", args: []string{"unpack", "split.oci", "N"}, output: "N", again: 6},
		{name: "copy", args: []string{"copy", "T", "--layer", "0", "-o", "N"}, output: "N", again: 6},
		{name: "copy over another", args: []string{"copy", "T", "--layer", "0", "-o", "a.txt", "--force"}, output: "a.txt"},
		{name: "copy to a directory", args: []string{"copy", "T.oci", "--name", "d{index}/{title}", "-o", "N"}, output: "N", again: 6},
		{name: "extract", args: []string{"extract", "T", "--mode", "ExtractAll", "-o", "N"}, output: "N", again: 6, unsynced: true},
		{name: "extract over another", args: []string{"extract", "T.oci", "--layer", "0", "-o", "D", "--force"}, output: "D", unsynced: true},
	}
}

// makeTemplate makes the directory that the cases start from.
func makeTemplate(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(fastDir(t), "template")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := func(name, content string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755),
			os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	file("a.txt", "the first file\n")
	file("b.txt", strings.Repeat("the second file\n", 100))
	const base = "build/kvm-gardener_prod-amd64-1877.3-a1b2c3d4"
	file(base+".raw", "the disk\n")
	file(base+".manifest", "dpkg 1.22\n")
	file(base+".release", "ID=gardenlinux\nGARDENLINUX_CNAME=kvm-gardener_prod-amd64-1877.3\nGARDENLINUX_VERSION=1877.3\n"+
		"GARDENLINUX_COMMIT_ID=a1b2c3d4\nGARDENLINUX_FEATURES=base,gardener,kvm,_prod\n")
	file("root/etc/os-release", "ID=gardenlinux\n")
	file("root/srv/data", strings.Repeat("the data\n", 10_000))
	file("layer.tar", string(tarOf(t, []member{{name: "srv/more", content: "more\n", mode: 0o644}})))
	runs := newRawLayout(t, filepath.Join(dir, "real"))
	runs.index(named(runs.runnable("arm64", "base").manifest, "base"))
	src := newRawLayout(t, filepath.Join(dir, "src"))
	src.index(named(src.image("the layer of app"), "app"))
	l := newRawLayout(t, filepath.Join(dir, "L"))
	set := l.image("the layer of set")
	amd64 := set
	amd64.Platform = platform("linux", "amd64")
	files := l.files("application/x.files", nil, "a.txt")
	note := l.files("application/x.note", &files, "note.txt")
	l.index(named(l.image("the layer of keep"), "keep"), named(l.image("the layer of old"), "old"), named(l.nested(amd64), "set"),
		named(l.nested(l.nested(amd64, files), files), "deep"), note)
	for _, job := range []string{"job1", "job2"} {
		j := newRawLayout(t, filepath.Join(dir, job))
		own := j.image("the layer of " + job)
		own.Platform = platform("linux", map[string]string{"job1": "arm64", "job2": "s390x"}[job])
		j.index(named(j.nested(own), "set"))
	}
	since := newRawLayout(t, filepath.Join(dir, "base"))
	since.index(named(since.image("the layer of old"), "old"))
	many := newRawLayout(t, filepath.Join(dir, "many"))
	var images []ocispec.Descriptor
	for i := range 6 { // three blobs each
		images = append(images, named(many.image(fmt.Sprintf("layer %d of many", i)), fmt.Sprintf("many-%d", i)))
	}
	many.index(images...)
	large := newRawLayout(t, filepath.Join(dir, "large")) // pack writes these at once, each at its place
	large.index(named(large.image(strings.Repeat("large", 210<<10)), "a"), named(large.image(strings.Repeat("larger", 180<<10)), "b"))
	l.blob("x/garbage", "nothing names this")
	l.blob("x/garbage", "nor this")
	mustRun(t, dir, "pack", "src", "in.oci")
	mustRun(t, dir, "pack", "src", "old.oci")
	mustRun(t, dir, "pack", "src", "split.oci", "--split", "4K")
	file("x.tar", string(tarOf(t, []member{
		{name: "x/", mode: 0o755},
		{name: "x/one", content: "the first\n", mode: 0o644},
		{name: "x/link", link: "one", mode: 0o777},
		{name: "two", content: strings.Repeat("the second\n", 50), mode: 0o640},
	})))
	file("D/old", "what was there\n")
	mustRun(t, dir, "init", "T")
	mustRun(t, dir, "add", "artifact", "T", "--ref", "v", "--artifact-type", "application/vnd.example", "x.tar:application/vnd.example.tar", "b.txt:text/plain")
	mustRun(t, dir, "pack", "T", "T.oci")
	mustRun(t, dir, "init", "empty")
	mustRun(t, dir, "pack", "empty", "empty.oci", "--base", "empty")
	// Every layout that was edited once has these; a first edit makes them.
	mustRun(t, dir, "tag", "L", "keep", "kept")
	mustRun(t, dir, "pack", "L", "L.oci")
	mustRun(t, dir, "unpack", "L.oci", "next")
	mustRun(t, dir, "add", "image", "next", "oci:src:app", "--ref", "new")
	mustRun(t, dir, "pack", "next", "delta.oci", "--base", "L")
	// A patch of the content of a layer in gzip, and of one in zstd.
	compressedImage(t, filepath.Join(dir, "was"), 0)
	compressedImage(t, filepath.Join(dir, "now"), 1)
	mustRun(t, dir, "pack", "now", "contents.oci", "--base", "was", "--delta-blobs")
	if raw, err := os.ReadFile(filepath.Join(dir, "contents.oci")); err != nil || strings.Count(string(raw), `"recipe":{`) != 2 {
		t.Fatalf("%d recipes in the delta, want 2, %v", strings.Count(string(raw), `"recipe":{`), err)
	}
	return dir
}

// compressedImage makes a layout with an image of two layers, in gzip and in zstd. Of
// each, one line in ninety is of the version.
func compressedImage(t *testing.T, dir string, version int) {
	t.Helper()
	r := newRawLayout(t, dir)
	var diffIDs []digest.Digest
	var layers []ocispec.Descriptor
	for i, format := range []compress.Format{compress.Gzip, compress.Zstd} {
		var content, b bytes.Buffer
		for line := range 180 {
			if line%90 == 50 {
				line += 1000 * version
			}
			fmt.Fprintf(&content, "%x\n", sha256.Sum256([]byte{byte(i), byte(line), byte(line >> 8)}))
		}
		w, err := compress.NewWriter(&b, format, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Write(content.Bytes())
		if err := errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		diffIDs = append(diffIDs, digest.FromBytes(content.Bytes()))
		layers = append(layers, r.blob(testTypeLayer+"+"+format.String(), b.String()))
	}
	config := r.blob(testTypeConfig, fmt.Sprintf(`{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["%s","%s"]}}`,
		diffIDs[0], diffIDs[1]))
	r.index(named(r.manifest(config, layers...), "v"))
}

// prepare records an undisturbed run.
func (c *crashCase) prepare(t *testing.T, template string) {
	t.Helper()
	c.template = template
	dir := c.copy(t)
	defer os.RemoveAll(dir)
	var err error
	if c.before, err = readState(dir); err != nil {
		t.Fatal(err)
	}
	res, err := c.run(t.Context(), t, dir, killpoint.Plan{})
	if errors.Is(err, killpoint.ErrUnsupported) {
		t.Skipf("SKIPPED, crash safety is not tested here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if res.Exit != 0 {
		t.Fatalf("%s: exit %d\n%s", c.name, res.Exit, res.Stderr)
	}
	if c.after, err = readState(dir); err != nil {
		t.Fatal(err)
	}
	c.trace, c.writes = res.Trace, res.Writes()
	if maps.Equal(c.before, c.after) || len(c.trace) == 0 {
		t.Fatalf("%s changes nothing: the case shows nothing", c.name)
	}
	c.checkNoTemps(t, c.name, c.after)
	if _, err := c.checkCrash(c.after); err != nil {
		t.Errorf("%s: the checker refuses an undisturbed run: %v", c.name, err)
	}
	if testing.Verbose() {
		for i, call := range c.trace {
			t.Logf("%s: %3d %s", c.name, i+1, strings.ReplaceAll(call.String(), dir+"/", ""))
		}
	}
}

// copy returns a directory that holds what the command names of the template, with
// the parts of a file that is split.
func (c *crashCase) copy(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Dir(c.template), "run")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(c.template)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.ContainsFunc(c.args, func(arg string) bool {
			return slices.ContainsFunc(strings.Split(arg, ":"), func(name string) bool {
				return name == e.Name() || strings.HasPrefix(e.Name(), name+".")
			})
		}) {
			continue
		}
		from, to := filepath.Join(c.template, e.Name()), filepath.Join(dir, e.Name())
		if e.IsDir() {
			err = os.CopyFS(to, os.DirFS(from))
		} else {
			var b []byte
			if b, err = os.ReadFile(from); err == nil {
				err = os.WriteFile(to, b, 0o644)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if c.temps {
		if err := os.Mkdir(filepath.Join(dir, scratch), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (c *crashCase) run(ctx context.Context, t *testing.T, dir string, plan killpoint.Plan) (*killpoint.Result, error) {
	// The files of copies are of different times.
	env := append(binaryEnv(filepath.Dir(dir)), "SOURCE_DATE_EPOCH=1")
	if c.temps {
		env = append(env, "TMPDIR="+filepath.Join(dir, scratch))
	}
	return killpoint.Run(ctx, killpoint.Command{
		Path: binary(t), Args: append(slices.Clone(c.args), "--quiet"), Dir: dir, Under: dir, Env: env, Timeout: 30 * time.Second,
	}, plan)
}

// try carries out plan in a fresh copy and checks what is left and that a second
// run repairs it. It returns false if the run did not get as far as the plan.
func (c *crashCase) try(ctx context.Context, t *testing.T, plan killpoint.Plan) (hit bool) {
	dir := c.copy(t)
	defer os.RemoveAll(dir)
	what := fmt.Sprintf("%s, %s at %d", c.name, plan.Action, plan.N)
	if plan.Action == killpoint.Fail {
		what += " with " + unix.ErrnoName(plan.Errno)
	}
	fail := func(format string, args ...any) {
		t.Errorf("%s: %s", what, strings.ReplaceAll(fmt.Sprintf(format, args...), dir+"/", ""))
	}
	res, err := c.run(ctx, t, dir, plan)
	if err != nil {
		fail("%v", err)
		return true
	}
	if res.Hit == nil {
		return false
	}
	what += " (" + strings.ReplaceAll(res.Hit.String(), dir+"/", "") + ")"
	now, err := readState(dir)
	if err != nil {
		fail("%v", err)
		return true
	}
	isNew, err := c.checkCrash(now)
	if err != nil {
		fail("the promise is broken: %v", err)
	}
	killed := plan.Action == killpoint.Kill || plan.Action == killpoint.Torn
	switch {
	case killed:
		if res.Signal != unix.SIGKILL {
			fail("exit %d, want a kill", res.Exit)
		}
	case plan.Action == killpoint.Fail:
		c.checkErrno(t, what, plan.Errno, res, now, isNew)
	case plan.Action == killpoint.Interrupt:
		if res.Exit != 130 && (res.Exit != 0 || !isNew) {
			fail("exit %d, new state: %v, want 130\n%s", res.Exit, isNew, res.Stderr)
		}
		if res.Exit == 130 {
			checkMessage(t, what, string(res.Stderr))
		}
		if !c.split {
			c.checkNoTemps(t, what, now)
		}
		c.checkNoOrphans(t, what, now)
	}
	for _, l := range []string{"L", "src", "job1", "was", "now"} {
		if err := verifyClean(ctx, filepath.Join(dir, l)); err != nil && c.before[l] != "" {
			fail("layout %s is damaged: %v", l, err)
		}
	}

	model := newDisk(dir, c.before)
	model.run(res.Trace)
	model.errs = nil // what a killed run has left undone, the next one must do
	retry, err := c.run(ctx, t, dir, killpoint.Plan{})
	if err != nil {
		fail("again: %v", err)
		return true
	}
	if retry.Exit != 0 && (!isNew || retry.Exit != c.again) {
		fail("again: exit %d\n%s", retry.Exit, retry.Stderr)
	}
	if now, err = readState(dir); err != nil {
		fail("again: %v", err)
	}
	if err := c.checkFinal(now, killed || res.Hit.Name == "unlinkat"); err != nil {
		fail("again: not the state of an undisturbed run: %v", err)
	}
	if retry.Exit == 0 && !c.unsynced {
		model.run(retry.Trace)
		if err := model.done(dir, c.output); err != nil {
			fail("again: a power cut could undo what is reported as done: %v", err)
		}
	}
	return true
}

// checkErrno checks a run in which one call failed: either it coped and all is
// done, or it says so in one line that names the cause.
func (c *crashCase) checkErrno(t *testing.T, what string, errno unix.Errno, res *killpoint.Result, now state, isNew bool) {
	if res.Exit == 0 {
		if res.Hit.Name == "unlinkat" {
			// The cleaning up failed, which the next command makes good.
			maps.DeleteFunc(now, func(p, _ string) bool { return strings.HasPrefix(p, c.layout+"/.gloci/tmp-") })
		}
		if err := c.checkFinal(now, res.Hit.Name == "unlinkat"); err != nil {
			t.Errorf("%s: exit 0, but not all is done: %v", what, err)
		}
		if isSync(res.Hit.Name) && errno != unix.EINTR {
			t.Errorf("%s: exit 0 after a failed sync: the bytes may be lost", what)
		}
		return
	}
	if res.Exit != 2 || res.Signal != 0 {
		t.Errorf("%s: exit %d, signal %v, want 2\n%s", what, res.Exit, res.Signal, res.Stderr)
	}
	checkMessage(t, what, string(res.Stderr))
	if !strings.Contains(string(res.Stderr), errno.Error()) {
		t.Errorf("%s: the message does not say %q:\n%s", what, errno.Error(), res.Stderr)
	}
	if res.Hit.Name != "unlinkat" {
		c.checkNoTemps(t, what, now)
		// If the sync behind the swap fails, a power cut may bring the old
		// manifest back: its parts stay.
		if !isSync(res.Hit.Name) {
			c.checkNoOrphans(t, what, now)
		}
	}
	// Once index.json is swapped, only the sync behind it and the cleaning up
	// can fail: then the new state is there, but is not promised to last.
	if isNew && !c.gc && !isSync(res.Hit.Name) && res.Hit.Name != "unlinkat" {
		t.Errorf("%s: exit %d, but the new state is there", what, res.Exit)
	}
}

// isSync tells whether a call is one of those by which bytes become durable.
func isSync(name string) bool { return name == "fsync" || name == "fdatasync" || name == "syncfs" }

// checkNoTemps demands that a command that ended by itself cleaned up.
func (c *crashCase) checkNoTemps(t *testing.T, what string, now state) {
	for p := range now {
		if isTemp(p, c.output) || strings.Contains(p, "/.gloci/tmp") {
			t.Errorf("%s: %s is left over", what, p)
		}
	}
}

// checkNoOrphans demands that there are no parts that the manifest does not name.
func (c *crashCase) checkNoOrphans(t *testing.T, what string, now state) {
	if !c.split {
		return
	}
	manifest, named := c.output+".parts.json", c.after
	if now[manifest] == c.before[manifest] {
		named = c.before
	}
	for p := range now {
		if c.owns(p) && named[p] == "" {
			t.Errorf("%s: %s is left over", what, p)
		}
	}
}

// crashRuns runs plans of all cases, as many at once as there are processors.
type crashRuns struct {
	t      *testing.T
	ctx    context.Context
	group  *errgroup.Group
	points atomic.Int64
}

func newCrashRuns(t *testing.T) *crashRuns {
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(4)
	return &crashRuns{t: t, ctx: ctx, group: g}
}

func (r *crashRuns) add(c *crashCase, plan killpoint.Plan) {
	r.group.Go(func() error {
		if r.t.Failed() && os.Getenv(bugtest.Variable) != "" {
			return nil // it is found: the rest would say the same
		}
		if r.ctx.Err() == nil && c.try(r.ctx, r.t, plan) {
			r.points.Add(1)
		}
		return nil
	})
}

func (r *crashRuns) wait() int64 {
	if err := r.group.Wait(); err != nil {
		r.t.Error(err)
	}
	return r.points.Load()
}

// crashStep returns how many points are skipped for one that is tried: none
// unless -short, in which the sum over all cases still meets each kind of call.
func crashStep() int {
	if testing.Short() && os.Getenv("GLOCI_KILL") != "full" {
		return 7
	}
	return 1
}

// step is that of c, where that of all cases is all.
func (c *crashCase) step(all int) int {
	if c.part && os.Getenv("GLOCI_KILL") != "full" {
		return max(3, all)
	}
	return all
}

// errorStep is the same for calls that fail, of which there are as many again:
// every third without GLOCI_KILL=full, which after a kill at every call is the
// part that a CI of half an hour can leave out.
func errorStep() int {
	if os.Getenv("GLOCI_KILL") == "full" {
		return 1
	}
	return max(3, crashStep())
}

func TestCrash(t *testing.T) {
	template := makeTemplate(t)
	cases := crashCases()
	chosen := os.Getenv(crashCasesVariable)
	if chosen != "" {
		only := regexp.MustCompile("^(" + chosen + ")$")
		cases = slices.DeleteFunc(cases, func(c *crashCase) bool { return !only.MatchString(c.name) })
		if len(cases) == 0 {
			t.Fatalf("no case is named %s", chosen)
		}
	}
	for _, c := range cases {
		c.prepare(t, template)
	}
	if t.Failed() {
		return
	}
	total := 0
	for _, c := range cases {
		total += len(c.trace)
		t.Logf("%-26s %3d points, %2d writes", c.name, len(c.trace), c.writes)
	}
	if chosen == "" && total < minKillPoints {
		t.Errorf("%d points, fewer than the %d that there were", total, minKillPoints)
	}

	// Undisturbed, nothing that a command reports as done is lost to a power cut.
	t.Run("order", func(t *testing.T) {
		for _, c := range cases {
			if c.unsynced {
				continue
			}
			dir := c.copy(t)
			defer os.RemoveAll(dir)
			res, err := c.run(t.Context(), t, dir, killpoint.Plan{})
			if err != nil {
				t.Fatal(err)
			}
			model := newDisk(dir, c.before)
			model.run(res.Trace)
			if err := model.done(dir, c.output); err != nil {
				t.Errorf("%s: a power cut could undo what is reported as done: %v", c.name, strings.ReplaceAll(err.Error(), dir+"/", ""))
			}
		}
	})
	t.Run("kill", func(t *testing.T) {
		r := newCrashRuns(t)
		for i, c := range cases {
			for n := 1 + i%crashStep(); n <= len(c.trace); n += c.step(crashStep()) {
				r.add(c, killpoint.Plan{Action: killpoint.Kill, N: n})
			}
		}
		t.Logf("killed at %d of %d points of %d commands", r.wait(), total, len(cases))
	})
	t.Run("torn", func(t *testing.T) {
		r := newCrashRuns(t)
		for i, c := range cases {
			for n := 1 + i%crashStep(); n <= c.writes; n += c.step(crashStep()) {
				r.add(c, killpoint.Plan{Action: killpoint.Torn, N: n})
			}
		}
		t.Logf("killed after half of %d writes", r.wait())
	})
	t.Run("errno", func(t *testing.T) {
		r := newCrashRuns(t)
		errnos := []unix.Errno{unix.EIO, unix.ENOSPC, unix.EMFILE, unix.EDQUOT, unix.EINTR}
		for i, c := range cases {
			for n := 1 + i%errorStep(); n <= len(c.trace); n += errorStep() {
				for j, errno := range errnos {
					// One error for each point, all of them over the cases.
					if os.Getenv("GLOCI_KILL") == "full" || (n/errorStep()+i)%len(errnos) == j {
						r.add(c, killpoint.Plan{Action: killpoint.Fail, N: n, Errno: errno})
					}
				}
			}
		}
		t.Logf("%d calls failed", r.wait())
	})
	// There are few of these calls, and each stands for many others.
	t.Run("syncfs", func(t *testing.T) {
		r := newCrashRuns(t)
		for _, c := range cases {
			for i, call := range c.trace {
				if call.Name == "syncfs" {
					for _, errno := range []unix.Errno{unix.EIO, unix.ENOSPC, unix.EDQUOT, unix.EINTR} {
						r.add(c, killpoint.Plan{Action: killpoint.Fail, N: i + 1, Errno: errno})
					}
				}
			}
		}
		failed := r.wait()
		if failed == 0 {
			t.Skipf("SKIPPED: syncfs is not used on the file system of %s", template)
		}
		t.Logf("%d calls failed", failed)
	})
	t.Run("interrupt", func(t *testing.T) {
		r := newCrashRuns(t)
		step := 3 * errorStep()
		if os.Getenv("GLOCI_KILL") == "full" {
			step = 1
		}
		for i, c := range cases {
			for n := 1 + i%step; n <= len(c.trace); n += step {
				r.add(c, killpoint.Plan{Action: killpoint.Interrupt, N: n})
			}
		}
		t.Logf("interrupted at %d calls", r.wait())
	})
}
