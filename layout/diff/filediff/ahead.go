package filediff

import "io"

const (
	aheadChunk  = 256 << 10 // 256 KiB
	aheadChunks = 8         // so 2 MiB for each side
)

// An ahead reads from a reader in a goroutine of its own, some chunks before
// they are asked for.
type ahead struct {
	full  chan chunk
	free  chan []byte
	quit  chan struct{}
	done  chan struct{}
	now   chunk // what is left of the chunk in turn
	whole []byte
	taken int64 // bytes given
}

type chunk struct {
	data []byte
	err  error // after data
}

func newAhead(r io.Reader) *ahead {
	a := &ahead{
		full: make(chan chunk, aheadChunks), free: make(chan []byte, aheadChunks),
		quit: make(chan struct{}), done: make(chan struct{}),
	}
	for range aheadChunks {
		a.free <- nil // made when it is first needed
	}
	go a.run(r)
	return a
}

func (a *ahead) run(r io.Reader) {
	defer close(a.done)
	for {
		var buf []byte
		select {
		case <-a.quit:
			return
		case buf = <-a.free:
		}
		if buf == nil {
			buf = make([]byte, aheadChunk)
		}
		c := chunk{}
		n := 0
		for n < len(buf) && c.err == nil {
			var k int
			k, c.err = r.Read(buf[n:])
			n += k
		}
		c.data = buf[:n]
		a.full <- c // there is room for all that exist
		if c.err != nil {
			return
		}
	}
}

func (a *ahead) Read(p []byte) (int, error) {
	for len(a.now.data) == 0 {
		if a.now.err != nil {
			return 0, a.now.err
		}
		if a.whole != nil {
			a.free <- a.whole[:aheadChunk]
			a.whole = nil
		}
		a.now = <-a.full
		a.whole = a.now.data
		if cap(a.whole) < aheadChunk {
			a.whole = nil
		}
	}
	n := copy(p, a.now.data)
	a.now.data = a.now.data[n:]
	a.taken += int64(n)
	return n, nil
}

// stop ends the goroutine and waits for it.
func (a *ahead) stop() {
	close(a.quit)
	<-a.done
}
