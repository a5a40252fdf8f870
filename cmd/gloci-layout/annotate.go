package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
)

func newAnnotateCommand(e *env) *cli.Command {
	var opts annotateOptions
	return &cli.Command{
		Name: "annotate", Usage: "set and remove annotations", ArgsUsage: "LAYOUT [REF] KEY=VALUE|KEY-...",
		Description: "KEY=VALUE sets an annotation, KEY- removes one; VALUE may hold commas and further =. Which annotations are edited:\n\n" +
			"  --manifest    those of the manifest that REF, @DIGEST or REF@DIGEST names, or of the one below it\n" +
			"                that the flags select; this is meant when nothing is said\n" +
			"  --descriptor  those of the entries below REF that name that manifest; without flags that select,\n" +
			"                of the entry that names what REF names, an index too\n" +
			"  --index       those of the index that REF names; without REF, of index.json\n" +
			"  --layer and other flags that select layers: those of a layer of that manifest, with --config of its config\n\n" +
			"Without REF, manifests are looked for in all of the layout. An operand with = or with - at its end is no REF.\n\n" + editHelp,
		Flags: append(append([]cli.Flag{
			&cli.BoolFlag{Name: "manifest", Usage: "edit the manifest", Destination: &opts.manifest},
			&cli.BoolFlag{Name: "descriptor", Usage: "edit the entries that name it", Destination: &opts.descriptor},
			&cli.BoolFlag{Name: "index", Usage: "edit the index that REF names", Destination: &opts.index},
			&cli.BoolFlag{Name: "all", Usage: "edit all layers that the flags select", Destination: &opts.all},
			moveReferrersFlag(&opts.move),
		}, opts.sel.flags()...), opts.layers.flags()...),
		Action: func(c *cli.Context) error { return runAnnotate(c, e, &opts) },
	}
}

type annotateOptions struct {
	manifest, descriptor, index, all, move bool
	sel                                    selectFlags
	layers                                 layerFlags
}

// An annotationEdit sets or removes one annotation.
type annotationEdit struct {
	key, value string
	remove     bool
}

func parseAnnotationEdits(c *cli.Context, operands []string) ([]annotationEdit, error) {
	var edits []annotationEdit
	for _, o := range operands {
		var a annotationEdit
		var ok bool
		if a.key, a.value, ok = strings.Cut(o, "="); !ok {
			a.key, a.remove = strings.CutSuffix(o, "-")
		}
		switch {
		case !ok && !a.remove, a.key == "":
			return nil, usagef(c, "%q: want KEY=VALUE or KEY-", o)
		case slices.ContainsFunc(edits, func(b annotationEdit) bool { return b.key == a.key }):
			return nil, usagef(c, "annotation %s is given twice", a.key)
		}
		edits = append(edits, a)
	}
	if len(edits) == 0 {
		return nil, usagef(c, "name annotations: KEY=VALUE or KEY-")
	}
	return edits, nil
}

// annotated is a document whose own annotations are edited.
type annotated interface {
	SetAnnotation(key, value string)
	DeleteAnnotation(key string)
}

func annotateDocument(x annotated, edits []annotationEdit) {
	for _, a := range edits {
		if a.remove {
			x.DeleteAnnotation(a.key)
		} else {
			x.SetAnnotation(a.key, a.value)
		}
	}
}

func annotateDescriptor(desc *ocispec.Descriptor, edits []annotationEdit) {
	for _, a := range edits {
		if a.remove {
			delete(desc.Annotations, a.key)
			continue
		}
		if desc.Annotations == nil {
			desc.Annotations = map[string]string{}
		}
		desc.Annotations[a.key] = a.value
	}
}

