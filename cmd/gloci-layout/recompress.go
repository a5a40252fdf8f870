package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/recompress"
)

func newRecompressCommand(e *env) *cli.Command {
	var opts recompressOptions
	return &cli.Command{
		Name: "recompress", Usage: "compress layers in another way", ArgsUsage: "LAYOUT [REF]",
		Description: "The layers of the manifest that REF, @DIGEST or REF@DIGEST names, or the one below it that the flags select, get the compression of --to; " +
			"with --all the layers of all manifests that fit, without REF of all the layout. Layers are archives by their media types, of images and of artifacts. " +
			"Their content stays, and is checked against the diffIDs of the image on the way; digest and media type change, and what describes the compressed bytes is dropped. " +
			"A layer that has the compression already is kept, unless --level is given.\n\n" +
			"What readers could not read any more is kept as it is, and with the reason: media types that name the compression of a file, as those of Garden Linux do, titles that name it, " +
			"layers for flux and helm and those that oras unpacks, layers with URLs (docs/format.md). If nothing else was asked for, that is a conflict (exit status 6). " +
			"A manifest of Docker takes no zstd; --oci-types makes one of OCI of it, and indexes of the lists that name it.\n\n" +
			"The same layer, compression and level give the same bytes, on any machine.\n\n" + editHelp,
		Flags: append(append([]cli.Flag{
			&cli.StringFlag{Name: "to", Usage: "compress as `FORMAT` zstd, gzip or none", Destination: &opts.to},
			&cli.IntFlag{Name: "level", Usage: "compress at `LEVEL`: gzip 1 to 9, zstd 1 to 22; 0 means the usual one", Destination: &opts.run.Level},
			&cli.BoolFlag{Name: "all", Usage: "all manifests that fit, not exactly one", Destination: &opts.all},
			&cli.BoolFlag{Name: "oci-types", Usage: "make manifests of Docker manifests of OCI", Destination: &opts.run.OCITypes},
			&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be done; sizes are estimates from the first 32 MiB of each layer", Destination: &opts.dryRun},
			moveReferrersFlag(&opts.run.MoveReferrers),
		}, opts.sel.flags()...), opts.layers.flags()...),
		Action: func(c *cli.Context) error { return runRecompress(c, e, &opts) },
	}
}

type recompressOptions struct {
	to          string
	all, dryRun bool
	run         recompress.Options
	sel         selectFlags
	layers      layerFlags
}

type recompressResult struct {
	Action    string        `json:"action" doc:"recompressed, kept, or with --dry-run would-recompress"`
	Manifest  digest.Digest `json:"manifest" doc:"the digest of the manifest, before"`
	Layer     int           `json:"layer" doc:"the number of the layer, from 0"`
	Old       digest.Digest `json:"old" doc:"the digest of the layer, before"`
	OldType   string        `json:"oldMediaType" doc:"its media type, before"`
	OldSize   int64         `json:"oldSize" doc:"its size in bytes, before"`
	Digest    digest.Digest `json:"digest,omitempty" doc:"its digest; absent with --dry-run"`
	MediaType string        `json:"mediaType" doc:"its media type"`
	Size      int64         `json:"size" doc:"its size in bytes; with --dry-run an estimate"`
	Reason    string        `json:"reason,omitempty" doc:"why it was kept"`
	Rule      string        `json:"rule,omitempty" doc:"the rule that says so: foreign, named, titled, flux, helm or oras"`
	Dropped   []string      `json:"dropped,omitempty" doc:"annotations that described the compressed bytes, and are gone"`
}

type recompressSummary struct {
	Action  string `json:"action" doc:"summary"`
	DryRun  bool   `json:"dryRun" doc:"nothing was done"`
	Layers  int    `json:"layers" doc:"blobs that were, or would be, compressed anew; layers with one digest count once"`
	Kept    int    `json:"kept" doc:"layers that were kept as they are"`
	OldSize int64  `json:"oldSize" doc:"the size of these blobs in bytes, before"`
	Size    int64  `json:"size" doc:"their size in bytes after; with --dry-run an estimate"`
}

func runRecompress(c *cli.Context, e *env, opts *recompressOptions) error {
	ctx := c.Context
	if opts.to == "" {
		return usagef(c, "--to is missing: zstd, gzip or none")
	}
	var err error
	if opts.run.Format, err = compress.ParseFormat(opts.to); err != nil {
		return usagef(c, "--to: %v", err)
	}
	if err := checkLevel(c, opts.run.Format, opts.run.Level); err != nil {
		return err
	}
	if opts.run.Layers, err = opts.layers.selector(c); err != nil {
		return err
	}
	if opts.run.Layers.Config {
		return usagef(c, "--config: a config is not compressed")
	}
	t, err := opts.sel.target(c, c.Args().Get(1))
	if err != nil {
		return err
	}
	choose := t.one
	if opts.all {
		choose = t.all
	}
	dir := layoutPath(c.Args().First())
	if opts.dryRun {
		l, err := e.openLayout(ctx, dir)
		if err != nil {
			return err
		}
		defer l.Close() //nolint:errcheck // only read
		r, err := recompress.Estimate(ctx, l, choose, opts.run)
		if err != nil {
			return err
		}
		if err := opts.refused(r); err != nil {
			return err
		}
		return e.confirmRecompress(r, true)
	}
	p := e.startProgress("recompress", false)
	opts.run.Progress = p.event
	var edits []editResult
	var r *recompress.Result
	err = e.stage(ctx, dir, func(s *layout.Stage) error {
		r, err = recompress.Run(ctx, s, choose, opts.run, func(tx *layout.Tx, r *recompress.Result) error {
			edits = newEditResults(tx, &r.Edit)
			return opts.refused(r)
		})
		return err
	})
	p.stop()
	if err != nil {
		return err
	}
	if err := e.confirmRecompress(r, false); err != nil {
		return err
	}
	return e.confirmEdit(edits)
}

