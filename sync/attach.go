package sync

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/sync/internal/registry"
)

// planSignatures signs what the moves and untagged targets lead to, and plans
// the tags of the signatures.
func (p *pusher) planSignatures(ctx context.Context, pl *plan, untagged []Target) error {
	if len(p.opts.Signers) == 0 {
		return nil
	}
	identities, err := p.identities(ctx, pl.moves, untagged)
	if err != nil {
		return err
	}
	byTag := map[string]*move{}
	for _, m := range pl.moves {
		byTag[m.Tag] = m
	}
	var changed, added []*move
	signed := map[*move]digest.Digest{}
	for _, d := range slices.Sorted(maps.Keys(identities)) {
		if d.Algorithm() != digest.SHA256 {
			return fmt.Errorf("sign %s: %w: there is a tag for signatures of sha256 only", d, layout.ErrInvalid)
		}
		m := byTag[attachmentTag(d)]
		if m == nil {
			m = &move{Target: Target{Tag: attachmentTag(d), Path: p.path}, state: TagPending}
			added = append(added, m)
		}
		signed[m] = d
		changed = append(changed, m)
	}
	pl.moves = append(pl.moves, added...)
	if err := p.resolveTags(ctx, added); err != nil {
		return err
	}
	return registry.Each(ctx, p.client.Jobs(), changed, func(ctx context.Context, m *move) error {
		return p.attach(ctx, m, signed[m], identities[signed[m]])
	})
}

