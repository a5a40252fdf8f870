package main

import (
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/extract"
)

func newCopyCommand(e *env) *cli.Command {
	var opts copyOptions
	return &cli.Command{
		Name: "copy", Usage: "copy layers to files, as they are", ArgsUsage: "SOURCE",
		Description: "With -o FILE copies one layer to FILE, with -o DIR/ all layers that fit into the directory DIR, with -o - one layer to stdout. " +
			"Every byte is verified before a file appears under its name, or goes to stdout. " + findHelp + "\n\n" + nameHelp + "\n\n" + sourceHelp,
		Flags: opts.flags(
			&cli.BoolFlag{Name: "force", Usage: "replace files that are in the way", Destination: &opts.force},
		),
		Action: func(c *cli.Context) error { return runCopy(c, e, &opts) },
	}
}

type copyOptions struct{ findFlags }

type copyResult struct {
	Path       string           `json:"path" doc:"the file that was written"`
	Digest     digest.Digest    `json:"digest" doc:"its digest"`
	Size       int64            `json:"size" doc:"its size in bytes"`
	Layer      int              `json:"layer" doc:"the number of the layer, counted from 0; -1 for the config"`
	Descriptor descriptorResult `json:"descriptor" doc:"the descriptor of the layer"`
	Manifest   digest.Digest    `json:"manifest" doc:"the digest of the manifest"`
}

func runCopy(c *cli.Context, e *env, opts *copyOptions) error {
	r, err := opts.request(c)
	if err != nil {
		return err
	}
	if opts.out == "-" {
		switch {
		case e.json:
			return usagef(c, "-o - and --json exclude each other")
		case opts.name != "" || opts.allManifests || opts.force:
			return usagef(c, "-o - is no file: --name, --all-manifests and --force are for files")
		case terminal(e.stdout) != nil:
			err := usagef(c, "a layer is not written to a terminal")
			return layout.WithHint(err, "redirect stdout, or name a file")
		}
	}
	return opts.from.with(c, e, c.Args().First(), func(src layout.Source, ref layout.Reference) error {
		matches, err := opts.find(c, src, ref, r)
		if err != nil {
			return err
		}
		p := e.startProgress("copy", false)
		results, err := copyLayers(c, e, src, matches, r, opts, &extract.CopyOptions{Force: opts.force, Progress: p.event})
		p.stop()
		if err != nil {
			return err
		}
		for _, r := range results {
			if err := e.confirm(r, "copied %s %s %s", r.Path, r.Digest, size(r.Size)); err != nil {
				return err
			}
		}
		return nil
	})
}

func copyLayers(c *cli.Context, e *env, src layout.Source, matches []layout.LayerMatch, r findRequest, opts *copyOptions, co *extract.CopyOptions) ([]copyResult, error) {
	if !opts.intoDir() {
		m := matches[0] // without --all-manifests there is one
		l, err := m.One()
		if err != nil {
			return nil, layout.WithHint(err, "add one of these, or end OUT with / to copy them all into a directory")
		}
		if opts.out == "-" {
			return nil, extract.CopyTo(c.Context, src, l.Desc, e.stdout, co)
		}
		err = extract.CopyFile(c.Context, src, l.Desc, opts.out, co)
		return []copyResult{newCopyResult(opts.out, m, l)}, err
	}
	dirs := []string{""}
	if opts.allManifests {
		var err error
		if dirs, err = extract.ManifestDirs(matches); err != nil {
			return nil, err
		}
	}
	var all []extract.NamedLayer
	var results []copyResult
	for i, m := range matches {
		named, err := extract.NameLayers(m, r.template)
		if err != nil {
			return nil, err
		}
		for _, l := range named {
			l.Name = filepath.ToSlash(filepath.Join(dirs[i], l.Name))
			all = append(all, l)
			results = append(results, newCopyResult(filepath.Join(opts.out, l.Name), m, l.Layer))
		}
	}
	return results, extract.CopyDir(c.Context, src, opts.out, all, co)
}

func newCopyResult(path string, m layout.LayerMatch, l layout.Layer) copyResult {
	return copyResult{
		Path: path, Digest: l.Desc.Digest, Size: l.Desc.Size, Layer: l.Number,
		Descriptor: resultOf(l.Desc), Manifest: m.Desc.Digest,
	}
}
