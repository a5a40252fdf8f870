package layout_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

func layerDesc(mediaType, title, content string, annotations ...string) ocispec.Descriptor {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(content), Size: int64(len(content))}
	if title != "" {
		annotations = append(annotations, ocispec.AnnotationTitle, title)
	}
	for i := 0; i+1 < len(annotations); i += 2 {
		if desc.Annotations == nil {
			desc.Annotations = map[string]string{}
		}
		desc.Annotations[annotations[i]] = annotations[i+1]
	}
	return desc
}

func TestLayerSelector(t *testing.T) {
	config := layerDesc("application/vnd.unknown.config.v1+json", "", "{}")
	doc := &layout.Document{Config: &config, Layers: []ocispec.Descriptor{
		layerDesc("application/io.gardenlinux.kernel", "vmlinuz", "k", "arch", "amd64"),
		layerDesc("application/io.gardenlinux.log", "build.log", "l"),
		layerDesc("application/io.gardenlinux.log", "x/test.log", "same"),
		layerDesc("text/plain", "", "same", "arch", ""),
	}}
	number := func(n int) *int { return &n }
	for name, tt := range map[string]struct {
		sel  layout.LayerSelector
		want []int
		err  error
	}{
		"all":                         {want: []int{0, 1, 2, 3}},
		"media type":                  {sel: layout.LayerSelector{MediaType: "application/io.gardenlinux.log"}, want: []int{1, 2}},
		"media type, not a prefix":    {sel: layout.LayerSelector{MediaType: "application/io.gardenlinux"}},
		"media type with star":        {sel: layout.LayerSelector{MediaType: "application/*"}, want: []int{0, 1, 2}},
		"any media type":              {sel: layout.LayerSelector{MediaType: "*"}, want: []int{0, 1, 2, 3}},
		"title":                       {sel: layout.LayerSelector{Title: "vmlinuz"}, want: []int{0}},
		"glob stops at a slash":       {sel: layout.LayerSelector{Title: "*.log"}, want: []int{1}},
		"glob over a slash":           {sel: layout.LayerSelector{Title: "*/*.log"}, want: []int{2}},
		"no title fits no glob":       {sel: layout.LayerSelector{Title: "*"}, want: []int{0, 1}},
		"annotation":                  {sel: layout.LayerSelector{Annotations: map[string]string{"arch": "amd64"}}, want: []int{0}},
		"empty annotation":            {sel: layout.LayerSelector{Annotations: map[string]string{"arch": ""}}, want: []int{3}},
		"number":                      {sel: layout.LayerSelector{Number: number(2)}, want: []int{2}},
		"number and type":             {sel: layout.LayerSelector{Number: number(3), MediaType: "text/plain"}, want: []int{3}},
		"number counts all layers":    {sel: layout.LayerSelector{Number: number(0), MediaType: "text/plain"}, err: layout.ErrNotFound},
		"number past the end":         {sel: layout.LayerSelector{Number: number(4)}, err: layout.ErrNotFound},
		"negative number":             {sel: layout.LayerSelector{Number: number(-1)}, err: layout.ErrInvalid},
		"bad glob":                    {sel: layout.LayerSelector{Title: "[a"}, err: layout.ErrInvalid},
		"config":                      {sel: layout.LayerSelector{Config: true}, want: []int{-1}},
		"config of another type":      {sel: layout.LayerSelector{Config: true, MediaType: "text/plain"}},
		"config with a number":        {sel: layout.LayerSelector{Config: true, Number: number(0)}, err: layout.ErrInvalid},
		"equal bytes, one type asked": {sel: layout.LayerSelector{MediaType: "text/*"}, want: []int{3}},
	} {
		t.Run(name, func(t *testing.T) {
			layers, err := tt.sel.Layers(doc)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			var got []int
			for _, l := range layers {
				got = append(got, l.Number)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("layers %v, want %v", got, tt.want)
			}
		})
	}
	if layers, err := (layout.LayerSelector{Config: true}).Layers(&layout.Document{}); err != nil || layers != nil {
		t.Errorf("config of a document without one: %v, %v", layers, err)
	}
}
