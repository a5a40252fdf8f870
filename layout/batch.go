package layout

import (
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gardenlinux/gloci-layout/layout/internal/durable"
)

// Blobs are forced to the disk together, before the first of them gets its
// name: a few one by one, many with one call for the whole file system, where
// the system can do that and tells of errors. One by one, a thousand small
// blobs would wait for a thousand commits of the file system's journal.
const (
	// batchLeast is how many staged blobs are many.
	batchLeast = 16
	// batchLargest is the size of the largest blob that waits for others.
	batchLargest = 32 << 20 // 32 MiB
)

// finish gives a staged file its mode and closes it. Its bytes are on the disk
// once syncStaged has returned without error.
func (s *Stage) finish(f *os.File, size int64) error {
	if !s.batch || size > batchLargest {
		return durable.Finish(f, fileMode)
	}
	if err := f.Chmod(fileMode); err != nil {
		return errors.Join(err, f.Close())
	}
	return s.settle(f, size)
}

// settle is finish for a file that has its mode.
func (s *Stage) settle(f *os.File, size int64) error {
	if !s.batch {
		return errors.Join(f.Sync(), f.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unsynced++; s.unsynced > batchLeast {
		durable.WriteBehind(f, 0, size)
		return errors.Join(s.closeWaiting(), f.Close())
	}
	s.waiting = append(s.waiting, f)
	return nil
}

// closeWaiting closes the files that are kept open to be synced one by one.
func (s *Stage) closeWaiting() error {
	var err error
	for _, f := range s.waiting {
		err = errors.Join(err, f.Close())
	}
	s.waiting = nil
	return err
}

// syncStaged forces all staged bytes to the disk. After an error the stage is
// of no use any more: they may be lost, and a second sync would not tell.
func (s *Stage) syncStaged() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return s.failed
	}
	var err error
	if s.unsynced > batchLeast {
		err = durable.SyncFS(s.dir)
	} else {
		for _, f := range s.waiting {
			err = errors.Join(err, f.Sync())
		}
	}
	err = errors.Join(err, s.closeWaiting())
	s.unsynced = 0
	if err != nil {
		s.failed = fmt.Errorf("edit %s: %w", s.l.dir, err)
	}
	return s.failed
}

// rename gives the staged file name the name of the blob d.
func (s *Stage) rename(name string, d digest.Digest) error {
	to := s.l.blobDir(d.Algorithm())
	if to == nil {
		return fmt.Errorf("blobs/%s: %w", d.Algorithm(), ErrNotFound)
	}
	source, err := s.dir.SyscallConn()
	if err != nil {
		return err
	}
	target, err := to.SyscallConn()
	if err != nil {
		return err
	}
	var rerr, terr error
	err = source.Control(func(from uintptr) {
		terr = target.Control(func(to uintptr) {
			rerr = ignoringEINTR(func() error { return unix.Renameat(int(from), name, int(to), d.Encoded()) })
		})
	})
	if rerr != nil {
		rerr = &os.LinkError{Op: "rename", Old: s.temp + "/" + name, New: BlobPath(d), Err: rerr}
	}
	return errors.Join(err, terr, rerr)
}

func ignoringEINTR(fn func() error) error {
	for {
		if err := fn(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
