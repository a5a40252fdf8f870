package layout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/gardenlinux/gloci-layout/layout/internal/durable"
)

// CopyOptions changes what [Stage.CopyTree] does. Nil is the zero value.
type CopyOptions struct {
	Jobs int // blobs copied at once; 0 means twice the processors
	// SmallJobs is how many are copied at once if no more than Jobs of them
	// have more than 64 KiB: a registry makes us wait longer for its answer
	// than for so few bytes. As many documents are read beside them. Less than
	// Jobs means Jobs.
	SmallJobs int
	Sparse    bool // members of indexes that the source lacks stay away
	// Resume has the blobs of a [Resumer] become part of the layout when they
	// are whole, and keeps the beginning of others, for a later try to go on
	// from.
	Resume bool
	// Link makes hard links to files of a layout directory that have the right
	// mode, where the system can.
	Link     bool
	Progress func(Event)
}

// CopyTree stages roots of src and everything that they name, also subjects
// that src has. Documents keep their bytes; every blob is verified. What the
// layout holds whole already is not copied. Layers that src lacks are
// [ErrNotFound], unless they have URLs to be had from (descriptor.md, "urls").
func (s *Stage) CopyTree(ctx context.Context, src Source, roots []ocispec.Descriptor, opts *CopyOptions) error {
	var o CopyOptions
	if opts != nil {
		o = *opts
	}
	if o.Jobs == 0 {
		o.Jobs = 2 * runtime.GOMAXPROCS(0)
	}
	if o.Progress == nil {
		o.Progress = func(Event) {}
	}
	ahead := o.SmallJobs
	o.SmallJobs = max(o.SmallJobs, o.Jobs)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(o.SmallJobs)
	large := make(chan struct{}, o.Jobs)
	var walkErr error
	for n, err := range Walk(gctx, src, roots, &WalkOptions{Sparse: o.Sparse, ChildrenFirst: true, ahead: ahead}) {
		if err != nil {
			walkErr = err
			break
		}
		if n.Absent {
			continue
		}
		g.Go(func() error {
			if n.Desc.Size > smallFetch {
				select {
				case large <- struct{}{}:
				case <-gctx.Done():
					return context.Cause(gctx)
				}
				defer func() { <-large }()
			}
			o.Progress(Event{Kind: "start", Desc: n.Desc})
			added, err := s.copyNode(gctx, src, n, o, func(k int64) { o.Progress(Event{Kind: "bytes", Desc: n.Desc, Bytes: k}) })
			if err != nil {
				return err
			}
			kind := "skip"
			if added {
				kind = "done"
			}
			o.Progress(Event{Kind: kind, Desc: n.Desc})
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return walkErr
}

func (s *Stage) copyNode(ctx context.Context, src Source, n Node, o CopyOptions, copied func(n int64)) (added bool, err error) {
	if n.Document != nil {
		return s.addExpect(ctx, n.Desc, copied, func() (io.ReadCloser, error) {
			return OpenBlob(ctx, n.Desc, func(digest.Digest) (io.ReadCloser, error) { return readCloser(n.Document.Raw), nil })
		})
	}
	if have, err := s.holds(ctx, n.Desc); have || err != nil {
		return false, err
	}
	if resumer, ok := src.(Resumer); ok && o.Resume && n.Desc.Data == nil && n.Desc.Size >= minPartial {
		err := s.resume(ctx, resumer, n.Desc, copied)
		switch {
		case errors.Is(err, errOccupied): // two fetch it, and both for themselves
		case errors.Is(err, ErrNotFound) && len(n.Desc.URLs) > 0:
			return false, nil
		default:
			return err == nil, err
		}
	}
	if sectioner, ok := src.(Sectioner); ok && n.Desc.Data == nil {
		f, off, size, err := sectioner.Section(ctx, n.Desc.Digest)
		if err == nil {
			defer f.Close() //nolint:errcheck // only read
			if o.Link && off == 0 {
				if linked, err := s.linkFrom(ctx, f, n.Desc, copied); linked || err != nil {
					return linked, err
				}
			}
			return true, s.copyFrom(ctx, f, off, size, n.Desc, copied)
		}
		// Unsupported: not every blob of every source is part of a file.
		if !errors.Is(err, ErrNotFound) && !errors.Is(err, errors.ErrUnsupported) {
			return false, err
		}
	}
	added, err = s.addExpect(ctx, n.Desc, copied, func() (io.ReadCloser, error) { return src.Blob(ctx, n.Desc) })
	if errors.Is(err, ErrNotFound) && len(n.Desc.URLs) > 0 {
		return false, nil
	}
	return added, err
}

// linkFrom stages desc by a further name for the file f, if it is that alone
// and has the mode of a blob. Its bytes are hashed like those of a copy.
func (s *Stage) linkFrom(ctx context.Context, f *os.File, desc ocispec.Descriptor, copied func(n int64)) (linked bool, err error) {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() != desc.Size || info.Mode() != fileMode {
		return false, err
	}
	name := s.newName()
	if !durable.Link(f, s.dir, name) {
		return false, nil
	}
	temp, err := s.root.Open(name)
	if err != nil {
		return false, errors.Join(err, s.root.Remove(name))
	}
	digester := desc.Digest.Algorithm().Digester()
	n, err := hashFile(ctx, temp, digester.Hash(), nil, copied)
	if err == nil && (n != desc.Size || digester.Digest() != desc.Digest) {
		err = fmt.Errorf("%w: the bytes hash to %s", ErrMismatch, digester.Digest())
	}
	if err != nil {
		return false, &BlobError{Op: "link", Desc: desc, Err: errors.Join(err, temp.Close(), s.root.Remove(name))}
	}
	// Whoever wrote it need not have synced it.
	if err := s.settle(temp, n); err != nil {
		return false, errors.Join(err, s.root.Remove(name))
	}
	return true, s.keep(name, desc.Digest, n)
}
