package compress

import (
	"encoding/binary"
	"fmt"
	"io"
)

// A Frame is one frame of a zstd stream: sizes in bytes.
type Frame struct {
	Compressed, Uncompressed int64
}

// The seekable format of zstd, version 0.1.0 (facebook/zstd,
// contrib/seekable_format): a skippable frame at the end of the stream with two
// numbers for each frame, their count, a descriptor and a magic number.
const (
	seekFrameMagic = 0x184d2a5e
	seekMagic      = 0x8f92eab1
	seekFooter     = 9
	seekHeader     = 8
	seekEntry      = 8
	seekChecksum   = 1 << 7 // of the descriptor: an entry has a checksum, too
	seekReserved   = 0x7c   // of the descriptor: must be zero
	// maxSeekFrames bounds the table that is read.
	maxSeekFrames = 1 << 20
)

type seekTable []Frame

func (t *seekTable) add(compressed, uncompressed int) {
	*t = append(*t, Frame{int64(compressed), int64(uncompressed)})
}

func (t seekTable) bytes() []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, seekFrameMagic)
	b = le.AppendUint32(b, uint32(len(t)*seekEntry+seekFooter)) //nolint:gosec // 2^29 frames are 4 PiB
	for _, f := range t {
		b = le.AppendUint32(b, uint32(f.Compressed))   //nolint:gosec // of at most 8 MiB and a little
		b = le.AppendUint32(b, uint32(f.Uncompressed)) //nolint:gosec // of at most 8 MiB
	}
	b = le.AppendUint32(b, uint32(len(t))) //nolint:gosec // as above
	b = append(b, 0)
	return le.AppendUint32(b, seekMagic)
}

// SeekTable returns the frames of a zstd stream of size bytes, as the seek table
// at its end lists them; each can be decompressed alone. A stream without such a
// table gives nil. A table that contradicts itself or the size is [ErrCorrupt],
// one of more than 1,048,576 frames (8 TiB as [NewWriter] writes them) is
// [ErrLimit]. That the frames are what the table says is not checked.
func SeekTable(r io.ReaderAt, size int64) ([]Frame, error) {
	var footer [seekFooter]byte
	if size < seekHeader+seekFooter {
		return nil, nil
	}
	if _, err := r.ReadAt(footer[:], size-seekFooter); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	if le.Uint32(footer[5:]) != seekMagic {
		return nil, nil
	}
	n, descriptor, entry := int64(le.Uint32(footer[:])), footer[4], int64(seekEntry)
	if descriptor&seekReserved != 0 {
		return nil, fmt.Errorf("%w: zstd: a seek table of an unknown kind, %#x", ErrCorrupt, descriptor)
	}
	if n > maxSeekFrames {
		return nil, fmt.Errorf("%w: zstd: a seek table of %d frames", ErrLimit, n)
	}
	if descriptor&seekChecksum != 0 {
		entry += 4
	}
	length := n*entry + seekFooter
	if length+seekHeader > size {
		return nil, fmt.Errorf("%w: zstd: a seek table of %d frames in %d bytes", ErrCorrupt, n, size)
	}
	table := make([]byte, seekHeader+n*entry)
	if _, err := r.ReadAt(table, size-length-seekHeader); err != nil {
		return nil, err
	}
	if le.Uint32(table) != seekFrameMagic || int64(le.Uint32(table[4:])) != length {
		return nil, fmt.Errorf("%w: zstd: the seek table has no beginning", ErrCorrupt)
	}
	all := make([]Frame, n)
	total := int64(0)
	for i := range all {
		e := table[seekHeader+int64(i)*entry:]
		all[i] = Frame{int64(le.Uint32(e)), int64(le.Uint32(e[4:]))}
		total += all[i].Compressed
	}
	if total != size-length-seekHeader {
		return nil, fmt.Errorf("%w: zstd: the frames of the seek table have %d bytes, and the stream %d before it", ErrCorrupt, total, size-length-seekHeader)
	}
	return all, nil
}
