package main

import (
	"cmp"
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/nest"
)

func newIndexCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "index", Usage: "make, change and list image indexes",
		Subcommands: []*cli.Command{
			newIndexCreateCommand(e),
			newIndexAddCommand(e),
			newIndexRmCommand(e),
			newIndexLsCommand(e),
			newIndexFlattenCommand(e),
			newIndexNestCommand(e),
		},
	}
}

// indexRefHelp says what REF may be where an index is edited.
const indexRefHelp = "REF is the ref name of an index, or REF@DIGEST or @DIGEST one further below; " +
	"that one is then replaced in all indexes that have it, up to index.json."

// entryKey names the entries of an index.
var entryKey = nest.Key(gardenKey)

func newIndexLsCommand(e *env) *cli.Command {
	var from sourceFlags
	return &cli.Command{
		Name: "ls", Usage: "list the entries of an index", ArgsUsage: "SOURCE [REF]",
		Description: "One line for each entry, in listed order: the key that tells it from the others, what it is, and its digest. " +
			"REF may also be part of SOURCE.\n\n" + sourceHelp,
		Flags: from.flags(),
		Action: func(c *cli.Context) error {
			return from.with(c, e, c.Args().First(), func(src layout.Source, ref layout.Reference) error {
				if c.NArg() == 2 {
					if ref.RefName != "" || ref.Digest != "" {
						return usagef(c, "%q has a ref name or digest already", c.Args().First())
					}
					var err error
					if ref.RefName, ref.Digest, err = parseTarget(c, c.Args().Get(1)); err != nil {
						return err
					}
				}
				return runIndexLs(c.Context, e, src, ref)
			})
		},
	}
}

type indexEntryResult struct {
	Key          string            `json:"key" doc:"what tells the entry from the others"`
	Kind         string            `json:"kind" doc:"index, manifest or blob (of no known type), as the descriptor says"`
	RefName      string            `json:"refName,omitempty" doc:"the ref name"`
	Platform     string            `json:"platform,omitempty" doc:"its platform, os/architecture[/variant]"`
	ArtifactType string            `json:"artifactType,omitempty" doc:"its artifact type"`
	Digest       digest.Digest     `json:"digest" doc:"its digest"`
	MediaType    string            `json:"mediaType" doc:"its media type"`
	Size         int64             `json:"size" doc:"its size in bytes, without what it names"`
	Annotations  map[string]string `json:"annotations,omitempty" doc:"the annotations of the entry"`
}

func (r indexEntryResult) columns() []string {
	key := r.Key
	if key == string(r.Digest) {
		key = ""
	}
	return []string{key, r.Kind, r.Platform, r.ArtifactType, string(r.Digest)}
}

func newIndexEntryResult(desc ocispec.Descriptor) indexEntryResult {
	r := indexEntryResult{
		Key: entryKey(desc), Kind: "blob", RefName: layout.RefName(desc), ArtifactType: desc.ArtifactType,
		Digest: desc.Digest, MediaType: desc.MediaType, Size: desc.Size, Annotations: desc.Annotations,
	}
	switch {
	case layout.IsIndex(desc.MediaType):
		r.Kind = "index"
	case layout.IsManifest(desc.MediaType):
		r.Kind = "manifest"
	}
	if desc.Platform != nil {
		r.Platform = layout.FormatPlatform(*desc.Platform)
	}
	return r
}

func runIndexLs(ctx context.Context, e *env, src layout.Source, ref layout.Reference) error {
	desc, err := layout.ResolveOne(ctx, src, ref.RefName, ref.Digest)
	if err != nil {
		return err
	}
	x, err := readIndex(ctx, src, desc)
	if err != nil {
		return err
	}
	var rows []indexEntryResult
	for _, desc := range x.Entries() {
		rows = append(rows, newIndexEntryResult(desc))
	}
	return table(e, []string{"KEY", "KIND", "PLATFORM", "ARTIFACT TYPE", "DIGEST"}, rows)
}

// readIndex reads what must be an index.
func readIndex(ctx context.Context, src layout.Source, desc ocispec.Descriptor) (*layout.Index, error) {
	if !layout.IsIndex(desc.MediaType) {
		name := cmp.Or(layout.RefName(desc), string(desc.Digest))
		return nil, fmt.Errorf("%s: %s is a %s, no index: %w", src, name, desc.MediaType, layout.ErrConflict)
	}
	doc, err := layout.ReadDocument(ctx, src, desc)
	if err != nil {
		return nil, err
	}
	return layout.ParseIndex(doc.Raw)
}

// An indexTarget is the index that is edited.
type indexTarget struct {
	refName string
	digest  digest.Digest
}

func parseIndexTarget(c *cli.Context) (t indexTarget, err error) {
	t.refName, t.digest, err = parseTarget(c, c.Args().Get(1))
	return t, err
}

// editIndex lets fn edit the index that t names and re-links all that names it,
// or, for one with a ref name of its own, that ref name. The documents that fn
// returns are written with it.
func editIndex(ctx context.Context, tx *layout.Tx, t indexTarget, fn func(old ocispec.Descriptor, x *layout.Index) (*layout.Index, []*layout.Index, error)) (changes []changeResult, err error) {
	desc, err := layout.ResolveOne(ctx, tx.Source(), t.refName, t.digest)
	if err != nil {
		return nil, err
	}
	x, err := readIndex(ctx, tx.Source(), desc)
	if err != nil {
		return nil, err
	}
	edited, below, err := fn(desc, x)
	if err != nil {
		return nil, err
	}
	if edited.Descriptor().Digest == desc.Digest {
		return nil, nil
	}
	edited.Sort()
	for _, child := range below {
		if _, err := tx.PutDocument(child.Bytes(), child.MediaType()); err != nil {
			return nil, err
		}
	}
	now, err := tx.PutDocument(edited.Bytes(), edited.MediaType())
	if err != nil {
		return nil, err
	}
	now.ArtifactType = edited.ArtifactType()
	if t.digest == "" {
		_, err = tx.EditIndex(ctx, t.refName, false, func(old *layout.Index) error {
			*old = *edited
			return nil
		})
	} else {
		var moved []layout.Change
		moved, err = tx.Relink(ctx, desc.Digest, now)
		for _, m := range moved {
			changes = append(changes, newChange("relinked", m.New))
		}
	}
	if err != nil {
		return nil, err
	}
	return changes, nest.CheckDepth(ctx, tx.Source(), tx.Index().Entries())
}
