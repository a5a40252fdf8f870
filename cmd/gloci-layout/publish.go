package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/gardenlinux"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
	"github.com/gardenlinux/gloci-layout/sync/publish"
)

func newPublishCommand(e *env) *cli.Command {
	var opts publishOptions
	opts.from.registry.common, opts.dest.common = &opts.common, &opts.common
	flags := append([]cli.Flag{
		&cli.StringFlag{Name: "version", Usage: "the `VERSION` that is published: the tag of the index", Destination: &opts.publish.Version},
		&cli.StringSliceFlag{Name: "alias", Usage: "let `TAG` name the same index, such as latest"},
		&cli.StringSliceFlag{Name: "remove", Usage: "take `PART` out of the version: a flavour, linux/ARCH, or a tag"},
		&cli.BoolFlag{Name: "reindex", Usage: "publish nothing; only bring the index up to date", Destination: &opts.reindex},
		&cli.StringSliceFlag{Name: "expect", Usage: "look for `PART` even where the registry does not list its tag; with --reindex, fail if it is missing"},
		&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be done", Destination: &opts.publish.DryRun},
		&cli.DurationFlag{Name: "lag", Usage: "wait so long before reading again: `DURATION` by which the registry may show old tags", Value: 2 * time.Second, Destination: &opts.publish.Lag},
		&cli.DurationFlag{Name: "request-lifetime", Usage: "after a write without an answer, wait `DURATION` until it cannot happen any more", Value: publish.DefaultRequestLifetime, Destination: &opts.publish.RequestLifetime},
		&cli.IntFlag{Name: "rounds", Usage: "give up after reading the index `N` times", Value: publish.DefaultRounds, Destination: &opts.publish.Rounds},
		jobsFlag(&opts.jobs),
	}, opts.common.flags("")...)
	flags = append(flags, opts.dest.flags("dest-")...)
	flags = append(flags, opts.from.follows())
	return &cli.Command{
		Name: "publish", Usage: "publish flavours of a version, beside other machines that do so", ArgsUsage: "[SOURCE] docker://HOST/REPO",
		Description: "Every flavour gets a tag of its own, VERSION-CNAME-ARCH, and every container image ARCH-VERSION. " +
			"The index under the tag VERSION is made of what these tags name, until it is that: any number of machines may " +
			"publish at the same time, without a lock. Of SOURCE, the ref name VERSION is published, or all if it has no such " +
			"ref name; everything in it must be a flavour of VERSION or a container image.\n\n" +
			"A flavour is removed by a tombstone, a small manifest under its tag; do not delete the tag. " +
			"Entries that another program has put into the index are kept: each gets a tag VERSION-adopted-HASH.\n\n" +
			"Exit status 0 means that the index was read back and is what the tags say. If publish fails or is interrupted, its " +
			"own tags are put back. If others keep on writing until it gives up (\"not converged\", exit status 2), they stay, " +
			"and publish --reindex does the rest; run that last, after programs that push to the same tag, and after crashes. " +
			"docs/publish.md says what may be relied on.\n\n" + sourceHelp,
		Flags:  append(flags, opts.from.registry.flags("src-")...),
		Action: func(c *cli.Context) error { return runPublish(c, e, &opts) },
	}
}

type publishOptions struct {
	publish      publish.Options
	reindex      bool
	jobs         int
	common, dest registryFlags
	from         sourceFlags
}

type publishTagResult struct {
	Type   string        `json:"type" doc:"part, removed, adopted or alias"`
	Tag    string        `json:"tag" doc:"the tag"`
	Key    string        `json:"key,omitempty" doc:"what the entry is a state of: cname, architecture and version, or the platform"`
	Digest digest.Digest `json:"digest" doc:"what the tag names afterwards; of an adopted entry, what that names"`
	Before digest.Digest `json:"before,omitempty" doc:"what it named before"`
	State  string        `json:"state" doc:"unchanged, created or moved; pending in a dry run; after a failure restored, left (at the new digest) or unknown"`
}

