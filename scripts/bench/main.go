// Command bench measures gloci-layout against hash passes, GNU tar, umoci,
// regctl, skopeo, crane and oras-go, and says which of the goals of docs/benchmarks.md
// hold on this machine. That page also says what is measured, and how.
//
//	Usage: go run ./scripts/bench [FLAG...]    (or: make bench)
//
// It is one program, so that a peer that is a few lines of Go (one hash pass,
// say) is a process like the others: with the arguments "peer NAME ..." it is
// that peer.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:forbidigo // this is a main
	}
}

// A bench is one run of the program.
type bench struct {
	out     io.Writer
	program string // gloci-layout
	self    string // this program
	dir     string // on a disk
	tmpfs   string // "" if there is none
	rounds  int
	only    *regexp.Regexp
	at      *regexp.Regexp // names of venues
	quick   bool
	list    bool
	env     []string // of every process
	goals   []string // a line each
	missed  int
	outErr  error // of printf

	others  time.Duration // that other processes worked while the last contenders ran, and
	elapsed time.Duration // how long that was
}

// Sizes of what is measured.
type sizes struct {
	file      int64 // bytes of the file that is added
	blob      int64 // bytes of each blob that is verified and packed
	blobs     int
	big       int64 // bytes of the blob that shows the memory
	images    []int // in a layout of many; the goals are those of the second
	tags      int
	shared    int64 // bytes of the layer that the images of a push share
	ownLayer  int64 // bytes of the layer that each has alone
	rootFiles int   // in the layer that is extracted

	jobs int   // layouts that are merged
	disk int64 // bytes of the largest file in each

	layer int64 // bytes of the gzipped layer whose files are compared

	few      int64         // bytes of each of four blobs of a push
	small    int           // manifests in an index
	flavours int           // manifests in an index, one of which changes
	patience time.Duration // with a peer that pushes or pulls
}

var (
	fullSizes  = sizes{file: 1 << 30, blob: 128 << 20, blobs: 16, big: 4 << 30, images: []int{1000, 2000, 4000}, tags: 25, shared: 50 << 20, ownLayer: 6 << 20, rootFiles: 20000, jobs: 200, disk: 2 << 20, layer: 200 << 20, few: 512 << 20, small: 2000, flavours: 200, patience: 6 * time.Second}
	quickSizes = sizes{file: 64 << 20, blob: 16 << 20, blobs: 8, big: 256 << 20, images: []int{100, 200, 400}, tags: 5, shared: 10 << 20, ownLayer: 2 << 20, rootFiles: 2000, jobs: 40, disk: 1 << 20, layer: 10 << 20, few: 16 << 20, small: 200, flavours: 20, patience: 3 * time.Second}
)

func run(ctx context.Context, args []string, stdout io.Writer) (err error) {
	if len(args) > 0 && args[0] == "peer" {
		return runPeer(ctx, args[1:], os.Stdin, stdout)
	}
	// What a child process is said to have needed at most is never less than
	// what this process had when it started it (Linux, exec): stay small.
	debug.SetGCPercent(50)

	b := &bench{out: stdout}
	var only, at, work string
	var strict bool
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&b.program, "program", "bin/gloci-layout", "measure the gloci-layout at `PATH`")
	flags.StringVar(&work, "dir", os.TempDir(), "work below `DIR`, on the disk to be measured; 20 GiB have to be free")
	flags.StringVar(&b.tmpfs, "tmpfs", "/dev/shm", "measure also below `DIR`, in memory; empty: do not")
	flags.StringVar(&at, "at", "", "of registries, take only those whose names match `REGEXP`, as in '^reference registry$' and 'forgets$'")
	flags.IntVar(&b.rounds, "rounds", 0, "measure everything `N` times (default 5, with -quick 3)")
	flags.StringVar(&only, "only", "", "run the experiments whose names match `REGEXP`")
	flags.BoolVar(&b.list, "list", false, "list the experiments")
	flags.BoolVar(&b.quick, "quick", false, "small inputs: shows that everything works, says little about speed")
	flags.BoolVar(&strict, "strict", false, "exit with 1 when a goal is missed")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	if b.only, err = regexp.Compile(only); err != nil {
		return err
	}
	if b.at, err = regexp.Compile(at); err != nil {
		return err
	}
	s := fullSizes
	if b.quick {
		s = quickSizes
	}
	if b.rounds == 0 {
		b.rounds = 5
		if b.quick {
			b.rounds = 3
		}
	}
	if b.list {
		return errors.Join(b.experiments(ctx, s), b.outErr)
	}
	if err := b.setUp(ctx, work); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir), b.removeTmpfs()) }()
	if err := b.describe(ctx); err != nil {
		return err
	}
	if err := b.experiments(ctx, s); err != nil {
		return err
	}
	b.printf("\n")
	for _, line := range b.goals {
		b.printf("goal %s\n", line)
	}
	if b.outErr != nil {
		return b.outErr
	}
	if strict && b.missed > 0 {
		return fmt.Errorf("%d of %d goals missed", b.missed, len(b.goals))
	}
	return nil
}

