package compress

import (
	"bytes"
	"errors"
	"io"
	"sync"
)

// A Comparer is a writer that compares what it is given with a file. It takes
// all, and compares no more once there was a difference.
type Comparer struct {
	want io.ReaderAt
	size int64

	mu      sync.Mutex // writers of this package write beside their caller
	n       int64      // bytes that are the same, from the beginning
	differs bool
	err     error
	buf     []byte
}

// NewComparer returns a comparer with the size bytes of want.
func NewComparer(want io.ReaderAt, size int64) *Comparer {
	return &Comparer{want: want, size: size, buf: make([]byte, 64<<10)}
}

// Write compares p with what comes next.
func (c *Comparer) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for rest := p; len(rest) > 0 && !c.differs && c.err == nil; {
		have := c.buf[:min(len(c.buf), len(rest))]
		if left := c.size - c.n; int64(len(have)) > left {
			have = have[:left]
		}
		if len(have) == 0 {
			c.differs = true
			break
		}
		n, err := c.want.ReadAt(have, c.n)
		if n < len(have) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			c.err = err
			break
		}
		if !bytes.Equal(have, rest[:n]) {
			c.differs = true
			n = 0
			for have[n] == rest[n] {
				n++
			}
		}
		c.n += int64(n)
		rest = rest[n:]
	}
	return len(p), nil
}

// Same tells whether there was no difference so far.
func (c *Comparer) Same() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.differs && c.err == nil
}

// Complete tells whether all of the file was written, and nothing else.
func (c *Comparer) Complete() bool {
	return c.Same() && c.n == c.size
}

// Err returns how reading the file failed.
func (c *Comparer) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}
