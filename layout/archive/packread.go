package archive

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// reader makes the bytes of an archive.
type reader struct {
	ctx   context.Context //nolint:containedctx // lives as long as one call of write
	free  <-chan []byte
	out   chan<- chunk
	mtime time.Time
	at    int // number of the blob that is read; -1 before the first

	placed *placed // nil: every blob is read here
}

func (r *reader) buffer() ([]byte, error) {
	if r.ctx.Err() != nil {
		return nil, context.Cause(r.ctx)
	}
	select {
	case b := <-r.free:
		return b, nil
	case <-r.ctx.Done():
		return nil, context.Cause(r.ctx)
	}
}

// bytes sends what add appends to an empty buffer, less than a chunk.
func (r *reader) bytes(desc *ocispec.Descriptor, kind string, add func(b []byte) []byte) error {
	buf, err := r.buffer()
	if err != nil {
		return err
	}
	r.out <- chunk{buf: buf, n: len(add(buf[:0])), at: r.at, desc: desc, kind: kind}
	return nil
}

func (r *reader) archive(src layout.Source, p *plan) error {
	if err := r.file(ocispec.ImageLayoutFile, []byte(marker)); err != nil {
		return err
	}
	if err := r.file(ocispec.ImageIndexFile, p.index); err != nil {
		return err
	}
	if p.docker != nil {
		if err := r.file(dockerFile, p.docker); err != nil {
			return err
		}
	}
	if err := r.delta(p); err != nil {
		return err
	}
	if err := r.dir(blobsDir); err != nil {
		return err
	}
	var in digest.Algorithm // whose directory was written last
	for i, desc := range p.blobs {
		r.at = i
		if a := desc.Digest.Algorithm(); a != in {
			if err := r.dir(blobsDir + string(a) + "/"); err != nil {
				return err
			}
			in = a
		}
		if err := r.blob(src, desc); err != nil {
			return err
		}
	}
	if in == "" {
		// An empty layout has the directory all the same, as one that was
		// just created.
		if err := r.dir(blobsDir + "sha256/"); err != nil {
			return err
		}
	}
	return r.bytes(nil, "", func(b []byte) []byte { return append(b, make([]byte, 2*blockSize)...) })
}

func (r *reader) dir(name string) error {
	return r.bytes(nil, "", func(b []byte) []byte { return appendHeader(b, name, 0, typeDir, r.mtime) })
}

func (r *reader) file(name string, data []byte) error {
	size := int64(len(data))
	err := r.bytes(nil, "", func(b []byte) []byte { return appendHeader(b, name, size, typeRegular, r.mtime) })
	for err == nil && len(data) > 0 {
		part := data[:min(len(data), packChunk)]
		data = data[len(part):]
		err = r.bytes(nil, "", func(b []byte) []byte { return append(b, part...) })
	}
	if err != nil {
		return err
	}
	return r.pad(nil, size)
}

func (r *reader) pad(desc *ocispec.Descriptor, size int64) error {
	return r.bytes(desc, "done", func(b []byte) []byte { return append(b, make([]byte, padding(size))...) })
}

func (r *reader) blob(src layout.Source, desc ocispec.Descriptor) error {
	if r.placed.has(r.at) {
		return r.leaveOut(desc)
	}
	if r.placed.late(r.at) {
		return errElsewhere
	}
	rc, verified, err := openBlob(r.ctx, src, desc)
	if err != nil {
		return err
	}
	defer rc.Close() //nolint:errcheck // only read
	err = r.bytes(&desc, "start", r.header(desc))
	if err != nil {
		return err
	}
	for {
		buf, err := r.buffer()
		if err != nil {
			return err
		}
		n, eof, err := fill(rc, buf)
		if err != nil {
			return copyError(desc, verified, err)
		}
		r.out <- chunk{buf: buf, n: n, at: r.at, desc: &desc, kind: "bytes", hash: !verified, last: eof}
		if eof {
			return r.pad(&desc, desc.Size)
		}
	}
}

func (r *reader) header(desc ocispec.Descriptor) func(b []byte) []byte {
	return func(b []byte) []byte {
		return appendHeader(b, layout.BlobPath(desc.Digest), desc.Size, typeRegular, r.mtime)
	}
}

// leaveOut sends what stands around a blob that others write.
func (r *reader) leaveOut(desc ocispec.Descriptor) error {
	buf, err := r.buffer()
	if err != nil {
		return err
	}
	r.out <- chunk{buf: buf, n: len(r.header(desc)(buf[:0])), at: r.at, skip: desc.Size}
	return r.pad(nil, desc.Size)
}

// copyError says of which blob err is, unless who verified it did.
func copyError(desc ocispec.Descriptor, verified bool, err error) error {
	if verified {
		return err
	}
	return &layout.BlobError{Op: "copy", Desc: desc, Err: err}
}

// openBlob opens desc where its bytes lie, if src can tell that, so that
// another goroutine may verify them; else as src verifies them.
func openBlob(ctx context.Context, src layout.Source, desc ocispec.Descriptor) (rc io.ReadCloser, verified bool, err error) {
	sectioner, ok := src.(layout.Sectioner)
	if !ok || desc.Data != nil {
		rc, err = src.Blob(ctx, desc)
		return rc, true, err
	}
	f, off, size, err := sectioner.Section(ctx, desc.Digest)
	if errors.Is(err, errors.ErrUnsupported) {
		rc, err = src.Blob(ctx, desc)
		return rc, true, err
	}
	if err != nil {
		return nil, false, err
	}
	if size != desc.Size {
		return nil, false, errors.Join(mismatch(desc, "%d bytes, want %d", size, desc.Size), f.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, off, size), f}, false, nil
}

// fill reads until buf is full or rc is at its end.
func fill(rc io.Reader, buf []byte) (n int, eof bool, err error) {
	for n < len(buf) {
		k, err := rc.Read(buf[n:])
		n += k
		if err == io.EOF { // itself: a wrapped one is an error
			return n, true, nil
		}
		if err != nil {
			return n, false, err
		}
	}
	return n, false, nil
}
