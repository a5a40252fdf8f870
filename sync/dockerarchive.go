package sync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/containers/image/v5/copy"
	"github.com/containers/image/v5/docker/archive"
	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// An importedSource is a private layout with converted images.
type importedSource struct {
	*layout.Layout
	temp string // removed by Close
	name string // of what was imported
}

func (s *importedSource) String() string { return s.name }

// Close removes the private layout.
func (s *importedSource) Close() error {
	return errors.Join(s.Layout.Close(), os.RemoveAll(s.temp))
}

// openDockerArchive converts the image that ref.RefName names, or all.
func openDockerArchive(ctx context.Context, ref layout.Reference, opts *RegistryOptions) (_ layout.Source, err error) {
	if ref.Digest != "" {
		return nil, fmt.Errorf("%w reference %q: images of a docker-archive have no digests", layout.ErrInvalid, ref)
	}
	if _, err := os.Stat(ref.Location); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", ref.Location, layout.ErrNotFound)
	}
	temp, err := os.MkdirTemp("", "gloci-layout-")
	if err != nil {
		return nil, err
	}
	s := &importedSource{temp: temp, name: ref.String()}
	defer func() {
		if err == nil {
			return
		}
		if s.Layout != nil {
			err = errors.Join(err, s.Layout.Close())
		}
		err = errors.Join(err, os.RemoveAll(temp))
	}()
	if s.Layout, err = layout.Create(ctx, filepath.Join(temp, "layout"), nil); err != nil {
		return nil, err
	}
	sys := &types.SystemContext{BigFilesTemporaryDir: temp, BlobInfoCacheDir: filepath.Join(temp, "cache")}
	reader, err := archive.NewReader(sys, ref.Location)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", ref, layout.ErrInvalid, err)
	}
	err = s.importAll(ctx, reader, sys, ref.RefName, opts)
	if err = errors.Join(err, reader.Close()); err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	return s, nil
}

// importAll converts the images that carry the name, all if it is empty.
func (s *importedSource) importAll(ctx context.Context, reader *archive.Reader, sys *types.SystemContext, name string, opts *RegistryOptions) error {
	images, err := reader.List()
	if err != nil {
		return fmt.Errorf("%w: %w", layout.ErrInvalid, err)
	}
	policies, err := newPolicies(opts)
	if err != nil {
		return err
	}
	defer policies.close()
	stage, err := s.Stage(ctx)
	if err != nil {
		return err
	}
	defer stage.Close() //nolint:errcheck // its directory is removed with the layout
	var have, refNames []string
	var descs []ocispec.Descriptor
	for _, refs := range images {
		wanted := []string{}
		for _, ref := range refs {
			if ref.DockerReference() == nil {
				continue
			}
			full := ref.DockerReference().String()
			short := reference.FamiliarString(ref.DockerReference())
			have = append(have, short)
			switch name {
			case "":
				wanted = append(wanted, short)
			case full, short:
				wanted = []string{name} // as the caller will look for it
			}
		}
		if name != "" && len(wanted) == 0 {
			continue
		}
		desc, err := importImage(ctx, refs[0], stage, sys, policies)
		if err != nil {
			return err
		}
		if len(wanted) == 0 {
			wanted = []string{""}
		}
		for _, w := range wanted {
			refNames, descs = append(refNames, w), append(descs, desc)
		}
	}
	if len(descs) == 0 {
		return fmt.Errorf("image %q: %w among %s", name, layout.ErrNotFound, strings.Join(have, ", "))
	}
	return stage.Update(ctx, func(tx *layout.Tx) error {
		for i, desc := range descs {
			tx.Index().Add(named(desc, refNames[i]))
		}
		return nil
	})
}

// importImage converts one image into OCI form.
func importImage(ctx context.Context, ref types.ImageReference, stage *layout.Stage, sys *types.SystemContext, policies *policies) (ocispec.Descriptor, error) {
	dest := &stageDestination{stage: stage}
	policy, err := policies.get()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer policies.put(policy)
	_, err = copy.Image(ctx, policy, imageRef{identity: stage.String(), dest: dest}, ref, &copy.Options{
		SourceCtx: sys, DestinationCtx: sys,
		ForceManifestMIMEType: ocispec.MediaTypeImageManifest,
		RemoveSignatures:      true, // there are none, and no place for them
	})
	if err != nil {
		return ocispec.Descriptor{}, rejected(err)
	}
	return dest.manifest, nil
}

// A stageDestination puts one image into a stage.
type stageDestination struct {
	destination
	stage    *layout.Stage
	manifest ocispec.Descriptor
}

// DesiredLayerCompression: layers of a docker-archive are not compressed, and
// registries and everybody who pulls would pay for it.
func (*stageDestination) DesiredLayerCompression() types.LayerCompression { return types.Compress }

func (*stageDestination) SupportedManifestMIMETypes() []string {
	return []string{ocispec.MediaTypeImageManifest}
}

func (d *stageDestination) PutBlob(ctx context.Context, r io.Reader, info types.BlobInfo, _ types.BlobInfoCache, _ bool) (types.BlobInfo, error) {
	desc, err := d.stage.Add(ctx, r, info.MediaType)
	return types.BlobInfo{Digest: desc.Digest, Size: desc.Size}, err
}

func (d *stageDestination) TryReusingBlob(context.Context, types.BlobInfo, types.BlobInfoCache, bool) (bool, types.BlobInfo, error) {
	return false, types.BlobInfo{}, nil
}

func (d *stageDestination) PutManifest(ctx context.Context, raw []byte, _ *digest.Digest) error {
	desc, err := d.stage.AddBytes(ctx, raw, ocispec.MediaTypeImageManifest)
	d.manifest = desc
	return err
}
