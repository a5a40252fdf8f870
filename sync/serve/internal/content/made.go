package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/gardenlinux/gloci-layout/internal/tempfile"
	"github.com/gardenlinux/gloci-layout/layout"
)

const (
	// madeBuffer is how much of a blob is made at once.
	madeBuffer = 256 << 10 // 256 KiB
	// madePause is how long no blob is kept after one found no room.
	madePause = time.Minute
)

// ErrNoRoom reports a blob that could not be kept in a temporary file: it has to be
// read from its source, by [Blob.Open].
var ErrNoRoom = errors.New("no room for a temporary file")

// made are the blobs that only their source can read, such as what patches make,
// as far as they are kept: each is made once, into a temporary file without a name.
type made struct {
	limit   int64         // of the sizes of all files
	working chan struct{} // one for each blob that may be made at once

	mu    sync.Mutex
	files map[*Blob]*Making
	used  int64     // by files, and by others that somebody still reads
	clock int64     // counts uses
	pause time.Time // until then nothing more is kept
	told  bool      // the log has it that there is no room
}

func newMade(limit int64) made {
	return made{limit: limit, working: make(chan struct{}, runtime.GOMAXPROCS(0)), files: map[*Blob]*Making{}}
}

// A Making is a blob that is made, or was made and is kept. Whoever has it releases
// it.
type Making struct {
	store *Store
	blob  *Blob

	// Guarded by made.mu.
	refs    int   // who has it, and one for who makes it
	used    int64 // when it was used last
	dropped bool  // not in made.files any more
	counted bool  // in the metrics, as a file

	idle context.Context    //nolint:containedctx // ends when it need not be begun any more
	stop context.CancelFunc // of idle

	mu      sync.Mutex
	begun   bool
	file    *os.File
	written int64         // bytes of file
	more    chan struct{} // closed when more was written

	done chan struct{}
	err  error // once done is closed
}

// Make has b made into a temporary file, or finds that it is or was. The file is
// verified when it is whole. It returns nil if there is no room for it: then
// [Blob.Open] has to serve. What was begun is brought to its end, for who asks
// next.
func (s *Store) Make(held *Set, b *Blob) *Making {
	d := &s.made
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clock++
	if m := d.files[b]; m != nil {
		m.refs++
		m.used = d.clock
		return m
	}
	if b.Size > d.limit || now().Before(d.pause) {
		return nil
	}
	for d.used+b.Size > d.limit {
		if !s.evict() {
			return nil
		}
	}
	m := &Making{store: s, blob: b, refs: 2, used: d.clock, more: make(chan struct{}), done: make(chan struct{})}
	m.idle, m.stop = context.WithCancel(s.life)
	d.files[b] = m
	d.used += b.Size
	s.hold(held)
	s.wait.Go(func() {
		m.err = m.make()
		m.ended()
		close(m.done)
		s.Release(held)
	})
	return m
}

// evict drops the file that nobody has used for the longest time, and nobody uses
// now. It tells whether there was one. The mutex of made is locked.
func (s *Store) evict() bool {
	var oldest *Making
	for _, m := range s.made.files {
		if m.refs == 0 && (oldest == nil || m.used < oldest.used) {
			oldest = m
		}
	}
	if oldest == nil {
		return false
	}
	s.Counters.MadeEvicted.Add(1)
	oldest.drop()
	return true
}

// drop gives m up: who has it may go on. The mutex of made is locked.
func (m *Making) drop() {
	if !m.dropped {
		m.dropped = true
		delete(m.store.made.files, m.blob)
	}
	m.free()
}

// free closes the file, if m was dropped and nobody has it. The mutex of made is locked.
func (m *Making) free() {
	if !m.dropped || m.refs > 0 {
		return
	}
	d := &m.store.made
	d.used -= m.blob.Size
	if m.counted {
		m.store.Counters.MadeFiles.Add(-1)
		m.store.Counters.MadeBytes.Add(-m.blob.Size)
	}
	if m.file != nil {
		_ = m.file.Close() // it has no name: whatever became of it is lost anyway
	}
}

