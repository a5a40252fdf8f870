//go:build !linux

package durable

import (
	"errors"
	"os"
)

// CanSyncFS tells whether SyncFS can be used: only on Linux.
func CanSyncFS(*os.File) bool { return false }

// SyncFS is for Linux only.
func SyncFS(*os.File) error { return errors.ErrUnsupported }
