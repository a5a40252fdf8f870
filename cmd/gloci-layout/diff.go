package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/delta"
	"github.com/gardenlinux/gloci-layout/layout/diff"
	"github.com/gardenlinux/gloci-layout/layout/diff/filediff"
	"github.com/gardenlinux/gloci-layout/layout/gardenlinux"
)

const diffDescription = `Compares A with B, level by level: ref names, entries of indexes, manifests, configs, layers, and the files and packages in layers. What has the same digest on both sides is not opened, so that of a registry only what differs is fetched. With a ref name or digest on both sides, those are compared, whatever their names; with one on one side, it is compared with all that the other has.

Entries are matched by flavour and architecture, whatever their version; then by platform, artifact type and digest. Layers are matched by title, then media type and position.

Each line begins with a letter: A added, D removed, M changed, V a ref name moved, R renamed, O other order, Z other compression of the same content, U upgraded, L downgraded.

--ignore takes words, separated by commas, for what does not count:

%s

--semantic is --ignore %s. docs/diff.md says what each covers.

Globs of --only and --exclude choose files, by their path in the archive, that of an archive around it, or the title of the layer. A ** stands for any number of directories; a glob without a slash fits the last part of a path. What lies above the level of files is not touched by them.

Exit status 0: equal, 1: different, 2 or more: trouble.

A and B are each a layout directory, an .oci file, or one of

`

type diffOptions struct {
	level, format, color string
	semantic, text, stat bool
	depth                int
	sel                  selectFlags
	from                 sourceFlags
}

func newDiffCommand(e *env) *cli.Command {
	var opts diffOptions
	_, forms, _ := strings.Cut(sourceHelp, "\n\n")
	words := make([]string, len(diff.IgnoreWords))
	for i, w := range diff.IgnoreWords {
		words[i] = fmt.Sprintf("  %-18s %s", w[0], w[1])
	}
	flags := []cli.Flag{
		&cli.StringFlag{Name: "level", Usage: "look no deeper than `LEVEL`: refs, index, manifest, config, layer or file", Value: "file", Destination: &opts.level},
		&cli.StringSliceFlag{Name: "ignore", Usage: "what does not count: `WORD,...`"},
		&cli.BoolFlag{Name: "semantic", Usage: "ignore what a rebuild of the same content may change", Destination: &opts.semantic},
		&cli.StringSliceFlag{Name: "only", Usage: "of files, look at those that `GLOB` fits"},
		&cli.StringSliceFlag{Name: "exclude", Usage: "of files, do not look at those that `GLOB` fits"},
		&cli.BoolFlag{Name: "text", Usage: "show unified diffs of text files up to 1 MiB", Destination: &opts.text},
		&cli.IntFlag{Name: "depth", Usage: "open archives in archives, `N` in one another", Value: 4, Destination: &opts.depth},
		&cli.BoolFlag{Name: "stat", Usage: "print one line for each manifest that differs", Destination: &opts.stat},
		&cli.StringFlag{Name: "format", Usage: "print `FORMAT`: text, markdown or html (one file)", Value: "text", Destination: &opts.format},
		&cli.StringFlag{Name: "color", Usage: "colour text `WHEN`: auto, always or never", Value: "auto", Destination: &opts.color},
	}
	return &cli.Command{
		Name: "diff", Usage: "tell what differs between two sources", ArgsUsage: "A B",
		Description: fmt.Sprintf(diffDescription, strings.Join(words, "\n"), strings.Join(diff.Semantic, ",")) + forms,
		Flags:       append(append(flags, opts.sel.flags()...), opts.from.flags()...),
		Action:      func(c *cli.Context) error { return runDiff(c, e, &opts) },
	}
}

// options reads the flags.
func (o *diffOptions) options(c *cli.Context) (*diff.Options, error) {
	var d diff.Options
	var err error
	if d.Level, err = diff.ParseLevel(o.level); err != nil {
		return nil, usagef(c, "--level: %v", err)
	}
	var words []string
	if o.semantic {
		words = slices.Clone(diff.Semantic)
	}
	for _, list := range c.StringSlice("ignore") {
		words = append(words, strings.Split(list, ",")...)
	}
	if err := d.Ignore.ParseIgnore(words...); err != nil {
		return nil, usagef(c, "--ignore: %v", err)
	}
	for _, flag := range []string{"only", "exclude"} {
		for _, glob := range c.StringSlice(flag) {
			if err := filediff.CheckGlob(glob); err != nil {
				return nil, usagef(c, "--%s: %v", flag, err)
			}
		}
	}
	if o.depth < 0 {
		return nil, usagef(c, "--depth %d: want 0 or more", o.depth)
	}
	d.Files = filediff.Options{Only: c.StringSlice("only"), Exclude: c.StringSlice("exclude"), Text: o.text, Depth: o.depth}
	if o.depth == 0 {
		d.Files.Depth = -1
	}
	if o.sel.given(c) {
		sel, err := o.sel.selector(c)
		if err != nil {
			return nil, err
		}
		d.Select = &sel
	}
	d.Key = flavourOf
	d.Name = flavourOf
	return &d, nil
}

