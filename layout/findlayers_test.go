package layout_test

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// search returns what FindLayers finds as "DIGEST:NUMBER,NUMBER".
func search(t *testing.T, l *layout.Layout, sel layout.Selector, layers layout.LayerSelector) (*layout.LayerSearch, []string) {
	t.Helper()
	s, err := layout.FindLayers(t.Context(), l, roots(t, l), sel, layers)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range s.Matches {
		var numbers []string
		for _, l := range m.Layers {
			numbers = append(numbers, fmt.Sprint(l.Number))
		}
		got = append(got, m.Desc.Digest.Encoded()[:12]+":"+strings.Join(numbers, ","))
	}
	return s, got
}

func TestFindLayers(t *testing.T) {
	l := newLayout(t)
	var amd, art ocispec.Descriptor
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) {
		amd, art = image(t, s, "amd", "amd64"), artifact(t, s, "art", map[string]string{"k": "v"})
		att := artifact(t, s, "att", nil)
		att.ArtifactType = "application/vnd.docker.attestation.manifest.v1+json"
		tx.SetRef("v", index(t, s, index(t, s, index(t, s, art), amd), amd, att, art))
	})
	short := func(d ocispec.Descriptor) string { return d.Digest.Encoded()[:12] }
	number := 0
	for name, tt := range map[string]struct {
		sel    layout.Selector
		layers layout.LayerSelector
		want   []string
	}{
		"depth first, each once": {want: []string{short(art) + ":0", short(amd) + ":0"}},
		"by layer":               {layers: layout.LayerSelector{MediaType: "application/x.layer"}, want: []string{short(art) + ":0"}},
		"by manifest":            {sel: layout.Selector{Platform: &ocispec.Platform{OS: "linux", Architecture: "amd64"}}, want: []string{short(amd) + ":0"}},
		"by both, disjoint":      {sel: layout.Selector{ArtifactType: "application/x.test"}, layers: layout.LayerSelector{MediaType: ocispec.MediaTypeImageLayer}},
		"number":                 {layers: layout.LayerSelector{Number: &number, MediaType: ocispec.MediaTypeImageLayer}, want: []string{short(amd) + ":0"}},
		"config":                 {layers: layout.LayerSelector{Config: true}, want: []string{short(art) + ":-1", short(amd) + ":-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, got := search(t, l, tt.sel, tt.layers)
			if !slices.Equal(got, tt.want) {
				t.Errorf("found %q, want %q", got, tt.want)
			}
			_, err := s.All()
			if want := len(tt.want) == 0; errors.Is(err, layout.ErrNotFound) != want {
				t.Errorf("All: %v", err)
			}
			if err != nil && !strings.Contains(err.Error(), "1 attestation manifest was not searched") {
				t.Errorf("the error is silent about attestations: %v", err)
			}
		})
	}

	s, _ := search(t, l, layout.Selector{}, layout.LayerSelector{})
	ref := layout.Reference{Transport: "oci", Location: "a dir", RefName: "v"}
	_, err := s.One(t.Context(), l, ref)
	for _, want := range []string{"'oci:a dir@" + string(amd.Digest) + "'  ", "  linux/amd64", "'oci:a dir@" + string(art.Digest) + "'  ", "artifactType=application/x.test", "ref=v"} {
		if !errors.Is(err, layout.ErrAmbiguous) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want ErrAmbiguous with %q", err, want)
		}
	}
	// What the entry says is enough not to read a manifest, even if it is gone.
	if err := os.Remove(blobFile(l, amd)); err != nil {
		t.Fatal(err)
	}
	if _, got := search(t, l, layout.Selector{Skip: func(d ocispec.Descriptor) bool { return d.Digest == amd.Digest }}, layout.LayerSelector{}); len(got) != 1 {
		t.Errorf("found %q", got)
	}
	if _, err := layout.FindLayers(t.Context(), l, roots(t, l), layout.Selector{}, layout.LayerSelector{}); !errors.Is(err, layout.ErrNotFound) {
		t.Errorf("a manifest is missing: %v, want ErrNotFound", err)
	}
	if _, err := layout.FindLayers(t.Context(), l, nil, layout.Selector{}, layout.LayerSelector{Title: "["}); !errors.Is(err, layout.ErrInvalid) {
		t.Errorf("bad glob: %v, want ErrInvalid", err)
	}
}

