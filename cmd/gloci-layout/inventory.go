package main

import (
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/delta"
)

func newInventoryCommand(e *env) *cli.Command {
	var from sourceFlags
	var out string
	return &cli.Command{
		Name: "inventory", Usage: "list what a source holds, for pack --base", ArgsUsage: "SOURCE",
		Description: "Writes digests and sizes of all blobs that index.json of SOURCE reaches, and of index.json itself, as one JSON document, and nothing else: " +
			"so it may leave a place that the content may not leave, and pack --base takes it for the content. " +
			"The same content gives the same bytes. Of a registry only manifests are read.\n\n" +
			"A delta is listed as the whole that it makes, also without its base.\n\n" + sourceHelp,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write to `FILE` in place of stdout", Destination: &out},
		}, from.flags()...),
		Action: func(c *cli.Context) error {
			return from.with(c, e, c.Args().First(), func(src layout.Source, ref layout.Reference) error {
				if (ref.RefName != "" || ref.Digest != "") && ref.Transport != "docker" {
					return usagef(c, "inventory takes all of a source; leave out the ref name")
				}
				return runInventory(c, e, src, out)
			})
		},
	}
}

type inventoryResult struct {
	File  string `json:"file" doc:"the file"`
	Blobs int    `json:"blobs" doc:"how many blobs are listed"`
	Bytes int64  `json:"bytes" doc:"their size"`
}

func runInventory(c *cli.Context, e *env, src layout.Source, out string) error {
	v, err := delta.Take(c.Context, src)
	if err != nil {
		return err
	}
	if out == "" || out == "-" {
		_, err := e.stdout.Write(v.Bytes())
		return err
	}
	if err := writeFile(out, v.Bytes()); err != nil {
		return err
	}
	r := inventoryResult{File: out, Blobs: len(v.Blobs)}
	for _, info := range v.Blobs {
		r.Bytes += info.Size
	}
	return e.confirm(r, "listed %s: %s, %s", out, plural(r.Blobs, "blob"), size(r.Bytes))
}
