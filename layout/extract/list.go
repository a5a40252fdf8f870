package extract

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/internal/layertar"
)

// ErrNoArchive reports a layer that is no archive which [Extract] would unpack.
var ErrNoArchive = errors.New("no archive")

// ClaimsArchive tells whether a media type says that its content is a tar
// archive. Others may hold one too: the content decides.
func ClaimsArchive(mediaType string) bool { return layertar.MediaType(mediaType).Archive }

// List yields the headers of the archive in the layer desc, in its order, under
// the limits of [Extract]. Names are as the archive has them, and not judged.
// A layer that is no archive gives [ErrNoArchive], one that is broken or passes
// a limit [layout.ErrInvalid].
//
// Only a sequence that ends without an error has verified anything: the layer is
// hashed while it is read, and content that is not desc's is
// [layout.ErrMismatch] at the end. Ending ctx ends reads.
func List(ctx context.Context, src layout.Source, desc ocispec.Descriptor) iter.Seq2[*tar.Header, error] {
	return func(yield func(*tar.Header, error) bool) {
		r, err := layertar.Open(ctx, src, desc, nil)
		if err != nil {
			yield(nil, err)
			return
		}
		defer r.Close() //nolint:errcheck // only read
		if !r.IsArchive() {
			yield(nil, fmt.Errorf("%s: %w: media type %q", desc.Digest, ErrNoArchive, desc.MediaType))
			return
		}
		for {
			h, err := r.Next()
			switch {
			case errors.Is(err, io.EOF):
				return
			case err != nil:
				yield(nil, err)
				return
			case !yield(h, nil):
				return
			}
		}
	}
}
