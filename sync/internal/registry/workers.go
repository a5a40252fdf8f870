package registry

import (
	"math"
	"sync/atomic"
	"time"
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
