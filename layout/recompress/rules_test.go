package recompress_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/recompress"
)

// artifact returns a layout with an artifact of one layer, which has content and
// is otherwise desc.
func artifact(t *testing.T, content string, desc ocispec.Descriptor) (*layout.Layout, *layout.Stage, ocispec.Descriptor) {
	t.Helper()
	ctx := t.Context()
	l := must(layout.Create(ctx, filepath.Join(t.TempDir(), "l"), nil))(t)
	s := must(l.Stage(ctx))(t)
	t.Cleanup(func() { _ = errors.Join(s.Close(), l.Close()) })
	added := must(s.AddBytes(ctx, []byte(content), desc.MediaType))(t)
	desc.Digest, desc.Size = added.Digest, added.Size
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/x", Layers: []ocispec.Descriptor{desc}}
	m.SchemaVersion = 2
	m.Config = must(s.AddBytes(ctx, []byte("{}"), ocispec.MediaTypeEmptyJSON))(t)
	manifest := must(s.AddBytes(ctx, must(json.Marshal(m))(t), ocispec.MediaTypeImageManifest))(t)
	if err := s.Update(ctx, func(tx *layout.Tx) error { tx.SetRef("v", manifest); return nil }); err != nil {
		t.Fatal(err)
	}
	return l, s, desc
}

// What readers could not read any more is kept, by the rule that names them.
func TestRules(t *testing.T) {
	const layer = ocispec.MediaTypeImageLayerGzip
	title := func(s string) map[string]string { return map[string]string{ocispec.AnnotationTitle: s} }
	for name, test := range map[string]struct {
		desc ocispec.Descriptor
		to   compress.Format
		rule string // "": it is recompressed
	}{
		"a layer":                   {ocispec.Descriptor{MediaType: layer}, compress.Zstd, ""},
		"with a URL":                {ocispec.Descriptor{MediaType: layer, URLs: []string{"https://example.com/x"}}, compress.Zstd, "foreign"},
		"of Garden Linux":           {ocispec.Descriptor{MediaType: "application/io.gardenlinux.image.tar+gzip"}, compress.Zstd, "named"},
		"titled otherwise":          {ocispec.Descriptor{MediaType: layer, Annotations: title("x.tar.gz")}, compress.Zstd, "titled"},
		"titled so":                 {ocispec.Descriptor{MediaType: layer, Annotations: title("x.tar.zst")}, compress.Zstd, ""},
		"for flux":                  {ocispec.Descriptor{MediaType: "application/vnd.cncf.flux.content.v1.tar+gzip"}, compress.Zstd, "flux"},
		"for helm":                  {ocispec.Descriptor{MediaType: "application/vnd.cncf.helm.chart.content.v1.tar+gzip"}, compress.None, "helm"},
		"for oras":                  {ocispec.Descriptor{MediaType: layer, Annotations: map[string]string{"io.deis.oras.content.unpack": "true"}}, compress.Zstd, "oras"},
		"for oras, but as it is":    {ocispec.Descriptor{MediaType: layer, Annotations: map[string]string{"io.deis.oras.content.unpack": "false"}}, compress.Zstd, ""},
		"with a title of no format": {ocispec.Descriptor{MediaType: layer, Annotations: title("rootfs")}, compress.None, ""},
	} {
		l, s, desc := artifact(t, gzipped(t, "content"), test.desc)
		r := must(recompress.Run(t.Context(), s, all, recompress.Options{Format: test.to}, nil))(t)
		if len(r.Layers) != 1 || r.Layers[0].Rule != test.rule || (r.Layers[0].Kept != "") != (test.rule != "") {
			t.Errorf("%s: %+v, want rule %q", name, r.Layers, test.rule)
			continue
		}
		now := must(all(t.Context(), l))(t)[0].Document.Layers[0]
		if kept := now.Digest == desc.Digest; kept != (test.rule != "") {
			t.Errorf("%s: the layer is the same: %v", name, kept)
		}
	}
}

