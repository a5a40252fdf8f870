package image

import (
	"context"
	"fmt"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// annotationBase says which manifest an image was made on (annotations.md).
const annotationBase = "org.opencontainers.image.base.digest"

// A Base is an image on which others are made: its manifest, and where that is.
type Base struct {
	Source   layout.Source
	Document *layout.Document
}

// Find returns the image that descs, of src, have for a platform; nil takes any,
// and then there may be only one. What is no image is [layout.ErrInvalid].
func Find(ctx context.Context, src layout.Source, descs []ocispec.Descriptor, platform *ocispec.Platform) (*Base, error) {
	isImage := func(_ ocispec.Descriptor, doc *layout.Document) bool { return doc.IsImage() }
	images, err := layout.Select(ctx, src, descs, layout.Selector{Match: isImage})
	if err != nil {
		return nil, err
	}
	if len(images) == 0 {
		return nil, fmt.Errorf("%s: %w: there is no image in it", src, layout.ErrInvalid)
	}
	var fit []layout.Match
	for _, m := range images {
		if platform == nil {
			fit = append(fit, m)
			continue
		}
		p, err := layout.ImagePlatform(ctx, src, m.Desc, m.Document)
		if err != nil {
			return nil, err
		}
		// An image that does not say it is for whatever is said now.
		if p == nil || layout.PlatformFits(*p, *platform) {
			fit = append(fit, m)
		}
	}
	switch {
	case len(fit) == 0:
		return nil, fmt.Errorf("image for %s in %s: %w", layout.FormatPlatform(*platform), src, layout.ErrNotFound)
	case len(fit) > 1:
		err := &layout.AmbiguousError{What: "base image", Candidates: fit}
		if platform == nil {
			return nil, layout.WithHint(err, "--platform chooses one")
		}
		return nil, err
	}
	return &Base{src, fit[0].Document}, nil
}

// Make stages an image: layers on those of base, which may be nil, and a config
// that says what edit says and else what that of base does. Layers of base that
// the layout lacks are copied, and verified. Fields of the config of base that
// nobody knows stay. annotations are those of the manifest.
func Make(ctx context.Context, s *layout.Stage, base *Base, layers []Layer, edit *Edit, annotations map[string]string) (ocispec.Descriptor, error) {
	var none ocispec.Descriptor
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Layers: []ocispec.Descriptor{}, Annotations: annotations,
	}
	var config []byte
	if base != nil {
		var err error
		if config, err = layout.ReadAll(ctx, base.Source, *base.Document.Config, layout.MaxDocument); err != nil {
			return none, err
		}
		if m.Layers, err = baseLayers(base.Document); err != nil {
			return none, err
		}
		if m.Annotations == nil {
			m.Annotations = map[string]string{}
		}
		if _, said := m.Annotations[annotationBase]; !said {
			m.Annotations[annotationBase] = string(base.Document.Descriptor.Digest)
		}
	}
	n := len(m.Layers)
	raw, err := editConfig(config, n, layers, edit)
	if err != nil {
		return none, err
	}
	if base != nil {
		if err := s.CopyTree(ctx, base.Source, base.Document.Layers, nil); err != nil {
			return none, err
		}
	}
	for _, l := range layers {
		m.Layers = append(m.Layers, l.Desc)
	}
	if m.Config, err = s.AddBytes(ctx, raw, ocispec.MediaTypeImageConfig); err != nil {
		return none, err
	}
	if raw, err = layout.EncodeManifest(m); err != nil {
		return none, err
	}
	return s.AddBytes(ctx, raw, ocispec.MediaTypeImageManifest)
}

// baseLayers returns the layers of an image under the media types of OCI: a
// manifest does not mix them with Docker's, and the bytes are the same.
func baseLayers(doc *layout.Document) ([]ocispec.Descriptor, error) {
	var layers []ocispec.Descriptor
	for _, l := range doc.Layers {
		if !layout.IsImageLayer(l.MediaType) {
			return nil, fmt.Errorf("base %s: %w: %s is no layer of an image", doc.Descriptor.Digest, layout.ErrInvalid, l.MediaType)
		}
		l.MediaType = layout.OCIType(l.MediaType)
		layers = append(layers, l)
	}
	return layers, nil
}
