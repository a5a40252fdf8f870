package main

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/archive"
	"github.com/gardenlinux/gloci-layout/layout/delta"
	"github.com/gardenlinux/gloci-layout/layout/recompress"
)

func newPackCommand(e *env) *cli.Command {
	var opts packOptions
	opts.from.ownBase = true
	return &cli.Command{
		Name: "pack", Usage: "write a layout to one file", ArgsUsage: "SOURCE FILE.oci",
		Description: "FILE.oci is a tar with index.json, oci-layout and all content that index.json reaches; - is stdout, and what was written is told on stderr then. " +
			"With SOURCE:REFNAME or --ref only what these ref names name, and what refers to that or to what it names: signatures, attestations, SBOMs. A name that ends in .gz or .zst is compressed so.\n\n" +
			"The same content gives the same bytes: times are those of SOURCE_DATE_EPOCH, else 1970. " +
			"FILE.oci appears whole or not at all.\n\n" +
			"With --split there are parts FILE.oci.ID.001-of-NNN beside each other, at most 999, and the manifest FILE.oci.parts.json with their digests. " +
			"Every command reads FILE.oci in place from them, verify checks them, also one alone, and cat joins them in the order of their names. " +
			"A run that was interrupted or killed can be repeated: what is there by then is compared, and not written again.\n\n" +
			"With --base FILE.oci is a delta: it holds only what the base lacks, and names what it expects there. " +
			"The base is a source, or what inventory has written of one; given more than once, all of them together. " +
			"A base that is a delta counts as the whole that it makes. " +
			"With --delta-blobs a changed layer is compared with what the base has in its place, which then has to have content, and with other layers, so that what several of them have is stored once; layers in gzip and zstd uncompressed, if compressing them again gives the same bytes. " +
			"verify, unpack, merge and all commands that read take a delta with --base SOURCE.\n\n" +
			"With --docker there is a manifest.json too, for docker load, with the container images under their ref names; " +
			"a ref name that is no full name, such as host/repo:tag, becomes NAME:latest. Artifacts stay in the archive, and docker load does not see them.\n\n" + sourceHelp,
		Flags: append([]cli.Flag{
			&cli.StringSliceFlag{Name: "ref", Usage: "pack only what the ref name `REFNAME` names"},
			&cli.StringFlag{Name: "split", Usage: "write parts of `SIZE` bytes; K, M and G may follow the number. FAT takes 4095M", Destination: &opts.split},
			&cli.BoolFlag{Name: "docker", Usage: "make a file that docker load reads", Destination: &opts.docker},
			&cli.StringFlag{Name: "platform", Usage: "with --docker: of indexes, the images of this `PLATFORM`, os/architecture[/variant]", Destination: &opts.platform},
			&cli.BoolFlag{Name: "all", Usage: "pack blobs that nothing names too", Destination: &opts.all},
			baseFlag("leave out what `SOURCE|INVENTORY` has"),
			&cli.BoolFlag{Name: "delta-blobs", Usage: "with --base, store changed blobs as what changed in them, where that saves a tenth", Destination: &opts.deltaBlobs},
			&cli.BoolFlag{Name: "no-referrers", Usage: "leave out what refers to SOURCE:REFNAME and what it names", Destination: &opts.noReferrers},
			&cli.BoolFlag{Name: "sparse", Usage: "pack indexes with members that SOURCE lacks, as pull --sparse leaves them", Destination: &opts.sparse},
			&cli.StringFlag{Name: "compress", Usage: "compress as `FORMAT` none, gzip or zstd", Destination: &opts.compress},
			&cli.IntFlag{Name: "level", Usage: "compress at `LEVEL`: gzip 1 to 9, zstd 1 to 22; 0 means the usual one", Destination: &opts.level},
		}, append(opts.to.flags(), opts.from.flags()...)...),
		Action: func(c *cli.Context) error { return runPack(c, e, &opts) },
	}
}

type packOptions struct {
	all, noReferrers bool
	sparse           bool
	compress         string
	level            int
	split            string
	deltaBlobs       bool
	docker           bool
	platform         string
	to               toFlags
	from             sourceFlags
}

type packResult struct {
	File     string        `json:"file" doc:"the file"`
	Digest   digest.Digest `json:"digest" doc:"the digest of the file"`
	Size     int64         `json:"size" doc:"its size in bytes"`
	Manifest string        `json:"manifest,omitempty" doc:"with --split, the manifest of the parts that the file is in"`
	Parts    int           `json:"parts,omitempty" doc:"with --split, how many there are"`
	Delta    *packDelta    `json:"delta,omitempty" doc:"with --base, what is expected there"`
}

type packDelta struct {
	Blobs int   `json:"blobs" doc:"how many blobs"`
	Bytes int64 `json:"bytes" doc:"their size"`

	Patched int `json:"patched,omitempty" doc:"with --delta-blobs, how many blobs are made of others"`
}

