package publish

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
	"github.com/gardenlinux/gloci-layout/sync/internal/registry"
)

const (
	firstJitter = 50 * time.Millisecond
	mostJitter  = 5 * time.Second
)

// converge writes the index until it is what the tags say.
func (p *publisher) converge(ctx context.Context) error {
	rounds, jitter := p.opts.Rounds, firstJitter
	if rounds == 0 {
		rounds = DefaultRounds
	}
	if !slices.ContainsFunc(p.own, (*ownTag).moved) {
		// What others have tagged before we began has to be seen; of what comes
		// later, its writers take care.
		if err := p.wait(ctx, p.opts.Lag); err != nil {
			return err
		}
	}
	for p.report.Rounds < rounds {
		p.report.Rounds++
		v, err := p.look(ctx)
		if err != nil {
			return err
		}
		if err := p.adoptAll(ctx, v); err != nil {
			return err
		}
		want, err := p.index(v.tags)
		if err != nil {
			return err
		}
		if p.report.Rounds == 1 {
			p.report.Before = v.index.desc.Digest
			p.startAliases(v, want.Descriptor().Digest)
		}
		done, err := p.write(ctx, v, want)
		if err != nil {
			return err
		}
		if done && !v.lagging && !p.unclear {
			p.finish(v, want)
			return nil
		}
		if err := p.settle(ctx); err != nil {
			return err
		}
		pause := p.opts.Lag
		if p.report.Rounds > 1 { // somebody else is writing, or the registry lags
			pause += rand.N(jitter)
			jitter = min(2*jitter, mostJitter)
		}
		if err := p.wait(ctx, pause); err != nil {
			return err
		}
	}
	return layout.WithHint(
		fmt.Errorf("publish %s:%s: %w after reading the index %d times", p.report.Repository, p.opts.Version, ErrNotConverged, rounds),
		"what was published keeps its tags; publish --reindex brings the index up to date")
}

// adoptAll gives tags to foreign entries of the index. An adopted entry of the
// same key that the index has no longer was replaced by whoever has written the
// new one, and gets a tombstone.
func (p *publisher) adoptAll(ctx context.Context, v *view) error {
	items, err := p.foreign(ctx, v.index, v.tags)
	if err != nil || len(items) == 0 {
		return err
	}
	here, err := p.entriesOf(ctx, v.index)
	if err != nil {
		return err
	}
	for _, it := range items {
		tag, x, err := p.adopt(it)
		if err != nil {
			return err
		}
		if v.tags[tag] != nil {
			continue // it has been here before, and was removed
		}
		if err := p.putTag(ctx, tag, x.Descriptor(), x.Bytes()); err != nil {
			return err
		}
		p.report.Adopted = append(p.report.Adopted, layoutsync.ForeignEntry{Tag: tag, Key: it.key, Desc: it.desc})
		if v.tags[tag], err = p.know(x); err != nil {
			return err
		}
		if it.key == string(it.digest) {
			continue
		}
		for old, t := range v.tags {
			if replaced, err := replacedBy(t, it, here); err != nil {
				return err
			} else if replaced {
				if err := p.bury(ctx, old); err != nil {
					return err
				}
				v.tags[old] = &tagged{removed: true}
			}
		}
	}
	return nil
}

// replacedBy tells whether an adopted entry has the key of it, and is not here.
func replacedBy(t *tagged, it item, here []item) (bool, error) {
	list, err := parseItems(t.adopted)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(list, func(old item) bool {
		return old.key == it.key && old.digest != it.digest && !slices.ContainsFunc(here, func(h item) bool { return h.digest == old.digest })
	}), nil
}

// know takes an index that we have made for read.
func (p *publisher) know(x *layout.Index) (*tagged, error) {
	t := &tagged{desc: plain(x.Descriptor())}
	var err error
	if t.adopted, err = rawEntries(x.Bytes()); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.docs[t.desc.Digest] = t
	return t, nil
}

