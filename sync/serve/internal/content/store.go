// Package content knows what a server of package serve has: the sources as they
// were at one time, their repositories, tags, documents and blobs, and which of
// these were found right.
//
// A [Set] is all that is served at one time, and does not change. A [Store] has
// the present one, and puts another in its place when the sources have changed.
// It knows no request and no response.
package content

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/layout"
)

// A Source is something to serve; it is that of package serve.
type Source struct {
	Name    string
	Host    string
	Open    func(ctx context.Context) (layout.Source, error)
	Files   []string
	RefName string
	Digest  digest.Digest
}

// Options are those of package serve. There are no defaults.
type Options struct {
	Sources    []Source
	Sparse     bool
	Log        *slog.Logger
	Poll, Keep time.Duration
	MadeLimit  int64 // of the temporary files of [Store.Make], in bytes
}

// Counters count since the store was opened.
type Counters struct {
	Verified, VerifiedBytes   atomic.Int64
	Damaged                   atomic.Int64
	Loads, LoadFailures       atomic.Int64
	Repositories, Tags, Blobs atomic.Int64 // there are now
	LoadedAt                  atomic.Int64 // seconds since 1970

	Made, MadeFailed, MadeEvicted atomic.Int64 // blobs; see Store.Make
	MadeFiles, MadeBytes          atomic.Int64 // there are now
}

// A Store has what is served. It may be used by several goroutines.
type Store struct {
	Counters Counters

	opts    Options
	hashing chan struct{} // one for each blob that may be hashed at once
	made    made

	life context.Context //nolint:containedctx // ends with Close: hashing outlives the request that asked for it
	end  context.CancelFunc
	wait sync.WaitGroup // for what hashes, and makes

	reload  sync.Mutex // one at a time
	pending []pending  // by source: what was wrong the last time

	mu      sync.Mutex
	current *Set
}

// Open opens the sources and reads all their documents; the errors are those of
// New in package serve.
func Open(ctx context.Context, opts Options) (*Store, error) {
	s := &Store{opts: opts, hashing: make(chan struct{}, runtime.GOMAXPROCS(0)), pending: make([]pending, len(opts.Sources)), made: newMade(opts.MadeLimit)}
	s.life, s.end = context.WithCancel(context.WithoutCancel(ctx))
	first, err := s.build(ctx, nil, false)
	if err != nil {
		return nil, err
	}
	s.current = first
	s.loaded(first)
	return s, nil
}

// Close ends what goes on in the background and closes the sources. Nobody may
// hold a set.
func (s *Store) Close() error {
	s.end()
	s.wait.Wait()
	s.made.keep(func(*Blob) bool { return false })
	s.mu.Lock()
	last := s.current
	s.current = nil
	s.mu.Unlock()
	if last == nil {
		return nil
	}
	return s.release(last)
}

// loaded takes note of what is served from now on.
func (s *Store) loaded(x *Set) {
	tags, blobs := 0, 0
	for _, r := range x.Repos {
		tags += len(r.Tags)
	}
	for _, snap := range x.sources {
		blobs += len(snap.blobs)
	}
	c := &s.Counters
	c.Repositories.Store(int64(len(x.Repos)))
	c.Tags.Store(int64(tags))
	c.Blobs.Store(int64(blobs))
	c.LoadedAt.Store(now().Unix())
	c.Loads.Add(1)
}

// Acquire returns what is served now; the caller releases it. After Close that is
// nil.
func (s *Store) Acquire() *Set {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil {
		s.current.refs++
	}
	return s.current
}

// hold acquires held once more.
func (s *Store) hold(held *Set) {
	s.mu.Lock()
	defer s.mu.Unlock()
	held.refs++
}

// Release gives a set back. What nobody needs any more is closed.
func (s *Store) Release(held *Set) {
	if err := s.release(held); err != nil {
		s.opts.Log.Warn("closing what is served no more", "error", err)
	}
}

func (s *Store) release(held *Set) error {
	var unused []*snapshot
	s.mu.Lock()
	if held.refs--; held.refs == 0 {
		for snap := range held.all {
			if snap.refs--; snap.refs == 0 {
				unused = append(unused, snap)
			}
		}
	}
	s.mu.Unlock()
	var err error
	for _, snap := range unused {
		err = errors.Join(err, snap.src.Close())
	}
	return err
}

// build returns a set of the present state of the sources: from old what has
// not changed, or cannot be loaded. It is old itself if nothing is new. With
// force, all sources are taken to have changed.
func (s *Store) build(ctx context.Context, old *Set, force bool) (*Set, error) {
	n := len(s.opts.Sources)
	x := &Set{sources: make([]*snapshot, n), pasts: make([][]*past, n), refs: 1}
	var loaded []*snapshot
	discard := func(err error) (*Set, error) {
		for _, snap := range loaded {
			err = errors.Join(err, snap.src.Close())
		}
		return nil, err
	}
	t := now()
	same := old != nil
	for i := range n {
		if old == nil {
			snap, err := s.load(ctx, i, nil)
			if err != nil {
				return discard(err)
			}
			x.sources[i] = snap
			loaded = append(loaded, snap)
			continue
		}
		x.sources[i] = old.sources[i]
		x.pasts[i] = slices.DeleteFunc(slices.Clone(old.pasts[i]), func(p *past) bool { return p.until.Before(t) })
		same = same && len(x.pasts[i]) == len(old.pasts[i])
		snap, err := s.changed(ctx, i, old.sources[i], force)
		if err != nil {
			return discard(err)
		}
		if snap == nil {
			continue
		}
		loaded = append(loaded, snap)
		x.sources[i], same = snap, false
		if p := pastOf(old.sources[i], snap, t.Add(s.opts.Keep)); p != nil && s.opts.Keep > 0 {
			x.pasts[i] = slices.Insert(x.pasts[i], 0, p)
			x.pasts[i] = x.pasts[i][:min(len(x.pasts[i]), maxPasts)]
		}
	}
	if same {
		return old, nil
	}
	if err := x.assemble(func(msg string, args ...any) { s.opts.Log.Warn(msg, args...) }); err != nil {
		return discard(err)
	}
	s.mu.Lock()
	for snap := range x.all {
		snap.refs++
	}
	s.mu.Unlock()
	return x, nil
}

// now is the clock of times and expiry.
func now() time.Time {
	return time.Now() //nolint:forbidigo // no byte of a layout depends on it
}
