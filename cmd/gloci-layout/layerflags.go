package main

import (
	"path"

	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
)

// layerFlags choose layers of a manifest.
type layerFlags struct {
	number           int
	config           bool
	mediaType, title string
}

func (l *layerFlags) flags() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "layer", Usage: "the layer with the number `N`, counted from 0 among all layers", Destination: &l.number},
		&cli.StringFlag{Name: "media-type", Usage: "layers of this media `TYPE`; a * at its end stands for any rest", Destination: &l.mediaType},
		&cli.StringFlag{Name: "title", Usage: "layers whose title fits the `GLOB`", Destination: &l.title},
		&cli.StringSliceFlag{Name: "layer-annotation", Usage: "layers that have the annotation `KEY=VALUE`"},
		&cli.BoolFlag{Name: "config", Usage: "the config of the manifest instead of a layer", Destination: &l.config},
	}
}

// given tells whether any of the flags stands on the command line.
func (l *layerFlags) given(c *cli.Context) bool {
	return c.IsSet("layer") || l.config || l.mediaType+l.title != "" || len(c.StringSlice("layer-annotation")) > 0
}

func (l *layerFlags) selector(c *cli.Context) (layout.LayerSelector, error) {
	sel := layout.LayerSelector{Config: l.config, MediaType: l.mediaType, Title: l.title}
	if c.IsSet("layer") {
		if l.number < 0 {
			return sel, usagef(c, "--layer %d: the first layer is 0", l.number)
		}
		if l.config {
			return sel, usagef(c, "--layer and --config exclude each other")
		}
		sel.Number = &l.number
	}
	if _, err := path.Match(l.title, ""); err != nil {
		return sel, usagef(c, "--title %q: %v", l.title, err)
	}
	var err error
	sel.Annotations, err = annotations(c, "layer-annotation")
	return sel, err
}