// Annotations that describe compressed bytes go; all others stay.
func TestStaleAnnotations(t *testing.T) {
	annotations := map[string]string{
		"a": "b", "io.github.containers.zstd-chunked.manifest-checksum": "x", "containerd.io/snapshot/stargz/toc.digest": "x",
		"io.containers.estargz.uncompressed-size": "1", "containerd.io/snapshot/nydus-blob": "true", "containerd.io/snapshot/other": "y",
	}
	l, s, _ := artifact(t, gzipped(t, "content"), ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Annotations: annotations})
	r := must(recompress.Run(t.Context(), s, all, recompress.Options{Format: compress.Zstd}, nil))(t)
	now := must(all(t.Context(), l))(t)[0].Document.Layers[0]
	if want := map[string]string{"a": "b", "containerd.io/snapshot/other": "y"}; !maps.Equal(now.Annotations, want) {
		t.Errorf("annotations %v, want %v", now.Annotations, want)
	}
	if got := r.Layers[0].Dropped; len(got) != 4 || !slices.IsSorted(got) {
		t.Errorf("dropped %q", got)
	}
}

// A damaged layer is told from one that is not what its media type says, and
// neither changes anything.
func TestBadLayers(t *testing.T) {
	noise := make([]byte, 200_000)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
	good := gzipped(t, string(noise))
	l, s, desc := artifact(t, good, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip})
	bad := []byte(good)
	copy(bad[10:], "\xff\xff\xff\xff") // no block of deflate, long before the end of the blob
	if err := os.WriteFile(filepath.Join(l.Dir(), layout.BlobPath(desc.Digest)), bad, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := recompress.Run(t.Context(), s, all, recompress.Options{Format: compress.Zstd}, nil); !errors.Is(err, layout.ErrMismatch) {
		t.Errorf("damaged: %v, want ErrMismatch", err)
	}
	for name, content := range map[string]string{"plain": "no gzip", "cut short": good[:len(good)-3], "two, one bad": good + "x"} {
		l, s, desc := artifact(t, content, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip})
		before := must(l.Index(t.Context()))(t).Bytes()
		_, err := recompress.Run(t.Context(), s, all, recompress.Options{Format: compress.Zstd}, nil)
		be := new(layout.BlobError)
		if !errors.Is(err, layout.ErrInvalid) || !errors.As(err, &be) || be.Desc.Digest != desc.Digest {
			t.Errorf("%s: %v, want ErrInvalid of the layer", name, err)
		}
		if after := must(l.Index(t.Context()))(t).Bytes(); !bytes.Equal(before, after) {
			t.Errorf("%s: index.json is %s, was %s", name, after, before)
		}
	}
}

// The estimate of a short layer is what comes out, and changes nothing.
func TestEstimate(t *testing.T) {
	l, s, desc := artifact(t, gzipped(t, "content of a layer, content of a layer"), ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip})
	before := must(l.Index(t.Context()))(t).Bytes()
	opts := recompress.Options{Format: compress.Zstd}
	e := must(recompress.Estimate(t.Context(), s, all, opts))(t)
	if after := must(l.Index(t.Context()))(t).Bytes(); !bytes.Equal(before, after) {
		t.Errorf("index.json is %s, was %s", after, before)
	}
	r := must(recompress.Run(t.Context(), s, all, opts, nil))(t)
	if len(e.Layers) != 1 || !e.Layers[0].Estimated || e.Layers[0].New.Size != r.Layers[0].New.Size || e.Layers[0].Old.Digest != desc.Digest {
		t.Errorf("estimated %+v, became %+v", e.Layers, r.Layers)
	}
	if d := r.Layers[0].New.Digest; d == "" || d == desc.Digest || d.Algorithm() != digest.SHA256 {
		t.Errorf("digest %s", d)
	}
}
