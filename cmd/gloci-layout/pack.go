package main

import (
	"context"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/archive"
)

func newPackCommand(e *env) *cli.Command {
	var opts packOptions
	return &cli.Command{
		Name: "pack", Usage: "write a layout to one file", ArgsUsage: "SOURCE FILE.oci",
		Description: "FILE.oci is a tar with index.json, oci-layout and all content that index.json reaches; - is stdout. " +
			"With SOURCE:REFNAME only what that ref name names, and what refers to that or to what it names: signatures, attestations, SBOMs. A name that ends in .gz or .zst is compressed so.\n\n" +
			"The same content gives the same bytes: times are those of SOURCE_DATE_EPOCH, else 1970. " +
			"FILE.oci appears whole or not at all.\n\n" + sourceHelp,
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "all", Usage: "pack blobs that nothing names too", Destination: &opts.all},
			&cli.BoolFlag{Name: "no-referrers", Usage: "leave out what refers to SOURCE:REFNAME and what it names", Destination: &opts.noReferrers},
			&cli.BoolFlag{Name: "sparse", Usage: "pack indexes with members that SOURCE lacks, as pull --sparse leaves them", Destination: &opts.sparse},
			&cli.StringFlag{Name: "compress", Usage: "compress as `FORMAT` none, gzip or zstd", Destination: &opts.compress},
			&cli.IntFlag{Name: "level", Usage: "compress at `LEVEL`: gzip 1 to 9, zstd 1 to 22; 0 means the usual one", Destination: &opts.level},
		}, opts.from.flags()...),
		Action: func(c *cli.Context) error { return runPack(c, e, &opts) },
	}
}

type packOptions struct {
	all, noReferrers bool
	sparse           bool
	compress         string
	level            int
	from             sourceFlags
}

type packResult struct {
	File   string        `json:"file" doc:"the file"`
	Digest digest.Digest `json:"digest" doc:"the digest of the file"`
	Size   int64         `json:"size" doc:"its size in bytes"`
}

func runPack(c *cli.Context, e *env, opts *packOptions) error {
	file := c.Args().Get(1)
	po := archive.PackOptions{All: opts.all, NoReferrers: opts.noReferrers, Sparse: opts.sparse, Level: opts.level, Compression: compress.FormatOfName(file)}
	var err error
	if opts.compress != "" {
		if po.Compression, err = compress.ParseFormat(opts.compress); err != nil {
			return usagef(c, "--compress: %v", err)
		}
		if byName := compress.FormatOfName(file); byName != compress.None && byName != po.Compression {
			return usagef(c, "--compress %s, but %s is a name for %s", opts.compress, file, byName)
		}
	}
	if po.Level != 0 && po.Compression == compress.None {
		return usagef(c, "--level %d without compression", po.Level)
	}
	if po.Time, err = sourceDateEpoch(c); err != nil {
		return err
	}
	if file == "-" && terminal(e.stdout) != nil {
		err := usagef(c, "an archive is not written to a terminal")
		return layout.WithHint(err, "redirect stdout, or name a file")
	}
	return opts.from.with(c, e, c.Args().First(), func(src layout.Source, ref layout.Reference) error {
		if ref.Digest != "" {
			return usagef(c, "%s: pack takes ref names, no digests; give the content one with gloci-layout tag", ref)
		}
		if ref.RefName != "" {
			po.RefNames = []string{ref.RefName}
		}
		return pack(c.Context, e, src, file, po)
	})
}

func pack(ctx context.Context, e *env, src layout.Source, file string, po archive.PackOptions) error {
	p := e.startProgress("pack", false)
	po.Progress = p.event
	if file == "-" {
		err := archive.Pack(ctx, src, e.stdout, &po)
		p.stop()
		return err
	}
	info, err := archive.PackFile(ctx, src, file, &po)
	p.stop()
	if err != nil {
		return err
	}
	return e.confirm(packResult{File: file, Digest: info.Digest, Size: info.Size}, "packed %s %s %s", file, info.Digest, size(info.Size))
}
