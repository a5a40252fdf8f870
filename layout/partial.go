package layout

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout/internal/durable"
)

// A Resumer is a [Source] that can give a blob from any byte on, as a registry
// can.
type Resumer interface {
	// BlobFrom opens the bytes of desc from offset on; what it gives is not
	// verified. offset is less than desc.Size.
	BlobFrom(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error)
}

const (
	// partialPrefix begins the names of files with the first bytes of a blob,
	// which the next try goes on from.
	partialPrefix = ownDir + "/part-"
	// minPartial is the size of a blob that is worth it: smaller ones are
	// fetched anew sooner than they are looked for.
	minPartial = 64 << 10 // 64 KiB
)

// errOccupied reports a partial file that another process writes.
var errOccupied = errors.New("another process fetches this blob")

// Keep gives what is staged its names, though index.json does not name it, so
// that a later try finds it. [Layout.GC] takes it when nobody came back.
func (s *Stage) Keep() error {
	if err := s.publish(); err != nil {
		return fmt.Errorf("edit %s: %w", s.l.dir, readOnly(err))
	}
	return nil
}

// resume fetches desc into a file that outlives this process, going on from
// what an earlier one has left, and makes it a blob of the layout. Its bytes
// are all hashed, those of before too.
func (s *Stage) resume(ctx context.Context, src Resumer, desc ocispec.Descriptor, copied func(n int64)) error {
	f, name, err := s.openPartial(desc.Digest)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // gives back the lock; the bytes are synced where they count
	for {
		begun, err := s.fill(ctx, f, src, desc, copied)
		if err == nil {
			break
		}
		if !errors.Is(err, ErrMismatch) {
			return &BlobError{Op: "copy", Desc: desc, Err: err}
		}
		// Nothing of it can be trusted.
		if terr := f.Truncate(0); terr != nil {
			return errors.Join(err, terr)
		}
		if begun == 0 {
			return errors.Join(&BlobError{Op: "copy", Desc: desc, Err: err}, s.l.root.Remove(name))
		}
	}
	return s.adopt(f, name, desc.Digest)
}

// openPartial opens and locks the file for the first bytes of d.
func (s *Stage) openPartial(d digest.Digest) (f *os.File, name string, err error) {
	name = partialPrefix + d.Algorithm().String() + "-" + d.Encoded()
	f, err = s.l.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_NONBLOCK, 0o600)
	if errors.Is(err, fs.ErrExist) {
		f, _, err = s.l.openRegular(s.l.root, name, os.O_RDWR)
	}
	if err != nil {
		return nil, "", err
	}
	ok, err := durable.TryLock(f, durable.Exclusive)
	if err == nil && !ok {
		err = errOccupied
	}
	if err == nil {
		// Whoever had the lock before may have made it a blob.
		var mine, named fs.FileInfo
		if mine, err = f.Stat(); err == nil {
			if named, err = s.l.root.Lstat(name); err != nil || !os.SameFile(mine, named) {
				err = errOccupied
			}
		}
	}
	if err != nil {
		return nil, "", errors.Join(err, f.Close())
	}
	return f, name, nil
}

// fill hashes what f holds and fetches the rest. begun is how much was there.
func (s *Stage) fill(ctx context.Context, f *os.File, src Resumer, desc ocispec.Descriptor, copied func(n int64)) (begun int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if begun = info.Size(); begun > desc.Size {
		begun = 0
		if err := f.Truncate(0); err != nil {
			return 0, err
		}
	}
	digester := desc.Digest.Algorithm().Digester()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return begun, err
	}
	if err := hashPrefix(ctx, f, begun, digester.Hash(), copied); err != nil {
		return begun, err
	}
	n := begun
	if begun < desc.Size {
		rc, err := src.BlobFrom(ctx, desc, begun)
		if err != nil {
			return begun, err
		}
		defer rc.Close() //nolint:errcheck // only read
		k, err := copyHashing(ctx, f, io.LimitReader(rc, desc.Size-begun+1), digester.Hash(), copied)
		if n += k; err != nil {
			return begun, err
		}
		if n < desc.Size {
			return begun, io.ErrUnexpectedEOF // what is there stays for the next try
		}
	}
	if n != desc.Size || digester.Digest() != desc.Digest {
		if copied != nil {
			copied(-min(n, desc.Size)) // it begins again, or ends
		}
		return begun, fmt.Errorf("%w: %d bytes hash to %s, want %d bytes", ErrMismatch, n, digester.Digest(), desc.Size)
	}
	return begun, nil
}

func hashPrefix(ctx context.Context, f *os.File, size int64, h hash.Hash, copied func(n int64)) error {
	buf := make([]byte, copyBuffer)
	for n := int64(0); n < size; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		k, err := io.ReadFull(f, buf[:min(size-n, copyBuffer)])
		if err != nil {
			return err
		}
		h.Write(buf[:k])
		n += int64(k)
		if copied != nil {
			copied(int64(k))
		}
	}
	return nil
}

// adopt makes the whole file f, which is locked, the blob d.
func (s *Stage) adopt(f *os.File, name string, d digest.Digest) error {
	err := f.Chmod(fileMode)
	if err == nil {
		if err = f.Sync(); err != nil {
			// The bytes are lost, a second fsync would lie.
			return errors.Join(err, s.l.root.Remove(name))
		}
	}
	if err == nil {
		err = s.l.makeBlobDir(d.Algorithm())
	}
	if err == nil {
		err = s.l.root.Rename(name, filepath.FromSlash(BlobPath(d)))
	}
	if err == nil {
		err = durable.SyncRootDir(s.l.root, blobsDir+"/"+string(d.Algorithm()))
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.known[d] = true
	s.mu.Unlock()
	return nil
}

// sweepPartial removes partial files that nobody has written to for the grace
// time. The caller has the content lock alone.
func (l *Layout) sweepPartial(now time.Time, grace time.Duration) (removed int, err error) {
	names, err := readNames(l.root, ownDir)
	for _, name := range names {
		name = ownDir + "/" + name
		if !strings.HasPrefix(name, partialPrefix) {
			continue
		}
		info, lerr := l.root.Lstat(name)
		if lerr == nil && now.Sub(info.ModTime()) < grace {
			continue
		}
		removed++
		err = errors.Join(err, lerr, l.root.RemoveAll(name))
	}
	return removed, err
}
