package nest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// Flatten puts the entries of all indexes below x into x. An entry gets what
// the entries above it and their indexes say and it does not: the platform, and
// annotations other than ref names. Entries with one digest and one key become
// one; those with one key and several digests are a [Conflict] each.
//
// A nested index that has an artifactType, a subject or members that the
// specification has not is [layout.ErrConflict], because no entry can say that,
// unless drop is set.
func Flatten(ctx context.Context, src layout.Source, x *layout.Index, key KeyFunc, drop bool) (*Edit, error) {
	out, err := layout.ParseIndex(x.Bytes())
	if err != nil {
		return nil, err
	}
	all := make([]int, out.Len())
	for i := range all {
		all[i] = i
	}
	out.Remove(all...)
	f := flattener{ctx: ctx, src: src, key: key, drop: drop, edit: &Edit{Index: out}}
	if err := f.add(x, ocispec.Descriptor{}, 1); err != nil {
		return nil, err
	}
	if err := errors.Join(f.conflicts...); err != nil {
		return nil, err
	}
	if len(f.edit.Moved)+len(f.edit.Dropped) == 0 {
		f.edit.Index = x
		return f.edit, nil
	}
	out.Sort()
	return f.edit, nil
}

type flattener struct {
	ctx       context.Context //nolint:containedctx // lives as long as Flatten
	src       layout.Source
	key       KeyFunc
	drop      bool
	edit      *Edit
	conflicts []error
}

// add adds the entries of x, which the entry above names.
func (f *flattener) add(x *layout.Index, above ocispec.Descriptor, depth int) error {
	if depth > layout.DefaultMaxDepth {
		return fmt.Errorf("%s: %w: nested more than %d deep", above.Digest, layout.ErrInvalid, layout.DefaultMaxDepth)
	}
	// Nested ones last, so that they are held against all that is above them.
	for i, e := range x.Entries() {
		if layout.IsIndex(e.MediaType) {
			continue
		}
		if err := f.entry(x, i, inherit(e, above), depth); err != nil {
			f.conflicts = append(f.conflicts, err)
		}
	}
	for _, e := range x.Entries() {
		e = inherit(e, above)
		if layout.IsIndex(e.MediaType) {
			child, err := f.read(e)
			if err != nil {
				return err
			}
			f.edit.Dropped = append(f.edit.Dropped, e)
			e.Annotations = merged(e.Annotations, child.Annotations())
			if err := f.add(child, e, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// entry adds entry i of x, which is to say what e says.
func (f *flattener) entry(x *layout.Index, i int, e ocispec.Descriptor, depth int) error {
	out := f.edit.Index
	before := out.Len()
	one := layout.NewIndex()
	one.AddFrom(x, i)
	one.Set(0, e)
	if depth == 1 { // as it was: entries of one index may have one key
		out.AddFrom(one, 0)
		return nil
	}
	if err := addOnce(out, one, 0, f.key); err != nil {
		return err
	}
	if out.Len() == before {
		f.edit.Dropped = append(f.edit.Dropped, e)
	} else {
		f.edit.Moved = append(f.edit.Moved, e)
	}
	return nil
}

func (f *flattener) read(desc ocispec.Descriptor) (*layout.Index, error) {
	doc, err := layout.ReadDocument(f.ctx, f.src, desc)
	if err != nil {
		return nil, err
	}
	x, err := layout.ParseIndex(doc.Raw)
	if err != nil {
		return nil, err
	}
	says := x.Unknown()
	if x.ArtifactType() != "" {
		says = append(says, "artifactType")
	}
	if x.Subject() != nil {
		says = append(says, "subject")
	}
	if len(says) > 0 && !f.drop {
		slices.Sort(says)
		f.conflicts = append(f.conflicts, fmt.Errorf("%s: index %s has %s, which no entry can say: %w",
			f.key(desc), desc.Digest, strings.Join(says, ", "), layout.ErrConflict))
	}
	return x, nil
}

// inherit gives e what the entry above says and it does not.
func inherit(e, above ocispec.Descriptor) ocispec.Descriptor {
	if e.Platform == nil && e.ArtifactType == "" { // an artifact would become an image for clients
		e.Platform = above.Platform
	}
	annotations := merged(nil, above.Annotations)
	delete(annotations, ocispec.AnnotationRefName)
	if e.Platform != nil && e.Platform.Architecture == annotations["architecture"] {
		delete(annotations, "architecture") // it says so already
	}
	e.Annotations = merged(e.Annotations, annotations)
	return e
}

// merged returns a with what only b has.
func merged(a, b map[string]string) map[string]string {
	m := make(map[string]string, len(a)+len(b))
	for k, v := range b {
		m[k] = v
	}
	for k, v := range a {
		m[k] = v
	}
	if len(m) == 0 {
		return nil
	}
	return m
}
