//go:build linux && (amd64 || arm64)

package killpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestMain makes the test binary the traced program too: KILLPOINT_PROGRAM names
// what it shall do in the directory given as its argument.
func TestMain(m *testing.M) {
	if name := os.Getenv("KILLPOINT_PROGRAM"); name != "" {
		if err := programs[name](os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// steps is what program "steps" does, one counted call each.
var steps = []struct {
	call string
	do   func(dir string, f **os.File) error
}{
	{"mkdirat a", func(dir string, _ **os.File) error { return os.Mkdir(dir+"/a", 0o755) }},
	{"openat a/f", func(dir string, f **os.File) (err error) {
		*f, err = os.Create(dir + "/a/f")
		return err
	}},
	{"write a/f (10 bytes)", func(_ string, f **os.File) error {
		_, err := (*f).WriteString("0123456789")
		return err
	}},
	{"pwrite64 a/f (3 bytes)", func(_ string, f **os.File) error {
		_, err := (*f).WriteAt([]byte("abc"), 1)
		return err
	}},
	{"writev a/f (5 bytes)", func(_ string, f **os.File) error {
		_, err := unix.Writev(int((*f).Fd()), [][]byte{[]byte("vwxyz")})
		return err
	}},
	{"fchmod a/f", func(_ string, f **os.File) error { return (*f).Chmod(0o600) }},
	{"fsync a/f", func(_ string, f **os.File) error { return (*f).Sync() }},
	{"renameat a/f -> g", func(dir string, _ **os.File) error { return os.Rename(dir+"/a/f", dir+"/g") }},
	{"linkat g -> a/h", func(dir string, _ **os.File) error { return os.Link(dir+"/g", dir+"/a/h") }},
	{"symlinkat a/s", func(dir string, _ **os.File) error { return os.Symlink("../g", dir+"/a/s") }},
	{"utimensat a", func(dir string, _ **os.File) error {
		return os.Chtimes(dir+"/a", time.Unix(1, 0), time.Unix(1, 0))
	}},
	{"unlinkat a/s", func(dir string, _ **os.File) error { return unix.Unlink(dir + "/a/s") }},
	{"openat i", func(dir string, f **os.File) (err error) {
		*f, err = os.Create(dir + "/i")
		return err
	}},
	{"copy_file_range i (9 bytes)", func(dir string, f **os.File) error {
		from, err := os.Open(dir + "/g")
		if err != nil {
			return err
		}
		if _, err := from.Seek(6, io.SeekStart); err != nil {
			return err
		}
		_, err = unix.CopyFileRange(int(from.Fd()), nil, int((*f).Fd()), nil, 4<<20, 0)
		return err
	}},
	{"copy_file_range i (5 bytes)", func(dir string, f **os.File) error {
		from, err := os.Open(dir + "/g")
		if err != nil {
			return err
		}
		off := int64(10)
		_, err = unix.CopyFileRange(int(from.Fd()), &off, int((*f).Fd()), nil, 4<<20, 0)
		return err
	}},
	{"truncate a/h", func(dir string, _ **os.File) error { return os.Truncate(dir+"/a/h", 4) }},
}

// copies is how many copies program "signals" makes.
const copies = 500

var programs = map[string]func(dir string) error{
	"steps": func(dir string) error { return doSteps(dir, len(steps)) },
	// Eight threads, each of them with calls of its own, and their order open.
	"threads": func(dir string) error {
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			wg.Go(func() {
				runtime.LockOSThread()
				for j := range 10 {
					if err := os.Mkdir(fmt.Sprintf("%s/%d-%d", dir, i, j), 0o755); err != nil {
						errs[i] = err
					}
				}
			})
		}
		wg.Wait()
		return errors.Join(errs...)
	},
	"child": func(dir string) error {
		return exec.Command("/bin/mkdir", dir+"/made").Run()
	},
	"outside": func(dir string) error {
		if err := os.Mkdir(filepath.Dir(dir)+"/beside", 0o755); err != nil {
			return err
		}
		if _, err := os.ReadDir(dir); err != nil {
			return err
		}
		fmt.Println("to stdout")
		return nil
	},
	"memory": func(string) error {
		b := make([]byte, 200<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		return nil
	},
	"hang": func(string) error { time.Sleep(time.Hour); return nil },
	// Copies that signals break off: the kernel begins them anew.
	"signals": func(dir string) error {
		from, err := os.Create(dir + "/from")
		if err != nil {
			return err
		}
		if _, err := from.WriteString("0123456789"); err != nil {
			return err
		}
		to, err := os.Create(dir + "/to")
		if err != nil {
			return err
		}
		runtime.LockOSThread()
		tid := unix.Gettid()
		var done atomic.Bool
		defer done.Store(true)
		go func() {
			for !done.Load() {
				_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
			}
		}()
		for range copies {
			off := int64(0)
			if n, err := unix.CopyFileRange(int(from.Fd()), &off, int(to.Fd()), nil, 10, 0); n != 10 {
				return fmt.Errorf("%d bytes copied: %w", n, err)
			}
		}
		return nil
	},
	"interruptible": func(dir string) error {
		ch := make(chan os.Signal, 1)
		signal.Notify(ch, os.Interrupt)
		if err := os.Mkdir(dir+"/a", 0o755); err != nil {
			return err
		}
		<-ch
		return errors.New("interrupted")
	},
}

func doSteps(dir string, n int) error {
	var f *os.File
	for _, s := range steps[:n] {
		if err := s.do(dir, &f); err != nil {
			return err
		}
	}
	return nil
}

func runProgram(t *testing.T, name string, plan Plan) (*Result, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "watched")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	res, err := Run(t.Context(), Command{
		Path: "/proc/self/exe", Args: []string{dir},
		Env:   []string{"KILLPOINT_PROGRAM=" + name},
		Under: dir,
	}, plan)
	if errors.Is(err, ErrUnsupported) {
		t.Skipf("SKIPPED, crash safety is not tested here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return res, dir
}

// snapshot returns the names, modes, sizes and contents below dir.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	m := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		fi, err := d.Info()
		if err != nil {
			return err
		}
		s := fi.Mode().String()
		if fi.Mode().IsRegular() {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			s += " " + string(b)
		}
		m[rel] = s
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func trace(res *Result, dir string) []string {
	var out []string
	for _, c := range res.Trace {
		out = append(out, strings.ReplaceAll(c.String(), dir+"/", ""))
	}
	return out
}

func TestRecord(t *testing.T) {
	res, dir := runProgram(t, "steps", Plan{})
	var want []string
	for _, s := range steps {
		want = append(want, s.call)
	}
	if diff := cmp.Diff(want, trace(res, dir)); diff != "" {
		t.Errorf("trace (-want +got):\n%s", diff)
	}
	if res.Exit != 0 || res.Hit != nil || res.Writes() != 5 || res.MaxRSS < 1<<20 {
		t.Errorf("exit %d, hit %v, %d writes, %d bytes of memory", res.Exit, res.Hit, res.Writes(), res.MaxRSS)
	}
}

// Killed at the entry of call n, exactly the n-1 steps before it have happened.
func TestKillAtEveryCall(t *testing.T) {
	for n := 1; n <= len(steps)+1; n++ {
		res, dir := runProgram(t, "steps", Plan{Action: Kill, N: n})
		if n > len(steps) {
			if res.Hit != nil || res.Exit != 0 {
				t.Errorf("call %d of %d: hit %v, exit %d", n, len(steps), res.Hit, res.Exit)
			}
			continue
		}
		if res.Hit == nil || res.Signal != unix.SIGKILL || res.Exit != -1 || len(res.Trace) != n {
			t.Errorf("call %d: hit %v, signal %v, exit %d, %d calls", n, res.Hit, res.Signal, res.Exit, len(res.Trace))
		}
		want := filepath.Join(t.TempDir(), "want")
		if err := errors.Join(os.Mkdir(want, 0o755), doSteps(want, n-1)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(snapshot(t, want), snapshot(t, dir)); diff != "" {
			t.Errorf("killed at call %d (-want +got):\n%s", n, diff)
		}
	}
}

func TestTorn(t *testing.T) {
	for i, want := range []struct{ file, content string }{
		{"a/f", "01234"},
		{"a/f", "0a23456789"},
		{"a/f", "0abc456789vw"},
		{"i", "6789"},
		{"i", "6789vwxyzvw"},
	} {
		res, dir := runProgram(t, "steps", Plan{Action: Torn, N: i + 1})
		if res.Hit == nil || res.Signal != unix.SIGKILL {
			t.Fatalf("write %d: hit %v, signal %v", i+1, res.Hit, res.Signal)
		}
		got, err := os.ReadFile(filepath.Join(dir, want.file))
		if err != nil || string(got) != want.content {
			t.Errorf("write %d torn: %s holds %q, %v, want %q", i+1, want.file, got, err, want.content)
		}
	}
}

// A call that was made to fail has no effect, and the program sees the error.
func TestFail(t *testing.T) {
	for n, s := range steps {
		for _, errno := range []unix.Errno{unix.EIO, unix.ENOSPC, unix.EDQUOT} {
			res, dir := runProgram(t, "steps", Plan{Action: Fail, N: n + 1, Errno: errno})
			if res.Exit != 2 || res.Hit == nil || !strings.Contains(string(res.Stderr), errno.Error()) {
				t.Errorf("%s with %v: exit %d, hit %v, stderr %q", s.call, errno, res.Exit, res.Hit, res.Stderr)
			}
			want := filepath.Join(t.TempDir(), "want")
			if err := errors.Join(os.Mkdir(want, 0o755), doSteps(want, n)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(snapshot(t, want), snapshot(t, dir)); diff != "" {
				t.Errorf("%s with %v (-want +got):\n%s", s.call, errno, diff)
			}
		}
	}
	// Package os tries mkdir again after EINTR: one call more, and all is done.
	res, dir := runProgram(t, "steps", Plan{Action: Fail, N: 1, Errno: unix.EINTR})
	if res.Exit != 0 || len(res.Trace) != len(steps)+1 || res.Trace[0].Result != -int64(unix.EINTR) {
		t.Errorf("EINTR: exit %d, stderr %q, trace %q", res.Exit, res.Stderr, trace(res, dir))
	}
}

// The n-th call is counted over all threads: n-1 directories are there at the kill,
// and a few at most that other threads were making at that moment.
func TestThreads(t *testing.T) {
	res, _ := runProgram(t, "threads", Plan{})
	if len(res.Trace) != 80 {
		t.Fatalf("%d calls counted over 8 threads, want 80", len(res.Trace))
	}
	for _, n := range []int{1, 2, 17, 40, 79, 80} {
		res, dir := runProgram(t, "threads", Plan{Action: Kill, N: n})
		if res.Hit == nil {
			t.Fatalf("call %d not reached", n)
		}
		got, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		// Of the calls counted before, those under way in the 7 other threads
		// may have been cut off.
		if len(got) > n-1 || len(got) < n-1-7 {
			t.Errorf("killed at call %d: %d directories", n, len(got))
		}
	}
}

func TestChildIsFollowed(t *testing.T) {
	res, dir := runProgram(t, "child", Plan{})
	if got := strings.Join(trace(res, dir), "\n"); !strings.HasPrefix(got, "mkdir") || !strings.HasSuffix(got, " made") {
		t.Errorf("trace %q", got)
	}
	res, dir = runProgram(t, "child", Plan{Action: Kill, N: 1})
	if _, err := os.Stat(dir + "/made"); res.Signal != unix.SIGKILL || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("signal %v, directory: %v", res.Signal, err)
	}
}

func TestOutsideDoesNotCount(t *testing.T) {
	res, dir := runProgram(t, "outside", Plan{Action: Kill, N: 1})
	if len(res.Trace) != 0 || res.Exit != 0 || string(res.Stdout) != "to stdout\n" {
		t.Errorf("exit %d, stdout %q, trace %q", res.Exit, res.Stdout, trace(res, dir))
	}
}

// The memory is that of the program alone, however much its parent has.
func TestMaxRSS(t *testing.T) {
	ours := make([]byte, 300<<20)
	for i := 0; i < len(ours); i += 4096 {
		ours[i] = 1
	}
	small, _ := runProgram(t, "steps", Plan{})
	large, _ := runProgram(t, "memory", Plan{})
	runtime.KeepAlive(ours)
	if small.MaxRSS < 1<<20 || small.MaxRSS > 100<<20 || large.MaxRSS < 200<<20 || large.MaxRSS > 290<<20 {
		t.Errorf("%d and %d MiB of memory", small.MaxRSS>>20, large.MaxRSS>>20)
	}
}

func TestInterrupt(t *testing.T) {
	res, dir := runProgram(t, "interruptible", Plan{Action: Interrupt, N: 1})
	if res.Exit != 2 || string(res.Stderr) != "interrupted\n" {
		t.Errorf("exit %d, stderr %q", res.Exit, res.Stderr)
	}
	if _, err := os.Stat(dir + "/a"); err != nil {
		t.Errorf("the call did not go on: %v", err)
	}
}

// A call that a signal breaks off is one call, however often it begins.
func TestRestart(t *testing.T) {
	res, dir := runProgram(t, "signals", Plan{})
	if res.Exit != 0 {
		t.Fatalf("exit %d: %s", res.Exit, res.Stderr)
	}
	calls := trace(res, dir)
	if got, want := len(calls), 3+copies; got != want {
		t.Errorf("%d calls in the trace, want %d", got, want)
	}
	for i, c := range calls {
		if strings.Contains(c, "errno") {
			t.Errorf("call %d: %s", i+1, c)
		}
	}
	if res, _ := runProgram(t, "signals", Plan{Action: Fail, N: 3 + copies, Errno: unix.EIO}); res.Hit == nil || res.Exit != 2 {
		t.Errorf("the last call was to fail: hit %v, exit %d", res.Hit, res.Exit)
	}
}

func TestTimeoutAndCancel(t *testing.T) {
	cmd := Command{
		Path: "/proc/self/exe", Args: []string{"x"}, Env: []string{"KILLPOINT_PROGRAM=hang"},
		Under: t.TempDir(), Timeout: 200 * time.Millisecond,
	}
	if _, err := Run(t.Context(), cmd, Plan{}); !errors.Is(err, ErrTimeout) && !errors.Is(err, ErrUnsupported) {
		t.Errorf("Run of a program that hangs = %v, want ErrTimeout", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	cmd.Timeout = time.Minute
	if _, err := Run(ctx, cmd, Plan{}); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, ErrUnsupported) {
		t.Errorf("Run with a canceled context = %v", err)
	}
}

// The end may come at any moment, also while the command is being prepared.
func TestCancelEarly(t *testing.T) {
	cmd := Command{Path: "/proc/self/exe", Args: []string{"x"}, Env: []string{"KILLPOINT_PROGRAM=hang"}, Under: t.TempDir()}
	for after := time.Duration(0); after < 12*time.Millisecond; after += 200 * time.Microsecond {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		_, err := Run(ctx, cmd, Plan{})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, ErrUnsupported) {
			t.Errorf("Run with a context for %v = %v", after, err)
		}
		cmd.Timeout = max(after, 1)
		_, err = Run(t.Context(), cmd, Plan{})
		cmd.Timeout = 0
		if !errors.Is(err, ErrTimeout) && !errors.Is(err, ErrUnsupported) {
			t.Errorf("Run for %v = %v", after, err)
		}
	}
}

// Traces at the same time, and children of package exec beside them, keep apart.
func TestParallel(t *testing.T) {
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				res, dir := runProgram(t, "steps", Plan{})
				if len(res.Trace) != len(steps) {
					t.Errorf("trace %q", trace(res, dir))
				}
			}
		})
		wg.Go(func() {
			for range 20 {
				cmd := exec.Command("/bin/sh", "-c", "exit 7")
				cmd.Stdout = io.Discard
				err := cmd.Run()
				var ee *exec.ExitError
				if !errors.As(err, &ee) || ee.ExitCode() != 7 {
					t.Errorf("exec beside a trace: %v", err)
				}
			}
		})
	}
	wg.Wait()
}
