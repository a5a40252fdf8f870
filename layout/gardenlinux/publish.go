package gardenlinux

import (
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// FlavorTag returns the tag of a flavor's manifest, {version}-{cname}-{arch},
// with the cname of ADR 0035: 2150.1.0-baremetal_pxe-amd64. A rebuild from
// another commit has the same tag. It is "" unless all three are set.
//
// Tools that give the artifact base name for the cname make
// 2150.1.0-baremetal_pxe-amd64-2150.1.0-abc12345-amd64 of it. [FlavorEntry] reads
// what such a tag names, too: it goes by the annotations.
func FlavorTag(n Name) string {
	if n.VersionedFlavor() == "" {
		return ""
	}
	return n.Version + "-" + n.Flavor()
}

// RuntimeTag returns the tag of the container image of one architecture,
// {arch}-{version}.
func RuntimeTag(arch, version string) string { return arch + "-" + version }

// FlavorEntry returns the name and the index entry of an artifact manifest, by
// its annotations alone; false if it is none of Garden Linux. The entry is the one
// that [Flavor.Stage] makes for it.
func FlavorEntry(desc ocispec.Descriptor, doc *layout.Document) (Name, ocispec.Descriptor, bool) {
	if doc == nil || doc.IsIndex || doc.IsImage() {
		return Name{}, ocispec.Descriptor{}, false
	}
	annotations := doc.Annotations
	n := entryName(annotations, nil)
	if n.VersionedFlavor() == "" && doc.Config != nil {
		annotations = doc.Config.Annotations
		n = entryName(annotations, nil)
	}
	if n.VersionedFlavor() == "" {
		return Name{}, ocispec.Descriptor{}, false
	}
	entry := ocispec.Descriptor{
		MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size,
		Annotations: map[string]string{annotationCName: annotations[annotationCName], annotationArchitecture: n.Arch},
		Platform:    &ocispec.Platform{Architecture: n.Arch, OS: platformOS, OSVersion: n.Version},
	}
	if set := annotations[annotationFeatureSet]; set != "" {
		entry.Annotations[annotationFeatureSet] = set
	}
	return n, entry, true
}

// FindPart reads what a person calls a part of version: a flavor
// (baremetal_pxe-amd64), a versioned flavor, an artifact base name or a tag of
// [FlavorTag]; or a container image, as linux/amd64 or a tag of [RuntimeTag].
// It returns the tag, and as much of the entry as tells it from others; false
// for anything else, and for another version.
func FindPart(version, s string) (tag string, entry ocispec.Descriptor, ok bool) {
	if arch, found := strings.CutPrefix(s, "linux/"); found && isArch(arch) {
		return RuntimeTag(arch, version), runtimeEntry(arch), true
	}
	if arch, found := strings.CutSuffix(s, "-"+version); found && isArch(arch) {
		return s, runtimeEntry(arch), true
	}
	n, err := ParseName(strings.TrimPrefix(s, version+"-"))
	if err != nil || n.Arch == "" || n.Version != "" && n.Version != version {
		return "", ocispec.Descriptor{}, false
	}
	if n.Version = version; n.Validate() != nil {
		return "", ocispec.Descriptor{}, false
	}
	return FlavorTag(n), ocispec.Descriptor{
		Annotations: map[string]string{annotationCName: n.VersionedFlavor(), annotationArchitecture: n.Arch},
		Platform:    &ocispec.Platform{Architecture: n.Arch, OS: platformOS, OSVersion: version},
	}, true
}

func runtimeEntry(arch string) ocispec.Descriptor {
	return ocispec.Descriptor{Platform: &ocispec.Platform{Architecture: arch, OS: "linux"}}
}
