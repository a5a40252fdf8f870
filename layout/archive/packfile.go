package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/internal/durable"
	"github.com/gardenlinux/gloci-layout/layout/internal/hashing"
)

// writeBehind is how much is written between two hints to the kernel.
const writeBehind = 16 << 20 // 16 MiB

// PackFile is [Pack] into file, with mode 0644 whatever the umask is. What was
// there stays until the archive is whole and on the disk, and after an error or
// a crash; then the new file takes its place at once. A symbolic link is kept,
// and the file that it leads to replaced. Anything else than a regular file is
// not replaced: [layout.ErrExists].
//
// Without opts.Compression, the ending of the name chooses it; see
// [compress.FormatOfName]. PackFile returns the sha256 digest and the size of
// the file.
func PackFile(ctx context.Context, src layout.Source, file string, opts *PackOptions) (layout.BlobInfo, error) {
	var o PackOptions
	if opts != nil {
		o = *opts
	}
	if o.Compression == compress.None {
		o.Compression = compress.FormatOfName(file)
	}
	target, err := target(file)
	if err != nil {
		return layout.BlobInfo{}, fmt.Errorf("pack %s: %s: %w", src, file, err)
	}
	f, err := durable.Replace(target)
	if err != nil {
		return layout.BlobInfo{}, fmt.Errorf("pack %s: %w", src, err)
	}
	defer f.Discard() //nolint:errcheck // does nothing after Commit; else an error is returned already
	// The digest of the archive is a second hash over all bytes, and the writing
	// should not wait for it.
	out := &output{f: f.File}
	if !o.NoDigest {
		out.hash = hashing.New()
		defer out.hash.Stop()
	}
	if err := Pack(ctx, src, out, &o); err != nil {
		return layout.BlobInfo{}, err
	}
	if ctx.Err() != nil {
		return layout.BlobInfo{}, context.Cause(ctx)
	}
	if err := f.Commit(0o644); err != nil {
		return layout.BlobInfo{}, fmt.Errorf("pack %s: %w", src, err)
	}
	written := layout.BlobInfo{Size: out.n}
	if out.hash != nil {
		written.Digest = out.hash.Sum()
	}
	return written, nil
}

// target returns the file that is to be replaced when file is written.
func target(file string) (string, error) {
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return file, nil
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("not a regular file: %w", layout.ErrExists)
	}
	return filepath.EvalSymlinks(file)
}

// output writes to the file and has what is written hashed, unless hash is nil.
type output struct {
	f         *os.File
	hash      *hashing.Hasher
	n, hinted int64

	// mu is held while f is written. The kernel lets one write to a file at a
	// time too, but has the others spin.
	mu sync.Mutex
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	n, err := o.f.Write(p)
	o.mu.Unlock()
	if o.hash != nil {
		_, _ = o.hash.Write(p[:n]) // never an error
	}
	o.n += int64(n)
	if o.n-o.hinted >= writeBehind {
		durable.WriteBehind(o.f, o.hinted, o.n-o.hinted)
		o.hinted = o.n
	}
	return n, err
}

// anywhere tells whether parts of the file may be written in any order. What is
// hashed has to be written from the beginning on.
func (o *output) anywhere() bool { return o.hash == nil && durable.Sparse(o.f) }

// writeAt writes p at off, beside Write.
func (o *output) writeAt(p []byte, off int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, err := o.f.WriteAt(p, off)
	return err
}

// skip goes on n bytes further on.
func (o *output) skip(n int64) error {
	if o.n > o.hinted {
		durable.WriteBehind(o.f, o.hinted, o.n-o.hinted)
	}
	o.n += n
	o.hinted = o.n
	_, err := o.f.Seek(o.n, io.SeekStart)
	return err
}
