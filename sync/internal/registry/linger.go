package registry

import (
	"context"
	"time"
)

// RestoreTime is how long moving a tag, and putting all back, may go on after
// the context of who does so has ended.
const RestoreTime = 30 * time.Second

// Linger returns a context that ends a while after ctx has. A request that
// moves a tag and is given up may still be carried out, even after the tag was
// put back: its answer is waited for.
func Linger(ctx context.Context) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		time.AfterFunc(RestoreTime, func() { cancel(context.Cause(ctx)) })
	})
	return longer, func() {
		stop()
		cancel(context.Canceled)
	}
}
