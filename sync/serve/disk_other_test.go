//go:build !linux

package serve_test

import "testing"

func smallDisk(t *testing.T, _ string, _ int) {
	t.Helper()
	t.Skip("NOT TESTED: a full disk: there is no tmpfs")
}
