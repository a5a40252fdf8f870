package main

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/gardenlinux"
	"github.com/gardenlinux/gloci-layout/layout/merge"
)

func newMergeCommand(e *env) *cli.Command {
	var opts mergeOptions
	opts.from.ownBase = true
	return &cli.Command{
		Name: "merge", Usage: "merge layouts, tarballs and repositories into one layout", ArgsUsage: "LAYOUT SOURCE...",
		Description: "All sources are merged into LAYOUT in one transaction; their order makes no difference. " +
			"A ref name that LAYOUT lacks is added. One that names an index on both sides gets the entries of both, at any depth. " +
			"Entries are told apart by a key: flavour, architecture and version of a Garden Linux artifact, " +
			"the platform of a container image, the ref name or the description of a nested index, else the digest. " +
			"The same key with different content is a conflict.\n\n" +
			"With --base, changes are merged: what only one side changed since then is taken, what both changed alike is taken, " +
			"what one deleted and the other kept is deleted, and all else is a conflict.\n\n" +
			"Conflicts are listed, one line each, and nothing is changed (exit status 6). " +
			"--on-conflict ours takes what LAYOUT has, theirs what the sources have; sources that conflict among themselves " +
			"where that does not decide are an error all the same.\n\n" +
			"A SOURCE may have a ref name or a digest, to merge that alone, and what refers to it, unless --no-referrers. " +
			"A delta of pack --base finds in LAYOUT what it lacks, or in the SOURCE of --base.\n\n" + sourceHelp,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "base", Usage: "the `SOURCE` from which LAYOUT and the sources were made", Destination: &opts.base},
			&cli.StringFlag{Name: "on-conflict", Usage: "what wins: `SIDE` ours or theirs", Destination: &opts.onConflict},
			&cli.StringSliceFlag{Name: "ref", Usage: "merge only ref names that match `GLOB`, and what refers to them"},
			&cli.BoolFlag{Name: "no-referrers", Usage: "leave out what refers to SOURCE:REFNAME and what it names", Destination: &opts.noReferrers},
			&cli.BoolFlag{Name: "link", Usage: "make hard links to the blobs of layout directories where that is possible, in place of copies; whoever changes one file then changes both", Destination: &opts.link},
			&cli.BoolFlag{Name: "dry-run", Usage: "only say what would change", Destination: &opts.dryRun},
		}, opts.from.flags()...),
		Action: func(c *cli.Context) error { return runMerge(c, e, &opts) },
	}
}

type mergeOptions struct {
	base, onConflict string
	link, dryRun     bool
	noReferrers      bool
	from             sourceFlags
}

type mergeResult struct {
	Action    string        `json:"action" doc:"added, removed, replaced, merged (an index got entries of several sides) or annotated (its annotations or other members changed)"`
	Into      []string      `json:"into,omitempty" doc:"ref name, then keys, of the indexes that hold the entry; none for index.json"`
	Key       string        `json:"key,omitempty" doc:"what tells the entry from the others of its index; none for the index itself"`
	RefName   string        `json:"refName,omitempty" doc:"the ref name of the entry"`
	CName     string        `json:"cname,omitempty" doc:"the Garden Linux name of the entry"`
	Platform  string        `json:"platform,omitempty" doc:"the platform of the entry, os/architecture[/variant]"`
	Old       digest.Digest `json:"old,omitempty" doc:"the digest that it had"`
	Digest    digest.Digest `json:"digest,omitempty" doc:"the digest that it has"`
	MediaType string        `json:"mediaType,omitempty" doc:"its media type"`
	Source    string        `json:"source,omitempty" doc:"the source that has it, if it is one only"`
}

type mergeConflictResult struct {
	Action string               `json:"action" doc:"conflict"`
	Into   []string             `json:"into,omitempty" doc:"as above"`
	Key    string               `json:"key,omitempty" doc:"as above"`
	Member string               `json:"member,omitempty" doc:"the member or annotation, where it is not about the content"`
	States []mergeConflictState `json:"states" doc:"what the sides have"`
}

