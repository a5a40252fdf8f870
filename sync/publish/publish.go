package publish

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
	"github.com/gardenlinux/gloci-layout/sync/internal/registry"
)

// ErrNotConverged reports a publish that has ended before the index was what
// the tags say: others kept on writing, or the registry does not show what was
// written.
var ErrNotConverged = errors.New("not converged")

// Defaults of [Options].
const (
	DefaultRounds          = 20
	DefaultRequestLifetime = time.Minute
)

// A Scheme says how a project names the parts of a version: which tag each has,
// and what the index of the version says of it.
type Scheme interface {
	// Part returns what a manifest is to version; false if it is no part of it.
	// desc has the media type, digest and size, doc is the manifest, and platform
	// what an image's config says, or nil. The same manifest must always give the
	// same part.
	Part(version string, desc ocispec.Descriptor, doc *layout.Document, platform *ocispec.Platform) (Part, bool)
	// Find returns the part that somebody calls name, with its tag and with what
	// [layout.EntryKey] needs of its entry; false if that is no name of a part.
	Find(version, name string) (Part, bool)
}

// A Part is a manifest as part of a version.
type Part struct {
	// Tag is the tag that names the part.
	Tag string
	// Entry is what the index of the version says of it.
	Entry ocispec.Descriptor
	// ByTag is set where nothing but its tag says of which version it is, as
	// with most container images. Others are parts under any tag that begins
	// with "VERSION-" or ends with "-VERSION".
	ByTag bool
}

// Options change what [Run] does. Registry, Version and Scheme are required.
type Options struct {
	// Registry says how to reach the registry.
	Registry layoutsync.RegistryOptions
	// Version is the tag of the index.
	Version string
	// Scheme names the parts.
	Scheme Scheme
	// Roots are what to publish: manifests, or indexes of them; all must be parts
	// of Version. None only heals the index.
	Roots []ocispec.Descriptor
	// Remove names parts that are to go; each gets a tombstone.
	Remove []string
	// Aliases are further tags of the index, such as latest.
	Aliases []string
	// Expect names parts that are looked for even where the registry does not
	// list their tags.
	Expect []string
	// Rounds is how often the index is read at most; 0 means DefaultRounds.
	Rounds int
	// Lag is how long the registry's list of tags may lag behind.
	Lag time.Duration
	// RequestLifetime is how long the registry may work on a request after the
	// client has given it up; 0 means DefaultRequestLifetime. It is waited for
	// after a write without an answer.
	RequestLifetime time.Duration
	// DryRun finds out what would be done, and writes nothing.
	DryRun bool
	// Progress is as in [layoutsync.PushOptions].
	Progress func(layout.Event)

	sleep func(context.Context, time.Duration) error // in tests, time does not pass
}

// A Report is what [Run] has done; of one that failed, up to then.
type Report struct {
	Repository string
	Version    string
	DryRun     bool
	// Digest is that of the index of the version at the end, and of every alias;
	// of a dry run, what it would be. "" if it is not known.
	Digest  digest.Digest
	Before  digest.Digest // at the beginning; "" if there was none
	Entries int           // of that index
	// Converged tells that the index was read back, and was what the tags say.
	Converged bool
	Rounds    int                    // how often the index was read
	Parts     []layoutsync.TagReport // what was published: RefName is the key of the part
	Removed   []layoutsync.TagReport
	Adopted   []layoutsync.ForeignEntry // entries that no tag stood for, and the tags that they have got
	Aliases   []layoutsync.TagReport
	Missing   []string // of Expect: no such tag at the end
	Manifests int      // written, indexes too
	Blobs     int      // sent
	Bytes     int64    // size of these blobs
}

// Run makes src's manifests parts of a version of the repository, beside what
// others publish at the same time. The tags are the truth: each part has one of
// its own, and the index of the version is made of what the tags name, again and
// again until it is that. docs/design.md, "Publishing by many
// machines", says what holds, and what does not. The report is never nil. src may
// be nil where there are no roots.
//
// Errors: [ErrNotConverged]; [layout.ErrInvalid] where a root is no part of the
// version, [layout.ErrAmbiguous] where two are the same one, and those of
// [layoutsync.Push]. If it fails or ctx is canceled after its first tag has
// moved, the own tags are put back, and the index follows; the report says how
// each tag stands. Only after ErrNotConverged they stay: the next pass does the
// rest.
func Run(ctx context.Context, src layout.Source, dest layoutsync.Repository, opts *Options) (*Report, error) {
	p := &publisher{
		src: src, dest: dest, opts: opts, sent: &layoutsync.Report{},
		aliases: slices.Compact(slices.Sorted(slices.Values(opts.Aliases))), docs: map[digest.Digest]*tagged{},
		report: &Report{Repository: dest.String(), Version: opts.Version, DryRun: opts.DryRun},
	}
	err := p.run(ctx)
	p.fill()
	return p.report, err
}

