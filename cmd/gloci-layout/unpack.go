package main

import (
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/archive"
)

func newUnpackCommand(e *env) *cli.Command {
	var from sourceFlags
	return &cli.Command{
		Name: "unpack", Usage: "make a layout of an .oci file", ArgsUsage: "FILE.oci LAYOUT",
		Description: "LAYOUT is a directory that is empty or does not exist. Every byte is verified; " +
			"an archive with anything wrong leaves no layout. Use add image to add to a layout that exists.\n\n" +
			"A delta of pack --base is put together with the SOURCE of --base, or with LAYOUT itself: " +
			"that may then be the layout that was the base, and becomes what was packed. " +
			"A base that lacks something is refused before anything is changed, with the list of what it lacks (exit status 3); " +
			"a LAYOUT with entries that neither the base nor the delta had is, too (exit status 6): merge adds to it. " +
			"What only the old state has is left for gc.\n\n" +
			"Any other source will do in place of FILE.oci. " + sourceHelp,
		Flags: from.flags(),
		Action: func(c *cli.Context) error {
			return from.with(c, e, c.Args().First(), func(src layout.Source, ref layout.Reference) error {
				if ref.RefName != "" || ref.Digest != "" {
					err := usagef(c, "unpack takes all of an archive")
					return layout.WithHint(err, "gloci-layout add image takes what a ref name names")
				}
				return runUnpack(c, e, src, layoutPath(c.Args().Get(1)))
			})
		},
	}
}

func runUnpack(c *cli.Context, e *env, src layout.Source, dir string) error {
	p := e.startProgress("unpack", false)
	err := archive.Unpack(c.Context, src, dir, &archive.UnpackOptions{Progress: p.event})
	p.stop()
	if err != nil {
		return err
	}
	return e.confirm(initResult{Layout: dir}, "unpacked %s", dir)
}
