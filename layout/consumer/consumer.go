// Package consumer tells what programs that read OCI content would take of it:
// which manifest of an index, and which of its layers.
//
// # Rules
//
// Each program has rules of its own for platforms, entries without one, nested
// indexes and artifacts, and they disagree. What stands here is what their
// sources say; each rule names the project, file and function that it follows.
// A test runs the programs that can be had on many shapes of index and compares.
//
// # Answers
//
// A [Consumer] answers with an [Outcome]. That the program would fail is an
// answer too: an error means only that the source could not be read.
package consumer

import (
	"context"
	"errors"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// A Consumer is a program, as far as what it takes is concerned.
type Consumer interface {
	// Name is the name of the program, in lower case.
	Name() string
	// About says in one line how it chooses.
	About() string
	// IsImageClient tells whether it wants container images: it pulls or runs
	// them. Others want artifacts, or do not care.
	IsImageClient() bool
	// Take returns what it would take where root is what it was told to take.
	Take(ctx context.Context, src layout.Source, root ocispec.Descriptor, ask Ask) (*Outcome, error)
}

// An Ask is what the user of a consumer says, and the machine it runs on.
type Ask struct {
	Platform *ocispec.Platform // what a flag --platform would say; nil for none
	Host     ocispec.Platform  // what consumers take for wanted when nobody says a platform
}

// platform is what most consumers look for.
func (a Ask) platform() ocispec.Platform {
	if a.Platform != nil {
		return *a.Platform
	}
	return a.Host
}

// An Outcome is what a consumer takes, or how it fails.
type Outcome struct {
	// Desc is what it takes, as the index above names it. Where it fails it is
	// how far it came, the root at least.
	Desc     ocispec.Descriptor
	Document *layout.Document     // of Desc; nil where that could not be read
	Path     []ocispec.Descriptor // the indexes that it went through, from the root down
	Layers   []ocispec.Descriptor // what it reads of the layers, in order
	Why      string               // the rule that led there
	Notes    []string             // what else its user should know
	Failure  *Failure             // nil where it takes Desc
}

// A Failure is how a consumer fails.
type Failure struct {
	Kind    FailureKind
	Message string // as the consumer says it, as far as that is known before it runs
}

// A FailureKind tells failures apart.
type FailureKind string

// The kinds of failures.
const (
	FailPlatform  FailureKind = "platform"  // nothing for the platform that is wanted
	FailArtifact  FailureKind = "artifact"  // an artifact where an image is wanted
	FailNested    FailureKind = "nested"    // an index in an index
	FailLayer     FailureKind = "layer"     // a layer that it cannot use, or none that it can
	FailDocument  FailureKind = "document"  // an index or manifest that is missing or that it cannot read
	FailName      FailureKind = "name"      // no entry with the name that is wanted
	FailSignature FailureKind = "signature" // no signature, or one of something else
	FailSilent    FailureKind = "silent"    // it reports no error, and has nothing that its user could use
)

// Standard returns the consumers of this package, as they are without options.
func Standard() []Consumer {
	return []Consumer{Podman, Buildah, Skopeo, Docker, Containerd, Crane, ORAS, Regctl, Flux{}}
}

// fail makes out the answer that the consumer fails.
func (o *Outcome) fail(kind FailureKind, format string, args ...any) *Outcome {
	o.Failure = &Failure{kind, fmt.Sprintf(format, args...)}
	return o
}

// note adds a note.
func (o *Outcome) note(format string, args ...any) {
	o.Notes = append(o.Notes, fmt.Sprintf(format, args...))
}

// down goes from the index where o stands to its entry desc.
func (o *Outcome) down(desc ocispec.Descriptor) {
	o.Path = append(o.Path, o.Desc)
	o.Desc, o.Document = desc, nil
}

// read reads the document where o stands. It is false where the consumer fails
// because of it; only what keeps us from reading at all is an error.
func (o *Outcome) read(ctx context.Context, src layout.Source) (ok bool, err error) {
	o.Document, err = ReadDocument(ctx, src, o.Desc)
	switch {
	case errors.Is(err, layout.ErrNotFound):
		o.fail(FailDocument, "manifest unknown: %s", o.Desc.Digest)
		return false, nil
	case errors.Is(err, layout.ErrInvalid), errors.Is(err, layout.ErrMismatch):
		o.fail(FailDocument, "%v", err)
		return false, nil
	}
	return err == nil, err
}
