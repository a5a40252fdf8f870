package publish

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/sync/internal/registry"
)

// What a tombstone and an adopted entry say of themselves (docs/format.md).
const (
	typeRemoved       = "application/vnd.gardenlinux.gloci-layout.removed.v1"
	typeAdopted       = "application/vnd.gardenlinux.gloci-layout.adopted.v1"
	annotationVersion = "com.github.gardenlinux.gloci-layout.version"
	annotationKey     = "com.github.gardenlinux.gloci-layout.key"
)

// A tagged is what a tag of the version names.
type tagged struct {
	desc    ocispec.Descriptor
	doc     *layout.Document // nil where it cannot be read as one
	part    Part
	isPart  bool
	removed bool   // a tombstone
	key     string // of the part, or of what was removed
	adopted []json.RawMessage
}

// An item is an entry of the index to be, as it stands there.
type item struct {
	raw    json.RawMessage
	desc   ocispec.Descriptor
	key    string
	digest digest.Digest
}

// read returns what a manifest is to the version. What was read once is known.
func (p *publisher) read(ctx context.Context, desc ocispec.Descriptor) (*tagged, error) {
	p.mu.Lock()
	known := p.docs[desc.Digest]
	p.mu.Unlock()
	if known != nil {
		return known, nil
	}
	t := &tagged{desc: plain(desc)}
	raw, err := p.client.Manifest(ctx, t.desc)
	if err != nil {
		return nil, err
	}
	switch t.doc, err = layout.ParseDocument(t.desc, raw); {
	case err != nil:
		t.doc = nil // somebody else's: not ours to judge
	case t.doc.Annotations[annotationVersion] == p.opts.Version && t.doc.IsIndex && t.doc.ArtifactType == typeAdopted:
		if t.adopted, err = rawEntries(raw); err != nil {
			return nil, err
		}
	case t.doc.Annotations[annotationVersion] == p.opts.Version && t.doc.ArtifactType == typeRemoved:
		t.removed, t.key = true, t.doc.Annotations[annotationKey]
	case !t.doc.IsIndex:
		if t.part, t.isPart, err = p.part(ctx, registry.NewContents(p.client), t.desc, t.doc); err != nil {
			return nil, err
		}
		t.key = layout.EntryKey(t.part.Entry)
	}
	p.mu.Lock()
	p.docs[desc.Digest] = t
	p.mu.Unlock()
	return t, nil
}

// index returns the index that the tags say, as a function of nothing else. A
// part under its own tag counts before one of the same key under another, and
// that before an adopted entry; a tombstone counts as its part would.
func (p *publisher) index(tags map[string]*tagged) (*layout.Index, error) {
	keys := map[string]bool{}
	var items []item
	add := func(list []item) {
		for _, it := range list {
			if !slices.ContainsFunc(items, func(have item) bool { return bytes.Equal(have.raw, it.raw) }) {
				items = append(items, it)
			}
		}
		for _, it := range list {
			keys[it.key] = true
		}
	}
	var own, others, adopted []item
	for tag, t := range tags {
		switch {
		case t.removed:
			if t.key != "" {
				keys[t.key] = true
			}
		case t.isPart && member(tag, t):
			it, err := newItem(t.part.Entry)
			if err != nil {
				return nil, err
			}
			if tag == t.part.Tag {
				own = append(own, it)
			} else {
				others = append(others, it)
			}
		case t.adopted != nil:
			list, err := parseItems(t.adopted)
			if err != nil {
				return nil, fmt.Errorf("%s:%s: %w", p.report.Repository, tag, err)
			}
			adopted = append(adopted, list...)
		}
	}
	add(own)
	for _, list := range [][]item{others, adopted} {
		add(slices.DeleteFunc(list, func(it item) bool { return keys[it.key] }))
	}
	return makeIndex(items, nil)
}

// newItem makes the entry of a part.
func newItem(desc ocispec.Descriptor) (item, error) {
	raw, err := json.Marshal(desc)
	return item{raw: raw, desc: desc, key: layout.EntryKey(desc), digest: desc.Digest}, err
}

// rawEntries returns the entries of an index as they stand there.
func rawEntries(index []byte) ([]json.RawMessage, error) {
	var x struct {
		Manifests []json.RawMessage `json:"manifests"`
	}
	err := json.Unmarshal(index, &x)
	return x.Manifests, err
}

// parseItems reads entries of an index.
func parseItems(entries []json.RawMessage) ([]item, error) {
	raw, err := encodeIndex(entries, nil)
	if err != nil {
		return nil, err
	}
	x, err := layout.ParseIndex(raw)
	if err != nil {
		return nil, err
	}
	items := make([]item, len(entries))
	for i, desc := range x.Entries() {
		items[i] = item{raw: entries[i], desc: desc, key: layout.EntryKey(desc), digest: desc.Digest}
	}
	return items, nil
}

