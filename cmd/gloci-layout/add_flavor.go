package main

import (
	"errors"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/gardenlinux"
)

func newAddFlavorCommand(e *env) *cli.Command {
	var opts addFlavorOptions
	return &cli.Command{
		Name: "flavor", Usage: "add the output of Garden Linux builds", ArgsUsage: "LAYOUT DIR...",
		Description: "Each DIR is a build directory with files {cname}-{arch}-{version}-{commit}.*, of one flavour or of many. " +
			"Each flavour becomes one artifact manifest, whose layers are the files, and an entry of the index that --ref names, " +
			"which is made if it is absent. A .oci file becomes the runtime image linux/{arch} beside it.\n\n" +
			"An entry is replaced by one of the same flavour, architecture and version; all others stay.\n\n" +
			"{base}.artifacts is the list of files where it is present. " +
			"Files of the build that do not agree with each other or with the flags are an error.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "ref", Usage: "the ref name of the index, in general the `VERSION`", Destination: &opts.ref},
			&cli.StringFlag{Name: "unknown-suffix", Usage: "what to do with files that have no media type: `POLICY` error, octet-stream or skip", Value: "octet-stream", Destination: &opts.unknown},
			&cli.StringSliceFlag{Name: "require", Usage: "fail if a flavour has no layer with this `SUFFIX`, title or media type"},
			&cli.BoolFlag{Name: "no-default-require", Usage: "do not require what flavours of a kind have in general", Destination: &opts.build.NoDefaultRequire},
			&cli.StringFlag{Name: "cname", Usage: "the `CNAME` that the flavours must have", Destination: &opts.build.Want.CName},
			&cli.StringFlag{Name: "arch", Usage: "the `ARCH` that the flavours must have", Destination: &opts.build.Want.Arch},
			&cli.StringFlag{Name: "version", Usage: "the `VERSION` that the flavours must have", Destination: &opts.build.Want.Version},
			&cli.StringFlag{Name: "commit", Usage: "the `COMMIT` that the flavours must have", Destination: &opts.build.Want.Commit},
		},
		Action: func(c *cli.Context) error { return runAddFlavor(c, e, &opts) },
	}
}

type addFlavorOptions struct {
	ref, unknown string
	build        gardenlinux.BuildOptions
}

func runAddFlavor(c *cli.Context, e *env, opts *addFlavorOptions) error {
	if opts.ref == "" {
		return usagef(c, "--ref VERSION is missing")
	}
	if err := checkRefNames(c, []string{opts.ref}); err != nil {
		return err
	}
	var err error
	if opts.build.Unknown, err = gardenlinux.ParseUnknownPolicy(opts.unknown); err != nil {
		return usagef(c, "--unknown-suffix: %v", err)
	}
	opts.build.Require = c.StringSlice("require")
	opts.build.Logger = e.log

	ctx := c.Context
	var changes []changeResult
	// The layout first: it costs nothing to look, and a build directory does.
	err = e.stage(ctx, layoutPath(c.Args().First()), func(s *layout.Stage) error {
		flavors, err := readBuilds(c.Args().Tail(), opts.build)
		if err != nil {
			return err
		}
		staged, err := gardenlinux.StageAll(ctx, s, flavors)
		if err != nil {
			return err
		}
		var entries []ocispec.Descriptor
		for _, f := range staged {
			entries = append(append(entries, f.Entry), f.Runtime...)
		}
		return s.Update(ctx, func(tx *layout.Tx) error {
			changes, err = putEntries(c, tx, opts.ref, entries, flavors)
			return err
		})
	})
	if err != nil {
		return err
	}
	return e.confirmChanges(changes)
}

func readBuilds(dirs []string, opts gardenlinux.BuildOptions) ([]gardenlinux.Flavor, error) {
	var flavors []gardenlinux.Flavor
	var errs []error
	for _, dir := range dirs {
		found, err := gardenlinux.ReadBuild(dir, opts)
		flavors, errs = append(flavors, found...), append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		if errors.Is(err, gardenlinux.ErrSuffix) {
			err = layout.WithHint(err, "--unknown-suffix octet-stream takes them as they are, skip leaves them out")
		} else if errors.Is(err, gardenlinux.ErrMissing) {
			err = layout.WithHint(err, "--no-default-require takes the build as it is")
		}
		return nil, err
	}
	return flavors, gardenlinux.Check(flavors)
}

// putEntries makes entries of the index ref; flavors are what they were made of,
// if they are of Garden Linux.
func putEntries(c *cli.Context, tx *layout.Tx, ref string, entries []ocispec.Descriptor, flavors []gardenlinux.Flavor) ([]changeResult, error) {
	var changes []changeResult
	_, err := tx.EditIndex(c.Context, ref, true, func(x *layout.Index) error {
		if err := gardenlinux.CheckRuntime(c.Context, tx.Source(), x, flavors); err != nil {
			return err
		}
		for _, entry := range entries {
			x.PutEntry(entry)
			change := newChange("added", entry)
			change.Into = ref
			changes = append(changes, change)
		}
		return nil
	})
	return changes, err
}
