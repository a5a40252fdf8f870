package main

import (
	"cmp"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/gardenlinux"
)

func newAttachCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "attach", Usage: "attach layers or referrers to what a layout has",
		Subcommands: []*cli.Command{newAttachLayerCommand(e), newAttachReferrerCommand(e)},
	}
}

func newAttachLayerCommand(e *env) *cli.Command {
	var opts attachLayerOptions
	return &cli.Command{
		Name: "layer", Usage: "add layers to a manifest", ArgsUsage: "LAYOUT REF [FILE[:MEDIATYPE]...]",
		Description: "The manifest that REF, @DIGEST or REF@DIGEST names, or the one below it that the flags select, gets a layer for each FILE, " +
			"behind those that it has, titled with the base name. The media type of a FILE that has none is that of Garden Linux for such a name, " +
			"else application/octet-stream.\n\n" +
			"A layer that is there already with title, media type and bytes is left alone; another one with the same title is a conflict " +
			"(exit status 6), unless --replace puts the new one in its place.\n\n" +
			"The manifest of a container image takes only image layers, or no client could pull it; its config gets the digests of their " +
			"uncompressed content, unless --config gives another one.\n\n" + editHelp,
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "replace", Usage: "put a layer in the place of the one with the same title", Destination: &opts.replace},
			&cli.StringFlag{Name: "config", Usage: "make `FILE[:MEDIATYPE]` the config; without a media type it keeps that of the old one", Destination: &opts.config},
			&cli.StringSliceFlag{Name: "set-annotation", Usage: "give the new layers the annotation `KEY=VALUE`"},
			moveReferrersFlag(&opts.move),
		}, opts.sel.flags()...),
		Action: func(c *cli.Context) error { return runAttachLayer(c, e, &opts) },
	}
}

type attachLayerOptions struct {
	replace, move bool
	config        string
	sel           selectFlags
}

// A layerFile is a file that is to be a layer, and what its descriptor says.
type layerFile struct {
	path string
	desc ocispec.Descriptor
}

// layerFiles reads the operands FILE[:MEDIATYPE] of a command with the flag
// --set-annotation.
func layerFiles(c *cli.Context, operands []string, set map[string]string) ([]layerFile, error) {
	var files []layerFile
	titles := map[string]string{}
	if _, ok := set[ocispec.AnnotationTitle]; ok && len(operands) > 1 {
		return nil, usagef(c, "--set-annotation gives %s the same title: layers are told apart by it", plural(len(operands), "layer"))
	}
	for _, operand := range operands {
		f := splitMediaType(operand)
		title := filepath.Base(f.path)
		if other, twice := titles[title]; twice {
			return nil, usagef(c, "%s and %s have one base name: layers are told apart by it", other, f.path)
		}
		titles[title] = f.path
		known, _ := gardenlinux.MediaType(title)
		desc := ocispec.Descriptor{
			MediaType:   cmp.Or(f.mediaType, known, gardenlinux.MediaTypeUnknown),
			Annotations: map[string]string{ocispec.AnnotationTitle: title},
		}
		for k, v := range set {
			desc.Annotations[k] = v
		}
		files = append(files, layerFile{f.path, desc})
	}
	return files, nil
}

// stage stages the file; image tells whether its diff ID will be needed.
func (f layerFile) stage(ctx context.Context, s *layout.Stage, image bool) (layout.NewLayer, error) {
	added, err := s.AddFile(ctx, f.path, f.desc.MediaType)
	if err != nil {
		return layout.NewLayer{}, err
	}
	added.Annotations = f.desc.Annotations
	layer := layout.NewLayer{Desc: added}
	if image && layout.IsImageLayer(added.MediaType) {
		if layer.DiffID, err = layout.DiffID(ctx, s, added); err != nil {
			return layer, err
		}
	}
	return layer, nil
}

func runAttachLayer(c *cli.Context, e *env, opts *attachLayerOptions) error {
	ctx := c.Context
	t, err := opts.sel.target(c, c.Args().Get(1))
	if err != nil {
		return err
	}
	operands := c.Args().Slice()[2:]
	if len(operands) == 0 && opts.config == "" {
		return usagef(c, "name a FILE to attach, or a --config")
	}
	set, err := annotations(c, "set-annotation")
	if err != nil {
		return err
	}
	files, err := layerFiles(c, operands, set)
	if err != nil {
		return err
	}
	var results []editResult
	err = e.stage(ctx, layoutPath(c.Args().First()), func(s *layout.Stage) error {
		// What is wrong with the selection is told before any file is read.
		image, err := checkMixed(ctx, s, t, files)
		if err != nil {
			return err
		}
		var layers []layout.NewLayer
		for _, f := range files {
			layer, err := f.stage(ctx, s, image)
			if err != nil {
				return err
			}
			layers = append(layers, layer)
		}
		config, err := stageConfig(ctx, s, opts.config)
		if err != nil {
			return err
		}
		results, err = t.editManifest(ctx, s, opts.move, func(m layout.Match, x *layout.Manifest) error {
			err := attachLayers(ctx, e, s, x, layers, opts.replace, config)
			return besideHint(ctx, s, m, err)
		})
		return err
	})
	if err != nil {
		return err
	}
	return e.confirmEdit(results)
}