func runPack(c *cli.Context, e *env, opts *packOptions) (err error) {
	file := c.Args().Get(1)
	po := archive.PackOptions{All: opts.all, NoReferrers: opts.noReferrers, Docker: opts.docker, Sparse: opts.sparse, Level: opts.level, Compression: compress.FormatOfName(file)}
	if opts.compress != "" {
		if po.Compression, err = compress.ParseFormat(opts.compress); err != nil {
			return usagef(c, "--compress: %v", err)
		}
		if byName := compress.FormatOfName(file); byName != compress.None && byName != po.Compression {
			return usagef(c, "--compress %s, but %s is a name for %s", opts.compress, file, byName)
		}
	}
	if po.Level != 0 && po.Compression == compress.None {
		return usagef(c, "--level %d without compression", po.Level)
	}
	if po.Time, err = sourceDateEpoch(c); err != nil {
		return err
	}
	if opts.docker && len(c.StringSlice("base")) > 0 {
		return usagef(c, "--docker needs all content in the file, --base leaves some out")
	}
	if opts.platform != "" {
		if !opts.docker {
			return usagef(c, "--platform goes with --docker")
		}
		if po.DockerPlatform, err = layout.ParsePlatform(opts.platform); err != nil {
			return usagef(c, "%v", err)
		}
	}
	var partSize int64
	if opts.split != "" {
		if partSize, err = parseSize(opts.split); err != nil || partSize < 1 {
			return usagef(c, "--split %q: want a number of bytes, such as 4G", opts.split)
		}
		if file == "-" {
			return usagef(c, "--split writes files, not stdout")
		}
	}
	if slices.Contains(c.StringSlice("ref"), "") {
		return usagef(c, "--ref: no ref name is empty")
	}
	if file == "-" && terminal(e.stdout) != nil {
		err := usagef(c, "an archive is not written to a terminal")
		return layout.WithHint(err, "redirect stdout, or name a file")
	}
	bases, err := opts.from.openBases(c, e, c.StringSlice("base"), true)
	if err != nil {
		return err
	}
	defer closeWith(&err, bases.close)
	if opts.deltaBlobs {
		if len(bases.sources) == 0 {
			return usagef(c, "--delta-blobs needs a --base with content")
		}
		for _, src := range bases.sources {
			if d := delta.Lacks(src); d != nil {
				return delta.NoBase(src, d)
			}
		}
		po.Bases, po.Key = bases.sources, flavourOf
	}
	if c.IsSet("base") {
		if po.Base, err = bases.inventory(c); err != nil {
			return err
		}
		opts.from.implied = func() ([]layout.Source, error) { return bases.sources, nil }
	}
	return opts.from.with(c, e, c.Args().First(), func(src layout.Source, ref layout.Reference) error {
		if ref.Digest != "" {
			return usagef(c, "%s: pack takes ref names, no digests; give the content one with gloci-layout tag", ref)
		}
		po.RefNames = c.StringSlice("ref")
		if ref.RefName != "" {
			po.RefNames = append(po.RefNames, ref.RefName)
		}
		if po.All && po.RefNames != nil {
			return usagef(c, "--all packs everything, not what some ref names name")
		}
		if po.All && (opts.to.zstd || opts.to.gzip) {
			return usagef(c, "--all packs what is there, and --to-zstd and --to-gzip something else")
		}
		what := recompress.CopyOptions{RefNames: po.RefNames, NoReferrers: po.NoReferrers, Sparse: po.Sparse}
		return opts.to.with(c, e, src, what, func(src layout.Source) error {
			if partSize > 0 {
				return packParts(c.Context, e, src, file, partSize, po)
			}
			return pack(c.Context, e, src, file, po)
		})
	})
}

func packParts(ctx context.Context, e *env, src layout.Source, file string, partSize int64, po archive.PackOptions) error {
	p := e.startProgress("pack", false)
	po.Progress = p.event
	r := packResult{File: file}
	expected := r.describe(&po)
	m, err := archive.PackParts(ctx, src, file, partSize, &po)
	p.stop()
	if err != nil {
		return err
	}
	r.Digest, r.Size, r.Manifest, r.Parts = m.Digest, m.Size, file+layout.PartsSuffix, len(m.Parts)
	return e.confirm(r, "packed %s %s %s in %s%s", r.Manifest, r.Digest, size(r.Size), plural(r.Parts, "part"), expected())
}

// describe has pack tell r of the delta that it makes. expected is what there is
// to say of it in the end.
func (r *packResult) describe(po *archive.PackOptions) (expected func() string) {
	po.Describe = func(d *delta.Description) {
		r.Delta = &packDelta{}
		for _, info := range d.Needs() {
			r.Delta.Blobs++
			r.Delta.Bytes += info.Size
		}
		r.Delta.Patched = len(d.Patches)
	}
	return func() string {
		if r.Delta == nil {
			return ""
		}
		patched := ""
		if r.Delta.Patched > 0 {
			patched = fmt.Sprintf("; %s as patches", plural(r.Delta.Patched, "blob"))
		}
		return fmt.Sprintf("%s; %s, %s, expected at the base", patched, plural(r.Delta.Blobs, "blob"), size(r.Delta.Bytes))
	}
}

func pack(ctx context.Context, e *env, src layout.Source, file string, po archive.PackOptions) error {
	p := e.startProgress("pack", false)
	po.Progress = p.event
	po.NoDigest = e.quiet && !e.json // nobody is told
	r := packResult{File: file}
	expected := r.describe(&po)
	if file == "-" {
		return packStdout(ctx, e, src, po, p, expected)
	}
	info, err := archive.PackFile(ctx, src, file, &po)
	p.stop()
	if err != nil {
		return err
	}
	r.Digest, r.Size = info.Digest, info.Size
	return e.confirm(r, "packed %s %s %s%s", file, info.Digest, size(info.Size), expected())
}

// packStdout tells on stderr what it wrote: stdout has the archive.
func packStdout(ctx context.Context, e *env, src layout.Source, po archive.PackOptions, p *progress, expected func() string) error {
	out := hashCounter{w: e.stdout, hash: digest.SHA256.Digester()}
	err := archive.Pack(ctx, src, &out, &po)
	p.stop()
	if err == nil && !e.quiet {
		_, err = fmt.Fprintf(e.stderr, "packed - %s %s%s\n", out.hash.Digest(), size(out.n), expected())
	}
	return err
}

// A hashCounter hashes what it passes on.
type hashCounter struct {
	w    io.Writer
	n    int64
	hash digest.Digester
}

func (c *hashCounter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	c.hash.Hash().Write(p[:n])
	return n, err
}
