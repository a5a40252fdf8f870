package main

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/extract"
)

// modeNames are the modes of extract as the command line spells them; case,
// hyphens and underscores do not count.
var modeNames = []string{"single", "MergeDir", "LayerPerDir", "ExtractAll"}

var modes = map[string]extract.Mode{
	"single": extract.Single, "mergedir": extract.MergeDir, "layerperdir": extract.LayerPerDir, "extractall": extract.ExtractAll,
}

func newExtractCommand(e *env) *cli.Command {
	var opts extractOptions
	return &cli.Command{
		Name: "extract", Usage: "unpack the archives in layers", ArgsUsage: "SOURCE",
		Description: "Unpacks layers that are tar archives, plain or compressed with gzip or zstd, into the directory OUT, which must not exist or be empty. " +
			"It appears whole, after every byte was verified, or not at all. No entry of an archive leads out of it. " + findHelp + "\n\n" +
			"--mode single takes exactly one layer; MergeDir all that fit of one manifest, in order, into OUT; LayerPerDir each into OUT/NN-NAME, NN being its number; " +
			"ExtractAll is MergeDir that also copies layers which are no archives. " +
			"--rootfs applies the layers of a container image to OUT/rootfs and writes its config to OUT/config.json.\n\n" + nameHelp + "\n\n" + sourceHelp,
		Flags:  opts.flags(opts.own()...),
		Action: func(c *cli.Context) error { return runExtract(c, e, &opts) },
	}
}

type extractOptions struct {
	findFlags
	mode, onConflict, symlinks, special string
	rootfs, preserve                    bool
	maxBytes, maxRatio, maxEntries      int64
}

func (o *extractOptions) own() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "mode", Usage: "take and unpack layers as `MODE` says: " + strings.Join(modeNames, ", "), Value: "single", Destination: &o.mode},
		&cli.BoolFlag{Name: "rootfs", Usage: "make the root file system of a container image", Destination: &o.rootfs},
		&cli.StringFlag{Name: "on-conflict", Usage: "do `WHAT` with a path that two layers have: identical-ok, error, first or last", Value: "identical-ok", Destination: &o.onConflict},
		&cli.StringFlag{Name: "symlinks", Usage: "do `WHAT` with symbolic links that lead out of OUT: error, skip or keep; error, with --rootfs keep, if it is not given", Destination: &o.symlinks},
		&cli.StringFlag{Name: "special", Usage: "do `WHAT` with devices and FIFOs: error or skip; error if it is not given", Destination: &o.special},
		&cli.BoolFlag{Name: "preserve", Usage: "keep owners, all mode bits, extended attributes and devices", Destination: &o.preserve},
		&cli.BoolFlag{Name: "force", Usage: "replace the directory OUT with all that is in it", Destination: &o.force},
		&cli.Int64Flag{Name: "max-bytes", Usage: "refuse a layer that holds more than `N` bytes", Destination: &o.maxBytes, DefaultText: "64 GiB"},
		&cli.Int64Flag{Name: "max-ratio", Usage: "refuse a layer that is compressed by more than `N`, above 1 GiB", Destination: &o.maxRatio, DefaultText: "1000"},
		&cli.Int64Flag{Name: "max-entries", Usage: "refuse a layer with more than `N` entries", Destination: &o.maxEntries, DefaultText: "2000000"},
	}
}

type extractResult struct {
	Path       string            `json:"path" doc:"the file, directory or link"`
	Type       string            `json:"type" doc:"file, directory, symlink, or another"`
	Mode       string            `json:"mode" doc:"its permission bits, in octal digits"`
	Size       int64             `json:"size" doc:"the size of a file in bytes; else 0"`
	Digest     digest.Digest     `json:"digest,omitempty" doc:"the digest of a file"`
	Target     string            `json:"target,omitempty" doc:"where a symbolic link leads to"`
	Descriptor *descriptorResult `json:"descriptor,omitempty" doc:"the descriptor of the layer or config that it comes from; absent for directories that no layer speaks of"`
	Manifest   digest.Digest     `json:"manifest" doc:"the digest of the manifest"`
}

// options reads the flags that say how to extract.
func (o *extractOptions) options(c *cli.Context, e *env) (*extract.Options, error) {
	x := &extract.Options{
		OnConflict: extract.OnConflict(o.onConflict), Symlinks: extract.Symlinks(o.symlinks), Special: extract.Special(o.special),
		Preserve: o.preserve, Force: o.force, Files: e.json, MaxBytes: o.maxBytes, MaxRatio: o.maxRatio, MaxEntries: o.maxEntries,
	}
	var ok bool
	if x.Mode, ok = modes[strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(o.mode))]; !ok {
		return nil, usagef(c, "--mode %q: want one of %s", o.mode, strings.Join(modeNames, ", "))
	}
	for flag, value := range map[string]string{"on-conflict": o.onConflict, "symlinks": o.symlinks, "special": o.special} {
		if want := fixedValues(flag); value != "" && !slices.Contains(want, value) {
			return nil, usagef(c, "--%s %q: want one of %s", flag, value, strings.Join(want, ", "))
		}
	}
	switch {
	case o.out == "-":
		return nil, layout.WithHint(usagef(c, "extract writes a directory"), "gloci-layout copy -o - writes a layer to stdout")
	case !o.rootfs:
	case c.IsSet("mode"):
		return nil, usagef(c, "--rootfs and --mode exclude each other")
	case o.layers.given(c):
		return nil, usagef(c, "--rootfs takes all layers of an image")
	case o.allManifests:
		return nil, usagef(c, "--rootfs takes one image: --all-manifests goes with --mode LayerPerDir and ExtractAll")
	default:
		x.Mode = extract.Rootfs
	}
	if o.allManifests && x.Mode != extract.LayerPerDir && x.Mode != extract.ExtractAll {
		return nil, usagef(c, "--all-manifests goes with --mode LayerPerDir and ExtractAll")
	}
	return x, nil
}

