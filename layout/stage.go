package layout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout/internal/durable"
)

// A Stage collects blobs that are to become part of a layout. Until
// [Stage.Update] nobody sees them; [Stage.Close] throws them away. While it is
// open, [Layout.GC] waits. It is a [Source] of what is staged and stored, and
// may be used by several goroutines, Update and Close apart.
type Stage struct {
	l    *Layout
	lock *os.File // the content lock, shared
	temp string   // our directory below ownDir
	root *os.Root // of temp
	dir  *os.File // the same

	mu     sync.Mutex
	staged map[digest.Digest]stagedBlob
	order  []digest.Digest // of staging: children before parents
	known  map[digest.Digest]bool
	next   int

	batch    bool       // blobs may wait for others to be synced
	unsynced int        // how many do
	waiting  []*os.File // those, open, while they are few
	failed   error      // of a sync
}

type stagedBlob struct {
	name string // in temp
	size int64
}

// Stage begins an edit. It fails with [ErrReadOnly] where the layout cannot be
// written, and waits while [Layout.GC] runs.
func (l *Layout) Stage(ctx context.Context) (*Stage, error) {
	s, err := l.stage(ctx)
	if err != nil {
		return nil, fmt.Errorf("edit %s: %w", l.dir, readOnly(err))
	}
	return s, nil
}

func (l *Layout) stage(ctx context.Context) (*Stage, error) {
	lock, err := l.openLock()
	if err != nil {
		return nil, err
	}
	s := &Stage{l: l, lock: lock, staged: map[digest.Digest]stagedBlob{}, known: map[digest.Digest]bool{}}
	if err := s.begin(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Stage) begin(ctx context.Context) error {
	// Whoever has the lock alone knows that every temporary file is a dead
	// writer's.
	alone, err := durable.TryLock(s.lock, durable.Exclusive)
	if err != nil {
		return err
	}
	if alone {
		if _, err := s.l.sweep(); err != nil {
			return err
		}
	}
	if err := durable.Lock(ctx, s.lock, durable.Shared); err != nil {
		return err
	}
	if s.temp, err = durable.MkdirTemp(s.l.root, tempPrefix); err != nil {
		return err
	}
	if s.root, err = s.l.root.OpenRoot(s.temp); err != nil {
		return err
	}
	// Open before anything is written: SyncFS tells of errors since then.
	if s.dir, err = s.root.Open("."); err == nil {
		s.batch = durable.CanSyncFS(s.dir)
	}
	return err
}

// Close ends the edit; what was not committed is gone.
func (s *Stage) Close() error {
	err := s.closeWaiting()
	if s.dir != nil {
		err = errors.Join(err, s.dir.Close())
	}
	if s.root != nil {
		err = errors.Join(err, s.root.Close())
	}
	if s.temp != "" {
		err = errors.Join(err, s.l.root.RemoveAll(s.temp))
	}
	s.temp, s.root, s.dir = "", nil, nil
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close()) // and with it the lock
		s.lock = nil
	}
	return err
}

// Add stages what r gives and returns its descriptor, with a sha256 digest.
// Each byte is hashed once, on its way to the disk.
func (s *Stage) Add(ctx context.Context, r io.Reader, mediaType string) (ocispec.Descriptor, error) {
	desc := ocispec.Descriptor{MediaType: mediaType}
	err := s.create(func(f *os.File) (digest.Digest, int64, error) {
		digester := digest.SHA256.Digester()
		n, err := copyHashing(ctx, f, r, digester.Hash(), nil)
		desc.Digest, desc.Size = digester.Digest(), n
		return desc.Digest, n, err
	})
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("add %s: %w", mediaType, err)
	}
	return desc, nil
}

// AddBytes stages data.
func (s *Stage) AddBytes(ctx context.Context, data []byte, mediaType string) (ocispec.Descriptor, error) {
	return s.Add(ctx, bytes.NewReader(data), mediaType)
}

