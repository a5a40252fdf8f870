package merge

import (
	"maps"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/internal/strictjson"
)

// RootKey names an entry of index.json: by its ref name, else by @ and its
// digest.
func RootKey(desc ocispec.Descriptor) string {
	if name := layout.RefName(desc); name != "" {
		return name
	}
	return "@" + string(desc.Digest)
}

// Key names an entry of an image index, so that entries of several indexes
// that have one key are states of the same thing:
//
//   - an entry with a cname: flavour, architecture and version, as [layout.EntryKey] has it;
//   - a runtime entry: os, architecture, variant and os.version. os.features do
//     not count, for clients do not look at them: they would find two images
//     for one platform;
//   - an entry that is an index: its ref name, else what it says of itself, which
//     is platform, artifactType and annotations together;
//   - any other, and an index that says nothing: its digest.
func Key(desc ocispec.Descriptor) string {
	key := layout.EntryKey(desc)
	switch {
	case strings.HasPrefix(key, "cname:"):
		return key
	case layout.IsIndex(desc.MediaType) && layout.RefName(desc) != "":
		return "ref:" + layout.RefName(desc)
	case isRuntime(desc):
		return "platform:" + platformText(*desc.Platform)
	case layout.IsIndex(desc.MediaType):
		if says := description(desc); says != "" {
			return "index:" + says
		}
	}
	return string(desc.Digest)
}

// isRuntime tells whether a client that looks for a platform to run would take
// the entry.
func isRuntime(desc ocispec.Descriptor) bool {
	desc.Annotations = nil // a cname makes no difference here
	return strings.HasPrefix(layout.EntryKey(desc), "platform:")
}

func platformText(p ocispec.Platform) string {
	text := layout.FormatPlatform(p)
	if p.OSVersion != "" {
		text += ":" + p.OSVersion
	}
	return text
}

// description is what an entry says of itself.
func description(desc ocispec.Descriptor) string {
	var parts []string
	if p := desc.Platform; p != nil {
		parts = append(parts, platformText(*p))
	}
	if desc.ArtifactType != "" {
		parts = append(parts, desc.ArtifactType)
	}
	for _, k := range slices.Sorted(maps.Keys(desc.Annotations)) {
		// Quoted where it could be taken for two.
		text := k + "=" + desc.Annotations[k]
		if strings.ContainsAny(text, ",\"\\\n") {
			text = string(strictjson.Quote(text))
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ",")
}
