// Package compress reads and writes the gzip and zstd streams that image layers
// and .oci tarballs are stored in. It takes an io.Reader or io.Writer and gives
// one back, and knows no OCI type. Xz and bzip2 are read, for import, and never
// written: layers may not be either (image-spec, layer.md, "Layer media types").
//
// # Written bytes
//
// [NewWriter] writes the same bytes for the same input, format and level on any
// machine: the number of cores, the sizes of the writes and the clock do not
// reach the output. What does, beside these three, is the version of the library
// that compresses and the size of the pieces in which it does so, and
// [EncoderOf] names both. The tests of this package pin digests of the output,
// so that no upgrade moves them unseen.
//
// Gzip is one member, compressed in blocks of 1 MiB which may refer to the 32
// KiB before them. Zstd is one frame for each 8 MiB of input, with its size and
// a checksum, and after two or more of them the seek table of zstd's seekable
// format, in a skippable frame (RFC 8878, section 3.1.2): all decoders take
// frames one after the other, and pass over that table. [SeekTable] reads it.
//
// # Hostile input
//
// [NewReader] bounds the memory of a decoder (a window or dictionary of 128
// MiB), the number of bytes that come out and their ratio to the bytes that went
// in. One reader takes up to about 140 MiB for a stream with the largest window,
// and about 10 MiB for one as "zstd -3" writes it.
package compress

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"strings"
)

// A Format is how a stream is compressed.
type Format int

// The formats that [Detect] can tell. Xz and Bzip2 are only read.
const (
	None Format = iota
	Gzip
	Zstd
	Xz
	Bzip2
)

var (
	// ErrUnsupported reports a format that is recognized but not read or written.
	ErrUnsupported = errors.New("unsupported compression")

	// ErrCorrupt reports a stream that is not what its format says: a bad header
	// or checksum, an early end, or data after the end.
	ErrCorrupt = errors.New("corrupt compressed data")

	// ErrLimit reports a stream that passes a limit of [ReaderOptions] or asks
	// for a larger window or dictionary than [MaxWindow].
	ErrLimit = errors.New("compressed data passes a limit")
)

// String returns the name that [ParseFormat] takes: "none", "gzip", "zstd", "xz"
// or "bzip2".
func (f Format) String() string {
	switch f {
	case None:
		return "none"
	case Gzip:
		return "gzip"
	case Zstd:
		return "zstd"
	case Xz:
		return "xz"
	case Bzip2:
		return "bzip2"
	}
	return fmt.Sprintf("Format(%d)", int(f))
}

// ParseFormat returns the format that can be written and is named s: "none",
// "gzip" (or "gz") or "zstd" (or "zst"). Any other name is [ErrUnsupported].
func ParseFormat(s string) (Format, error) {
	switch s {
	case "none":
		return None, nil
	case "gzip", "gz":
		return Gzip, nil
	case "zstd", "zst":
		return Zstd, nil
	}
	return None, fmt.Errorf("%w: %q: want none, gzip or zstd", ErrUnsupported, s)
}

// FormatOfName returns the format that the ending of a file name stands for:
// Gzip for .gz and .tgz, Zstd for .zst, .zstd and .tzst, Xz for .xz and .txz,
// Bzip2 for .bz2 and .tbz2, else None.
func FormatOfName(name string) Format {
	switch strings.ToLower(path.Ext(name)) {
	case ".gz", ".tgz":
		return Gzip
	case ".zst", ".zstd", ".tzst":
		return Zstd
	case ".xz", ".txz":
		return Xz
	case ".bz2", ".tbz2":
		return Bzip2
	}
	return None
}

// DetectLen is the length in bytes of the longest prefix that [Detect] looks at.
const DetectLen = 6

// Detect returns the format of a stream that begins with prefix. Anything it
// does not know is None, and so is a prefix shorter than the magic number. A
// zstd stream may begin with a skippable frame (RFC 8878, section 3.1.2), as
// those of pzstd do.
func Detect(prefix []byte) Format {
	switch {
	// The third byte is the method; deflate is the only one (RFC 1952, 2.3.1).
	case bytes.HasPrefix(prefix, []byte{0x1f, 0x8b, 0x08}):
		return Gzip
	case bytes.HasPrefix(prefix, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return Zstd
	case len(prefix) >= 4 && prefix[0]&0xf0 == 0x50 && bytes.Equal(prefix[1:4], []byte{0x2a, 0x4d, 0x18}):
		return Zstd
	case bytes.HasPrefix(prefix, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return Xz
	case len(prefix) >= 4 && bytes.HasPrefix(prefix, []byte("BZh")) && prefix[3] >= '1' && prefix[3] <= '9':
		return Bzip2
	}
	return None
}
