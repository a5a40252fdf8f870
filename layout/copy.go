package layout

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/gardenlinux/gloci-layout/layout/internal/durable"
)

const (
	// copyBuffer is what one read takes; larger gains nothing.
	copyBuffer = 256 << 10 // 256 KiB
	// smallCopy is the size of the largest file that one goroutine copies and
	// hashes: two would wait for each other longer than they gain, and beside it
	// other files are copied.
	smallCopy = 8 << 20 // 8 MiB
	// copyChunk is what the copying half may be ahead of the hashing half, so
	// that the bytes are still in the cache.
	copyChunk = 4 << 20 // 4 MiB
	// writeBehind is how much is written between two hints to the kernel.
	writeBehind = 32 << 20 // 32 MiB
	// smallFetch is the size up to which a blob counts among
	// CopyOptions.SmallJobs.
	smallFetch = 64 << 10 // 64 KiB
)

var buffers = sync.Pool{New: func() any {
	buf := make([]byte, copyBuffer)
	return &buf
}}

// borrowBuffer returns a buffer, and what gives it back.
func borrowBuffer() (buf []byte, done func()) {
	p, ok := buffers.Get().(*[]byte)
	if !ok {
		return make([]byte, copyBuffer), func() {}
	}
	return *p, func() { buffers.Put(p) }
}

// copyHashing copies r to f and hashes on the way, in one goroutine: what r
// gives is mostly made by another already. h may be nil; copied, which is told
// of bytes, too.
func copyHashing(ctx context.Context, f *os.File, r io.Reader, h hash.Hash, copied func(n int64)) (n int64, err error) {
	buf, done := borrowBuffer()
	defer done()
	hinted := int64(0)
	for {
		if ctx.Err() != nil {
			return n, context.Cause(ctx)
		}
		k, rerr := r.Read(buf)
		if k > 0 {
			if h != nil {
				h.Write(buf[:k])
			}
			if _, err := f.Write(buf[:k]); err != nil {
				return n, err
			}
			n += int64(k)
			if copied != nil {
				copied(int64(k))
			}
			if n-hinted >= writeBehind {
				durable.WriteBehind(f, hinted, n-hinted)
				hinted = n
			}
		}
		if errors.Is(rerr, io.EOF) {
			return n, nil
		}
		if rerr != nil {
			return n, rerr
		}
	}
}

// A section is a part of a file: size bytes from off on, or all of it, however
// long it is by then.
type section struct {
	off, size int64
	toEnd     bool
}

