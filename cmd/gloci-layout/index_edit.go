package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/nest"
)

const childHelp = "A CHILD is a ref name, @DIGEST or REF@DIGEST of LAYOUT, or, if it begins with oci:, oci-archive:, docker-archive:, docker:// or dir:, " +
	"content of another source, which is copied in with all that refers to it. It has to name one thing. --platform and --annotation are for the entries of all CHILDREN; " +
	"an image says its platform itself if they do not. An artifact that is for no platform gets unknown/unknown."

// indexOptions are those of index create and index add.
type indexOptions struct {
	ref, artifactType, platform string
	replace, noReferrers        bool
	from                        sourceFlags
}

func (o *indexOptions) flags(create bool) []cli.Flag {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "platform", Usage: "the `PLATFORM` of the entries, os/architecture[/variant]", Destination: &o.platform},
		&cli.StringSliceFlag{Name: "annotation", Usage: "give the entries the annotation `KEY=VALUE`"},
	}
	usage := "drop an entry that has the key of a CHILD"
	if create {
		usage = "take the ref name from what it names"
		flags = append([]cli.Flag{
			&cli.StringFlag{Name: "ref", Usage: "the ref name `NAME` of the index", Destination: &o.ref},
			&cli.StringFlag{Name: "artifact-type", Usage: "the artifact `TYPE` of the index, a media type", Destination: &o.artifactType},
			&cli.StringSliceFlag{Name: "index-annotation", Usage: "give the index itself the annotation `KEY=VALUE`"},
		}, flags...)
	}
	flags = append(
		flags,
		&cli.BoolFlag{Name: "replace", Usage: usage, Destination: &o.replace},
		&cli.BoolFlag{Name: "no-referrers", Usage: "leave out what refers to content of other sources", Destination: &o.noReferrers},
	)
	return append(flags, o.from.flags()...)
}

func newIndexCreateCommand(e *env) *cli.Command {
	var opts indexOptions
	return &cli.Command{
		Name: "create", Usage: "make an index of content", ArgsUsage: "LAYOUT [CHILD...]",
		Description: childHelp + "\n\nA ref name that names something else is refused with exit status 6, unless --replace is given. " +
			"Two CHILDREN that stand for the same thing, as two images for one platform, are refused too.",
		Flags: opts.flags(true),
		Action: func(c *cli.Context) error {
			if opts.ref == "" {
				return usagef(c, "--ref NAME is missing")
			}
			if err := checkRefNames(c, []string{opts.ref}); err != nil {
				return err
			}
			if opts.artifactType != "" && !mediaTypeGrammar.MatchString(opts.artifactType) {
				return usagef(c, "--artifact-type %q: want a media type", opts.artifactType)
			}
			own, err := annotations(c, "index-annotation")
			if err != nil {
				return err
			}
			return opts.run(c, e, c.Args().Tail(), func(tx *layout.Tx, children []indexChild) ([]changeResult, error) {
				return opts.create(c.Context, tx, own, children)
			})
		},
	}
}

func newIndexAddCommand(e *env) *cli.Command {
	var opts indexOptions
	return &cli.Command{
		Name: "add", Usage: "add entries to an index", ArgsUsage: "LAYOUT REF CHILD...",
		Description: indexRefHelp + "\n\n" + childHelp + "\n\n" +
			"A CHILD that the index has gets the platform and annotations given. One that stands for the same thing as another entry, " +
			"as another image for its platform, is refused with exit status 6, unless --replace is given.",
		Flags: opts.flags(false),
		Action: func(c *cli.Context) error {
			target, err := parseIndexTarget(c)
			if err != nil {
				return err
			}
			return opts.run(c, e, c.Args().Slice()[2:], func(tx *layout.Tx, children []indexChild) ([]changeResult, error) {
				return opts.add(c.Context, tx, target, children)
			})
		},
	}
}

// An indexChild is a CHILD: content of the layout, or, once it is copied, desc.
type indexChild struct {
	operand string
	refName string
	digest  digest.Digest
	desc    *ocispec.Descriptor
}

var childTransports = []string{"oci:", "oci-archive:", "docker-archive:", "docker://", "dir:"}

