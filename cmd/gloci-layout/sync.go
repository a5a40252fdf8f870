package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/recompress"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
)

func newSyncCommand(e *env) *cli.Command {
	var opts syncOptions
	opts.from.registry.common, opts.dest.common = &opts.common, &opts.common
	flags := append([]cli.Flag{
		&cli.BoolFlag{Name: "merge", Usage: "keep entries that only the repository has: the tag gets an index of both sides' entries", Destination: &opts.push.Merge},
		&cli.BoolFlag{Name: "replace", Usage: "drop entries that only the repository has", Destination: &opts.push.Replace},
		&cli.BoolFlag{Name: "sparse", Usage: "allow for members of indexes that neither side has; the registry may refuse such an index", Destination: &opts.push.Sparse},
		&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be sent", Destination: &opts.push.DryRun},
		&cli.BoolFlag{Name: "prune", Usage: "delete tags of the repository that SOURCE has not, last of all", Destination: &opts.push.Prune},
		&cli.StringFlag{Name: "digest-file", Usage: "write the digest of the one tag that was synced to `FILE`", Destination: &opts.digestFile},
		&cli.StringFlag{Name: "lock-file", Usage: "write what was synced, ref names and digests, to `FILE`", Destination: &opts.lockFile},
		jobsFlag(&opts.jobs),
	}, append(opts.referrers.flags(), opts.choice.flags()...)...)
	flags = append(flags, opts.sign.flags()...)
	flags = append(flags, opts.common.flags("")...)
	flags = append(flags, opts.dest.flags("dest-")...)
	flags = append(flags, opts.to.flags()...)
	flags = append(flags, opts.from.follows(), baseFlag("what a delta lacks is in `SOURCE`"))
	return &cli.Command{
		Name: "sync", Usage: "make a repository of a registry hold what a source has", ArgsUsage: "SOURCE docker://HOST/REPO[:TAG]",
		Description: "All ref names of SOURCE become tags; of a full reference, host/repo:tag, the tag. " +
			"With SOURCE:REFNAME only that, and then TAG may give it another name. " +
			"Every byte and digest stays as it is. " +
			"What refers to the content, such as signatures, attestations and SBOMs, goes along, and tags of cosign are moved before all others; " +
			"where the registry keeps no lists of referrers, those under tags sha256-HEX are kept up.\n\n" +
			"First it finds out what is missing; then blobs and manifests are sent by digest; tags are moved last, " +
			"when all is there. If a tag fails, or the sync is interrupted, those moved before are put back; " +
			"the last line of the error says if that went well, and else names the tags. " +
			"A tag that names the right digest already costs one request.\n\n" +
			"If a tag holds entries that SOURCE has not, nothing is sent and they are listed (exit status 6), " +
			"unless --merge or --replace says what to do with them. No tag is deleted, unless --prune asks for it; " +
			"tags of signatures and lists of referrers, sha256-HEX and sha256-HEX.sig, stay even then, since digests may be used without a tag.\n\n" +
			"What policy.json rejects is not sent. Signatures of sigstore count that SOURCE has under the ref name or tag sha256-HEX.sig, " +
			"and of a registry those of GnuPG that lie where registries.d says. Artifacts and indexes are asked about like images.\n\n" +
			"With a key, everything that is pushed is signed as cosign, podman and skopeo do it: images, artifacts and indexes, " +
			"for each tag that leads to them, under tags sha256-HEX.sig, which are moved before all others. " +
			"What is there already is signed too, and no signature goes away.\n\n" +
			"Flags that select send one manifest in place of each index; with --sparse the index stays as it is, " +
			"and its other members are left away: the registry must have them, or take an index without.\n\n" +
			"A delta (pack --base) may be sent to a repository that has its base: what it lacks is asked for there, blob by blob, " +
			"before anything is sent; what is neither there nor in the SOURCE of --base is listed (exit status 3).\n\n" +
			"Flags of registries without prefix are for the destination, but for --authfile and those of the configuration, " +
			"which are for both ends.\n\n" + sourceHelp,
		Flags:  append(flags, opts.from.registry.flags("src-")...),
		Action: func(c *cli.Context) error { return runSync(c, e, &opts) },
	}
}

