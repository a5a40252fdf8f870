package layout

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout/internal/strictjson"
)

// maxEmbedded bounds the "data" of a descriptor, decoded. Its purpose is to
// save a request for something small.
const maxEmbedded = 64 << 10 // 64 KiB

// The names that a descriptor and a platform may have, in the order in which
// we write them.
var (
	descriptorNames = []string{"mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType"}
	platformNames   = []string{"architecture", "os", "os.version", "os.features", "variant"}
)

// members splits an object of a document and refuses names that readers could
// confuse with known ones.
func members(v strictjson.Value, known []string) ([]strictjson.Member, error) {
	ms, err := v.Members()
	if err == nil {
		err = strictjson.CheckNames(ms, known)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return ms, nil
}

// field wraps the error of one member of a document.
func field(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w %s: %w", ErrInvalid, name, err)
}

// decodeDescriptor reads a descriptor (descriptor.md). Its members come along,
// so that unknown ones can be kept.
func decodeDescriptor(v strictjson.Value) (desc ocispec.Descriptor, ms []strictjson.Member, err error) {
	ms, err = members(v, descriptorNames)
	if err != nil {
		return desc, nil, err
	}
	sized := false
	for _, m := range ms {
		switch m.Name {
		case "mediaType":
			desc.MediaType, err = m.Value.Text()
		case "digest":
			var text string
			if text, err = m.Value.Text(); err == nil {
				desc.Digest, err = ParseDigest(text)
			}
		case "size":
			sized = true
			if desc.Size, err = m.Value.Int(); err == nil && desc.Size < 0 {
				err = fmt.Errorf("%d is negative", desc.Size)
			}
		case "urls":
			desc.URLs, err = decodeStrings(m.Value)
		case "annotations":
			desc.Annotations, err = decodeMap(m.Value)
		case "data":
			desc.Data, err = decodeData(m.Value)
		case "platform":
			desc.Platform, err = decodePlatform(m.Value)
		case "artifactType":
			desc.ArtifactType, err = decodeOptional(m.Value)
		}
		if err != nil {
			return desc, nil, field(m.Name, err)
		}
	}
	switch {
	case desc.MediaType == "":
		return desc, nil, fmt.Errorf("%w: descriptor without mediaType", ErrInvalid)
	case desc.Digest == "":
		return desc, nil, fmt.Errorf("%w: descriptor without digest", ErrInvalid)
	case !sized:
		return desc, nil, fmt.Errorf("%w: descriptor %s without size", ErrInvalid, desc.Digest)
	}
	if desc.Data != nil {
		if int64(len(desc.Data)) != desc.Size || desc.Digest.Algorithm().FromBytes(desc.Data) != desc.Digest {
			return desc, nil, &BlobError{Op: "read", Desc: desc, Err: fmt.Errorf("embedded data: %w", ErrMismatch)}
		}
	}
	return desc, ms, nil
}

func decodeOptional(v strictjson.Value) (string, error) {
	if v.Kind() == strictjson.Null {
		return "", nil
	}
	return v.Text()
}

func decodeStrings(v strictjson.Value) ([]string, error) {
	if v.Kind() == strictjson.Null {
		return nil, nil
	}
	items, err := v.Items()
	if err != nil {
		return nil, err
	}
	texts := make([]string, len(items))
	for i, item := range items {
		if texts[i], err = item.Text(); err != nil {
			return nil, err
		}
	}
	return texts, nil
}

// decodeMap reads annotations. A null is an empty text, as it is for the clients
// in Go (annotations.md wants texts, but manifests with nulls were published);
// encodeAnnotations keeps it.
func decodeMap(v strictjson.Value) (map[string]string, error) {
	if v.Kind() == strictjson.Null {
		return nil, nil
	}
	ms, err := v.Members()
	if err != nil {
		return nil, err
	}
	m := make(map[string]string, len(ms))
	for _, member := range ms {
		if m[member.Name], err = decodeOptional(member.Value); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func decodeData(v strictjson.Value) ([]byte, error) {
	text, err := decodeOptional(v)
	if err != nil || v.Kind() == strictjson.Null {
		return nil, err
	}
	if base64.StdEncoding.DecodedLen(len(text)) > maxEmbedded+3 {
		return nil, fmt.Errorf("more than %d bytes", maxEmbedded)
	}
	data, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, err
	}
	return append([]byte{}, data...), nil // never nil: empty data is data
}

func decodePlatform(v strictjson.Value) (*ocispec.Platform, error) {
	if v.Kind() == strictjson.Null {
		return nil, nil
	}
	ms, err := members(v, platformNames)
	if err != nil {
		return nil, err
	}
	p := &ocispec.Platform{}
	for _, m := range ms {
		switch m.Name {
		case "architecture":
			p.Architecture, err = decodeOptional(m.Value)
		case "os":
			p.OS, err = decodeOptional(m.Value)
		case "os.version":
			p.OSVersion, err = decodeOptional(m.Value)
		case "os.features":
			p.OSFeatures, err = decodeStrings(m.Value)
		case "variant":
			p.Variant, err = decodeOptional(m.Value)
		}
		if err != nil {
			return nil, field(m.Name, err)
		}
	}
	return p, nil
}

// encodeDescriptor writes desc in canonical form. Members of old that desc does
// not speak of stay; so do the fields that desc did not change, but for the
// order of their names.
func encodeDescriptor(desc ocispec.Descriptor, was ocispec.Descriptor, old []strictjson.Member) strictjson.Value {
	e := merger{old: old}
	e.set("mediaType", desc.MediaType != was.MediaType, strictjson.Quote(desc.MediaType))
	e.set("digest", desc.Digest != was.Digest, strictjson.Quote(string(desc.Digest)))
	e.set("size", desc.Size != was.Size || len(old) == 0, strictjson.FromInt(desc.Size))
	e.set("urls", !slices.Equal(desc.URLs, was.URLs), encodeStrings(desc.URLs))
	e.set("annotations", true, encodeAnnotations(desc.Annotations, nulls(e.get("annotations"))))
	var data strictjson.Value
	if desc.Data != nil {
		data = strictjson.Quote(base64.StdEncoding.EncodeToString(desc.Data))
	}
	e.set("data", !bytes.Equal(desc.Data, was.Data) || (desc.Data == nil) != (was.Data == nil), data)
	e.set("platform", !samePlatform(desc.Platform, was.Platform), encodePlatform(desc.Platform, e.get("platform")))
	e.set("artifactType", desc.ArtifactType != was.ArtifactType, encodeOptional(desc.ArtifactType))
	return strictjson.FromMembers(strictjson.Canonical(e.result(), descriptorNames))
}

// merger makes the members of an object from old ones and new values.
type merger struct {
	old []strictjson.Member
	new []strictjson.Member
}

func (e *merger) get(name string) strictjson.Value {
	for _, m := range e.old {
		if m.Name == name {
			return m.Value
		}
	}
	return nil
}

// set gives name the value, or takes it out where the value is nil. Unless it
// changed, an old value stays as it is.
func (e *merger) set(name string, changed bool, value strictjson.Value) {
	if old := e.get(name); !changed && old != nil {
		value = old.Compact()
	}
	e.new = append(e.new, strictjson.Member{Name: name, Value: value})
}

func (e *merger) result() []strictjson.Member {
	var out []strictjson.Member
	for _, m := range e.new {
		if m.Value != nil {
			out = append(out, m)
		}
	}
	for _, m := range e.old {
		if !slices.ContainsFunc(e.new, func(n strictjson.Member) bool { return n.Name == m.Name }) {
			out = append(out, strictjson.Member{Name: m.Name, Value: m.Value.Compact()})
		}
	}
	return out
}

func encodeOptional(s string) strictjson.Value {
	if s == "" {
		return nil
	}
	return strictjson.Quote(s)
}

func encodeStrings(texts []string) strictjson.Value {
	if len(texts) == 0 {
		return nil
	}
	items := make([]strictjson.Value, len(texts))
	for i, text := range texts {
		items[i] = strictjson.Quote(text)
	}
	return strictjson.FromItems(items)
}

// encodeAnnotations writes m, in which an empty text is null where it is one of
// nulls.
func encodeAnnotations(m map[string]string, nulls map[string]bool) strictjson.Value {
	if len(m) == 0 {
		return nil
	}
	return strictjson.FromMap(m, nulls)
}

// nulls returns the annotations that are null.
func nulls(annotations strictjson.Value) map[string]bool {
	var found map[string]bool
	if annotations.Kind() != strictjson.Object || !bytes.Contains(annotations, []byte("null")) {
		return nil
	}
	was, _ := annotations.Members() // it was split before
	for _, a := range was {
		if a.Value.Kind() == strictjson.Null {
			if found == nil {
				found = map[string]bool{}
			}
			found[a.Name] = true
		}
	}
	return found
}

func encodePlatform(p *ocispec.Platform, old strictjson.Value) strictjson.Value {
	if p == nil {
		return nil
	}
	var e merger
	if old.Kind() == strictjson.Object {
		e.old, _ = old.Members() // it was split before
	}
	e.set("architecture", true, strictjson.Quote(p.Architecture))
	e.set("os", true, strictjson.Quote(p.OS))
	e.set("os.version", true, encodeOptional(p.OSVersion))
	e.set("os.features", true, encodeStrings(p.OSFeatures))
	e.set("variant", true, encodeOptional(p.Variant))
	return strictjson.FromMembers(strictjson.Canonical(e.result(), platformNames))
}

func samePlatform(a, b *ocispec.Platform) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Architecture == b.Architecture && a.OS == b.OS && a.OSVersion == b.OSVersion &&
		a.Variant == b.Variant && slices.Equal(a.OSFeatures, b.OSFeatures)
}

// cloneDescriptor returns a copy that shares nothing with desc.
func cloneDescriptor(desc ocispec.Descriptor) ocispec.Descriptor {
	desc.URLs = slices.Clone(desc.URLs)
	desc.Annotations = maps.Clone(desc.Annotations)
	desc.Data = bytes.Clone(desc.Data)
	if desc.Platform != nil {
		p := *desc.Platform
		p.OSFeatures = slices.Clone(p.OSFeatures)
		desc.Platform = &p
	}
	return desc
}

// describe returns the descriptor of raw.
func describe(raw []byte, mediaType string) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.SHA256.FromBytes(raw), Size: int64(len(raw))}
}
