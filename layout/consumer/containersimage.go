package consumer

import (
	"context"
	"fmt"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// The programs that are built on containers/image. All choose alike; podman and
// buildah copy into their storage, which takes images alone, skopeo copies to
// anything.
var (
	Podman  Consumer = containersImage{name: "podman", storage: true}
	Buildah Consumer = containersImage{name: "buildah", storage: true}
	Skopeo  Consumer = containersImage{name: "skopeo"}
)

type containersImage struct {
	name    string
	storage bool // the destination is containers-storage
}

func (c containersImage) Name() string { return c.name }

func (c containersImage) About() string {
	s := "the platform, then entries without one; variants from the best down; no index in an index"
	if !c.storage {
		s = "as podman chooses, but copies artifacts too"
	}
	return s
}

func (c containersImage) IsImageClient() bool { return true }

// variants are the known variants of an architecture, most capable first.
// containers/image internal/pkg/platform/platform_matcher.go, compatibility.
var variants = map[string][]string{
	"arm":   {"v8", "v7", "v6", "v5"},
	"arm64": {"v8"},
}

// wantedPlatforms are those that p stands for, best first. An architecture that
// is asked for without variant stands for all of its variants, none first; a
// variant stands for itself, those below it, and none.
// containers/image internal/pkg/platform/platform_matcher.go, WantedPlatforms.
func wantedPlatforms(p ocispec.Platform) []ocispec.Platform {
	var list []string
	known := variants[p.Architecture]
	switch i := slices.Index(known, p.Variant); {
	case p.Variant == "":
		list = append([]string{""}, known...)
	case i >= 0:
		list = append(slices.Clone(known[i:]), "")
	default:
		list = []string{p.Variant, ""}
	}
	wanted := make([]ocispec.Platform, len(list))
	for i, v := range list {
		wanted[i] = ocispec.Platform{OS: p.OS, Architecture: p.Architecture, Variant: v}
	}
	return wanted
}

// libimagePlatform is what podman and buildah make of a platform before they hand
// it on: linux/arm is linux/arm/v7. containers/common libimage/copier.go,
// newCopier; libimage/platform/platform.go, Normalize.
func libimagePlatform(p ocispec.Platform) ocispec.Platform {
	n := normalize(p, p.OS)
	if n.Architecture == "arm64" && n.Variant == "" && p.Variant != "" {
		n.Variant = "v8"
	}
	return n
}

// annotationZstd marks an entry whose layers are compressed with zstd.
// containers/image internal/manifest/oci_index.go, OCI1InstanceAnnotationCompressionZSTD.
const annotationZstd = "io.github.containers.compression.zstd"

// choose returns the number of the entry that is taken, or -1. os.version and
// os.features are not looked at. In an OCI index entries without a platform come
// last; of entries for the same platform one with zstd is preferred, then the
// first. A Docker manifest list has no entries without a platform.
// containers/image internal/manifest/oci_index.go, chooseInstance;
// internal/manifest/docker_schema2_list.go, ChooseInstance.
func (c containersImage) choose(doc *layout.Document, p ocispec.Platform) int {
	wanted := wantedPlatforms(p)
	isList := doc.MediaType == mediaTypeDockerList
	type rank struct {
		platform int
		zstd     bool
	}
	best, at := rank{}, -1
	for i, d := range doc.Manifests {
		r := rank{platform: len(wanted), zstd: !isList && d.Annotations[annotationZstd] == "true"}
		if d.Platform != nil {
			r.platform = slices.IndexFunc(wanted, func(w ocispec.Platform) bool {
				return d.Platform.OS == w.OS && d.Platform.Architecture == w.Architecture && d.Platform.Variant == w.Variant
			})
		} else if isList {
			r.platform = -1
		}
		if r.platform < 0 {
			continue
		}
		if at < 0 || r.platform < best.platform || r.platform == best.platform && r.zstd && !best.zstd {
			best, at = r, i
		}
	}
	return at
}

func (c containersImage) Take(ctx context.Context, src layout.Source, root ocispec.Descriptor, ask Ask) (*Outcome, error) {
	o := &Outcome{Desc: root, Why: "it is no index: nothing is chosen"}
	if ok, err := o.read(ctx, src); !ok {
		return o, err
	}
	want := ask.platform()
	if c.storage {
		want = libimagePlatform(want)
	}
	if o.Document.IsIndex {
		index := o.Document
		i := c.choose(index, want)
		if i < 0 {
			where := "image index"
			if index.MediaType == mediaTypeDockerList {
				where = "manifest list"
			}
			o.Why = fmt.Sprintf("none of %d entries fits, and none is without a platform", len(index.Manifests))
			return o.fail(FailPlatform, "no image found in %s for architecture %q, variant %q, OS %q", where, want.Architecture, firstVariant(want), want.OS), nil
		}
		o.down(index.Manifests[i])
		o.Why = entryName(i, o.Desc) + " is the best fit for " + layout.FormatPlatform(want)
		if o.Desc.Platform == nil {
			o.Why = entryName(i, o.Desc) + " is the first without a platform: no other fits " + layout.FormatPlatform(want)
		}
		if ok, err := o.read(ctx, src); !ok {
			return o, err
		}
		// containers/image copy/single.go, copySingleImage.
		if o.Document.IsIndex {
			if !c.storage {
				o.note("skopeo inspect follows an index in an index, skopeo copy does not")
			}
			return o.fail(FailNested, "Unexpectedly received a manifest list instead of a manifest for a single image"), nil
		}
	}
	return c.finish(ctx, src, o, want)
}

// firstVariant is what the message names.
func firstVariant(p ocispec.Platform) string { return wantedPlatforms(p)[0].Variant }

// finish judges the manifest that was chosen.
func (c containersImage) finish(ctx context.Context, src layout.Source, o *Outcome, want ocispec.Platform) (*Outcome, error) {
	if !isImageManifest(o.Document) {
		return o.fail(FailDocument, "unsupported manifest media type %q", o.Document.MediaType), nil
	}
	o.Layers = o.Document.Layers
	if !c.storage {
		if !o.Document.IsImage() {
			o.note("an artifact, copied like an image; skopeo inspect without --raw and copies into containers-storage: refuse it")
		}
		return o, nil
	}
	// containers-storage asks for the platform in the config, and only an image
	// has one: copy/single.go, checkImageDestinationForCurrentRuntime, calls
	// internal/image/oci.go, OCIConfig, which refuses all other configs. A Docker
	// config in an OCI manifest is refused too.
	if o.Document.MediaType == ocispec.MediaTypeImageManifest && o.Document.Config.MediaType != ocispec.MediaTypeImageConfig {
		if o.Document.Config.MediaType == mediaTypeDockerConfig {
			return o.fail(FailDocument, "invalid mixed OCI image with Docker v2s2 config (%q)", mediaTypeDockerConfig), nil
		}
		return o.fail(FailArtifact, "unsupported image-specific operation on artifact with type %q", artifactType(o.Document)), nil
	}
	conf, err := readConfig(ctx, src, o.Document)
	if err != nil {
		return nil, err
	}
	if conf == nil {
		return o.fail(FailDocument, "parsing image configuration: %s is missing or no JSON", o.Document.Config.Digest), nil
	}
	o.platformNote(conf, want)
	// A layer is unpacked as a tar, whatever its media type says.
	for _, l := range o.Document.Layers {
		if !isImageLayer(l.MediaType) {
			return o.fail(FailLayer, "writing blob: adding layer with blob %q: it is %s, no tar of a root file system", l.Digest, l.MediaType), nil
		}
	}
	return o, nil
}

// platformNote says that the image is for another platform than was wanted,
// which no client checks where nothing is chosen.
func (o *Outcome) platformNote(conf *config, want ocispec.Platform) {
	if conf.OS != want.OS || conf.Architecture != want.Architecture {
		p := conf.platform()
		o.note("the config says %s, not %s: taken all the same", layout.FormatPlatform(p), layout.FormatPlatform(want))
	}
}
