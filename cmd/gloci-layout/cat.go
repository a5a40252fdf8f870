package main

import (
	"fmt"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
)

func newCatCommand(e *env) *cli.Command {
	var from sourceFlags
	return &cli.Command{
		Name: "cat", Usage: "print a blob", ArgsUsage: "SOURCE@DIGEST",
		Description: "Prints the exact bytes of any blob that the source has, named by index.json or not. " +
			"They are verified while they are printed: exit status 5 says at the end that they are not what the digest promises.\n\n" +
			"With a ref name and no digest, prints what the ref name names.\n\n" + sourceHelp,
		Flags: from.flags(),
		Action: func(c *cli.Context) error {
			return from.with(c, e, c.Args().First(), func(src layout.Source, ref layout.Reference) error {
				return runCat(c, e, src, ref)
			})
		},
	}
}

func runCat(c *cli.Context, e *env, src layout.Source, ref layout.Reference) (err error) {
	var desc ocispec.Descriptor
	switch {
	case ref.Digest != "":
		info, err := src.Stat(c.Context, ref.Digest)
		if err != nil {
			return err
		}
		desc = ocispec.Descriptor{Digest: info.Digest, Size: info.Size, MediaType: "application/octet-stream"}
	case ref.RefName != "":
		if desc, err = layout.ResolveOne(c.Context, src, ref.RefName, ""); err != nil {
			return err
		}
	default:
		return usagef(c, "name a blob: %s@DIGEST", ref.Location)
	}
	rc, err := src.Blob(c.Context, desc)
	if err != nil {
		return err
	}
	defer closeWith(&err, rc.Close)
	if _, err := io.Copy(e.stdout, rc); err != nil {
		return fmt.Errorf("print %s: %w", desc.Digest, err)
	}
	return nil
}
