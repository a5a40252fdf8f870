package layout

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout/internal/strictjson"
)

// An Index is index.json or an image index (image-index.md), to be read and
// edited. What it does not know of the document and of each entry, it keeps.
// It may not be shared between goroutines while it changes.
type Index struct {
	body
	entries []entry
}

// NewIndex returns an index without entries.
func NewIndex() *Index { return &Index{body: body{changed: true}} }

// ParseIndex reads an index strictly; a document that is refused is
// [ErrInvalid]. The mediaType may be absent (it is a SHOULD), but not that of
// something else. The index keeps raw.
func ParseIndex(raw []byte) (*Index, error) {
	x := &Index{}
	err := x.parse(raw, func(m strictjson.Member) (err error) {
		switch m.Name {
		case "mediaType":
			var text string
			if text, err = decodeOptional(m.Value); err == nil && text != "" && !IsIndex(text) {
				err = fmt.Errorf("%q is not that of an index", text)
			}
		case "manifests":
			x.entries, err = decodeEntries(m.Value)
		case "layers", "config", "fsLayers":
			err = fmt.Errorf("an index with a part of a manifest")
		}
		return err
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("index: %w", err)
	case !x.has("schemaVersion"):
		return nil, fmt.Errorf("%w index: schemaVersion is missing", ErrInvalid)
	case !x.has("manifests"):
		return nil, fmt.Errorf("%w index: manifests is missing", ErrInvalid)
	}
	return x, nil
}

// Bytes returns the document: the very bytes that were parsed if nothing has
// changed, else its canonical form (docs/format.md). The caller may not change
// them.
func (x *Index) Bytes() []byte {
	if x.changed {
		x.encode(indexNames, x.MediaType(), func(m *merger) { m.set("manifests", true, encodeEntries(x.entries)) })
	}
	return x.raw
}

// Canonicalize makes [Index.Bytes] return the canonical form, also if nothing
// has changed.
func (x *Index) Canonicalize() { x.changed = true }

// MediaType returns the media type of the body; that of an OCI index where the
// body has none.
func (x *Index) MediaType() string {
	for _, m := range x.members {
		if m.Name == "mediaType" {
			if text, err := decodeOptional(m.Value); err == nil && text != "" {
				return text
			}
		}
	}
	return ocispec.MediaTypeImageIndex
}

// HasMediaType tells whether the body names its media type. Some clients refuse
// an index that does not.
func (x *Index) HasMediaType() bool {
	return x.has("mediaType") || len(x.members) == 0
}

// Descriptor returns the descriptor of [Index.Bytes].
func (x *Index) Descriptor() ocispec.Descriptor {
	desc := describe(x.Bytes(), x.MediaType())
	desc.ArtifactType = x.artifactType
	return desc
}

// Len returns the number of entries.
func (x *Index) Len() int { return len(x.entries) }

// Entries returns copies of the entries, in listed order.
func (x *Index) Entries() []ocispec.Descriptor { return descriptorsOf(x.entries) }

// Add appends an entry, also where an equal one is there.
func (x *Index) Add(desc ocispec.Descriptor) {
	x.entries = append(x.entries, entry{desc: cloneDescriptor(desc)})
	x.changed = true
}

// AddFrom appends entry i of from, with its unknown fields.
func (x *Index) AddFrom(from *Index, i int) {
	e := from.entries[i]
	e.desc = cloneDescriptor(e.desc)
	x.entries = append(x.entries, e)
	x.changed = true
}

// Set makes entry i say desc. Unknown fields of the entry stay.
func (x *Index) Set(i int, desc ocispec.Descriptor) {
	x.entries[i].desc = cloneDescriptor(desc)
	x.changed = true
}

// Remove takes out the entries with these numbers.
func (x *Index) Remove(numbers ...int) {
	if len(numbers) == 0 {
		return
	}
	x.entries = without(x.entries, numbers)
	x.changed = true
}

// Unknown returns the names of the members that the specification has not.
func (x *Index) Unknown() []string {
	var names []string
	for _, m := range x.members {
		if !slices.Contains(indexNames, m.Name) {
			names = append(names, m.Name)
		}
	}
	return names
}

// Sort brings the entries into the order in which we write them: runtime
// entries first, because clients take the first entry that fits
// (image-index.md, "manifests"), then the others, each group by platform,
// cname, ref name and artifactType. Runtime entries that are equal in all of
// that keep their order, for it has a meaning; others are ordered by digest.
func (x *Index) Sort() {
	if slices.IsSortedFunc(x.entries, compareEntries) {
		return
	}
	slices.SortStableFunc(x.entries, compareEntries)
	x.changed = true
}

func compareEntries(a, b entry) int {
	runtimeA, runtimeB := isRuntimeEntry(a.desc), isRuntimeEntry(b.desc)
	if runtimeA != runtimeB {
		if runtimeA {
			return -1
		}
		return 1
	}
	if d := compareDescriptors(a.desc, b.desc); d != 0 || runtimeA {
		return d
	}
	return cmp.Compare(a.desc.Digest, b.desc.Digest)
}

func compareDescriptors(a, b ocispec.Descriptor) int {
	pa, pb := platformOf(a), platformOf(b)
	return cmp.Or(
		cmp.Compare(pa.OS, pb.OS),
		cmp.Compare(pa.Architecture, pb.Architecture),
		cmp.Compare(pa.Variant, pb.Variant),
		cmp.Compare(pa.OSVersion, pb.OSVersion),
		cmp.Compare(a.Annotations["cname"], b.Annotations["cname"]),
		cmp.Compare(RefName(a), RefName(b)),
		cmp.Compare(a.ArtifactType, b.ArtifactType),
	)
}

func platformOf(desc ocispec.Descriptor) ocispec.Platform {
	if desc.Platform == nil {
		return ocispec.Platform{}
	}
	return *desc.Platform
}

// isRuntimeEntry tells whether a client that looks for a platform to run would
// take the entry.
func isRuntimeEntry(desc ocispec.Descriptor) bool {
	p := desc.Platform
	return p != nil && p.OS != "" && p.OS != "gardenlinux" && p.OS != "unknown" && desc.ArtifactType == ""
}

// EntryKey names the thing that an entry of an index is a state of, so that a
// new state replaces the old one: "flavour|architecture|version" where the
// entry has such annotations and platform (cname, architecture, os.version),
// the platform of a runtime entry, else the digest.
func EntryKey(desc ocispec.Descriptor) string {
	p := platformOf(desc)
	if cname := desc.Annotations["cname"]; cname != "" {
		arch := cmp.Or(desc.Annotations["architecture"], p.Architecture)
		return "cname:" + flavor(cname, arch, p.OSVersion) + "|" + arch + "|" + p.OSVersion
	}
	if isRuntimeEntry(desc) {
		return "platform:" + strings.Join([]string{p.OS, p.Architecture, p.Variant, p.OSVersion, strings.Join(p.OSFeatures, ",")}, "/")
	}
	return string(desc.Digest)
}

// flavor cuts "-arch-version-commit" from a cname annotation: a rebuild has
// another commit but is the same thing.
func flavor(cname, arch, version string) string {
	if version == "" {
		return cname
	}
	base, rest, found := strings.Cut(cname, "-"+arch+"-"+version)
	if !found || rest != "" && rest[0] != '-' {
		return cname
	}
	return base
}

// PutEntry adds desc, in place of the entry with the same key (see
// [EntryKey]), and sorts. It returns what it replaced. Unknown fields of a
// replaced entry go with it, unless the digest is the same.
func (x *Index) PutEntry(desc ocispec.Descriptor) (replaced *ocispec.Descriptor) {
	key := EntryKey(desc)
	at := -1
	var remove []int
	for i, e := range x.entries {
		if EntryKey(e.desc) != key {
			continue
		}
		if at >= 0 { // a key that stands twice: one entry survives
			remove = append(remove, i)
			continue
		}
		at = i
	}
	switch {
	case at < 0:
		x.Add(desc)
	case x.entries[at].desc.Digest == desc.Digest:
		old := cloneDescriptor(x.entries[at].desc)
		replaced = &old
		x.Set(at, desc)
	default:
		old := x.entries[at].desc
		replaced = &old
		x.entries[at] = entry{desc: cloneDescriptor(desc)}
		x.changed = true
	}
	x.Remove(remove...)
	x.Sort()
	return replaced
}