// AddExpect stages what r gives, which must be the content of desc: a
// [BlobError] with [ErrMismatch] if it is not. Content that the layout holds
// whole already is not read from r.
func (s *Stage) AddExpect(ctx context.Context, r io.Reader, desc ocispec.Descriptor) error {
	_, err := s.addExpect(ctx, desc, nil, func() (io.ReadCloser, error) { return io.NopCloser(r), nil })
	return err
}

func (s *Stage) addExpect(ctx context.Context, desc ocispec.Descriptor, copied func(n int64), open func() (io.ReadCloser, error)) (added bool, err error) {
	if _, err := ParseDigest(string(desc.Digest)); err != nil {
		return false, err
	}
	if have, err := s.holds(ctx, desc); have || err != nil {
		return false, err
	}
	r, err := open()
	if err != nil {
		return false, err
	}
	defer r.Close() //nolint:errcheck // only read
	err = s.create(func(f *os.File) (digest.Digest, int64, error) {
		v := VerifyReader(ctx, r, desc)
		n, err := copyHashing(ctx, f, v, nil, copied)
		return desc.Digest, n, err
	})
	if err != nil {
		var named *BlobError
		if !errors.As(err, &named) {
			err = &BlobError{Op: "add", Desc: desc, Err: err}
		}
		return false, err
	}
	return true, nil
}

// holds tells whether desc's content is staged, or stored and whole. A file is
// trusted after its bytes were hashed, never by its name and size: a crash of
// another tool may have left zeros there.
func (s *Stage) holds(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	s.mu.Lock()
	blob, staged := s.staged[desc.Digest]
	known := s.known[desc.Digest]
	s.mu.Unlock()
	if staged && blob.size != desc.Size {
		return false, &BlobError{Op: "add", Desc: desc, Err: fmt.Errorf("%w: %d bytes, want %d", ErrMismatch, blob.size, desc.Size)}
	}
	if staged || known {
		return true, nil
	}
	info, err := s.l.stat(desc.Digest)
	if errors.Is(err, ErrNotFound) || err == nil && info.Size() != desc.Size {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	switch err := verifyBlob(ctx, s.l, desc, nil, make([]byte, copyBuffer)); {
	case errors.Is(err, ErrMismatch), errors.Is(err, ErrNotFound):
		return false, nil // it gets healed
	case err != nil:
		return false, err
	}
	// Whoever wrote it need not have synced it, or was killed before.
	if err := s.l.syncBlob(desc.Digest); err != nil {
		return false, err
	}
	s.mu.Lock()
	s.known[desc.Digest] = true
	s.mu.Unlock()
	return true, nil
}

// AddFile stages the file at path, which may be neither a directory nor a
// device. The bytes are shared with the file where the file system can do
// that, else copied beside the hashing.
func (s *Stage) AddFile(ctx context.Context, path, mediaType string) (ocispec.Descriptor, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return ocispec.Descriptor{}, fmt.Errorf("add %s: %w", path, ErrNotFound)
	}
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("add: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: not a regular file", ErrInvalid)
	}
	desc := ocispec.Descriptor{MediaType: mediaType}
	if err == nil {
		desc.Digest, desc.Size, err = s.addSection(ctx, f, 0, info.Size(), digest.SHA256, true)
	}
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("add %s: %w", path, err)
	}
	return desc, nil
}

// addSection stages size bytes of f from off on; all of f, however long it is
// by then, if toEnd.
func (s *Stage) addSection(ctx context.Context, f *os.File, off, size int64, a digest.Algorithm, toEnd bool) (d digest.Digest, n int64, err error) {
	err = s.create(func(temp *os.File) (digest.Digest, int64, error) {
		digester := a.Digester()
		n, err = copySection(ctx, temp, f, section{off, size, toEnd}, digester.Hash(), nil)
		d = digester.Digest()
		return d, n, err
	})
	return d, n, err
}