type mergeConflictState struct {
	Value string   `json:"value" doc:"a digest, or the value of the member as JSON; empty if it is absent"`
	Sides []string `json:"sides" doc:"which sides have it: LAYOUT, sources, base"`
}

func runMerge(c *cli.Context, e *env, opts *mergeOptions) (err error) {
	into := merge.IntoOptions{Refs: c.StringSlice("ref"), DryRun: opts.dryRun, NoReferrers: opts.noReferrers}
	into.Key = gardenKey
	policy, ok := map[string]merge.Policy{"": merge.Refuse, "ours": merge.Ours, "theirs": merge.Theirs}[opts.onConflict]
	if !ok {
		return usagef(c, "--on-conflict %q: want ours or theirs", opts.onConflict)
	}
	into.OnConflict = policy
	for _, glob := range into.Refs {
		if err := merge.CheckGlob(glob); err != nil {
			return usagef(c, "--ref: %v", err)
		}
	}
	o := opener{c: c, e: e, from: &opts.from}
	defer closeWith(&err, o.close)
	var sources []merge.Source
	for _, operand := range c.Args().Tail() {
		s, err := o.source(operand)
		if err != nil {
			return err
		}
		sources = append(sources, s)
	}
	var base *merge.Source
	if opts.base != "" {
		s, err := o.source(opts.base)
		if err != nil {
			return err
		}
		base = &s
	}
	l, err := e.openLayout(c.Context, layoutPath(c.Args().First()))
	if err != nil {
		return err
	}
	defer closeWith(&err, l.Close)
	p := e.startProgress("merge", false)
	opts.from.implied = func() ([]layout.Source, error) { return o.bases(l, opts.base) }
	into.Copy = layout.CopyOptions{Progress: p.event, Link: opts.link}
	result, err := merge.Into(c.Context, l, base, sources, &into)
	p.stop()
	if err != nil {
		return e.reportConflicts(err, opts)
	}
	for _, s := range result.Stale {
		e.log.Warn("a referrer is for an index that was merged", "referrer", string(s.Referrer.Digest), "was", string(s.Subject), "is", string(s.Now.Digest))
	}
	return e.confirmMerge(result.Changes, opts.dryRun)
}

// gardenKey names entries as merge does, but by the rules of Garden Linux names.
func gardenKey(desc ocispec.Descriptor) string {
	if key := gardenlinux.Key(desc); key != "" {
		return "cname:" + key
	}
	return ""
}

// reportConflicts prints conflicts as results where results are JSON, and says
// what may be done.
func (e *env) reportConflicts(err error, opts *mergeOptions) error {
	var conflicts *merge.ConflictError
	if !errors.As(err, &conflicts) {
		return err
	}
	platform := false
	for _, c := range conflicts.Conflicts {
		platform = platform || strings.HasPrefix(c.Key, "platform:")
		if !e.json {
			continue
		}
		r := mergeConflictResult{Action: "conflict", Into: c.Path, Key: c.Key, Member: c.Member}
		for _, s := range c.States {
			r.States = append(r.States, mergeConflictState(s))
		}
		if err := e.emitJSON(r); err != nil {
			return err
		}
	}
	switch {
	case opts.onConflict != "":
		return layout.WithHint(err, "sources conflict among themselves; merge them one after the other")
	case platform:
		return layout.WithHint(err, "an index has one image for a platform: put the other under another ref name, or choose with --on-conflict ours or theirs")
	case opts.base == "":
		return layout.WithHint(err, "--on-conflict ours or theirs chooses; --base SOURCE takes what only one side changed")
	}
	return layout.WithHint(err, "--on-conflict ours or theirs chooses")
}