// experiments runs those that are asked for.
func (b *bench) experiments(ctx context.Context, s sizes) error {
	type experiment struct {
		name string
		run  func(ctx context.Context, s sizes) error
	}
	all := []experiment{
		{"add", b.benchAdd},
		{"verify", b.benchVerify},
		{"pack", b.benchPack},
		{"open", b.benchOpen},
		{"many", b.benchMany},
		{"merge", b.benchMerge},
		{"diff", b.benchDiff},
		{"serve", b.benchServe},
		{"extract", b.benchExtract},
		{"compress", b.benchCompress},
		{"recompress", b.benchRecompress},
		{"delta", b.benchDelta},
		{"memory", b.benchMemory},
	}
	for _, step := range remoteSteps(s) {
		all = append(all, experiment{step.name, b.remote(step)})
	}
	for _, e := range all {
		switch {
		case !b.only.MatchString(e.name):
		case b.list:
			b.printf("%s\n", e.name)
		default:
			if err := e.run(ctx, s); err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
		}
	}
	return nil
}

// setUp makes the directories of this run, and checks what it needs.
func (b *bench) setUp(ctx context.Context, work string) (err error) {
	if b.program, err = filepath.Abs(b.program); err != nil {
		return err
	}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	b.env = os.Environ()
	if _, err := b.output(ctx, b.program, "version"); err != nil {
		return fmt.Errorf("%w (make build makes it, -program says where it is)", err)
	}
	if b.tmpfs != "" {
		if b.tmpfs, err = os.MkdirTemp(b.tmpfs, "gloci-bench-"); err != nil {
			b.printf("no measurements in memory: %v\n", err)
			b.tmpfs = ""
		}
	}
	if b.dir, err = os.MkdirTemp(work, "gloci-bench-"); err != nil {
		return errors.Join(err, b.removeTmpfs())
	}
	home := filepath.Join(b.dir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		return errors.Join(err, os.RemoveAll(b.dir), b.removeTmpfs())
	}
	// Nobody's credentials, proxies, or settings; and the pinned tools first.
	tools, err := filepath.Abs(".tools/bin")
	if err != nil {
		return err
	}
	path := tools + string(filepath.ListSeparator) + os.Getenv("PATH")
	if err := os.Setenv("PATH", path); err != nil {
		return err
	}
	b.env = []string{"PATH=" + path, "HOME=" + home, "LC_ALL=C", "TZ=UTC", "TMPDIR=" + b.dir}
	return nil
}

func (b *bench) removeTmpfs() error {
	if b.tmpfs == "" {
		return nil
	}
	return os.RemoveAll(b.tmpfs)
}

// describe prints what is measured, and on what.
func (b *bench) describe(ctx context.Context) error {
	b.printf("%s, %d processors, %s\n", processor(), runtime.NumCPU(), kernel())
	b.printf("load average before the run: %s\n", firstWords("/proc/loadavg", 3))
	for _, v := range []struct {
		name string
		args []string
	}{
		{b.program, []string{"version"}},
		{"tar", []string{"--version"}},
		{"umoci", []string{"--version"}},
		{"skopeo", []string{"--version"}},
		{"regctl", []string{"version"}},
		{"crane", []string{"version"}},
		{"registry", []string{"--version"}},
	} {
		out, err := b.output(ctx, v.name, v.args...)
		line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		if err != nil {
			line = err.Error()
		}
		b.printf("%s: %s\n", filepath.Base(v.name), strings.Join(strings.Fields(line), " "))
	}
	idle, err := b.measure(ctx, [][]string{{"true"}})
	if err != nil {
		return err
	}
	b.printf("max RSS of true(1), the least that can be seen here: %s\n", bytesText(idle.rss))
	return nil
}

// output runs a program to its end.
func (b *bench) output(ctx context.Context, name string, args ...string) ([]byte, error) {
	var stderr strings.Builder
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env, cmd.Stderr = b.env, &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}

// missing says why a tool cannot be had; "" if it can.
func missing(name string) string {
	if _, err := exec.LookPath(name); err != nil {
		return name + " is not installed"
	}
	return ""
}

func processor() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	_, model, _ := strings.Cut(string(info), "model name")
	model, _, _ = strings.Cut(model, "\n")
	model = strings.Join(strings.Fields(strings.TrimLeft(model, "\t :")), " ")
	for _, flag := range []string{" sha_ni", " sha2"} {
		if strings.Contains(string(info), flag) {
			return model + " with" + flag
		}
	}
	return model
}

func kernel() string { return "Linux " + firstWords("/proc/sys/kernel/osrelease", 1) }

func firstWords(file string, n int) string {
	raw, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	words := strings.Fields(string(raw))
	return strings.Join(words[:min(n, len(words))], " ")
}
