package gardenlinux

import (
	"context"
	"errors"
	"fmt"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/archive"
)

// runtimeOS is what container images are for.
const runtimeOS = "linux"

// stageImage copies the container image in a .oci file, digests and all, and
// returns its index entry: platform linux/{arch} and nothing else, as podman
// makes it. A variant in the config (podman notes v8 for arm64) stays out, or
// a rebuild with another tool would be another platform.
func (f *Flavor) stageImage(ctx context.Context, s *layout.Stage, file File) (desc ocispec.Descriptor, err error) {
	src, err := archive.Open(ctx, file.Path, nil)
	if err != nil {
		return desc, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	if desc, err = f.findImage(ctx, src); err != nil {
		return desc, fmt.Errorf("%s: %w", file.Path, err)
	}
	if err := s.CopyTree(ctx, src, []ocispec.Descriptor{desc}, nil); err != nil {
		return desc, fmt.Errorf("%s: %w", file.Path, err)
	}
	return ocispec.Descriptor{
		MediaType: desc.MediaType,
		Digest:    desc.Digest,
		Size:      desc.Size,
		Platform:  &ocispec.Platform{Architecture: f.Name.Arch, OS: runtimeOS},
	}, nil
}

// findImage returns the one image in src: the one with the flavor's ref name if
// there is such an entry, else the only one. An entry may be an index of images
// for several platforms.
func (f *Flavor) findImage(ctx context.Context, src layout.Source) (ocispec.Descriptor, error) {
	var none ocispec.Descriptor
	x, err := src.Index(ctx)
	if err != nil {
		return none, err
	}
	roots := x.Entries()
	named := slices.DeleteFunc(x.Entries(), func(e ocispec.Descriptor) bool { return layout.RefName(e) != f.Name.RefName() })
	if len(named) > 0 {
		roots = named
	}
	all, err := layout.Select(ctx, src, roots, layout.Selector{})
	if err != nil {
		return none, err
	}
	images := slices.DeleteFunc(all, func(m layout.Match) bool { return !m.Document.IsImage() })
	var fits []layout.Match
	for _, m := range images {
		p, err := configPlatform(ctx, src, m)
		if err != nil {
			return none, err
		}
		if p.OS == runtimeOS && p.Architecture == f.Name.Arch {
			fits = append(fits, m)
		}
	}
	switch {
	case len(images) == 0:
		return none, fmt.Errorf("container image: %w", layout.ErrNotFound)
	case len(images) > 1 && len(fits) != 1:
		return none, &layout.AmbiguousError{What: "container image for " + runtimeOS + "/" + f.Name.Arch, Candidates: images}
	case len(images) > 1 && len(roots) > 1:
		// Two entries side by side, none of which has our name: whose they are is
		// anybody's guess.
		return none, &layout.AmbiguousError{What: "container image " + f.Name.RefName(), Candidates: images}
	case len(fits) == 0:
		p, err := configPlatform(ctx, src, images[0])
		if err != nil {
			return none, err
		}
		return none, f.disagree("platform", layout.FormatPlatform(p), "the image's config", runtimeOS+"/"+f.Name.Arch)
	}
	return fits[0].Desc, f.checkImage(fits[0])
}

// configPlatform returns the platform that an image is made for.
func configPlatform(ctx context.Context, src layout.Source, m layout.Match) (ocispec.Platform, error) {
	// What the entry says of the platform is somebody's opinion; the config is
	// the image.
	desc := m.Desc
	desc.Platform = nil
	p, err := layout.ImagePlatform(ctx, src, desc, m.Document)
	if err != nil {
		return ocispec.Platform{}, err
	}
	if p == nil {
		return ocispec.Platform{}, fmt.Errorf("config %s: %w: no os or architecture", m.Document.Config.Digest, layout.ErrInvalid)
	}
	return *p, nil
}

// checkImage compares what stands beside the image with the flavor.
func (f *Flavor) checkImage(m layout.Match) error {
	if p := m.Desc.Platform; p != nil && (p.OS != runtimeOS || p.Architecture != f.Name.Arch) {
		return f.disagree("platform", layout.FormatPlatform(*p), "the entry of the image", runtimeOS+"/"+f.Name.Arch)
	}
	// Builds write the flavor; podman save writes anything.
	if n, err := ParseName(m.RefName); err == nil && n.Arch != "" && m.RefName != f.Name.RefName() {
		return f.disagree("flavor", m.RefName, "the ref name of the image", f.Name.RefName())
	}
	return nil
}

func (f *Flavor) disagree(what, value, from, other string) error {
	return &DisagreeError{what, value, from, other, "the names of the files"}
}

// CheckRuntime finds flavors whose container image would take the place of that
// of another flavor in x: an index has one entry for linux/{arch}, whatever is
// in it. A new build or version of the same flavor is welcome. The error is
// [layout.ErrConflict] for each. The documents that x names are read from src.
func CheckRuntime(ctx context.Context, src layout.Source, x *layout.Index, flavors []Flavor) error {
	entries := x.Entries()
	var errs []error
	for _, f := range flavors {
		taken := slices.ContainsFunc(entries, func(e ocispec.Descriptor) bool {
			return e.Platform != nil && e.Platform.OS == runtimeOS && e.Platform.Architecture == f.Name.Arch
		})
		if !taken || f.titles(MediaTypeOCI) == nil {
			continue
		}
		for _, e := range entries {
			n := entryName(e.Annotations, e.Platform)
			if n.CName == "" || n.CName == f.Name.CName || n.Arch != f.Name.Arch {
				continue
			}
			has, err := hasImage(ctx, src, e)
			if err != nil {
				return err
			}
			if has {
				errs = append(errs, layout.WithHint(
					fmt.Errorf("%w: the index has the container image of %s for %s/%s, %s has another", layout.ErrConflict, n, runtimeOS, n.Arch, f.Name),
					"add it under another ref name: an index has one image for a platform"))
				break
			}
		}
	}
	return errors.Join(errs...)
}

// hasImage tells whether an artifact manifest has a .oci layer.
func hasImage(ctx context.Context, src layout.Source, entry ocispec.Descriptor) (bool, error) {
	if !layout.IsManifest(entry.MediaType) {
		return false, nil
	}
	doc, err := layout.ReadDocument(ctx, src, entry)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(doc.Layers, func(l ocispec.Descriptor) bool { return l.MediaType == MediaTypeOCI }), nil
}
