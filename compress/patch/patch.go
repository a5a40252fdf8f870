// Package patch writes what one file has that another lacks, and makes the one
// of the other again. It takes an [io.ReaderAt] for the base, and knows no OCI
// type. Several files can be a base together ([Join]); a [Chooser] finds those
// that are worth it.
//
// # Format
//
// A patch is a zstd stream of
//
//	magic       8 bytes, "glocidp1"
//	base size   uvarint: the size of the base in bytes
//	size        uvarint: the size of what is made
//	groups      until size bytes are made
//
// A group is a uvarint N, from 1 to [MaxOps], then N operations, then the
// literal bytes of all of them, one after another, at most [MaxLiterals]. An
// operation is two uvarints, the number of literal bytes and the number of bytes
// that are copied from the base, not both zero; and where something is copied a
// signed varint (zigzag, as encoding/binary has it): where in the base, counted from
// the end of the copy before, or the beginning, and the literal bytes since. So a
// file in which bytes were replaced by as many others has zeros there. First come
// the literal bytes of an operation, then its copy. The stream ends with the last
// group.
//
// # Memory
//
// [Encode] has an index of the base of at most 64 MiB and about 30 MiB beside it,
// [NewReader] about 16 MiB, whatever the sizes are. Encode reads the base once to
// index it, and then where it looks for equal bytes; the reader reads it where it
// copies.
package patch

import "errors"

const (
	magic = "glocidp1"

	// MaxOps is how many operations a group may have.
	MaxOps = 1 << 14
	// MaxLiterals is how many literal bytes it may have.
	MaxLiterals = 1 << 20 // 1 MiB
)

// ErrCorrupt reports a patch that is none, or that is for another base or size.
// Damage below that is [compress.ErrCorrupt].
var ErrCorrupt = errors.New("corrupt patch")

// level is that of the zstd stream.
const level = 9
