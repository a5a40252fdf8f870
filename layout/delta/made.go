package delta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/compress/patch"
	"github.com/gardenlinux/gloci-layout/layout"
)

// kept are the blobs that are made of patches and needed for other patches: each
// is made once, into a file without a name.
type kept struct {
	slots map[digest.Digest]chan *os.File // holds one, nil at first; who has it may make it

	mu     sync.Mutex
	files  []*os.File
	closed bool
}

func newKept(d *Description) *kept {
	k := &kept{slots: map[digest.Digest]chan *os.File{}}
	for _, p := range d.Patches {
		for _, own := range p.Own {
			if _, ok := d.patch(own.Digest); ok && k.slots[own.Digest] == nil {
				k.slots[own.Digest] = make(chan *os.File, 1)
				k.slots[own.Digest] <- nil
			}
		}
	}
	return k
}

// open returns the file of d; the caller that comes first makes it, and the others
// wait. Patches never need one another in a circle, so somebody always goes on.
func (k *kept) open(ctx context.Context, d digest.Digest, makeFile func() (*os.File, error)) (f *os.File, err error) {
	select {
	case f = <-k.slots[d]:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { k.slots[d] <- f }()
	if f != nil {
		return f, nil
	}
	made, err := makeFile()
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, errors.Join(fmt.Errorf("blob %s: %w", d, os.ErrClosed), made.Close())
	}
	k.files = append(k.files, made)
	return made, nil
}

func (k *kept) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	for _, f := range k.files {
		errs = append(errs, f.Close())
	}
	k.files, k.closed = nil, true
	return errors.Join(errs...)
}

// made opens what a patch makes. Its digest is the caller's to verify.
func (s *Source) made(ctx context.Context, p Patch) (io.ReadCloser, error) {
	m := &madeReader{patch: p}
	var parts []patch.Part
	add := func(r io.ReaderAt, c io.Closer, size int64) {
		parts = append(parts, patch.Part{ReaderAt: r, Size: size})
		m.closers = append(m.closers, c)
	}
	for _, info := range p.Base {
		r, closer, err := OpenAt(ctx, s.bases[s.at[info.Digest]], ocispec.Descriptor{Digest: info.Digest, Size: info.Size})
		if err != nil {
			return nil, errors.Join(err, m.closeParts())
		}
		add(r, closer, info.Size)
	}
	for _, info := range p.Own {
		r, closer, err := s.own(ctx, ocispec.Descriptor{Digest: info.Digest, Size: info.Size})
		if err != nil {
			return nil, errors.Join(err, m.closeParts())
		}
		add(r, closer, info.Size)
	}
	rc, err := s.carrier.OpenPatch(ctx, p)
	if err != nil {
		return nil, errors.Join(err, m.closeParts())
	}
	m.closers = append(m.closers, rc)
	base, size := patch.Join(parts...)
	if m.Reader, err = patch.NewReader(rc, base, size, p.Size); err != nil {
		return nil, errors.Join(patchError(p, err), m.closeParts())
	}
	return m, nil
}

// own opens a blob that the delta has, to be read anywhere.
func (s *Source) own(ctx context.Context, desc ocispec.Descriptor) (io.ReaderAt, io.Closer, error) {
	if _, ok := s.desc.patch(desc.Digest); !ok {
		return OpenAt(ctx, s.carrier, desc)
	}
	f, err := s.kept.open(ctx, desc.Digest, func() (*os.File, error) {
		rc, err := s.Blob(ctx, desc) // verified
		if err != nil {
			return nil, err
		}
		defer rc.Close() //nolint:errcheck // only read
		return spool(rc)
	})
	return f, io.NopCloser(nil), err
}

// patchError names the blob that cannot be made; other errors stay as they are.
func patchError(p Patch, err error) error {
	if errors.Is(err, patch.ErrCorrupt) || errors.Is(err, compress.ErrCorrupt) || errors.Is(err, compress.ErrLimit) {
		return fmt.Errorf("the patch for blob %s: %w: %w", p.Digest, layout.ErrInvalid, err)
	}
	return err
}

type madeReader struct {
	*patch.Reader
	closers []io.Closer
	patch   Patch
}

func (r *madeReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	return n, patchError(r.patch, err)
}

func (r *madeReader) Close() error { return errors.Join(r.Reader.Close(), r.closeParts()) }

func (r *madeReader) closeParts() error {
	var errs []error
	for _, c := range r.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
