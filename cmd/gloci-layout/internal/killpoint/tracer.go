//go:build linux && (amd64 || arm64)

package killpoint

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A tracer follows one process group. All but mu and ended belong to the thread
// that runs loop.
type tracer struct {
	pid     int
	plan    Plan
	under   []string
	threads map[int]*thread
	res     *Result
	calls   int // counted so far
	writes  int // of them, those that Torn counts
	dead    bool
	// filtered: only the calls of shapes stop, and those that count do so at
	// their exit too. Else every call stops twice.
	filtered bool

	mu    sync.Mutex
	ended bool // the group was reaped: its id may belong to another now
}

// A thread is what has to be known between the entry and the exit of a call.
type thread struct {
	call  int // 1 + its place in the trace; 0 if the call does not count
	again int // the same of a call that a signal broke off and the kernel begins anew
	fail  unix.Errno
	torn  bool
}

// restarts tells whether the kernel ended a call because of a signal, to begin it
// anew when that was handled. Programs never see these results (ERESTARTSYS and
// its like, include/linux/errno.h).
func restarts(result int64) bool { return result <= -512 && result >= -516 }

const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK |
	unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_TRACEEXIT | unix.PTRACE_O_TRACESECCOMP |
	unix.PTRACE_O_EXITKILL

// loop waits for stops until the whole group is gone.
func (t *tracer) loop() error {
	first := true
	for {
		var ws unix.WaitStatus
		// Children of this process that are not of the group are the business
		// of those who started them.
		tid, err := unix.Wait4(-t.pid, &ws, unix.WALL|unix.WNOTHREAD, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECHILD):
			return nil
		case err != nil:
			return fmt.Errorf("wait4: %w", err)
		}
		if !ws.Stopped() {
			delete(t.threads, tid)
			if tid == t.pid {
				if ws.Exited() {
					t.res.Exit = ws.ExitStatus()
				} else {
					t.res.Signal = ws.Signal()
				}
			}
			continue
		}
		if first {
			if err := unix.PtraceSetOptions(tid, options); err != nil {
				t.kill()
				return fmt.Errorf("%w: %w", ErrUnsupported, err)
			}
			if first = false; canFilter {
				if err := t.install(tid); err != nil {
					t.kill()
					return fmt.Errorf("filter the calls: %w", err)
				}
				t.filtered = true
			}
		}
		deliver, err := t.stopped(tid, ws)
		if errors.Is(err, errStale) {
			continue
		}
		if err == nil {
			err = t.resume(tid, deliver)
		}
		// ESRCH: killed between the stop and now.
		if err != nil && !errors.Is(err, unix.ESRCH) {
			t.kill()
			return fmt.Errorf("trace: %w", err)
		}
	}
}

// resume lets tid go on to its next stop.
func (t *tracer) resume(tid int, deliver unix.Signal) error {
	if th := t.threads[tid]; t.filtered && (th == nil || th.call == 0) {
		return unix.PtraceCont(tid, int(deliver))
	}
	return unix.PtraceSyscall(tid, int(deliver))
}

// stopped handles one stop and returns the signal that the thread shall get.
func (t *tracer) stopped(tid int, ws unix.WaitStatus) (unix.Signal, error) {
	th := t.threads[tid]
	known := th != nil
	if !known {
		th = &thread{}
		t.threads[tid] = th
	}
	switch sig := ws.StopSignal(); {
	case sig == unix.SIGTRAP|0x80, sig == unix.SIGTRAP && ws.TrapCause() == unix.PTRACE_EVENT_SECCOMP:
		return 0, t.syscall(tid, th)
	case sig == unix.SIGTRAP && ws.TrapCause() == unix.PTRACE_EVENT_EXIT:
		t.res.MaxRSS = max(t.res.MaxRSS, peakMemory(tid))
		return 0, nil
	case sig == unix.SIGTRAP:
		return 0, nil // another event, or the exec that began it all
	case sig == unix.SIGSTOP && !known:
		return 0, nil // how a new thread announces itself
	default:
		return sig, nil
	}
}

// peakMemory returns the most memory that the process of tid ever had, in bytes.
func peakMemory(tid int) int64 {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	return 0
}

// syscall handles the entry or the exit of a call.
func (t *tracer) syscall(tid int, th *thread) error {
	info, err := syscallInfo(tid)
	if err != nil {
		return err
	}
	if info.entry {
		return t.enter(tid, th, info)
	}
	if th.call > 0 && th.fail == 0 && !th.torn && restarts(info.result) {
		*th = thread{again: th.call}
		return nil
	}
	if th.call > 0 {
		c := &t.res.Trace[th.call-1]
		c.Done, c.Result = true, info.result
		if th.fail != 0 {
			c.Result = -int64(th.fail)
			err = setResult(tid, c.Result)
		}
		if th.torn {
			t.kill()
		}
	}
	*th = thread{again: th.again}
	return err
}

func (t *tracer) enter(tid int, th *thread, info callInfo) error {
	again := th.again
	*th = thread{again: again} // the handler of the signal may have calls of its own
	if t.dead {
		// Killed already, and this thread was late to notice.
		return setNumber(tid, -1)
	}
	c, sh := decode(tid, info)
	if c == nil || !t.below(c.Path) && !t.below(c.To) {
		return nil
	}
	th.again = 0
	if again > 0 && t.res.Trace[again-1].Name == c.Name && t.res.Trace[again-1].Path == c.Path {
		th.call = again // counted before
		return nil
	}
	t.calls++
	if c.Size > 0 {
		t.writes++
	}
	t.res.Trace = append(t.res.Trace, *c)
	th.call = len(t.res.Trace)

	n := t.calls
	if t.plan.Action == Torn {
		if c.Size == 0 {
			return nil
		}
		n = t.writes
	}
	if n != t.plan.N {
		return nil
	}
	hit := *c
	switch t.plan.Action {
	case Kill:
		t.res.Hit = &hit
		// A fatal signal at the entry skips the call in today's kernels; not
		// to lean on that, the call is made void as well.
		err := setNumber(tid, -1)
		t.kill()
		return err
	case Torn:
		t.res.Hit = &hit
		th.torn = true
		return sh.halve(tid, info, c.Size)
	case Fail:
		t.res.Hit = &hit
		th.fail = t.plan.Errno
		return setNumber(tid, -1)
	case Interrupt:
		t.res.Hit = &hit
		return unix.Kill(t.pid, unix.SIGINT)
	default:
		return nil
	}
}

// kill ends the group; loop goes on and reaps it.
func (t *tracer) kill() {
	t.dead = true
	_ = unix.Kill(-t.pid, unix.SIGKILL)
}

func (t *tracer) below(path string) bool {
	for _, dir := range t.under {
		if path == dir || len(path) > len(dir) && path[:len(dir)] == dir && path[len(dir)] == '/' {
			return true
		}
	}
	return false
}
