package layout

import (
	"bytes"
	"fmt"
	"maps"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout/internal/strictjson"
)

// A body is what an [Index] and a [Manifest] have in common: the members of the
// document as they were parsed, so that those which nobody here knows are kept,
// and the fields that both kinds have.
type body struct {
	raw     []byte
	members []strictjson.Member // all, as parsed
	changed bool

	artifactType string
	subject      *entry
	annotations  map[string]string
	nulls        map[string]bool // annotations that were null and have not been set
}

// An entry is a descriptor in a document, with all that was parsed of it.
type entry struct {
	desc ocispec.Descriptor
	was  ocispec.Descriptor  // as parsed
	old  []strictjson.Member // as parsed
}

// parse splits raw and reads what both kinds of documents have; own reads each
// member besides.
func (b *body) parse(raw []byte, own func(m strictjson.Member) error) error {
	v, err := strictjson.Parse(raw)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	b.raw = raw
	if b.members, err = members(v, documentNames); err != nil {
		return err
	}
	for _, m := range b.members {
		switch m.Name {
		case "schemaVersion":
			err = checkSchemaVersion(m.Value)
		case "artifactType":
			b.artifactType, err = decodeOptional(m.Value)
		case "subject":
			b.subject, err = decodeEntry(m.Value)
		case "annotations":
			b.annotations, err = decodeMap(m.Value)
			b.nulls = nulls(m.Value)
		}
		if err == nil {
			err = own(m)
		}
		if err != nil {
			return field(m.Name, err)
		}
	}
	return nil
}

// has tells whether the document was parsed with this member.
func (b *body) has(name string) bool {
	for _, m := range b.members {
		if m.Name == name {
			return true
		}
	}
	return false
}

// encode writes the document in its canonical form (docs/format.md). own sets
// the members that only one kind of document has.
func (b *body) encode(names []string, mediaType string, own func(m *merger)) {
	m := merger{old: b.members}
	// The artifact manifest of release candidates knows no schemaVersion.
	if mediaType != mediaTypeArtifact || b.has("schemaVersion") {
		m.set("schemaVersion", true, strictjson.FromInt(2))
	}
	m.set("mediaType", true, strictjson.Quote(mediaType))
	m.set("artifactType", true, encodeOptional(b.artifactType))
	own(&m)
	m.set("subject", true, encodeEntry(b.subject))
	m.set("annotations", true, encodeAnnotations(b.annotations, b.nulls))
	b.raw = append(strictjson.FromMembers(strictjson.Canonical(m.result(), names)), '\n')
	b.changed = false
}

// Annotations returns a copy of the annotations of the document itself.
func (b *body) Annotations() map[string]string { return maps.Clone(b.annotations) }

// SetAnnotation sets one annotation of the document itself.
func (b *body) SetAnnotation(key, value string) {
	if have, ok := b.annotations[key]; ok && have == value && !b.nulls[key] {
		return
	}
	delete(b.nulls, key)
	b.annotations = maps.Clone(b.annotations)
	if b.annotations == nil {
		b.annotations = map[string]string{}
	}
	b.annotations[key] = value
	b.changed = true
}

// DeleteAnnotation takes one annotation of the document itself out.
func (b *body) DeleteAnnotation(key string) {
	if _, ok := b.annotations[key]; ok {
		b.annotations = maps.Clone(b.annotations)
		delete(b.annotations, key)
		b.changed = true
	}
}

// ArtifactType returns the field artifactType, "" if there is none.
func (b *body) ArtifactType() string { return b.artifactType }

// SetArtifactType sets the field artifactType; "" takes it out.
func (b *body) SetArtifactType(artifactType string) {
	if b.artifactType != artifactType {
		b.artifactType = artifactType
		b.changed = true
	}
}

// Subject returns what the document refers to, or nil.
func (b *body) Subject() *ocispec.Descriptor {
	if b.subject == nil {
		return nil
	}
	desc := cloneDescriptor(b.subject.desc)
	return &desc
}

// SetSubject makes the document refer to desc; nil takes the subject out.
// Unknown fields of a subject that is replaced stay.
func (b *body) SetSubject(desc *ocispec.Descriptor) {
	if desc == nil {
		b.changed = b.changed || b.subject != nil
		b.subject = nil
		return
	}
	var e entry
	if b.subject != nil {
		e = *b.subject
	}
	b.changed = e.set(*desc) || b.changed || b.subject == nil
	b.subject = &e
}

// set makes the entry say desc and tells whether that is something else than
// before. Members that desc does not speak of stay.
func (e *entry) set(desc ocispec.Descriptor) (changed bool) {
	changed = !sameDescriptor(e.desc, desc)
	e.desc = cloneDescriptor(desc)
	return changed
}

func sameDescriptor(a, b ocispec.Descriptor) bool {
	var none ocispec.Descriptor
	return bytes.Equal(encodeDescriptor(a, none, nil), encodeDescriptor(b, none, nil))
}

// decodeEntry reads a descriptor, nil for null.
func decodeEntry(v strictjson.Value) (*entry, error) {
	if v.Kind() == strictjson.Null {
		return nil, nil
	}
	e := &entry{}
	var err error
	if e.desc, e.old, err = decodeDescriptor(v); err != nil {
		return nil, err
	}
	e.was = e.desc
	return e, nil
}

func decodeEntries(v strictjson.Value) ([]entry, error) {
	if v.Kind() == strictjson.Null {
		return nil, nil
	}
	items, err := v.Items()
	if err != nil {
		return nil, err
	}
	entries := make([]entry, len(items))
	for i, item := range items {
		e := &entries[i]
		if e.desc, e.old, err = decodeDescriptor(item); err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
		e.was = e.desc
	}
	return entries, nil
}

func encodeEntry(e *entry) strictjson.Value {
	if e == nil {
		return nil
	}
	return encodeDescriptor(e.desc, e.was, e.old)
}

func encodeEntries(entries []entry) strictjson.Value {
	items := make([]strictjson.Value, len(entries))
	for i := range entries {
		items[i] = encodeEntry(&entries[i])
	}
	return strictjson.FromItems(items)
}

// descriptorsOf returns copies of the entries, in listed order.
func descriptorsOf(entries []entry) []ocispec.Descriptor {
	descs := make([]ocispec.Descriptor, len(entries))
	for i, e := range entries {
		descs[i] = cloneDescriptor(e.desc)
	}
	return descs
}

// without returns the entries but for those with these numbers.
func without(entries []entry, numbers []int) []entry {
	gone := make(map[int]bool, len(numbers))
	for _, n := range numbers {
		gone[n] = true
	}
	var kept []entry
	for i, e := range entries {
		if !gone[i] {
			kept = append(kept, e)
		}
	}
	return kept
}
