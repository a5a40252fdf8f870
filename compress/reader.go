package compress

import (
	"bufio"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
)

// The default limits of a reader.
const (
	// MaxWindow is the largest window of zstd, or dictionary of xz, that is
	// decoded. It is the limit of "zstd -d" and what "zstd --ultra -22" needs;
	// "xz -9" needs half of it.
	MaxWindow = 128 << 20 // 128 MiB

	// DefaultMaxBytes is how many bytes a reader gives by default.
	DefaultMaxBytes = 64 << 30 // 64 GiB

	// DefaultMaxRatio is how many times larger than its input the output may be
	// by default, beyond the first RatioFloor bytes.
	DefaultMaxRatio = 1000

	// RatioFloor is how many bytes come out before the ratio is looked at.
	RatioFloor = 1 << 30 // 1 GiB
)

// ReaderOptions changes what [NewReaderOptions] accepts. Nil is the zero value.
type ReaderOptions struct {
	// MaxBytes is the most bytes that may come out. Zero means
	// [DefaultMaxBytes], a negative number no limit.
	MaxBytes int64

	// MaxRatio is how many times larger than the bytes read the output may be
	// once [RatioFloor] bytes came out. Zero means [DefaultMaxRatio], a negative
	// number no limit. It does not apply to None.
	MaxRatio int64

	// OneMember refuses data after the first member of a gzip stream. RFC 1952,
	// section 2.2, lets members follow each other, and layers use that
	// (eStargz), so it is off by default. Frames of zstd may follow each other
	// in any case, for [NewWriter], pzstd and zstd:chunked write one per chunk,
	// and so may streams of xz and bzip2.
	OneMember bool
}

// NewReader returns a reader of what r holds in format f, under the default
// limits. It is NewReaderOptions with nil options.
func NewReader(r io.Reader, f Format) (io.ReadCloser, error) {
	return NewReaderOptions(r, f, nil)
}

// NewReaderOptions returns a reader of what r holds in format f; with None that
// is r itself. An io.EOF from it means that the checksums of the stream were
// right and that r was read to its end, so a reader below it that verifies a
// digest has done so. [ErrCorrupt] reports damage, [ErrLimit] a limit, and an
// error of r comes through as it is. A format that is not read is
// [ErrUnsupported].
//
// Decoding uses no goroutine. Close frees the decoder and does not close r.
func NewReaderOptions(r io.Reader, f Format, opts *ReaderOptions) (io.ReadCloser, error) {
	return newReader(r, f, opts, RatioFloor)
}

// newReader has the floor as a parameter so that its test need not unpack 1 GiB.
func newReader(r io.Reader, f Format, opts *ReaderOptions, floor int64) (io.ReadCloser, error) {
	if opts == nil {
		opts = &ReaderOptions{}
	}
	d := &reader{
		src:      &source{r: r},
		format:   f,
		floor:    floor,
		maxBytes: orDefault(opts.MaxBytes, DefaultMaxBytes),
		maxRatio: orDefault(opts.MaxRatio, DefaultMaxRatio),
	}
	switch f {
	case None:
		d.r, d.maxRatio = d.src, -1
	case Gzip:
		// gzip.Reader reads byte-wise through br, so br stands exactly behind a
		// member when that ends.
		br := bufio.NewReaderSize(d.src, 64<<10)
		gz, err := gzip.NewReader(br)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // an empty file is not an empty gzip stream
		}
		if err != nil {
			return nil, d.explain(err)
		}
		gz.Multistream(!opts.OneMember)
		if opts.OneMember {
			d.tail = br
		}
		d.r, d.close = gz, gz.Close
	case Zstd:
		br := bufio.NewReaderSize(d.src, 64<<10)
		if _, err := br.Peek(1); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF // the decoder takes no frame for an empty stream
			}
			return nil, d.explain(err)
		}
		zr, err := zstd.NewReader(br,
			zstd.WithDecoderConcurrency(1), // no goroutines, no read-ahead
			zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(MaxWindow))
		if err != nil {
			return nil, d.explain(err)
		}
		d.r, d.close = zr, func() error { zr.Close(); return nil }
	case Xz:
		zr, err := xz.NewReader(d.src, MaxWindow)
		if err != nil {
			return nil, d.explain(err)
		}
		d.r = zr
	case Bzip2:
		d.r = bzip2.NewReader(d.src)
	default:
		return nil, fmt.Errorf("%w: %s", ErrUnsupported, f)
	}
	return d, nil
}

func orDefault(n, def int64) int64 {
	if n == 0 {
		return def
	}
	return n
}

// source counts what a decoder takes from r and remembers how r failed, so that
// an error of r is not mistaken for damage of the stream.
type source struct {
	r   io.Reader
	n   int64
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// reader puts the limits around a decoder.
type reader struct {
	src                *source
	r                  io.Reader
	tail               *bufio.Reader // must be at its end when r is, if not nil
	close              func() error  // of the decoder; may be nil
	format             Format
	n                  int64 // bytes given
	floor              int64 // see RatioFloor
	maxBytes, maxRatio int64 // negative: none
	err                error // sticky
}

func (d *reader) Read(p []byte) (int, error) {
	if d.err != nil || len(p) == 0 {
		return 0, d.err
	}
	if d.maxBytes >= 0 && int64(len(p))-1 > d.maxBytes-d.n {
		p = p[:d.maxBytes-d.n+1] // one more, to see that there is more
	}
	n, err := d.r.Read(p)
	d.n += int64(n)
	switch {
	case d.maxBytes >= 0 && d.n > d.maxBytes:
		n--
		d.err = fmt.Errorf("%w: %s gives more than %d bytes", ErrLimit, d.format, d.maxBytes)
	case d.maxRatio >= 0 && d.n > d.floor && d.n/d.maxRatio > d.src.n:
		d.err = fmt.Errorf("%w: %s gives %d bytes for %d, a ratio above %d:1",
			ErrLimit, d.format, d.n, d.src.n, d.maxRatio)
	case err != nil:
		d.err = d.explain(err)
	}
	return n, d.err
}

// explain says whose fault err is.
func (d *reader) explain(err error) error {
	switch {
	case d.src.err != nil:
		return d.src.err
	case err == io.EOF: //nolint:errorlint // a wrapped EOF is a decoder's complaint
		if d.tail == nil {
			return io.EOF
		}
		if _, err := d.tail.ReadByte(); err == nil {
			return fmt.Errorf("%w: data after the end of the gzip member", ErrCorrupt)
		} else if !errors.Is(err, io.EOF) {
			return err
		}
		return io.EOF
	case d.format == None:
		return err
	case errors.Is(err, xz.ErrMemlimit):
		return fmt.Errorf("%w: xz dictionary above %d MiB", ErrLimit, MaxWindow>>20)
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return fmt.Errorf("%w: zstd window above %d MiB", ErrLimit, MaxWindow>>20)
	}
	return fmt.Errorf("%w: %s: %w", ErrCorrupt, d.format, err)
}

// Close frees the decoder. Reads after it fail.
func (d *reader) Close() error {
	if errors.Is(d.err, errClosed) {
		return nil
	}
	d.err = errClosed
	if d.close == nil {
		return nil
	}
	return d.close()
}

var errClosed = errors.New("read of a closed reader")
