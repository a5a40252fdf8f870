package parts_test

import (
	"fmt"
	"os"
	"testing"
)

// TestMain has the tests work in memory where they can: a thousand small files
// are synced one by one, and a disk has nothing to say to what they show.
func TestMain(m *testing.M) {
	if os.Getenv("TMPDIR") == "" {
		dir := fmt.Sprintf("/dev/shm/gloci-parts-%d", os.Getpid())
		if err := os.Mkdir(dir, 0o700); err == nil {
			_ = os.Setenv("TMPDIR", dir)
			status := m.Run()
			_ = os.RemoveAll(dir)
			os.Exit(status)
		}
	}
	os.Exit(m.Run())
}
