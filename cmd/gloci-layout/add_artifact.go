package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/internal/pattern"
	"github.com/gardenlinux/gloci-layout/layout"
)

func newAddArtifactCommand(e *env) *cli.Command {
	var opts addArtifactOptions
	return &cli.Command{
		Name: "artifact", Usage: "add files as an artifact", ArgsUsage: "LAYOUT FILE[:MEDIATYPE]...",
		Description: "The files become the layers of one manifest with an empty config, in the given order, " +
			"titled with their base names. The media type of a FILE that has none is application/octet-stream. " +
			"The same files and flags give the same bytes: there is no time of creation in it, unless --created " +
			"or SOURCE_DATE_EPOCH give one.\n\n" +
			"With --ref it is stored under a ref name, with --into as an entry of an index, which is made if it is absent. " +
			"At least one of them must be given.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "artifact-type", Usage: "the `TYPE` of the artifact, a media type", Destination: &opts.artifactType},
			&cli.StringFlag{Name: "ref", Usage: "store it under the ref name `NAME`", Destination: &opts.ref},
			&cli.StringFlag{Name: "into", Usage: "make it an entry of the index `INDEXREF`", Destination: &opts.into},
			&cli.StringFlag{Name: "platform", Usage: "the `PLATFORM` of that entry (unknown/unknown if not given)", Destination: &opts.platform},
			&cli.StringSliceFlag{Name: "annotation", Usage: "give the manifest the annotation `KEY=VALUE`"},
			&cli.StringFlag{Name: "created", Usage: "annotate it as created at `TIME`, as 2006-01-02T15:04:05Z", Destination: &opts.created},
			replaceFlag(&opts.replace),
		},
		Action: func(c *cli.Context) error { return runAddArtifact(c, e, &opts) },
	}
}

type addArtifactOptions struct {
	artifactType, ref, into, platform, created string
	replace                                    bool
}

// mediaTypeGrammar is that of RFC 6838, section 4.2.
var mediaTypeGrammar = pattern.New(`^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}$`)

type artifactFile struct{ path, mediaType string }

func runAddArtifact(c *cli.Context, e *env, opts *addArtifactOptions) error {
	manifest, files, platform, err := artifactPlan(c, opts)
	if err != nil {
		return err
	}
	ctx := c.Context
	var changes []changeResult
	err = e.stage(ctx, layoutPath(c.Args().First()), func(s *layout.Stage) error {
		desc, err := stageArtifact(ctx, s, manifest, files)
		if err != nil {
			return err
		}
		return s.Update(ctx, func(tx *layout.Tx) error {
			changes = nil
			if opts.ref != "" {
				if err := setRef(ctx, tx, opts.ref, desc, opts.replace); err != nil {
					return err
				}
				change := newChange("added", desc)
				change.RefName = opts.ref
				changes = append(changes, change)
			}
			if opts.into == "" {
				return nil
			}
			entry := desc
			entry.Platform = platform
			put, err := putEntries(c, tx, opts.into, []ocispec.Descriptor{entry}, nil)
			changes = append(changes, put...)
			return err
		})
	})
	if err != nil {
		return err
	}
	return e.confirmChanges(changes)
}

// artifactPlan reads the command line.
func artifactPlan(c *cli.Context, opts *addArtifactOptions) (m ocispec.Manifest, files []artifactFile, platform *ocispec.Platform, err error) {
	fail := func(err error) (ocispec.Manifest, []artifactFile, *ocispec.Platform, error) {
		return ocispec.Manifest{}, nil, nil, err
	}
	if !mediaTypeGrammar.MatchString(opts.artifactType) {
		return fail(usagef(c, "--artifact-type %q: want a media type", opts.artifactType))
	}
	if opts.ref == "" && opts.into == "" {
		return fail(usagef(c, "--ref or --into must say where it goes"))
	}
	for _, name := range []string{opts.ref, opts.into} {
		if name != "" {
			if err := checkRefNames(c, []string{name}); err != nil {
				return fail(err)
			}
		}
	}
	platform = noPlatform()
	if opts.platform != "" {
		if opts.into == "" {
			return fail(usagef(c, "--platform goes with --into"))
		}
		if platform, err = layout.ParsePlatform(opts.platform); err != nil {
			return fail(usagef(c, "%v", err))
		}
	}
	m = ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: opts.artifactType, Config: ocispec.DescriptorEmptyJSON,
	}
	if m.Annotations, err = artifactAnnotations(c, opts.created); err != nil {
		return fail(err)
	}
	titles := map[string]string{}
	for _, operand := range c.Args().Tail() {
		f := splitMediaType(operand)
		f.mediaType = cmp.Or(f.mediaType, "application/octet-stream")
		title := filepath.Base(f.path)
		if other, twice := titles[title]; twice {
			return fail(usagef(c, "%s and %s have one base name: layers are told apart by it", other, f.path))
		}
		titles[title] = f.path
		files = append(files, f)
	}
	return m, files, platform, nil
}

// splitMediaType cuts FILE:MEDIATYPE at the first colon behind which there is a
// media type, unless the whole is a file. The media type may be missing.
func splitMediaType(operand string) artifactFile {
	if _, err := os.Lstat(operand); err == nil {
		return artifactFile{path: operand}
	}
	for i := range operand {
		if operand[i] == ':' && mediaTypeGrammar.MatchString(operand[i+1:]) {
			return artifactFile{operand[:i], operand[i+1:]}
		}
	}
	return artifactFile{path: operand}
}

func artifactAnnotations(c *cli.Context, created string) (map[string]string, error) {
	m, err := annotations(c, "annotation")
	if err != nil {
		return nil, err
	}
	at, err := sourceDateEpoch(c)
	if err != nil {
		return nil, err
	}
	if created != "" {
		if at, err = time.Parse(time.RFC3339, created); err != nil {
			return nil, usagef(c, "--created %q: want a time as 2006-01-02T15:04:05Z", created)
		}
	}
	if at.IsZero() {
		return m, nil
	}
	if _, twice := m[ocispec.AnnotationCreated]; twice {
		return m, nil // the user's own words win
	}
	if m == nil {
		m = map[string]string{}
	}
	m[ocispec.AnnotationCreated] = at.UTC().Format(time.RFC3339)
	return m, nil
}

func stageArtifact(ctx context.Context, s *layout.Stage, m ocispec.Manifest, files []artifactFile) (ocispec.Descriptor, error) {
	if _, err := s.AddBytes(ctx, ocispec.DescriptorEmptyJSON.Data, ocispec.MediaTypeEmptyJSON); err != nil {
		return ocispec.Descriptor{}, err
	}
	for _, f := range files {
		desc, err := s.AddFile(ctx, f.path, f.mediaType)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		desc.Annotations = map[string]string{ocispec.AnnotationTitle: filepath.Base(f.path)}
		m.Layers = append(m.Layers, desc)
	}
	raw, err := layout.EncodeManifest(m)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("manifest: %w", err)
	}
	desc, err := s.AddBytes(ctx, raw, ocispec.MediaTypeImageManifest)
	desc.ArtifactType = m.ArtifactType
	return desc, err
}
