package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A sample is what one run cost: the sum over its processes, and for the
// memory the largest.
type sample struct {
	wall time.Duration
	cpu  time.Duration // user and system, waited-for children too
	rss  int64         // bytes
}

// A contender is one way to do what an experiment measures.
type contender struct {
	name     string
	missing  string                          // why it cannot run
	prepare  func(ctx context.Context) error // before each run, not measured; may be nil
	commands func() [][]string               // run one after the other
	status   int                             // what the commands exit with
	samples  []sample
	traffic  traffic // of one run, where a server counts it
	less     bool    // it does less than the others: no goal
}

// A peer that takes longer than slow is measured slowRounds times at most.
const (
	slow       = 5 * time.Second
	slowRounds = 3
)

// now is the clock that measures.
func now() time.Time {
	return time.Now() //nolint:forbidigo // nothing that is written depends on it
}

// measure runs commands one after the other.
func (b *bench) measure(ctx context.Context, commands [][]string) (sample, error) {
	return b.measureStatus(ctx, commands, 0)
}

// measureStatus is measure for commands that have to exit with status.
func (b *bench) measureStatus(ctx context.Context, commands [][]string, status int) (sample, error) {
	var s sample
	start := now()
	for _, args := range commands {
		var stderr strings.Builder
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Env, cmd.Stderr, cmd.Dir = b.env, &stderr, b.dir
		if err := exited(cmd.Run(), status); err != nil {
			return s, fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
		}
		s.cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
			s.rss = max(s.rss, int64(usage.Maxrss)*rssUnit)
		}
	}
	s.wall = now().Sub(start)
	return s, nil
}

// exited returns nil if err, of a command that has ended, is the exit status want.
func exited(err error, want int) error {
	status := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		status = exit.ExitCode()
	} else if err != nil {
		return err
	}
	if status != want {
		return fmt.Errorf("exit status %d, want %d", status, want)
	}
	return nil
}

// compete runs the contenders in turn, A B C A B C ..., so that what disturbs
// the machine disturbs them all. One round before is not counted: it fills the
// page cache. dir is on the file system that they use; before each run what is
// still to be written there is written.
func (b *bench) compete(ctx context.Context, dir string, rounds int, contenders ...*contender) error {
	b.others, b.elapsed = 0, 0
	last := map[*contender]int{} // the round in which it runs for the last time
	for round := range rounds + 1 {
		for _, c := range contenders {
			if c.missing != "" || last[c] > 0 && round > last[c] {
				continue
			}
			if c.prepare != nil {
				if err := c.prepare(ctx); err != nil {
					return err
				}
			}
			if err := settle(dir); err != nil {
				return err
			}
			before, start := busyTime(), now()
			s, err := b.measureStatus(ctx, c.commands(), c.status)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			b.others += busyTime() - before - s.cpu
			b.elapsed += now().Sub(start)
			if err != nil && len(c.samples) == 0 && !strings.HasPrefix(c.name, ours) {
				c.missing = oneLine(err.Error()) // a peer that cannot do it: its row says so
				continue
			}
			if err != nil {
				return err
			}
			if round == 0 && s.wall > slow && !strings.HasPrefix(c.name, ours) {
				last[c] = slowRounds
			}
			if round > 0 {
				c.samples = append(c.samples, s)
			}
		}
	}
	return nil
}

// busyTime is what all processors together have worked since the machine was
// started, by the clock ticks of proc_stat(5); 0 where that is not told.
func busyTime() time.Duration {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	var user, nice, system, idle, wait, irq, softirq, steal int64
	if _, err := fmt.Sscanf(string(raw), "cpu %d %d %d %d %d %d %d %d", &user, &nice, &system, &idle, &wait, &irq, &softirq, &steal); err != nil {
		return 0
	}
	const tick = time.Second / 100 // sysconf(_SC_CLK_TCK), the same on all architectures that Go knows
	return time.Duration(user+nice+system+irq+softirq+steal) * tick
}

// ours begins the names of the contenders that are gloci-layout.
const ours = "gloci-layout"

// syncTime runs a command once more under strace and returns how long it
// waited in fsync(2) and its like, and how long it ran. Threads that wait at
// the same time both count.
func (b *bench) syncTime(ctx context.Context, c *contender) (text string, err error) {
	if why := missing("strace"); why != "" {
		return "time in fsync: not measured, " + why, nil
	}
	if c.prepare != nil {
		if err := c.prepare(ctx); err != nil {
			return "", err
		}
	}
	if err := settle(b.dir); err != nil {
		return "", err
	}
	trace := filepath.Join(b.dir, "trace")
	args := append([]string{"strace", "-f", "-qq", "-T", "--seccomp-bpf", "-e", "trace=fsync,fdatasync,syncfs", "-o", trace}, c.commands()[0]...)
	s, err := b.measure(ctx, [][]string{args})
	if err != nil {
		return "time in fsync: not measured, " + oneLine(err.Error()), nil // ptrace may be forbidden
	}
	raw, err := os.ReadFile(trace)
	if err != nil {
		return "", err
	}
	var total time.Duration
	calls := 0
	for line := range strings.Lines(string(raw)) {
		open, end := strings.LastIndexByte(line, '<'), strings.LastIndexByte(line, '>')
		if open < 0 || end < open {
			continue
		}
		seconds, err := strconv.ParseFloat(line[open+1:end], 64)
		if err != nil {
			continue // "<unfinished ...>"; the line that resumes it has the time
		}
		total += time.Duration(seconds * float64(time.Second))
		calls++
	}
	return fmt.Sprintf("time in fsync: %s of %s (%d calls, one more run, traced)", seconds(total), seconds(s.wall), calls), nil
}

func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 160 {
		s = s[:157] + "..."
	}
	return s
}

// remove returns a prepare that takes files away.
func remove(paths ...string) func(context.Context) error {
	return func(context.Context) error {
		for _, path := range paths {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
		return nil
	}
}

// median of the walls; 0 without samples.
func (c *contender) median() time.Duration {
	return c.middle(func(s sample) time.Duration { return s.wall })
}

func (c *contender) medianCPU() time.Duration {
	return c.middle(func(s sample) time.Duration { return s.cpu })
}

func (c *contender) middle(of func(sample) time.Duration) time.Duration {
	var all []time.Duration
	for _, s := range c.samples {
		all = append(all, of(s))
	}
	slices.Sort(all)
	switch n := len(all); {
	case n == 0:
		return 0
	case n%2 == 1:
		return all[n/2]
	default:
		return (all[n/2-1] + all[n/2]) / 2
	}
}

func (c *contender) spread() (least, most time.Duration) {
	for i, s := range c.samples {
		if i == 0 || s.wall < least {
			least = s.wall
		}
		most = max(most, s.wall)
	}
	return least, most
}

func (c *contender) rss() int64 {
	var most int64
	for _, s := range c.samples {
		most = max(most, s.rss)
	}
	return most
}
