package main

import (
	"cmp"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/gardenlinux"
	"github.com/gardenlinux/gloci-layout/layout/nest"
)

func newIndexFlattenCommand(e *env) *cli.Command {
	var force bool
	return &cli.Command{
		Name: "flatten", Usage: "put the entries of nested indexes into their index", ArgsUsage: "LAYOUT REF",
		Description: indexRefHelp + "\n\nEntries of all indexes below it become entries of the index. They get the platform and the annotations " +
			"of the entries above them, and of the indexes that they were in, where they say nothing themselves. " +
			"What stands twice becomes one entry; several entries for the same thing, as two images for one platform, are refused with exit status 6. " +
			"So is a nested index with an artifactType, a subject or unknown members, which no entry can say, unless --force is given.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "force", Usage: "drop artifactType, subject and unknown members of nested indexes", Destination: &force},
		},
		Action: func(c *cli.Context) error {
			return runIndexNest(c, e, func(src layout.Source, x *layout.Index) (*nest.Edit, error) {
				return nest.Flatten(c.Context, src, x, entryKey, force)
			})
		},
	}
}

func newIndexNestCommand(e *env) *cli.Command {
	var key string
	var images bool
	return &cli.Command{
		Name: "nest", Usage: "put the entries of an index into nested indexes", ArgsUsage: "LAYOUT REF",
		Description: indexRefHelp + "\n\nEntries that have the same value become entries of one nested index, whose own entry is annotated with that value: " +
			"--by cname with the Garden Linux cname, --by arch with the architecture (annotation architecture, else that of the platform), " +
			"--by annotation:KEY with the annotation KEY. A nested index of that value that is there already is added to. " +
			"Entries without a value stay, and so do indexes.\n\n" +
			"Container images for a platform stay too, because clients do not look for them in nested indexes, unless --images is given.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "by", Usage: "what makes a nested index: `KEY` cname, arch or annotation:KEY", Destination: &key},
			&cli.BoolFlag{Name: "images", Usage: "nest container images for a platform as well", Destination: &images},
		},
		Action: func(c *cli.Context) error {
			by, err := nestBy(c, key)
			if err != nil {
				return err
			}
			return runIndexNest(c, e, func(src layout.Source, x *layout.Index) (*nest.Edit, error) {
				return nest.Group(c.Context, src, x, func(desc ocispec.Descriptor) (string, string) {
					if !images && strings.HasPrefix(entryKey(desc), "platform:") {
						return "", ""
					}
					return by(desc)
				}, entryKey)
			})
		},
	}
}

func nestBy(c *cli.Context, key string) (nest.By, error) {
	if name, ok := strings.CutPrefix(key, "annotation:"); ok && name != "" {
		return func(desc ocispec.Descriptor) (string, string) { return name, desc.Annotations[name] }, nil
	}
	switch key {
	case "cname":
		return func(desc ocispec.Descriptor) (string, string) {
			n, err := gardenlinux.ParseName(desc.Annotations["cname"])
			if err != nil {
				return "", ""
			}
			return "cname", n.CName
		}, nil
	case "arch":
		return func(desc ocispec.Descriptor) (string, string) {
			arch := desc.Annotations["architecture"]
			if p := desc.Platform; p != nil && p.Architecture != "unknown" {
				arch = cmp.Or(arch, p.Architecture)
			}
			return "architecture", arch
		}, nil
	case "":
		return nil, usagef(c, "--by KEY is missing")
	}
	return nil, usagef(c, "--by %q: want cname, arch or annotation:KEY", key)
}

func runIndexNest(c *cli.Context, e *env, fn func(src layout.Source, x *layout.Index) (*nest.Edit, error)) error {
	target, err := parseIndexTarget(c)
	if err != nil {
		return err
	}
	var changes []changeResult
	err = e.update(c.Context, layoutPath(c.Args().First()), func(tx *layout.Tx) error {
		changes = nil
		moved, err := editIndex(c.Context, tx, target, func(_ ocispec.Descriptor, x *layout.Index) (*layout.Index, []*layout.Index, error) {
			edit, err := fn(tx.Source(), x)
			if err != nil {
				return nil, nil, err
			}
			for _, desc := range edit.Moved {
				change := newChange("moved", desc)
				change.Into = target.name()
				changes = append(changes, change)
			}
			for _, desc := range edit.Dropped {
				change := newChange("removed", desc)
				change.Into = target.name()
				changes = append(changes, change)
			}
			return edit.Index, edit.Below, nil
		})
		changes = append(changes, moved...)
		return err
	})
	if err != nil {
		return err
	}
	return e.confirmChanges(changes)
}
