// Package tempfile makes temporary files that have no name, so that nothing is
// left behind, however the process ends.
package tempfile

import (
	"errors"
	"os"
)

// New makes an empty file in dir, or in [os.TempDir] if that is "". Its room is free
// again once it is closed. What its Name returns is for messages.
func New(dir string) (*os.File, error) {
	if dir == "" {
		dir = os.TempDir()
	}
	f, err := unnamed(dir)
	if !errors.Is(err, errors.ErrUnsupported) {
		return f, err
	}
	return removed(dir)
}

// removed makes a file and takes its name away at once.
func removed(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "gloci-layout-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
