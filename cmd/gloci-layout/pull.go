package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
)

func newPullCommand(e *env) *cli.Command {
	var opts pullOptions
	return &cli.Command{
		Name: "pull", Usage: "fetch tags of registries into a layout", ArgsUsage: "docker://HOST/REPO[:TAG|@DIGEST]... LAYOUT",
		Description: "Fetches what each tag or digest names, whatever it is, with all that it names and with what refers to it " +
			"(signatures, SBOMs; also under the tags of cosign). Every byte and digest stays as it is and is checked. " +
			"All ref names appear at once, when all content is there.\n\n" +
			"Of a repository without tag the flags choose the tags: --tag, --tag-regexp and --semver, each of them as often as wanted, or --all-tags. " +
			"The tag becomes the ref name, with --scoped the whole HOST/REPO:TAG. LAYOUT is made if it is not there.\n\n" +
			"A policy.json that asks for signatures is obeyed: by the images, artifacts and indexes, each under the tag that leads to it. " +
			"What it rejects leaves nothing in LAYOUT.\n\n" +
			"An interrupted pull goes on where it stopped when it is run again, also inside a blob. " +
			"What it has left is removed by gc, when nobody came back for it in the grace time.\n\n" +
			"Flags that select take one manifest below each tag in place of its index. With --sparse they may choose more: " +
			"then the index keeps its bytes and digest, and its other members are not there; see verify --sparse.",
		Flags: append(append([]cli.Flag{
			&cli.StringSliceFlag{Name: "tag", Usage: "tags that fit the `GLOB`"},
			&cli.StringSliceFlag{Name: "tag-regexp", Usage: "tags that the regular expression `RE` fits whole"},
			&cli.StringSliceFlag{Name: "semver", Usage: "tags that are versions in the `RANGE`, such as '>=1877 <2000'"},
			&cli.BoolFlag{Name: "all-tags", Usage: "all tags", Destination: &opts.filter.All},
			&cli.StringSliceFlag{Name: "exclude", Usage: "no tags that fit the `GLOB`"},
			&cli.StringFlag{Name: "ref", Usage: "store what was pulled under the ref name `NAME`", Destination: &opts.ref},
			&cli.BoolFlag{Name: "scoped", Usage: "store under the ref name HOST/REPO:TAG", Destination: &opts.scoped},
			&cli.BoolFlag{Name: "sparse", Usage: "leave members of indexes away that the flags do not select", Destination: &opts.pull.Sparse},
			jobsFlag(&opts.jobs),
			replaceFlag(&opts.replace),
		}, append(opts.referrers.flags(), opts.sel.flags()...)...), opts.registry.flags("")...),
		Action: func(c *cli.Context) error { return runPull(c, e, &opts) },
	}
}

type pullOptions struct {
	filter          layoutsync.TagFilter
	pull            layoutsync.PullOptions
	ref             string
	scoped, replace bool
	referrers       referrersFlags
	jobs            int
	sel             selectFlags
	registry        registryFlags
}

type pullResult struct {
	Type      string `json:"type" doc:"summary"`
	Layout    string `json:"layout" doc:"the directory"`
	RefNames  int    `json:"refNames" doc:"ref names that were pulled"`
	Referrers int    `json:"referrers" doc:"manifests that refer to what was pulled"`
	Fetched   int    `json:"fetched" doc:"blobs, manifests and indexes that were fetched"`
	Present   int    `json:"present" doc:"those that were there"`
	Bytes     int64  `json:"bytes" doc:"the size of what was fetched"`
}

type pulledResult struct {
	Type         string        `json:"type" doc:"pulled"`
	RefName      string        `json:"refName,omitempty" doc:"the ref name in the layout"`
	Digest       digest.Digest `json:"digest" doc:"what it names"`
	MediaType    string        `json:"mediaType" doc:"its media type"`
	Size         int64         `json:"size" doc:"the size of the manifest or index in bytes"`
	ArtifactType string        `json:"artifactType,omitempty" doc:"of a referrer"`
	Subject      digest.Digest `json:"subject,omitempty" doc:"what a referrer refers to"`
}

