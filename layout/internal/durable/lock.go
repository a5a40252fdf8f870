package durable

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A LockMode says who else may hold the lock.
type LockMode int

// The two modes of a lock.
const (
	Shared    LockMode = unix.LOCK_SH
	Exclusive LockMode = unix.LOCK_EX
)

// Lock waits until f is locked in mode, or ctx ends. It converts a lock that f
// holds already; a conversion is not atomic (flock(2)). The lock ends with
// [Unlock], with f's Close, or with the process.
//
// f must be open for writing: over NFS the kernel turns flock into a POSIX
// lock, which wants that for an exclusive one.
func Lock(ctx context.Context, f *os.File, mode LockMode) error {
	delay := time.Millisecond
	for {
		ok, err := TryLock(f, mode)
		if ok || err != nil {
			return err
		}
		// flock(2) could wait in the kernel, but then ctx could not end it.
		timer := time.NewTimer(delay)
		select {
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-timer.C:
		}
		delay = min(2*delay, 20*time.Millisecond)
	}
}

// TryLock is [Lock] that does not wait: false means that another holds it.
func TryLock(f *os.File, mode LockMode) (bool, error) {
	for {
		err := flock(f, int(mode)|unix.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EWOULDBLOCK):
			return false, nil
		default:
			return false, &os.PathError{Op: "lock", Path: f.Name(), Err: err}
		}
	}
}

// Unlock gives the lock back.
func Unlock(f *os.File) error {
	if err := flock(f, unix.LOCK_UN); err != nil {
		return &os.PathError{Op: "unlock", Path: f.Name(), Err: err}
	}
	return nil
}

func flock(f *os.File, how int) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := conn.Control(func(fd uintptr) { err = unix.Flock(int(fd), how) }); cerr != nil {
		return cerr
	}
	return err
}