// copySection copies a section of from to the empty file temp. The copy is made
// by the kernel, and the bytes are hashed as they stand in the copy, at the same
// time: whatever happens to from meanwhile, the digest is that of what was
// stored. hashed, which may be nil, is told of bytes.
func copySection(ctx context.Context, temp, from *os.File, part section, h hash.Hash, hashed func(n int64)) (int64, error) {
	off, size, toEnd := part.off, part.size, part.toEnd
	if off == 0 && toEnd && durable.Clone(temp, from) {
		return hashFile(ctx, temp, h, nil, hashed)
	}
	if size <= smallCopy {
		n := size
		if toEnd {
			n = math.MaxInt64 - off
		}
		return copyHashing(ctx, temp, io.NewSectionReader(from, off, n), h, hashed)
	}
	if _, err := from.Seek(off, io.SeekStart); err != nil {
		return 0, err
	}
	copied := make(chan int64, 64) // how far the copy has come
	var g errgroup.Group
	g.Go(func() error {
		defer close(copied)
		var n, hinted int64
		for toEnd || n < size {
			want := int64(copyChunk)
			if !toEnd {
				want = min(want, size-n)
			}
			k, err := io.CopyN(temp, from, want)
			// The position tells what was written. CopyN forgets what
			// copy_file_range has copied before it failed with EIO, and ends
			// with io.EOF then.
			if at, serr := temp.Seek(0, io.SeekCurrent); serr == nil {
				k = at - n
			} else if err == nil {
				err = serr
			}
			n += k
			if k > 0 {
				select {
				case copied <- n:
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
			if n-hinted >= writeBehind {
				durable.WriteBehind(temp, hinted, n-hinted)
				hinted = n
			}
			if errors.Is(err, io.EOF) {
				if k > 0 {
					continue // the next round tells whether it is the end
				}
				if !toEnd {
					return io.ErrUnexpectedEOF
				}
				return nil
			}
			if err != nil {
				return err
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
		return nil
	})
	n, err := hashFile(ctx, temp, h, copied, hashed)
	if err != nil {
		for range copied { // let the copying half end
		}
	}
	return n, errors.Join(err, g.Wait())
}

// hashFile hashes f from its beginning: up to where copied says, as it says it,
// or to the end if copied is nil.
func hashFile(ctx context.Context, f *os.File, h hash.Hash, copied <-chan int64, hashed func(n int64)) (int64, error) {
	buf, done := borrowBuffer()
	defer done()
	var n int64
	hashTo := func(end int64) error {
		for end < 0 || n < end {
			want := len(buf)
			if end >= 0 {
				want = int(min(int64(want), end-n))
			}
			k, err := f.ReadAt(buf[:want], n)
			h.Write(buf[:k])
			n += int64(k)
			if hashed != nil {
				hashed(int64(k))
			}
			if errors.Is(err, io.EOF) {
				if end < 0 {
					return nil
				}
				if n < end {
					return io.ErrUnexpectedEOF
				}
			} else if err != nil {
				return err
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
		return nil
	}
	if copied == nil {
		return n, hashTo(-1)
	}
	for end := range copied {
		if err := hashTo(end); err != nil {
			return n, err
		}
	}
	return n, nil
}

// copyFrom stages desc from a part of a file.
func (s *Stage) copyFrom(ctx context.Context, f *os.File, off, size int64, desc ocispec.Descriptor, copied func(n int64)) error {
	err := s.create(func(temp *os.File) (digest.Digest, int64, error) {
		n, err := copyPart(ctx, temp, f, off, size, desc, copied)
		return desc.Digest, n, err
	})
	if err != nil {
		return &BlobError{Op: "copy", Desc: desc, Err: err}
	}
	return nil
}

// copyPart copies a part of from to the empty file temp and tells whether it is
// the content of desc.
func copyPart(ctx context.Context, temp, from *os.File, off, size int64, desc ocispec.Descriptor, copied func(n int64)) (int64, error) {
	if size != desc.Size {
		return 0, fmt.Errorf("%w: %d bytes, want %d", ErrMismatch, size, desc.Size)
	}
	digester := desc.Digest.Algorithm().Digester()
	whole := false
	if info, err := from.Stat(); err == nil {
		whole = off == 0 && info.Size() == size
	}
	n, err := copySection(ctx, temp, from, section{off, size, whole}, digester.Hash(), copied)
	if err == nil && (n != size || digester.Digest() != desc.Digest) {
		err = fmt.Errorf("%w: the bytes hash to %s", ErrMismatch, digester.Digest())
	}
	return n, err
}

// CopyBlob writes the content of desc to f, an empty file, and verifies it: after
// an error f holds nothing of worth. Blocks are shared where the file system can
// do that. copied, which may be nil, is told of bytes. What is on the disk by
// then is the caller's to sync. Errors are those of [Source].
func CopyBlob(ctx context.Context, src Source, desc ocispec.Descriptor, f *os.File, copied func(n int64)) error {
	if _, err := ParseDigest(string(desc.Digest)); err != nil {
		return err
	}
	err := copyBlob(ctx, src, desc, f, copied)
	var named *BlobError
	if err != nil && !errors.As(err, &named) {
		err = &BlobError{Op: "copy", Desc: desc, Err: err}
	}
	return err
}

func copyBlob(ctx context.Context, src Source, desc ocispec.Descriptor, f *os.File, copied func(n int64)) error {
	if sectioner, ok := src.(Sectioner); ok && desc.Data == nil {
		from, off, size, err := sectioner.Section(ctx, desc.Digest)
		if err == nil {
			defer from.Close() //nolint:errcheck // only read
			_, err = copyPart(ctx, f, from, off, size, desc, copied)
			return err
		}
		// Unsupported: not every blob of every source is part of a file.
		if !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	rc, err := src.Blob(ctx, desc)
	if err != nil {
		return err
	}
	defer rc.Close() //nolint:errcheck // only read
	_, err = copyHashing(ctx, f, rc, nil, copied)
	return err
}
