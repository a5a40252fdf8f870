//go:build !linux

package durable

import "os"

// OnNetwork is not known here: false.
func OnNetwork(*os.File) bool { return false }

// Sparse is not known here: false.
func Sparse(*os.File) bool { return false }

func bootID() string { return "" }
