package layout

import (
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout/internal/strictjson"
)

// A Manifest is an image manifest (manifest.md), to be read and edited, or one
// of its relatives: that of Docker, and the artifact manifest of release
// candidates of image-spec 1.1. What it does not know of the document and of
// each descriptor, it keeps. It may not be shared between goroutines while it
// changes.
type Manifest struct {
	body
	mediaType string
	config    *entry // nil in an artifact manifest
	layers    []entry
}

// NewManifest returns an image manifest with this config and without layers.
func NewManifest(config ocispec.Descriptor) *Manifest {
	return &Manifest{
		body:      body{changed: true},
		mediaType: ocispec.MediaTypeImageManifest,
		config:    &entry{desc: cloneDescriptor(config)},
	}
}

// ParseManifest reads a manifest as strictly as [ParseDocument] does; what is
// refused is [ErrInvalid]. mediaType is that of the descriptor, which the body
// need not repeat. The manifest keeps raw.
func ParseManifest(raw []byte, mediaType string) (*Manifest, error) {
	if !IsManifest(mediaType) {
		return nil, fmt.Errorf("%w manifest: media type %q", ErrInvalid, mediaType)
	}
	if _, err := ParseDocument(describe(raw, mediaType), raw); err != nil {
		return nil, fmt.Errorf("manifest %w", err)
	}
	x := &Manifest{mediaType: mediaType}
	err := x.parse(raw, func(m strictjson.Member) (err error) {
		switch m.Name {
		case "config":
			x.config, err = decodeEntry(m.Value)
		case x.layersName():
			x.layers, err = decodeEntries(m.Value)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	return x, nil
}

// layersName is what the layers are called.
func (x *Manifest) layersName() string {
	if x.mediaType == mediaTypeArtifact {
		return "blobs"
	}
	return "layers"
}

// Bytes returns the document: the very bytes that were parsed if nothing has
// changed, else its canonical form (docs/format.md). The caller may not change
// them.
func (x *Manifest) Bytes() []byte {
	if x.changed {
		x.encode(manifestNames, x.mediaType, func(m *merger) {
			m.set("config", true, encodeEntry(x.config))
			m.set(x.layersName(), true, encodeEntries(x.layers))
		})
	}
	return x.raw
}

// MediaType returns the media type of the manifest.
func (x *Manifest) MediaType() string { return x.mediaType }

// Descriptor returns the descriptor of [Manifest.Bytes], with the field
// artifactType of the manifest.
func (x *Manifest) Descriptor() ocispec.Descriptor {
	desc := describe(x.Bytes(), x.mediaType)
	desc.ArtifactType = x.artifactType
	return desc
}

// Config returns a copy of the descriptor of the config; nil in an artifact
// manifest of release candidates, which has none.
func (x *Manifest) Config() *ocispec.Descriptor {
	if x.config == nil {
		return nil
	}
	desc := cloneDescriptor(x.config.desc)
	return &desc
}

// SetConfig makes desc the config. Unknown fields of the descriptor stay.
func (x *Manifest) SetConfig(desc ocispec.Descriptor) {
	if x.config == nil {
		x.config = &entry{}
	}
	x.changed = x.config.set(desc) || x.changed
}

// IsImage tells whether the manifest is that of a container image: one with an
// image config.
func (x *Manifest) IsImage() bool { return x.config != nil && isImageConfig(x.config.desc.MediaType) }

// Layers returns copies of the layers, in order, base first.
func (x *Manifest) Layers() []ocispec.Descriptor { return descriptorsOf(x.layers) }

// AddLayer appends a layer, also where an equal one is there.
func (x *Manifest) AddLayer(desc ocispec.Descriptor) {
	x.layers = append(x.layers, entry{desc: cloneDescriptor(desc)})
	x.changed = true
}

// SetLayer makes layer i say desc. Unknown fields of the descriptor stay.
func (x *Manifest) SetLayer(i int, desc ocispec.Descriptor) {
	x.changed = x.layers[i].set(desc) || x.changed
}

// RemoveLayers takes out the layers with these numbers.
func (x *Manifest) RemoveLayers(numbers ...int) {
	if len(numbers) > 0 {
		x.layers = without(x.layers, numbers)
		x.changed = true
	}
}
