package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

func processors() int { return runtime.GOMAXPROCS(0) }

// A verdict is what is known about the content of one blob of one source.
type verdict struct {
	mu        sync.Mutex
	good, bad stamp // states of the file that were hashed
	run       *hashing
}

// A hashing is under way, or has ended.
type hashing struct {
	done  chan struct{}
	stamp stamp // what was hashed
	err   error
}

func (v *verdict) of(now stamp) (good, bad bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.good == now, v.bad == now
}

// learn remembers what the file has in the state st. A file that was written a
// moment ago could be written again without a sign: then it is not remembered.
func (v *verdict) learn(st stamp, good bool) {
	if !st.settled(now()) {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if good {
		v.good, v.bad = st, stamp{}
	} else {
		v.good, v.bad = stamp{}, st
	}
}

// hash hashes b, or waits for who does, and returns the state of the file that
// was hashed. The hashing goes on if ctx ends: the next who asks needs it too.
func (s *Server) hash(ctx context.Context, held *set, b *blob) (stamp, error) {
	run := s.startHash(held, b)
	select {
	case <-run.done:
		return run.stamp, run.err
	case <-ctx.Done():
		return stamp{}, context.Cause(ctx)
	}
}

func (s *Server) startHash(held *set, b *blob) *hashing {
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
		if err := s.release(held); err != nil {
			s.opts.Log.Warn("closing what is served no more", "error", err)
		}
	})
	return run
}

func (s *Server) hashNow(b *blob) (_ stamp, err error) {
	select {
	case s.hashing <- struct{}{}:
		defer func() { <-s.hashing }()
	case <-s.life.Done():
		return stamp{}, context.Cause(s.life)
	}
	f, err := openFiles(s.life, b)
	if err != nil {
		return stamp{}, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	_, err = io.CopyBuffer(io.Discard, onlyReader{f.reader(s.life)}, make([]byte, 256<<10))
	return f.stamp, s.judge(f, err)
}

// judge draws the conclusion from a read of all of f that ended with err. What
// was read is right if there is none, whatever the files have now.
func (s *Server) judge(f *files, err error) error {
	b, before := f.blob, f.stamp
	after, statErr := f.now()
	switch {
	case statErr != nil:
		return errors.Join(err, statErr)
	case err == nil:
		s.metrics.verified.Add(1)
		s.metrics.verifiedBytes.Add(b.size)
		if after == before {
			b.state.learn(before, true)
		}
	case errors.Is(err, layout.ErrMismatch) && !before.sameContent(after):
		err = b.changed()
	case errors.Is(err, layout.ErrMismatch):
		s.metrics.damaged.Add(1)
		if after == before {
			b.state.learn(before, false)
		}
		err = fmt.Errorf("%s: %w", b.home.src, err)
	}
	return err
}

func (b *blob) descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{Digest: b.digest, Size: b.size}
}

// onlyReader hides everything but Read.
type onlyReader struct{ io.Reader }