// identities returns what each document is to be signed as: the repository with
// the tags that lead to it, as a client that was asked for the tag checks all
// below by that name; where there is none, with its digest.
func (p *pusher) identities(ctx context.Context, moves []*move, untagged []Target) (map[digest.Digest][]string, error) {
	found := map[digest.Digest][]string{}
	below := map[digest.Digest][]ocispec.Descriptor{}
	sign := func(root ocispec.Descriptor, tag string, rootToo bool) error {
		documents, ok := below[root.Digest]
		if !ok {
			for n, err := range layout.Walk(ctx, p.src, []ocispec.Descriptor{root}, &layout.WalkOptions{DocumentsOnly: true, NoSubjects: true, Sparse: p.opts.Sparse}) {
				if err != nil {
					return fmt.Errorf("%s: %w", p.src, err)
				}
				if !n.Absent && !holdsSignatures(n.Document) {
					documents = append(documents, n.Desc)
				}
			}
			below[root.Digest] = documents
		}
		for _, desc := range documents {
			switch {
			case desc.Digest == root.Digest && !rootToo:
			case tag != "":
				found[desc.Digest] = append(found[desc.Digest], p.dest.String()+":"+tag)
			case len(found[desc.Digest]) == 0:
				found[desc.Digest] = []string{p.dest.String() + "@" + string(desc.Digest)}
			}
		}
		return nil
	}
	for _, m := range moves {
		if listTag.MatchString(m.Tag) {
			continue
		}
		if m.merged {
			found[m.root.desc.Digest] = append(found[m.root.desc.Digest], p.dest.String()+":"+m.Tag)
		}
		// An index that was merged is not pushed itself.
		if err := sign(m.Desc, m.Tag, !m.merged || !layout.IsIndex(m.Desc.MediaType)); err != nil {
			return nil, err
		}
	}
	for _, m := range moves {
		if listTag.MatchString(m.Tag) {
			untagged = append(slices.Clip(untagged), m.Target)
		}
	}
	for _, t := range untagged {
		if err := sign(t.Desc, "", !listTag.MatchString(t.Tag)); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// An attachment is a manifest of signatures that is put together.
type attachment struct {
	members map[string]json.RawMessage // of the manifest that it began with
	config  *ocispec.Descriptor
	layers  []attachedLayer
	have    map[string]bool // by attachmentKey
}

// An attachedLayer is a layer of an attachment, as its manifest has it.
type attachedLayer struct {
	desc ocispec.Descriptor
	raw  json.RawMessage
	src  layout.Source // of its content
	text []byte        // the content, once it was read
}

func attachmentKey(l ocispec.Descriptor) (string, error) {
	key, err := json.Marshal([]any{l.MediaType, l.Digest, l.Annotations})
	return string(key), err
}

// take appends the layers of doc, of src, that are not there, and returns them.
func (a *attachment) take(src layout.Source, doc *layout.Document) (layers []ocispec.Descriptor, err error) {
	if doc.IsIndex || doc.Config == nil {
		return nil, fmt.Errorf("%s: %w: no manifest of signatures", doc.Descriptor.Digest, layout.ErrConflict)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(doc.Raw, &members); err != nil {
		return nil, err
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(members["layers"], &raw); err != nil {
		return nil, err
	}
	if a.members == nil {
		a.members, a.config = members, doc.Config
	}
	for i, l := range doc.Layers {
		ok, err := a.add(attachedLayer{desc: l, raw: raw[i], src: src})
		if err != nil {
			return nil, err
		}
		if ok {
			layers = append(layers, l)
		}
	}
	return layers, nil
}

func (a *attachment) add(l attachedLayer) (bool, error) {
	key, err := attachmentKey(l.desc)
	if err != nil || a.have[key] {
		return false, err
	}
	a.have[key] = true
	a.layers = append(a.layers, l)
	return true, nil
}

// signedBy tells whether one of the layers is a signature by s that says of d
// what s would say. Other programs put the time into the text, or take a random
// number, so that theirs have other bytes.
func (a *attachment) signedBy(ctx context.Context, s *Signer, d digest.Digest, identity string) (bool, error) {
	for i := range a.layers {
		l := &a.layers[i]
		made, ok := l.desc.Annotations[annotationSignature]
		if !ok || l.desc.MediaType != mediaTypeSimpleSigning || l.desc.Size > maxSigned {
			continue
		}
		if l.text == nil {
			var err error
			if l.text, err = layout.ReadAll(ctx, l.src, l.desc, maxSigned); err != nil {
				return false, err
			}
		}
		if s.made(l.text, made) && says(l.text, d, identity) {
			return true, nil
		}
	}
	return false, nil
}

// sign adds signatures by the keys that say of d that it is each of the
// identities, and returns the texts of those that are new.
func (p *pusher) sign(ctx context.Context, a *attachment, d digest.Digest, identities []string) (texts []ocispec.Descriptor, made map[digest.Digest][]byte, err error) {
	made = map[digest.Digest][]byte{}
	for _, identity := range identities {
		for _, s := range p.opts.Signers {
			one, err := s.sign(d, identity)
			if err != nil {
				return nil, nil, err
			}
			l := attachedLayer{
				desc: ocispec.Descriptor{MediaType: one.MediaType, Digest: digest.FromBytes(one.Payload), Size: int64(len(one.Payload)), Annotations: one.Annotations},
				text: one.Payload,
			}
			key, err := attachmentKey(l.desc)
			if err != nil {
				return nil, nil, err
			}
			if a.have[key] {
				continue
			}
			if have, err := a.signedBy(ctx, s, d, identity); err != nil || have {
				if err != nil {
					return nil, nil, err
				}
				continue
			}
			if l.raw, err = json.Marshal(l.desc); err != nil {
				return nil, nil, err
			}
			if _, err := a.add(l); err != nil {
				return nil, nil, err
			}
			made[l.desc.Digest] = one.Payload
			texts = append(texts, l.desc)
		}
	}
	return texts, made, nil
}

// attach makes the root of m, a tag of signatures, hold those that it names at
// the registry, those of the source, and new ones that say of d that it is each
// of the identities.
func (p *pusher) attach(ctx context.Context, m *move, d digest.Digest, identities []string) error {
	a := &attachment{have: map[string]bool{}}
	base := layout.Source(registry.NewContents(p.client))
	if m.before.Digest != "" {
		if _, err := p.takeFrom(ctx, a, base, m.before); err != nil {
			return fmt.Errorf("%s:%s: %w", p.dest, m.Tag, err)
		}
	}
	theirs := len(a.layers)
	var send []ocispec.Descriptor
	verbatim := false // all are in the manifest of the source
	if m.Desc.Digest != "" {
		if m.before.Digest == "" {
			base = p.src
		}
		ours, err := p.takeFrom(ctx, a, p.src, m.Desc)
		if err != nil {
			return fmt.Errorf("%s: %w", p.src, err)
		}
		send = append(send, ours...)
		alone := &attachment{have: map[string]bool{}}
		if _, err := p.takeFrom(ctx, alone, p.src, m.Desc); err != nil {
			return fmt.Errorf("%s: %w", p.src, err)
		}
		verbatim = len(alone.layers) == len(a.layers)
	}
	signed := len(a.layers)
	texts, made, err := p.sign(ctx, a, d, identities)
	if err != nil {
		return fmt.Errorf("sign %s: %w", d, err)
	}
	send = append(send, texts...)
	switch {
	case m.before.Digest != "" && len(a.layers) == theirs:
		m.root, m.state = &document{desc: m.before, present: true}, TagUnchanged
		return nil
	case len(a.layers) == signed && verbatim:
		return nil
	}
	config, err := a.newConfig(ctx, base)
	if err != nil {
		return fmt.Errorf("%s:%s: %w", p.dest, m.Tag, err)
	}
	if config != nil {
		made[a.config.Digest] = config
	}
	send = append(send, *a.config)
	desc, raw, err := a.manifest()
	if err != nil {
		return err
	}
	read, err := layout.ParseDocument(desc, raw)
	if err != nil {
		return fmt.Errorf("%s:%s: %w", p.dest, m.Tag, err)
	}
	m.root = &document{desc: desc, raw: raw, made: true, read: read, blobs: send}
	m.state, m.merged = TagPending, m.before.Digest != ""
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.Copy(p.made, made)
	return nil
}

func (p *pusher) takeFrom(ctx context.Context, a *attachment, src layout.Source, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	doc, err := layout.ReadDocument(ctx, src, desc)
	if err != nil {
		return nil, err
	}
	return a.take(src, doc)
}

// newConfig returns the bytes of a config that lists all layers, as those who
// read signatures as an image expect, and makes it that of the manifest. A
// config that is none of an image stays: then there are no bytes.
func (a *attachment) newConfig(ctx context.Context, base layout.Source) ([]byte, error) {
	members := map[string]json.RawMessage{"architecture": json.RawMessage(`""`), "os": json.RawMessage(`""`), "config": json.RawMessage("{}")}
	if a.config != nil {
		if a.config.MediaType != ocispec.MediaTypeImageConfig {
			return nil, nil
		}
		raw, err := layout.ReadAll(ctx, base, *a.config, layout.MaxDocument)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(raw, &members); err != nil {
			return nil, fmt.Errorf("%s: %w config: %w", a.config.Digest, layout.ErrInvalid, err)
		}
	}
	ids := make([]digest.Digest, len(a.layers))
	for i, l := range a.layers {
		ids[i] = l.desc.Digest
	}
	var err error
	if members["rootfs"], err = json.Marshal(ocispec.RootFS{Type: "layers", DiffIDs: ids}); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(members)
	if err != nil {
		return nil, err
	}
	a.config = &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	return raw, nil
}

// manifest returns the manifest and its descriptor.
func (a *attachment) manifest() (desc ocispec.Descriptor, raw []byte, err error) {
	if a.members == nil {
		a.members = map[string]json.RawMessage{"schemaVersion": json.RawMessage("2"), "mediaType": json.RawMessage(`"` + ocispec.MediaTypeImageManifest + `"`)}
	}
	if a.members["config"], err = json.Marshal(a.config); err != nil {
		return desc, nil, err
	}
	layers := make([]json.RawMessage, len(a.layers))
	for i, l := range a.layers {
		layers[i] = l.raw
	}
	if a.members["layers"], err = json.Marshal(layers); err != nil {
		return desc, nil, err
	}
	if raw, err = json.Marshal(a.members); err != nil {
		return desc, nil, err
	}
	var typed struct {
		MediaType string `json:"mediaType"`
	}
	err = json.Unmarshal(raw, &typed)
	return ocispec.Descriptor{
		MediaType: cmp.Or(typed.MediaType, ocispec.MediaTypeImageManifest),
		Digest:    digest.FromBytes(raw), Size: int64(len(raw)),
	}, raw, err
}
