package filediff

import (
	"bytes"
	"io"
	"os"

	"github.com/gardenlinux/gloci-layout/internal/tempfile"
)

// A spill is a temporary file that has no name.
type spill struct {
	dir  string
	f    *os.File
	size int64
}

// write appends what r gives.
func (s *spill) write(r io.Reader) (part, error) {
	if s.f == nil {
		f, err := tempfile.New(s.dir)
		if err != nil {
			return part{}, err
		}
		s.f = f
	}
	off := s.size
	n, err := io.Copy(io.NewOffsetWriter(s.f, off), r)
	s.size += n
	return part{f: s.f, off: off, size: n}, err
}

// cut frees what was written after size.
func (s *spill) cut(size int64) error {
	if s.f == nil || size == s.size {
		return nil
	}
	s.size = size
	return s.f.Truncate(size)
}

func (s *spill) close() error {
	if s.f == nil {
		return nil
	}
	return s.f.Close()
}

// A part is content that was kept: in memory, or in a spill.
type part struct {
	data []byte
	f    *os.File
	off  int64
	size int64
}

func (p part) reader() io.Reader {
	if p.f == nil {
		return bytes.NewReader(p.data)
	}
	return io.NewSectionReader(p.f, p.off, p.size)
}
