package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/gardenlinux/gloci-layout/layout"
)

// progress says that the file has so many bytes by now.
func (m *Making) progress(written int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.written = written
	close(m.more)
	m.more = make(chan struct{})
}

// Whole tells whether the blob is made, and right.
func (m *Making) Whole() bool {
	select {
	case <-m.done:
		return m.err == nil
	default:
		return false
	}
}

// Wait waits until the blob is made and verified, or ctx ends.
func (m *Making) Wait(ctx context.Context) error {
	select {
	case <-m.done:
		return m.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Files opens the file of a blob that is whole. [errors.ErrUnsupported] means that
// the system cannot open a file without a name again, and [Making.Reader] has to
// serve.
func (m *Making) Files() (*Files, error) {
	again, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", m.file.Fd()))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	f := &Files{blob: m.blob, parts: []layout.Piece{{File: again, Size: m.blob.Size}}}
	if f.stamp, err = f.now(); err != nil {
		return nil, errors.Join(err, again.Close())
	}
	was, err := stampOf(m.file)
	if err == nil && was != f.stamp {
		err = fmt.Errorf("%w: %s is another file", errors.ErrUnsupported, again.Name())
	}
	if err != nil {
		return nil, errors.Join(err, again.Close())
	}
	return f, nil
}

// Reader reads length bytes of the blob from start on, as they are made. Its io.EOF
// says that the whole blob is right.
func (m *Making) Reader(ctx context.Context, start, length int64) io.Reader {
	return &follower{ctx, m, start, start + length}
}

type follower struct {
	ctx     context.Context //nolint:containedctx // bounds the reads of a reader that outlives the call
	making  *Making
	at, end int64
}

func (f *follower) Read(p []byte) (int, error) {
	m := f.making
	for {
		whole := false
		select {
		case <-m.done:
			if m.err != nil {
				return 0, m.err
			}
			whole = true
		default:
		}
		m.mu.Lock()
		file, more := m.file, m.more
		n := min(int64(len(p)), min(m.written, f.end)-f.at)
		m.mu.Unlock()
		switch {
		case n > 0:
			k, err := file.ReadAt(p[:n], f.at)
			f.at += int64(k)
			if k > 0 {
				return k, nil
			}
			return 0, err
		case whole && f.at >= f.end:
			return 0, io.EOF
		case whole:
			return 0, io.ErrUnexpectedEOF // a verified blob is as long as its size
		}
		select {
		case <-more:
		case <-m.done:
		case <-f.ctx.Done():
			return 0, context.Cause(f.ctx)
		}
	}
}
