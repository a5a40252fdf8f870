// Package readahead reads in a goroutine of its own, so that what makes the bytes
// and what takes them have a processor each.
package readahead

import (
	"io"
	"sync"
)

// chunkSize is how many bytes are handed on at once.
const chunkSize = 256 << 10 // 256 KiB

// A Reader reads from another one a few chunks before they are asked for.
type Reader struct {
	r      io.Reader
	full   chan chunk
	free   chan []byte
	quit   chan struct{}
	closed sync.Once
	done   sync.WaitGroup

	cur   chunk // what is being read; cur.buf is its whole buffer
	off   int
	taken int64
}

type chunk struct {
	buf []byte
	n   int
	err error // after the n bytes
}

// New starts the goroutine, which ends with r or at Close. At most so many chunks
// of 256 KiB are in memory.
func New(r io.Reader, chunks int) *Reader {
	a := &Reader{r: r, full: make(chan chunk, chunks), free: make(chan []byte, chunks), quit: make(chan struct{})}
	a.done.Go(a.run)
	return a
}

func (a *Reader) run() {
	for made := 0; ; {
		var buf []byte
		select {
		case buf = <-a.free:
		case <-a.quit:
			return
		default:
			if made == cap(a.full) {
				select {
				case buf = <-a.free:
				case <-a.quit:
					return
				}
				break
			}
			made++
			buf = make([]byte, chunkSize)
		}
		c := chunk{buf: buf}
		for c.n < len(buf) && c.err == nil {
			var n int
			n, c.err = a.r.Read(buf[c.n:])
			c.n += n
		}
		select {
		case a.full <- c:
		case <-a.quit:
			return
		}
		if c.err != nil {
			return
		}
	}
}

// fill makes sure that there are bytes to give, or an error.
func (a *Reader) fill() error {
	for a.off == a.cur.n {
		if a.cur.err != nil {
			return a.cur.err
		}
		if a.cur.buf != nil {
			a.free <- a.cur.buf // has room for all there are
		}
		a.cur, a.off = <-a.full, 0
	}
	return nil
}

func (a *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := a.fill(); err != nil {
		return 0, err
	}
	n := copy(p, a.cur.buf[a.off:a.cur.n])
	a.off += n
	a.taken += int64(n)
	return n, nil
}

// WriteTo saves a copy of each chunk (see [io.Copy]).
func (a *Reader) WriteTo(w io.Writer) (total int64, err error) {
	for {
		if err := a.fill(); err != nil {
			if err == io.EOF { //nolint:errorlint // a reader gives io.EOF itself at its end
				err = nil
			}
			return total, err
		}
		n, err := w.Write(a.cur.buf[a.off:a.cur.n])
		a.off += n
		a.taken += int64(n)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
}

// Taken is how many bytes were given.
func (a *Reader) Taken() int64 { return a.taken }

// Close ends the goroutine and waits for it. Reads are not allowed any more. The
// reader below is left as it is; it may have been read beyond what was given.
func (a *Reader) Close() {
	a.closed.Do(func() { close(a.quit) })
	a.done.Wait()
}