type syncOptions struct {
	push                 layoutsync.PushOptions
	choice               choiceFlags
	digestFile, lockFile string
	jobs                 int
	referrers            referrersFlags
	sign                 signFlags
	to                   toFlags
	common, dest         registryFlags
	from                 sourceFlags
}

type syncTagResult struct {
	Type    string        `json:"type" doc:"tag"`
	Tag     string        `json:"tag" doc:"the tag"`
	RefName string        `json:"refName,omitempty" doc:"the ref name in the source"`
	Digest  digest.Digest `json:"digest,omitempty" doc:"what the tag names after the sync; absent where it is deleted"`
	Before  digest.Digest `json:"before,omitempty" doc:"what it named before"`
	State   string        `json:"state" doc:"unchanged, created, moved or deleted; pending in a dry run; after a failure restored, left (at the new digest) or unknown"`
	Merged  bool          `json:"merged,omitempty" doc:"digest is an index made of both sides' entries"`

	Repository string `json:"repository,omitempty" doc:"where the tag is, with --scoped"`
}

type syncResult struct {
	Type       string   `json:"type" doc:"summary"`
	Repository string   `json:"repository" doc:"HOST/REPO"`
	DryRun     bool     `json:"dryRun" doc:"nothing was sent"`
	Changed    bool     `json:"changed" doc:"something at the registry is other than before; never in a dry run"`
	Tags       int      `json:"tags" doc:"how many tags there are"`
	Untagged   []string `json:"untagged,omitempty" doc:"digests of entries without ref name, which were pushed by digest only"`
	Manifests  int      `json:"manifests" doc:"manifests and indexes that were, or would be, written"`
	Blobs      int      `json:"blobs" doc:"blobs that were, or would be, sent"`
	Bytes      int64    `json:"bytes" doc:"the size of these blobs"`
	Present    int      `json:"present" doc:"blobs and manifests that were asked for and were there"`
	Referrers  []string `json:"referrers,omitempty" doc:"tags of lists of referrers that were written"`
}

func runSync(c *cli.Context, e *env, opts *syncOptions) (err error) {
	if opts.push.Merge && opts.push.Replace {
		return usagef(c, "--merge and --replace exclude each other")
	}
	if opts.jobs < 1 {
		return usagef(c, "--jobs %d: want 1 or more", opts.jobs)
	}
	choice, err := opts.choice.choice(c, opts.push.Sparse)
	if err != nil {
		return err
	}
	dest, err := layout.ParseReference(c.Args().Get(1))
	if err == nil && (dest.Transport != "docker" || dest.Digest != "") {
		err = fmt.Errorf("%s: want docker://HOST/REPO[:TAG]", c.Args().Get(1))
	}
	if err != nil {
		return usagef(c, "destination %v", err)
	}
	repository, err := layoutsync.ParseRepository(dest.Location)
	if err != nil {
		return usagef(c, "destination %v", err)
	}
	if opts.push.Signers, err = opts.sign.signers(c); err != nil {
		return err
	}
	registry, err := opts.dest.options(c, e)
	if err != nil {
		return err
	}
	opts.push.Registry, opts.push.Registry.Jobs = *registry, opts.jobs
	// The blobs that a delta lacks are at the destination, where it is a mirror
	// that is brought forward.
	var there layout.Source
	defer func() {
		if there != nil {
			closeWith(&err, there.Close)
		}
	}()
	opts.from.implied = func() ([]layout.Source, error) {
		r, err := layoutsync.OpenTags(c.Context, repository, func([]string) []string { return nil }, registry)
		if errors.Is(err, layout.ErrNotFound) {
			return nil, nil // --base may have all
		}
		if err != nil {
			return nil, err
		}
		there = r
		return []layout.Source{r}, nil
	}
	return opts.from.with(c, e, c.Args().First(), func(src layout.Source, ref layout.Reference) error {
		if opts.push.Prune && (ref.RefName != "" || ref.Digest != "" || dest.RefName != "" || opts.choice.narrows(c)) {
			return usagef(c, "--prune goes with all of SOURCE: it would delete the tags that are left out")
		}
		if ref.Digest != "" && (opts.to.zstd || opts.to.gzip) {
			return usagef(c, "%s: its digest changes with --to-zstd and --to-gzip; name it by a ref name", ref)
		}
		what := recompress.CopyOptions{NoReferrers: opts.referrers.out(), Sparse: opts.push.Sparse}
		if ref.RefName != "" {
			what.RefNames = []string{ref.RefName}
		}
		return opts.to.with(c, e, src, what, func(src layout.Source) error {
			return opts.sync(c, e, choice, src, ref, repository, dest.RefName)
		})
	})
}