func runPull(c *cli.Context, e *env, opts *pullOptions) error {
	operands := c.Args().Slice()
	dir := layoutPath(operands[len(operands)-1])
	sources, err := opts.parse(c, operands[:len(operands)-1])
	if err != nil {
		return err
	}
	registry, err := opts.registry.options(c, e)
	if err != nil {
		return err
	}
	registry.Jobs = opts.jobs
	defer func() {
		for _, src := range sources {
			if src.remote != nil {
				_ = src.remote.Close() // only read
			}
		}
	}()
	names := map[string]claim{}
	for i := range sources {
		if err := sources[i].open(c.Context, registry); err != nil {
			return err
		}
		if err := opts.claim(names, &sources[i]); err != nil {
			return err
		}
	}
	if len(names) == 0 {
		err := fmt.Errorf("no tag of %s fits: %w", sources[0].repository, layout.ErrNotFound)
		return layout.WithHint(err, "gloci-layout ls docker://"+sources[0].repository.String()+" lists the tags")
	}
	return opts.into(c.Context, e, dir, sources)
}

// A pullSource is one operand: a tag or digest, or the tags that choose leaves
// of a repository.
type pullSource struct {
	ref        layout.Reference
	repository layoutsync.Repository
	choose     func([]string) []string
	remote     *layoutsync.Remote
	entries    []ocispec.Descriptor
}

func (s *pullSource) open(ctx context.Context, registry *layoutsync.RegistryOptions) (err error) {
	if s.choose != nil {
		s.remote, err = layoutsync.OpenTags(ctx, s.repository, s.choose, registry)
	} else {
		s.remote, err = layoutsync.OpenRemote(ctx, s.ref, registry)
	}
	if err != nil {
		return err
	}
	x, err := s.remote.Index(ctx)
	if err == nil {
		s.entries = x.Entries()
	}
	return err
}

// parse reads flags and operands.
func (opts *pullOptions) parse(c *cli.Context, operands []string) ([]pullSource, error) {
	opts.filter.Globs, opts.filter.Regexps = c.StringSlice("tag"), c.StringSlice("tag-regexp")
	opts.filter.Semver, opts.filter.Exclude = c.StringSlice("semver"), c.StringSlice("exclude")
	choose, err := opts.filter.Compile()
	switch {
	case err != nil:
		return nil, usagef(c, "%v", err)
	case opts.jobs < 1:
		return nil, usagef(c, "--jobs %d: want 1 or more", opts.jobs)
	case opts.ref != "" && opts.scoped:
		return nil, usagef(c, "--ref and --scoped exclude each other")
	case opts.pull.Sparse && !opts.sel.given(c):
		return nil, usagef(c, "--sparse goes with flags that select, such as --platform")
	}
	if opts.ref != "" {
		if err := checkRefNames(c, []string{opts.ref}); err != nil {
			return nil, err
		}
	}
	if opts.sel.given(c) {
		sel, err := opts.sel.selector(c)
		if err != nil {
			return nil, err
		}
		opts.pull.Select = &sel
	}
	opts.pull.NoReferrers, opts.pull.Jobs = opts.referrers.out(), opts.jobs
	var sources []pullSource
	for _, operand := range operands {
		ref, err := layout.ParseReference(operand)
		if err == nil && ref.Transport != "docker" {
			err = fmt.Errorf("%s: want docker://HOST/REPO[:TAG|@DIGEST]", operand)
		}
		if err != nil {
			return nil, usagef(c, "%v", err)
		}
		s := pullSource{ref: ref}
		if s.repository, err = layoutsync.ParseRepository(ref.Location); err != nil {
			return nil, usagef(c, "%v", err)
		}
		if ref.RefName == "" && ref.Digest == "" {
			if opts.filter.Empty() {
				return nil, usagef(c, "%s: which tags? Name one, or choose with --tag, --tag-regexp, --semver or --all-tags", operand)
			}
			s.choose = choose
		}
		sources = append(sources, s)
	}
	return sources, nil
}

// refName is what a tag of a repository is called in the layout.
func (opts *pullOptions) refName(repository layoutsync.Repository, tag string) string {
	switch {
	case opts.ref != "":
		return opts.ref
	case tag != "" && opts.scoped:
		return repository.String() + ":" + tag
	}
	return tag
}

// A claim is what a ref name is wanted for.
type claim struct {
	digest digest.Digest
	what   string
}