// create stages one blob, which write puts into a new file. The file has its
// final mode when create returns, and is on the disk once syncStaged returns.
func (s *Stage) create(write func(f *os.File) (digest.Digest, int64, error)) error {
	name := s.newName()
	f, err := s.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	d, size, err := write(f)
	if err != nil {
		return errors.Join(err, f.Close(), s.root.Remove(name))
	}
	if err := s.finish(f, size); err != nil {
		return errors.Join(err, s.root.Remove(name))
	}
	return s.keep(name, d, size)
}

func (s *Stage) newName() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	return fmt.Sprintf("blob-%d", s.next)
}

// keep makes the file name the staged content of d, unless there is one.
func (s *Stage) keep(name string, d digest.Digest, size int64) error {
	s.mu.Lock()
	_, twice := s.staged[d]
	if !twice {
		s.staged[d] = stagedBlob{name: name, size: size}
		s.order = append(s.order, d)
	}
	s.mu.Unlock()
	if twice {
		return s.root.Remove(name)
	}
	return nil
}

// Has tells whether d is staged.
func (s *Stage) Has(d digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.staged[d]
	return ok
}

// String names the layout.
func (s *Stage) String() string { return s.l.String() }

// Index reads the index.json of the layout.
func (s *Stage) Index(ctx context.Context) (*Index, error) { return s.l.Index(ctx) }

// Blob opens staged content, else stored.
func (s *Stage) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	s.mu.Lock()
	blob, ok := s.staged[desc.Digest]
	s.mu.Unlock()
	if !ok {
		return s.l.Blob(ctx, desc)
	}
	return OpenBlob(ctx, desc, func(digest.Digest) (io.ReadCloser, error) { return s.root.Open(blob.name) })
}

// Stat returns what is staged, else stored, under d.
func (s *Stage) Stat(ctx context.Context, d digest.Digest) (BlobInfo, error) {
	s.mu.Lock()
	blob, ok := s.staged[d]
	s.mu.Unlock()
	if !ok {
		return s.l.Stat(ctx, d)
	}
	return BlobInfo{Digest: d, Size: blob.size}, nil
}

// Blobs lists what is stored and what is staged.
func (s *Stage) Blobs(ctx context.Context) iter.Seq2[BlobInfo, error] {
	return func(yield func(BlobInfo, error) bool) {
		s.mu.Lock()
		staged := maps.Clone(s.staged)
		s.mu.Unlock()
		var all []BlobInfo
		for info, err := range s.l.Blobs(ctx) {
			if err != nil {
				yield(info, err)
				return
			}
			if _, ok := staged[info.Digest]; !ok {
				all = append(all, info)
			}
		}
		for d, blob := range staged {
			all = append(all, BlobInfo{Digest: d, Size: blob.size})
		}
		slices.SortFunc(all, func(a, b BlobInfo) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
		for _, info := range all {
			if !yield(info, nil) {
				return
			}
		}
	}
}

// publish gives the staged blobs their names and makes those names durable.
// The caller swaps index.json after it.
func (s *Stage) publish() error {
	if err := s.syncStaged(); err != nil {
		return err
	}
	touched := map[digest.Algorithm]bool{}
	for _, d := range s.order {
		blob, ok := s.staged[d]
		if !ok {
			continue
		}
		a := d.Algorithm()
		if !touched[a] {
			if err := s.l.makeBlobDir(a); err != nil {
				return err
			}
			touched[a] = true
		}
		// Over whatever stands there: we know our bytes, not its.
		if err := s.rename(blob.name, d); err != nil {
			return err
		}
	}
	for a := range touched {
		if err := durable.SyncRootDir(s.l.root, blobsDir+"/"+string(a)); err != nil {
			return err
		}
	}
	for _, d := range s.order {
		s.known[d] = true
	}
	s.staged, s.order = map[digest.Digest]stagedBlob{}, nil
	return nil
}
