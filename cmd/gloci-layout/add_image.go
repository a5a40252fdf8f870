package main

import (
	"context"
	"fmt"
	"maps"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
)

func newAddImageCommand(e *env) *cli.Command {
	var opts addImageOptions
	opts.from.ownBase = true
	return &cli.Command{
		Name: "image", Usage: "add images or artifacts of other sources, or make an image of a root file system", ArgsUsage: "LAYOUT [SOURCE...]",
		Description: "Copies what each SOURCE names, with all that belongs to it and all that refers to it, such as signatures and SBOMs, unless --no-referrers; " +
			"every byte and digest stays as it is. " +
			"A SOURCE without ref name or digest has to name exactly one thing, unless --all says otherwise.\n\n" +
			"It is stored under the ref name that it has there, or under that of --ref. " +
			"A ref name that names something else is moved, unless it names an index whose entries " +
			"would no longer be named: that is refused with exit status 6.\n\n" +
			"With --into it becomes an entry of the index that INDEXREF names, in place of the entry for the same platform; " +
			"the index is made if it is absent. An image index gives it all its entries. " +
			"Then it has a ref name of its own only with --ref.\n\n" + rootfsHelp + "\n\n" + sourceHelp,
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{Name: "ref", Usage: "store it under the ref name `NAME`", Destination: &opts.ref},
			&cli.StringFlag{Name: "into", Usage: "make it an entry of the index `INDEXREF`", Destination: &opts.into},
			&cli.StringFlag{Name: "platform", Usage: "the `PLATFORM` of that entry, of the wanted entry of an index, or of a new image; else the image says it", Destination: &opts.platform},
			&cli.BoolFlag{Name: "all", Usage: "add all that the source names", Destination: &opts.all},
			&cli.BoolFlag{Name: "no-referrers", Usage: "leave out what refers to the images and to what they name", Destination: &opts.noReferrers},
			replaceFlag(&opts.replace),
		}, opts.build.flags(), opts.from.flags()),
		Action: func(c *cli.Context) error { return runAddImage(c, e, &opts) },
	}
}

type addImageOptions struct {
	ref, into, platform string
	all, replace        bool
	noReferrers         bool
	from                sourceFlags
	build               buildOptions
}

func runAddImage(c *cli.Context, e *env, opts *addImageOptions) error {
	var platform *ocispec.Platform
	var err error
	if opts.platform != "" {
		if opts.into == "" && !opts.build.wanted(c) {
			return usagef(c, "--platform goes with --into")
		}
		if platform, err = layout.ParsePlatform(opts.platform); err != nil {
			return usagef(c, "%v", err)
		}
	}
	for _, name := range []string{opts.ref, opts.into} {
		if name != "" {
			if err := checkRefNames(c, []string{name}); err != nil {
				return err
			}
		}
	}
	if opts.build.wanted(c) {
		return runBuildImage(c, e, opts, platform)
	}
	if err := opts.build.checkUnused(c); err != nil {
		return err
	}
	if c.NArg() < 2 {
		return usagef(c, "SOURCE is missing, or --rootfs, --layer or --base")
	}
	ctx := c.Context
	var changes []changeResult
	err = e.stage(ctx, layoutPath(c.Args().First()), func(s *layout.Stage) error {
		var descs, referrers []ocispec.Descriptor
		opts.from.impliesBase(s)
		for _, operand := range c.Args().Tail() {
			err := opts.from.with(c, e, operand, func(src layout.Source, ref layout.Reference) error {
				found, along, err := copyFrom(ctx, e, s, src, ref, opts)
				descs, referrers = append(descs, found...), append(referrers, along...)
				return err
			})
			if err != nil {
				return err
			}
		}
		if opts.ref != "" && len(descs) != 1 {
			return usagef(c, "--ref names one thing, and the sources have %d", len(descs))
		}
		return s.Update(ctx, func(tx *layout.Tx) error {
			if changes, err = putAll(ctx, tx, descs, opts, platform); err != nil {
				return err
			}
			put, err := putReferrers(ctx, tx, referrers)
			changes = append(changes, put...)
			return err
		})
	})
	if err != nil {
		return err
	}
	return e.confirmChanges(changes)
}

// copyFrom stages what ref names of src, and what refers to it.
func copyFrom(ctx context.Context, e *env, s *layout.Stage, src layout.Source, ref layout.Reference, opts *addImageOptions) (descs, along []ocispec.Descriptor, err error) {
	if opts.all {
		descs, err = layout.Resolve(ctx, src, ref.RefName, ref.Digest)
	} else {
		var desc ocispec.Descriptor
		desc, err = layout.ResolveOne(ctx, src, ref.RefName, ref.Digest)
		descs = []ocispec.Descriptor{desc}
	}
	if err != nil {
		return nil, nil, err
	}
	if !opts.noReferrers {
		referrers, err := layout.ReferrersBelow(ctx, src, descs)
		if err != nil {
			return nil, nil, err
		}
		for _, r := range referrers {
			along = append(along, r.Desc)
		}
	}
	p := e.startProgress("copy", false)
	defer p.stop()
	return descs, along, s.CopyTree(ctx, src, slices.Concat(descs, along), &layout.CopyOptions{Progress: p.event})
}

