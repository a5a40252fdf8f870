package merge

import (
	"context"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// A Stale is a referrer whose subject is an index as it was before the merge:
// a signature of it does not hold for the new one.
type Stale struct {
	Referrer ocispec.Descriptor // the entry of index.json
	Subject  digest.Digest
	Now      ocispec.Descriptor // what the subject has become
}

// subject returns what an entry of index.json refers to, "" for nothing: by its
// ref name, or, if it has none, by its document.
func subject(desc ocispec.Descriptor, read func(desc ocispec.Descriptor) (*layout.Document, error)) (digest.Digest, error) {
	if name := layout.RefName(desc); name != "" {
		return layout.ReferrerRefName(name), nil
	}
	if !layout.IsManifest(desc.MediaType) && !layout.IsIndex(desc.MediaType) {
		return "", nil
	}
	doc, err := read(desc)
	if err != nil || doc.Subject == nil {
		return "", err
	}
	return doc.Subject.Digest, nil
}

// stale finds the referrers in the new state whose subjects were merged into
// something else. subjects is what is known of the sources; src has ours.
func (r *Result) stale(ctx context.Context, src layout.Source, subjects map[digest.Digest]digest.Digest) error {
	if r.Index == nil || len(r.Moved) == 0 {
		return nil
	}
	for _, desc := range r.Index.Entries() {
		of, known := subjects[desc.Digest]
		if !known || layout.RefName(desc) != "" {
			var err error
			of, err = subject(desc, func(desc ocispec.Descriptor) (*layout.Document, error) {
				return layout.ReadDocument(ctx, src, desc)
			})
			if err != nil {
				return err
			}
		}
		if now, ok := r.Moved[of]; ok {
			r.Stale = append(r.Stale, Stale{Referrer: desc, Subject: of, Now: now})
		}
	}
	return nil
}