// Release gives m back.
func (m *Making) Release() {
	d := &m.store.made
	d.mu.Lock()
	defer d.mu.Unlock()
	m.refs--
	m.mu.Lock()
	begun := m.begun
	m.mu.Unlock()
	if m.refs == 1 && !begun { // nobody waits for it
		m.stop()
		m.drop()
	}
	m.free()
}

// ended takes note of how the making ended.
func (m *Making) ended() {
	s, err := m.store, m.err
	d := &s.made
	d.mu.Lock()
	defer d.mu.Unlock()
	m.refs--
	m.stop()
	switch {
	case err == nil:
		d.told = false
		m.counted = true
		s.Counters.MadeFiles.Add(1)
		s.Counters.MadeBytes.Add(m.blob.Size)
		s.Counters.Made.Add(1)
		s.Counters.Verified.Add(1)
		s.Counters.VerifiedBytes.Add(m.blob.Size)
		m.free() // it may be that it was dropped meanwhile
		return
	case errors.Is(err, ErrNoRoom):
		s.Counters.MadeFailed.Add(1)
		if !d.told {
			s.opts.Log.Warn("what patches make is not kept for now, but made for each request", "digest", m.blob.Digest, "size", m.blob.Size, "error", err)
		}
		d.told, d.pause = true, now().Add(madePause)
	case errors.Is(err, layout.ErrMismatch):
		s.Counters.Damaged.Add(1)
	}
	m.drop()
}

// keep drops what live does not want.
func (d *made) keep(live func(*Blob) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for b, m := range d.files {
		if !live(b) {
			m.drop()
		}
	}
}

// make makes the file.
func (m *Making) make() error {
	s := m.store
	select {
	case s.made.working <- struct{}{}:
		defer func() { <-s.made.working }()
	case <-m.idle.Done():
		return context.Cause(m.idle)
	}
	m.mu.Lock()
	m.begun = m.idle.Err() == nil
	begun := m.begun
	m.mu.Unlock()
	if !begun {
		return context.Cause(m.idle)
	}
	f, err := m.create()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoRoom, err)
	}
	m.mu.Lock()
	m.file = f
	m.mu.Unlock()
	err = m.write(f)
	if errors.Is(err, syscall.ENOSPC) && !errors.Is(err, ErrNoRoom) {
		// Patches need temporary files of their own, which have no room beside ours.
		s.evictAll()
		err = fmt.Errorf("%w: %w", ErrNoRoom, err)
	}
	return err
}

// create makes the file, with room for the blob if the system can promise it.
// Other blobs make way for it.
func (m *Making) create() (*os.File, error) {
	f, err := tempfile.New("")
	if err != nil {
		return nil, err
	}
	for {
		err := Reserve(f, m.blob.Size)
		if err == nil {
			return f, nil
		}
		d := &m.store.made
		d.mu.Lock()
		more := errors.Is(err, syscall.ENOSPC) && m.store.evict()
		d.mu.Unlock()
		if !more {
			return nil, errors.Join(err, f.Close())
		}
	}
}

// Reserve takes room for a file. Tests have a file system that cannot.
var Reserve = tempfile.Reserve

func (s *Store) evictAll() {
	s.made.mu.Lock()
	defer s.made.mu.Unlock()
	for s.evict() {
	}
}

// write fills the file, and tells those who follow.
func (m *Making) write(f *os.File) (err error) {
	rc, err := m.blob.Open(m.store.life)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	buf := make([]byte, madeBuffer)
	for at := int64(0); ; {
		n, err := rc.Read(buf)
		if _, err := f.WriteAt(buf[:n], at); err != nil {
			return fmt.Errorf("%w: %w", ErrNoRoom, err)
		}
		at += int64(n)
		m.progress(at)
		if err == io.EOF { // itself: a wrapped one is an error
			return nil
		}
		if err != nil {
			return err
		}
	}
}
