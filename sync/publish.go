package sync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// restoreTime is how long moving a tag, and putting all back, may go on after
// the context of the push has ended.
const restoreTime = 30 * time.Second

// linger returns a context that ends a while after ctx has. A request that
// moves a tag and is given up may still be carried out, even after the tag was
// put back: its answer is waited for.
func linger(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		time.AfterFunc(d, func() { cancel(context.Cause(ctx)) })
	})
	return longer, func() {
		stop()
		cancel(context.Canceled)
	}
}

// publish moves the tags, once everything that they will name is there.
func (p *pusher) publish(ctx context.Context, pl *plan) error {
	if err := p.checkRoots(ctx, pl); err != nil {
		return err
	}
	if err := p.listReferrers(ctx, pl); err != nil {
		return err
	}
	var moves []*move
	var raws [][]byte
	for _, m := range pl.moves {
		if m.state == TagUnchanged {
			continue
		}
		raw := m.root.raw
		if raw == nil {
			var err error
			if raw, err = layout.ReadAll(ctx, p.src, m.root.desc, layout.MaxDocument); err != nil {
				return fmt.Errorf("%s: %w", p.src, err)
			}
		}
		moves, raws = append(moves, m), append(raws, raw)
	}
	var mu sync.Mutex
	var touched []*move
	numbers := make([]int, len(moves))
	for i := range numbers {
		numbers[i] = i
	}
	err := each(ctx, p.client.Jobs(), numbers, func(ctx context.Context, i int) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		m := moves[i]
		mu.Lock()
		touched = append(touched, m)
		mu.Unlock()
		ctx, cancel := linger(ctx, restoreTime)
		defer cancel()
		if _, err := p.client.PutManifest(ctx, m.root.desc, raws[i], m.Tag); err != nil {
			return err
		}
		if m.state = TagMoved; m.before.Digest == "" {
			m.state = TagCreated
		}
		return nil
	})
	if err != nil && slices.ContainsFunc(moves, func(m *move) bool { return m.state == TagPending }) {
		return errors.Join(err, p.restore(context.WithoutCancel(ctx), touched))
	}
	return nil
}

// checkRoots asks the registry for every root that was sent: what it has just
// acknowledged, it must also give out.
func (p *pusher) checkRoots(ctx context.Context, pl *plan) error {
	var roots []*document
	for _, m := range pl.moves {
		roots = append(roots, m.root)
	}
	roots = append(roots, pl.untagged...)
	slices.SortFunc(roots, func(a, b *document) int { return cmp.Compare(a.desc.Digest, b.desc.Digest) })
	roots = slices.CompactFunc(roots, func(a, b *document) bool { return a.desc.Digest == b.desc.Digest })
	roots = slices.DeleteFunc(roots, func(doc *document) bool { return doc.read == nil })
	return each(ctx, p.client.Jobs(), roots, func(ctx context.Context, doc *document) error {
		present, err := p.client.Exists(ctx, doc.desc.Digest)
		if err == nil && !present {
			err = fmt.Errorf("%s@%s: %w after the registry had taken it", p.dest, doc.desc.Digest, layout.ErrNotFound)
		}
		return err
	})
}

// restore puts tags back that a failed push has moved, and only those that
// still name what it gave them.
func (p *pusher) restore(ctx context.Context, moves []*move) error {
	ctx, cancel := context.WithTimeout(ctx, restoreTime)
	defer cancel()
	var faults []error
	for _, m := range moves {
		if err := p.restoreTag(ctx, m); err != nil {
			faults = append(faults, fmt.Errorf("put tag %s back: %w", m.Tag, err))
		}
	}
	return errors.Join(faults...)
}

func (p *pusher) restoreTag(ctx context.Context, m *move) error {
	m.state = TagUnknown
	now, err := p.client.Resolve(ctx, m.Tag)
	switch {
	case errors.Is(err, layout.ErrNotFound):
		m.state = TagPending
		return nil
	case err != nil:
		return err
	case now.Digest == m.before.Digest || now.Digest != m.root.desc.Digest:
		m.state = TagPending // never moved, or moved on by somebody else
		return nil
	}
	m.state = TagLeft
	if m.before.Digest == "" {
		err = p.client.DeleteTag(ctx, m.Tag)
	} else {
		var raw []byte
		if raw, err = p.client.Manifest(ctx, m.before); err == nil {
			_, err = p.client.PutManifest(ctx, m.before, raw, m.Tag)
		}
	}
	if err == nil {
		m.state = TagRestored
	}
	return err
}

// listReferrers keeps the lists of referrers for a registry that does not: an
// index under the tag ALGORITHM-HEX of each subject (distribution-spec,
// "Referrers Tag Schema"). Entries are only ever added.
func (p *pusher) listReferrers(ctx context.Context, pl *plan) error {
	own := map[string]bool{}
	for _, m := range pl.moves {
		own[m.Tag] = true
	}
	lists := map[string][]*document{}
	for _, doc := range p.unlisted {
		if tag := referrersTag(doc.read.Subject.Digest); !own[tag] {
			lists[tag] = append(lists[tag], doc)
		}
	}
	for _, tag := range slices.Sorted(maps.Keys(lists)) {
		if err := p.listReferrersOf(ctx, tag, lists[tag]); err != nil {
			return fmt.Errorf("list of referrers %s: %w", tag, err)
		}
	}
	return nil
}

func (p *pusher) listReferrersOf(ctx context.Context, tag string, docs []*document) error {
	x := layout.NewIndex()
	before, err := p.client.Resolve(ctx, tag)
	switch {
	case errors.Is(err, layout.ErrNotFound):
	case err != nil:
		return err
	case !layout.IsIndex(before.MediaType):
		return fmt.Errorf("%w: the tag names a %q", layout.ErrConflict, before.MediaType)
	default:
		raw, err := p.client.Manifest(ctx, before)
		if err != nil {
			return err
		}
		if x, err = layout.ParseIndex(raw); err != nil {
			return err
		}
	}
	have := map[digest.Digest]bool{}
	for _, e := range x.Entries() {
		have[e.Digest] = true
	}
	added := false
	slices.SortFunc(docs, func(a, b *document) int { return cmp.Compare(a.desc.Digest, b.desc.Digest) })
	for _, doc := range docs {
		if have[doc.desc.Digest] {
			continue
		}
		artifactType := doc.read.ArtifactType
		if artifactType == "" && doc.read.Config != nil {
			artifactType = doc.read.Config.MediaType
		}
		x.Add(ocispec.Descriptor{
			MediaType: doc.desc.MediaType, Digest: doc.desc.Digest, Size: doc.desc.Size,
			ArtifactType: artifactType, Annotations: doc.read.Annotations,
		})
		added = true
	}
	if !added {
		return nil
	}
	if _, err := p.client.PutManifest(ctx, x.Descriptor(), x.Bytes(), tag); err != nil {
		return err
	}
	p.report.Referrers = append(p.report.Referrers, tag)
	return nil
}
