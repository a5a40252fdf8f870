package sync

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/containers/image/v5/docker/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/sync/internal/registry"
)

// PushOptions change what [Push] does. Nil is the zero value.
type PushOptions struct {
	// Registry says how to reach the registry.
	Registry RegistryOptions
	// Targets are what to push; nil means every entry of index.json, as
	// [Targets] gives them, and what refers to it, as [ReferrerTargets] does.
	Targets []Target
	// Merge keeps entries that only the registry has: the tag then names an
	// index of both sides' entries, in which ours count where a key is in both.
	Merge bool
	// Replace lets such entries go.
	Replace bool
	// Key names what an entry of an index is a state of; nil means
	// [layout.EntryKey].
	Key func(ocispec.Descriptor) string
	// Sparse allows for members of indexes that neither the source nor the
	// repository has. Many registries refuse such an index.
	Sparse bool
	// Prune deletes the tags of the repository that no target has, last of all.
	// Lists of referrers and signatures under tags of their own stay.
	Prune bool
	// Signers sign all that is pushed, for each tag that names it or an index
	// above it, and what the registry has of that already. The signatures are
	// added to those under cosign's tags sha256-HEX.sig, which move before the
	// others. One that is there is not added again.
	Signers []*Signer
	// DryRun finds out what would be sent, and sends nothing.
	DryRun bool
	// Progress is told of every blob and manifest, from several goroutines:
	// "start", "bytes" and "done" of what is sent, "skip" of what is there.
	// Bytes are negative when a transfer starts again.
	Progress func(layout.Event)
}

// Push makes the repository hold what the targets of src name, byte for byte,
// and moves their tags; the package comment says in which order and what holds
// when it fails. The report is never nil.
//
// Errors: a [ForeignError] where entries would be lost, [ErrUnauthorized],
// [ErrRejected] by the signature policy, [layout.ErrMismatch] where the source
// is damaged, [layout.ErrInvalid] for names that are no tags. Canceling ctx
// ends the push.
func Push(ctx context.Context, src layout.Source, dest Repository, opts *PushOptions) (*Report, error) {
	if opts == nil {
		opts = &PushOptions{}
	}
	report := &Report{Repository: dest.String(), DryRun: opts.DryRun, Tags: []TagReport{}}
	return report, push(ctx, src, dest, opts, report)
}

// push sends everything to every repository before it moves a tag of any.
func push(ctx context.Context, src layout.Source, dest Repository, opts *PushOptions, report *Report) (err error) {
	if opts.Merge && opts.Replace {
		return errors.New("merge and replace exclude each other")
	}
	targets := opts.Targets
	if targets == nil {
		if targets, err = Targets(ctx, src, layout.Reference{}, ""); err != nil {
			return err
		}
		more, err := ReferrerTargets(ctx, src, targets)
		if err != nil {
			return err
		}
		targets = append(targets, more...)
	} else if err := checkTargets(src, targets); err != nil {
		return err
	}
	policies, err := newPolicies(&opts.Registry)
	if err != nil {
		return err
	}
	defer policies.close()
	byPath := map[string][]Target{}
	for _, t := range targets {
		byPath[t.Path] = append(byPath[t.Path], t)
	}
	var pushers []*pusher
	for _, path := range slices.Sorted(maps.Keys(byPath)) {
		p := &pusher{src: src, opts: opts, policies: policies, report: report, path: path, held: map[digest.Digest]bool{}, made: map[digest.Digest][]byte{}}
		if p.dest, err = dest.below(path); err != nil {
			return err
		}
		if err := p.open(ctx); err != nil {
			return err
		}
		defer p.client.Close()
		if p.plan, err = p.makePlan(ctx, byPath[path]); err != nil {
			return err
		}
		report.Present += p.plan.present
		pushers = append(pushers, p)
	}
	if len(pushers) == 1 {
		pushers[0].plan.chooseLast()
	}
	defer func() {
		for _, p := range pushers {
			p.fill()
		}
	}()
	for _, step := range []func(*pusher, context.Context) error{(*pusher).send, (*pusher).prepare} {
		if opts.DryRun {
			step = (*pusher).dryRun
		}
		for _, p := range pushers {
			if err := step(p, ctx); err != nil {
				return err
			}
		}
		if opts.DryRun {
			return nil
		}
	}
	for i, p := range pushers {
		if err := p.publish(ctx); err != nil {
			for _, q := range pushers[:i] {
				err = errors.Join(err, q.restore(context.WithoutCancel(ctx)))
			}
			return err
		}
	}
	return nil
}

// A pusher is the part of a push that goes to one repository.
type pusher struct {
	src      layout.Source
	dest     Repository
	path     string // of dest below that of the push
	opts     *PushOptions
	client   *registry.Client
	policies *policies
	plan     *plan
	large    *semaphore.Weighted // see hold

	mu       sync.Mutex
	made     map[digest.Digest][]byte // blobs that the source lacks
	held     map[digest.Digest]bool   // blobs that the repository holds for sure
	unlisted []*document              // with a subject that the registry has not noticed
	report   *Report                  // of the whole push; pushers work one after the other
}

func (p *pusher) open(ctx context.Context) error {
	endpoint, err := p.opts.Registry.WriteEndpoint(p.dest.named)
	if err != nil {
		return err
	}
	if p.client, err = registry.Open(ctx, endpoint, !p.opts.DryRun, &p.opts.Registry); err != nil {
		return err
	}
	p.large = semaphore.NewWeighted(int64(p.client.Jobs()))
	// Within one registry the blobs need not travel.
	if r, ok := whole(p.src).(*Remote); ok && r.client.Named.Name() != p.dest.String() && reference.Domain(r.client.Named) == reference.Domain(p.dest.named) {
		p.client.MountFrom(reference.Path(r.client.Named))
	}
	return nil
}

// fill writes the states of the tags into the report.
func (p *pusher) fill() {
	for _, m := range p.plan.moves {
		t := TagReport{Tag: m.Tag, RefName: m.RefName, Before: m.before.Digest, State: m.state, Merged: m.merged, Delete: m.prune}
		if p.path != "" {
			t.Repository = p.dest.String()
		}
		if m.root != nil {
			t.Digest = m.root.desc.Digest
		}
		p.report.Tags = append(p.report.Tags, t)
	}
	for _, doc := range p.plan.untagged {
		p.report.Untagged = append(p.report.Untagged, doc.desc)
	}
}

func (p *pusher) key(desc ocispec.Descriptor) string {
	if p.opts.Key != nil {
		if key := p.opts.Key(desc); key != "" {
			return key
		}
	}
	return layout.EntryKey(desc)
}

func (p *pusher) event(kind string, desc ocispec.Descriptor, n int64) {
	if p.opts.Progress != nil {
		p.opts.Progress(layout.Event{Kind: kind, Desc: desc, Bytes: n})
	}
}
