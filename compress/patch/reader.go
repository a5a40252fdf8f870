package patch

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/gardenlinux/gloci-layout/compress"
)

// A Reader makes a file of its base and a patch.
type Reader struct {
	in   *bufio.Reader
	zr   io.Closer
	base io.ReaderAt

	baseSize int64
	left     int64 // bytes that are still to be made
	at       int64 // in the base, where a copy with no distance would begin
	ops      []op  // of the group, what is left of it
	err      error
}

// An op is literal bytes and a copy.
type op struct {
	literal, length int64
	distance        int64
}

// NewReader returns a reader of the size bytes that r, a patch, makes of base. It
// reads no more of r than it needs, allocates nothing by what r says, and gives
// never more than size bytes; what is no patch for a base and a file of these
// sizes is [ErrCorrupt]. A zstd checksum protects the patch; whether base is the
// right one, only a digest of what is made can tell. Close ends it, and closes
// neither r nor base.
func NewReader(r io.Reader, base io.ReaderAt, baseSize, size int64) (*Reader, error) {
	zr, err := compress.NewReader(r, compress.Zstd)
	if err != nil {
		return nil, err
	}
	p := &Reader{in: bufio.NewReaderSize(zr, 64<<10), zr: zr, base: base, baseSize: baseSize, left: size}
	if err := p.header(); err != nil {
		return nil, errors.Join(err, zr.Close())
	}
	return p, nil
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, args...)...)
}

// early makes the end of the stream an error.
func early(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return corrupt("it ends early")
	}
	return err
}

func (p *Reader) header() error {
	var head [len(magic)]byte
	if _, err := io.ReadFull(p.in, head[:]); err != nil {
		return early(err)
	}
	if string(head[:]) != magic {
		return corrupt("it begins with %q", head)
	}
	for _, want := range []int64{p.baseSize, p.left} {
		n, err := p.number(1 << 62)
		if err != nil {
			return err
		}
		if n != want {
			return corrupt("it is for %d bytes, not %d", n, want)
		}
	}
	return nil
}

// number reads a uvarint of at most limit, in its shortest form.
func (p *Reader) number(limit int64) (int64, error) {
	var n uint64
	for i := 0; ; i++ {
		b, err := p.in.ReadByte()
		if err != nil {
			return 0, early(err)
		}
		if i == 9 || i > 0 && b == 0 {
			return 0, corrupt("a number is not in its shortest form")
		}
		n |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			break
		}
	}
	if n > uint64(limit) {
		return 0, corrupt("%d, where at most %d may be", n, limit)
	}
	return int64(n), nil
}

// group reads the operations of the next group, and checks them all.
func (p *Reader) group() error {
	n, err := p.number(MaxOps)
	if err != nil {
		return err
	}
	if n == 0 {
		return corrupt("a group of nothing")
	}
	p.ops = p.ops[:0]
	left, literals, at := p.left, int64(MaxLiterals), p.at
	for range n {
		var o op
		if o.literal, err = p.number(min(left, literals)); err != nil {
			return err
		}
		left, literals, at = left-o.literal, literals-o.literal, at+o.literal
		if o.length, err = p.number(left); err != nil {
			return err
		}
		left -= o.length
		switch {
		case o.length > 0:
			z, err := p.number(1 << 62)
			if err != nil {
				return err
			}
			o.distance = int64(uint64(z)>>1) ^ -(z & 1)
			at += o.distance
			if at < 0 || at > p.baseSize || o.length > p.baseSize-at {
				return corrupt("a copy of %d bytes from %d of %d", o.length, at, p.baseSize)
			}
			at += o.length
		case o.literal == 0:
			return corrupt("an operation of nothing")
		}
		p.ops = append(p.ops, o)
	}
	return nil
}

// Read gives the next bytes.
func (p *Reader) Read(b []byte) (int, error) {
	if p.err != nil || len(b) == 0 {
		return 0, p.err
	}
	n, err := p.read(b)
	p.left -= int64(n)
	p.err = err
	return n, err
}

func (p *Reader) read(b []byte) (int, error) {
	for len(p.ops) == 0 {
		if p.left == 0 {
			if _, err := p.in.ReadByte(); err == nil {
				return 0, corrupt("it goes on after its end")
			} else if !errors.Is(err, io.EOF) {
				return 0, err
			}
			return 0, io.EOF
		}
		if err := p.group(); err != nil {
			return 0, err
		}
	}
	o := &p.ops[0]
	var n int
	var err error
	if o.literal > 0 {
		n, err = p.in.Read(b[:min(int64(len(b)), o.literal)])
		o.literal -= int64(n)
		p.at += int64(n)
		err = early(err)
	} else if o.length > 0 {
		p.at += o.distance
		o.distance = 0
		n, err = p.base.ReadAt(b[:min(int64(len(b)), o.length)], p.at)
		o.length -= int64(n)
		p.at += int64(n)
		switch {
		case n > 0 && errors.Is(err, io.EOF):
			err = nil
		case errors.Is(err, io.EOF):
			err = fmt.Errorf("the base ends early: %w", io.ErrUnexpectedEOF)
		}
	}
	if o.literal == 0 && o.length == 0 {
		p.ops = p.ops[1:]
	}
	return n, err
}

// Close frees the decoder.
func (p *Reader) Close() error { return p.zr.Close() }

// appendNumber and appendDistance write what number and group read.
func appendNumber(b []byte, n int64) []byte   { return binary.AppendUvarint(b, uint64(n)) }
func appendDistance(b []byte, n int64) []byte { return binary.AppendVarint(b, n) }
