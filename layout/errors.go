package layout

import (
	"errors"
	"fmt"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The causes that a caller decides on. Errors of this package wrap them; test
// with errors.Is.
var (
	// ErrNotFound reports a directory, ref name, digest or blob that is not there.
	ErrNotFound = errors.New("not found")
	// ErrNotLayout reports a directory or file that is no OCI image layout.
	ErrNotLayout = errors.New("not an OCI image layout")
	// ErrAmbiguous reports that more than one candidate fits where one is
	// wanted; an [AmbiguousError] lists them.
	ErrAmbiguous = errors.New("ambiguous")
	// ErrMismatch reports content whose size or digest its descriptor denies.
	ErrMismatch = errors.New("content does not match its descriptor")
	// ErrInvalid reports a document or name that the specification forbids or
	// that passes a limit of this package.
	ErrInvalid = errors.New("invalid")
	// ErrConflict reports an edit that would lose entries which nobody named.
	ErrConflict = errors.New("conflict")
	// ErrUnsafe reports a path that leads, or could lead, out of the layout.
	ErrUnsafe = errors.New("unsafe path")
	// ErrExists reports something in the way of what was to be created.
	ErrExists = errors.New("already exists")
	// ErrReadOnly reports an edit of a layout that cannot be written.
	ErrReadOnly = errors.New("read-only")
)

// A BlobError names the blob an operation failed on.
type BlobError struct {
	Op   string // "add", "open", "read" or "copy"
	Desc ocispec.Descriptor
	Err  error
}

func (e *BlobError) Error() string { return fmt.Sprintf("%s %s: %v", e.Op, e.Desc.Digest, e.Err) }

// Unwrap returns the cause.
func (e *BlobError) Unwrap() error { return e.Err }

// An AmbiguousError lists everything that fits. It is an [ErrAmbiguous].
type AmbiguousError struct {
	What       string // what was asked for
	Candidates []Match
	// Source is what the candidates are part of, to name each with a whole
	// operand of a command line; nil shows @DIGEST.
	Source *Reference
}

func (e *AmbiguousError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %v: %d candidates", e.What, ErrAmbiguous, len(e.Candidates))
	for _, c := range e.Candidates {
		fmt.Fprintf(&b, "\n  %s", c.line(e.Source))
	}
	return b.String()
}

// Is tells errors.Is that e is an [ErrAmbiguous].
func (e *AmbiguousError) Is(target error) bool { return target == ErrAmbiguous }

// A HintError carries advice on how to cure Err.
type HintError struct {
	Err  error
	Hint string
}

func (e *HintError) Error() string { return e.Err.Error() }

// Unwrap returns the error that the hint is for.
func (e *HintError) Unwrap() error { return e.Err }

// WithHint returns err with advice for the person who reads it; nil stays nil.
func WithHint(err error, hint string) error {
	if err == nil {
		return nil
	}
	return &HintError{Err: err, Hint: hint}
}