type publishResult struct {
	Type       string        `json:"type" doc:"summary"`
	Repository string        `json:"repository" doc:"HOST/REPO"`
	Version    string        `json:"version" doc:"the tag of the index"`
	DryRun     bool          `json:"dryRun" doc:"nothing was written"`
	Digest     digest.Digest `json:"digest,omitempty" doc:"of the index at the end; of a dry run, what it would be"`
	Before     digest.Digest `json:"before,omitempty" doc:"of the index at the beginning"`
	Entries    int           `json:"entries" doc:"entries of the index"`
	Rounds     int           `json:"rounds" doc:"how often the index was read"`
	Missing    []string      `json:"missing,omitempty" doc:"parts of --expect that are not there"`
	Manifests  int           `json:"manifests" doc:"manifests and indexes that were written, or would be sent"`
	Blobs      int           `json:"blobs" doc:"blobs that were, or would be, sent"`
	Bytes      int64         `json:"bytes" doc:"the size of these blobs"`
}

// publishScheme names the parts of a version as Garden Linux does.
type publishScheme struct{}

func (publishScheme) Part(version string, desc ocispec.Descriptor, doc *layout.Document, platform *ocispec.Platform) (publish.Part, bool) {
	if n, entry, ok := gardenlinux.FlavorEntry(desc, doc); ok {
		return publish.Part{Tag: gardenlinux.FlavorTag(n), Entry: entry}, n.Version == version
	}
	if !doc.IsImage() || platform == nil || platform.OS != "linux" {
		return publish.Part{}, false
	}
	desc.Platform = platform
	return publish.Part{Tag: gardenlinux.RuntimeTag(platform.Architecture, version), Entry: desc, ByTag: true}, true
}

func (publishScheme) Find(version, name string) (publish.Part, bool) {
	tag, entry, ok := gardenlinux.FindPart(version, name)
	return publish.Part{Tag: tag, Entry: entry}, ok
}

func runPublish(c *cli.Context, e *env, opts *publishOptions) error {
	o := &opts.publish
	o.Scheme = publishScheme{}
	o.Aliases, o.Remove, o.Expect = c.StringSlice("alias"), c.StringSlice("remove"), c.StringSlice("expect")
	source, operand := c.Args().Get(0), c.Args().Get(1)
	if c.NArg() == 1 {
		source, operand = "", source
	}
	switch {
	case o.Version == "":
		return usagef(c, "--version VERSION is missing")
	case source == "" && !opts.reindex && len(o.Remove) == 0:
		return usagef(c, "SOURCE is missing; --reindex does without")
	case source != "" && opts.reindex:
		return usagef(c, "--reindex publishes nothing: leave SOURCE out")
	case opts.jobs < 1 || o.Rounds < 1 || o.Lag < 0 || o.RequestLifetime <= 0:
		return usagef(c, "--jobs, --rounds, --lag and --request-lifetime must be more than 0, or 0 for --lag")
	}
	for _, name := range slices.Concat(o.Remove, o.Expect) {
		if _, ok := o.Scheme.Find(o.Version, name); !ok && !slices.Contains(o.Remove, name) {
			return usagef(c, "%q is no flavour (CNAME-ARCH) or container image (linux/ARCH) of %s", name, o.Version)
		}
	}
	dest, err := layout.ParseReference(operand)
	if err == nil && (dest.Transport != "docker" || dest.Digest != "" || dest.RefName != "") {
		err = fmt.Errorf("%s: want docker://HOST/REPO", operand)
	}
	if err != nil {
		return usagef(c, "destination %v", err)
	}
	repository, err := layoutsync.ParseRepository(dest.Location)
	if err != nil {
		return usagef(c, "destination %v", err)
	}
	registry, err := opts.dest.options(c, e)
	if err != nil {
		return err
	}
	o.Registry, o.Registry.Jobs = *registry, opts.jobs
	if source == "" {
		return e.publish(c, nil, repository, opts)
	}
	return opts.from.with(c, e, source, func(src layout.Source, ref layout.Reference) error {
		if o.Roots, err = publishRoots(c, src, ref, o.Version); err != nil {
			return err
		}
		return e.publish(c, src, repository, opts)
	})
}

