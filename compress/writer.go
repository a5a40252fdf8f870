package compress

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"

	"github.com/klauspost/pgzip"
)

// The levels that a level of zero stands for.
const (
	DefaultGzipLevel = 6
	DefaultZstdLevel = 3
)

// gzipBlock is how much input is compressed as one piece. It is part of the
// output: the blocks are what several cores work on, and another size gives
// other bytes.
const gzipBlock = 1 << 20 // 1 MiB

// maxGzipBlocks bounds how many blocks wait in memory (each costs about 3 MiB).
const maxGzipBlocks = 16

// NewWriter returns a writer that compresses to w in format f; with None it
// passes on what it is given. A level of zero is the default. Gzip has the
// levels 1 to 9; zstd has 1 to 22, of which 1-2, 3-5, 6-9 and 10-22 give the
// same bytes each: its encoder has four speeds. A format that is not written, or
// a level that it lacks, is [ErrUnsupported].
//
// The bytes depend on the input, the format, the level and [EncoderOf] only, and
// all cores work on them. The gzip header
// has no name and no time (MTIME 0, "no time stamp is available", RFC 1952,
// section 2.3.1).
//
// One writer takes up to 16 MiB for each core, and 16 MiB more; all writers of
// zstd together up to 256 MiB, and 16 MiB for each.
//
// Close must be called, also after an error: it ends the stream and the
// goroutines that compress. It does not close w. An error of w may be reported by
// a later Write or only by Close, as it is.
func NewWriter(w io.Writer, f Format, level int) (io.WriteCloser, error) {
	switch f {
	case None:
		return nopCloser{w}, nil
	case Gzip:
		if level == 0 {
			level = DefaultGzipLevel
		}
		if level < 1 || level > 9 {
			return nil, fmt.Errorf("%w: gzip has no level %d", ErrUnsupported, level)
		}
		return newGzipWriter(w, level, gzipBlock)
	case Zstd:
		if level == 0 {
			level = DefaultZstdLevel
		}
		if level < 1 || level > 22 {
			return nil, fmt.Errorf("%w: zstd has no level %d", ErrUnsupported, level)
		}
		return newZstdWriter(w, level)
	}
	return nil, fmt.Errorf("%w: %s", ErrUnsupported, f)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// gzipWriter keeps the errors of the output away from pgzip, which leaves a
// goroutine behind when it meets one.
type gzipWriter struct {
	gz     *pgzip.Writer
	out    *latch
	closed bool
}

func newGzipWriter(w io.Writer, level, block int) (*gzipWriter, error) {
	out := &latch{w: w}
	gz, err := pgzip.NewWriterLevel(out, level)
	if err != nil {
		return nil, err
	}
	// The number of blocks in flight does not reach the bytes, their size does.
	if err := gz.SetConcurrency(block, min(runtime.GOMAXPROCS(0), maxGzipBlocks)); err != nil {
		return nil, err
	}
	gz.ModTime = time.Unix(0, 0) // the zero Time would be written as garbage
	return &gzipWriter{gz: gz, out: out}, nil
}

func (g *gzipWriter) Write(p []byte) (int, error) {
	if g.closed {
		return 0, errWriteClosed
	}
	if err := g.out.failure(); err != nil {
		return 0, err
	}
	return g.gz.Write(p)
}

func (g *gzipWriter) Close() error {
	if !g.closed {
		g.closed = true
		if err := g.gz.Close(); err != nil {
			return err
		}
	}
	return g.out.failure()
}

var errWriteClosed = errors.New("write to a closed writer")

// latch passes writes on until one fails, then takes and drops the rest.
type latch struct {
	w   io.Writer
	mu  sync.Mutex
	err error
}

func (l *latch) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *latch) Write(p []byte) (int, error) {
	if l.failure() == nil {
		l.keep(l.pass(p))
	}
	return len(p), nil
}

func (l *latch) pass(p []byte) error {
	n, err := l.w.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return err
}

func (l *latch) keep(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}
