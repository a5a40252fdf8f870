package layout

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A NewLayer is a staged blob that is to be a layer.
type NewLayer struct {
	Desc   ocispec.Descriptor
	DiffID digest.Digest // what [DiffID] returns; if it is "", it is found out where an image needs it
}

// A LayerConflict says why a manifest does not take a layer. It is an
// [ErrConflict].
type LayerConflict struct {
	Layer ocispec.Descriptor
	Mixed bool   // an image takes only image layers
	Title string // of the layer that is in the way
}

func (e *LayerConflict) Error() string {
	if e.Mixed {
		return fmt.Sprintf("an image takes only image layers, and %s is %s: %v", layerName(e.Layer), e.Layer.MediaType, ErrConflict)
	}
	return fmt.Sprintf("the manifest has a layer with the title %s: %v", e.Title, ErrConflict)
}

// Is tells errors.Is that e is an [ErrConflict].
func (e *LayerConflict) Is(target error) bool { return target == ErrConflict }

func layerName(desc ocispec.Descriptor) string {
	if title := desc.Annotations[ocispec.AnnotationTitle]; title != "" {
		return title
	}
	return string(desc.Digest)
}

// CheckLayer tells whether the manifest would take a layer, of which media type
// and annotations count: a [LayerConflict] if it is an image and the layer is
// no image layer, for podman and docker cannot pull such a mix, or if it has a
// layer with that title already. at is the number of the layer that has the
// title, or -1.
func (x *Manifest) CheckLayer(desc ocispec.Descriptor) (at int, err error) {
	at = -1
	title, titled := desc.Annotations[ocispec.AnnotationTitle]
	for i, l := range x.layers {
		if have, ok := l.desc.Annotations[ocispec.AnnotationTitle]; ok && titled && have == title {
			at = i
			break
		}
	}
	switch {
	case x.IsImage() && !IsImageLayer(desc.MediaType):
		err = &LayerConflict{Layer: desc, Mixed: true}
	case at >= 0:
		err = &LayerConflict{Layer: desc, Title: title}
	}
	return at, err
}

// A LayerEdit changes the layers of one manifest inside [Tx.EditManifest], and
// keeps the config of an image in step with them: its diff_ids and, if it has
// an entry for each layer, its history. The config of an image that did not
// list its layers one by one before stays as it is.
type LayerEdit struct {
	ctx    context.Context //nolint:containedctx // lives as long as the function that EditManifest calls
	stage  *Stage
	m      *Manifest
	config *imageConfig // nil if there is nothing to keep in step
}

// EditLayers begins to edit the layers of m, which belongs to an edit of the
// layout of s. [LayerEdit.Close] ends it.
func (s *Stage) EditLayers(ctx context.Context, m *Manifest) (*LayerEdit, error) {
	e := &LayerEdit{ctx: ctx, stage: s, m: m}
	if !m.IsImage() {
		return e, nil
	}
	raw, err := ReadAll(ctx, s, m.config.desc, MaxDocument)
	if err != nil {
		return nil, err
	}
	config, err := parseImageConfig(m.config.desc, raw)
	if err != nil {
		return nil, err
	}
	if len(config.diffIDs) == len(m.layers) {
		e.config = config
	}
	return e, nil
}

// InStep tells whether the config of the image, if it is one, is edited too.
func (e *LayerEdit) InStep() bool { return e.config != nil || !e.m.IsImage() }

// Add appends a layer. What [Manifest.CheckLayer] refuses, it refuses; but a
// layer with the same title, media type and digest is there already, and with
// replace another one with the title gives way, keeping its place and its
// further annotations.
func (e *LayerEdit) Add(layer NewLayer, replace bool) error {
	at, err := e.m.CheckLayer(layer.Desc)
	if at >= 0 {
		have := e.m.layers[at].desc
		same := have.Digest == layer.Desc.Digest && have.MediaType == layer.Desc.MediaType && hasAll(have.Annotations, layer.Desc.Annotations)
		if same {
			return nil
		}
		if replace {
			return e.Replace(at, layer)
		}
	}
	if err != nil {
		return err
	}
	if e.config != nil {
		diffID, err := e.diffID(layer)
		if err != nil {
			return err
		}
		e.config.add(diffID, "gloci-layout attach layer "+layerName(layer.Desc))
	}
	e.m.AddLayer(layer.Desc)
	return nil
}

func (e *LayerEdit) diffID(layer NewLayer) (digest.Digest, error) {
	if layer.DiffID != "" {
		return layer.DiffID, nil
	}
	return DiffID(e.ctx, e.stage, layer.Desc)
}