// publishRoots returns what ref names in src; if that is all of it, what the
// version names there, if it does.
func publishRoots(c *cli.Context, src layout.Source, ref layout.Reference, version string) ([]ocispec.Descriptor, error) {
	if ref.RefName == "" && ref.Digest == "" {
		x, err := src.Index(c.Context)
		if err != nil {
			return nil, err
		}
		if len(x.FindRef(version)) > 0 {
			ref.RefName = version
		}
	}
	roots, err := layout.Resolve(c.Context, src, ref.RefName, ref.Digest)
	if err == nil && len(roots) == 0 {
		err = fmt.Errorf("%s: %w: it is empty", src, layout.ErrNotFound)
	}
	return roots, err
}

func (e *env) publish(c *cli.Context, src layout.Source, repository layoutsync.Repository, opts *publishOptions) error {
	p := e.startProgress("publish", true)
	opts.publish.Progress = p.event
	report, err := publish.Run(c.Context, src, repository, &opts.publish)
	p.stop()
	if printErr := printPublished(e, report, err != nil); err == nil {
		err = printErr
	}
	if err == nil && opts.reindex && len(report.Missing) > 0 {
		err = fmt.Errorf("publish %s:%s: %w: %s", report.Repository, report.Version, layout.ErrNotFound, strings.Join(report.Missing, ", "))
	}
	return err
}

// printPublished prints what a publish did. Of one that failed that is said only
// where tags are other than they were, or may be.
func printPublished(e *env, r *publish.Report, failed bool) error {
	printTag := func(kind string, t layoutsync.TagReport) error {
		if failed && (t.State == layoutsync.TagPending || t.State == layoutsync.TagUnchanged) {
			return nil
		}
		line := publishTagResult{Type: kind, Tag: t.Tag, Key: t.RefName, Digest: t.Digest, Before: t.Before, State: string(t.State)}
		note := ""
		switch kind {
		case "removed":
			note = " (tombstone)"
		case "alias":
			note = " (alias)"
		}
		return e.confirm(line, "%s %s %s%s", t.State, t.Tag, t.Digest, note)
	}
	for _, t := range r.Parts {
		if err := printTag("part", t); err != nil {
			return err
		}
	}
	for _, t := range r.Removed {
		if err := printTag("removed", t); err != nil {
			return err
		}
	}
	for _, a := range r.Adopted {
		state := layoutsync.TagCreated
		if r.DryRun {
			state = layoutsync.TagPending
		}
		line := publishTagResult{Type: "adopted", Tag: a.Tag, Key: a.Key, Digest: a.Desc.Digest, State: string(state)}
		if err := e.confirm(line, "adopted %s %s", a.Tag, a.Desc.Digest); err != nil {
			return err
		}
	}
	for _, t := range r.Aliases {
		if err := printTag("alias", t); err != nil {
			return err
		}
	}
	if failed {
		return nil
	}
	sum := publishResult{
		Type: "summary", Repository: r.Repository, Version: r.Version, DryRun: r.DryRun, Digest: r.Digest, Before: r.Before,
		Entries: r.Entries, Rounds: r.Rounds, Missing: r.Missing, Manifests: r.Manifests, Blobs: r.Blobs, Bytes: r.Bytes,
	}
	verb := "published"
	switch {
	case r.DryRun:
		verb = "would publish"
	case r.Digest == r.Before:
		verb = "nothing to do for"
	}
	missing := ""
	if len(r.Missing) > 0 {
		missing = ", missing: " + strings.Join(r.Missing, " ")
	}
	entries := fmt.Sprintf("%d entries", r.Entries)
	if r.Entries == 1 {
		entries = "1 entry"
	}
	return e.confirm(sum, "%s %s:%s: %s, %s and %s sent, %s%s", verb, r.Repository, r.Version, entries,
		plural(r.Manifests, "manifest"), plural(r.Blobs, "blob"), size(r.Bytes), missing)
}
