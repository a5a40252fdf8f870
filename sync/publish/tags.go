package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
	"github.com/gardenlinux/gloci-layout/sync/internal/registry"
)

// An ownTag is a tag that this run moves: that of a part, or of one that it
// removes.
type ownTag struct {
	tag       string
	key       string
	desc      ocispec.Descriptor
	raw       []byte             // of a tombstone
	before    ocispec.Descriptor // zero if there was no such tag
	tombstone bool
	state     layoutsync.TagState
}

// moved tells whether the tag is other than before because of us, or may be.
func (o *ownTag) moved() bool {
	switch o.state {
	case layoutsync.TagCreated, layoutsync.TagMoved, layoutsync.TagLeft, layoutsync.TagUnknown:
		return true
	}
	return false
}

// seen corrects what the registry says an own tag names: what it named before,
// or nothing, may be an old answer.
func (o *ownTag) seen(desc ocispec.Descriptor) (ocispec.Descriptor, bool) {
	if (o.state == layoutsync.TagCreated || o.state == layoutsync.TagMoved) && desc.Digest == o.before.Digest {
		return o.desc, true
	}
	return desc, false
}

func (p *publisher) ownOf(tag string) *ownTag {
	i := slices.IndexFunc(p.own, func(o *ownTag) bool { return o.tag == tag })
	if i < 0 {
		return nil
	}
	return p.own[i]
}

// resolveOwn notes what the own tags name.
func (p *publisher) resolveOwn(ctx context.Context) error {
	return registry.Each(registry.Fresh(ctx), p.client.Jobs(), p.own, func(ctx context.Context, o *ownTag) error {
		desc, err := p.client.Resolve(ctx, o.tag)
		if err != nil && !errors.Is(err, layout.ErrNotFound) {
			return err
		}
		o.before = desc
		if desc.Digest == o.desc.Digest {
			o.state = layoutsync.TagUnchanged
		}
		return nil
	})
}

// sendTombstones makes the repository hold what tombstones need.
func (p *publisher) sendTombstones(ctx context.Context) error {
	if !slices.ContainsFunc(p.own, func(o *ownTag) bool { return o.tombstone && o.state != layoutsync.TagUnchanged }) {
		return nil
	}
	return p.sendEmpty(ctx)
}

// sendEmpty sends the blob that a tombstone names.
func (p *publisher) sendEmpty(ctx context.Context) error {
	empty := ocispec.DescriptorEmptyJSON
	_, err := p.client.PutBlob(ctx, empty, func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader([]byte("{}"))), nil
	}, nil)
	return err
}

// moveOwn moves the own tags. It ends at the first that fails.
func (p *publisher) moveOwn(ctx context.Context) error {
	return registry.Each(ctx, p.client.Jobs(), p.own, func(ctx context.Context, o *ownTag) error {
		if err := context.Cause(ctx); err != nil || o.state == layoutsync.TagUnchanged {
			return err
		}
		raw := o.raw
		if raw == nil {
			var err error
			if raw, err = layout.ReadAll(ctx, p.src, o.desc, layout.MaxDocument); err != nil {
				return fmt.Errorf("%s: %w", p.src, err)
			}
		}
		o.state = layoutsync.TagUnknown
		err := p.putTag(ctx, o.tag, o.desc, raw)
		switch {
		case err == nil && o.before.Digest == "":
			o.state = layoutsync.TagCreated
		case err == nil:
			o.state = layoutsync.TagMoved
		case wasRefused(err):
			o.state = layoutsync.TagPending
		}
		return err
	})
}

// wasRefused tells whether the registry has said that it did not do what was asked.
func wasRefused(err error) bool {
	var e *registry.Error
	return errors.As(err, &e) && e.Status >= 400 && e.Status < 500 && !errors.Is(err, registry.ErrUnclear)
}

// putTag makes a tag name desc. After a write without an answer it waits until
// that can no longer be carried out, looks, and tries again.
func (p *publisher) putTag(ctx context.Context, tag string, desc ocispec.Descriptor, raw []byte) error {
	const tries = 3
	for try := 1; ; try++ {
		longer, cancel := registry.Linger(ctx)
		err := p.client.PutTag(longer, desc, raw, tag, nil)
		cancel()
		if err == nil {
			p.mu.Lock()
			p.report.Manifests++
			p.mu.Unlock()
			return nil
		}
		if !errors.Is(err, registry.ErrUnclear) {
			return err
		}
		p.mu.Lock()
		p.unclear = true
		p.mu.Unlock()
		if settleErr := p.settle(ctx); settleErr != nil {
			return errors.Join(err, settleErr)
		}
		now, lookErr := p.client.Resolve(registry.Fresh(ctx), tag)
		if lookErr == nil && now.Digest == desc.Digest {
			return nil
		}
		if try == tries {
			return err
		}
	}
}

