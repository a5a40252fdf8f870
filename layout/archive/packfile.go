package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/internal/durable"
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
	out := &output{f: f.File, hash: newHasher()}
	err = Pack(ctx, src, out, &o)
	d := out.hash.sum()
	if err != nil {
		return layout.BlobInfo{}, err
	}
	if ctx.Err() != nil {
		return layout.BlobInfo{}, context.Cause(ctx)
	}
	if err := f.Commit(0o644); err != nil {
		return layout.BlobInfo{}, fmt.Errorf("pack %s: %w", src, err)
	}
	return layout.BlobInfo{Digest: d, Size: out.n}, nil
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

// output writes to the file and has what is written hashed.
type output struct {
	f         *os.File
	hash      *hasher
	n, hinted int64
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.f.Write(p)
	o.hash.write(p[:n])
	o.n += int64(n)
	if o.n-o.hinted >= writeBehind {
		durable.WriteBehind(o.f, o.hinted, o.n-o.hinted)
		o.hinted = o.n
	}
	return n, err
}

// A hasher hashes in a goroutine of its own: the digest of the archive is a
// second hash over all bytes, and the writing should not wait for it.
type hasher struct {
	free, full chan []byte
	cur        []byte
	done       chan digest.Digest
}

func newHasher() *hasher {
	h := &hasher{free: make(chan []byte, packChunks), full: make(chan []byte, packChunks), done: make(chan digest.Digest, 1)}
	for range packChunks {
		h.free <- make([]byte, 0, packChunk)
	}
	go func() {
		digester := digest.SHA256.Digester()
		for b := range h.full {
			digester.Hash().Write(b)
			h.free <- b[:0]
		}
		h.done <- digester.Digest()
	}()
	return h
}

func (h *hasher) write(p []byte) {
	for len(p) > 0 {
		if h.cur == nil {
			h.cur = <-h.free
		}
		n := min(len(p), cap(h.cur)-len(h.cur))
		h.cur = append(h.cur, p[:n]...)
		p = p[n:]
		if len(h.cur) == cap(h.cur) {
			h.full <- h.cur
			h.cur = nil
		}
	}
}

// sum ends the goroutine. It must be called, once.
func (h *hasher) sum() digest.Digest {
	if h.cur != nil {
		h.full <- h.cur
	}
	close(h.full)
	return <-h.done
}
