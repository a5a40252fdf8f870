package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/internal/pattern"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/casengine"
	"github.com/gardenlinux/gloci-layout/layout/image"
)

const rootfsHelp = `With --rootfs, --layer or --base a new image is made instead, and there is no SOURCE: of the image that --base names, as a ref name or @DIGEST of LAYOUT or as a SOURCE with its transport (oci:DIR); of what --rootfs names, a directory or a tar archive, as one layer on top; and of each --layer, as it is. Its config is that of the base, with what --cmd, --entrypoint, --env, --label, --user, --workdir, --expose, --volume and --stop-signal change. ` +
	`A new entrypoint takes the cmd of the base away. Without a base, --platform says what the image is for.

The files of a directory are taken with their owners, modes, times, hard links and the extended attributes that mean something on another host; sockets are left out with a warning. --owner gives all of them one owner. Character devices 0:0 and directories with the attribute overlay.opaque are whiteouts, as in overlayfs. ` +
	`The same files and flags give the same bytes: no time is later than SOURCE_DATE_EPOCH, and without it the image has no time of creation.`

// buildOptions are the flags that make an image.
type buildOptions struct {
	rootfs, base, compress, owner string
	user, workdir, stopSignal     string
}

func (b *buildOptions) flags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "rootfs", Usage: "make an image of the root file system `DIR|TAR`", Destination: &b.rootfs},
		&cli.StringSliceFlag{Name: "layer", Usage: "append `FILE`, a tar archive, plain, gzip or zstd, as a layer; may be given again"},
		&cli.StringFlag{Name: "base", Usage: "make it on the image `REF|SOURCE`", Destination: &b.base},
		&cli.StringFlag{Name: "compress", Usage: "how the layer of --rootfs is compressed: `FORMAT` gzip, zstd or none", Value: "gzip", Destination: &b.compress},
		&cli.StringFlag{Name: "owner", Usage: "whom all files of a directory belong to: `UID[:GID]`", Destination: &b.owner},
		&cli.StringSliceFlag{Name: "cmd", Usage: "a `WORD` of the default command; may be given again, or once as a JSON array"},
		&cli.StringSliceFlag{Name: "entrypoint", Usage: "a `WORD` of the entrypoint; as --cmd"},
		&cli.StringSliceFlag{Name: "env", Usage: "set the variable `KEY=VALUE`"},
		&cli.StringSliceFlag{Name: "label", Usage: "give the config the label `KEY=VALUE`"},
		&cli.StringSliceFlag{Name: "annotation", Usage: "give the manifest the annotation `KEY=VALUE`"},
		&cli.StringFlag{Name: "user", Usage: "run as `USER[:GROUP]`", Destination: &b.user},
		&cli.StringFlag{Name: "workdir", Usage: "run in the directory `DIR`", Destination: &b.workdir},
		&cli.StringFlag{Name: "stop-signal", Usage: "stop with `SIGNAL`", Destination: &b.stopSignal},
		&cli.StringSliceFlag{Name: "expose", Usage: "a container listens on `PORT[/PROTOCOL]`"},
		&cli.StringSliceFlag{Name: "volume", Usage: "a container keeps data in the directory `DIR`"},
	}
}

// wanted tells whether an image is to be made.
func (b *buildOptions) wanted(c *cli.Context) bool {
	return b.rootfs != "" || b.base != "" || len(c.StringSlice("layer")) > 0
}

// checkUnused refuses flags that only make sense where an image is made.
func (b *buildOptions) checkUnused(c *cli.Context) error {
	for _, f := range b.flags() {
		if name := f.Names()[0]; c.IsSet(name) {
			return usagef(c, "--%s goes with --rootfs, --layer or --base", name)
		}
	}
	return nil
}

// A buildPlan is a command line that was understood.
type buildPlan struct {
	rootfs      string
	layers      []string
	format      compress.Format
	tree        casengine.TreeOptions
	edit        image.Edit
	annotations map[string]string
}

