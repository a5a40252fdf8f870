package layout_test

import (
	"testing"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/sourcetest"
)

// A directory keeps the guarantees of a source; package archive runs the same
// tests on archives.
func TestDirectoryIsSource(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T, dir string) layout.Source {
		l, err := layout.Open(t.Context(), dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	})
}
