package sync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/containers/image/v5/docker/policyconfiguration"
	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/archive"
)

// An imageRef is what containers/image calls a reference: one manifest of a
// source. It names no registry to the library, which would otherwise talk to one
// itself.
type imageRef struct {
	transport  string   // of policy.json, such as "oci" or "docker"
	identity   string   // scope of policy.json
	namespaces []string // wider scopes
	// docker is what a signature has to be for, of what comes from a registry.
	docker reference.Named
	source *imageSource
}

// sourceRef returns the reference of the manifest desc of src for the library.
func sourceRef(src layout.Source, desc ocispec.Descriptor) imageRef {
	return imageRef{transport: "oci", source: &imageSource{src: src, desc: desc}}
}

// policyRef returns the reference of the manifest desc of src for the policy,
// with the scopes that podman's transport of that name has. What comes from a
// registry is known by the tag, or by its digest where tag is "".
func policyRef(src layout.Source, desc ocispec.Descriptor, tag string) imageRef {
	r := sourceRef(src, desc)
	var path string
	switch s := whole(src).(type) {
	case *Remote:
		r.transport, r.identity = "docker", s.named.Name()
		named, err := reference.WithTag(s.named, tag)
		var full reference.Named = named
		if tag == "" || err != nil {
			full, err = reference.WithDigest(s.named, desc.Digest)
		}
		if err != nil {
			return r
		}
		r.docker = full
		if identity, err := policyconfiguration.DockerReferenceIdentity(full); err == nil {
			r.identity = identity
		}
		r.namespaces = policyconfiguration.DockerReferenceNamespaces(full)
		return r
	case *importedSource:
		r.transport = "docker-archive" // which has no scopes
		return r
	case *dirSource:
		r.transport, path = "dir", s.dir
	case *archive.Archive:
		r.transport, path = "oci-archive", s.String()
	default:
		path = s.String()
	}
	if path, err := filepath.Abs(path); err == nil {
		r.identity = path
		for dir := filepath.Dir(path); dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
			r.namespaces = append(r.namespaces, dir)
		}
	}
	return r
}

// whole returns the source that src is a part of.
func whole(src layout.Source) layout.Source {
	switch part := src.(type) {
	case *partSource:
		return part.Source
	case partLister:
		return part.Source
	}
	return src
}

func (r imageRef) Transport() types.ImageTransport                       { return imageTransport(r.transport) }
func (r imageRef) StringWithinTransport() string                         { return r.identity }
func (r imageRef) DockerReference() reference.Named                      { return r.docker }
func (r imageRef) PolicyConfigurationIdentity() string                   { return r.identity }
func (r imageRef) PolicyConfigurationNamespaces() []string               { return r.namespaces }
func (imageRef) DeleteImage(context.Context, *types.SystemContext) error { return errNotThis }

func (imageRef) NewImage(context.Context, *types.SystemContext) (types.ImageCloser, error) {
	return nil, errNotThis
}

func (r imageRef) NewImageSource(context.Context, *types.SystemContext) (types.ImageSource, error) {
	if r.source == nil {
		return nil, errNotThis
	}
	s := *r.source
	s.ref = r
	return &s, nil
}

func (imageRef) NewImageDestination(context.Context, *types.SystemContext) (types.ImageDestination, error) {
	return nil, errNotThis
}

// errNotThis is what methods return that nobody calls.
var errNotThis = errors.New("not for this reference")

// An imageTransport names the section of policy.json that applies.
type imageTransport string

func (t imageTransport) Name() string { return string(t) }

func (imageTransport) ParseReference(string) (types.ImageReference, error) { return nil, errNotThis }

func (imageTransport) ValidatePolicyConfigurationScope(string) error { return nil }

// An imageSource is one manifest of a source. It verifies all that it gives
// out; the library verifies nothing of it but layers.
type imageSource struct {
	src  layout.Source
	desc ocispec.Descriptor
	ref  imageRef
}

func (s *imageSource) Reference() types.ImageReference { return s.ref }
func (*imageSource) Close() error                      { return nil } // the source is the caller's
func (*imageSource) HasThreadSafeGetBlob() bool        { return true }

func (s *imageSource) GetManifest(ctx context.Context, instance *digest.Digest) ([]byte, string, error) {
	if instance != nil && *instance != s.desc.Digest {
		return nil, "", fmt.Errorf("manifest %s: %w", *instance, layout.ErrNotFound)
	}
	raw, err := layout.ReadAll(ctx, s.src, s.desc, layout.MaxDocument)
	return raw, s.desc.MediaType, err
}

func (s *imageSource) GetBlob(ctx context.Context, info types.BlobInfo, _ types.BlobInfoCache) (io.ReadCloser, int64, error) {
	// Digest and size only: URLs are never followed.
	rc, err := s.src.Blob(ctx, ocispec.Descriptor{Digest: info.Digest, Size: info.Size})
	return rc, info.Size, err
}

// GetSignatures has no place for those of sigstore: see policies.checkSigned.
func (*imageSource) GetSignatures(context.Context, *digest.Digest) ([][]byte, error) { return nil, nil }

func (*imageSource) LayerInfosForCopy(context.Context, *digest.Digest) ([]types.BlobInfo, error) {
	return nil, nil
}
