package sync

import (
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// A Choice says which targets of a source to push, and under which tags. Nil is
// the zero value, which leaves them as they are.
type Choice struct {
	// RefNames and Exclude are globs of path.Match for ref names, or for what
	// stands behind the last slash of full ones. Without RefNames all are
	// chosen; with them, no entry without a ref name.
	RefNames, Exclude []string
	// Select chooses manifests below each target. It must be exactly one, which
	// takes the place of the index, unless Sparse is set: then the index stays
	// as it is and its other members are left away.
	Select *layout.Selector
	Sparse bool
	// Tags gives targets other tags, by ref name.
	Tags map[string]string
	// Also are further tags of the one target that is chosen.
	Also []string
	// Scoped pushes HOST/REPOSITORY:TAG to REPOSITORY below the destination.
	Scoped bool
}

// Apply returns the source and the targets that the choice leaves. What it
// names and does not find is [layout.ErrNotFound]; targets that cannot be
// pushed are reported as by [Targets].
func (c *Choice) Apply(ctx context.Context, src layout.Source, targets []Target) (layout.Source, []Target, error) {
	if c == nil {
		return src, targets, nil
	}
	targets, err := c.named(src, targets)
	if err != nil {
		return nil, nil, err
	}
	if c.Select != nil {
		if src, targets, err = c.selected(ctx, src, targets); err != nil {
			return nil, nil, err
		}
	}
	if len(c.Also) > 0 {
		tagged := slices.DeleteFunc(slices.Clone(targets), func(t Target) bool { return t.Tag == "" })
		if len(tagged) != 1 {
			list := make([]layout.Match, len(tagged))
			for i, t := range tagged {
				list[i] = layout.Match{Desc: t.Desc, RefName: t.RefName}
			}
			amb := &layout.AmbiguousError{What: fmt.Sprintf("%s under the tag %s", src, c.Also[0]), Candidates: list}
			return nil, nil, layout.WithHint(amb, "choose one ref name")
		}
		for _, tag := range c.Also {
			one := tagged[0]
			one.Tag = tag
			targets = append(targets, one)
		}
	}
	return src, targets, checkTargets(src, targets)
}

// named applies what is about names.
func (c *Choice) named(src layout.Source, targets []Target) ([]Target, error) {
	for _, g := range slices.Concat(c.RefNames, c.Exclude) {
		if _, err := path.Match(g, ""); err != nil {
			return nil, fmt.Errorf("%w glob %q", layout.ErrInvalid, g)
		}
	}
	used := map[string]bool{} // globs, and ref names of Tags
	var chosen []Target
	for _, t := range targets {
		fits := len(c.RefNames) == 0
		for _, g := range c.RefNames {
			if fitsRefName(g, t.RefName) {
				fits, used[g] = true, true
			}
		}
		if !fits || slices.ContainsFunc(c.Exclude, func(g string) bool { return fitsRefName(g, t.RefName) }) {
			continue
		}
		if c.Scoped {
			t.Path = repositoryOf(t.RefName)
		}
		if tag, ok := c.Tags[t.RefName]; ok && t.RefName != "" {
			t.Tag, used[t.RefName] = tag, true
		}
		chosen = append(chosen, t)
	}
	for _, g := range c.RefNames {
		if !used[g] {
			return nil, fmt.Errorf("%s: no ref name fits %q: %w", src, g, layout.ErrNotFound)
		}
	}
	for name := range c.Tags {
		if !used[name] {
			return nil, fmt.Errorf("%s: no ref name %q that is pushed: %w", src, name, layout.ErrNotFound)
		}
	}
	return chosen, nil
}

func fitsRefName(glob, refName string) bool {
	if refName == "" {
		return false
	}
	return fitsGlob(glob, refName) || fitsGlob(glob, refName[strings.LastIndexByte(refName, '/')+1:]) || fitsGlob(glob, tagOf(refName))
}

// repositoryOf returns the REPOSITORY of HOST/REPOSITORY:TAG, or "".
func repositoryOf(refName string) string {
	slash := strings.LastIndexByte(refName, '/')
	colon := strings.LastIndexByte(refName, ':')
	if slash < 0 || colon < slash {
		return ""
	}
	host, rest, _ := strings.Cut(refName[:colon], "/")
	if strings.ContainsAny(host, ".:") || host == "localhost" {
		return rest
	}
	return refName[:colon]
}

// selected applies Select.
func (c *Choice) selected(ctx context.Context, src layout.Source, targets []Target) (layout.Source, []Target, error) {
	roots := make([]ocispec.Descriptor, len(targets))
	for i, t := range targets {
		roots[i] = named(t.Desc, t.RefName)
	}
	part, chosen, err := selectBelow(ctx, src, roots, *c.Select, c.Sparse)
	if err != nil {
		return nil, nil, err
	}
	targets = slices.Clone(targets)
	for i := range targets {
		targets[i].Desc = chosen[i]
	}
	return part, targets, nil
}

// selectBelow returns what sel leaves of the roots: one manifest of each or,
// if sparse, the root and a source that seems to lack what was not chosen.
func selectBelow(ctx context.Context, src layout.Source, roots []ocispec.Descriptor, sel layout.Selector, sparse bool) (layout.Source, []ocispec.Descriptor, error) {
	only := map[digest.Digest]bool{}
	chosen := make([]ocispec.Descriptor, 0, len(roots))
	for _, root := range roots {
		matches, err := layout.Select(ctx, src, []ocispec.Descriptor{root}, sel)
		if err != nil {
			return nil, nil, err
		}
		what := src.String() + ": " + layout.RefName(root) + ": " + sel.String()
		switch {
		case len(matches) == 0:
			return nil, nil, fmt.Errorf("%s: %w", what, layout.ErrNotFound)
		case sparse:
			for _, m := range matches {
				only[m.Desc.Digest] = true
				for _, parent := range m.Parents {
					only[parent.Digest] = true
				}
			}
			chosen = append(chosen, root)
		case len(matches) > 1:
			amb := &layout.AmbiguousError{What: what, Candidates: matches}
			return nil, nil, layout.WithHint(amb, "--sparse takes them all, in an index that keeps its bytes")
		default:
			chosen = append(chosen, named(matches[0].Desc, layout.RefName(root)))
		}
	}
	if !sparse {
		return src, chosen, nil
	}
	part := &partSource{Source: src, hidden: map[digest.Digest]bool{}}
	for n, err := range layout.Walk(ctx, src, roots, &layout.WalkOptions{DocumentsOnly: true, NoSubjects: true, Sparse: true}) {
		if err != nil {
			return nil, nil, err
		}
		if !only[n.Desc.Digest] {
			part.hidden[n.Desc.Digest] = true
		}
	}
	if lister, ok := src.(layout.ReferrerLister); ok {
		return partLister{part, lister}, chosen, nil
	}
	return part, chosen, nil
}

// A partLister is a partSource that lists all referrers, of what was chosen too.
type partLister struct {
	*partSource
	layout.ReferrerLister
}

// A partSource is a source that seems to lack some documents.
type partSource struct {
	layout.Source
	hidden map[digest.Digest]bool
}

func (s *partSource) lacks(d digest.Digest) error {
	if s.hidden[d] {
		return fmt.Errorf("%s: %s was not chosen: %w", s, d, layout.ErrNotFound)
	}
	return nil
}

func (s *partSource) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if err := s.lacks(desc.Digest); err != nil {
		return nil, err
	}
	return s.Source.Blob(ctx, desc)
}

func (s *partSource) Stat(ctx context.Context, d digest.Digest) (layout.BlobInfo, error) {
	if err := s.lacks(d); err != nil {
		return layout.BlobInfo{}, err
	}
	return s.Source.Stat(ctx, d)
}

// BlobFrom implements [layout.Resumer] where the source is one.
func (s *partSource) BlobFrom(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	if r, ok := s.Source.(layout.Resumer); ok {
		return r.BlobFrom(ctx, desc, offset)
	}
	return nil, fmt.Errorf("%s: %w", s, layout.ErrNotFound)
}
