package layout_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gardenlinux/gloci-layout/layout"
)

// TestGCPartial keeps the beginning of a blob for as long as a blob that
// nothing names yet.
func TestGCPartial(t *testing.T) {
	l, err := layout.Create(t.Context(), filepath.Join(t.TempDir(), "l"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.GC(t.Context(), layout.GCOptions{Now: time.Now()}); err != nil {
		t.Fatal(err) // and now there is a .gloci
	}
	part := filepath.Join(l.Dir(), ".gloci", "part-sha256-00")
	if err := os.WriteFile(part, []byte("begun"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		age     time.Duration
		removed int
	}{{30 * time.Minute, 0}, {2 * time.Hour, 1}, {3 * time.Hour, 0}} {
		res, err := l.GC(t.Context(), layout.GCOptions{Now: time.Now().Add(tt.age), Grace: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		_, err = os.Lstat(part)
		if res.TempFiles != tt.removed || errors.Is(err, fs.ErrNotExist) != (tt.age > time.Hour) {
			t.Errorf("after %v: %d removed, %v", tt.age, res.TempFiles, err)
		}
	}
}
