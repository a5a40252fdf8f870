package recompress_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/recompress"
)

const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func gzipped(t *testing.T, content string) string {
	t.Helper()
	var b bytes.Buffer
	w := must(compress.NewWriter(&b, compress.Gzip, 1))(t)
	if _, err := w.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// docker returns a layout with a list of Docker that names an image, whose config
// has diffID for its one layer.
func docker(t *testing.T, content string, diffID digest.Digest) (*layout.Layout, *layout.Stage) {
	t.Helper()
	ctx := t.Context()
	l := must(layout.Create(ctx, filepath.Join(t.TempDir(), "l"), nil))(t)
	s := must(l.Stage(ctx))(t)
	t.Cleanup(func() { _ = errors.Join(s.Close(), l.Close()) })
	put := func(mediaType, content string) string {
		d := must(s.AddBytes(ctx, []byte(content), mediaType))(t)
		return `{"mediaType":"` + mediaType + `","size":` + jsonInt(d.Size) + `,"digest":"` + string(d.Digest) + `"}`
	}
	layer := put(dockerLayer, gzipped(t, content))
	config := put(dockerConfig, `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["`+string(diffID)+`"]}}`)
	manifest := put(dockerManifest, `{"schemaVersion":2,"mediaType":"`+dockerManifest+`","config":`+config+`,"layers":[`+layer+`]}`)
	list := must(s.AddBytes(ctx, []byte(`{"schemaVersion":2,"mediaType":"`+dockerList+`","manifests":[`+manifest+`]}`), dockerList))(t)
	err := s.Update(ctx, func(tx *layout.Tx) error {
		tx.SetRef("v", list)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return l, s
}

func jsonInt(n int64) string {
	digits := ""
	for ; n > 0; n /= 10 {
		digits = string(rune('0'+n%10)) + digits
	}
	return digits
}

func all(ctx context.Context, src layout.Source) ([]layout.Match, error) {
	x, err := src.Index(ctx)
	if err != nil {
		return nil, err
	}
	return layout.Select(ctx, src, x.Entries(), layout.Selector{})
}

// Docker's manifests take no zstd; as manifests of OCI they do, and the list
// above becomes an index. The config keeps its bytes.
func TestDocker(t *testing.T) {
	content := strings.Repeat("content of a layer\n", 1000)
	l, s := docker(t, content, digest.FromString(content))
	_, err := recompress.Run(t.Context(), s, all, recompress.Options{Format: compress.Zstd}, nil)
	if !errors.Is(err, layout.ErrConflict) {
		t.Fatalf("to zstd: %v, want ErrConflict", err)
	}
	before := must(all(t.Context(), l))(t)[0]
	r := must(recompress.Run(t.Context(), s, all, recompress.Options{Format: compress.Zstd, OCITypes: true}, nil))(t)
	if r.Changed() != 1 || len(r.Edit.Changes) != 2 {
		t.Fatalf("result %+v", r)
	}
	m := must(all(t.Context(), l))(t)[0]
	if m.Desc.MediaType != ocispec.MediaTypeImageManifest || m.Parents[0].MediaType != ocispec.MediaTypeImageIndex {
		t.Errorf("a %s in a %s", m.Desc.MediaType, m.Parents[0].MediaType)
	}
	if c := m.Document.Config; c.MediaType != ocispec.MediaTypeImageConfig || c.Digest != before.Document.Config.Digest {
		t.Errorf("config %+v", c)
	}
	if got := m.Document.Layers[0].MediaType; got != ocispec.MediaTypeImageLayerZstd {
		t.Errorf("layer is a %s", got)
	}
	if m.Desc.Annotations["io.github.containers.compression.zstd"] != "true" {
		t.Errorf("entry %+v", m.Desc)
	}
	if got := must(layout.DiffID(t.Context(), l, m.Document.Layers[0]))(t); got != digest.FromString(content) {
		t.Errorf("diffID %s", got)
	}
}

// To gzip and to none, Docker's manifests stay what they are.
func TestDockerNone(t *testing.T) {
	l, s := docker(t, "content", digest.FromString("content"))
	must(recompress.Run(t.Context(), s, all, recompress.Options{Format: compress.None}, nil))(t)
	m := must(all(t.Context(), l))(t)[0]
	if m.Desc.MediaType != dockerManifest || m.Document.Layers[0].MediaType != "application/vnd.docker.image.rootfs.diff.tar" {
		t.Errorf("%s with a %s", m.Desc.MediaType, m.Document.Layers[0].MediaType)
	}
}

func TestErrors(t *testing.T) {
	l, s := docker(t, "content", digest.FromString("something else"))
	before := must(l.Index(t.Context()))(t).Bytes()
	for name, c := range map[string]struct {
		opts recompress.Options
		want error
	}{
		"another diffID": {recompress.Options{Format: compress.Gzip, Level: 9}, layout.ErrMismatch},
		"no such level":  {recompress.Options{Format: compress.Gzip, Level: 10}, compress.ErrUnsupported},
		"no such format": {recompress.Options{Format: compress.Xz}, compress.ErrUnsupported},
	} {
		if _, err := recompress.Run(t.Context(), s, all, c.opts, nil); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := recompress.Run(ctx, s, all, recompress.Options{Format: compress.None}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	if after := must(l.Index(t.Context()))(t).Bytes(); !bytes.Equal(before, after) {
		t.Errorf("index.json is %s, was %s", after, before)
	}
}

// Many layers are compressed at once, and each once; a copy has what they become.
func TestMany(t *testing.T) {
	ctx := t.Context()
	l := must(layout.Create(ctx, filepath.Join(t.TempDir(), "l"), nil))(t)
	s := must(l.Stage(ctx))(t)
	t.Cleanup(func() { _ = errors.Join(s.Close(), l.Close()) })
	empty := must(s.AddBytes(ctx, []byte("{}"), ocispec.MediaTypeEmptyJSON))(t)
	for i := range 8 {
		m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/x", Config: empty}
		m.SchemaVersion = 2
		for j := range 12 { // a third of them are also in the next manifest
			content := strings.Repeat("layer "+jsonInt(int64(100+8*i+j))+"\n", 500)
			m.Layers = append(m.Layers, must(s.AddBytes(ctx, []byte(gzipped(t, content)), ocispec.MediaTypeImageLayerGzip))(t))
		}
		desc := must(s.AddBytes(ctx, must(json.Marshal(m))(t), ocispec.MediaTypeImageManifest))(t)
		if err := s.Update(ctx, func(tx *layout.Tx) error { tx.SetRef("v"+jsonInt(int64(i+1)), desc); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	starts := map[digest.Digest]int{}
	var mu sync.Mutex
	opts := recompress.Options{Format: compress.Zstd, Jobs: 8, Progress: func(e layout.Event) {
		mu.Lock()
		defer mu.Unlock()
		if e.Kind == "start" {
			starts[e.Desc.Digest]++
		}
	}}
	temp := t.TempDir()
	c := must(recompress.NewCopy(ctx, l, &recompress.CopyOptions{TempDir: temp}, opts))(t)
	for _, m := range must(all(ctx, c))(t) {
		for i, layer := range m.Document.Layers {
			if layer.MediaType != ocispec.MediaTypeImageLayerZstd {
				t.Errorf("layer %d of %s is a %s", i, m.Desc.Digest, layer.MediaType)
			}
		}
	}
	if res := must(layout.Verify(ctx, c, nil))(t); len(res.Findings) > 0 {
		t.Errorf("the copy: %v", res.Findings)
	}
	for d, n := range starts {
		if n != 1 {
			t.Errorf("layer %s was compressed %d times", d, n)
		}
	}
	if len(starts) != 8*8+4 {
		t.Errorf("%d layers were compressed, want %d", len(starts), 8*8+4)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if left := must(os.ReadDir(temp))(t); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}
