package layout

import (
	"bytes"
	"context"
	"fmt"
	"mime"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout/internal/strictjson"
)

// MaxDocument is the largest manifest or index, in bytes, that is read or
// written: what registries and their clients accept (4 MiB).
const MaxDocument = strictjson.MaxBytes

// Media types that the image specification does not name.
const (
	mediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	mediaTypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	mediaTypeDockerConfig   = "application/vnd.docker.container.image.v1+json"
	// mediaTypeArtifact was in release candidates of image-spec 1.1; its
	// layers are called blobs and it has no config.
	mediaTypeArtifact = "application/vnd.oci.artifact.manifest.v1+json"
)

// The names that a manifest or an index may have, in the order in which we
// write them.
var (
	manifestNames = []string{"schemaVersion", "mediaType", "artifactType", "config", "layers", "blobs", "subject", "annotations"}
	indexNames    = []string{"schemaVersion", "mediaType", "artifactType", "manifests", "subject", "annotations"}
	documentNames = append([]string{"manifests", "fsLayers"}, manifestNames...)
)

// IsIndex tells whether mediaType is that of an image index or of a Docker
// manifest list.
func IsIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == mediaTypeDockerList
}

// IsManifest tells whether mediaType is that of an image manifest, of OCI or
// Docker, or of the artifact manifest of release candidates of image-spec 1.1.
func IsManifest(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == mediaTypeDockerManifest || mediaType == mediaTypeArtifact
}

// attestationType is the artifact type that BuildKit gives to an attestation
// where it is asked to write OCI artifacts.
const attestationType = "application/vnd.docker.attestation.manifest.v1+json"

// IsAttestation tells whether desc is an attestation that BuildKit put beside
// an image: by its annotation, or by its artifact type.
func IsAttestation(desc ocispec.Descriptor) bool {
	return desc.Annotations["vnd.docker.reference.type"] == "attestation-manifest" || desc.ArtifactType == attestationType
}

// A Document is a manifest or an index, verified and read strictly. Its fields
// are for reading only.
type Document struct {
	Descriptor   ocispec.Descriptor // as the document above gives it
	Raw          []byte             // the exact bytes
	MediaType    string             // the descriptor's; the body agrees or has none
	IsIndex      bool
	ArtifactType string               // the field, else the config's media type where that is no image config
	Config       *ocispec.Descriptor  // nil in an index
	Layers       []ocispec.Descriptor // in order, base first
	Manifests    []ocispec.Descriptor // of an index, in order
	Subject      *ocispec.Descriptor
	Annotations  map[string]string
}

// IsImage tells whether the document is the manifest of a container image:
// one with an image config.
func (d *Document) IsImage() bool {
	return d.Config != nil && isImageConfig(d.Config.MediaType)
}

// descriptors returns all that the document names, in order.
func (d *Document) descriptors() []ocispec.Descriptor {
	var descs []ocispec.Descriptor
	if d.Config != nil {
		descs = append(descs, *d.Config)
	}
	descs = append(append(descs, d.Layers...), d.Manifests...)
	if d.Subject != nil {
		descs = append(descs, *d.Subject)
	}
	return descs
}

func isImageConfig(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageConfig || mediaType == mediaTypeDockerConfig
}

// ReadDocument reads the manifest or index desc of src. It is [ErrInvalid]
// where desc has another media type, is larger than [MaxDocument] or has a
// body that the strict reader refuses.
func ReadDocument(ctx context.Context, src Source, desc ocispec.Descriptor) (*Document, error) {
	raw, err := ReadAll(ctx, src, desc, MaxDocument)
	if err != nil {
		return nil, err
	}
	return ParseDocument(desc, raw)
}

// ParseDocument reads raw, the verified content of desc, strictly: the body's
// media type must agree with the descriptor's, and nothing may be a manifest
// and an index at once (CVE-2021-41190). The document keeps raw.
func ParseDocument(desc ocispec.Descriptor, raw []byte) (*Document, error) {
	d := &Document{Descriptor: desc, Raw: raw, MediaType: desc.MediaType, IsIndex: IsIndex(desc.MediaType)}
	if !d.IsIndex && !IsManifest(desc.MediaType) {
		return nil, fmt.Errorf("%s: %w: media type %q is no manifest or index", desc.Digest, ErrInvalid, desc.MediaType)
	}
	if err := d.parse(); err != nil {
		return nil, fmt.Errorf("%s: %w", desc.Digest, err)
	}
	return d, nil
}

