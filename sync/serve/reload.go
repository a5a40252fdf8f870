package serve

import (
	"context"
	"time"

	"github.com/gardenlinux/gloci-layout/sync/serve/internal/content"
)

// Reload opens all sources and reads the users anew. Sources that cannot be
// served stay as they were; the log says why. An error means that they cannot be
// served together, and all stay as they were.
func (s *Server) Reload(ctx context.Context) error {
	if s.opts.Users != nil {
		if err := s.opts.Users.Reload(); err != nil {
			s.opts.Log.Warn("the users stay as they were", "error", err)
		}
	}
	return s.content.Renew(ctx, true)
}

// poll looks for changes until ctx ends.
func (s *Server) poll(ctx context.Context) {
	if s.opts.Poll < 0 {
		return
	}
	tick := time.NewTicker(s.opts.Poll)
	defer tick.Stop()
	told := ""
	var wait time.Time // sources that exclude each other are not read every second
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s.opts.Users != nil {
			s.opts.Users.reloadChanged(s.opts.Log)
		}
		if now().Before(wait) {
			continue
		}
		err := s.content.Renew(ctx, false)
		if err == nil || ctx.Err() != nil {
			told = ""
			continue
		}
		wait = now().Add(min(10*s.opts.Poll, content.MaxWait))
		if err.Error() != told {
			told = err.Error()
			s.content.Counters.LoadFailures.Add(1)
			s.opts.Log.Warn("the sources have changed, but cannot be served together: what was there before is served", "error", err)
		}
	}
}
