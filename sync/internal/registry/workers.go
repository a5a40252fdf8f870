package registry

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// dialCost is about what one more connection costs both ends.
	dialCost = 700 * time.Microsecond
	// farAway is how long a registry takes to answer from which on nothing but
	// the wait for it counts.
	farAway = 5 * time.Millisecond
	// fewAskers is how many questions are always asked at once, if there are.
	fewAskers = 4
)

// Jobs is how many transfers may run at once.
func (c *Client) Jobs() int { return c.opts.jobs() }

// SmallJobs is how many requests without much content may run at once: they
// wait for the registry, and hardly use the line.
func (c *Client) SmallJobs() int { return c.opts.small() }

// Askers is how many of n requests without any content should run at once:
// SmallJobs at most, and fewer where the registry answers so fast that more
// connections would cost more than they save.
func (c *Client) Askers(n int) int {
	answer := c.answer.get()
	if answer >= farAway {
		return c.SmallJobs()
	}
	best := math.Sqrt(float64(n) * float64(answer) / float64(dialCost))
	return min(c.SmallJobs(), max(fewAskers, int(math.Ceil(best))))
}

// Each calls fn for every item, at most jobs at once, and returns the first
// error. One goroutine goes from item to item: a request needs a large stack,
// which each new one would have to grow.
func Each[T any](ctx context.Context, jobs int, items []T, fn func(context.Context, T) error) error {
	group, inner := errgroup.WithContext(ctx)
	var taken atomic.Int64
	for range min(jobs, len(items)) {
		group.Go(func() error {
			for inner.Err() == nil {
				i := taken.Add(1)
				if i > int64(len(items)) {
					break
				}
				if err := fn(inner, items[i-1]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// Anonymous tells whether the registry has answered without asking who is there.
// Where it has not been asked yet, the first request should go alone: its answer
// tells all others how to log in.
func (c *Client) Anonymous() bool { return c.anonymous }

// An answerTime is the time of the fastest answer.
type answerTime struct{ least atomic.Int64 }

func (a *answerTime) see(d time.Duration) {
	for {
		old := a.least.Load()
		if old != 0 && old <= int64(d) || a.least.CompareAndSwap(old, max(1, int64(d))) {
			return
		}
	}
}

// get returns 0 if there was no answer.
func (a *answerTime) get() time.Duration { return time.Duration(a.least.Load()) }