// attachLayers edits x, all of it or with an error.
func attachLayers(ctx context.Context, e *env, s *layout.Stage, x *layout.Manifest, layers []layout.NewLayer, replace bool, config *ocispec.Descriptor) error {
	edit, err := s.EditLayers(ctx, x)
	if err != nil {
		return err
	}
	for _, layer := range layers {
		if err := edit.Add(layer, replace); err != nil {
			return err
		}
	}
	if config != nil {
		return setConfig(edit, x, *config)
	}
	e.warnStep(edit)
	return edit.Close()
}

func setConfig(edit *layout.LayerEdit, x *layout.Manifest, config ocispec.Descriptor) error {
	if old := x.Config(); config.MediaType == "" && old != nil {
		config.MediaType = old.MediaType
	}
	return edit.SetConfig(config)
}

// warnStep tells of an image whose config could not be kept in step.
func (e *env) warnStep(edit *layout.LayerEdit) {
	if !edit.InStep() {
		e.log.Warn("the config of the image does not list the image's layers, and was left as it is")
	}
}

// stageConfig stages FILE[:MEDIATYPE]; the media type may be missing.
func stageConfig(ctx context.Context, s *layout.Stage, operand string) (*ocispec.Descriptor, error) {
	if operand == "" {
		return nil, nil
	}
	f := splitMediaType(operand)
	desc, err := s.AddFile(ctx, f.path, f.mediaType)
	return &desc, err
}

// checkMixed refuses layers that the image which t names would not take, and
// tells whether it is one.
func checkMixed(ctx context.Context, s *layout.Stage, t manifestTarget, files []layerFile) (image bool, err error) {
	m, err := t.manifest(ctx, s)
	if err != nil {
		return false, err
	}
	x, err := layout.ParseManifest(m.Document.Raw, m.Document.MediaType)
	if err != nil {
		return false, err
	}
	for _, f := range files {
		var conflict *layout.LayerConflict
		if _, err := x.CheckLayer(f.desc); errors.As(err, &conflict) && conflict.Mixed {
			return true, besideHint(ctx, s, m, err)
		}
	}
	return x.IsImage(), nil
}

// besideHint tells what could be done about a layer that is refused.
func besideHint(ctx context.Context, s layout.Source, m layout.Match, err error) error {
	var conflict *layout.LayerConflict
	switch {
	case !errors.As(err, &conflict):
		return err
	case !conflict.Mixed:
		return layout.WithHint(err, "--replace puts the new one in its place")
	}
	if strings.Contains(conflict.Layer.MediaType, "tar") {
		if title := conflict.Layer.Annotations[ocispec.AnnotationTitle]; strings.Contains(title, ".tar") {
			return layout.WithHint(err, "if it is a layer of the image, say so: FILE:"+ocispec.MediaTypeImageLayer+", with +gzip or +zstd if it is compressed")
		}
	}
	beside, findErr := layout.Beside(ctx, s, m)
	if findErr != nil {
		return errors.Join(err, findErr)
	}
	// Those for the same architecture, if there are any.
	same := slices.DeleteFunc(slices.Clone(beside), func(o layout.Match) bool {
		return m.Desc.Platform == nil || o.Desc.Platform == nil || o.Desc.Platform.Architecture != m.Desc.Platform.Architecture
	})
	if len(same) > 0 {
		beside = same
	}
	switch {
	case len(beside) == 0:
		return layout.WithHint(err, "add artifact --into makes an artifact beside the image")
	case len(beside) == 1:
		return layout.WithHint(err, "attach it to the artifact manifest beside the image: --digest "+string(beside[0].Desc.Digest))
	}
	names := make([]string, 0, 4)
	for i, o := range beside {
		if i == 3 {
			names = append(names, "...")
			break
		}
		names = append(names, string(o.Desc.Digest))
	}
	return layout.WithHint(err, "attach it to an artifact manifest beside the image, one --digest of: "+strings.Join(names, " "))
}
