package main

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
)

func newInspectCommand(e *env) *cli.Command {
	opts := inspectOptions{}
	return &cli.Command{
		Name: "inspect", Usage: "show an index, a manifest or a config", ArgsUsage: "SOURCE",
		Description: "Shows what a ref name or digest names: without one, index.json; with flags that select, " +
			"the one manifest that they select. JSON is indented, unless --raw asks for the exact bytes.\n\n" + sourceHelp,
		Flags: append(append([]cli.Flag{
			&cli.BoolFlag{Name: "raw", Usage: "print the exact bytes", Destination: &opts.raw},
			&cli.BoolFlag{Name: "config", Usage: "show the config of the manifest instead", Destination: &opts.config},
		}, opts.sel.flags()...), opts.from.flags()...),
		Action: func(c *cli.Context) error { return runInspect(c, e, &opts) },
	}
}

type inspectOptions struct {
	raw, config bool
	sel         selectFlags
	from        sourceFlags
}

type inspectResult struct {
	RefName   string          `json:"refName,omitempty" doc:"the ref name of the entry"`
	Digest    digest.Digest   `json:"digest" doc:"the digest of the document"`
	MediaType string          `json:"mediaType" doc:"its media type"`
	Size      int64           `json:"size" doc:"its size in bytes"`
	Document  json.RawMessage `json:"document,omitempty" doc:"the document itself; absent where it is no JSON"`
}

func runInspect(c *cli.Context, e *env, opts *inspectOptions) error {
	sel, err := opts.sel.selector(c)
	if err != nil {
		return err
	}
	if opts.raw && e.json {
		return usagef(c, "--raw and --json exclude each other")
	}
	return opts.from.with(c, e, c.Args().First(), func(src layout.Source, ref layout.Reference) error {
		ctx := c.Context
		if ref.RefName == "" && ref.Digest == "" && !opts.sel.given(c) && !opts.config {
			x, err := src.Index(ctx)
			if err != nil {
				return err
			}
			return showDocument(e, x.Descriptor(), x.Bytes(), opts.raw)
		}
		var desc ocispec.Descriptor
		if opts.sel.given(c) || opts.config {
			roots, err := layout.Resolve(ctx, src, ref.RefName, ref.Digest)
			if err != nil {
				return err
			}
			m, err := layout.SelectOne(ctx, src, roots, sel)
			if err != nil {
				return err
			}
			if !opts.config {
				desc = m.Desc
			} else if desc, err = configOf(m); err != nil {
				return err
			}
		} else if desc, err = layout.ResolveOne(ctx, src, ref.RefName, ref.Digest); err != nil {
			return err
		}
		if !opts.config && !layout.IsIndex(desc.MediaType) && !layout.IsManifest(desc.MediaType) {
			err := fmt.Errorf("%s is a %s, neither index nor manifest", desc.Digest, desc.MediaType)
			return layout.WithHint(err, "gloci-layout cat prints any blob")
		}
		raw, err := layout.ReadAll(ctx, src, desc, layout.MaxDocument)
		if err != nil {
			return err
		}
		return showDocument(e, desc, raw, opts.raw)
	})
}

func configOf(m layout.Match) (ocispec.Descriptor, error) {
	if m.Document.Config == nil {
		return ocispec.Descriptor{}, fmt.Errorf("manifest %s has no config: %w", m.Desc.Digest, layout.ErrNotFound)
	}
	return *m.Document.Config, nil
}

func showDocument(e *env, desc ocispec.Descriptor, doc []byte, raw bool) error {
	var indented bytes.Buffer
	isJSON := json.Indent(&indented, bytes.TrimSpace(doc), "", "  ") == nil
	switch {
	case e.json:
		r := inspectResult{RefName: layout.RefName(desc), Digest: desc.Digest, MediaType: desc.MediaType, Size: desc.Size}
		if isJSON {
			r.Document = doc
		}
		return e.emitJSON(r)
	case raw || !isJSON:
		_, err := e.stdout.Write(doc)
		return err
	}
	_, err := fmt.Fprintln(e.stdout, escapeJSON(indented.String()))
	return err
}