// run stages the children that are content of other sources, and commits what
// fn makes of all.
func (o *indexOptions) run(c *cli.Context, e *env, operands []string, fn func(tx *layout.Tx, children []indexChild) ([]changeResult, error)) error {
	platform, entryAnnotations, err := o.entry(c)
	if err != nil {
		return err
	}
	children := make([]indexChild, len(operands))
	for i, operand := range operands {
		children[i].operand = operand
		if slices.ContainsFunc(childTransports, func(t string) bool { return strings.HasPrefix(operand, t) }) {
			continue
		}
		if children[i].refName, children[i].digest, err = parseTarget(c, operand); err != nil {
			return err
		}
	}
	var changes []changeResult
	var along []ocispec.Descriptor // referrers
	err = e.stage(c.Context, layoutPath(c.Args().First()), func(s *layout.Stage) error {
		o.from.impliesBase(s)
		for i := range children {
			if children[i].refName != "" || children[i].digest != "" {
				continue
			}
			err := o.from.with(c, e, children[i].operand, func(src layout.Source, ref layout.Reference) error {
				found, more, err := copyFrom(c.Context, e, s, src, ref, &addImageOptions{noReferrers: o.noReferrers})
				if err == nil {
					children[i].desc = &found[0]
				}
				along = append(along, more...)
				return err
			})
			if err != nil {
				return err
			}
		}
		return s.Update(c.Context, func(tx *layout.Tx) error {
			entries := slices.Clone(children)
			for i := range entries {
				if err := entries[i].resolve(c.Context, tx.Source(), platform, entryAnnotations); err != nil {
					return err
				}
			}
			if changes, err = fn(tx, entries); err != nil {
				return err
			}
			put, err := putReferrers(c.Context, tx, along)
			changes = append(changes, put...)
			return err
		})
	})
	if err != nil {
		return err
	}
	return e.confirmChanges(changes)
}

func (o *indexOptions) entry(c *cli.Context) (platform *ocispec.Platform, m map[string]string, err error) {
	if o.platform != "" {
		if platform, err = layout.ParsePlatform(o.platform); err != nil {
			return nil, nil, usagef(c, "%v", err)
		}
	}
	m, err = annotations(c, "annotation")
	return platform, m, err
}

// resolve makes desc the entry that the child becomes.
func (child *indexChild) resolve(ctx context.Context, src layout.Source, platform *ocispec.Platform, more map[string]string) (err error) {
	var desc ocispec.Descriptor
	if child.desc != nil {
		desc = *child.desc
	} else if desc, err = layout.ResolveOne(ctx, src, child.refName, child.digest); err != nil {
		return err
	}
	// What an entry of index.json is called is nothing to an image index.
	desc.Annotations = maps.Clone(desc.Annotations)
	delete(desc.Annotations, ocispec.AnnotationRefName)
	switch {
	case layout.IsManifest(desc.MediaType):
		if desc, err = platformEntry(ctx, src, desc, platform); err != nil {
			return err
		}
	case platform != nil:
		desc.Platform = platform
	}
	for k, v := range more {
		if desc.Annotations == nil {
			desc.Annotations = map[string]string{}
		}
		desc.Annotations[k] = v
	}
	child.desc = &desc
	return nil
}

func (o *indexOptions) create(ctx context.Context, tx *layout.Tx, own map[string]string, children []indexChild) ([]changeResult, error) {
	x := layout.NewIndex()
	x.SetArtifactType(o.artifactType)
	for k, v := range own {
		x.SetAnnotation(k, v)
	}
	changes, err := putChildren(x, o.ref, children, false)
	if err != nil {
		return nil, err
	}
	desc, err := tx.PutDocument(x.Bytes(), x.MediaType())
	if err != nil {
		return nil, err
	}
	desc.ArtifactType = x.ArtifactType()
	for _, old := range tx.Index().Entries() {
		if layout.RefName(old) == o.ref && old.Digest != desc.Digest && !o.replace {
			return nil, layout.WithHint(fmt.Errorf("ref name %q names something else: %w", o.ref, layout.ErrConflict),
				"index add adds to an index; --replace takes the name from what it names")
		}
	}
	tx.SetRef(o.ref, desc)
	created := newChange("created", desc)
	created.RefName = o.ref
	return append(changes, created), nest.CheckDepth(ctx, tx.Source(), tx.Index().Entries())
}

func (o *indexOptions) add(ctx context.Context, tx *layout.Tx, t indexTarget, children []indexChild) ([]changeResult, error) {
	var changes []changeResult
	moved, err := editIndex(ctx, tx, t, func(old ocispec.Descriptor, x *layout.Index) (*layout.Index, []*layout.Index, error) {
		for _, child := range children {
			if err := checkCycle(ctx, tx.Source(), old, *child.desc); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", child.operand, err)
			}
		}
		var err error
		changes, err = putChildren(x, t.name(), children, o.replace)
		return x, nil, err
	})
	return append(changes, moved...), err
}

