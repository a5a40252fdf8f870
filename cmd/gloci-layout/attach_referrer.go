package main

import (
	"context"
	"slices"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
)

func newAttachReferrerCommand(e *env) *cli.Command {
	var sel selectFlags
	var artifactType string
	selecting := slices.DeleteFunc(sel.flags(), func(f cli.Flag) bool { return f.Names()[0] == "artifact-type" })
	return &cli.Command{
		Name: "referrer", Usage: "attach an SBOM, a signature or an attestation", ArgsUsage: "LAYOUT REF FILE[:MEDIATYPE]...",
		Description: "The files become the layers of an artifact manifest whose subject is what REF, @DIGEST or REF@DIGEST names, an index too, " +
			"or the one manifest below it that the flags select. It gets an entry of index.json without ref name. " +
			"What it refers to is not changed.\n\n" +
			"Layers are titled with the base names of the files. The media type of a FILE that has none is that of Garden Linux for such a name, " +
			"else application/octet-stream. The same files and flags give the same bytes.\n\n" +
			"pack and add image take referrers along, sync sends them, and gloci-layout referrers lists them.",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "artifact-type", Usage: "the `TYPE` of the referrer, a media type", Destination: &artifactType},
			&cli.StringSliceFlag{Name: "set-annotation", Usage: "give the referrer the annotation `KEY=VALUE`"},
		}, selecting...),
		Action: func(c *cli.Context) error { return runAttachReferrer(c, e, &sel, artifactType) },
	}
}

func runAttachReferrer(c *cli.Context, e *env, sel *selectFlags, artifactType string) error {
	ctx := c.Context
	if !mediaTypeGrammar.MatchString(artifactType) {
		return usagef(c, "--artifact-type %q: want a media type", artifactType)
	}
	t, err := sel.target(c, c.Args().Get(1))
	if err != nil {
		return err
	}
	set, err := annotations(c, "set-annotation")
	if err != nil {
		return err
	}
	files, err := layerFiles(c, c.Args().Slice()[2:], nil)
	if err != nil {
		return err
	}
	var result editResult
	err = e.stage(ctx, layoutPath(c.Args().First()), func(s *layout.Stage) error {
		if _, err := t.document(ctx, s); err != nil {
			return err
		}
		m := ocispec.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
			ArtifactType: artifactType, Config: ocispec.DescriptorEmptyJSON, Annotations: set,
		}
		if _, err := s.AddBytes(ctx, m.Config.Data, m.Config.MediaType); err != nil {
			return err
		}
		for _, f := range files {
			layer, err := f.stage(ctx, s, false)
			if err != nil {
				return err
			}
			m.Layers = append(m.Layers, layer.Desc)
		}
		return s.Update(ctx, func(tx *layout.Tx) error {
			result, err = attachReferrer(ctx, tx, t, m)
			return err
		})
	})
	if err != nil {
		return err
	}
	return e.confirmEdit([]editResult{result})
}

func attachReferrer(ctx context.Context, tx *layout.Tx, t manifestTarget, m ocispec.Manifest) (editResult, error) {
	subject, err := t.document(ctx, tx.Source())
	if err != nil {
		return editResult{}, err
	}
	m.Subject = &ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size}
	raw, err := layout.EncodeManifest(m)
	if err != nil {
		return editResult{}, err
	}
	desc, err := tx.PutDocument(raw, m.MediaType)
	if err != nil {
		return editResult{}, err
	}
	desc.ArtifactType = m.ArtifactType
	addUnnamed(tx.Index(), desc)
	return newReferrerEdit("attached", layout.Referrer{Desc: desc, Subject: subject.Digest, By: layout.BySubject}), nil
}
