package layout

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A LayerSelector chooses layers of a manifest. Every field that is set has to
// fit; the zero value chooses all layers.
type LayerSelector struct {
	Config      bool   // the config instead of layers; the other fields apply to it
	Number      *int   // the layer with this number, counted from zero among all layers
	MediaType   string // all of it, or what it begins with and a "*"
	Title       string // a glob of path.Match for the title annotation
	Annotations map[string]string
}

// A Layer is a layer of a manifest, or its config.
type Layer struct {
	Desc   ocispec.Descriptor
	Number int // counted from zero; -1 for the config
}

// Title returns the name that the layer's annotations give it, or "".
func (l Layer) Title() string { return l.Desc.Annotations[ocispec.AnnotationTitle] }

// String returns one line with what tells layers apart.
func (l Layer) String() string {
	name := "config"
	if l.Number >= 0 {
		name = "layer " + strconv.Itoa(l.Number)
	}
	parts := []string{name, string(l.Desc.Digest), l.Desc.MediaType}
	if title := l.Title(); title != "" {
		parts = append(parts, "title="+title)
	}
	for _, key := range slices.Sorted(maps.Keys(l.Desc.Annotations)) {
		if key != ocispec.AnnotationTitle {
			parts = append(parts, key+"="+l.Desc.Annotations[key])
		}
	}
	return strings.Join(parts, "  ")
}

// Layers returns the layers of doc that sel chooses, in the order of the
// manifest, equal ones too; none is no error. A Number that the manifest lacks,
// or whose layer does not fit the other fields, is [ErrNotFound]; a bad glob or
// a negative Number is [ErrInvalid].
func (sel LayerSelector) Layers(doc *Document) ([]Layer, error) {
	if err := sel.check(); err != nil {
		return nil, err
	}
	if sel.Config {
		if doc.Config == nil {
			return nil, nil
		}
		if config := (Layer{Desc: *doc.Config, Number: -1}); sel.fits(config.Desc) {
			return []Layer{config}, nil
		}
		return nil, nil
	}
	if sel.Number == nil {
		var layers []Layer
		for i, desc := range doc.Layers {
			if sel.fits(desc) {
				layers = append(layers, Layer{Desc: desc, Number: i})
			}
		}
		return layers, nil
	}
	n := *sel.Number
	if n >= len(doc.Layers) {
		return nil, fmt.Errorf("manifest %s has %d layers, and layer %d is none of them: %w", doc.Descriptor.Digest, len(doc.Layers), n, ErrNotFound)
	}
	layer := Layer{Desc: doc.Layers[n], Number: n}
	if !sel.fits(layer.Desc) {
		return nil, fmt.Errorf("manifest %s has no %s, its %s: %w", doc.Descriptor.Digest, sel, layer, ErrNotFound)
	}
	return []Layer{layer}, nil
}

// Layer is [LayerSelector.Layers] where exactly one layer is wanted: none is
// [ErrNotFound], more are [ErrAmbiguous], and the error lists them.
func (sel LayerSelector) Layer(doc *Document) (Layer, error) {
	layers, err := sel.Layers(doc)
	switch {
	case err != nil:
		return Layer{}, err
	case len(layers) == 0:
		return Layer{}, fmt.Errorf("manifest %s: %s: %w", doc.Descriptor.Digest, sel, ErrNotFound)
	case len(layers) > 1:
		var b strings.Builder
		for _, layer := range layers {
			b.WriteString("\n  " + layer.String())
		}
		err := fmt.Errorf("manifest %s: %s: %w: %d candidates%s", doc.Descriptor.Digest, sel, ErrAmbiguous, len(layers), b.String())
		return Layer{}, WithHint(err, "choose one with --layer")
	}
	return layers[0], nil
}

func (sel LayerSelector) check() error {
	if _, err := path.Match(sel.Title, ""); err != nil {
		return fmt.Errorf("%w glob %q: %w", ErrInvalid, sel.Title, err)
	}
	switch {
	case sel.Number != nil && *sel.Number < 0:
		return fmt.Errorf("%w layer number %d: the first layer is 0", ErrInvalid, *sel.Number)
	case sel.Number != nil && sel.Config:
		return fmt.Errorf("%w: the config has no layer number", ErrInvalid)
	}
	return nil
}

// fits tells whether desc passes all but Config and Number.
func (sel LayerSelector) fits(desc ocispec.Descriptor) bool {
	if prefix, ok := strings.CutSuffix(sel.MediaType, "*"); ok {
		if !strings.HasPrefix(desc.MediaType, prefix) {
			return false
		}
	} else if sel.MediaType != "" && sel.MediaType != desc.MediaType {
		return false
	}
	if sel.Title != "" {
		title, ok := desc.Annotations[ocispec.AnnotationTitle]
		if !ok {
			return false
		}
		if match, _ := path.Match(sel.Title, title); !match {
			return false
		}
	}
	for k, v := range sel.Annotations {
		if have, ok := desc.Annotations[k]; !ok || have != v {
			return false
		}
	}
	return true
}

// String returns the selector as the flags that make it.
func (sel LayerSelector) String() string {
	var parts []string
	if sel.MediaType != "" {
		parts = append(parts, "media type "+sel.MediaType)
	}
	if sel.Title != "" {
		parts = append(parts, "title "+sel.Title)
	}
	for k, v := range sel.Annotations {
		parts = append(parts, "annotation "+k+"="+v)
	}
	slices.Sort(parts)
	name := "layer"
	switch {
	case sel.Config:
		name = "config"
	case sel.Number != nil:
		name = "layer " + strconv.Itoa(*sel.Number)
	}
	if len(parts) == 0 {
		return name
	}
	return name + " with " + strings.Join(parts, ", ")
}
