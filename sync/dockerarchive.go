package sync

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containers/image/v5/docker/archive"
	"github.com/containers/image/v5/docker/reference"
	cimage "github.com/containers/image/v5/image"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/image"
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

// importImage converts one image into OCI form. Its layers, which a docker-archive
// holds as they are named in the config, are compressed: registries and
// everybody who pulls would pay for it.
func importImage(ctx context.Context, ref types.ImageReference, stage *layout.Stage, sys *types.SystemContext, policies *policies) (_ ocispec.Descriptor, err error) {
	var none ocispec.Descriptor
	src, err := ref.NewImageSource(ctx, sys)
	if err != nil {
		return none, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	unparsed := cimage.UnparsedInstance(src, nil)
	policy, err := policies.get()
	if err != nil {
		return none, err
	}
	_, err = policy.IsRunningImageAllowed(ctx, unparsed)
	policies.put(policy)
	if err != nil {
		return none, rejected(err)
	}
	docker, err := cimage.FromUnparsedImage(ctx, sys, unparsed)
	if err != nil {
		return none, err
	}
	converted, err := docker.UpdatedImage(ctx, types.ManifestUpdateOptions{ManifestMIMEType: ocispec.MediaTypeImageManifest})
	if err != nil {
		return none, err
	}
	raw, _, err := converted.Manifest(ctx)
	if err != nil {
		return none, err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return none, err
	}
	if raw, err = converted.ConfigBlob(ctx); err != nil {
		return none, err
	}
	if m.Config, err = stage.AddBytes(ctx, raw, ocispec.MediaTypeImageConfig); err != nil {
		return none, err
	}
	done := map[digest.Digest]ocispec.Descriptor{}
	for i, l := range m.Layers {
		desc, ok := done[l.Digest]
		if !ok {
			if desc, err = importLayer(ctx, src, l.Digest, stage); err != nil {
				return none, fmt.Errorf("layer %s: %w", l.Digest, err)
			}
			done[l.Digest] = desc
		}
		m.Layers[i] = desc
	}
	m.MediaType = ocispec.MediaTypeImageManifest
	if raw, err = layout.EncodeManifest(m); err != nil {
		return none, err
	}
	return stage.AddBytes(ctx, raw, ocispec.MediaTypeImageManifest)
}

// importLayer stages the layer that the config knows by diffID, compressed.
func importLayer(ctx context.Context, src types.ImageSource, diffID digest.Digest, stage *layout.Stage) (_ ocispec.Descriptor, err error) {
	var none ocispec.Descriptor
	r, _, err := src.GetBlob(ctx, types.BlobInfo{Digest: diffID, Size: -1}, nil)
	if err != nil {
		return none, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	l, err := image.StageReader(ctx, stage, r, compress.Gzip)
	if err == nil && l.DiffID != diffID {
		err = fmt.Errorf("%w: its bytes have the digest %s", layout.ErrMismatch, l.DiffID)
	}
	return l.Desc, err
}
