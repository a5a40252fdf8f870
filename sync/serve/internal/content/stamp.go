package content

import (
	"os"
	"time"
)

// A Stamp is the state of a file as far as the file system tells it. The zero
// Stamp is that of no file.
type Stamp struct {
	device, inode  uint64
	links          uint64
	size           int64
	mtime, changed int64 // nanoseconds since 1970; changed is the ctime
}

// sameContent tells whether a file that is open has kept its content from one state
// to the other. Whoever takes away its name, as by a rename over it, changes the
// ctime, and the number of links; whoever writes changes the mtime.
func (s Stamp) sameContent(later Stamp) bool {
	if s.links != later.links {
		later.links, later.changed = s.links, s.changed
	}
	return s == later
}

// Unsettled is how long the times of a file may stay the same though it is
// written: the clock of a file system ticks slowly. Tests make it shorter.
var Unsettled = time.Second

// settled tells whether a write after t would have given the file other times.
func (s Stamp) settled(t time.Time) bool {
	last := max(s.mtime, s.changed)
	return last < t.Add(-Unsettled).UnixNano()
}

func stampOf(f *os.File) (Stamp, error) {
	info, err := f.Stat()
	if err != nil {
		return Stamp{}, err
	}
	return stampInfo(info), nil
}

// StampsOf returns the state of the files with these names. A file that
// cannot be looked at has the zero stamp: what is wrong with it shows when it
// is opened.
func StampsOf(names []string) []Stamp {
	stamps := make([]Stamp, len(names))
	for i, name := range names {
		if info, err := os.Stat(name); err == nil {
			stamps[i] = stampInfo(info)
		}
	}
	return stamps
}