func TestLayerMatchOne(t *testing.T) {
	a, b := layerDesc("text/plain", "", "same"), layerDesc("application/json", "", "same")
	for name, tt := range map[string]struct {
		layers []ocispec.Descriptor
		err    error
	}{
		"one":               {[]ocispec.Descriptor{a}, nil},
		"the same twice":    {[]ocispec.Descriptor{a, a}, nil},
		"same bytes":        {[]ocispec.Descriptor{a, b}, layout.ErrAmbiguous},
		"differ in a title": {[]ocispec.Descriptor{a, layerDesc("text/plain", "t", "same")}, layout.ErrAmbiguous},
	} {
		m := layout.LayerMatch{}
		for i, desc := range tt.layers {
			m.Layers = append(m.Layers, layout.Layer{Desc: desc, Number: i})
		}
		l, err := m.One()
		if !errors.Is(err, tt.err) || err == nil && l.Number != 0 {
			t.Errorf("%s: %v, %v, want %v", name, l, err, tt.err)
		}
		if err != nil && (!strings.Contains(err.Error(), "\n  --layer 0  ") || !strings.Contains(err.Error(), "\n  --layer 1  ")) {
			t.Errorf("%s: the error does not list the layers: %v", name, err)
		}
	}
}

// FuzzLayerSelector: what a selector chooses of any manifest is what each of its
// fields says alone, and nothing else.
func FuzzLayerSelector(f *testing.F) {
	manifest := func(layers string) []byte {
		return []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.unknown.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[` + layers + `]}`)
	}
	const layer = `{"mediaType":"application/io.gardenlinux.log","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"annotations":{"org.opencontainers.image.title":"a/b.log","k":"v"}}`
	const plain = `{"mediaType":"text/plain","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}`
	f.Add(manifest(layer+","+plain), "application/*", "", "", "", -1, false)
	f.Add(manifest(layer+","+plain+","+layer), "application/io.gardenlinux.log", "*/*.log", "k", "v", 2, false)
	f.Add(manifest(plain), "", "[", "", "", 0, false)
	f.Add(manifest(""), "*", "*", "k", "", 0, true)
	f.Add([]byte(`{"layers":null}`), "", "", "", "", -1, true)
	f.Fuzz(func(t *testing.T, raw []byte, mediaType, title, key, value string, number int, config bool) {
		desc := layerDesc(ocispec.MediaTypeImageManifest, "", string(raw))
		doc, err := layout.ParseDocument(desc, raw)
		if err != nil {
			return
		}
		sel := layout.LayerSelector{Config: config, MediaType: mediaType, Title: title}
		if number >= 0 {
			sel.Number = &number
		}
		if key != "" {
			sel.Annotations = map[string]string{key: value}
		}
		_ = sel.String()
		got, err := sel.Layers(doc)
		_, badGlob := path.Match(title, "")
		if invalid := badGlob != nil || config && number >= 0; invalid || err != nil {
			switch {
			case invalid != errors.Is(err, layout.ErrInvalid), len(got) > 0:
				t.Fatalf("%+v of %s: %v, %v", sel, raw, got, err)
			case !invalid && (!errors.Is(err, layout.ErrNotFound) || number < 0):
				t.Fatalf("%+v of %s: %v", sel, raw, err)
			}
			if invalid {
				return
			}
		}
		all := doc.Layers
		if config {
			all = nil
			if doc.Config != nil {
				all = []ocispec.Descriptor{*doc.Config}
			}
		}
		var want []int
		for i, d := range all {
			fits := mediaType == "" || d.MediaType == mediaType || strings.HasSuffix(mediaType, "*") && strings.HasPrefix(d.MediaType, mediaType[:len(mediaType)-1])
			if strings.HasSuffix(mediaType, "*") && !strings.HasPrefix(d.MediaType, mediaType[:len(mediaType)-1]) {
				fits = false
			}
			has, ok := d.Annotations[ocispec.AnnotationTitle]
			if match, _ := path.Match(title, has); title != "" && (!ok || !match) {
				fits = false
			}
			if has, ok := d.Annotations[key]; key != "" && (!ok || has != value) {
				fits = false
			}
			if config {
				i = -1
			} else if number >= 0 && i != number {
				fits = false
			}
			if fits {
				want = append(want, i)
			}
		}
		var have []int
		for _, l := range got {
			have = append(have, l.Number)
			if _, err := layout.ParseDigest(string(l.Desc.Digest)); err != nil {
				t.Fatalf("%s has a layer with the digest %q", raw, l.Desc.Digest)
			}
		}
		if !slices.Equal(have, want) {
			t.Fatalf("%+v of %s: layers %v, want %v", sel, raw, have, want)
		}
	})
}
