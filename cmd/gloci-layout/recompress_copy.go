package main

import (
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/recompress"
)

// toFlags recompress the layers of a source on the way.
type toFlags struct{ zstd, gzip, ociTypes bool }

func (t *toFlags) flags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "to-zstd", Usage: "compress layers with zstd on the way, as recompress does; SOURCE stays as it is", Destination: &t.zstd},
		&cli.BoolFlag{Name: "to-gzip", Usage: "compress layers with gzip on the way, as recompress does; SOURCE stays as it is", Destination: &t.gzip},
		&cli.BoolFlag{Name: "oci-types", Usage: "with --to-zstd or --to-gzip: make manifests of Docker manifests of OCI", Destination: &t.ociTypes},
	}
}

// with calls fn with src, or with a copy of the part of it that what says, whose
// layers are recompressed.
func (t *toFlags) with(c *cli.Context, e *env, src layout.Source, what recompress.CopyOptions, fn func(src layout.Source) error) (err error) {
	opts := recompress.Options{Format: compress.Zstd, OCITypes: t.ociTypes}
	switch {
	case t.zstd && t.gzip:
		return usagef(c, "--to-zstd and --to-gzip exclude each other")
	case t.gzip:
		opts.Format = compress.Gzip
	case !t.zstd && t.ociTypes:
		return usagef(c, "--oci-types goes with --to-zstd or --to-gzip")
	case !t.zstd:
		return fn(src)
	}
	p := e.startProgress("recompress", false)
	opts.Progress = p.event
	changed, err := recompress.NewCopy(c.Context, src, &what, opts)
	p.stop()
	if err != nil {
		return err
	}
	defer closeWith(&err, changed.Close)
	if n := len(changed.Result.Edit.Moved); n > 0 {
		e.log.Warn("signatures over what was recompressed do not hold for the copy: sign anew", "moved", n)
	}
	return fn(changed)
}
