//go:build linux && (amd64 || arm64)

package killpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrUnsupported reports that this machine does not let us trace a child.
var ErrUnsupported = errors.New("ptrace is not possible here")

// ErrTimeout reports a command that did not end within its time and was killed.
var ErrTimeout = errors.New("the traced command did not end in time")

// An Action is what happens at the call that a [Plan] names.
type Action int

// The actions; the package comment says what each does.
const (
	Record Action = iota
	Kill
	Torn
	Fail
	Interrupt
)

// String returns the name of a in lower case.
func (a Action) String() string {
	return [...]string{"record", "kill", "torn", "fail", "interrupt"}[a]
}

// A Plan names a call and what happens at it.
type Plan struct {
	Action Action
	// N counts from 1. Torn counts the writes of at least one byte, the other
	// actions count all calls.
	N int
	// Errno is what the call returns under Fail.
	Errno unix.Errno
}

// A Command is what [Run] runs.
type Command struct {
	Path string
	Args []string // without the name of the program
	Env  []string // nil is the environment of this process
	Dir  string   // working directory
	// Stdout takes what the command prints; nil is [Result.Stdout].
	Stdout *os.File
	// Under is the directory whose changes count; it need not exist.
	Under string
	// Timeout bounds the run; 0 is one minute.
	Timeout time.Duration
}

// A Call is one system call that counts.
type Call struct {
	Name string
	Path string // what it changes; for two paths, the old one
	To   string // the second path of a rename or link
	// Size is how many bytes a write or copy was to write; 0 for other calls.
	Size int64
	// Done tells that the call came back to the program; a kill cuts calls off.
	Done bool
	// Result is what the kernel returned, an error number being negative.
	Result int64
}

// String returns the call as a line of a trace.
func (c Call) String() string {
	s := c.Name + " " + c.Path
	if c.To != "" {
		s += " -> " + c.To
	}
	if c.Size > 0 {
		s += fmt.Sprintf(" (%d bytes)", c.Size)
	}
	if c.Result < 0 {
		s += fmt.Sprintf(" = %v", unix.Errno(-c.Result))
	}
	return s
}

// A Result tells what a command did.
type Result struct {
	Trace  []Call // in the order in which the calls began
	Hit    *Call  // where the plan was carried out; nil if no call was the n-th
	Exit   int    // exit status, -1 after a signal
	Signal unix.Signal
	Stdout []byte
	Stderr []byte
	// MaxRSS is the most memory that a process of the group had at once, in
	// bytes. Unlike that of getrusage(2) it does not count what the parent had
	// at the time of the fork. It is 0 after a kill.
	MaxRSS int64
}

// Writes returns how many calls of the trace a Torn plan can name.
func (r *Result) Writes() int {
	n := 0
	for _, c := range r.Trace {
		if c.Size > 0 {
			n++
		}
	}
	return n
}

// Run runs cmd to its end and carries out plan. Being killed by the plan is no
// error. It may be called from several goroutines; each call uses a thread of
// its own, because only the thread that started a child may trace it. Canceling
// ctx kills the command.
func Run(ctx context.Context, cmd Command, plan Plan) (*Result, error) {
	type answer struct {
		res *Result
		err error
	}
	ch := make(chan answer, 1)
	go func() {
		// Not unlocked: the thread ends with the goroutine, so no later child
		// of other code is born on a thread that waits for process groups.
		runtime.LockOSThread()
		res, err := run(ctx, cmd, plan)
		ch <- answer{res, err}
	}()
	a := <-ch
	return a.res, a.err
}

func run(ctx context.Context, cmd Command, plan Plan) (*Result, error) {
	under, err := filepath.Abs(cmd.Under)
	if err != nil {
		return nil, err
	}
	stdout, err := memFile("stdout")
	if err != nil {
		return nil, err
	}
	defer stdout.Close() //nolint:errcheck // in memory
	stderr, err := memFile("stderr")
	if err != nil {
		return nil, err
	}
	defer stderr.Close() //nolint:errcheck // in memory

	// Without a context: exec would kill and wait on its own, and the waiting is ours.
	c := exec.Command(cmd.Path, cmd.Args...) //nolint:noctx // ctx is watched below
	c.Env, c.Dir, c.Stdout, c.Stderr = cmd.Env, cmd.Dir, stdout, stderr
	if cmd.Stdout != nil {
		c.Stdout = cmd.Stdout
	}
	c.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Setpgid: true}
	if err := c.Start(); err != nil {
		if errors.Is(err, unix.EPERM) {
			return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
		return nil, err
	}
	t := &tracer{
		pid: c.Process.Pid, plan: plan,
		under:   []string{under},
		threads: map[int]*thread{},
		res:     &Result{Exit: -1},
	}
	// The layout may be named through a symbolic link, /proc names the target.
	if target, err := filepath.EvalSymlinks(under); err == nil && target != under {
		t.under = append(t.under, target)
	}
	timeout := cmd.Timeout
	if timeout == 0 {
		timeout = time.Minute
	}
	var timedOut bool
	tctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	stop := context.AfterFunc(tctx, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if !t.ended {
			timedOut = true
			_ = unix.Kill(-t.pid, unix.SIGKILL)
		}
	})
	err = t.loop()
	t.mu.Lock()
	t.ended = true
	late := timedOut
	t.mu.Unlock()
	stop()
	_ = c.Process.Release()
	switch {
	case late && ctx.Err() != nil: // before err: it may say no more than that the command died amid a step of ours
		return nil, ctx.Err()
	case late && err != nil:
		return nil, fmt.Errorf("%w: %s after %v: %w", ErrTimeout, filepath.Base(cmd.Path), timeout, err)
	case err != nil:
		return nil, err
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	if t.res.Stdout, err = contents(stdout); err != nil {
		return nil, err
	}
	if t.res.Stderr, err = contents(stderr); err != nil {
		return nil, err
	}
	if late {
		return t.res, fmt.Errorf("%w: %s after %v", ErrTimeout, filepath.Base(cmd.Path), timeout)
	}
	return t.res, nil
}

// memFile returns a file without a name: it takes output of any length while
// nobody reads, which a pipe does not.
func memFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

func contents(f *os.File) ([]byte, error) {
	return io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
}
