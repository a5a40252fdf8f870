package sync

import (
	"context"
	"fmt"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/merge"
	"github.com/gardenlinux/gloci-layout/sync/internal/registry"
)

// compareChanges tells whether compare may give m another root. If not, it can
// only stop the push.
func (p *pusher) compareChanges(m *move) bool {
	return p.opts.Merge || !layout.IsIndex(m.Desc.MediaType) // signatures are put together
}

// compare looks at what every tag that is to move names now. Unless the caller
// wants them dropped, it returns the entries that only the registry has and that
// are not merged.
func (p *pusher) compare(ctx context.Context, moves []*move) ([]ForeignEntry, error) {
	var changed []*move
	for _, m := range moves {
		if m.state != TagUnchanged && m.before.Digest != "" {
			changed = append(changed, m)
		}
	}
	if p.opts.Replace {
		return nil, nil
	}
	found := make([][]ForeignEntry, len(changed))
	err := registry.Each(ctx, p.client.Jobs(), numbers(len(changed)), func(ctx context.Context, i int) (err error) {
		found[i], err = p.compareTag(ctx, changed[i])
		return err
	})
	return slices.Concat(found...), err
}

// refuse returns an error if there are foreign entries.
func (p *pusher) refuse(foreign []ForeignEntry) error {
	if len(foreign) == 0 {
		return nil
	}
	return layout.WithHint(&ForeignError{Repository: p.dest.String(), Entries: foreign},
		"--merge keeps these entries, --replace drops them")
}

// A side is what a tag names here or there: an index with its entries, or one
// manifest.
type side struct {
	doc     *layout.Document
	entries []ocispec.Descriptor
}

// index returns the index that a side is, for editing; nil for a manifest.
func (s *side) index() (*layout.Index, error) {
	if !s.doc.IsIndex {
		return nil, nil
	}
	x, err := layout.ParseIndex(s.doc.Raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.doc.Descriptor.Digest, err)
	}
	return x, nil
}

func newSide(ctx context.Context, src layout.Source, doc *layout.Document) (*side, error) {
	s := &side{doc: doc}
	if doc.IsIndex {
		s.entries = doc.Manifests
		return s, nil
	}
	entry := ocispec.Descriptor{
		MediaType: doc.MediaType, Digest: doc.Descriptor.Digest, Size: doc.Descriptor.Size,
		ArtifactType: doc.ArtifactType, Platform: doc.Descriptor.Platform,
	}
	if entry.Platform == nil && doc.IsImage() {
		platform, err := layout.ImagePlatform(ctx, src, doc.Descriptor, doc)
		if err != nil {
			return nil, err
		}
		entry.Platform = platform
	}
	s.entries = []ocispec.Descriptor{entry}
	return s, nil
}

// compareTag returns the entries that moving m would drop, none if they were
// merged.
func (p *pusher) compareTag(ctx context.Context, m *move) ([]ForeignEntry, error) {
	raw, err := p.client.Manifest(ctx, m.before)
	if err != nil {
		return nil, err
	}
	theirDoc, err := layout.ParseDocument(m.before, raw)
	if err != nil {
		return nil, fmt.Errorf("%s:%s: %w", p.dest, m.Tag, err)
	}
	ourDoc, err := layout.ReadDocument(ctx, p.src, m.Desc)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.src, err)
	}
	if isAttachment(theirDoc) && isAttachment(ourDoc) {
		return nil, p.attach(ctx, m, "", nil)
	}
	if !theirDoc.IsIndex && !ourDoc.IsIndex && theirDoc.ArtifactType == ourDoc.ArtifactType && theirDoc.IsImage() == ourDoc.IsImage() {
		return nil, nil // a new state of the same thing
	}
	theirs, err := newSide(ctx, registry.NewContents(p.client), theirDoc)
	if err != nil {
		return nil, err
	}
	ours, err := newSide(ctx, p.src, ourDoc)
	if err != nil {
		return nil, err
	}
	have := map[string]bool{}
	for _, e := range ours.entries {
		have[string(e.Digest)] = true
		have[p.key(e)] = true
	}
	var foreign []ForeignEntry
	var keep []int
	for i, e := range theirs.entries {
		if key := p.key(e); !have[key] && !have[string(e.Digest)] {
			foreign = append(foreign, ForeignEntry{Tag: m.Tag, RefName: layout.RefName(e), Key: key, Desc: e})
			keep = append(keep, i)
		}
	}
	if len(foreign) == 0 {
		return nil, nil
	}
	if !p.opts.Merge || !ourDoc.IsIndex && !theirDoc.IsIndex {
		return foreign, nil
	}
	return nil, m.merge(ours, theirs, keep)
}

// merge makes the root of m an index with all entries of ours and those of
// theirs whose numbers are in keep.
func (m *move) merge(ours, theirs *side, keep []int) error {
	x, err := union(ours, theirs, keep)
	if err != nil {
		return fmt.Errorf("merge %s: %w", m.Tag, err)
	}
	desc := x.Descriptor()
	if _, err := layout.ParseDocument(desc, x.Bytes()); err != nil {
		return fmt.Errorf("merge %s: %w", m.Tag, err)
	}
	m.merged = true
	m.root = &document{desc: desc, raw: x.Bytes(), origin: &m.Desc}
	if desc.Digest == m.before.Digest {
		m.state = TagUnchanged
	}
	return nil
}

// union returns an index with what both sides have; where both have a member,
// ours counts. A manifest becomes an entry of the other side's index.
func union(ours, theirs *side, keep []int) (*layout.Index, error) {
	x, err := ours.index()
	if err != nil {
		return nil, err
	}
	their, err := theirs.index()
	if err != nil {
		return nil, err
	}
	switch {
	case x != nil && their != nil:
		return merge.Union(x, their, keep)
	case x == nil:
		x = their
		x.Remove(slices.DeleteFunc(numbers(x.Len()), func(i int) bool { return slices.Contains(keep, i) })...)
		x.Add(ours.entries[0])
	default:
		x.Add(theirs.entries[0])
	}
	x.Sort()
	return layout.ParseIndex(x.Bytes())
}

func numbers(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}
