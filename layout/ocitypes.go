package layout

import (
	"context"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// IsDocker tells whether mediaType is that of a manifest or index of Docker.
func IsDocker(mediaType string) bool {
	return mediaType == mediaTypeDockerManifest || mediaType == mediaTypeDockerList
}

// OCIType returns the media type of image-spec that stands for one of Docker:
// of manifests, indexes, configs and layers, whose bytes mean the same
// (media-types.md, "Compatibility Matrix"). Any other type is returned as it is.
func OCIType(mediaType string) string {
	switch mediaType {
	case mediaTypeDockerManifest:
		return ocispec.MediaTypeImageManifest
	case mediaTypeDockerList:
		return ocispec.MediaTypeImageIndex
	case mediaTypeDockerConfig:
		return ocispec.MediaTypeImageConfig
	}
	for docker, oci := range map[string]string{
		"application/vnd.docker.image.rootfs.diff.tar":         ocispec.MediaTypeImageLayer,
		"application/vnd.docker.image.rootfs.foreign.diff.tar": "application/vnd.oci.image.layer.nondistributable.v1.tar",
	} {
		if compression, ok := strings.CutPrefix(mediaType, docker); ok {
			return oci + strings.Replace(compression, ".", "+", 1)
		}
	}
	return mediaType
}

// UseOCITypes gives the manifest, its config and its layers the media types of
// [OCIType].
func (x *Manifest) UseOCITypes() {
	if to := OCIType(x.mediaType); to != x.mediaType {
		x.mediaType, x.changed = to, true
	}
	for _, e := range append([]*entry{x.config}, pointers(x.layers)...) {
		if e == nil {
			continue
		}
		desc := cloneDescriptor(e.desc)
		desc.MediaType = OCIType(desc.MediaType)
		x.changed = e.set(desc) || x.changed
	}
}

func pointers(entries []entry) []*entry {
	var all []*entry
	for i := range entries {
		all = append(all, &entries[i])
	}
	return all
}

// useOCIType makes a list of Docker an index, which may name manifests of OCI.
func (x *Index) useOCIType() {
	for i, m := range x.members {
		if m.Name == "mediaType" && x.MediaType() == mediaTypeDockerList {
			x.members = append(x.members[:i:i], x.members[i+1:]...)
			x.changed = true
			return
		}
	}
}

// EditManifests is [Tx.EditManifest] for several manifests, each of which fn
// gets once.
func (tx *Tx) EditManifests(ctx context.Context, digests []digest.Digest, opts *EditOptions, fn func(d digest.Digest, m *Manifest) error) (*Edit, error) {
	e := tx.newEditor(opts)
	e.manifests = map[digest.Digest]func(*Manifest) error{}
	for _, d := range digests {
		e.manifests[d] = func(m *Manifest) error { return fn(d, m) }
	}
	return e.run(ctx)
}
