package sync

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/internal/pattern"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/sync/internal/registry"
)

// PullOptions change what [Pull] does. Nil is the zero value.
type PullOptions struct {
	// Select chooses manifests below what the tags name; nil takes all. Each tag
	// must then have exactly one, which takes the place of the index, unless
	// Sparse is set.
	Select *layout.Selector
	// Sparse keeps the indexes as they are, without the members that Select
	// does not choose.
	Sparse bool
	// NoReferrers leaves out what refers to the content: signatures, SBOMs.
	NoReferrers bool
	// Jobs is how many blobs of more than 64 KiB are fetched at once; 0 means
	// DefaultJobs. Of smaller ones, as many are as RegistryOptions.Jobs allows.
	Jobs int
	// Progress is told of every blob and document, as by
	// [layout.Stage.CopyTree].
	Progress func(layout.Event)
}

// A Pulled is content that is staged, and what index.json shall say of it.
type Pulled struct {
	Desc ocispec.Descriptor // with its ref name, if it gets one
	// Subject is what it refers to, for referrers that were found for content
	// that was asked for; they need no ref name.
	Subject digest.Digest
}

// Pull stages entries of r, byte for byte, with all that they name and
// with what refers to them: by the list of referrers, the list under the tag
// ALGORITHM-HEX where the registry keeps none (distribution-spec, "Referrers
// Tag Schema"), and by cosign's tags. Blobs that are whole stay in the layout
// even if it fails, and parts of others too, for the next try.
//
// The signature policy of r's options has to let all of it pass, each document
// under the tag that leads to it: what a tag names before anything is fetched,
// the rest before Pull returns. [ErrRejected] leaves nothing in the layout.
//
// A tag or digest that is not there is [layout.ErrNotFound]; more than one
// manifest that Select chooses below a tag is a [layout.AmbiguousError];
// content that is not what its descriptor says is [layout.ErrMismatch].
func Pull(ctx context.Context, r *Remote, entries []ocispec.Descriptor, s *layout.Stage, opts *PullOptions) ([]Pulled, error) {
	if opts == nil {
		opts = &PullOptions{}
	}
	p := &puller{r: r, s: s, opts: opts, allowed: map[pulledKey]bool{}, known: map[pulledKey]bool{}, seen: map[digest.Digest]bool{}}
	var err error
	if p.policies, err = newPolicies(&RegistryOptions{Policy: r.policy}); err != nil {
		return nil, err
	}
	defer p.policies.close()
	if err := p.pull(ctx, entries); err != nil {
		if errors.Is(err, ErrRejected) {
			return nil, err
		}
		// What is staged helps the next try.
		return nil, errors.Join(err, s.Keep())
	}
	return p.pulled, nil
}

type puller struct {
	r    *Remote
	s    *layout.Stage
	opts *PullOptions

	policies *policies
	allowed  map[pulledKey]bool // what the policy lets pass

	pulled []Pulled
	known  map[pulledKey]bool     // what is in pulled
	seen   map[digest.Digest]bool // documents whose referrers were looked for
}

// A pulledKey is a digest under a ref name; without one, under any or none.
type pulledKey struct {
	digest  digest.Digest
	refName string
}

var (
	// listTag fits the tags that [referrersTag] makes.
	listTag = pattern.New(`^(sha256-[0-9a-f]{64}|sha512-[0-9a-f]{121})$`)
	// referrerTag fits these and the tags of cosign.
	referrerTag = pattern.New(`^(sha256-[0-9a-f]{64}(\.(sig|att|sbom))?|sha512-[0-9a-f]{121})$`)
)

func (p *puller) pull(ctx context.Context, entries []ocispec.Descriptor) error {
	var roots, lists []ocispec.Descriptor
	for _, e := range entries {
		// What a list of referrers names comes with its subject, or not at all.
		if !p.opts.NoReferrers && layout.IsIndex(e.MediaType) && listTag.MatchString(layout.RefName(e)) {
			lists = append(lists, e)
			continue
		}
		roots = append(roots, e)
	}
	if len(roots) == 0 {
		roots, lists = lists, nil // they were asked for by name
	}
	var src layout.Source = p.r
	if p.opts.Select != nil {
		var err error
		if src, roots, err = selectBelow(ctx, p.r, roots, *p.opts.Select, p.opts.Sparse); err != nil {
			return err
		}
	}
	if err := p.copy(ctx, src, roots); err != nil {
		return err
	}
	for _, root := range roots {
		p.add(Pulled{Desc: root})
	}
	if p.opts.NoReferrers {
		return nil
	}
	if err := p.referrers(ctx, roots); err != nil {
		return err
	}
	return p.orphans(ctx, lists)
}

func (p *puller) copy(ctx context.Context, src layout.Source, roots []ocispec.Descriptor) error {
	jobs := p.opts.Jobs
	if jobs == 0 {
		jobs = DefaultJobs
	}
	for _, root := range roots {
		if err := p.allow(ctx, src, root, layout.RefName(root)); err != nil {
			return err
		}
	}
	err := p.s.CopyTree(ctx, src, roots, &layout.CopyOptions{
		Jobs: jobs, SmallJobs: p.r.client.SmallJobs(), Sparse: p.opts.Sparse, Resume: true, Progress: p.opts.Progress,
	})
	if err != nil || p.policies.open {
		return err
	}
	for _, root := range roots {
		for n, err := range layout.Walk(ctx, p.s, []ocispec.Descriptor{root}, &layout.WalkOptions{DocumentsOnly: true, Sparse: p.opts.Sparse}) {
			if err != nil {
				return err
			}
			if n.Absent {
				continue
			}
			if err := p.allow(ctx, p.s, n.Desc, layout.RefName(root)); err != nil {
				return err
			}
		}
	}
	return nil
}

