package sourcetest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// The media types of what a [Memory] makes.
const (
	TypeConfig        = "application/vnd.oci.image.config.v1+json"
	TypeLayer         = "application/vnd.oci.image.layer.v1.tar+gzip"
	TypeManifest      = "application/vnd.oci.image.manifest.v1+json"
	TypeIndex         = "application/vnd.oci.image.index.v1+json"
	TypeUnknownConfig = "application/vnd.unknown.config.v1+json"
)

// A Memory is a source in memory, and makes what is in it: documents of any form,
// also such as nobody should write.
type Memory struct {
	t       testing.TB
	blobs   map[digest.Digest][]byte
	entries []ocispec.Descriptor
	// Err is what reading a blob gives; nil for its content.
	Err error
}

// NewMemory returns an empty one.
func NewMemory(t testing.TB) *Memory { return &Memory{t: t, blobs: map[digest.Digest][]byte{}} }

// Name gives desc a ref name in index.json, or an entry without one for "".
func (m *Memory) Name(refName string, desc ocispec.Descriptor) {
	if refName != "" {
		desc = With(desc, ocispec.AnnotationRefName, refName)
	}
	m.entries = append(m.entries, desc)
}

// Put stores a blob.
func (m *Memory) Put(mediaType, content string) ocispec.Descriptor {
	d := digest.FromString(content)
	m.blobs[d] = []byte(content)
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}
}

// JSON stores v.
func (m *Memory) JSON(mediaType string, v any) ocispec.Descriptor {
	m.t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		m.t.Fatal(err)
	}
	return m.Put(mediaType, string(raw))
}

// Image stores an image for a platform, os/architecture[/variant]; content tells
// it from others. More layers may follow, of which the config knows nothing.
func (m *Memory) Image(content, platform string, more ...ocispec.Descriptor) ocispec.Descriptor {
	m.t.Helper()
	p := m.Platform(platform)
	layer := m.Put(TypeLayer, "\x1f\x8b"+content)
	return m.Manifest(m.JSON(TypeConfig, map[string]any{
		"architecture": p.Architecture, "os": p.OS, "variant": p.Variant,
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{string(digest.FromString(content))}},
	}), append([]ocispec.Descriptor{layer}, more...)...)
}

// Artifact stores a manifest whose config is {} of an unknown type.
func (m *Memory) Artifact(layers ...ocispec.Descriptor) ocispec.Descriptor {
	m.t.Helper()
	return m.Manifest(m.Put(TypeUnknownConfig, "{}"), layers...)
}

// Manifest stores a manifest.
func (m *Memory) Manifest(config ocispec.Descriptor, layers ...ocispec.Descriptor) ocispec.Descriptor {
	m.t.Helper()
	return m.JSON(TypeManifest, map[string]any{
		"schemaVersion": 2, "mediaType": TypeManifest, "config": config, "layers": append([]ocispec.Descriptor{}, layers...),
	})
}

// ImageIndex stores an index.
func (m *Memory) ImageIndex(entries ...ocispec.Descriptor) ocispec.Descriptor {
	m.t.Helper()
	return m.JSON(TypeIndex, map[string]any{
		"schemaVersion": 2, "mediaType": TypeIndex, "manifests": append([]ocispec.Descriptor{}, entries...),
	})
}

// On returns desc as an entry for a platform.
func (m *Memory) On(desc ocispec.Descriptor, platform string) ocispec.Descriptor {
	m.t.Helper()
	desc.Platform = m.Platform(platform)
	return desc
}

// With returns desc with one more annotation.
func With(desc ocispec.Descriptor, key, value string) ocispec.Descriptor {
	desc.Annotations = maps.Clone(desc.Annotations)
	if desc.Annotations == nil {
		desc.Annotations = map[string]string{}
	}
	desc.Annotations[key] = value
	return desc
}

// Platform reads os/architecture[/variant].
func (m *Memory) Platform(s string) *ocispec.Platform {
	m.t.Helper()
	p, err := layout.ParsePlatform(s)
	if err != nil {
		m.t.Fatal(err)
	}
	return p
}

// Index implements [layout.Source].
func (m *Memory) Index(context.Context) (*layout.Index, error) {
	x := layout.NewIndex()
	for _, desc := range m.entries {
		x.Add(desc)
	}
	return x, nil
}

// Blob implements [layout.Source].
func (m *Memory) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if m.Err != nil {
		return nil, m.Err
	}
	return layout.OpenBlob(ctx, desc, func(d digest.Digest) (io.ReadCloser, error) {
		raw, ok := m.blobs[d]
		if !ok {
			return nil, fmt.Errorf("%s: %w", d, layout.ErrNotFound)
		}
		return io.NopCloser(bytes.NewReader(raw)), nil
	})
}

// Blobs implements [layout.Source].
func (m *Memory) Blobs(context.Context) iter.Seq2[layout.BlobInfo, error] {
	return func(yield func(layout.BlobInfo, error) bool) {
		for _, d := range slices.SortedFunc(maps.Keys(m.blobs), func(a, b digest.Digest) int { return strings.Compare(string(a), string(b)) }) {
			if !yield(layout.BlobInfo{Digest: d, Size: int64(len(m.blobs[d]))}, nil) {
				return
			}
		}
	}
}

// Stat implements [layout.Source].
func (m *Memory) Stat(_ context.Context, d digest.Digest) (layout.BlobInfo, error) {
	if raw, ok := m.blobs[d]; ok {
		return layout.BlobInfo{Digest: d, Size: int64(len(raw))}, nil
	}
	return layout.BlobInfo{}, fmt.Errorf("%s: %w", d, layout.ErrNotFound)
}

// Corrupt puts other content under a digest.
func (m *Memory) Corrupt(d digest.Digest, content string) { m.blobs[d] = []byte(content) }

// Delete takes a blob away.
func (m *Memory) Delete(d digest.Digest) { delete(m.blobs, d) }

func (m *Memory) String() string { return "memory" }

// Close implements [layout.Source].
func (m *Memory) Close() error { return nil }