// sync pushes what was chosen of src to repository, where tag may give it
// another name.
func (opts *syncOptions) sync(c *cli.Context, e *env, choice *layoutsync.Choice, src layout.Source, ref layout.Reference, repository layoutsync.Repository, tag string) error {
	targets, err := layoutsync.Targets(c.Context, src, ref, tag)
	if err != nil {
		return err
	}
	if src, opts.push.Targets, err = choice.Apply(c.Context, src, targets); err != nil {
		return err
	}
	if opts.digestFile != "" && len(opts.push.Targets) != 1 {
		return usagef(c, "--digest-file is for one tag, and SOURCE has %d; --lock-file takes any number", len(opts.push.Targets))
	}
	if !opts.referrers.out() {
		more, err := layoutsync.ReferrerTargets(c.Context, src, opts.push.Targets)
		if err != nil {
			return err
		}
		more = slices.DeleteFunc(more, func(t layoutsync.Target) bool { return choice.Excludes(t.RefName) })
		opts.push.Targets = append(opts.push.Targets, more...)
	}
	p := e.startProgress("push", true)
	opts.push.Progress = p.event
	report, err := layoutsync.Push(c.Context, src, repository, &opts.push)
	p.stop()
	if printErr := printReport(e, report, err != nil); err == nil {
		err = printErr
	}
	if err != nil || opts.push.DryRun {
		return withOutcome(err, report)
	}
	return opts.record(report)
}

// printReport prints what a push did. Of one that failed that is said only
// where tags are other than they were, or may be.
func printReport(e *env, r *layoutsync.Report, failed bool) error {
	for _, t := range r.Tags {
		if failed && (t.State == layoutsync.TagPending || t.State == layoutsync.TagUnchanged) {
			continue
		}
		line := syncTagResult{
			Type: "tag", Tag: t.Tag, RefName: t.RefName, Digest: t.Digest,
			Before: t.Before, State: string(t.State), Merged: t.Merged, Repository: t.Repository,
		}
		note := ""
		switch {
		case t.Merged:
			note = " (merged)"
		case t.Delete:
			note = " (deleted, named " + string(t.Before) + ")"
		}
		where := t.Tag
		if t.Repository != "" {
			where = t.Repository + ":" + t.Tag
		}
		if err := e.confirm(line, "%s %s %s%s", t.State, where, t.Digest, note); err != nil {
			return err
		}
	}
	if failed {
		return nil
	}
	sum := syncResult{
		Type: "summary", Repository: r.Repository, DryRun: r.DryRun, Changed: r.Changed() && !r.DryRun, Tags: len(r.Tags),
		Manifests: r.Manifests, Blobs: r.Blobs, Bytes: r.Bytes, Present: r.Present, Referrers: r.Referrers,
	}
	for _, d := range r.Untagged {
		sum.Untagged = append(sum.Untagged, string(d.Digest))
	}
	verb := "synced"
	switch {
	case r.DryRun:
		verb = "would sync"
	case !sum.Changed:
		verb = "nothing to do for"
	}
	untagged := ""
	if n := len(sum.Untagged); n > 0 {
		untagged = fmt.Sprintf(", %d without a tag", n)
	}
	return e.confirm(sum, "%s %s: %s, %s and %s sent, %s%s", verb, r.Repository, plural(sum.Tags, "tag"),
		plural(r.Manifests, "manifest"), plural(r.Blobs, "blob"), size(r.Bytes), untagged)
}
