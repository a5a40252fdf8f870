package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/gardenlinux/gloci-layout/layout"
)

// A verdict is what is known about the content of one blob of one source.
type verdict struct {
	mu        sync.Mutex
	good, bad Stamp // states of the file that were hashed
	run       *hashing
}

// A hashing is under way, or has ended.
type hashing struct {
	done  chan struct{}
	stamp Stamp // what was hashed
	err   error
}

func (v *verdict) of(now Stamp) (good, bad bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.good == now, v.bad == now
}

// learn remembers what the file has in the state st. A file that was written a
// moment ago could be written again without a sign: then it is not remembered.
func (v *verdict) learn(st Stamp, good bool) {
	if !st.settled(now()) {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if good {
		v.good, v.bad = st, Stamp{}
	} else {
		v.good, v.bad = Stamp{}, st
	}
}

// Hash hashes the blob of f, or waits for who does, and tells whether that was in
// the state that f has. The hashing goes on if ctx ends: the next who asks needs it
// too.
func (s *Store) Hash(ctx context.Context, held *Set, f *Files) (same bool, err error) {
	run := s.startHash(held, f.blob)
	select {
	case <-run.done:
		return run.stamp == f.stamp, run.err
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

// StartHash hashes b for those who will ask for it.
func (s *Store) StartHash(held *Set, b *Blob) { s.startHash(held, b) }

func (s *Store) startHash(held *Set, b *Blob) *hashing {
	v := b.state
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.run != nil {
		return v.run
	}
	run := &hashing{done: make(chan struct{})}
	v.run = run
	s.hold(held)
	s.wait.Go(func() {
		run.stamp, run.err = s.hashNow(b)
		v.mu.Lock()
		v.run = nil
		v.mu.Unlock()
		close(run.done)
		s.Release(held)
	})
	return run
}

func (s *Store) hashNow(b *Blob) (_ Stamp, err error) {
	select {
	case s.hashing <- struct{}{}:
		defer func() { <-s.hashing }()
	case <-s.life.Done():
		return Stamp{}, context.Cause(s.life)
	}
	f, err := b.Files(s.life)
	if err != nil {
		return Stamp{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.CopyBuffer(io.Discard, onlyReader{f.Reader(s.life)}, make([]byte, 256<<10))
	return f.stamp, s.Judge(f, err)
}

// Judge draws the conclusion from a read of all of f that ended with err. What
// was read is right if there is none, whatever the files have now.
func (s *Store) Judge(f *Files, err error) error {
	b, before := f.blob, f.stamp
	after, statErr := f.now()
	switch {
	case statErr != nil:
		return errors.Join(err, statErr)
	case err == nil:
		s.Counters.Verified.Add(1)
		s.Counters.VerifiedBytes.Add(b.Size)
		if after == before {
			b.state.learn(before, true)
		}
	case errors.Is(err, layout.ErrMismatch) && !before.sameContent(after):
		err = b.changed()
	case errors.Is(err, layout.ErrMismatch):
		s.Counters.Damaged.Add(1)
		if after == before {
			b.state.learn(before, false)
		}
		err = fmt.Errorf("%s: %w", b.home.src, err)
	}
	return err
}

// onlyReader hides everything but Read.
type onlyReader struct{ io.Reader }
