package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/gardenlinux/gloci-layout/cmd/gloci-layout/internal/cmdline"
	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/gardenlinux"
)

// Exit statuses. They are API: docs/cli.md documents them.
const (
	exitOK          = 0
	exitNo          = 1
	exitFailed      = 2
	exitNotFound    = 3
	exitAmbiguous   = 4
	exitMismatch    = 5
	exitConflict    = 6
	exitUsage       = 64
	exitInterrupted = 130
)

var exitStatuses = []cmdline.ExitStatus{
	{Status: exitOK, Meaning: "done; the answer is yes (sound, equal)"},
	{Status: exitNo, Meaning: "the answer is no: verify found damage, lint an error, diff a difference, resolve a program that would fail"},
	{Status: exitFailed, Meaning: "failed"},
	{Status: exitNotFound, Meaning: "not found: a file, directory, ref name or digest"},
	{Status: exitAmbiguous, Meaning: "ambiguous: the candidates are listed"},
	{Status: exitMismatch, Meaning: "content does not match its descriptor, or a document is invalid"},
	{Status: exitConflict, Meaning: "conflict: entries would be lost, something is in the way, or a path is unsafe"},
	{Status: exitUsage, Meaning: "the command line is wrong"},
	{Status: exitInterrupted, Meaning: "interrupted"},
}

var (
	// errAnswerIsNo ends a command that did its work and whose answer is no.
	errAnswerIsNo  = errors.New("the answer is no")
	errInterrupted = errors.New("interrupted")
)

// exitStatus picks the status for an error that is reported.
func exitStatus(err error) int {
	var usage *cmdline.UsageError
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, errInterrupted), errors.Is(err, context.Canceled):
		return exitInterrupted
	// A missing oci-layout file is both, and says less about the directory.
	case errors.Is(err, layout.ErrNotLayout), errors.Is(err, layout.ErrReadOnly):
		return exitFailed
	case errors.Is(err, layout.ErrAmbiguous):
		return exitAmbiguous
	case errors.Is(err, layout.ErrMismatch), errors.Is(err, layout.ErrInvalid),
		errors.Is(err, compress.ErrCorrupt), errors.Is(err, compress.ErrLimit), errors.Is(err, gardenlinux.ErrRelease):
		return exitMismatch
	case errors.Is(err, layout.ErrConflict), errors.Is(err, layout.ErrUnsafe), errors.Is(err, layout.ErrExists),
		errors.Is(err, gardenlinux.ErrDisagree):
		return exitConflict
	case errors.Is(err, layout.ErrNotFound), errors.Is(err, fs.ErrNotExist), errors.Is(err, gardenlinux.ErrMissing):
		return exitNotFound
	default:
		return exitFailed
	}
}

// report writes err and what is known to cure it.
func (e *env) report(err error) {
	lines := strings.Split(err.Error(), "\n")
	var b strings.Builder
	fmt.Fprintf(&b, "gloci-layout: %s\n", clean(lines[0]))
	for _, l := range lines[1:] {
		fmt.Fprintf(&b, "  %s\n", clean(strings.TrimSpace(l)))
	}
	if h := hint(err); h != "" {
		fmt.Fprintf(&b, "hint: %s\n", clean(h))
	}
	_, _ = fmt.Fprint(e.stderr, b.String()) // there is nowhere left to complain
}

func hint(err error) string {
	var with *layout.HintError
	if errors.As(err, &with) {
		return with.Hint
	}
	var usage *cmdline.UsageError
	if errors.As(err, &usage) {
		return usage.Hint
	}
	return ""
}
