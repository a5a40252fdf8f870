package delta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/gardenlinux/gloci-layout/layout"
)

// statJobs is how many blobs of a base are looked for at once, as each may be a
// request.
const statJobs = 8

// A Source is a delta with its base: a [layout.Source] and a [layout.Sectioner]
// of the whole. Blobs are verified while they are read, wherever they are from.
type Source struct {
	carrier Carrier
	desc    *Description
	bases   []layout.Source
	at      map[digest.Digest]int // which base has what is needed of it
	infos   []layout.BlobInfo     // all blobs, sorted by digest
	kept    *kept
}

// Open puts a delta and its base together. All that the delta needs of it must
// be in one of bases, with the right size, else the error is a [BaseError];
// contents are verified when they are read. What is made of a patch and needed for
// another one is kept in a temporary file without a name until Close.
//
// A carrier that is no delta is [layout.ErrInvalid]. Close closes the carrier,
// not the bases.
func Open(ctx context.Context, c Carrier, bases ...layout.Source) (*Source, error) {
	d := c.Delta()
	if d == nil {
		return nil, fmt.Errorf("%w: %s is no delta", layout.ErrInvalid, c)
	}
	s := &Source{carrier: c, desc: d, bases: bases, at: map[digest.Digest]int{}, kept: newKept(d)}
	if err := s.find(ctx); err != nil {
		return nil, err
	}
	for info, err := range c.Blobs(ctx) {
		if err != nil {
			return nil, err
		}
		s.infos = append(s.infos, info)
	}
	s.infos = append(s.infos, d.Expected...)
	for _, p := range d.Patches {
		s.infos = append(s.infos, p.BlobInfo)
	}
	slices.SortFunc(s.infos, compareInfo)
	return s, nil
}

// find looks for what is needed, and lists what is nowhere.
func (s *Source) find(ctx context.Context) error {
	needs := s.desc.Needs()
	at := make([]int, len(needs))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(statJobs)
	for i, want := range needs {
		g.Go(func() error {
			at[i] = -1
			for j, base := range s.bases {
				have, err := base.Stat(ctx, want.Digest)
				switch {
				case errors.Is(err, layout.ErrNotFound), err == nil && have.Size != want.Size:
				case err != nil:
					return err
				default:
					at[i] = j
					return nil
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	e := &BaseError{Delta: s.carrier.String(), Needs: len(needs)}
	for i, want := range needs {
		if at[i] < 0 {
			e.Missing = append(e.Missing, want)
		}
		s.at[want.Digest] = at[i]
	}
	if len(e.Missing) == 0 {
		return nil
	}
	for _, base := range s.bases {
		e.Bases = append(e.Bases, base.String())
	}
	return e
}

// Delta returns the description of the delta.
func (s *Source) Delta() *Description { return s.desc }

// Index returns the index.json of the delta.
func (s *Source) Index(ctx context.Context) (*layout.Index, error) { return s.carrier.Index(ctx) }

// base returns the base that has d as a blob of the whole; nil if none does.
func (s *Source) base(d digest.Digest) layout.Source {
	if _, ok := slices.BinarySearchFunc(s.desc.Expected, d, compareDigest); !ok {
		return nil
	}
	return s.bases[s.at[d]]
}

// Blob opens the content of desc; see [layout.Source].
func (s *Source) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	var encoded *encodedReader
	rc, err := layout.OpenBlob(ctx, desc, func(d digest.Digest) (io.ReadCloser, error) {
		info, err := s.Stat(ctx, d)
		if err != nil {
			return nil, err
		}
		if info.Size != desc.Size {
			return nil, &layout.BlobError{Op: "open", Desc: desc, Err: fmt.Errorf("%w: %d bytes, want %d", layout.ErrMismatch, info.Size, desc.Size)}
		}
		if base := s.base(d); base != nil {
			return base.Blob(ctx, desc)
		}
		p, ok := s.desc.patch(d)
		switch {
		case ok && p.Recipe == nil:
			return s.made(ctx, p)
		case ok:
			var err error
			if encoded, err = s.encoded(ctx, p); err != nil {
				return nil, err
			}
			return encoded, nil
		}
		return s.carrier.Blob(ctx, desc)
	})
	if err == nil && encoded != nil {
		rc = &judge{rc, encoded}
	}
	return rc, err
}

// Blobs lists every blob of the whole; see [layout.Source].
func (s *Source) Blobs(ctx context.Context) iter.Seq2[layout.BlobInfo, error] {
	return func(yield func(layout.BlobInfo, error) bool) {
		for _, info := range s.infos {
			if ctx.Err() != nil {
				yield(info, context.Cause(ctx))
				return
			}
			if !yield(info, nil) {
				return
			}
		}
	}
}

// Stat returns what the whole has under d, or [layout.ErrNotFound].
func (s *Source) Stat(_ context.Context, d digest.Digest) (layout.BlobInfo, error) {
	d, err := layout.ParseDigest(string(d))
	if err != nil {
		return layout.BlobInfo{}, err
	}
	i, ok := slices.BinarySearchFunc(s.infos, d, compareDigest)
	if !ok {
		return layout.BlobInfo{}, fmt.Errorf("%s: blob %s: %w", s, d, layout.ErrNotFound)
	}
	return s.infos[i], nil
}

// Section returns where d lies; see [layout.Sectioner].
func (s *Source) Section(ctx context.Context, d digest.Digest) (f *os.File, off, size int64, err error) {
	src, err := s.stored(ctx, d)
	if err != nil {
		return nil, 0, 0, err
	}
	sectioner, ok := src.(layout.Sectioner)
	if !ok {
		return nil, 0, 0, fmt.Errorf("%s: %w", src, errors.ErrUnsupported)
	}
	return sectioner.Section(ctx, d)
}

// Pieces returns where d lies; see [layout.Piecer].
func (s *Source) Pieces(ctx context.Context, d digest.Digest) ([]layout.Piece, error) {
	src, err := s.stored(ctx, d)
	if err != nil {
		return nil, err
	}
	piecer, ok := src.(layout.Piecer)
	if !ok {
		return nil, fmt.Errorf("%s: %w", src, errors.ErrUnsupported)
	}
	return piecer.Pieces(ctx, d)
}

// stored returns the source that has d as it is.
func (s *Source) stored(ctx context.Context, d digest.Digest) (layout.Source, error) {
	if _, err := s.Stat(ctx, d); err != nil {
		return nil, err
	}
	if _, ok := s.desc.patch(d); ok {
		return nil, fmt.Errorf("%s: blob %s is made of a patch: %w", s, d, errors.ErrUnsupported)
	}
	if base := s.base(d); base != nil {
		return base, nil
	}
	return s.carrier, nil
}

// String returns the name of the delta.
func (s *Source) String() string { return s.carrier.String() }

// Close closes the delta. The bases are the caller's.
func (s *Source) Close() error { return errors.Join(s.Release(), s.carrier.Close()) }

// Release frees what Close frees, but does not close the delta.
func (s *Source) Release() error { return s.kept.close() }

var (
	_ layout.Source    = (*Source)(nil)
	_ layout.Sectioner = (*Source)(nil)
	_ layout.Piecer    = (*Source)(nil)
)
