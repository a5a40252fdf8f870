package sync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/containers/image/v5/docker/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
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

// dryRun counts what send would send.
func (p *pusher) dryRun(ctx context.Context) error {
	pl := p.plan
	if err := p.allowedTags(ctx); err != nil {
		return err
	}
	for _, level := range pl.levels {
		p.report.Manifests += len(level)
		if err := each(ctx, p.client.Jobs(), level, func(ctx context.Context, doc *document) error { return p.allowed(ctx, doc) }); err != nil {
			return err
		}
	}
	return each(ctx, p.client.SmallJobs(), pl.blobs, func(ctx context.Context, desc ocispec.Descriptor) error {
		_, err := p.client.ResolveBlob(ctx, desc.Digest)
		p.mu.Lock()
		defer p.mu.Unlock()
		switch {
		case err == nil:
			p.report.Present++
		case errors.Is(err, layout.ErrNotFound):
			p.report.Blobs++
			p.report.Bytes += desc.Size
		default:
			return err
		}
		return nil
	})
}

// send makes the repository hold everything, by digest, but the last root.
func (p *pusher) send(ctx context.Context) error {
	pl := p.plan
	if err := p.allowedTags(ctx); err != nil {
		return err
	}
	if len(pl.levels) == 0 {
		return nil
	}
	jobs := p.client.Jobs()
	for _, level := range pl.levels { // before the first byte leaves
		if err := each(ctx, jobs, level, p.allowed); err != nil {
			return err
		}
	}
	if err := p.putBlobs(ctx, pl.blobs); err != nil {
		return err
	}
	for _, level := range pl.levels {
		err := each(ctx, p.client.SmallJobs(), level, func(ctx context.Context, doc *document) error {
			if doc == pl.last {
				return nil
			}
			done, err := p.hold(ctx, doc.desc.Size)
			if err != nil {
				return err
			}
			defer done()
			raw := doc.raw
			if raw == nil {
				if raw, err = layout.ReadAll(ctx, p.src, doc.desc, layout.MaxDocument); err != nil {
					return fmt.Errorf("%s: %w", p.src, err)
				}
			}
			return p.putDocument(ctx, doc, raw)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// allowed asks the signature policy.
func (p *pusher) allowed(ctx context.Context, doc *document) error {
	if doc.made {
		return nil
	}
	desc := doc.desc
	if doc.origin != nil {
		desc = *doc.origin
	}
	names := doc.names
	if len(names) == 0 {
		names = []string{""}
	}
	for _, name := range names {
		if err := p.policies.check(ctx, p.src, p.src, desc, name); err != nil {
			return err
		}
	}
	return nil
}

// allowedTags asks the signature policy about what tags are to name, where the
// registry has it already.
func (p *pusher) allowedTags(ctx context.Context) error {
	return each(ctx, p.client.Jobs(), p.plan.moves, func(ctx context.Context, m *move) error {
		if m.prune || m.state == TagUnchanged || !m.root.present {
			return nil
		}
		return p.allowed(ctx, m.root)
	})
}

// smallBlob is the size in bytes up to which a blob is gone before the registry
// has answered: what takes long is the answer.
const smallBlob = 64 << 10 // 64 KiB

// hold waits until a document of size bytes may be in memory: small
// ones at once, of others as many as there are jobs. done has to be called after
// it.
func (p *pusher) hold(ctx context.Context, size int64) (done func(), err error) {
	if size <= smallBlob {
		return func() {}, nil
	}
	if err := p.large.Acquire(ctx, 1); err != nil {
		return nil, context.Cause(ctx)
	}
	return func() { p.large.Release(1) }, nil
}

// putBlobs sends blobs, which are sorted by size, the largest first. Small ones
// go beside the large ones, more of them at once.
func (p *pusher) putBlobs(ctx context.Context, blobs []ocispec.Descriptor) error {
	at := slices.IndexFunc(blobs, func(b ocispec.Descriptor) bool { return b.Size <= smallBlob })
	jobs := p.client.Jobs()
	if at < 0 {
		return each(ctx, jobs, blobs, p.putBlob)
	}
	large, small := blobs[:at], blobs[at:]
	ask := slices.IndexFunc(large, func(b ocispec.Descriptor) bool { return !p.client.Large(b) })
	if ask < 0 {
		ask = at
	}
	learn := p.client.LearnMounts(ask)
	putSmall := func(ctx context.Context, jobs int) error {
		defer learn(ctx, ocispec.Descriptor{})
		return each(ctx, jobs, small, func(ctx context.Context, desc ocispec.Descriptor) error {
			err := p.putBlob(ctx, desc)
			if err == nil && p.has(desc.Digest) {
				learn(ctx, desc)
			}
			return err
		})
	}
	switch {
	case at == 0:
		return putSmall(ctx, p.client.SmallJobs())
	case jobs == 1:
		if err := putSmall(ctx, 1); err != nil {
			return err
		}
		return each(ctx, 1, large, p.putBlob)
	}
	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error { return each(inner, jobs, large, p.putBlob) })
	group.Go(func() error { return putSmall(inner, p.client.SmallJobs()-jobs) })
	if err := group.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// putBlob sends one blob if the repository lacks it.
func (p *pusher) putBlob(ctx context.Context, desc ocispec.Descriptor) error {
	if len(desc.URLs) > 0 {
		// A layer that is to be had elsewhere may be missing here
		// (descriptor.md, "urls"). It is never fetched from there.
		if _, err := p.src.Stat(ctx, desc.Digest); errors.Is(err, layout.ErrNotFound) {
			return nil
		}
	}
	var sent int64
	open := func(ctx context.Context) (io.ReadCloser, error) {
		if sent == 0 {
			p.event("start", desc, 0)
		} else {
			p.event("bytes", desc, -sent)
			sent = 0
		}
		if raw, ok := p.made[desc.Digest]; ok {
			return io.NopCloser(bytes.NewReader(raw)), nil
		}
		return p.src.Blob(ctx, desc)
	}
	uploaded, err := p.client.PutBlob(ctx, desc, open, func(n int) {
		sent += int64(n)
		p.event("bytes", desc, int64(n))
	})
	if err != nil {
		return fmt.Errorf("push %s: %w", desc.Digest, err)
	}
	p.mu.Lock()
	p.held[desc.Digest] = true
	if uploaded {
		p.report.Blobs++
		p.report.Bytes += desc.Size
	} else {
		p.report.Present++
	}
	p.mu.Unlock()
	if uploaded {
		p.event("done", desc, 0)
	} else {
		p.event("skip", desc, 0)
	}
	return nil
}

// has tells whether the repository holds a blob for sure.
func (p *pusher) has(d digest.Digest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held[d]
}

// putDocument sends one manifest or index by digest.
func (p *pusher) putDocument(ctx context.Context, doc *document, raw []byte) error {
	p.event("start", doc.desc, 0)
	noticed, err := p.client.PutManifest(ctx, doc.desc, raw, "")
	if err != nil {
		return refused(doc, err)
	}
	p.mu.Lock()
	p.report.Manifests++
	if doc.read.Subject != nil && !noticed {
		p.unlisted = append(p.unlisted, doc)
	}
	p.mu.Unlock()
	p.event("bytes", doc.desc, int64(len(raw)))
	p.event("done", doc.desc, 0)
	return nil
}