func runBuildImage(c *cli.Context, e *env, opts *addImageOptions, platform *ocispec.Platform) error {
	plan, err := opts.build.plan(c, e, opts, platform)
	if err != nil {
		return err
	}
	ctx := c.Context
	var changes []changeResult
	err = e.stage(ctx, layoutPath(c.Args().First()), func(s *layout.Stage) error {
		return opts.withBase(c, e, s, platform, func(base *image.Base) error {
			desc, err := plan.make(ctx, c, s, base)
			if err != nil {
				return err
			}
			return s.Update(ctx, func(tx *layout.Tx) error {
				// The platform chose the base; the entry has that of the image.
				changes, err = putAll(ctx, tx, []ocispec.Descriptor{desc}, opts, nil)
				return err
			})
		})
	})
	if err != nil {
		return err
	}
	return e.confirmChanges(changes)
}

// plan reads the command line.
func (b *buildOptions) plan(c *cli.Context, e *env, opts *addImageOptions, platform *ocispec.Platform) (*buildPlan, error) {
	switch {
	case c.NArg() > 1:
		return nil, usagef(c, "a SOURCE does not go with --rootfs, --layer or --base")
	case opts.all || opts.noReferrers:
		return nil, usagef(c, "--all and --no-referrers do not go with --rootfs, --layer or --base")
	case opts.ref == "" && opts.into == "":
		return nil, usagef(c, "--ref or --into must say where the image goes")
	case b.base == "" && platform == nil:
		return nil, usagef(c, "--platform is missing: without --base nothing says what the image is for")
	case b.rootfs == "" && (c.IsSet("compress") || c.IsSet("owner")):
		return nil, usagef(c, "--compress and --owner go with --rootfs")
	}
	p := &buildPlan{rootfs: b.rootfs, layers: c.StringSlice("layer")}
	var err error
	if p.format, err = compress.ParseFormat(b.compress); err != nil {
		return nil, usagef(c, "--compress: %v", err)
	}
	p.tree.Logger = e.log
	if p.tree.Owner, err = parseOwner(c, b.owner); err != nil {
		return nil, err
	}
	if p.annotations, err = annotations(c, "annotation"); err != nil {
		return nil, err
	}
	created, err := sourceDateEpoch(c)
	if err != nil {
		return nil, err
	}
	p.tree.Latest = created
	p.edit = image.Edit{Platform: platform, Created: created}
	return p, b.planConfig(c, &p.edit)
}

func (b *buildOptions) planConfig(c *cli.Context, edit *image.Edit) error {
	var err error
	if edit.Cmd, err = words(c, "cmd"); err != nil {
		return err
	}
	if edit.Entrypoint, err = words(c, "entrypoint"); err != nil {
		return err
	}
	if _, err = annotations(c, "env"); err != nil { // no key twice, none empty
		return err
	}
	edit.Env = c.StringSlice("env")
	if edit.Labels, err = annotations(c, "label"); err != nil {
		return err
	}
	for _, port := range c.StringSlice("expose") {
		if err := checkPort(port); err != nil {
			return usagef(c, "--expose %q: %v", port, err)
		}
	}
	edit.ExposedPorts = c.StringSlice("expose")
	for _, dir := range c.StringSlice("volume") {
		if !path.IsAbs(dir) {
			return usagef(c, "--volume %q: want an absolute path", dir)
		}
	}
	edit.Volumes = c.StringSlice("volume")
	if b.workdir != "" && !path.IsAbs(b.workdir) {
		return usagef(c, "--workdir %q: want an absolute path", b.workdir)
	}
	for name, to := range map[string]struct {
		field **string
		value *string
	}{"user": {&edit.User, &b.user}, "workdir": {&edit.WorkingDir, &b.workdir}, "stop-signal": {&edit.StopSignal, &b.stopSignal}} {
		if c.IsSet(name) {
			*to.field = to.value
		}
	}
	return nil
}

// words reads a command: its words one by one, or all as a JSON array. An empty
// one is an empty list, none is nil.
func words(c *cli.Context, flag string) ([]string, error) {
	values := c.StringSlice(flag)
	if len(values) == 1 {
		if values[0] == "" {
			return []string{}, nil
		}
		if strings.HasPrefix(values[0], "[") {
			list := []string{}
			if err := json.Unmarshal([]byte(values[0]), &list); err != nil {
				return nil, usagef(c, "--%s %q: want a word or a JSON array of strings", flag, values[0])
			}
			return list, nil
		}
	}
	if slices.Contains(values, "") {
		return nil, usagef(c, "--%s: a word is empty", flag)
	}
	return values, nil
}

