package patch

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/gardenlinux/gloci-layout/compress"
)

const (
	window = 4 << 20 // 4 MiB of the file are at hand
	// sameMin is how many equal bytes are worth a copy where the base goes on as
	// before: it costs three bytes or four.
	sameMin = 16
	// sameReach is how far behind a difference such bytes are looked for.
	sameReach = 4 << 10
)

// Encode writes a patch that makes the size bytes of file of base. The bytes
// depend on the two files only (and on the version of the zstd encoder). A file
// of another size is [io.ErrUnexpectedEOF] or ErrCorrupt.
func Encode(w io.Writer, base io.ReaderAt, baseSize int64, file io.Reader, size int64) error {
	x, err := newIndex(base, baseSize)
	if err != nil {
		return err
	}
	zw, err := compress.NewWriter(w, compress.Zstd, level)
	if err != nil {
		return err
	}
	e := &encoder{index: x, in: file, out: zw, buf: make([]byte, 0, window), side: make([]byte, sameReach+sameMin), chunk: make([]byte, 256<<10)}
	if _, err = zw.Write(appendNumber(appendNumber([]byte(magic), baseSize), size)); err == nil {
		err = e.run()
	}
	if err == nil && e.total != size {
		err = fmt.Errorf("%w: %d bytes, want %d", io.ErrUnexpectedEOF, e.total, size)
	}
	if cerr := zw.Close(); err == nil { // closed in any case: it may have goroutines
		err = cerr
	}
	return err
}

type encoder struct {
	index *index
	in    io.Reader
	out   io.Writer
	end   bool // of in

	buf     []byte // the file; what is before lo is written
	lo, pos int    // between them are literal bytes
	total   int64  // bytes read of the file

	at       int64  // in the base, where a copy with no distance would begin if lo were pos
	ops      []byte // of the group
	n        int
	literals []byte
	side     []byte
	chunk    []byte
}

// fill makes at least n bytes from pos on be there, if the file has them. Literal
// bytes that take too much room are written.
func (e *encoder) fill(n int) error {
	for len(e.buf)-e.pos < n && !e.end {
		if cap(e.buf)-e.pos < n {
			if e.pos-e.lo > MaxLiterals {
				if err := e.literal(); err != nil {
					return err
				}
			}
			e.buf = e.buf[:copy(e.buf, e.buf[e.lo:])]
			e.pos, e.lo = e.pos-e.lo, 0
		}
		k, err := e.in.Read(e.buf[len(e.buf):cap(e.buf)])
		e.buf = e.buf[:len(e.buf)+k]
		e.total += int64(k)
		if errors.Is(err, io.EOF) {
			e.end = true
		} else if err != nil {
			return err
		}
	}
	return nil
}

// run finds copies and literal bytes.
func (e *encoder) run() error {
	for more := true; more; {
		if err := e.fill(len(e.side) + e.index.block); err != nil {
			return err
		}
		var err error
		if more, err = e.next(); err != nil {
			return err
		}
	}
	e.pos = len(e.buf)
	if err := e.literal(); err != nil {
		return err
	}
	return e.flush()
}

// next finds the next copy; false means that there is none.
func (e *encoder) next() (bool, error) {
	size := e.index.block
	same := e.same() // where bytes are the same again
	if len(e.buf)-e.pos < size {
		if same >= 0 {
			e.pos += same
			return true, e.copyFrom(e.at + int64(e.pos-e.lo))
		}
		return false, nil
	}
	h := e.index.hash(e.buf[e.pos : e.pos+size])
	for ; ; same-- {
		if same == 0 {
			return true, e.copyFrom(e.at + int64(e.pos-e.lo))
		}
		if from, ok := e.index.find(h); ok && e.equal(from, e.buf[e.pos:e.pos+size]) {
			return true, e.copyFrom(from)
		}
		if len(e.buf)-e.pos <= size {
			if err := e.fill(window / 4); err != nil {
				return false, err
			}
			if len(e.buf)-e.pos <= size {
				return false, nil
			}
		}
		h = e.index.roll(h, e.buf[e.pos], e.buf[e.pos+size])
		e.pos++
	}
}

