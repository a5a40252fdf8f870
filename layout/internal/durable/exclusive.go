package durable

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
)

// ErrHeld reports a lock file that another process has made and not removed.
var ErrHeld = errors.New("lock file is there")

// LockFile makes the file name in root, which must not exist, and returns what
// removes it. It is a lock where flock reaches this machine only. The file says
// who made it. It waits up to patience; a file that is there by then, perhaps
// because its maker died, is [ErrHeld]: it is never broken, for nobody can know.
func LockFile(ctx context.Context, root *os.Root, name string, patience time.Duration) (unlock func() error, err error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	delay := 5 * time.Millisecond
	for {
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err == nil {
			host, herr := os.Hostname()
			_, werr := fmt.Fprintf(f, "host %s\npid %d\nboot %s\n", host, os.Getpid(), strings.TrimSpace(bootID()))
			if err := errors.Join(herr, werr, f.Close()); err != nil {
				return nil, errors.Join(err, root.Remove(name))
			}
			return func() error { return root.Remove(name) }, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		pause := time.NewTimer(delay)
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil, context.Cause(ctx)
		case <-timer.C:
			pause.Stop()
			owner, rerr := root.ReadFile(name)
			if rerr != nil {
				continue // it has just gone
			}
			return nil, fmt.Errorf("%s: %w, of %s", name, ErrHeld, strings.Join(strings.Fields(string(owner)), " "))
		case <-pause.C:
		}
		delay = min(2*delay, 200*time.Millisecond)
	}
}
