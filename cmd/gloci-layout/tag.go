package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
)

func newTagCommand(e *env) *cli.Command {
	var replace bool
	return &cli.Command{
		Name: "tag", Usage: "give content of a layout further ref names", ArgsUsage: "LAYOUT REF|@DIGEST NEWNAME...",
		Description: "What REF or @DIGEST names, at any depth, gets an entry in index.json under each NEWNAME. " +
			"A NEWNAME that names something else is moved, unless it names an index whose entries " +
			"would no longer be named: that is refused with exit status 6.",
		Flags: []cli.Flag{replaceFlag(&replace)},
		Action: func(c *cli.Context) error {
			names := c.Args().Slice()[2:]
			if err := checkRefNames(c, names); err != nil {
				return err
			}
			refName, d, err := parseTarget(c, c.Args().Get(1))
			if err != nil {
				return err
			}
			return runTag(c.Context, e, layoutPath(c.Args().First()), refName, d, names, replace)
		},
	}
}

func replaceFlag(to *bool) cli.Flag {
	return &cli.BoolFlag{Name: "replace", Usage: "drop the other entries of an index whose ref name is taken", Destination: to}
}

// A changeResult is what an edit did to one entry.
type changeResult struct {
	Action    string        `json:"action" doc:"added, tagged, untagged, removed, created, moved or relinked"`
	RefName   string        `json:"refName,omitempty" doc:"the ref name, where the entry has one"`
	Into      string        `json:"into,omitempty" doc:"the ref name of the index that got or lost the entry"`
	CName     string        `json:"cname,omitempty" doc:"the Garden Linux name of the entry"`
	Platform  string        `json:"platform,omitempty" doc:"the platform of the entry, os/architecture[/variant]"`
	Digest    digest.Digest `json:"digest" doc:"the digest of what the entry names"`
	MediaType string        `json:"mediaType" doc:"its media type"`
	Size      int64         `json:"size" doc:"its size in bytes, without what it names"`
}

func newChange(action string, desc ocispec.Descriptor) changeResult {
	r := changeResult{
		Action: action, RefName: layout.RefName(desc), CName: desc.Annotations["cname"],
		Digest: desc.Digest, MediaType: desc.MediaType, Size: desc.Size,
	}
	if desc.Platform != nil {
		r.Platform = layout.FormatPlatform(*desc.Platform)
	}
	return r
}

func (e *env) confirmChanges(changes []changeResult) error {
	for _, r := range changes {
		line := r.Action
		for _, s := range []string{r.RefName, r.CName, string(r.Digest)} {
			if s != "" {
				line += " " + s
			}
		}
		if r.Into != "" {
			if r.Platform != "" {
				line += " as " + r.Platform
			}
			line += map[bool]string{true: " from ", false: " into "}[r.Action == "removed"] + r.Into
		}
		if err := e.confirm(r, "%s", line); err != nil {
			return err
		}
	}
	return nil
}

func runTag(ctx context.Context, e *env, dir, refName string, d digest.Digest, names []string, replace bool) error {
	var changes []changeResult
	err := e.update(ctx, dir, func(tx *layout.Tx) error {
		changes = nil
		desc, err := layout.ResolveOne(ctx, tx.Source(), refName, d)
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := setRef(ctx, tx, name, desc, replace); err != nil {
				return err
			}
			change := newChange("tagged", desc)
			change.RefName = name
			changes = append(changes, change)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return e.confirmChanges(changes)
}

// setRef names desc, unless that would leave entries of an index without a name
// and nobody said so.
func setRef(ctx context.Context, tx *layout.Tx, name string, desc ocispec.Descriptor, replace bool) error {
	for _, old := range tx.Index().Entries() {
		if replace || layout.RefName(old) != name || old.Digest == desc.Digest || !layout.IsIndex(old.MediaType) {
			continue
		}
		lost, err := lostEntries(ctx, tx.Source(), old, desc)
		if err != nil {
			return err
		}
		if lost > 0 {
			err := fmt.Errorf("ref name %q names an index, %d entries of which would be lost: %w", name, lost, layout.ErrConflict)
			return layout.WithHint(err, "add image --into adds to an index; --replace drops its entries")
		}
	}
	tx.SetRef(name, desc)
	return nil
}

// lostEntries counts the entries of the index old that desc is not and has not.
func lostEntries(ctx context.Context, src layout.Source, old, desc ocispec.Descriptor) (int, error) {
	was, err := layout.ReadDocument(ctx, src, old)
	if err != nil {
		return 0, err
	}
	kept := []digest.Digest{desc.Digest}
	if layout.IsIndex(desc.MediaType) {
		now, err := layout.ReadDocument(ctx, src, desc)
		if err != nil {
			return 0, err
		}
		for _, m := range now.Manifests {
			kept = append(kept, m.Digest)
		}
	}
	lost := 0
	for _, m := range was.Manifests {
		if !slices.Contains(kept, m.Digest) {
			lost++
		}
	}
	return lost, nil
}