func runAnnotate(c *cli.Context, e *env, opts *annotateOptions) error {
	operands := c.Args().Tail()
	ref := ""
	if len(operands) > 0 && !strings.Contains(operands[0], "=") && !strings.HasSuffix(operands[0], "-") {
		ref, operands = operands[0], operands[1:]
	}
	edits, err := parseAnnotationEdits(c, operands)
	if err != nil {
		return err
	}
	t, err := opts.sel.target(c, ref)
	if err != nil {
		return err
	}
	layers, err := opts.layers.selector(c)
	if err != nil {
		return err
	}
	modes := 0
	for _, given := range []bool{opts.manifest, opts.descriptor, opts.index, opts.layers.given(c)} {
		if given {
			modes++
		}
	}
	switch {
	case modes > 1:
		return usagef(c, "--manifest, --descriptor, --index and flags that select layers exclude each other")
	case opts.index && t.given:
		return usagef(c, "--index is the index that REF names; flags select manifests")
	case opts.all && !opts.layers.given(c):
		return usagef(c, "--all goes with flags that select layers")
	case opts.descriptor && slices.ContainsFunc(edits, func(a annotationEdit) bool { return a.key == ocispec.AnnotationRefName }):
		return layout.WithHint(usagef(c, "%s is the ref name", ocispec.AnnotationRefName), "tag and untag give and take ref names")
	}
	a := annotator{target: t, edits: edits, move: layout.EditOptions{MoveReferrers: opts.move}, layers: layers, all: opts.all}
	edit := a.manifest
	switch {
	case opts.index:
		edit = a.index
	case opts.descriptor:
		edit = a.descriptor
	case opts.layers.given(c):
		edit = a.layer
	}
	var results []editResult
	err = e.update(c.Context, layoutPath(c.Args().First()), func(tx *layout.Tx) error {
		results, err = edit(c.Context, tx)
		return err
	})
	if err != nil {
		return err
	}
	return e.confirmEdit(results)
}

type annotator struct {
	target manifestTarget
	edits  []annotationEdit
	move   layout.EditOptions
	layers layout.LayerSelector
	all    bool
}

func (a *annotator) manifest(ctx context.Context, tx *layout.Tx) ([]editResult, error) {
	m, err := a.target.manifest(ctx, tx.Source())
	if err != nil {
		return nil, err
	}
	return a.results(tx)(tx.EditManifest(ctx, m.Desc.Digest, &a.move, func(x *layout.Manifest) error {
		annotateDocument(x, a.edits)
		return nil
	}))
}

func (a *annotator) layer(ctx context.Context, tx *layout.Tx) ([]editResult, error) {
	m, err := a.target.manifest(ctx, tx.Source())
	if err != nil {
		return nil, err
	}
	return a.results(tx)(tx.EditManifest(ctx, m.Desc.Digest, &a.move, func(x *layout.Manifest) error {
		layers, err := selectLayers(a.layers, m.Document, a.all)
		if err != nil {
			return err
		}
		for _, layer := range layers {
			if layer.Number < 0 {
				config := *x.Config()
				annotateDescriptor(&config, a.edits)
				x.SetConfig(config)
				continue
			}
			desc := x.Layers()[layer.Number]
			annotateDescriptor(&desc, a.edits)
			x.SetLayer(layer.Number, desc)
		}
		return nil
	}))
}

func (a *annotator) index(ctx context.Context, tx *layout.Tx) ([]editResult, error) {
	if a.target.refName == "" && a.target.digest == "" {
		annotateDocument(tx.Index(), a.edits)
		return []editResult{{Action: "annotated", Kind: "index.json"}}, nil
	}
	desc, err := a.target.document(ctx, tx.Source())
	if err != nil {
		return nil, err
	}
	if !layout.IsIndex(desc.MediaType) {
		return nil, fmt.Errorf("%s is a %s, no index: %w", desc.Digest, desc.MediaType, layout.ErrConflict)
	}
	return a.results(tx)(tx.EditIndexes(ctx, []digest.Digest{desc.Digest}, &a.move, func(x *layout.Index) error {
		annotateDocument(x, a.edits)
		return nil
	}))
}

func (a *annotator) descriptor(ctx context.Context, tx *layout.Tx) ([]editResult, error) {
	desc, err := a.target.document(ctx, tx.Source())
	if err != nil {
		return nil, err
	}
	numbers, err := (&remover{tx: tx}).entries(ctx, a.target.refName)
	if err != nil {
		return nil, err
	}
	results, err := a.results(tx)(tx.EditEntries(ctx, numbers, desc.Digest, &a.move, func(entry *ocispec.Descriptor) error {
		annotateDescriptor(entry, a.edits)
		return nil
	}))
	return append([]editResult{newEditResult("annotated", desc)}, results...), err
}

func (a *annotator) results(tx *layout.Tx) func(edit *layout.Edit, err error) ([]editResult, error) {
	return func(edit *layout.Edit, err error) ([]editResult, error) {
		if err != nil {
			return nil, err
		}
		return newEditResults(tx, edit), nil
	}
}
