package patch

import (
	"errors"
	"io"
	"sort"
)

// A Part is one of several files that together are a base.
type Part struct {
	io.ReaderAt
	Size int64 // bytes
}

// Join returns a base of all parts, one after another, and its size.
func Join(parts ...Part) (io.ReaderAt, int64) {
	if len(parts) == 1 {
		return parts[0].ReaderAt, parts[0].Size
	}
	j := &joined{parts: parts}
	var size int64
	for _, p := range parts {
		size += p.Size
		j.ends = append(j.ends, size)
	}
	return j, size
}

type joined struct {
	parts []Part
	ends  []int64
}

// ReadAt reads across the borders of the parts.
func (j *joined) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	total := 0
	for i := sort.Search(len(j.ends), func(i int) bool { return j.ends[i] > off }); i < len(j.parts) && total < len(b); i++ {
		want := b[total:min(int64(len(b)), int64(total)+j.ends[i]-off)]
		n, err := j.parts[i].ReadAt(want, off-(j.ends[i]-j.parts[i].Size))
		total, off = total+n, off+int64(n)
		if n < len(want) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF // the part is shorter than it was said to be
			}
			return total, err
		}
	}
	if total < len(b) {
		return total, io.EOF
	}
	return total, nil
}