func runExtract(c *cli.Context, e *env, opts *extractOptions) error {
	r, err := opts.request(c)
	if err != nil {
		return err
	}
	x, err := opts.options(c, e)
	if err != nil {
		return err
	}
	if opts.rootfs {
		match := r.sel.Match
		r.sel.Match = func(desc ocispec.Descriptor, doc *layout.Document) bool {
			return doc.IsImage() && (match == nil || match(desc, doc))
		}
	}
	return opts.from.with(c, e, c.Args().First(), func(src layout.Source, ref layout.Reference) error {
		matches, err := opts.find(c, src, ref, r)
		if err != nil {
			return err
		}
		layers, err := plan(matches, r, x, opts.allManifests)
		if err != nil {
			return err
		}
		if ref.Transport != "docker" {
			x.Protect = []string{ref.Location}
		}
		p := e.startProgress("extract", false)
		x.Progress = p.event
		result, err := extract.Extract(c.Context, src, layers, opts.out, x)
		p.stop()
		if err != nil {
			return err
		}
		return showExtracted(e, opts.out, layers, matches[0], result)
	})
}

// plan says what becomes of each layer. Several manifests share x.Mode
// LayerPerDir, in which layers with one directory are merged.
func plan(matches []layout.LayerMatch, r findRequest, x *extract.Options, all bool) ([]extract.Layer, error) {
	dirs := []string{""}
	perLayer := x.Mode == extract.LayerPerDir
	if all {
		var err error
		if dirs, err = extract.ManifestDirs(matches); err != nil {
			return nil, err
		}
		x.Mode = extract.LayerPerDir
	}
	var layers []extract.Layer
	for i, m := range matches {
		chosen := m.Layers
		switch x.Mode {
		case extract.Single:
			l, err := m.One()
			if err != nil {
				return nil, layout.WithHint(err, "add one of these, or take all: --mode MergeDir, LayerPerDir or ExtractAll")
			}
			chosen = []layout.Layer{l}
		case extract.Rootfs:
			x.Config = m.Document.Config
		}
		for _, l := range chosen {
			layer := extract.Layer{Desc: l.Desc, Manifest: m.Desc}
			if x.Mode == extract.LayerPerDir || x.Mode == extract.ExtractAll {
				name, err := extract.LayerName(m.Match, l, r.template)
				if err != nil {
					return nil, err
				}
				layer.Name, layer.Dir = name, dirs[i]
				if perLayer {
					layer.Dir = path.Join(dirs[i], extract.LayerDir(l, name))
				}
			}
			layers = append(layers, layer)
		}
	}
	return layers, nil
}

func showExtracted(e *env, out string, layers []extract.Layer, m layout.LayerMatch, result *extract.Result) error {
	for _, s := range result.Skipped {
		e.log.Warn("left out", "path", s.Path, "layer", s.Source, "why", s.Why)
	}
	if e.json {
		for _, f := range result.Files {
			if err := e.emitJSON(newExtractResult(out, layers, m, f)); err != nil {
				return err
			}
		}
		return nil
	}
	for _, w := range result.Written {
		switch {
		case w.Path == "":
			e.log.Warn("left out, as it is no archive", "layer", w.Source.Digest, "type", w.Source.MediaType)
			continue
		case w.Archive:
			entries := "1 entry"
			if w.Entries != 1 {
				entries = fmt.Sprintf("%d entries", w.Entries)
			}
			err := e.confirm(nil, "extracted %s %s %s %s", filepath.Join(out, w.Path), w.Source.Digest, entries, size(w.Bytes))
			if err != nil {
				return err
			}
			continue
		}
		if err := e.confirm(nil, "copied %s %s %s", filepath.Join(out, w.Path), w.Source.Digest, size(w.Bytes)); err != nil {
			return err
		}
	}
	return nil
}

func newExtractResult(out string, layers []extract.Layer, m layout.LayerMatch, f extract.File) extractResult {
	r := extractResult{
		Path: filepath.Join(out, f.Path), Type: typeName(f.Mode), Mode: fmt.Sprintf("%04o", unixMode(f.Mode)),
		Size: f.Size, Digest: f.Digest, Target: f.Target, Manifest: m.Desc.Digest,
	}
	switch {
	case f.Layer >= 0:
		desc := resultOf(layers[f.Layer].Desc)
		r.Descriptor, r.Manifest = &desc, layers[f.Layer].Manifest.Digest
	case f.Path == "config.json" && m.Document.Config != nil:
		desc := resultOf(*m.Document.Config)
		r.Descriptor = &desc
	}
	return r
}
