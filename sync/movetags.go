package sync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/sync/internal/registry"
)

// prepare makes sure that everything that tags will name is there, but for a root
// that goes with its tag.
func (p *pusher) prepare(ctx context.Context) error {
	roots := slices.DeleteFunc(p.sentRoots(), func(doc *document) bool { return doc == p.plan.last })
	if err := p.checkRoots(ctx, roots); err != nil {
		return err
	}
	return p.listReferrers(ctx)
}

// publish moves the tags, and deletes those that are to go when all others
// stand. If one fails, those before are put back.
func (p *pusher) publish(ctx context.Context) error {
	err := p.moveTags(ctx)
	last := p.plan.last
	if err == nil && last != nil {
		err = p.checkRoots(ctx, []*document{last})
	}
	for _, m := range p.plan.moves {
		if err == nil && m.prune {
			m.touched = true
			err = p.deleteTag(ctx, m)
		}
	}
	// Where all have moved, the push was canceled too late, unless a root is still
	// to be asked for.
	if err != nil && (last != nil || slices.ContainsFunc(p.plan.moves, func(m *move) bool { return m.state == TagPending })) {
		return errors.Join(err, p.restore(context.WithoutCancel(ctx)))
	}
	return nil
}

func (p *pusher) moveTags(ctx context.Context) error {
	// Whoever sees a tag must find the signatures of what it names.
	var signatures, others []*move
	for _, m := range p.plan.moves {
		if m.state == TagUnchanged || m.prune {
			continue
		}
		if m.raw = m.root.raw; m.raw == nil {
			var err error
			if m.raw, err = layout.ReadAll(ctx, p.src, m.root.desc, layout.MaxDocument); err != nil {
				return fmt.Errorf("%s: %w", p.src, err)
			}
		}
		if referrerTag.MatchString(m.Tag) {
			signatures = append(signatures, m)
		} else {
			others = append(others, m)
		}
	}
	sent := p.plan.last == nil
	for _, moves := range append([][]*move{signatures}, inOrder(others)...) {
		if !sent && len(moves) > 0 {
			if err := p.sendLast(ctx, moves[0]); err != nil {
				return err
			}
			moves, sent = moves[1:], true
		}
		if err := registry.Each(ctx, p.client.SmallJobs(), moves, p.moveTag); err != nil {
			return err
		}
	}
	return nil
}

// inOrder puts moves to a manifest before those to an index, and those to an index
// before those to one that may name it. Distribution 2 writes a manifest anew, in
// place, for each tag that it is given, and refuses an index that names it in that
// moment.
func inOrder(moves []*move) (groups [][]*move) {
	rank := func(m *move) int {
		switch {
		case !layout.IsIndex(m.root.desc.MediaType):
			return 0
		case m.root.read == nil: // it is there
			return 1
		default:
			return 2 + m.root.height
		}
	}
	byRank := map[int][]*move{}
	for _, m := range moves {
		byRank[rank(m)] = append(byRank[rank(m)], m)
	}
	for _, r := range slices.Sorted(maps.Keys(byRank)) {
		groups = append(groups, byRank[r])
	}
	return groups
}

func (p *pusher) moveTag(ctx context.Context, m *move) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	m.touched = true
	ctx, cancel := registry.Linger(ctx)
	defer cancel()
	if _, err := p.client.PutManifest(ctx, m.root.desc, m.raw, m.Tag); err != nil {
		return err
	}
	if m.state = TagMoved; m.before.Digest == "" {
		m.state = TagCreated
	}
	return nil
}

// sendLast sends the last root under the first of its tags.
func (p *pusher) sendLast(ctx context.Context, m *move) error {
	p.event("start", m.root.desc, 0)
	if err := p.moveTag(ctx, m); err != nil {
		return refused(m.root, err)
	}
	p.report.Manifests++
	p.event("bytes", m.root.desc, int64(len(m.raw)))
	p.event("done", m.root.desc, 0)
	return nil
}

func (p *pusher) deleteTag(ctx context.Context, m *move) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	ctx, cancel := registry.Linger(ctx)
	defer cancel()
	err := p.client.DeleteTag(ctx, m.Tag)
	if err == nil {
		m.state = TagDeleted
		return nil
	}
	var answer *RegistryError
	if errors.As(err, &answer) && (answer.Status == http.StatusMethodNotAllowed || answer.Status == http.StatusBadRequest) {
		err = layout.WithHint(err, "this registry deletes no tags: run it without --prune")
	}
	return fmt.Errorf("delete tag %s: %w", m.Tag, err)
}

// sentRoots returns the roots that the repository lacked, each once.
func (p *pusher) sentRoots() []*document {
	var roots []*document
	for _, m := range p.plan.moves {
		if !m.prune {
			roots = append(roots, m.root)
		}
	}
	roots = append(roots, p.plan.untagged...)
	slices.SortFunc(roots, func(a, b *document) int { return cmp.Compare(a.desc.Digest, b.desc.Digest) })
	roots = slices.CompactFunc(roots, func(a, b *document) bool { return a.desc.Digest == b.desc.Digest })
	return slices.DeleteFunc(roots, func(doc *document) bool { return doc.read == nil })
}

// checkRoots asks the registry for roots that were sent: what it has just
// acknowledged, it must also give out.
func (p *pusher) checkRoots(ctx context.Context, roots []*document) error {
	return ask(ctx, p.client, true, roots, func(ctx context.Context, doc *document) error {
		present, err := p.client.Exists(ctx, doc.desc.Digest)
		if err == nil && !present {
			err = fmt.Errorf("%s@%s: %w after the registry had taken it", p.dest, doc.desc.Digest, layout.ErrNotFound)
		}
		return err
	})
}

// restore puts tags back that a failed push has moved or deleted, and only
// those that still are as it left them.
func (p *pusher) restore(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, registry.RestoreTime)
	defer cancel()
	var faults []error
	for _, m := range p.plan.moves {
		if !m.touched {
			continue
		}
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
	case m.prune && errors.Is(err, layout.ErrNotFound):
		if _, err = p.client.PutManifest(ctx, m.before, m.raw, m.Tag); err == nil {
			m.state = TagRestored
		}
		return err
	case errors.Is(err, layout.ErrNotFound):
		m.state = TagPending
		return nil
	case err != nil:
		return err
	case m.prune || now.Digest == m.before.Digest || now.Digest != m.root.desc.Digest:
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
func (p *pusher) listReferrers(ctx context.Context) error {
	for _, doc := range p.plan.relist {
		if _, err := p.client.Referrers(ctx, doc.read.Subject.Digest); err == nil {
			break // it keeps the lists itself
		} else if !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		p.unlisted = append(p.unlisted, doc)
	}
	own := map[string]bool{}
	for _, m := range p.plan.moves {
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
