package layout

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/layout/internal/durable"
)

// GCOptions says what [Layout.GC] may take.
type GCOptions struct {
	DryRun bool          // only tell
	Grace  time.Duration // blobs written less than this before Now stay
	Now    time.Time     // required: the layout never looks at a clock
	Sparse bool          // members of indexes that are not there are no reason to refuse
}

// A GCResult is what [Layout.GC] took, or would take.
type GCResult struct {
	Removed   []BlobInfo // sorted by digest
	Kept      int        // blobs that are reachable
	Young     int        // unreachable, but younger than the grace age
	TempFiles int        // what dead writers had left, and blobs half fetched
}

// GC removes the blobs that index.json does not reach. Documents of every kind
// are followed, subjects too; files that are no blobs are left alone. It waits
// until no [Stage] is open and keeps new ones waiting. It refuses, and removes
// nothing, when something reachable cannot be read: what that names would be
// taken for garbage.
func (l *Layout) GC(ctx context.Context, opts GCOptions) (*GCResult, error) {
	if opts.Now.IsZero() {
		return nil, errors.New("gc: no time given")
	}
	lock, err := l.openLock()
	if err != nil {
		return nil, fmt.Errorf("gc %s: %w", l.dir, readOnly(err))
	}
	defer lock.Close() //nolint:errcheck // gives back the lock; nothing was written to it
	if err := durable.Lock(ctx, lock, durable.Exclusive); err != nil {
		return nil, err
	}
	before, err := l.snapshot()
	if err != nil {
		return nil, err
	}
	reachable, err := l.mark(ctx, before, opts)
	if err != nil {
		return nil, fmt.Errorf("gc: nothing removed: %w", err)
	}
	r := &GCResult{}
	for info, err := range l.Blobs(ctx) {
		if err != nil {
			return nil, fmt.Errorf("gc: nothing removed: %w", err)
		}
		if reachable[info.Digest] {
			r.Kept++
			continue
		}
		file, err := l.stat(info.Digest)
		if err != nil {
			return nil, fmt.Errorf("gc: nothing removed: %w", err)
		}
		if opts.Now.Sub(file.ModTime()) < opts.Grace {
			r.Young++
			continue
		}
		r.Removed = append(r.Removed, info)
	}
	after, err := l.snapshot()
	if err != nil {
		return nil, err
	}
	if !before.same(after) {
		return nil, fmt.Errorf("gc %s: nothing removed: another program changed %s: %w", l.dir, indexFile, ErrConflict)
	}
	if opts.DryRun {
		return r, nil
	}
	return r, l.collect(ctx, r, opts)
}

// mark returns every digest that index.json reaches.
func (l *Layout) mark(ctx context.Context, at snapshot, opts GCOptions) (map[digest.Digest]bool, error) {
	x, err := ParseIndex(at.raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(l.dir, indexFile), err)
	}
	reachable := map[digest.Digest]bool{}
	roots := x.Entries()
	if subject := x.Subject(); subject != nil {
		if _, err := l.stat(subject.Digest); !errors.Is(err, ErrNotFound) {
			roots = append(roots, *subject)
		}
	}
	for n, err := range Walk(ctx, l, roots, &WalkOptions{Sparse: opts.Sparse}) {
		if err != nil {
			return nil, err
		}
		reachable[n.Desc.Digest] = true
	}
	return reachable, nil
}

func (l *Layout) collect(ctx context.Context, r *GCResult, opts GCOptions) error {
	touched := map[digest.Algorithm]bool{}
	for i, info := range r.Removed {
		if ctx.Err() != nil {
			r.Removed = r.Removed[:i]
			return context.Cause(ctx)
		}
		err := l.root.Remove(filepath.FromSlash(BlobPath(info.Digest)))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			r.Removed = r.Removed[:i]
			return fmt.Errorf("gc %s: %w", l.dir, readOnly(err))
		}
		touched[info.Digest.Algorithm()] = true
	}
	for a := range touched {
		if err := durable.SyncRootDir(l.root, blobsDir+"/"+string(a)); err != nil {
			return err
		}
	}
	temp, err := l.sweep()
	partial, perr := l.sweepPartial(opts.Now, opts.Grace)
	r.TempFiles = temp + partial
	return errors.Join(err, perr)
}

// RemoveBlob removes the blob d, reachable or not; one that is not there is no
// error. It is for tools that keep their own account of what is needed: [GC]
// is the safe way.
//
// [GC]: Layout.GC
func (l *Layout) RemoveBlob(_ context.Context, d digest.Digest) error {
	d, err := ParseDigest(string(d))
	if err != nil {
		return err
	}
	if _, err := l.stat(d); err != nil {
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		return err
	}
	if err := l.root.Remove(filepath.FromSlash(BlobPath(d))); err != nil && !errors.Is(err, os.ErrNotExist) {
		return readOnly(err)
	}
	return durable.SyncRootDir(l.root, blobsDir+"/"+string(d.Algorithm()))
}
