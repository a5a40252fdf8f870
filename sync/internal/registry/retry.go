package registry

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/gardenlinux/gloci-layout/layout"
)

const (
	firstWait = 250 * time.Millisecond
	mostWait  = 30 * time.Second
	// mostAsked is how long a registry may ask us to wait.
	mostAsked = 60 * time.Second
)

// retry calls op until it succeeds, fails for good or was called Options.Tries
// times. The waits double from a quarter of a second, with jitter; one that
// the registry asks for holds up all workers of the client.
func (c *Client) retry(ctx context.Context, op func(context.Context) error) error {
	wait := firstWait
	for try := 1; ; try++ {
		if err := c.paused(ctx); err != nil {
			return err
		}
		ctx, seen := observe(ctx)
		err := op(ctx)
		if err == nil || !retryable(err) || try == c.opts.tries() || ctx.Err() != nil {
			return err
		}
		_, _, asked := seen.get()
		if asked > mostAsked {
			return layout.WithHint(err, "the registry asks to wait "+asked.String()+" before the next try")
		}
		c.opts.log().Debug("retry", "repository", c.Named.Name(), "try", try, "error", clean(err.Error()))
		if asked > 0 {
			c.hold(asked)
			continue
		}
		if err := sleep(ctx, wait/2+rand.N(wait)); err != nil {
			return err
		}
		wait = min(2*wait, mostWait)
	}
}

// hold makes all requests of the client wait.
func (c *Client) hold(d time.Duration) {
	done := make(chan struct{})
	time.AfterFunc(d, func() { close(done) })
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pause = done
}

// paused returns when requests may go out.
func (c *Client) paused(ctx context.Context) error {
	c.mu.Lock()
	pause := c.pause
	c.mu.Unlock()
	if pause == nil {
		return nil
	}
	select {
	case <-pause:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
