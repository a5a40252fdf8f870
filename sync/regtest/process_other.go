//go:build !linux

package regtest

import "syscall"

// dieWithParent has no portable form: a test binary that is killed leaves its
// registry behind.
func dieWithParent() *syscall.SysProcAttr { return nil }

// tempDir is where the registry keeps its content: the default.
func tempDir() string { return "" }
