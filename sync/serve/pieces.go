package serve

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/gardenlinux/gloci-layout/layout"
)

// pieces are the files that have a blob, and their states together.
type pieces struct {
	list  []layout.Piece
	stamp stamp
}

// openPieces opens the files that have b. None, and no error, is a blob that only
// the source itself can read, such as what a patch makes.
func openPieces(ctx context.Context, b *blob) (*pieces, error) {
	src, ok := b.home.src.(layout.Piecer)
	if !ok {
		return nil, nil
	}
	list, err := src.Pieces(ctx, b.digest)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p := &pieces{list: list}
	if p.stamp, err = p.now(); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *pieces) close() error {
	var errs []error
	for _, piece := range p.list {
		errs = append(errs, piece.File.Close())
	}
	return errors.Join(errs...)
}

// now is the state of all the files as if they were one: its device and inode
// tell which files they are, with their sizes and mtimes.
func (p *pieces) now() (stamp, error) {
	var all stamp
	hash := sha256.New()
	for _, piece := range p.list {
		st, err := stampOf(piece.File)
		if err != nil {
			return stamp{}, err
		}
		// A hash does not fail.
		_ = binary.Write(hash, binary.BigEndian, []uint64{st.device, st.inode, uint64(st.size), uint64(st.mtime)}) //nolint:gosec // only bits
		all.links += st.links
		all.size += st.size
		all.mtime, all.changed = max(all.mtime, st.mtime), max(all.changed, st.changed)
	}
	sum := hash.Sum(nil)
	all.device, all.inode = binary.BigEndian.Uint64(sum), binary.BigEndian.Uint64(sum[8:])
	return all, nil
}

// sendPieces sends what lies in several files, or what only the source can read.
// The first is hashed on its way, whatever its size, once for each state of the
// files; the second each time.
func (c *call) sendPieces(ctx context.Context, p reply) (again bool, err error) {
	b := p.b
	if c.r.Method == http.MethodHead {
		c.header(p)
		return false, nil
	}
	files, err := openPieces(ctx, b)
	if err != nil {
		return false, err
	}
	if files == nil {
		return false, c.sendSource(ctx, p)
	}
	defer files.close() //nolint:errcheck // only read
	good, bad := b.state.of(files.stamp)
	switch {
	case bad:
		return false, damaged(b)
	case good:
		return false, c.sendFiles(p, files)
	}
	err = c.sendSource(ctx, p)
	after, statErr := files.now()
	if statErr == nil && after == files.stamp && (err == nil || errors.Is(err, layout.ErrMismatch)) {
		b.state.learn(after, err == nil)
	}
	return false, err
}

// sendFiles sends p from files that were verified; see sendFile.
func (c *call) sendFiles(p reply, files *pieces) error {
	changed := func() error {
		after, err := files.now()
		if err == nil && !files.stamp.sameContent(after) {
			err = fmt.Errorf("%s: blob %s: %w", p.b.home.src, p.b.digest, errChanged)
		}
		return err
	}
	c.header(p)
	left := p.length
	skip := p.start
	for _, piece := range files.list {
		from := min(skip, piece.Size)
		skip -= from
		n := min(left, piece.Size-from)
		if n == 0 {
			continue
		}
		if err := c.copyFile(p.b, piece.File, piece.Off+from, n, left == n, changed); err != nil {
			return err
		}
		left -= n
	}
	return nil
}

// copyFile sends n bytes of f from off on. If they are the last ones, the last
// chunk of them waits for changed.
func (c *call) copyFile(b *blob, f *os.File, off, n int64, last bool, changed func() error) error {
	if _, err := f.Seek(off, io.SeekStart); err != nil {
		return err
	}
	for left := n; left > 0; {
		n := min(left, chunk)
		if last && n == left {
			if err := changed(); err != nil {
				return err
			}
		}
		c.deadline()
		sent, err := c.copy(f, n)
		c.bytes += sent
		left -= sent
		if err != nil {
			return err
		}
		if sent < n {
			return fmt.Errorf("%s: blob %s: %w: the file was cut while it was sent", b.home.src, b.digest, layout.ErrMismatch)
		}
	}
	return nil
}
