package content

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

	"github.com/gardenlinux/gloci-layout/layout"
)

// Index returns the index.json of the snapshot.
func (f frozen) Index(ctx context.Context) (*layout.Index, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	x, err := layout.ParseIndex(slices.Clone(f.index))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.src, err)
	}
	return x, nil
}

// Blob opens content of the source, verified while it is read.
func (f frozen) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	return f.src.Blob(ctx, desc)
}

// Blobs lists what the source has now.
func (f frozen) Blobs(ctx context.Context) iter.Seq2[layout.BlobInfo, error] { return f.src.Blobs(ctx) }

// Stat returns what is stored now.
func (f frozen) Stat(ctx context.Context, d digest.Digest) (layout.BlobInfo, error) {
	return f.src.Stat(ctx, d)
}

// Section returns the part of a file that is the blob d, if the source can.
func (f frozen) Section(ctx context.Context, d digest.Digest) (*os.File, int64, int64, error) {
	if s, ok := f.src.(layout.Sectioner); ok {
		return s.Section(ctx, d)
	}
	return nil, 0, 0, fmt.Errorf("%s: blob %s: %w", f.src, d, errors.ErrUnsupported)
}

// String names the source.
func (f frozen) String() string { return f.src.String() }

// Close does nothing: the server closes the source.
func (f frozen) Close() error { return nil }

var (
	_ layout.Source    = frozen{}
	_ layout.Sectioner = frozen{}
)