// makeIndex returns the index of these entries in the canonical form, whatever
// their order is.
func makeIndex(items []item, members map[string]any) (*layout.Index, error) {
	// Sort keeps the order of equal runtime entries: it must not be that of a map.
	slices.SortFunc(items, func(a, b item) int {
		return cmp.Or(cmp.Compare(a.digest, b.digest), bytes.Compare(a.raw, b.raw))
	})
	entries := make([]json.RawMessage, len(items))
	for i, it := range items {
		entries[i] = it.raw
	}
	raw, err := encodeIndex(entries, members)
	if err != nil {
		return nil, err
	}
	x, err := layout.ParseIndex(raw)
	if err != nil {
		return nil, err
	}
	x.Sort()
	x.SetArtifactType(x.ArtifactType()) // canonical also where nothing was moved
	if len(x.Bytes()) > layout.MaxDocument {
		return nil, fmt.Errorf("%w: the index would have %d bytes, more than %d", layout.ErrInvalid, len(x.Bytes()), layout.MaxDocument)
	}
	return x, nil
}

func encodeIndex(entries []json.RawMessage, members map[string]any) ([]byte, error) {
	x := map[string]any{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "manifests": entries}
	for name, value := range members {
		x[name] = value
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(x)
	return b.Bytes(), err
}

// adopt returns the index that keeps a foreign entry, and its tag.
func (p *publisher) adopt(it item) (tag string, x *layout.Index, err error) {
	x, err = makeIndex([]item{it}, map[string]any{
		"artifactType": typeAdopted,
		"annotations":  map[string]string{annotationVersion: p.opts.Version},
	})
	if err != nil {
		return "", nil, err
	}
	return p.opts.Version + "-adopted-" + x.Descriptor().Digest.Encoded()[:32], x, nil
}

// tombstone returns the manifest that stands for a removed part. It has no
// content but its annotations.
func (p *publisher) tombstone(key string) []byte {
	empty := ocispec.DescriptorEmptyJSON
	empty.Data = nil
	annotations := map[string]string{annotationVersion: p.opts.Version}
	if key != "" {
		annotations[annotationKey] = key
	}
	raw, err := layout.EncodeManifest(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: typeRemoved,
		Config: empty, Layers: []ocispec.Descriptor{empty}, Annotations: annotations,
	})
	if err != nil {
		panic(err) // strings only
	}
	return raw
}

func describeManifest(raw []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
}

// member tells whether a tag stands for something, which the index then has, or
// must not have.
func member(tag string, t *tagged) bool {
	return t.removed || t.adopted != nil || t.isPart && (tag == t.part.Tag || !t.part.ByTag)
}

// foreign returns the entries of the index as read for which no tag stands.
func (p *publisher) foreign(ctx context.Context, now *tagContent, tags map[string]*tagged) ([]item, error) {
	items, err := p.entriesOf(ctx, now)
	if err != nil {
		return nil, fmt.Errorf("%s:%s: %w", p.report.Repository, p.opts.Version, err)
	}
	known, keys := map[digest.Digest]bool{}, map[string]bool{}
	for tag, t := range tags {
		if !member(tag, t) {
			continue
		}
		known[t.desc.Digest] = true
		if t.key != "" {
			keys[t.key] = true
		}
		list, err := parseItems(t.adopted)
		if err != nil {
			return nil, err
		}
		for _, it := range list {
			known[it.digest] = true
		}
	}
	return slices.DeleteFunc(items, func(it item) bool { return known[it.digest] || keys[it.key] }), nil
}

// entriesOf returns the entries of what the version's tag names; a manifest that
// was pushed in the place of an index is one.
func (p *publisher) entriesOf(ctx context.Context, now *tagContent) ([]item, error) {
	if now.desc.Digest == "" {
		return nil, nil
	}
	if layout.IsIndex(now.desc.MediaType) {
		entries, err := rawEntries(now.raw)
		if err != nil {
			return nil, err
		}
		return parseItems(entries)
	}
	doc, err := layout.ParseDocument(plain(now.desc), now.raw)
	if err != nil {
		return nil, err
	}
	entry := ocispec.Descriptor{MediaType: doc.MediaType, Digest: now.desc.Digest, Size: now.desc.Size, ArtifactType: doc.ArtifactType}
	if entry.Platform, err = layout.ImagePlatform(ctx, registry.NewContents(p.client), entry, doc); err != nil {
		return nil, err
	}
	it, err := newItem(entry)
	return []item{it}, err
}