// putReferrers gives referrers their entries.
func putReferrers(ctx context.Context, tx *layout.Tx, referrers []ocispec.Descriptor) ([]changeResult, error) {
	var changes []changeResult
	for _, desc := range referrers {
		if name := layout.RefName(desc); name == "" {
			addUnnamed(tx.Index(), desc)
		} else if err := setRef(ctx, tx, name, desc, false); err != nil {
			return nil, err
		}
		changes = append(changes, newChange("added", desc))
	}
	return changes, nil
}

func putAll(ctx context.Context, tx *layout.Tx, descs []ocispec.Descriptor, opts *addImageOptions, platform *ocispec.Platform) ([]changeResult, error) {
	var changes []changeResult
	taken := map[string]ocispec.Descriptor{}
	for _, desc := range descs {
		name := layout.RefName(desc)
		if opts.into != "" {
			name = ""
		}
		if opts.ref != "" {
			name = opts.ref
		}
		if name != "" {
			if err := layout.ValidateRefName(name); err != nil {
				return nil, layout.WithHint(err, "--ref gives it another one")
			}
			if other, ok := taken[name]; ok && other.Digest != desc.Digest {
				return nil, fmt.Errorf("ref name %q is that of %s and of %s: %w", name, other.Digest, desc.Digest, layout.ErrConflict)
			}
			taken[name] = desc
			if err := setRef(ctx, tx, name, desc, opts.replace); err != nil {
				return nil, err
			}
		} else if opts.into == "" {
			addUnnamed(tx.Index(), desc)
		}
		if opts.into == "" || name != "" {
			change := newChange("added", desc)
			change.RefName = name
			changes = append(changes, change)
		}
		if opts.into != "" {
			put, err := putInto(ctx, tx, opts.into, desc, platform)
			if err != nil {
				return nil, err
			}
			changes = append(changes, put...)
		}
	}
	return changes, nil
}

// addUnnamed adds an entry without ref name, unless its content has an entry.
func addUnnamed(x *layout.Index, desc ocispec.Descriptor) {
	for _, old := range x.Entries() {
		if old.Digest == desc.Digest {
			return
		}
	}
	x.Add(desc)
	x.Sort()
}

// putInto makes desc, or the entries of the index that it is, entries of the
// index into.
func putInto(ctx context.Context, tx *layout.Tx, into string, desc ocispec.Descriptor, platform *ocispec.Platform) ([]changeResult, error) {
	entries, err := platformEntries(ctx, tx.Source(), desc, platform)
	if err != nil {
		return nil, err
	}
	var changes []changeResult
	_, err = tx.EditIndex(ctx, into, true, func(x *layout.Index) error {
		for _, entry := range entries {
			x.PutEntry(entry)
			change := newChange("added", entry)
			change.Into = into
			changes = append(changes, change)
		}
		return nil
	})
	return changes, err
}

func platformEntries(ctx context.Context, src layout.Source, desc ocispec.Descriptor, platform *ocispec.Platform) ([]ocispec.Descriptor, error) {
	// What an entry of index.json is called is nothing to an image index.
	desc.Annotations = maps.Clone(desc.Annotations)
	delete(desc.Annotations, ocispec.AnnotationRefName)
	switch {
	case !layout.IsIndex(desc.MediaType):
		entry, err := platformEntry(ctx, src, desc, platform)
		return []ocispec.Descriptor{entry}, err
	case platform != nil:
		m, err := layout.SelectOne(ctx, src, []ocispec.Descriptor{desc}, layout.Selector{Platform: platform})
		if err != nil {
			return nil, err
		}
		m.Desc.Platform = platform
		return []ocispec.Descriptor{m.Desc}, nil
	}
	doc, err := layout.ReadDocument(ctx, src, desc)
	if err != nil {
		return nil, err
	}
	entries := doc.Manifests
	for i, entry := range entries {
		if !layout.IsManifest(entry.MediaType) || entry.Platform != nil {
			continue
		}
		if entries[i], err = platformEntry(ctx, src, entry, nil); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// platformEntry gives desc, which is no index, its platform: the given one, else
// that of the image.
func platformEntry(ctx context.Context, src layout.Source, desc ocispec.Descriptor, platform *ocispec.Platform) (ocispec.Descriptor, error) {
	doc, err := layout.ReadDocument(ctx, src, desc)
	if err != nil {
		return desc, err
	}
	if platform != nil {
		desc.Platform = platform
	} else if desc.Platform, err = layout.ImagePlatform(ctx, src, desc, doc); err != nil {
		return desc, err
	}
	if desc.Platform == nil && doc.IsImage() {
		err := fmt.Errorf("image %s does not say for which platform it is: %w", desc.Digest, layout.ErrNotFound)
		return desc, layout.WithHint(err, "say it with --platform")
	}
	if !doc.IsImage() {
		desc.ArtifactType = doc.ArtifactType
		if desc.Platform == nil {
			desc.Platform = noPlatform()
		}
	}
	return desc, nil
}

// noPlatform is that of an artifact which is for none. An entry without any is
// what clients take that find no other.
func noPlatform() *ocispec.Platform { return &ocispec.Platform{OS: "unknown", Architecture: "unknown"} }
