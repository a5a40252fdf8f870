package consumer

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// The Docker media types that consumers tell from those of OCI.
const (
	mediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	mediaTypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	mediaTypeDockerConfig   = "application/vnd.docker.container.image.v1+json"
)

// ReadDocument reads the manifest or index desc as consumers do. A registry
// serves a document under the media type that it had when it was pushed, which
// is the one in its body: what the entry says of it may be anything. The
// document's MediaType is that one.
//
// Below [Remember] a document is read once.
func ReadDocument(ctx context.Context, src layout.Source, desc ocispec.Descriptor) (*layout.Document, error) {
	m, _ := ctx.Value(memoKey{}).(*memo)
	if m == nil || m.src != src || desc.Data != nil {
		return readDocument(ctx, src, desc)
	}
	return m.document(ctx, desc)
}

func readDocument(ctx context.Context, src layout.Source, desc ocispec.Descriptor) (*layout.Document, error) {
	raw, err := layout.ReadAll(ctx, src, desc, layout.MaxDocument)
	if err != nil {
		return nil, err
	}
	served := desc
	served.MediaType = servedAs(raw, desc.MediaType)
	doc, err := layout.ParseDocument(served, raw)
	if err != nil {
		return nil, err
	}
	doc.Descriptor = desc
	return doc, nil
}

// A Tagger is a source that knows tags which its index does not list: a registry
// that was opened for one tag.
type Tagger interface {
	// Tag returns what a tag names, or [layout.ErrNotFound].
	Tag(ctx context.Context, tag string) (ocispec.Descriptor, error)
}

// FindTag returns what a tag names beside that which a consumer was told to take,
// or [layout.ErrNotFound].
func FindTag(ctx context.Context, src layout.Source, tag string) (ocispec.Descriptor, error) {
	if t, ok := src.(Tagger); ok {
		return t.Tag(ctx, tag)
	}
	return layout.ResolveOne(ctx, src, tag, "")
}

// servedAs returns the media type of a document: that in its body if that is
// known, else that of its entry, else what it looks like. See distribution
// registry/handlers/manifests.go, PutManifest and containers/image
// internal/manifest/manifest.go, GuessMIMEType.
func servedAs(raw []byte, mediaType string) string {
	known := func(s string) bool { return layout.IsIndex(s) || layout.IsManifest(s) }
	var body struct {
		MediaType string          `json:"mediaType"`
		Config    json.RawMessage `json:"config"`
		Manifests json.RawMessage `json:"manifests"`
	}
	if json.Unmarshal(raw, &body) != nil {
		return mediaType
	}
	switch {
	case known(body.MediaType):
		return body.MediaType
	case known(mediaType):
		return mediaType
	case body.MediaType == "" && body.Manifests != nil && body.Config == nil:
		return ocispec.MediaTypeImageIndex
	case body.MediaType == "" && body.Config != nil && body.Manifests == nil:
		return ocispec.MediaTypeImageManifest
	}
	return cmp.Or(body.MediaType, mediaType)
}

// isImageManifest tells whether doc has one of the two media types that all
// image clients know: all else of [layout.IsManifest] nobody does.
func isImageManifest(doc *layout.Document) bool {
	return doc.MediaType == ocispec.MediaTypeImageManifest || doc.MediaType == mediaTypeDockerManifest
}

// artifactType is what messages call an artifact: the field artifactType, else
// the config's media type. See containers/image internal/manifest/errors.go,
// NewNonImageArtifactError.
func artifactType(doc *layout.Document) string {
	if doc.ArtifactType == "" && doc.Config != nil {
		return doc.Config.MediaType
	}
	return doc.ArtifactType
}

// config is what consumers read of an image config.
type config struct {
	Architecture string   `json:"architecture"`
	OS           string   `json:"os"`
	Variant      string   `json:"variant"`
	OSVersion    string   `json:"os.version"`
	OSFeatures   []string `json:"os.features"`
	RootFS       struct {
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

func (c *config) platform() ocispec.Platform {
	return ocispec.Platform{Architecture: c.Architecture, OS: c.OS, Variant: c.Variant, OSVersion: c.OSVersion, OSFeatures: c.OSFeatures}
}

// readConfig reads the config of doc, leniently, as all consumers do. nil means
// that there is none that anybody could read.
func readConfig(ctx context.Context, src layout.Source, doc *layout.Document) (*config, error) {
	if doc.Config == nil {
		return nil, nil
	}
	raw, err := layout.ReadAll(ctx, src, *doc.Config, layout.MaxDocument)
	if errors.Is(err, layout.ErrNotFound) || errors.Is(err, layout.ErrInvalid) || errors.Is(err, layout.ErrMismatch) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var c config
	if json.Unmarshal(raw, &c) != nil {
		return nil, nil //nolint:nilerr // what is no JSON is no config
	}
	return &c, nil
}

// platformName is a platform in messages; "no platform" where there is none.
func platformName(p *ocispec.Platform) string {
	if p == nil {
		return "no platform"
	}
	s := layout.FormatPlatform(*p)
	if p.OSVersion != "" {
		s += " (os.version " + p.OSVersion + ")"
	}
	return s
}

// entryName is an entry of an index in messages: its place, from 1 on.
func entryName(number int, desc ocispec.Descriptor) string {
	return fmt.Sprintf("entry %d (%s)", number+1, platformName(desc.Platform))
}

// isGzip tells whether a layer begins as a gzip stream does (RFC 1952).
func isGzip(ctx context.Context, src layout.Source, desc ocispec.Descriptor) (bool, error) {
	rc, err := src.Blob(ctx, desc)
	if errors.Is(err, layout.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var magic [2]byte
	_, err = io.ReadFull(rc, magic[:])
	closeErr := rc.Close()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return false, nil
	case err != nil && !errors.Is(err, layout.ErrMismatch):
		return false, err
	}
	return magic == [2]byte{0x1f, 0x8b}, closeErr
}
