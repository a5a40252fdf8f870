package sync

import (
	"context"
	"time"
)

// SetSleep replaces the waits of a publish.
func SetSleep(opts *PublishOptions, sleep func(context.Context, time.Duration) error) {
	opts.sleep = sleep
}