// write makes the version's tag, and then the aliases, name what they should. It
// reports whether they did already.
func (p *publisher) write(ctx context.Context, v *view, want *layout.Index) (done bool, err error) {
	desc := plain(want.Descriptor())
	done = true
	if v.index.desc.Digest != desc.Digest && (want.Len() > 0 || v.index.desc.Digest != "") {
		done = false
		if err := p.putIndex(ctx, v.index.desc.Digest, desc, want.Bytes()); err != nil {
			return false, err
		}
	}
	if want.Len() == 0 && v.index.desc.Digest == "" {
		return true, nil // nothing is published
	}
	for i, alias := range p.aliases {
		if v.aliases[i] == desc.Digest {
			continue
		}
		done = false
		p.report.Aliases[p.aliasNumber(alias)].State = layoutsync.TagUnknown
		p.report.Aliases[p.aliasNumber(alias)].Digest = desc.Digest
		if err := p.putTag(ctx, alias, desc, want.Bytes()); err != nil {
			return false, err
		}
	}
	return done, nil
}

// putIndex writes the index; where the registry looks at conditions, only if it
// is still what was read. Whatever comes of it is read again.
func (p *publisher) putIndex(ctx context.Context, before digest.Digest, desc ocispec.Descriptor, raw []byte) error {
	condition := &before
	if p.blind {
		condition = nil
	}
	put := func(condition *digest.Digest) error {
		ctx, cancel := registry.Linger(ctx)
		defer cancel()
		return p.client.PutTag(ctx, desc, raw, p.opts.Version, condition)
	}
	err := put(condition)
	switch {
	case err == nil:
		p.report.Manifests++
	case errors.Is(err, registry.ErrUnclear):
		p.unclear = true
		return context.Cause(ctx)
	case errors.Is(err, registry.ErrPrecondition):
		// If it still is what was read, this registry does not mean what it says.
		now, resolveErr := p.client.Resolve(registry.Fresh(ctx), p.opts.Version)
		if resolveErr != nil && !errors.Is(resolveErr, layout.ErrNotFound) {
			return resolveErr
		}
		p.blind = now.Digest == before
		return nil
	}
	return err
}

// finish notes what the last round has read.
func (p *publisher) finish(v *view, want *layout.Index) {
	p.report.Converged = true
	p.report.Digest, p.report.Entries = v.index.desc.Digest, want.Len()
	for _, alias := range p.aliases {
		a := &p.report.Aliases[p.aliasNumber(alias)]
		a.Digest = p.report.Digest
		switch {
		case a.Before == a.Digest:
			a.State = layoutsync.TagUnchanged
		case a.Before == "":
			a.State = layoutsync.TagCreated
		default:
			a.State = layoutsync.TagMoved
		}
	}
}

func (p *publisher) aliasNumber(alias string) int {
	return slices.IndexFunc(p.report.Aliases, func(t layoutsync.TagReport) bool { return t.Tag == alias })
}

// startAliases notes what the aliases name at the beginning.
func (p *publisher) startAliases(v *view, want digest.Digest) {
	if len(p.report.Aliases) > 0 {
		return // a rollback
	}
	for i, alias := range p.aliases {
		p.report.Aliases = append(p.report.Aliases, layoutsync.TagReport{Tag: alias, Digest: want, Before: v.aliases[i], State: layoutsync.TagPending})
	}
}

// dryRun finds out what the first round would write.
func (p *publisher) dryRun(ctx context.Context) error {
	p.report.Rounds = 1
	v, err := p.look(ctx)
	if err != nil {
		return err
	}
	for _, o := range p.own {
		if v.tags[o.tag], err = p.preview(ctx, o); err != nil {
			return err
		}
	}
	items, err := p.foreign(ctx, v.index, v.tags)
	if err != nil {
		return err
	}
	for _, it := range items {
		tag, x, err := p.adopt(it)
		if err != nil {
			return err
		}
		if v.tags[tag] == nil {
			p.report.Adopted = append(p.report.Adopted, layoutsync.ForeignEntry{Tag: tag, Key: it.key, Desc: it.desc})
			if v.tags[tag], err = p.know(x); err != nil {
				return err
			}
		}
	}
	want, err := p.index(v.tags)
	if err != nil {
		return err
	}
	p.report.Before, p.report.Digest, p.report.Entries = v.index.desc.Digest, want.Descriptor().Digest, want.Len()
	p.startAliases(v, p.report.Digest)
	return nil
}