func (e *env) confirmMerge(changes []merge.Change, dryRun bool) error {
	for _, c := range changes {
		desc := c.New
		if desc.Digest == "" {
			desc = c.Old
		}
		r := mergeResult{
			Action: c.Action, Into: c.Path, Key: c.Key, RefName: layout.RefName(desc), CName: desc.Annotations["cname"],
			Old: c.Old.Digest, Digest: c.New.Digest, MediaType: desc.MediaType, Source: c.From,
		}
		if desc.Platform != nil {
			r.Platform = layout.FormatPlatform(*desc.Platform)
		}
		line := r.line()
		if dryRun {
			line = "would be " + line
		}
		if dryRun {
			if err := e.emit(r, "%s", line); err != nil { // the answer, not a confirmation
				return err
			}
		} else if err := e.confirm(r, "%s", line); err != nil {
			return err
		}
	}
	return nil
}

func (r mergeResult) line() string {
	parts := []string{r.Action}
	for _, s := range []string{r.RefName, r.CName} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	if r.Old != "" && r.Old != r.Digest {
		parts = append(parts, string(r.Old))
		if r.Digest != "" {
			parts = append(parts, "->")
		}
	}
	switch {
	case r.Digest != "":
		parts = append(parts, string(r.Digest))
	case r.Key == "" && len(r.Into) == 0:
		return r.Action + " index.json"
	case r.Key == "":
		return r.Action + " index " + strings.Join(r.Into, " > ")
	}
	if len(r.Into) > 0 {
		if r.Platform != "" {
			parts = append(parts, "as", r.Platform)
		}
		parts = append(parts, map[bool]string{true: "from", false: "in"}[r.Action == "removed"], strings.Join(r.Into, " > "))
	}
	if r.Source != "" {
		parts = append(parts, "("+r.Source+")")
	}
	return strings.Join(parts, " ")
}

// An opener opens sources for a merge. Directories are opened anew each time,
// as hundreds of them would need more open files than a process may have; other
// sources stay open to the end, because opening them is work.
type opener struct {
	c    *cli.Context
	e    *env
	from *sourceFlags

	mu   sync.Mutex
	kept []layout.Source

	base       sync.Once // that of a delta
	baseSource layout.Source
	baseErr    error
}

func (o *opener) source(operand string) (merge.Source, error) {
	ref, err := parseSource(o.c, operand)
	if err != nil {
		return merge.Source{}, err
	}
	s := merge.Source{Name: operand, RefName: ref.RefName, Digest: ref.Digest}
	if ref.Transport == "oci" {
		s.Open = func(context.Context) (layout.Source, error) { return o.from.open(o.c, o.e, ref) }
		return s, nil
	}
	s.Done = func(layout.Source) error { return nil } // close does it
	var once sync.Once
	var src layout.Source
	s.Open = func(context.Context) (layout.Source, error) {
		once.Do(func() {
			if src, err = o.from.open(o.c, o.e, ref); err == nil {
				o.mu.Lock()
				o.kept = append(o.kept, src)
				o.mu.Unlock()
			}
		})
		if err != nil {
			return nil, err
		}
		return src, nil
	}
	return s, nil
}

// bases returns what a delta among the sources may have its base in.
func (o *opener) bases(l *layout.Layout, base string) ([]layout.Source, error) {
	if base == "" {
		return []layout.Source{l}, nil
	}
	o.base.Do(func() {
		from := *o.from
		from.impliesBase(l)
		var ref layout.Reference
		if ref, o.baseErr = parseSource(o.c, base); o.baseErr != nil {
			return
		}
		if o.baseSource, o.baseErr = from.open(o.c, o.e, ref); o.baseErr == nil {
			o.mu.Lock()
			o.kept = append(o.kept, o.baseSource)
			o.mu.Unlock()
		}
	})
	return []layout.Source{l, o.baseSource}, o.baseErr
}

// close closes what was kept.
func (o *opener) close() error {
	var errs []error
	for _, src := range o.kept {
		errs = append(errs, src.Close())
	}
	return errors.Join(errs...)
}