// allow asks the signature policy about desc below tag, once. Its bytes are
// read from src.
func (p *puller) allow(ctx context.Context, src layout.Source, desc ocispec.Descriptor, tag string) error {
	key := pulledKey{desc.Digest, tag}
	if p.allowed[key] {
		return nil
	}
	if err := p.policies.check(ctx, src, p.r, desc, tag); err != nil {
		return fmt.Errorf("%s: %w", p.r, err)
	}
	p.allowed[key] = true
	return nil
}

// referrers stages what refers to documents of the roots, and to that again.
func (p *puller) referrers(ctx context.Context, roots []ocispec.Descriptor) error {
	for len(roots) > 0 {
		documents, err := p.documents(ctx, roots)
		if err != nil {
			return err
		}
		found, err := p.referrersOfAll(ctx, documents)
		if err != nil {
			return err
		}
		roots = nil
		for _, f := range found {
			if p.add(f) {
				roots = append(roots, f.Desc)
			}
		}
		if err := p.copy(ctx, p.r, roots); err != nil {
			return fmt.Errorf("referrers: %w", err)
		}
	}
	return nil
}

// documents returns the documents below roots that were staged, each once.
func (p *puller) documents(ctx context.Context, roots []ocispec.Descriptor) ([]digest.Digest, error) {
	var list []digest.Digest
	for n, err := range layout.Walk(ctx, p.s, roots, &layout.WalkOptions{DocumentsOnly: true, NoSubjects: true, Sparse: p.opts.Sparse}) {
		if err != nil {
			return nil, err
		}
		if n.Absent || p.seen[n.Desc.Digest] {
			continue
		}
		p.seen[n.Desc.Digest] = true
		list = append(list, n.Desc.Digest)
	}
	return list, nil
}

// add notes f, unless it is there already.
func (p *puller) add(f Pulled) bool {
	key := pulledKey{f.Desc.Digest, layout.RefName(f.Desc)}
	if p.known[key] {
		return false
	}
	p.known[key] = true
	p.known[pulledKey{digest: f.Desc.Digest}] = true
	p.pulled = append(p.pulled, f)
	return true
}

// referrersOfAll asks what refers to each of the documents. The first is asked
// alone, so that its answer tells the others whether to ask.
func (p *puller) referrersOfAll(ctx context.Context, documents []digest.Digest) ([]Pulled, error) {
	if len(documents) == 0 {
		return nil, nil
	}
	found := make([][]Pulled, len(documents))
	numbers := make([]int, len(documents))
	for i := range numbers {
		numbers[i] = i
	}
	one := func(ctx context.Context, i int) (err error) {
		found[i], err = p.referrersOf(ctx, documents[i])
		return err
	}
	if err := one(ctx, 0); err != nil {
		return nil, err
	}
	err := registry.Each(ctx, p.r.client.SmallJobs(), numbers[1:], one)
	return slices.Concat(found...), err
}

// referrersOf asks the registry what refers to d.
func (p *puller) referrersOf(ctx context.Context, d digest.Digest) ([]Pulled, error) {
	list, err := p.r.Referrers(ctx, d)
	if err != nil {
		return nil, err
	}
	found := make([]Pulled, len(list))
	for i, r := range list {
		found[i] = Pulled{Desc: r.Desc, Subject: d}
	}
	return found, nil
}

// orphans stages lists of referrers to nothing that was pulled, as they are:
// they were asked for like any other tag.
func (p *puller) orphans(ctx context.Context, lists []ocispec.Descriptor) error {
	used := map[string]bool{}
	for d := range p.seen {
		used[referrersTag(d)] = true
	}
	var roots []ocispec.Descriptor
	for _, list := range lists {
		if !used[layout.RefName(list)] {
			roots = append(roots, list)
			p.add(Pulled{Desc: list})
		}
	}
	return p.copy(ctx, p.r, roots)
}

// referrersTag is the tag of the list of referrers of d (distribution-spec,
// "Referrers Tag Schema").
func referrersTag(d digest.Digest) string {
	tag := string(d.Algorithm()) + "-" + d.Encoded()
	return tag[:min(len(tag), 128)]
}

// A tagSet tells which tags a repository has without a request for each.
type tagSet struct {
	r      *Remote
	listed map[string]bool // nil where the registry does not list tags
}

// tagSet asks for the list of tags. A registry that gives none to this user is
// asked tag by tag.
func (r *Remote) tagSet(ctx context.Context) (*tagSet, error) {
	tags, err := r.client.Tags(ctx)
	var answer *RegistryError
	if errors.As(err, &answer) && answer.Status >= 400 && answer.Status < 500 && answer.Status != 429 {
		return &tagSet{r: r}, nil
	}
	if err != nil {
		return nil, err
	}
	return r.setTags(tags), nil
}

// setTags remembers the list of tags.
func (r *Remote) setTags(tags []string) *tagSet {
	s := &tagSet{r: r, listed: make(map[string]bool, len(tags))}
	for _, tag := range tags {
		s.listed[tag] = true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tags = s
	return s
}

// resolve returns what tag names, if there is one.
func (s *tagSet) resolve(ctx context.Context, tag string) (ocispec.Descriptor, bool, error) {
	if s.listed != nil && !s.listed[tag] {
		return ocispec.Descriptor{}, false, nil
	}
	desc, err := s.r.client.Resolve(ctx, tag)
	if errors.Is(err, layout.ErrNotFound) && s.listed == nil {
		return desc, false, nil
	}
	return desc, err == nil, err // what is listed has to be there
}
