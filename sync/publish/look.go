package publish

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/sync/internal/registry"
)

// A tagContent is what a tag names now.
type tagContent struct {
	desc ocispec.Descriptor // zero if there is no such tag
	raw  []byte
}

// A view is what one round has read, in this order: the index and the aliases,
// then the tags of the parts.
type view struct {
	index   *tagContent
	aliases []digest.Digest
	tags    map[string]*tagged
	lagging bool // an own tag does not show yet
}

// look reads all that a round needs. The index comes first: what it holds of
// those who follow the protocol is then among the tags.
func (p *publisher) look(ctx context.Context) (*view, error) {
	ctx = registry.Fresh(ctx)
	v := &view{tags: map[string]*tagged{}}
	var err error
	if v.index, err = p.resolve(ctx, p.opts.Version); err != nil {
		return nil, err
	}
	for _, alias := range p.aliases {
		desc, err := p.client.Resolve(ctx, alias)
		if err != nil && !errors.Is(err, layout.ErrNotFound) {
			return nil, err
		}
		v.aliases = append(v.aliases, desc.Digest)
	}
	listed, err := p.client.Tags(ctx)
	if err != nil && !errors.Is(err, layout.ErrNotFound) { // no repository yet
		return nil, err
	}
	names := map[string]bool{}
	for _, tag := range listed {
		if p.candidate(tag) {
			names[tag] = true
		}
	}
	for _, part := range p.expect {
		names[part.Tag] = true
	}
	for _, o := range p.own {
		names[o.tag] = true
	}
	if err := p.readTags(ctx, v, slices.Sorted(maps.Keys(names))); err != nil {
		return nil, err
	}
	p.report.Missing = nil
	for i, part := range p.expect {
		if t := v.tags[part.Tag]; t == nil || t.removed {
			p.report.Missing = append(p.report.Missing, p.opts.Expect[i])
		}
	}
	return v, p.lookUp(ctx, v)
}

// resolve returns what a tag names now; a zero one if there is no such tag.
func (p *publisher) resolve(ctx context.Context, tag string) (*tagContent, error) {
	desc, err := p.client.Resolve(ctx, tag)
	if errors.Is(err, layout.ErrNotFound) {
		return &tagContent{}, nil
	}
	if err != nil {
		return nil, err
	}
	if p.last == nil || p.last.desc.Digest != desc.Digest {
		raw, err := p.client.Manifest(ctx, desc)
		if err != nil {
			return nil, err
		}
		p.last = &tagContent{desc, raw}
	}
	return p.last, nil
}

// readTags asks what each tag names, and reads what is not known yet.
func (p *publisher) readTags(ctx context.Context, v *view, names []string) error {
	var mu sync.Mutex
	return registry.Each(ctx, p.client.SmallJobs(), names, func(ctx context.Context, tag string) error {
		desc, err := p.client.Resolve(ctx, tag)
		if err != nil && !errors.Is(err, layout.ErrNotFound) {
			return err
		}
		lagging := false
		if own := p.ownOf(tag); own != nil {
			desc, lagging = own.seen(desc)
		}
		var t *tagged
		if desc.Digest != "" {
			if t, err = p.read(ctx, desc); errors.Is(err, layout.ErrNotFound) {
				t, err = nil, nil // deleted in between
			}
			if err != nil {
				return err
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if v.lagging = v.lagging || lagging; t != nil {
			v.tags[tag] = t
		}
		return nil
	})
}

// lookUp asks for the tags that the entries of the index should have, where the
// registry has not listed them.
func (p *publisher) lookUp(ctx context.Context, v *view) error {
	items, err := p.foreign(ctx, v.index, v.tags)
	if err != nil {
		return err
	}
	var names []string
	for _, it := range items {
		tag, _, err := p.adopt(it)
		if err != nil {
			return err
		}
		if names = append(names, tag); !layout.IsManifest(it.desc.MediaType) {
			continue
		}
		t, err := p.read(ctx, it.desc)
		if errors.Is(err, layout.ErrNotFound) {
			continue // an index may have entries that are not here
		}
		if err != nil {
			return err
		}
		if t.isPart && v.tags[t.part.Tag] == nil {
			names = append(names, t.part.Tag)
		}
	}
	slices.Sort(names)
	return p.readTags(ctx, v, slices.Compact(names))
}
