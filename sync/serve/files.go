package serve

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/gardenlinux/gloci-layout/layout"
)

// files are those that have a blob, one part of it after another, and their states
// together. There is one, but for what lies in several parts of a split archive.
type files struct {
	blob  *blob
	parts []layout.Piece
	stamp stamp // when they were opened
}

// openFiles opens the files that have b. [errors.ErrUnsupported] is a blob that
// only the source itself can read, such as what a patch makes.
func openFiles(ctx context.Context, b *blob) (*files, error) {
	parts, err := openParts(ctx, b)
	if err != nil {
		return nil, err
	}
	f := &files{blob: b, parts: parts}
	size := int64(0)
	for _, part := range parts {
		size += part.Size
	}
	if size != b.size {
		err = fmt.Errorf("%s: blob %s: %w: %d bytes, want %d", b.home.src, b.digest, layout.ErrMismatch, size, b.size)
	} else {
		f.stamp, err = f.now()
	}
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

func openParts(ctx context.Context, b *blob) ([]layout.Piece, error) {
	f, off, size, err := frozen{b.home}.Section(ctx, b.digest)
	if err == nil {
		return []layout.Piece{{File: f, Off: off, Size: size}}, nil
	}
	if src, ok := b.home.src.(layout.Piecer); ok && errors.Is(err, errors.ErrUnsupported) {
		return src.Pieces(ctx, b.digest)
	}
	return nil, err
}

func (f *files) close() error {
	var errs []error
	for _, part := range f.parts {
		errs = append(errs, part.File.Close())
	}
	return errors.Join(errs...)
}

// now is the state of all the files as if they were one: the device and inode of
// several tell which files they are, with their sizes and mtimes.
func (f *files) now() (stamp, error) {
	if len(f.parts) == 1 {
		return stampOf(f.parts[0].File)
	}
	var all stamp
	hash := sha256.New()
	for _, part := range f.parts {
		st, err := stampOf(part.File)
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

// unchanged fails if the files may have other content than when they were opened.
func (f *files) unchanged() error {
	after, err := f.now()
	if err == nil && !f.stamp.sameContent(after) {
		err = f.blob.changed()
	}
	return err
}

// sections yields the parts of the files that have length bytes of the blob from
// start on.
func (f *files) sections(start, length int64) []layout.Piece {
	var sections []layout.Piece
	for _, part := range f.parts {
		skip := min(start, part.Size)
		start -= skip
		n := min(length, part.Size-skip)
		length -= n
		if n > 0 {
			sections = append(sections, layout.Piece{File: part.File, Off: part.Off + skip, Size: n})
		}
	}
	return sections
}

// reader reads all of the blob, and verifies it. Closing it closes no file.
func (f *files) reader(ctx context.Context) io.ReadCloser {
	return layout.VerifyReader(ctx, io.NopCloser(f.section(0, f.blob.size)), f.blob.descriptor())
}

// section reads length bytes of the blob from start on.
func (f *files) section(start, length int64) io.Reader {
	var readers []io.Reader
	for _, part := range f.sections(start, length) {
		readers = append(readers, io.NewSectionReader(part.File, part.Off, part.Size))
	}
	if len(readers) == 1 {
		return readers[0]
	}
	return io.MultiReader(readers...)
}

// errChanged reports a file that was written while it was read or sent.
var errChanged = fmt.Errorf("%w: the file was written meanwhile", layout.ErrMismatch)

// changed is the error for files that were written.
func (b *blob) changed() error {
	return fmt.Errorf("%s: blob %s: %w", b.home.src, b.digest, errChanged)
}

// damaged is the error for content that was found damaged before.
func (b *blob) damaged() error {
	return fmt.Errorf("%s: blob %s: %w", b.home.src, b.digest, layout.ErrMismatch)
}