var portGrammar = pattern.New(`^([0-9]{1,5})(-([0-9]{1,5}))?(/(tcp|udp|sctp))?$`)

func checkPort(s string) error {
	m := portGrammar.FindStringSubmatch(s)
	if m == nil {
		return errors.New("want PORT[/PROTOCOL]")
	}
	for _, digits := range []string{m[1], m[3]} {
		if n, err := strconv.Atoi(digits); digits != "" && (err != nil || n < 1 || n > 65535) {
			return errors.New("want a port from 1 to 65535")
		}
	}
	return nil
}

func parseOwner(c *cli.Context, s string) (*casengine.Owner, error) {
	if !c.IsSet("owner") {
		return nil, nil
	}
	uid, gid, both := strings.Cut(s, ":")
	if !both {
		gid = uid
	}
	u, err := strconv.ParseUint(uid, 10, 31)
	g, gerr := strconv.ParseUint(gid, 10, 31)
	if err != nil || gerr != nil {
		return nil, usagef(c, "--owner %q: want UID[:GID], as numbers", s)
	}
	return &casengine.Owner{UID: int(u), GID: int(g)}, nil
}

// withBase calls fn with the image that --base names, nil without one.
func (opts *addImageOptions) withBase(c *cli.Context, e *env, s *layout.Stage, platform *ocispec.Platform, fn func(base *image.Base) error) error {
	operand := opts.build.base
	if operand == "" {
		return fn(nil)
	}
	find := func(src layout.Source, ref layout.Reference) error {
		descs, err := layout.Resolve(c.Context, src, ref.RefName, ref.Digest)
		if err != nil {
			return fmt.Errorf("base: %w", err)
		}
		base, err := image.Find(c.Context, src, descs, platform)
		if err != nil {
			return fmt.Errorf("base: %w", err)
		}
		return fn(base)
	}
	if namesSource(operand) {
		return opts.from.with(c, e, operand, find)
	}
	refName, d, err := parseTarget(c, operand)
	if err != nil {
		return err
	}
	err = find(s, layout.Reference{RefName: refName, Digest: d})
	if _, serr := os.Stat(operand); serr == nil && errors.Is(err, layout.ErrNotFound) {
		err = layout.WithHint(err, "a layout directory as base is oci:"+operand+", an .oci file oci-archive:"+operand)
	}
	return err
}

// namesSource tells whether an operand that may be a ref name or a SOURCE is a
// SOURCE: that has to begin with its transport, so that no file that happens to
// be there is taken for a ref name.
func namesSource(operand string) bool {
	for _, transport := range []string{"oci:", "oci-archive:", "docker-archive:", "docker://", "dir:"} {
		if strings.HasPrefix(operand, transport) {
			return true
		}
	}
	return false
}

// make stages the image.
func (p *buildPlan) make(ctx context.Context, c *cli.Context, s *layout.Stage, base *image.Base) (ocispec.Descriptor, error) {
	var none ocispec.Descriptor
	var layers []image.Layer
	if p.rootfs != "" {
		l, err := p.stageRootFS(ctx, c, s)
		if err != nil {
			return none, fmt.Errorf("rootfs: %w", err)
		}
		l.CreatedBy = "gloci-layout add image --rootfs"
		layers = append(layers, l)
	}
	for _, file := range p.layers {
		l, err := image.StageLayer(ctx, s, file)
		if err != nil {
			return none, fmt.Errorf("layer: %w", err)
		}
		l.CreatedBy = "gloci-layout add image --layer"
		layers = append(layers, l)
	}
	return image.Make(ctx, s, base, layers, &p.edit, p.annotations)
}

func (p *buildPlan) stageRootFS(ctx context.Context, c *cli.Context, s *layout.Stage) (image.Layer, error) {
	if info, err := os.Stat(p.rootfs); err == nil && info.IsDir() {
		return image.StageTree(ctx, s, p.rootfs, p.format, &p.tree)
	}
	if p.tree.Owner != nil {
		return image.Layer{}, usagef(c, "--owner goes with a directory; a tar archive is taken as it is")
	}
	return image.StageTar(ctx, s, p.rootfs, p.format)
}
