package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
)

func newDetachCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "detach", Usage: "take layers out of a manifest",
		Subcommands: []*cli.Command{newDetachLayerCommand(e)},
	}
}

func newDetachLayerCommand(e *env) *cli.Command {
	var opts detachLayerOptions
	return &cli.Command{
		Name: "layer", Usage: "take layers out of a manifest", ArgsUsage: "LAYOUT REF",
		Description: "The manifest that REF, @DIGEST or REF@DIGEST names, or the one below it that the flags select, loses the layer " +
			"that --layer, --media-type, --title or --layer-annotation select. It has to be exactly one, unless --all says otherwise. " +
			"The config of a container image loses it too. Content stays on disk until gc.\n\n" + editHelp,
		Flags: append(append([]cli.Flag{
			&cli.BoolFlag{Name: "all", Usage: "take out all layers that the flags select", Destination: &opts.all},
			moveReferrersFlag(&opts.move),
		}, opts.sel.flags()...), opts.layers.flags()...),
		Action: func(c *cli.Context) error { return runDetachLayer(c, e, &opts) },
	}
}

type detachLayerOptions struct {
	all, move bool
	sel       selectFlags
	layers    layerFlags
}

func runDetachLayer(c *cli.Context, e *env, opts *detachLayerOptions) error {
	ctx := c.Context
	t, err := opts.sel.target(c, c.Args().Get(1))
	if err != nil {
		return err
	}
	sel, err := opts.layers.selector(c)
	if err != nil {
		return err
	}
	switch {
	case sel.Config:
		return usagef(c, "no manifest is without config; replace layer --config gives it another one")
	case !opts.layers.given(c):
		return usagef(c, "select a layer with --layer, --media-type, --title or --layer-annotation")
	}
	var results []editResult
	err = e.stage(ctx, layoutPath(c.Args().First()), func(s *layout.Stage) error {
		results, err = t.editManifest(ctx, s, opts.move, func(m layout.Match, x *layout.Manifest) error {
			layers, err := selectLayers(sel, m.Document, opts.all)
			if err != nil {
				return err
			}
			edit, err := s.EditLayers(ctx, x)
			if err != nil {
				return err
			}
			var numbers []int
			for _, layer := range layers {
				numbers = append(numbers, layer.Number)
			}
			edit.Remove(numbers...)
			e.warnStep(edit)
			return edit.Close()
		})
		return err
	})
	if err != nil {
		return err
	}
	return e.confirmEdit(results)
}

// selectLayers returns the one layer that sel chooses, or with all every one,
// of which there must be one at least.
func selectLayers(sel layout.LayerSelector, doc *layout.Document, all bool) ([]layout.Layer, error) {
	if !all {
		layer, err := sel.Layer(doc)
		return []layout.Layer{layer}, err
	}
	layers, err := sel.Layers(doc)
	if err == nil && len(layers) == 0 {
		err = fmt.Errorf("manifest %s: %s: %w", doc.Descriptor.Digest, sel, layout.ErrNotFound)
	}
	return layers, err
}
