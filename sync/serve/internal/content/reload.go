package content

import (
	"context"
	"slices"
	"time"
)

// pending is what is wrong with a source that has changed.
type pending struct {
	stamps []Stamp
	told   string // what the log has of it
	wait   time.Duration
	next   time.Time
}

// MaxWait is the longest time between two looks at a source that has changed
// and cannot be loaded.
const MaxWait = 30 * time.Second

// changed loads source i anew if its files are no longer those of have; nil if
// they are, or if what there is cannot be served.
func (s *Store) changed(ctx context.Context, i int, have *snapshot, force bool) (*snapshot, error) {
	stamps := StampsOf(s.opts.Sources[i].Files)
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
		p.wait = min(2*p.wait, MaxWait)
		p.next = now().Add(p.wait)
		if text := err.Error(); text != p.told {
			p.told = text
			s.Counters.LoadFailures.Add(1)
			s.opts.Log.Warn("the source has changed, but cannot be served as it is now: what was there before is served", "source", have.src, "error", err)
		}
		return nil, nil // it was told, and the source stays as it was
	}
	*p = pending{}
	return snap, nil
}

// Renew puts what has changed in the place of what is served; with force, all
// sources are taken to have changed. Sources that cannot be served stay as they
// were; the log says why. An error means that they cannot be served together, and
// all stay as they were.
func (s *Store) Renew(ctx context.Context, force bool) error {
	s.reload.Lock()
	defer s.reload.Unlock()
	old := s.Acquire()
	if old == nil {
		return nil
	}
	x, err := s.build(ctx, old, force)
	if err == nil && x != old {
		s.mu.Lock()
		s.current, old.refs = x, old.refs-1 // it is current no more
		s.mu.Unlock()
		s.loaded(x)
		s.made.keep(x.has)
		s.opts.Log.Info("reloaded", "repositories", len(x.Names))
	}
	s.Release(old)
	return err
}
