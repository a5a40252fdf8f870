package content

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/gardenlinux/gloci-layout/layout"
)

// Files are those that have a blob, one part of it after another, and their states
// together. There is one, but for what lies in several parts of a split archive.
type Files struct {
	blob  *Blob
	parts []layout.Piece
	stamp Stamp // when they were opened
}

// Files opens the files that have the blob. [errors.ErrUnsupported] is a blob that
// only the source itself can read, such as what a patch makes.
func (b *Blob) Files(ctx context.Context) (*Files, error) {
	parts, err := b.parts(ctx)
	if err != nil {
		return nil, err
	}
	f := &Files{blob: b, parts: parts}
	size := int64(0)
	for _, part := range parts {
		size += part.Size
	}
	if size != b.Size {
		err = b.Error(fmt.Errorf("%w: %d bytes, want %d", layout.ErrMismatch, size, b.Size))
	} else {
		f.stamp, err = f.now()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (b *Blob) parts(ctx context.Context) ([]layout.Piece, error) {
	f, off, size, err := frozen{b.home}.Section(ctx, b.Digest)
	if err == nil {
		return []layout.Piece{{File: f, Off: off, Size: size}}, nil
	}
	if src, ok := b.home.src.(layout.Piecer); ok && errors.Is(err, errors.ErrUnsupported) {
		return src.Pieces(ctx, b.Digest)
	}
	return nil, err
}

// Close closes the files.
func (f *Files) Close() error {
	var errs []error
	for _, part := range f.parts {
		errs = append(errs, part.File.Close())
	}
	return errors.Join(errs...)
}

// now is the state of all the files as if they were one: the device and inode of
// several tell which files they are, with their sizes and mtimes.
func (f *Files) now() (Stamp, error) {
	if len(f.parts) == 1 {
		return stampOf(f.parts[0].File)
	}
	var all Stamp
	hash := sha256.New()
	for _, part := range f.parts {
		st, err := stampOf(part.File)
		if err != nil {
			return Stamp{}, err
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

// Known tells whether the content was found right or wrong before, in the state
// that the files had when they were opened.
func (f *Files) Known() (good, bad bool) { return f.blob.state.of(f.stamp) }

// Unchanged fails if the files may have other content than when they were opened.
func (f *Files) Unchanged() error {
	after, err := f.now()
	if err == nil && !f.stamp.sameContent(after) {
		err = f.blob.changed()
	}
	return err
}

// Sections returns the parts of the files that have length bytes of the blob from
// start on.
func (f *Files) Sections(start, length int64) []layout.Piece {
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

// Reader reads all of the blob, and verifies it. Closing it closes no file.
func (f *Files) Reader(ctx context.Context) io.ReadCloser {
	return layout.VerifyReader(ctx, io.NopCloser(f.Section(0, f.blob.Size)), f.blob.descriptor())
}

// Section reads length bytes of the blob from start on.
func (f *Files) Section(start, length int64) io.Reader {
	var readers []io.Reader
	for _, part := range f.Sections(start, length) {
		readers = append(readers, io.NewSectionReader(part.File, part.Off, part.Size))
	}
	if len(readers) == 1 {
		return readers[0]
	}
	return io.MultiReader(readers...)
}

// ErrChanged reports a file that was written while it was read or sent.
var ErrChanged = fmt.Errorf("%w: the file was written meanwhile", layout.ErrMismatch)

// changed is the error for files that were written.
func (b *Blob) changed() error { return b.Error(ErrChanged) }
