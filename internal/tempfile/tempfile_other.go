//go:build !linux

package tempfile

import (
	"errors"
	"os"
)

func unnamed(string) (*os.File, error) { return nil, errors.ErrUnsupported }

// Reserve takes the room for size bytes of f, where the system can. Here it
// cannot.
func Reserve(*os.File, int64) error { return nil }
