package filediff

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"
)

const (
	maxRanges  = 16
	rangeBytes = 16 // bytes shown of a range
	rangeGap   = 8  // so many equal bytes do not end a range
)

// A rangeFinder collects where two contents differ.
type rangeFinder struct {
	off       int64 // bytes compared
	ranges    []Range
	dropped   bool // there are more ranges
	differing int64
	end       int64 // of the last range, kept or dropped
}

// compare takes the next bytes of both, the same number of each.
func (f *rangeFinder) compare(a, b []byte) {
	const step = 4 << 10
	for i := 0; i < len(a); i += step {
		j := min(i+step, len(a))
		if !bytes.Equal(a[i:j], b[i:j]) {
			f.slow(a[i:j], b[i:j], f.off+int64(i))
		}
	}
	f.off += int64(len(a))
}

func (f *rangeFinder) slow(a, b []byte, off int64) {
	for i := range a {
		if a[i] == b[i] {
			continue
		}
		f.differing++
		at := off + int64(i)
		switch {
		case f.end > 0 && at-f.end < rangeGap:
			if !f.dropped {
				f.extend(a, b, i, off)
			}
		case len(f.ranges) < maxRanges:
			f.ranges = append(f.ranges, Range{Offset: at, Where: peAround(a, i)})
			f.extend(a, b, i, off)
		default:
			f.dropped = true
		}
		f.end = at + 1
	}
}

// extend makes the last range reach a[i]. The equal bytes between are known to
// be equal, but those of the block before are gone, so they are taken from what
// is here.
func (f *rangeFinder) extend(a, b []byte, i int, off int64) {
	r := &f.ranges[len(f.ranges)-1]
	at := off + int64(i)
	for have := r.Offset + int64(len(r.A)); have <= at && len(r.A) < rangeBytes; have++ {
		if k := have - off; k >= 0 {
			r.A, r.B = append(r.A, a[k]), append(r.B, b[k])
		} else {
			break
		}
	}
	r.Length = at + 1 - r.Offset
}

// locate says what lies at each range, where the beginnings of the contents
// tell: headB may differ from headA.
func locate(ranges []Range, headA, headB []byte) {
	partitions := gpt(headA)
	pe := peFields(headA)
	if partitions == nil {
		partitions = gpt(headB)
	}
	for i := range ranges {
		r := &ranges[i]
		if partitions == nil {
			r.Where = "" // the header itself tells, or it only looks like one
		}
		for _, f := range pe {
			if r.Offset >= f.offset && r.Offset+r.Length <= f.offset+f.length {
				r.Where = f.name
			}
		}
		for n, p := range partitions {
			if r.Offset >= p.first && r.Offset < p.end {
				where := fmt.Sprintf("partition %d %q, byte %d of it", n+1, p.name, r.Offset-p.first)
				if r.Where != "" {
					where += ", " + r.Where
				}
				r.Where = where
			}
		}
		if r.Where == "" && partitions != nil {
			r.Where = "outside of the partitions"
		}
	}
}

const sector = 512

type partition struct {
	name       string
	first, end int64 // bytes
}

// gpt reads the partitions of a disk image (UEFI specification 2.10, section
// 5.3); nil if it has none. Entries that are not used keep their number.
func gpt(head []byte) []partition {
	if len(head) < 2*sector || string(head[sector:sector+8]) != "EFI PART" {
		return nil
	}
	le := binary.LittleEndian
	h := head[sector:]
	entries, number, size := le.Uint64(h[72:]), le.Uint32(h[80:]), le.Uint32(h[84:])
	if size < 128 || size > 4096 || number > 1024 || entries > uint64(len(head)/sector) {
		return nil
	}
	partitions := make([]partition, 0, number)
	for i := range int64(number) {
		at := int64(entries)*sector + i*int64(size)
		if at+128 > int64(len(head)) {
			break
		}
		e := head[at:]
		first, last := le.Uint64(e[32:]), le.Uint64(e[40:])
		p := partition{}
		if first > 0 && last >= first && last < 1<<54 {
			p = partition{first: int64(first) * sector, end: int64(last+1) * sector}
			var name []uint16
			for k := 56; k < 128; k += 2 {
				if c := le.Uint16(e[k:]); c != 0 {
					name = append(name, c)
				}
			}
			p.name = strings.ToValidUTF8(string(utf16.Decode(name)), "?")
		}
		partitions = append(partitions, p)
	}
	return partitions
}

// peAround tells whether a[i] looks like a field of the header of a PE file
// that lies somewhere in a disk image.
func peAround(a []byte, i int) string {
	for _, f := range []peField{{peTimeStamp, 8, 4}, {peCheckSum, 24 + 64, 4}} {
		for k := range int(f.length) {
			if pe := i - int(f.offset) - k; pe >= 0 && string(a[pe:pe+4]) == "PE\x00\x00" {
				return f.name
			}
		}
	}
	return ""
}

type peField struct {
	name           string
	offset, length int64
}

// The fields of a PE header that a rebuild changes without changing the program.
const (
	peTimeStamp = "PE time stamp"
	peCheckSum  = "PE checksum"
)

// peFields finds the fields of a Windows executable, as an EFI program is one,
// that change whenever it is linked (PE format, "COFF File Header" and "Optional
// Header Windows-Specific Fields").
func peFields(head []byte) []peField {
	if len(head) < 64 || string(head[:2]) != "MZ" {
		return nil
	}
	pe := int64(binary.LittleEndian.Uint32(head[60:]))
	if pe+24 > int64(len(head)) || string(head[pe:pe+4]) != "PE\x00\x00" {
		return nil
	}
	return []peField{
		{peTimeStamp, pe + 8, 4},
		{peCheckSum, pe + 24 + 64, 4},
	}
}

// onlyTimeStamp tells whether nothing else differs than what linking again
// changes.
func (f *rangeFinder) onlyTimeStamp() bool {
	for _, r := range f.ranges {
		if r.Where != peTimeStamp && r.Where != peCheckSum {
			return false
		}
	}
	return len(f.ranges) > 0 && !f.dropped
}
