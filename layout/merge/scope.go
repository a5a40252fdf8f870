package merge

import (
	"context"
	"fmt"
	"path"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// limited returns the index and the scope of a source of which a part is
// merged: what refName and d name, or entries whose ref names match one of
// globs, and what refers to those. Of a repository that is merged whole, it
// adds the referrers that no tag names.
func limited(ctx context.Context, src layout.Source, s Source, opts IntoOptions) (*layout.Index, func(ocispec.Descriptor) bool, error) {
	x, err := src.Index(ctx)
	if err != nil {
		return nil, nil, err
	}
	_, lists := src.(layout.ReferrerLister)
	whole := s.RefName == "" && s.Digest == "" && len(opts.Refs) == 0
	if whole && (!lists || opts.NoReferrers) {
		return x, nil, nil
	}
	roots, err := layout.Resolve(ctx, src, s.RefName, s.Digest)
	if err != nil {
		return nil, nil, err
	}
	if len(opts.Refs) > 0 {
		roots = slices.DeleteFunc(roots, func(desc ocispec.Descriptor) bool { return !matchAny(opts.Refs, layout.RefName(desc)) })
	}
	chosen := roots
	if !opts.NoReferrers {
		referrers, err := layout.ReferrersBelow(ctx, src, roots)
		if err != nil {
			return nil, nil, err
		}
		for _, r := range referrers {
			chosen = append(chosen, r.Desc)
		}
	}
	has, keys := map[string]bool{}, map[string]bool{}
	for _, desc := range x.Entries() {
		has[RootKey(desc)] = true
	}
	for _, desc := range chosen {
		key := RootKey(desc)
		if !has[key] { // from further below, or from a list of the registry
			x.Add(desc)
		}
		has[key], keys[key] = true, true
	}
	if whole {
		return x, nil, nil
	}
	return x, func(desc ocispec.Descriptor) bool {
		return keys[RootKey(desc)] || matchAny(opts.Refs, layout.RefName(desc))
	}, nil
}

// CheckGlob tells whether a pattern for ref names is one; the syntax is that of
// path.Match.
func CheckGlob(glob string) error {
	if _, err := path.Match(glob, ""); err != nil {
		return fmt.Errorf("%w pattern %q", layout.ErrInvalid, glob)
	}
	return nil
}

func matchAny(globs []string, name string) bool {
	for _, g := range globs {
		if ok, err := path.Match(g, name); ok && err == nil && name != "" {
			return true
		}
	}
	return false
}
