package serve

import (
	"strconv"
	"strings"
)

// parseRange reads the header Range of a request for size bytes (RFC 9110,
// section 14). What is no range of bytes, or more than one, is not ok, and the
// whole is sent; a range that has no byte of the content has length 0.
func parseRange(header string, size int64) (start, length int64, ok bool) {
	text, ok := strings.CutPrefix(header, "bytes=")
	if !ok || strings.IndexByte(text, ',') >= 0 {
		return 0, 0, false
	}
	first, last, ok := strings.Cut(strings.TrimSpace(text), "-")
	if !ok {
		return 0, 0, false
	}
	if first == "" { // the last so many bytes
		n, ok := number(last)
		if !ok {
			return 0, 0, false
		}
		n = min(n, size)
		return size - n, n, true
	}
	start, ok = number(first)
	if !ok {
		return 0, 0, false
	}
	end := size - 1
	if last != "" {
		n, ok := number(last)
		if !ok || n < start {
			return 0, 0, false
		}
		end = min(n, end)
	}
	if start > end {
		return 0, 0, true
	}
	return start, end - start + 1, true
}

// number reads digits and nothing else; a number that is too large for an int64
// is the largest.
func number(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 1<<63 - 1, true
	}
	return n, true
}