// checkLevel refuses a level that the format has not.
func checkLevel(c *cli.Context, f compress.Format, level int) error {
	switch {
	case level != 0 && f == compress.None:
		return usagef(c, "--level %d without compression", level)
	case level < 0, f == compress.Gzip && level > 9, f == compress.Zstd && level > 22:
		return usagef(c, "--level %d: gzip has 1 to 9, zstd 1 to 22", level)
	}
	return nil
}

// refused is what to say where rules keep all that was asked for.
func (opts *recompressOptions) refused(r *recompress.Result) error {
	if opts.all || r.Changed() > 0 {
		return nil
	}
	if len(r.Layers) == 0 {
		err := fmt.Errorf("no layer that was chosen is an archive by its media type: %w", layout.ErrNotFound)
		return layout.WithHint(err, "gloci-layout inspect lists the layers")
	}
	for _, l := range r.Layers {
		if l.Rule != "" {
			err := fmt.Errorf("layer %d, %s, a %s: %s: %w", l.Number, l.Old.Digest, l.Old.MediaType, l.Kept, layout.ErrConflict)
			return layout.WithHint(err, "compress the whole file that it travels in: gloci-layout pack SOURCE FILE.oci.zst")
		}
	}
	return nil
}

// one chooses exactly one manifest.
func (t manifestTarget) one(ctx context.Context, src layout.Source) ([]layout.Match, error) {
	m, err := t.manifest(ctx, src)
	if err != nil {
		return nil, err
	}
	return []layout.Match{m}, nil
}

// all chooses what fits, and at least one.
func (t manifestTarget) all(ctx context.Context, src layout.Source) ([]layout.Match, error) {
	roots, err := layout.Resolve(ctx, src, t.refName, t.digest)
	if err != nil {
		return nil, err
	}
	matches, err := layout.Select(ctx, src, roots, t.sel)
	if err == nil && len(matches) == 0 && t.given {
		err = fmt.Errorf("%s: %s: %w", src, t.sel, layout.ErrNotFound)
	}
	return matches, err
}

func (e *env) confirmRecompress(r *recompress.Result, dryRun bool) error {
	sum := recompressSummary{Action: "summary", DryRun: dryRun}
	seen := map[digest.Digest]bool{}
	for _, l := range r.Layers {
		res := recompressResult{
			Action: "recompressed", Manifest: l.Manifest, Layer: l.Number,
			Old: l.Old.Digest, OldType: l.Old.MediaType, OldSize: l.Old.Size,
			Digest: l.New.Digest, MediaType: l.New.MediaType, Size: l.New.Size,
			Reason: l.Kept, Rule: l.Rule, Dropped: l.Dropped,
		}
		text := fmt.Sprintf("layer %s -> %s  %s -> %s", l.Old.Digest, l.New.Digest, size(l.Old.Size), size(l.New.Size))
		switch {
		case l.Kept != "":
			res.Action = "kept"
			text = fmt.Sprintf("layer %s: %s", l.Old.Digest, l.Kept)
			sum.Kept++
		case dryRun:
			res.Action = "would-recompress"
			text = fmt.Sprintf("layer %s  %s -> about %s", l.Old.Digest, size(l.Old.Size), size(l.New.Size))
		}
		if len(l.Dropped) > 0 {
			text += "  without " + strings.Join(l.Dropped, ", ")
		}
		if l.Kept == "" && !seen[l.Old.Digest] {
			seen[l.Old.Digest] = true
			sum.Layers++
			sum.OldSize += l.Old.Size
			sum.Size += l.New.Size
		}
		if err := e.confirm(res, "%s %s", strings.ReplaceAll(res.Action, "-", " "), text); err != nil {
			return err
		}
	}
	verb, about := "recompressed", ""
	if dryRun {
		verb, about = "would recompress", "about "
	}
	if sum.Layers == 0 {
		return e.confirm(sum, "nothing to do, %s kept", plural(sum.Kept, "layer"))
	}
	return e.confirm(sum, "%s %s, %s -> %s%s (%.0f %%)", verb, plural(sum.Layers, "layer"), size(sum.OldSize), about, size(sum.Size), percent(sum.Size, sum.OldSize))
}

func percent(n, of int64) float64 {
	if of == 0 {
		return 100
	}
	return 100 * float64(n) / float64(of)
}