// name is how results call the index.
func (t indexTarget) name() string {
	if t.digest != "" {
		return string(t.digest)
	}
	return t.refName
}

// checkCycle refuses a child that has the index, as it is, in itself: it would
// hold its own past.
func checkCycle(ctx context.Context, src layout.Source, index, child ocispec.Descriptor) error {
	if !layout.IsIndex(child.MediaType) {
		return nil
	}
	opts := layout.WalkOptions{DocumentsOnly: true, NoSubjects: true, Sparse: true}
	for n, err := range layout.Walk(ctx, src, []ocispec.Descriptor{child}, &opts) {
		if err != nil {
			return err
		}
		if n.Desc.Digest == index.Digest {
			return fmt.Errorf("%w: the index would be an entry of itself", layout.ErrConflict)
		}
	}
	return nil
}

func putChildren(x *layout.Index, into string, children []indexChild, replace bool) ([]changeResult, error) {
	var changes []changeResult
	var conflicts []error
	for _, child := range children {
		replaced, err := nest.Put(x, *child.desc, entryKey, replace)
		if err != nil {
			conflicts = append(conflicts, fmt.Errorf("%s: %w", child.operand, err))
			continue
		}
		if replaced != nil {
			gone := newChange("removed", *replaced)
			gone.Into = into
			changes = append(changes, gone)
		}
		added := newChange("added", *child.desc)
		added.Into = into
		changes = append(changes, added)
	}
	if err := errors.Join(conflicts...); err != nil {
		return nil, layout.WithHint(err, "--replace drops the entry that is there; two images for one platform need two indexes")
	}
	return changes, nil
}

func newIndexRmCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "rm", Usage: "remove entries from an index", ArgsUsage: "LAYOUT REF CHILD...",
		Description: indexRefHelp + "\n\nA CHILD is @DIGEST, or a KEY as index ls shows it, of an entry of the index itself; rm removes manifests at any depth, " +
			"by selection. The index stays, also empty. Content stays on disk until gc.",
		Action: func(c *cli.Context) error {
			target, err := parseIndexTarget(c)
			if err != nil {
				return err
			}
			var changes []changeResult
			err = e.update(c.Context, layoutPath(c.Args().First()), func(tx *layout.Tx) error {
				changes = nil
				moved, err := editIndex(c.Context, tx, target, func(_ ocispec.Descriptor, x *layout.Index) (*layout.Index, []*layout.Index, error) {
					var numbers []int
					for _, operand := range c.Args().Slice()[2:] {
						found, err := findEntries(x, target.name(), operand)
						if err != nil {
							return nil, nil, err
						}
						numbers = append(numbers, found...)
					}
					entries := x.Entries()
					for _, i := range numbers {
						gone := newChange("removed", entries[i])
						gone.Into = target.name()
						changes = append(changes, gone)
					}
					x.Remove(numbers...)
					return x, nil, nil
				})
				changes = append(changes, moved...)
				return err
			})
			if err != nil {
				return err
			}
			return e.confirmChanges(changes)
		},
	}
}

// findEntries returns the numbers of the entries of x that operand names: those
// with a digest, or the one with a key.
func findEntries(x *layout.Index, name, operand string) ([]int, error) {
	var found []int
	var matches []layout.Match
	var keys []string
	for i, desc := range x.Entries() {
		key := entryKey(desc)
		if operand == key || operand == "@"+string(desc.Digest) {
			found = append(found, i)
			if !slices.ContainsFunc(matches, func(m layout.Match) bool { return m.Desc.Digest == desc.Digest }) {
				matches = append(matches, layout.Match{Desc: desc})
			}
		}
		if !slices.Contains(keys, key) && len(keys) < 8 {
			keys = append(keys, key)
		}
	}
	switch {
	case len(found) == 0:
		return nil, layout.WithHint(fmt.Errorf("%s: entry %s: %w", name, operand, layout.ErrNotFound), "there are: "+strings.Join(keys, " "))
	case len(matches) > 1:
		return nil, layout.WithHint(&layout.AmbiguousError{What: name + ": entry " + operand, Candidates: matches}, "name one with @DIGEST")
	}
	return found, nil
}
