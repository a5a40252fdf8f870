package layertar

import (
	"io"
	"sync"
)

// An ahead reads from a reader in a goroutine of its own, a few chunks before
// they are asked for.
type ahead struct {
	r      io.Reader
	full   chan chunk
	free   chan []byte
	quit   chan struct{}
	closed sync.Once
	done   sync.WaitGroup

	cur chunk // what is being read; cur.buf is its whole buffer
	off int
}

type chunk struct {
	buf []byte
	n   int
	err error // after the n bytes
}

const (
	aheadChunks = 4
	aheadSize   = 256 << 10 // 256 KiB
)

// newAhead starts the goroutine, which ends with r or at Close.
func newAhead(r io.Reader) *ahead {
	a := &ahead{r: r, full: make(chan chunk, aheadChunks), free: make(chan []byte, aheadChunks), quit: make(chan struct{})}
	a.done.Go(a.run)
	return a
}

func (a *ahead) run() {
	for made := 0; ; {
		var buf []byte
		select {
		case buf = <-a.free:
		case <-a.quit:
			return
		default:
			if made == aheadChunks {
				select {
				case buf = <-a.free:
				case <-a.quit:
					return
				}
				break
			}
			made++
			buf = make([]byte, aheadSize)
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
func (a *ahead) fill() error {
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

func (a *ahead) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := a.fill(); err != nil {
		return 0, err
	}
	n := copy(p, a.cur.buf[a.off:a.cur.n])
	a.off += n
	return n, nil
}

// WriteTo saves a copy of each chunk (see [io.Copy]).
func (a *ahead) WriteTo(w io.Writer) (total int64, err error) {
	for {
		if err := a.fill(); err != nil {
			if err == io.EOF { //nolint:errorlint // a reader gives io.EOF itself at its end
				err = nil
			}
			return total, err
		}
		n, err := w.Write(a.cur.buf[a.off:a.cur.n])
		a.off += n
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
}

// Close ends the goroutine and waits for it. Reads are not allowed any more.
func (a *ahead) Close() {
	a.closed.Do(func() { close(a.quit) })
	a.done.Wait()
}