// claim finds two things that want the same ref name before anything is
// fetched.
func (opts *pullOptions) claim(names map[string]claim, src *pullSource) error {
	for _, entry := range src.entries {
		mine := claim{entry.Digest, src.repository.String() + ":" + layout.RefName(entry)}
		name := opts.refName(src.repository, layout.RefName(entry))
		if name == "" {
			name = "@" + string(entry.Digest)
		}
		if other, ok := names[name]; ok && other.digest != mine.digest {
			err := fmt.Errorf("ref name %q would be that of %s and of %s: %w", name, other.what, mine.what, layout.ErrConflict)
			if opts.ref != "" {
				return err
			}
			return layout.WithHint(err, "--scoped stores HOST/REPO:TAG")
		}
		names[name] = mine
	}
	return nil
}

// into fetches everything and then names it, in one transaction.
func (opts *pullOptions) into(ctx context.Context, e *env, dir string, sources []pullSource) error {
	if err := e.createMissing(ctx, dir); err != nil {
		return err
	}
	var results []pulledResult
	count := counter{progress: e.startProgress("pull", true)}
	opts.pull.Progress = count.event
	err := e.stage(ctx, dir, func(s *layout.Stage) error {
		defer count.progress.stop()
		pulled := make([][]layoutsync.Pulled, len(sources))
		for i, src := range sources {
			var err error
			if pulled[i], err = layoutsync.Pull(ctx, src.remote, src.entries, s, &opts.pull); err != nil {
				return err
			}
		}
		err := s.Update(ctx, func(tx *layout.Tx) error {
			results = nil
			for i, src := range sources {
				for _, one := range pulled[i] {
					r, err := opts.put(ctx, tx, one, src.repository)
					if err != nil {
						return err
					}
					results = append(results, r)
				}
			}
			return nil
		})
		if err != nil {
			return errors.Join(err, s.Keep())
		}
		return nil
	})
	if err != nil {
		return err
	}
	return opts.report(e, dir, results, &count)
}

// put names what was pulled.
func (opts *pullOptions) put(ctx context.Context, tx *layout.Tx, one layoutsync.Pulled, repository layoutsync.Repository) (pulledResult, error) {
	desc := one.Desc
	name := layout.RefName(desc)
	switch {
	case one.Subject == "":
		name = opts.refName(repository, name)
	case name != "" && opts.scoped:
		name = repository.String() + ":" + name
	}
	r := pulledResult{
		Type: "pulled", RefName: name, Digest: desc.Digest, MediaType: desc.MediaType, Size: desc.Size,
		ArtifactType: desc.ArtifactType, Subject: one.Subject,
	}
	if name == "" {
		addUnnamed(tx.Index(), desc)
		return r, nil
	}
	return r, setRef(ctx, tx, name, desc, opts.replace)
}

func (opts *pullOptions) report(e *env, dir string, results []pulledResult, count *counter) error {
	sum := pullResult{Type: "summary", Layout: dir, Fetched: count.fetched, Present: count.present, Bytes: count.bytes}
	for _, r := range results {
		name := r.RefName
		if name != "" {
			name += " "
		}
		var err error
		if r.Subject != "" {
			sum.Referrers++
			err = e.confirm(r, "pulled %s@%s, which refers to %s", name, r.Digest, r.Subject)
		} else {
			sum.RefNames++
			err = e.confirm(r, "pulled %s@%s", name, r.Digest)
		}
		if err != nil {
			return err
		}
	}
	referrers := ""
	if sum.Referrers > 0 {
		referrers = " and " + plural(sum.Referrers, "referrer")
	}
	return e.confirm(sum, "%s: %s%s, %d fetched (%s), %d were there", dir, plural(sum.RefNames, "ref name"),
		referrers, sum.Fetched, size(sum.Bytes), sum.Present)
}

// A counter counts what a copy did, beside showing it.
type counter struct {
	progress *progress

	mu               sync.Mutex
	fetched, present int
	bytes            int64
}

func (c *counter) event(ev layout.Event) {
	c.mu.Lock()
	switch ev.Kind {
	case "done":
		c.fetched++
		c.bytes += ev.Desc.Size
	case "skip":
		c.present++
	}
	c.mu.Unlock()
	c.progress.event(ev)
}

// createMissing makes the layout in dir, if there is nothing.
func (e *env) createMissing(ctx context.Context, dir string) error {
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return nil // what is wrong with it is told when it is opened
	}
	l, err := layout.Create(ctx, dir, &layout.Options{Logger: e.log})
	if errors.Is(err, layout.ErrExists) {
		return nil // another process was faster
	}
	if err != nil {
		return err
	}
	return l.Close()
}
