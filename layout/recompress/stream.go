package recompress

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
)

// copyBuffer is what goes from one goroutine to the next at once.
const copyBuffer = 256 << 10 // 256 KiB

// A content is the archive of a layer in the format that is wanted.
type content struct {
	desc   ocispec.Descriptor // digest and size
	diffID digest.Digest
}

// convert stages the archive of layer in format f.
func (r *run) convert(ctx context.Context, s *layout.Stage, layer ocispec.Descriptor, from compress.Format) (c content, err error) {
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}()
	rc, err := r.src.Blob(ctx, layer)
	if err != nil {
		return c, err
	}
	defer rc.Close() //nolint:errcheck // only read
	stored := &watched{r: rc, told: func(n int) { r.event("bytes", layer, int64(n)) }}
	plain, err := compress.NewReader(stored, from)
	if err != nil {
		return c, r.explain(layer, stored, err)
	}
	defer plain.Close() //nolint:errcheck // frees the decoder

	// Reading and uncompressing, hashing and compressing, and writing are done at
	// the same time, in a goroutine each.
	tr, tw := io.Pipe()
	zr, zw := io.Pipe()
	hash := digest.SHA256.Digester()
	var g errgroup.Group
	g.Go(func() error {
		_, err := io.CopyBuffer(struct{ io.Writer }{tw}, struct{ io.Reader }{plain}, make([]byte, copyBuffer))
		if err != nil {
			err = r.explain(layer, stored, err)
		}
		tw.CloseWithError(err)
		return err
	})
	g.Go(func() error {
		z, err := compress.NewWriter(zw, r.opts.Format, r.opts.Level)
		if err == nil {
			_, err = io.CopyBuffer(io.MultiWriter(hash.Hash(), z), tr, make([]byte, copyBuffer))
			if closeErr := z.Close(); err == nil { // closed in any case: it has goroutines
				err = closeErr
			}
		}
		tr.CloseWithError(err)
		zw.CloseWithError(err)
		return err
	})
	c.desc, err = s.Add(ctx, zr, layer.MediaType)
	zr.CloseWithError(err)
	// What the others say comes through Add too, in more words.
	if cause := g.Wait(); cause != nil && (err == nil || errors.Is(err, cause)) {
		err = cause
	}
	c.diffID = hash.Digest()
	return c, err
}

// explain names the layer in what is wrong with its content.
func (r *run) explain(layer ocispec.Descriptor, stored *watched, err error) error {
	var named *layout.BlobError
	if errors.As(err, &named) || stored.err != nil && !errors.Is(stored.err, io.EOF) {
		return err
	}
	// Content that cannot be uncompressed may be damaged, which its digest tells.
	if _, damage := io.Copy(io.Discard, stored); errors.Is(damage, layout.ErrMismatch) {
		return damage
	}
	return &layout.BlobError{Op: "read", Desc: layer, Err: fmt.Errorf("%w content of a %s: %w", layout.ErrInvalid, layer.MediaType, err)}
}

// watched tells of what is read.
type watched struct {
	r    io.Reader
	told func(n int)
	n    int64
	err  error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	w.n += int64(n)
	if n > 0 && w.told != nil {
		w.told(n)
	}
	if err != nil {
		w.err = err
	}
	return n, err
}

// sampleBytes is how much of an archive is compressed for an estimate.
const sampleBytes = 32 << 20 // 32 MiB

// estimate returns about how large the archive of layer is in format f. The
// beginning stands for all of it, which is exact for what is short.
func (r *run) estimate(ctx context.Context, layer ocispec.Descriptor, from compress.Format) (int64, error) {
	rc, err := r.src.Blob(ctx, layer)
	if err != nil {
		return 0, err
	}
	defer rc.Close() //nolint:errcheck // only read
	stored := &watched{r: rc}
	plain, err := compress.NewReader(stored, from)
	if err != nil {
		return 0, r.explain(layer, stored, err)
	}
	defer plain.Close() //nolint:errcheck // frees the decoder
	var out size
	z, err := compress.NewWriter(&out, r.opts.Format, r.opts.Level)
	if err != nil {
		return 0, err
	}
	_, err = io.CopyN(z, plain, sampleBytes)
	ended := errors.Is(err, io.EOF)
	if closeErr := z.Close(); err == nil || ended {
		err = closeErr
	}
	switch {
	case err != nil:
		return 0, r.explain(layer, stored, err)
	case ended || stored.n == 0:
		return int64(out), nil
	}
	return int64(float64(out) * float64(layer.Size) / float64(stored.n)), nil
}

// size counts what is written.
type size int64

func (s *size) Write(p []byte) (int, error) {
	*s += size(len(p))
	return len(p), nil
}
