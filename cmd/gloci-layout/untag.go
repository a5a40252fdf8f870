package main

import (
	"context"
	"fmt"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
)

func newUntagCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "untag", Usage: "take ref names away", ArgsUsage: "LAYOUT NAME...",
		Description: "What a NAME names stays: where no other entry of index.json has the digest, " +
			"the entry stays without a ref name, so that gc does not take its content. " +
			"A NAME is a whole ref name. Use rm to remove entries.",
		Action: func(c *cli.Context) error {
			return runUntag(c.Context, e, layoutPath(c.Args().First()), c.Args().Tail())
		},
	}
}

func runUntag(ctx context.Context, e *env, dir string, names []string) error {
	var changes []changeResult
	err := e.update(ctx, dir, func(tx *layout.Tx) error {
		changes = nil
		for _, name := range names {
			found, err := untag(tx.Index(), name)
			if err != nil {
				return err
			}
			changes = append(changes, found...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return e.confirmChanges(changes)
}

func untag(x *layout.Index, name string) ([]changeResult, error) {
	var changes []changeResult
	for {
		entries := x.Entries()
		i := slices.IndexFunc(entries, func(d ocispec.Descriptor) bool { return layout.RefName(d) == name })
		if i < 0 {
			break
		}
		desc := entries[i]
		changes = append(changes, newChange("untagged", desc))
		if slices.ContainsFunc(slices.Delete(entries, i, i+1), func(d ocispec.Descriptor) bool { return d.Digest == desc.Digest }) {
			x.Remove(i)
			continue
		}
		delete(desc.Annotations, ocispec.AnnotationRefName)
		x.Set(i, desc)
	}
	if len(changes) == 0 {
		return nil, fmt.Errorf("ref name %q: %w", name, layout.ErrNotFound)
	}
	return changes, nil
}
