package serve

import (
	"context"
	"slices"
	"time"
)

// pending is what is wrong with a source that has changed.
type pending struct {
	stamps []stamp
	told   string // what the log has of it
	wait   time.Duration
	next   time.Time
}

// maxWait is the longest time between two looks at a source that has changed
// and cannot be loaded.
const maxWait = 30 * time.Second

// changed loads source i anew if its files are no longer those of have; nil if
// they are, or if what there is cannot be served.
func (s *Server) changed(ctx context.Context, i int, have *snapshot, force bool) (*snapshot, error) {
	stamps := stampFiles(s.opts.Sources[i].Files)
	p := &s.pending[i]
	if force {
		*p = pending{}
	} else if slices.Equal(stamps, have.stamps) {
		*p = pending{}
		return nil, nil
	}
	// Blobs may come after index.json, without a sign: look again, less and less
	// often.
	if slices.Equal(stamps, p.stamps) && now().Before(p.next) {
		return nil, nil
	}
	snap, err := s.load(ctx, i, have)
	if ctx.Err() != nil {
		if err == nil {
			err = snap.src.Close()
		}
		return nil, err
	}
	if err != nil {
		if !slices.Equal(stamps, p.stamps) {
			p.stamps, p.wait = stamps, s.opts.Poll/2
		}
		p.wait = min(2*p.wait, maxWait)
		p.next = now().Add(p.wait)
		if text := err.Error(); text != p.told {
			p.told = text
			s.metrics.reloadFailed.Add(1)
			s.opts.Log.Warn("the source has changed, but cannot be served as it is now: what was there before is served", "source", have.src, "error", err)
		}
		return nil, nil // it was told, and the source stays as it was
	}
	*p = pending{}
	return snap, nil
}

// Reload opens all sources and reads the users anew. Sources that cannot be
// served stay as they were; the log says why. An error means that they cannot be
// served together, and all stay as they were.
func (s *Server) Reload(ctx context.Context) error {
	if s.opts.Users != nil {
		if err := s.opts.Users.Reload(); err != nil {
			s.opts.Log.Warn("the users stay as they were", "error", err)
		}
	}
	return s.renew(ctx, true)
}

// renew puts what has changed in the place of what is served.
func (s *Server) renew(ctx context.Context, force bool) error {
	s.reload.Lock()
	defer s.reload.Unlock()
	old := s.acquire()
	if old == nil {
		return nil
	}
	x, err := s.build(ctx, old, force)
	if err == nil && x != old {
		s.mu.Lock()
		s.current, old.refs = x, old.refs-1 // it is current no more
		s.mu.Unlock()
		s.metrics.loaded(x)
		s.opts.Log.Info("reloaded", "repositories", len(x.names))
	}
	if closeErr := s.release(old); closeErr != nil {
		s.opts.Log.Warn("closing what is served no more", "error", closeErr)
	}
	return err
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
		err := s.renew(ctx, false)
		if err == nil || ctx.Err() != nil {
			told = ""
			continue
		}
		wait = now().Add(min(10*s.opts.Poll, maxWait))
		if err.Error() != told {
			told = err.Error()
			s.metrics.reloadFailed.Add(1)
			s.opts.Log.Warn("the sources have changed, but cannot be served together: what was there before is served", "error", err)
		}
	}
}
