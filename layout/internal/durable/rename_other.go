//go:build !linux

package durable

import "os"

// RenameNoReplace renames from to to, which must not exist (fs.ErrExist).
func RenameNoReplace(from, to string) error { return renameChecked(from, to) }

// WriteBehind does nothing here: the fsync at the end writes all.
func WriteBehind(*os.File, int64, int64) {}

// Clone does nothing here: false means that the bytes have to be copied.
func Clone(_, _ *os.File) bool { return false }

// Link gives a file a further name, on Linux only.
func Link(_, _ *os.File, _ string) bool { return false }
