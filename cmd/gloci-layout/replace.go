package main

import (
	"cmp"
	"context"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
)

func newReplaceCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "replace", Usage: "replace a layer or the config of a manifest",
		Subcommands: []*cli.Command{newReplaceLayerCommand(e)},
	}
}

func newReplaceLayerCommand(e *env) *cli.Command {
	var opts replaceLayerOptions
	return &cli.Command{
		Name: "layer", Usage: "put a file in the place of a layer", ArgsUsage: "LAYOUT REF FILE[:MEDIATYPE]",
		Description: "Of the manifest that REF, @DIGEST or REF@DIGEST names, or the one below it that the flags select, " +
			"FILE takes the place of the one layer that --layer, --media-type, --title or --layer-annotation select, or with --config that of the config. " +
			"It keeps the title, the other annotations and, without MEDIATYPE, the media type of the layer. " +
			"The config of a container image follows.\n\n" + editHelp,
		Flags: append(append([]cli.Flag{
			&cli.StringSliceFlag{Name: "set-annotation", Usage: "give the layer the annotation `KEY=VALUE`"},
			moveReferrersFlag(&opts.move),
		}, opts.sel.flags()...), opts.layers.flags()...),
		Action: func(c *cli.Context) error { return runReplaceLayer(c, e, &opts) },
	}
}

type replaceLayerOptions struct {
	move   bool
	sel    selectFlags
	layers layerFlags
}

func runReplaceLayer(c *cli.Context, e *env, opts *replaceLayerOptions) error {
	ctx := c.Context
	t, err := opts.sel.target(c, c.Args().Get(1))
	if err != nil {
		return err
	}
	sel, err := opts.layers.selector(c)
	if err != nil {
		return err
	}
	set, err := annotations(c, "set-annotation")
	if err != nil {
		return err
	}
	if sel.Config && set != nil {
		return usagef(c, "--set-annotation is for layers; annotate --config is for the config")
	}
	r := layerReplacement{env: e, file: splitMediaType(c.Args().Get(2)), sel: sel, set: set}
	var results []editResult
	err = e.stage(ctx, layoutPath(c.Args().First()), func(s *layout.Stage) error {
		r.stage = s
		m, err := t.manifest(ctx, s)
		if err != nil {
			return err
		}
		if err := r.prepare(ctx, m); err != nil {
			return err
		}
		results, err = t.editManifest(ctx, s, opts.move, func(m layout.Match, x *layout.Manifest) error { return r.edit(ctx, m, x) })
		return err
	})
	if err != nil {
		return err
	}
	return e.confirmEdit(results)
}

type layerReplacement struct {
	env   *env
	stage *layout.Stage
	file  artifactFile
	sel   layout.LayerSelector
	set   map[string]string
	layer layout.NewLayer // staged
}

// prepare does what takes long, before the layout is locked.
func (r *layerReplacement) prepare(ctx context.Context, m layout.Match) error {
	old, err := r.sel.Layer(m.Document)
	if err != nil {
		return err
	}
	f := layerFile{r.file.path, ocispec.Descriptor{MediaType: cmp.Or(r.file.mediaType, old.Desc.MediaType), Annotations: r.set}}
	r.layer, err = f.stage(ctx, r.stage, m.Document.IsImage() && old.Number >= 0)
	return err
}

func (r *layerReplacement) edit(ctx context.Context, m layout.Match, x *layout.Manifest) error {
	old, err := r.sel.Layer(m.Document)
	if err != nil {
		return err
	}
	edit, err := r.stage.EditLayers(ctx, x)
	if err != nil {
		return err
	}
	if old.Number < 0 {
		return setConfig(edit, x, r.layer.Desc)
	}
	r.env.warnStep(edit)
	layer := r.layer
	layer.Desc.MediaType = cmp.Or(r.file.mediaType, old.Desc.MediaType)
	if err := edit.Replace(old.Number, layer); err != nil {
		return besideHint(ctx, r.stage, m, err)
	}
	return edit.Close()
}