func hasAll(have, want map[string]string) bool {
	for k, v := range want {
		if got, ok := have[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// Replace puts a layer in the place of layer i. Annotations and unknown fields
// of the old one stay where the new one says nothing else.
func (e *LayerEdit) Replace(i int, layer NewLayer) error {
	desc := layer.Desc
	if e.m.IsImage() && !IsImageLayer(desc.MediaType) {
		return &LayerConflict{Layer: desc, Mixed: true}
	}
	desc.Annotations = nil
	for _, from := range []map[string]string{layer.Desc.Annotations, e.m.layers[i].desc.Annotations} {
		for k, v := range from {
			setDefault(&desc, k, v)
		}
	}
	for j, l := range e.m.layers {
		title, ok := l.desc.Annotations[ocispec.AnnotationTitle]
		if ok && j != i && title == desc.Annotations[ocispec.AnnotationTitle] {
			return &LayerConflict{Layer: desc, Title: title}
		}
	}
	if e.config != nil {
		diffID, err := e.diffID(layer)
		if err != nil {
			return err
		}
		e.config.diffIDs[i] = diffID
	}
	e.m.SetLayer(i, desc)
	return nil
}

// Remove takes out the layers with these numbers.
func (e *LayerEdit) Remove(numbers ...int) {
	gone := make(map[int]bool, len(numbers))
	for _, n := range numbers {
		gone[n] = true
	}
	for i := len(e.m.layers) - 1; i >= 0; i-- {
		if gone[i] && e.config != nil {
			e.config.remove(i)
		}
	}
	e.m.RemoveLayers(numbers...)
}

// SetConfig makes a staged blob the config; the config is no longer kept in
// step with the layers. An image keeps to be one, for the same platform, and
// the config must have one diff ID for each layer; anything else is an
// [ErrConflict].
func (e *LayerEdit) SetConfig(desc ocispec.Descriptor) error {
	old := e.m.config
	if old == nil {
		return fmt.Errorf("a %s has no config: %w", e.m.mediaType, ErrConflict)
	}
	desc.Annotations = old.desc.Annotations
	if isImageConfig(desc.MediaType) != e.m.IsImage() {
		return fmt.Errorf("a config of type %s would make something else of the manifest, whose config is a %s: %w", desc.MediaType, old.desc.MediaType, ErrConflict)
	}
	if e.m.IsImage() {
		if err := e.checkConfig(old.desc, desc); err != nil {
			return err
		}
	}
	e.config = nil
	e.m.SetConfig(desc)
	return nil
}

func (e *LayerEdit) checkConfig(old, desc ocispec.Descriptor) error {
	raw, err := ReadAll(e.ctx, e.stage, desc, MaxDocument)
	if err != nil {
		return err
	}
	config, err := parseImageConfig(desc, raw)
	if err != nil {
		return err
	}
	if len(config.diffIDs) != len(e.m.layers) {
		return fmt.Errorf("the config has %d diff IDs, and the image %d layers: %w", len(config.diffIDs), len(e.m.layers), ErrConflict)
	}
	now, err := configPlatform(desc, raw)
	if err != nil {
		return err
	}
	if raw, err = ReadAll(e.ctx, e.stage, old, MaxDocument); err != nil {
		return err
	}
	was, err := configPlatform(old, raw)
	if err != nil || was == nil {
		return err
	}
	if now == nil || FormatPlatform(*now) != FormatPlatform(*was) {
		name := "none"
		if now != nil {
			name = FormatPlatform(*now)
		}
		return fmt.Errorf("the config has the platform %s, and the image %s: %w", name, FormatPlatform(*was), ErrConflict)
	}
	return nil
}

// Close stages the config of an image if it has changed.
func (e *LayerEdit) Close() error {
	if e.config == nil {
		return nil
	}
	raw := e.config.bytes()
	before, err := parseImageConfig(e.m.config.desc, e.config.raw)
	if err != nil {
		return err
	}
	if string(before.bytes()) == string(raw) {
		return nil
	}
	added, err := e.stage.AddBytes(e.ctx, raw, e.m.config.desc.MediaType)
	if err != nil {
		return err
	}
	desc := e.m.config.desc
	desc.Digest, desc.Size = added.Digest, added.Size
	if desc.Data != nil {
		if desc.Data = raw; len(raw) > maxEmbedded {
			desc.Data = nil
		}
	}
	e.m.SetConfig(desc)
	return nil
}
