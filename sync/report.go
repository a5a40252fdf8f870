package sync

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// A TagState is how a tag stands after a push.
type TagState string

// The states of tags.
const (
	TagUnchanged TagState = "unchanged" // it named the digest before
	TagPending   TagState = "pending"   // not moved: a dry run, or the push ended before
	TagCreated   TagState = "created"
	TagMoved     TagState = "moved"
	TagRestored  TagState = "restored" // the push failed, the tag was put back
	TagLeft      TagState = "left"     // the push failed, and the tag could not be put back: it names the new digest
	TagDeleted   TagState = "deleted"
	TagUnknown   TagState = "unknown" // the push failed, and the registry no longer answers
)

// A TagReport is one tag of a [Report].
type TagReport struct {
	Tag     string        `json:"tag"`
	RefName string        `json:"refName,omitempty"` // in the source
	Digest  digest.Digest `json:"digest"`            // that the push gives it
	Before  digest.Digest `json:"before,omitempty"`  // "" if there was no such tag
	State   TagState      `json:"state"`
	Merged  bool          `json:"merged,omitempty"` // Digest is an index made of both sides
	Delete  bool          `json:"delete,omitempty"` // the source lacks the tag: Digest is ""
	// Repository is where the tag is, if that is not that of the report.
	Repository string `json:"repository,omitempty"`
}

// A Report is what a push has done; of a dry run, what it would do. Numbers of
// a push that failed are those up to then.
type Report struct {
	Repository string      `json:"repository"`
	DryRun     bool        `json:"dryRun,omitempty"`
	Tags       []TagReport `json:"tags"`
	// Untagged are roots without a ref name. They are pushed by digest, and a
	// registry may collect them as garbage.
	Untagged  []ocispec.Descriptor `json:"untagged,omitempty"`
	Manifests int                  `json:"manifests"`           // and indexes, written
	Blobs     int                  `json:"blobs"`               // sent
	Bytes     int64                `json:"bytes"`               // size of these blobs
	Present   int                  `json:"present"`             // blobs and manifests that were there already and were asked for
	Referrers []string             `json:"referrers,omitempty"` // tags of lists of referrers that were written
}

// Changed tells whether anything at the registry is other than before.
func (r *Report) Changed() bool {
	for _, t := range r.Tags {
		switch t.State {
		case TagCreated, TagMoved, TagDeleted, TagLeft, TagUnknown:
			return true
		}
	}
	return r.Manifests > 0 || r.Blobs > 0 || len(r.Referrers) > 0
}

// A ForeignEntry is something that a tag of the repository holds, and the
// layout does not.
type ForeignEntry struct {
	Tag     string             `json:"tag"`
	RefName string             `json:"refName,omitempty"`
	Key     string             `json:"key"` // see layout.EntryKey
	Desc    ocispec.Descriptor `json:"descriptor"`
}

// A ForeignError lists all entries that a push would drop from tags of the
// repository. It is a [layout.ErrConflict], and nothing was written.
type ForeignError struct {
	Repository string
	Entries    []ForeignEntry
}

func (e *ForeignError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "push to %s: %v: %d entries of the repository are not in the layout and would be dropped", e.Repository, layout.ErrConflict, len(e.Entries))
	for _, f := range e.Entries {
		fmt.Fprintf(&b, "\n  %s: %s", f.Tag, f.Desc.Digest)
		if f.Key != string(f.Desc.Digest) {
			fmt.Fprintf(&b, "  %q", f.Key)
		}
		if f.RefName != "" {
			fmt.Fprintf(&b, "  ref=%q", f.RefName)
		}
	}
	return b.String()
}

// Is tells errors.Is that e is a [layout.ErrConflict].
func (e *ForeignError) Is(target error) bool { return target == layout.ErrConflict }
