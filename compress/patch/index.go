package patch

import (
	"errors"
	"io"
	"math/bits"
)

const (
	minBlock  = 32      // bytes
	maxBlocks = 1 << 23 // a larger base has larger blocks
	prime     = 0x9E3779B97F4A7C15
)

// An index finds blocks of the base by their hash: the first of those with one
// hash. Its table has room for twice as many, in 4 bytes each: the number of the
// block, and 8 bits of the hash.
type index struct {
	base  io.ReaderAt
	size  int64
	block int
	out   uint64 // the factor of the byte that leaves a block
	shift int
	table []uint32
}

func newIndex(base io.ReaderAt, size int64) (*index, error) {
	x := &index{base: base, size: size, block: minBlock}
	for size/int64(x.block) > maxBlocks {
		x.block *= 2
	}
	x.out = 1
	for range x.block {
		x.out *= prime
	}
	n := bits.Len64(uint64(max(size/int64(x.block), 1))) + 1
	x.shift = 64 - n
	x.table = make([]uint32, 1<<n)
	buf := make([]byte, 1<<20) // a multiple of any block that fits
	if x.block > len(buf) {
		return nil, errors.New("the base is too large")
	}
	for off := int64(0); off < size; off += int64(len(buf)) {
		n, err := base.ReadAt(buf[:min(int64(len(buf)), size-off)], off)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if int64(n) < min(int64(len(buf)), size-off) {
			return nil, io.ErrUnexpectedEOF
		}
		for i := 0; i+x.block <= n; i += x.block {
			x.add(buf[i:i+x.block], (off+int64(i))/int64(x.block))
		}
	}
	return x, nil
}

// add takes a block into the table, unless all its bytes are the same: such a
// block fits everywhere, and is short as it is.
func (x *index) add(b []byte, number int64) {
	if b[0] == b[len(b)-1] && common(b[1:], b) == len(b)-1 {
		return
	}
	at, check := x.slot(x.hash(b))
	if x.table[at] == 0 {
		x.table[at] = check<<24 | uint32(number+1)
	}
}

func (x *index) slot(h uint64) (at uint64, check uint32) {
	h *= 0xD6E8FEB86659FD93
	h ^= h >> 32
	h *= 0xD6E8FEB86659FD93
	return h >> x.shift, uint32(h) & 0xff
}

func (x *index) hash(b []byte) uint64 {
	var h uint64
	for _, c := range b {
		h = h*prime + uint64(c) + 1
	}
	return h
}

// roll returns the hash of a block one byte later.
func (x *index) roll(h uint64, out, in byte) uint64 {
	return h*prime + uint64(in) + 1 - (uint64(out)+1)*x.out
}

// find returns where in the base a block with this hash may be.
func (x *index) find(h uint64) (int64, bool) {
	at, check := x.slot(h)
	entry := x.table[at]
	if entry == 0 || entry>>24 != check {
		return 0, false
	}
	return int64(entry&0xffffff-1) * int64(x.block), true
}
