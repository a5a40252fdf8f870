package archive

import (
	"context"
	"errors"
	"fmt"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/archive/parts"
)

// PackParts is [PackFile] into parts of partSize bytes of which the last may be
// smaller, and a manifest; see package parts for their names. Together they have
// the bytes that PackFile would write. More than [parts.MaxParts] parts are
// [layout.ErrInvalid], found before anything is written unless the archive is
// compressed. What ends by ctx can be gone on with: the same call compares what
// is there by then, and writes the rest.
func PackParts(ctx context.Context, src layout.Source, file string, partSize int64, opts *PackOptions) (*parts.Manifest, error) {
	var o PackOptions
	if opts != nil {
		o = *opts
	}
	if o.Compression == compress.None {
		o.Compression = compress.FormatOfName(file)
	}
	m, err := packParts(ctx, src, file, partSize, &o)
	if err != nil {
		return nil, fmt.Errorf("pack %s: %w", src, err)
	}
	return m, nil
}

func packParts(ctx context.Context, src layout.Source, file string, partSize int64, o *PackOptions) (_ *parts.Manifest, err error) {
	p, err := makePlan(ctx, src, o)
	if err != nil {
		return nil, err
	}
	w, err := parts.Create(file, partSize)
	if err != nil {
		return nil, errors.Join(err, p.patches.close())
	}
	defer func() {
		goOn := err != nil && ctx.Err() != nil
		if goOn {
			err = layout.WithHint(err, "the same command goes on where this one was interrupted; "+w.Work()+" has what is written so far")
		}
		err = errors.Join(err, w.Close(goOn), p.patches.close())
	}()
	if o.Compression == compress.None {
		if err := parts.Expect(p.size(), partSize); err != nil {
			return nil, err
		}
	}
	if err := p.compressed(ctx, src, w, o); err != nil {
		return nil, err
	}
	return w.Commit(ctx)
}
