package extract_test

import (
	"fmt"
	"os"
	"testing"
)

// TestMain has the tests work in memory where they can: thousands of hostile
// trees are made and removed, and a disk has nothing to say to what they show.
func TestMain(m *testing.M) {
	if os.Getenv("TMPDIR") == "" {
		dir := fmt.Sprintf("/dev/shm/x%d", os.Getpid()) // podman wants short paths
		if err := os.Mkdir(dir, 0o777); err == nil {
			if err := os.Chmod(dir, 0o777); err == nil { // other users run some tests
				_ = os.Setenv("TMPDIR", dir)
			}
			status := m.Run()
			_ = os.RemoveAll(dir)
			os.Exit(status)
		}
	}
	os.Exit(m.Run())
}