// bury gives a tag to a tombstone that stands for nothing but this tag.
func (p *publisher) bury(ctx context.Context, tag string) error {
	if err := p.sendEmpty(ctx); err != nil {
		return err
	}
	raw := p.tombstone("")
	return p.putTag(ctx, tag, describeManifest(raw), raw)
}

// rollBack puts the own tags back that still name what we gave them, and lets
// the index follow.
func (p *publisher) rollBack(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), registry.RestoreTime+2*(p.lifetime()+p.opts.Lag))
	defer cancel()
	if err := errors.Join(p.settle(ctx), p.wait(ctx, p.opts.Lag)); err != nil {
		return err
	}
	var faults []error
	for i := range p.report.Aliases {
		if err := p.putAliasBack(ctx, &p.report.Aliases[i]); err != nil {
			faults = append(faults, fmt.Errorf("put tag %s back: %w", p.report.Aliases[i].Tag, err))
		}
	}
	for _, o := range p.own {
		if !o.moved() {
			continue
		}
		if err := p.putBack(ctx, o); err != nil {
			faults = append(faults, fmt.Errorf("put tag %s back: %w", o.tag, err))
		}
	}
	p.report.Rounds = 0
	if err := p.converge(ctx); err != nil {
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// putBack gives a tag what it named before, or a tombstone: a tag that others
// may have seen must not vanish without a trace.
func (p *publisher) putBack(ctx context.Context, o *ownTag) error {
	o.state = layoutsync.TagUnknown
	now, err := p.client.Resolve(registry.Fresh(ctx), o.tag)
	switch {
	case errors.Is(err, layout.ErrNotFound), err == nil && now.Digest != o.desc.Digest:
		o.state = layoutsync.TagPending // never moved, or moved on by somebody else
		return nil
	case err != nil:
		return err
	}
	o.state = layoutsync.TagLeft
	if o.before.Digest == "" {
		if err := p.sendEmpty(ctx); err != nil {
			return err
		}
		raw := p.tombstone(o.key)
		err = p.putTag(ctx, o.tag, describeManifest(raw), raw)
	} else {
		var raw []byte
		if raw, err = p.client.Manifest(ctx, o.before); err == nil {
			err = p.putTag(ctx, o.tag, o.before, raw)
		}
	}
	if err == nil {
		o.state = layoutsync.TagRestored
	}
	return err
}

// putAliasBack gives an alias that we have moved what it named before. One that
// is new follows the index.
func (p *publisher) putAliasBack(ctx context.Context, a *layoutsync.TagReport) error {
	if a.State != layoutsync.TagUnknown || a.Before == "" {
		return nil
	}
	p.aliases = slices.DeleteFunc(p.aliases, func(alias string) bool { return alias == a.Tag })
	now, err := p.client.Resolve(registry.Fresh(ctx), a.Tag)
	if err != nil {
		return err
	}
	if now.Digest != a.Digest {
		a.State = layoutsync.TagPending
		return nil
	}
	a.State = layoutsync.TagLeft
	before, err := p.client.Resolve(ctx, string(a.Before))
	if err != nil {
		return err
	}
	raw, err := p.client.Manifest(ctx, before)
	if err == nil {
		err = p.putTag(ctx, a.Tag, before, raw)
	}
	if err == nil {
		a.State = layoutsync.TagRestored
	}
	return err
}

// preview returns what an own tag will name, for a dry run.
func (p *publisher) preview(ctx context.Context, o *ownTag) (*tagged, error) {
	if o.tombstone {
		return &tagged{desc: o.desc, removed: true, key: o.key}, nil
	}
	doc, err := layout.ReadDocument(ctx, p.src, o.desc)
	if err != nil {
		return nil, err
	}
	t := &tagged{desc: o.desc, doc: doc}
	if t.part, t.isPart, err = p.part(ctx, p.src, o.desc, doc); err != nil {
		return nil, err
	}
	t.key = layout.EntryKey(t.part.Entry)
	return t, nil
}