func (d *Document) parse() error {
	v, err := strictjson.Parse(d.Raw)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	ms, err := members(v, documentNames)
	if err != nil {
		return err
	}
	has := make(map[string]bool, len(ms))
	for _, m := range ms {
		has[m.Name] = true
		switch m.Name {
		case "schemaVersion":
			err = checkSchemaVersion(m.Value)
		case "mediaType":
			err = checkBodyType(m.Value, d.MediaType)
		case "artifactType":
			d.ArtifactType, err = decodeOptional(m.Value)
		case "config":
			d.Config, err = decodeOptionalDescriptor(m.Value)
		case "layers", "blobs":
			if m.Name == "blobs" && d.MediaType != mediaTypeArtifact {
				continue
			}
			d.Layers, err = decodeDescriptors(m.Value)
		case "manifests":
			d.Manifests, err = decodeDescriptors(m.Value)
		case "subject":
			d.Subject, err = decodeOptionalDescriptor(m.Value)
		case "annotations":
			d.Annotations, err = decodeMap(m.Value)
		}
		if err != nil {
			return field(m.Name, err)
		}
	}
	switch {
	case has["fsLayers"]:
		return fmt.Errorf("%w: a Docker schema 1 manifest", ErrInvalid)
	case d.IsIndex && (has["layers"] || has["config"]):
		return fmt.Errorf("%w: an index with the layers or config of a manifest", ErrInvalid)
	case !d.IsIndex && has["manifests"]:
		return fmt.Errorf("%w: a manifest with the manifests of an index", ErrInvalid)
	case d.IsIndex && !has["manifests"]:
		return fmt.Errorf("%w: an index without manifests", ErrInvalid)
	case !d.IsIndex && d.MediaType != mediaTypeArtifact && d.Config == nil:
		return fmt.Errorf("%w: a manifest without config", ErrInvalid)
	case d.MediaType != mediaTypeArtifact && !has["schemaVersion"]:
		return fmt.Errorf("%w: schemaVersion is missing", ErrInvalid)
	}
	if d.ArtifactType == "" && d.Config != nil && !d.IsImage() && d.Config.MediaType != ocispec.MediaTypeEmptyJSON {
		d.ArtifactType = d.Config.MediaType
	}
	return nil
}

func checkSchemaVersion(v strictjson.Value) error {
	n, err := v.Int()
	if err == nil && n != 2 {
		err = fmt.Errorf("%d, want 2", n)
	}
	return err
}

func checkBodyType(v strictjson.Value, want string) error {
	text, err := decodeOptional(v)
	if err == nil && text != "" && !sameMediaType(text, want) {
		err = fmt.Errorf("%q, but the descriptor says %q", text, want)
	}
	return err
}

// sameMediaType ignores parameters, as RFC 6838 lets a sender add them.
func sameMediaType(a, b string) bool {
	if a == b {
		return true
	}
	a, _, errA := mime.ParseMediaType(a)
	b, _, errB := mime.ParseMediaType(b)
	return errA == nil && errB == nil && strings.EqualFold(a, b)
}

func decodeOptionalDescriptor(v strictjson.Value) (*ocispec.Descriptor, error) {
	if v.Kind() == strictjson.Null {
		return nil, nil
	}
	desc, _, err := decodeDescriptor(v)
	if err != nil {
		return nil, err
	}
	return &desc, nil
}

func decodeDescriptors(v strictjson.Value) ([]ocispec.Descriptor, error) {
	if v.Kind() == strictjson.Null { // Go programs write a nil slice so
		return nil, nil
	}
	items, err := v.Items()
	if err != nil {
		return nil, err
	}
	descs := make([]ocispec.Descriptor, len(items))
	for i, item := range items {
		if descs[i], _, err = decodeDescriptor(item); err != nil {
			return nil, fmt.Errorf("item %d: %w", i, err)
		}
	}
	return descs, nil
}

// EncodeManifest returns the canonical bytes of a manifest that we make: fixed
// order of names, annotations sorted, no white space but one final newline.
func EncodeManifest(m ocispec.Manifest) ([]byte, error) {
	x := NewManifest(m.Config)
	x.SetArtifactType(m.ArtifactType)
	for _, layer := range m.Layers {
		x.AddLayer(layer)
	}
	x.SetSubject(m.Subject)
	x.annotations = m.Annotations
	raw := x.Bytes()
	// What we write, we must be able to read.
	d, err := ParseDocument(describe(raw, ocispec.MediaTypeImageManifest), bytes.Clone(raw))
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return d.Raw, nil
}
