package parts

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"syscall"

	"github.com/gardenlinux/gloci-layout/layout"
)

// Options changes how parts are opened. Nil is the zero value.
type Options struct {
	// FollowSymlinks reads through parts that are symbolic links, which are
	// [layout.ErrUnsafe] else.
	FollowSymlinks bool
}

// A File is a whole file that is read from its parts, or from one file. It may be
// used by several goroutines.
type File struct {
	name  string // of the manifest, or of the one file
	files []opened
}

// An opened file is one part.
type opened struct {
	*os.File
	info fs.FileInfo // when it was opened
	end  int64       // where it ends in the whole
}

// Whole returns f, which is closed with it, as a whole of one part.
func Whole(f *os.File) (*File, error) {
	p := &File{name: f.Name()}
	return p, p.add(f)
}

// ReadManifest reads the manifest in file. One that is not there is
// [layout.ErrNotFound]; see [Parse] for other errors.
func ReadManifest(file string) (*Manifest, error) {
	f, err := openRegular(file, true)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(data) > maxManifest {
		return nil, fmt.Errorf("%s: %w: more than %d bytes", file, layout.ErrInvalid, maxManifest)
	}
	m, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return m, nil
}

// Open opens the parts that the manifest in file names. The first that is not
// there is [layout.ErrNotFound], one of another size [layout.ErrMismatch], one
// that is no regular file [layout.ErrUnsafe]; the errors name it. See
// [ReadManifest] for those of the manifest.
func Open(file string, opts *Options) (*File, error) {
	m, err := ReadManifest(file)
	if err != nil {
		return nil, err
	}
	p := &File{name: file}
	for i, part := range m.Parts {
		f, err := openPart(file, part, opts)
		if err == nil {
			err = p.add(f)
		}
		if err != nil {
			err = fmt.Errorf("%s: part %d of %d: %w", filepath.Join(filepath.Dir(file), part.Name), i+1, len(m.Parts), err)
			err = layout.WithHint(err, "gloci-layout verify "+file+" tells all parts that are missing or damaged")
			return nil, errors.Join(err, p.Close())
		}
	}
	return p, nil
}

// add takes f for the next part.
func (p *File) add(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	p.files = append(p.files, opened{f, info, p.Size() + info.Size()})
	return nil
}

// openPart opens a part of the manifest in file, if it has the right size.
func openPart(file string, part Part, opts *Options) (*os.File, error) {
	f, err := openRegular(filepath.Join(filepath.Dir(file), part.Name), opts != nil && opts.FollowSymlinks)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() != part.Size {
		err = fmt.Errorf("%w: %d bytes, want %d", layout.ErrMismatch, info.Size(), part.Size)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// openRegular opens a regular file. O_NONBLOCK: the open of a FIFO would wait
// for its writer.
func openRegular(path string, follow bool) (*os.File, error) {
	flags := os.O_RDONLY | syscall.O_NONBLOCK
	if !follow {
		flags |= syscall.O_NOFOLLOW
	}
	f, err := os.OpenFile(path, flags, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, layout.ErrNotFound
	case errors.Is(err, syscall.ELOOP) && !follow:
		return nil, fmt.Errorf("%w: a symbolic link", layout.ErrUnsafe)
	case errors.Is(err, syscall.ENXIO): // a socket
		return nil, fmt.Errorf("%w: not a regular file", layout.ErrUnsafe)
	case err != nil:
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: not a regular file", layout.ErrUnsafe)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Size returns the size of the whole in bytes.
func (p *File) Size() int64 {
	if len(p.files) == 0 {
		return 0
	}
	return p.files[len(p.files)-1].end
}

// at returns the number of the part that holds the byte at off of the whole,
// and where that part begins.
func (p *File) at(off int64) (i int, start int64) {
	i = sort.Search(len(p.files), func(i int) bool { return p.files[i].end > off })
	if i > 0 {
		start = p.files[i-1].end
	}
	return i, start
}

// ReadAt implements [io.ReaderAt] over all parts.
func (p *File) ReadAt(b []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("%w: offset %d", layout.ErrInvalid, off)
	}
	i, start := p.at(off)
	for ; n < len(b); i++ {
		if i == len(p.files) {
			return n, io.EOF
		}
		f := p.files[i]
		at := off + int64(n)
		want := b[n:min(int64(len(b)), int64(n)+f.end-at)]
		k, err := f.ReadAt(want, at-start)
		n, start = n+k, f.end
		if k < len(want) {
			return n, err
		}
	}
	return n, nil
}

// Section returns the file that has all of size bytes of the whole from off on,
// opened once more, and where they begin in it. Bytes of several parts are
// [errors.ErrUnsupported], and so is a file that the system cannot open again.
func (p *File) Section(off, size int64) (f *os.File, at int64, err error) {
	i, start := p.at(off)
	if i == len(p.files) || off+size > p.files[i].end {
		return nil, 0, fmt.Errorf("%s: bytes of several parts: %w", p.name, errors.ErrUnsupported)
	}
	f, err = p.files[i].again()
	return f, off - start, err
}

// Pieces returns size bytes of the whole from off on, each file opened once more.
// It fails as [File.Section] does, which is for bytes of one file.
func (p *File) Pieces(off, size int64) ([]layout.Piece, error) {
	var pieces []layout.Piece
	for i, start := p.at(off); i < len(p.files) && start < off+size; i++ {
		f, err := p.files[i].again()
		if err != nil {
			return nil, errors.Join(err, closePieces(pieces))
		}
		at := max(off, start)
		pieces = append(pieces, layout.Piece{File: f, Off: at - start, Size: min(off+size, p.files[i].end) - at})
		start = p.files[i].end
	}
	return pieces, nil
}

func closePieces(pieces []layout.Piece) error {
	var errs []error
	for _, piece := range pieces {
		errs = append(errs, piece.File.Close())
	}
	return errors.Join(errs...)
}

// again opens the file once more, and no other that may have its name by now.
func (o opened) again() (*os.File, error) {
	for _, path := range []string{fmt.Sprintf("/proc/self/fd/%d", o.Fd()), o.Name()} {
		f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		info, err := f.Stat()
		if err == nil && os.SameFile(info, o.info) {
			return f, nil
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s: open again: %w", o.Name(), errors.ErrUnsupported)
}

// Unchanged tells whether the files with size bytes from off on still are what
// they were when they were opened, by their sizes and times. One that was
// renamed over is: its old bytes stay open. Else it is [layout.ErrMismatch].
func (p *File) Unchanged(off, size int64) error {
	for i, start := p.at(off); i < len(p.files) && start <= off+size; i++ {
		f := p.files[i]
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if info.Size() != f.info.Size() || !info.ModTime().Equal(f.info.ModTime()) {
			return fmt.Errorf("%s was changed while it was open: %w", filepath.Base(f.Name()), layout.ErrMismatch)
		}
		start = f.end
	}
	return nil
}

// Close closes all files.
func (p *File) Close() error {
	errs := make([]error, len(p.files))
	for i, f := range p.files {
		errs[i] = f.Close()
	}
	return errors.Join(errs...)
}