// A publisher is one run of [Run].
type publisher struct {
	src    layout.Source
	dest   layoutsync.Repository
	opts   *Options
	client *registry.Client   // moves the tags
	sent   *layoutsync.Report // of the content
	report *Report

	own     []*ownTag // sorted by tag
	expect  []Part
	aliases []string
	last    *tagContent // of the version's tag
	mu      sync.Mutex
	docs    map[digest.Digest]*tagged // what was read; content never changes
	unclear bool                      // a write without an answer may still be carried out
	blind   bool                      // the registry refuses conditions without a cause
}

func (p *publisher) run(ctx context.Context) error {
	if err := p.check(); err != nil {
		return err
	}
	plan, targets, err := p.collect(ctx)
	if err != nil {
		return err
	}
	shared, done := registry.Share(p.opts.Registry)
	defer done()
	if p.sent, err = layoutsync.Push(ctx, p.src, p.dest, &layoutsync.PushOptions{
		Registry: shared, Targets: targets, DryRun: p.opts.DryRun, Progress: p.opts.Progress,
	}); err != nil {
		return err
	}
	if err := p.open(ctx, &shared); err != nil {
		return err
	}
	p.own = plan
	if err := p.resolveOwn(ctx); err != nil {
		return err
	}
	if p.opts.DryRun {
		return p.dryRun(ctx)
	}
	if err := p.sendTombstones(ctx); err != nil {
		return err
	}
	err = p.moveOwn(ctx)
	if err == nil {
		err = p.converge(ctx)
	}
	if err == nil || errors.Is(err, ErrNotConverged) || !slices.ContainsFunc(p.own, (*ownTag).moved) {
		return err
	}
	return errors.Join(err, p.rollBack(ctx))
}

// check looks at the options.
func (p *publisher) check() error {
	for _, tag := range append([]string{p.opts.Version}, p.opts.Aliases...) {
		if !registry.ValidTag(tag) {
			return fmt.Errorf("publish: %w tag %q", layout.ErrInvalid, tag)
		}
	}
	for _, alias := range p.opts.Aliases {
		if p.candidate(alias) || alias == p.opts.Version {
			return fmt.Errorf("publish: %w: the alias %q could be the tag of a part of %s", layout.ErrConflict, alias, p.opts.Version)
		}
	}
	for _, name := range p.opts.Expect {
		part, ok := p.opts.Scheme.Find(p.opts.Version, name)
		if !ok {
			return fmt.Errorf("publish: %w: %q is no name of a part of %s", layout.ErrInvalid, name, p.opts.Version)
		}
		p.expect = append(p.expect, part)
	}
	return nil
}

// open opens the repository. With shared options, what has sent the content is
// used again.
func (p *publisher) open(ctx context.Context, opts *layoutsync.RegistryOptions) error {
	named, err := registry.ParseName(p.dest.String())
	if err != nil {
		return err
	}
	endpoint, err := opts.WriteEndpoint(named)
	if err != nil {
		return err
	}
	p.client, err = registry.Open(ctx, endpoint, !p.opts.DryRun, opts)
	return err
}

// fill completes the report.
func (p *publisher) fill() {
	p.report.Manifests += p.sent.Manifests
	p.report.Blobs, p.report.Bytes = p.sent.Blobs, p.sent.Bytes
	for _, o := range p.own {
		t := layoutsync.TagReport{Tag: o.tag, RefName: o.key, Digest: o.desc.Digest, Before: o.before.Digest, State: o.state}
		if o.tombstone {
			p.report.Removed = append(p.report.Removed, t)
		} else {
			p.report.Parts = append(p.report.Parts, t)
		}
	}
}

func (p *publisher) wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	if p.opts.sleep != nil {
		return p.opts.sleep(ctx, d)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// settle waits until no write of ours can be carried out any more.
func (p *publisher) settle(ctx context.Context) error {
	p.mu.Lock()
	unclear := p.unclear
	p.mu.Unlock()
	if !unclear {
		return nil
	}
	lifetime := p.lifetime()
	p.log().Warn("a write got no answer: waiting until the registry can no longer carry it out",
		"repository", p.report.Repository, "seconds", lifetime.Seconds())
	if err := p.wait(ctx, lifetime); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unclear = false
	return nil
}

func (p *publisher) lifetime() time.Duration {
	if p.opts.RequestLifetime == 0 {
		return DefaultRequestLifetime
	}
	return p.opts.RequestLifetime
}

func (p *publisher) log() *slog.Logger {
	if p.opts.Registry.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return p.opts.Registry.Logger
}