// flavourOf names a Garden Linux entry whatever its version; "" for others.
func flavourOf(desc ocispec.Descriptor) string {
	if n, err := gardenlinux.ParseName(gardenlinux.Key(desc)); err == nil {
		return n.Flavor()
	}
	return ""
}

func runDiff(c *cli.Context, e *env, o *diffOptions) error {
	opts, err := o.options(c)
	if err != nil {
		return err
	}
	p, err := o.printer(c, e)
	if err != nil {
		return err
	}
	a, b := c.Args().Get(0), c.Args().Get(1)
	return o.from.with(c, e, a, func(srcA layout.Source, refA layout.Reference) error {
		if delta.Lacks(srcA) == nil {
			o.from.impliesBase(srcA)
		}
		return o.from.with(c, e, b, func(srcB layout.Source, refB layout.Reference) error {
			sideA, sideB, err := sides(c.Context, srcA, refA, srcB, refB)
			if err != nil {
				return err
			}
			// What is equal is counted where that costs no request.
			switch {
			case refB.Transport != "docker":
				opts.Total = "b"
			case refA.Transport != "docker":
				opts.Total = "a"
			}
			return compare(c.Context, sideA, sideB, opts, p)
		})
	})
}

// sides are what the references name.
func sides(ctx context.Context, srcA layout.Source, refA layout.Reference, srcB layout.Source, refB layout.Reference) (a, b diff.Side, err error) {
	a.Source, b.Source = srcA, srcB
	if refA.RefName+string(refA.Digest)+refB.RefName+string(refB.Digest) == "" {
		return a, b, nil
	}
	if a.Roots, err = layout.Resolve(ctx, srcA, refA.RefName, refA.Digest); err == nil {
		b.Roots, err = layout.Resolve(ctx, srcB, refB.RefName, refB.Digest)
	}
	if a.Roots == nil {
		a.Roots = []ocispec.Descriptor{} // an empty index.json
	}
	if b.Roots == nil {
		b.Roots = []ocispec.Descriptor{}
	}
	return a, b, err
}

// compare runs the comparison and prints it.
func compare(ctx context.Context, a, b diff.Side, opts *diff.Options, p diffPrinter) error {
	var sum diff.Summary
	changes := 0
	for ch, err := range diff.Compare(ctx, a, b, opts, &sum) {
		if err != nil {
			return err
		}
		changes++
		if err := p.change(&ch); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := p.end(newDiffSummary(&sum, changes)); err != nil {
		return err
	}
	if changes > 0 {
		return errAnswerIsNo
	}
	return nil
}

// A diffPrinter prints a comparison.
type diffPrinter interface {
	change(ch *diff.Change) error
	end(sum diffSummary) error
}

func (o *diffOptions) printer(c *cli.Context, e *env) (diffPrinter, error) {
	switch {
	case !slices.Contains(fixedValues("format"), o.format):
		return nil, usagef(c, "--format %q: want text, markdown or html", o.format)
	case !slices.Contains([]string{"auto", "always", "never"}, o.color):
		return nil, usagef(c, "--color %q: want auto, always or never", o.color)
	case e.json && o.format != "text":
		return nil, usagef(c, "--json and --format %s exclude each other", o.format)
	case o.stat && o.format != "text":
		return nil, usagef(c, "--stat and --format %s exclude each other", o.format)
	case o.format == "html":
		return newDiffHTML(e, c.Args().Get(0), c.Args().Get(1)), nil
	case o.format == "markdown":
		return newDiffMarkdown(e, c.Args().Get(0), c.Args().Get(1)), nil
	case o.stat:
		return &diffStat{env: e}, nil
	case e.json:
		return &diffJSON{env: e}, nil
	}
	return &diffText{env: e, color: o.color == "always" || o.color == "auto" && os.Getenv("NO_COLOR") == "" && terminal(e.stdout) != nil}, nil
}

// colorOf is the colour of a kind of change on a terminal.
func colorOf(k diff.Kind) string {
	switch k {
	case filediff.Added, filediff.Upgraded:
		return "32"
	case filediff.Removed, filediff.Downgraded:
		return "31"
	case filediff.Changed, filediff.Moved:
		return "33"
	case filediff.Renamed, filediff.Reordered, filediff.Recompressed:
		return "36"
	}
	return ""
}
