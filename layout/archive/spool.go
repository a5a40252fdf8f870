package archive

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/internal/tempfile"
	"github.com/gardenlinux/gloci-layout/layout"
)

const spoolBuffer = 1 << 20 // 1 MiB

// spoolReader copies what r holds to a temporary file, decompressed.
func spoolReader(ctx context.Context, r io.Reader, opts *Options) (*os.File, error) {
	br := bufio.NewReaderSize(r, spoolBuffer)
	prefix, err := br.Peek(compress.DetectLen)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return spool(ctx, br, compress.Detect(prefix), opts)
}

// spool copies what r holds in format to a temporary file without a name, under
// the limits of opts.
func spool(ctx context.Context, r io.Reader, format compress.Format, opts *Options) (*os.File, error) {
	if opts == nil {
		opts = &Options{}
	}
	// One archive, so one member; what may stand behind the archive inside of
	// the stream is the scanner's to refuse.
	dec, err := compress.NewReaderOptions(r, format, &compress.ReaderOptions{MaxBytes: opts.MaxSize, OneMember: true})
	if err != nil {
		return nil, invalid(err)
	}
	defer dec.Close() //nolint:errcheck // it only frees the decoder
	f, err := tempfile.New(opts.TempDir)
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	if err := copyTo(ctx, f, dec); err != nil {
		return nil, errors.Join(invalid(err), f.Close())
	}
	return f, nil
}

func copyTo(ctx context.Context, f *os.File, r io.Reader) error {
	w := bufio.NewWriterSize(f, spoolBuffer)
	buf := make([]byte, 64<<10)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := r.Read(buf)
		if _, werr := w.Write(buf[:n]); werr != nil {
			return fmt.Errorf("decompress: %w", werr)
		}
		if err == io.EOF { // itself: a wrapped one is an error
			if err := w.Flush(); err != nil {
				return fmt.Errorf("decompress: %w", err)
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// invalid marks what is the fault of the archive.
func invalid(err error) error {
	switch {
	case errors.Is(err, compress.ErrUnsupported):
		return layout.WithHint(fmt.Errorf("%w archive: %w", layout.ErrInvalid, err), "decompress it first, or compress it with gzip or zstd")
	case errors.Is(err, compress.ErrCorrupt), errors.Is(err, compress.ErrLimit):
		return fmt.Errorf("%w archive: %w", layout.ErrInvalid, err)
	}
	return err
}