// same returns how many bytes from pos on differ before the base goes on as the
// file does, at the place where it is; -1 if that is not near.
func (e *encoder) same() int {
	from := e.at + int64(e.pos-e.lo)
	if from >= e.index.size {
		return -1
	}
	n := min(int64(len(e.side)), e.index.size-from, int64(len(e.buf)-e.pos))
	side := e.side[:n]
	if k, err := e.index.base.ReadAt(side, from); int64(k) < n || err != nil && !errors.Is(err, io.EOF) {
		return -1
	}
	run := 0
	for i, c := range e.buf[e.pos : e.pos+int(n)] {
		if c != side[i] {
			run = 0
		} else if run++; run == sameMin {
			return i + 1 - sameMin
		}
	}
	return -1
}

// equal tells whether the base has b at from.
func (e *encoder) equal(from int64, b []byte) bool {
	have := e.chunk[:len(b)]
	n, _ := e.index.base.ReadAt(have, from) // what it cannot read is not equal
	return n == len(b) && bytes.Equal(have, b)
}

// copyFrom writes a copy from the base, which has at from what stands at pos, as
// long as it can be, and the literal bytes before it.
func (e *encoder) copyFrom(from int64) error {
	// Backwards, into bytes that were taken for literal.
	back := int(min(int64(e.pos-e.lo), from, sameReach))
	side := e.side[:back]
	if n, _ := e.index.base.ReadAt(side, from-int64(back)); n == back { // what it cannot read is not the same
		n = 0
		for n < back && side[back-1-n] == e.buf[e.pos-1-n] {
			n++
		}
		e.pos -= n
		from -= int64(n)
	}
	literals, err := e.takeLiterals()
	if err != nil {
		return err
	}
	var length int64
	for size := 4 << 10; ; size = min(2*size, cap(e.chunk)) {
		if err := e.fill(size); err != nil {
			return err
		}
		b := e.chunk[:min(int64(size), int64(len(e.buf)-e.pos), e.index.size-from-length)]
		n, err := e.index.base.ReadAt(b, from+length)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		n = common(b[:n], e.buf[e.pos:])
		length += int64(n)
		e.pos += n
		e.lo = e.pos
		if n < size {
			return e.op(int64(literals), length, from)
		}
	}
}

// common returns how many bytes both begin with.
func common(a, b []byte) int {
	n := min(len(a), len(b))
	if bytes.Equal(a[:n], b[:n]) {
		return n
	}
	i := 0
	for a[i] == b[i] {
		i++
	}
	return i
}

// takeLiterals puts the literal bytes before pos to those of the group, and
// returns how many they are for the next operation. What one group has no room
// for is written.
func (e *encoder) takeLiterals() (int, error) {
	for {
		n := min(e.pos-e.lo, MaxLiterals)
		if len(e.literals)+n > MaxLiterals {
			if err := e.flush(); err != nil {
				return 0, err
			}
		}
		e.literals = append(e.literals, e.buf[e.lo:e.lo+n]...)
		if e.lo += n; e.lo == e.pos {
			return n, nil
		}
		if err := e.op(int64(n), 0, 0); err != nil {
			return 0, err
		}
	}
}

// literal writes the literal bytes before pos without a copy.
func (e *encoder) literal() error {
	n, err := e.takeLiterals()
	if err == nil && n > 0 {
		err = e.op(int64(n), 0, 0)
	}
	return err
}

// op adds an operation, whose literal bytes were taken, to the group.
func (e *encoder) op(literal, length, from int64) error {
	e.ops = appendNumber(appendNumber(e.ops, literal), length)
	e.at += literal
	if length > 0 {
		e.ops = appendDistance(e.ops, from-e.at)
		e.at = from + length
	}
	if e.n++; e.n == MaxOps {
		return e.flush()
	}
	return nil
}

// flush ends the group.
func (e *encoder) flush() error {
	if e.n == 0 {
		return nil
	}
	_, err := e.out.Write(appendNumber(nil, int64(e.n)))
	if err == nil {
		_, err = e.out.Write(e.ops)
	}
	if err == nil {
		_, err = e.out.Write(e.literals)
	}
	e.n, e.ops, e.literals = 0, e.ops[:0], e.literals[:0]
	return err
}
