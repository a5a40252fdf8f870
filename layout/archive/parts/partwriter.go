package parts

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/internal/durable"
)

// A partWriter writes one part, and compares as long as there is something.
type partWriter struct {
	path string   // in the working directory
	f    *os.File // nil: it is compared only
	from *os.File // what is compared with, if that is not f
	have int64    // how much there is to compare with
	pos  int64

	hinted int64
}

// open opens the file in the working directory; its first n bytes are right
// already.
func (p *partWriter) open(n int64) error {
	var err error
	if p.f, err = os.OpenFile(p.path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600); err != nil {
		return err
	}
	info, err := p.f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w", p.path, layout.ErrUnsafe)
	}
	if err != nil {
		return err
	}
	p.have = info.Size()
	p.hinted = n
	return nil
}

func (p *partWriter) write(b, buf []byte) (n int, err error) {
	for len(b) > 0 && p.pos < p.have {
		k := min(int64(len(b)), int64(len(buf)), p.have-p.pos)
		from := p.f
		if p.from != nil {
			from = p.from
		}
		// What cannot be read is as good as wrong.
		if m, _ := from.ReadAt(buf[:k], p.pos); int64(m) != k || !bytes.Equal(buf[:k], b[:k]) {
			if err := p.diverge(); err != nil {
				return n, err
			}
			continue
		}
		n, p.pos, b = n+int(k), p.pos+k, b[k:]
	}
	if len(b) == 0 {
		return n, nil
	}
	if p.from != nil { // there is less than there has to be
		if err := p.diverge(); err != nil {
			return n, err
		}
	}
	k, err := p.f.WriteAt(b, p.pos)
	n, p.pos = n+k, p.pos+int64(k)
	if p.pos-p.hinted >= writeBehind {
		durable.WriteBehind(p.f, p.hinted, p.pos-p.hinted)
		p.hinted = p.pos
	}
	return n, err
}

// diverge ends the comparing with what is compared: from here on the part is
// written, or compared with what an earlier attempt has left of it.
func (p *partWriter) diverge() error {
	if p.from == nil {
		p.have = p.pos
		return nil
	}
	if err := p.open(p.pos); err != nil {
		return err
	}
	if _, err := io.Copy(io.NewOffsetWriter(p.f, 0), io.NewSectionReader(p.from, 0, p.pos)); err != nil {
		return err
	}
	from := p.from
	p.from = nil
	return from.Close()
}

// finish forces the part to the disk and returns where it is.
func (p *partWriter) finish() (path string, err error) {
	if p.from != nil && p.have > p.pos { // it is longer than it has to be
		if err := p.diverge(); err != nil {
			return "", errors.Join(err, p.close())
		}
	}
	if p.from != nil {
		// Whoever wrote it need not have synced it.
		path = p.from.Name()
		err = errors.Join(p.from.Sync(), p.from.Close())
		p.from = nil
		return path, err
	}
	info, err := p.f.Stat()
	if err == nil && info.Size() > p.pos {
		err = p.f.Truncate(p.pos)
	}
	if err != nil {
		return "", errors.Join(err, p.f.Close())
	}
	return p.path, durable.Finish(p.f, 0o644)
}

func (p *partWriter) close() error {
	var errs []error
	for _, f := range []*os.File{p.f, p.from} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
