package delta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/compress/patch"
	"github.com/gardenlinux/gloci-layout/layout"
)

// A form is what a patch takes of a blob: its bytes, or the content that is
// compressed in them.
type form struct {
	digest  digest.Digest
	content bool
}

// kept are the blobs that are made of patches and needed for other patches, and
// the contents that several patches need: each is made once, into a file without a
// name.
type kept struct {
	slots map[form]chan *os.File // holds one, nil at first; who has it may make it

	mu     sync.Mutex
	files  []*os.File
	closed bool
}

func newKept(d *Description) *kept {
	k := &kept{slots: map[form]chan *os.File{}}
	uses := map[form]int{}
	for _, p := range d.Patches {
		for _, piece := range slices.Concat(p.Base, p.Own) {
			f := form{piece.Digest, p.content(piece.Digest) > 0}
			_, patched := d.patch(piece.Digest)
			patched = patched && slices.Contains(p.Own, piece)
			if uses[f]++; (patched || f.content && uses[f] > 1) && k.slots[f] == nil {
				k.slots[f] = make(chan *os.File, 1)
				k.slots[f] <- nil
			}
		}
	}
	return k
}

// open returns the file of what; the caller that comes first makes it, and the others
// wait. Patches never need one another in a circle, so somebody always goes on.
func (k *kept) open(ctx context.Context, what form, makeFile func() (*os.File, error)) (f *os.File, err error) {
	select {
	case f = <-k.slots[what]:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { k.slots[what] <- f }()
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
		return nil, errors.Join(fmt.Errorf("blob %s: %w", what.digest, os.ErrClosed), made.Close())
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

// made opens what a patch makes: the blob, or its content. Its digest is the
// caller's to verify.
func (s *Source) made(ctx context.Context, p Patch) (io.ReadCloser, error) {
	m := &madeReader{patch: p}
	var parts []patch.Part
	for i, info := range slices.Concat(p.Base, p.Own) {
		r, closer, size, err := s.piece(ctx, p, info, i >= len(p.Base))
		if err != nil {
			return nil, errors.Join(patchError(p, err), m.closeParts())
		}
		parts = append(parts, patch.Part{ReaderAt: r, Size: size})
		m.closers = append(m.closers, closer)
	}
	rc, err := s.carrier.OpenPatch(ctx, p)
	if err != nil {
		return nil, errors.Join(err, m.closeParts())
	}
	m.closers = append(m.closers, rc)
	base, size := patch.Join(parts...)
	if m.Reader, err = patch.NewReader(rc, base, size, p.made().Size); err != nil {
		return nil, errors.Join(patchError(p, err), m.closeParts())
	}
	return m, nil
}

// encoded opens the blob that a patch with a recipe makes.
func (s *Source) encoded(ctx context.Context, p Patch) (*encodedReader, error) {
	rc, err := s.contentOf(ctx, p)
	if err != nil {
		return nil, err
	}
	return newEncodedReader(p, rc)
}

// contentOf opens the content that a patch with a recipe makes, verified.
func (s *Source) contentOf(ctx context.Context, p Patch) (io.ReadCloser, error) {
	rc, err := s.made(ctx, p)
	if err != nil {
		return nil, err
	}
	return layout.VerifyReader(ctx, rc, ocispec.Descriptor{Digest: p.Recipe.Content.Digest, Size: p.Recipe.Content.Size}), nil
}

// piece opens a blob that a patch is made of, or its content, to be read
// anywhere. It is one of the base, or one that the delta has.
func (s *Source) piece(ctx context.Context, p Patch, info layout.BlobInfo, own bool) (io.ReaderAt, io.Closer, int64, error) {
	what := form{info.Digest, p.content(info.Digest) > 0}
	desc := ocispec.Descriptor{Digest: info.Digest, Size: info.Size}
	src, whole := layout.Source(s.carrier), layout.Source(s)
	if !own {
		src = s.bases[s.at[info.Digest]]
		whole = src
	}
	q, patched := s.desc.patch(info.Digest)
	patched = patched && own
	if !patched && !what.content {
		r, closer, err := OpenAt(ctx, src, desc)
		return r, closer, info.Size, err
	}
	makeFile := func() (*os.File, error) {
		switch {
		case !what.content:
			return spoolFrom(whole.Blob(ctx, desc)) // verified
		case patched && q.Recipe != nil:
			return spoolFrom(s.contentOf(ctx, q)) // it need not be compressed
		}
		rc, err := OpenContent(ctx, whole, desc, p.content(info.Digest))
		return spoolFrom(rc, err)
	}
	size := info.Size
	if what.content {
		size = p.content(info.Digest)
	}
	if s.kept.slots[what] == nil {
		f, err := makeFile()
		return f, f, size, err
	}
	f, err := s.kept.open(ctx, what, makeFile)
	return f, io.NopCloser(nil), size, err
}

// spoolFrom copies what was opened to a temporary file without a name.
func spoolFrom(rc io.ReadCloser, err error) (*os.File, error) {
	if err != nil {
		return nil, err
	}
	defer rc.Close() //nolint:errcheck // only read
	return spool(rc)
}

// OpenContent opens the content of the compressed blob desc of src, which has size
// bytes; else reading it ends with [layout.ErrInvalid], as for a blob that is not
// compressed. The blob is verified: at the end all of it was right.
func OpenContent(ctx context.Context, src layout.Source, desc ocispec.Descriptor, size int64) (io.ReadCloser, error) {
	rc, err := src.Blob(ctx, desc)
	if err != nil {
		return nil, err
	}
	dec, err := uncompressed(rc)
	if err != nil {
		return nil, contentError(desc, err)
	}
	return &sizedReader{ReadCloser: dec, desc: desc, left: size}, nil
}

func contentError(desc ocispec.Descriptor, err error) error {
	if errors.Is(err, compress.ErrCorrupt) || errors.Is(err, compress.ErrLimit) || errors.Is(err, compress.ErrUnsupported) {
		return fmt.Errorf("the content of blob %s: %w: %w", desc.Digest, layout.ErrInvalid, err)
	}
	return err
}

// A sizedReader wants as many bytes as were promised.
type sizedReader struct {
	io.ReadCloser
	desc ocispec.Descriptor
	left int64
}

func (r *sizedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if r.left -= int64(n); r.left < 0 || r.left > 0 && errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("the content of blob %s: %w: it has another size than the delta says", r.desc.Digest, layout.ErrInvalid)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = contentError(r.desc, err)
	}
	return n, err
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
