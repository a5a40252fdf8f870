package parts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/internal/durable"
	"github.com/gardenlinux/gloci-layout/layout/internal/hashing"
)

const (
	writeBehind = 16 << 20  // 16 MiB between two hints to the kernel
	compareSize = 256 << 10 // 256 KiB: what is compared at once
	lockName    = "lock"
)

// A Writer splits what is written to it. It is for one goroutine.
//
// What an earlier attempt has left is compared with what is written, and kept as
// far as it is the same, so that an attempt which was killed costs no second
// writing: unfinished parts of the working directory, and parts of a finished
// split, of which a damaged or missing one is made anew.
type Writer struct {
	file     string // the whole, which is never there
	partSize int64
	work     string   // the working directory
	lock     *os.File // in it
	old      *Manifest

	whole, part *hashing.Hasher
	size        int64
	list        []written
	cur         *partWriter
	buf         []byte
}

// written is a part that is whole.
type written struct {
	Part
	path string // in the working directory, or of a part of the split that is there
}

// Create begins to split file into parts of partSize bytes. There must be no
// file of that name, which readers would take for what is in the parts:
// [layout.ErrExists]. If another process writes parts of file the error is
// [layout.ErrConflict]. Close must be called.
func Create(file string, partSize int64) (*Writer, error) {
	if partSize < 1 {
		return nil, fmt.Errorf("%w: parts of %d bytes", layout.ErrInvalid, partSize)
	}
	if err := checkName(partName(filepath.Base(file), "sha256:00000000", 1, 1)); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(file); err == nil {
		return nil, layout.WithHint(fmt.Errorf("%s: %w", file, layout.ErrExists), "remove it first: it would be read in place of its parts")
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	w := &Writer{file: file, partSize: partSize, buf: make([]byte, compareSize)}
	w.work = filepath.Join(filepath.Dir(file), "."+filepath.Base(file)+".tmp-split")
	if err := w.open(); err != nil {
		var named *fs.PathError
		if errors.As(err, &named) {
			named.Path = file // what the caller knows it by
		}
		return nil, err
	}
	// One that cannot be read is replaced like any other.
	w.old, _ = ReadManifest(file + layout.PartsSuffix)
	w.whole, w.part = hashing.New(), hashing.New()
	return w, nil
}

// Work returns the path of the working directory.
func (w *Writer) Work() string { return w.work }

// open makes the working directory, or takes the one that is there.
func (w *Writer) open() error {
	for {
		if err := os.Mkdir(w.work, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		lock, err := os.OpenFile(filepath.Join(w.work, lockName), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			continue // its owner has just removed it
		}
		if err != nil {
			_ = os.Remove(w.work) // unless there is something in it
			return err
		}
		ok, err := durable.TryLock(lock, durable.Exclusive)
		if err == nil && !ok {
			err = fmt.Errorf("%s: %w: another process is writing its parts", w.file, layout.ErrConflict)
		}
		if err != nil {
			return errors.Join(err, lock.Close())
		}
		// The one who had the lock may have removed the file by now.
		mine, err := lock.Stat()
		if err == nil {
			if at, aerr := os.Lstat(lock.Name()); aerr == nil && os.SameFile(mine, at) {
				w.lock = lock
				return nil
			}
		}
		if err := errors.Join(err, lock.Close()); err != nil {
			return err
		}
	}
}

// Write implements [io.Writer].
func (w *Writer) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		if w.cur == nil {
			if err := w.next(); err != nil {
				return n, err
			}
		}
		k, err := w.cur.write(p[:min(int64(len(p)), w.partSize-w.cur.pos)], w.buf)
		if k > 0 {
			_, _ = w.part.Write(p[:k]) // never an error
			_, _ = w.whole.Write(p[:k])
		}
		n, p = n+k, p[k:]
		w.size += int64(k)
		if err != nil {
			if errors.Is(err, syscall.EFBIG) {
				err = layout.WithHint(err, "the file system takes no file so large: FAT takes 4095M")
			}
			return n, err
		}
		if w.cur.pos == w.partSize {
			if err := w.finish(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

func (w *Writer) path(n int) string { return filepath.Join(w.work, fmt.Sprintf("%03d", n)) }

// next begins the next part.
func (w *Writer) next() error {
	n := len(w.list) + 1
	if n > MaxParts {
		return tooMany(fmt.Errorf("%s: %w: more than %d parts of %d bytes", w.file, layout.ErrInvalid, MaxParts, w.partSize))
	}
	w.cur = &partWriter{path: w.path(n)}
	// A part of the split that is there is never written to.
	if w.old != nil && n <= len(w.old.Parts) {
		path := filepath.Join(filepath.Dir(w.file), w.old.Parts[n-1].Name)
		if f, err := openRegular(path, false); err == nil {
			if info, err := f.Stat(); err == nil && info.Size() == w.old.Parts[n-1].Size {
				w.cur.from, w.cur.have = f, info.Size()
				return nil
			}
			if err := f.Close(); err != nil {
				return err
			}
		}
	}
	return w.cur.open(0)
}

func tooMany(err error) error { return layout.WithHint(err, "split into larger parts") }

// finish ends the current part.
func (w *Writer) finish() error {
	cur := w.cur
	w.cur = nil
	path, err := cur.finish()
	if err != nil {
		return err
	}
	w.list = append(w.list, written{Part{Digest: w.part.Sum(), Size: cur.pos}, path})
	return nil
}

// Commit gives the parts their names and then writes the manifest, which it
// returns. Parts of an earlier split of the file are removed then. After an
// error the earlier split is what it was.
func (w *Writer) Commit(ctx context.Context) (*Manifest, error) {
	if w.cur != nil {
		if err := w.finish(); err != nil {
			return nil, err
		}
	}
	if len(w.list) == 0 {
		return nil, fmt.Errorf("%s: %w: nothing to split", w.file, layout.ErrInvalid)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	m := &Manifest{Digest: w.whole.Sum(), Size: w.size}
	for i, p := range w.list {
		p.Name = partName(filepath.Base(w.file), m.Digest, i+1, len(w.list))
		m.Parts = append(m.Parts, p.Part)
	}
	if err := w.place(m); err != nil {
		return nil, err
	}
	return m, w.sweep(m)
}

// place names the parts and writes the manifest.
func (w *Writer) place(m *Manifest) (err error) {
	dir := filepath.Dir(w.file)
	var placed []string // and not part of the split that was there
	defer func() {
		if err != nil {
			for _, path := range placed {
				err = errors.Join(err, os.Remove(path))
			}
		}
	}()
	for i, p := range w.list {
		to := filepath.Join(dir, m.Parts[i].Name)
		if p.path == to {
			continue
		}
		if filepath.Dir(p.path) != w.work {
			// The same bytes in a split that is another as a whole.
			if err := copyFile(w.path(i+1), p.path); err != nil {
				return err
			}
			p.path = w.path(i + 1)
		}
		if err := os.Rename(p.path, to); err != nil {
			return err
		}
		if w.old == nil || !slices.ContainsFunc(w.old.Parts, func(o Part) bool { return o.Name == m.Parts[i].Name }) {
			placed = append(placed, to)
		}
	}
	if err := durable.SyncDir(dir); err != nil {
		return err
	}
	f, err := durable.Replace(w.file + layout.PartsSuffix)
	if err != nil {
		return err
	}
	defer f.Discard() //nolint:errcheck // does nothing after Commit; else an error is returned already
	if _, err := f.Write(m.Bytes()); err != nil {
		return err
	}
	err = f.Commit(0o644)
	if now, rerr := ReadManifest(w.file + layout.PartsSuffix); rerr == nil && now.Digest == m.Digest {
		placed = nil // it is in its place, and only the sync behind it failed
	}
	return err
}

func copyFile(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close() //nolint:errcheck // only read
	dst, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(dst, src); err != nil {
		return errors.Join(err, dst.Close())
	}
	return durable.Finish(dst, 0o644)
}

// sweep removes parts of other splits of the file: by their names they are of
// nothing else, and no manifest names them any more.
func (w *Writer) sweep(m *Manifest) error {
	dir := filepath.Dir(w.file)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		of := Of(e.Name())
		if of != filepath.Base(w.file)+layout.PartsSuffix || !e.Type().IsRegular() ||
			slices.ContainsFunc(m.Parts, func(p Part) bool { return p.Name == e.Name() }) {
			continue
		}
		errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}

// Close ends the writing. keep leaves unfinished parts in the working directory,
// for the next attempt to go on with; else it is removed, as it is after Commit.
func (w *Writer) Close(keep bool) error {
	w.whole.Stop()
	w.part.Stop()
	var errs []error
	if w.cur != nil {
		errs = append(errs, w.cur.close())
	}
	if !keep {
		// RemoveAll would take the lock from somebody who waits for it.
		entries, err := os.ReadDir(w.work)
		errs = append(errs, err)
		for _, e := range entries {
			if e.Name() != lockName {
				errs = append(errs, os.Remove(filepath.Join(w.work, e.Name())))
			}
		}
		errs = append(errs, os.Remove(w.lock.Name()), os.Remove(w.work))
	}
	return errors.Join(append(errs, w.lock.Close())...)
}

// Expect tells whether size bytes may be split into parts of partSize bytes:
// [layout.ErrInvalid] if there were too many of them.
func Expect(size, partSize int64) error {
	if n := (size-1)/partSize + 1; n > MaxParts {
		least := (size-1)/MaxParts + 1
		return layout.WithHint(fmt.Errorf("%w: %d parts of %d bytes, more than %d", layout.ErrInvalid, n, partSize, MaxParts),
			fmt.Sprintf("parts of at least %d bytes (%dM)", least, (least-1)>>20+1))
	}
	return nil
}
