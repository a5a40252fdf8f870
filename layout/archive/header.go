package archive

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/gardenlinux/gloci-layout/layout"
)

// blockSize is the unit of a tar archive (POSIX.1-2017, pax, "ustar
// Interchange Format").
const blockSize = 512

// maxOctal is the largest size that an octal field of 12 bytes holds, and the
// latest time: one byte short of 8 GiB, and the year 2242.
const maxOctal = 1<<33 - 1

// nameSize is how long a name may be that has a header to itself.
const nameSize = 100

// A block is one unit of an archive, here always a header.
type block [blockSize]byte

// The fields of a header. What is not here (owner, mode, times) means nothing
// for a layout, and is not looked at.
func (b *block) name() []byte     { return cString(b[0:nameSize]) }
func (b *block) size() []byte     { return b[124:136] }
func (b *block) checksum() []byte { return b[148:156] }
func (b *block) typeflag() byte   { return b[156] }
func (b *block) magic() string    { return string(b[257:265]) }
func (b *block) prefix() []byte   { return cString(b[345:500]) }

func cString(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}

// sum is the checksum of a header: of all its bytes, with its own field taken
// for spaces.
func (b *block) sum() int64 {
	var n int64
	for i, c := range b {
		if i >= 148 && i < 156 {
			c = ' '
		}
		n += int64(c)
	}
	return n
}

// path returns the name that the header itself gives.
func (b *block) path() (string, error) {
	switch b.magic() {
	case "ustar\x0000":
		if p := b.prefix(); len(p) > 0 {
			return string(p) + "/" + string(b.name()), nil
		}
		return string(b.name()), nil
	case "ustar  \x00", "\x00\x00\x00\x00\x00\x00\x00\x00": // GNU tar has other fields in place of the prefix; Version 7 had none
		return string(b.name()), nil
	}
	return "", fmt.Errorf("%w header: magic %q", layout.ErrInvalid, b.magic())
}

// check tells whether b is a header at all.
func (b *block) check() error {
	want, err := parseNumber(b.checksum())
	if err == nil && want != b.sum() {
		err = fmt.Errorf("checksum %d, want %d", b.sum(), want)
	}
	if err != nil {
		return fmt.Errorf("%w header: %w", layout.ErrInvalid, err)
	}
	return nil
}

// parseNumber reads a field: octal digits between spaces and NULs, or base 256
// as GNU tar writes it for what does not fit.
func parseNumber(field []byte) (int64, error) {
	if field[0]&0x80 != 0 {
		if field[0] != 0x80 {
			return 0, fmt.Errorf("number % x is negative or too large", field)
		}
		var n int64
		for _, c := range field[1:] {
			if n > 1<<54 {
				return 0, fmt.Errorf("number % x is too large", field)
			}
			n = n<<8 | int64(c)
		}
		return n, nil
	}
	text := strings.TrimLeft(string(field), " ")
	if i := strings.IndexAny(text, " \x00"); i >= 0 {
		if strings.Trim(text[i:], " \x00") != "" {
			return 0, fmt.Errorf("number %q", field)
		}
		text = text[:i]
	}
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 8, 62)
	if err != nil {
		return 0, fmt.Errorf("number %q", field)
	}
	return int64(n), nil
}

// Typeflags that are written and read.
const (
	typeRegular  = '0'
	typeOld      = 0 // regular, in archives of Version 7
	typeDir      = '5'
	typePAX      = 'x'
	typeGlobal   = 'g'
	typeLongName = 'L' // GNU tar
)

// appendHeader appends the header of a member to b, preceded by a PAX header
// if the name or the size does not fit. Every other field is fixed: mode 0644
// or 0755, owner 0 without a name, no device.
func appendHeader(b []byte, name string, size int64, typeflag byte, mtime time.Time) []byte {
	var records []byte
	short := name
	if len(name) > nameSize {
		records = appendRecord(records, "path", name)
		short = name[:nameSize]
	}
	fits := size
	if size > maxOctal {
		records = appendRecord(records, "size", strconv.FormatInt(size, 10))
		fits = 0
	}
	if records != nil {
		// The name is that of POSIX ("%d/PaxHeaders.%p/%f"), with 0 for the
		// number of the process; nobody reads it.
		b = appendBlock(b, "PaxHeaders.0/"+short[:min(len(short), 80)], int64(len(records)), typePAX, mtime)
		b = append(b, records...)
		b = append(b, make([]byte, padding(int64(len(records))))...)
	}
	return appendBlock(b, short, fits, typeflag, mtime)
}

func appendBlock(b []byte, name string, size int64, typeflag byte, mtime time.Time) []byte {
	var h block
	mode := 0o644
	if typeflag == typeDir {
		mode = 0o755
	}
	copy(h[0:nameSize], name)
	copy(h[100:108], fmt.Sprintf("%07o", mode))
	copy(h[108:116], "0000000") // uid
	copy(h[116:124], "0000000") // gid
	copy(h[124:136], fmt.Sprintf("%011o", size))
	copy(h[136:148], fmt.Sprintf("%011o", mtime.Unix()))
	h[156] = typeflag
	copy(h[257:265], "ustar\x0000")
	copy(h[329:337], "0000000") // devmajor
	copy(h[337:345], "0000000") // devminor
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", h.sum()))
	return append(b, h[:]...)
}

// appendRecord appends a PAX record, which begins with its own length.
func appendRecord(b []byte, key, value string) []byte {
	rest := " " + key + "=" + value + "\n"
	n := len(rest) + 1
	for n != len(rest)+len(strconv.Itoa(n)) {
		n = len(rest) + len(strconv.Itoa(n))
	}
	return append(append(b, strconv.Itoa(n)...), rest...)
}

// padding returns how many bytes follow size bytes of content.
func padding(size int64) int64 { return -size & (blockSize - 1) }
