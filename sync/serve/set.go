package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// A set is all that is served at one time. It does not change.
type set struct {
	sources []*snapshot // in the order of Options.Sources
	pasts   [][]*past   // by source, the youngest first
	repos   map[string]*repo
	names   []string // of repos, sorted

	refs int // requests that use it, and one while it is current; guarded by Server.mu
}

// A repo is one repository: the tags, and all of the sources that they are in.
type repo struct {
	name    string
	tags    map[string]*document
	sorted  []string
	sources []int           // numbers in set.sources
	hosts   map[string]bool // registries that it is a mirror of
}

// maxPasts is how many states of one source are remembered beside the present
// one: an archive that was replaced takes room on its disk as long as it is open.
const maxPasts = 16

// acquire returns what is served now; the caller releases it.
func (s *Server) acquire() *set {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil {
		s.current.refs++
	}
	return s.current
}

// hold acquires held once more.
func (s *Server) hold(held *set) {
	s.mu.Lock()
	defer s.mu.Unlock()
	held.refs++
}

// release gives a set back. What nobody needs any more is closed.
func (s *Server) release(held *set) error {
	var unused []*snapshot
	s.mu.Lock()
	if held.refs--; held.refs == 0 {
		for snap := range held.all {
			if snap.refs--; snap.refs == 0 {
				unused = append(unused, snap)
			}
		}
	}
	s.mu.Unlock()
	var err error
	for _, snap := range unused {
		err = errors.Join(err, snap.src.Close())
	}
	return err
}

// all yields the snapshots that the set needs.
func (x *set) all(yield func(*snapshot) bool) {
	for i, snap := range x.sources {
		if !yield(snap) {
			return
		}
		for _, p := range x.pasts[i] {
			if !yield(p.snap) {
				return
			}
		}
	}
}

// build returns a set of the present state of the sources: from old what has
// not changed, or cannot be loaded. It is old itself if nothing is new. With
// force, all sources are taken to have changed.
func (s *Server) build(ctx context.Context, old *set, force bool) (*set, error) {
	n := len(s.opts.Sources)
	x := &set{sources: make([]*snapshot, n), pasts: make([][]*past, n), refs: 1}
	var loaded []*snapshot
	discard := func(err error) (*set, error) {
		for _, snap := range loaded {
			err = errors.Join(err, snap.src.Close())
		}
		return nil, err
	}
	t := now()
	same := old != nil
	for i := range n {
		if old == nil {
			snap, err := s.load(ctx, i, nil)
			if err != nil {
				return discard(err)
			}
			x.sources[i] = snap
			loaded = append(loaded, snap)
			continue
		}
		x.sources[i] = old.sources[i]
		x.pasts[i] = slices.DeleteFunc(slices.Clone(old.pasts[i]), func(p *past) bool { return p.until.Before(t) })
		same = same && len(x.pasts[i]) == len(old.pasts[i])
		snap, err := s.changed(ctx, i, old.sources[i], force)
		if err != nil {
			return discard(err)
		}
		if snap == nil {
			continue
		}
		loaded = append(loaded, snap)
		x.sources[i], same = snap, false
		if p := pastOf(old.sources[i], snap, t.Add(s.opts.Keep)); p != nil && s.opts.Keep > 0 {
			x.pasts[i] = slices.Insert(x.pasts[i], 0, p)
			x.pasts[i] = x.pasts[i][:min(len(x.pasts[i]), maxPasts)]
		}
	}
	if same {
		return old, nil
	}
	if err := x.assemble(func(msg string, args ...any) { s.opts.Log.Warn(msg, args...) }); err != nil {
		return discard(err)
	}
	s.mu.Lock()
	for snap := range x.all {
		snap.refs++
	}
	s.mu.Unlock()
	return x, nil
}

// assemble makes the repositories out of the sources.
func (x *set) assemble(warn func(msg string, args ...any)) error {
	x.repos = map[string]*repo{}
	for i, snap := range x.sources {
		x.repo(snap.host, snap.name, i)
		if err := x.addTags(i, warn); err != nil {
			return err
		}
	}
	for name, r := range x.repos {
		x.names = append(x.names, name)
		for tag := range r.tags {
			r.sorted = append(r.sorted, tag)
		}
		slices.Sort(r.sorted)
	}
	slices.Sort(x.names)
	return nil
}

// repo returns the repository of a name, with source i in it.
func (x *set) repo(host, name string, i int) *repo {
	r := x.repos[name]
	if r == nil {
		r = &repo{name: name, tags: map[string]*document{}, hosts: map[string]bool{}}
		x.repos[name] = r
	}
	if host != "" {
		r.hosts[host] = true
	}
	if !slices.Contains(r.sources, i) {
		r.sources = append(r.sources, i)
	}
	return r
}

// addTags gives the entries of source i their tags. In the repository of the
// source an entry also has the tag of its full ref name, where that is of one
// thing only; an entry without ref name, alone, is latest.
func (x *set) addTags(i int, warn func(msg string, args ...any)) error {
	snap := x.sources[i]
	plain := map[string][]ocispec.Descriptor{}    // tags of the source's own repository
	borrowed := map[string][]ocispec.Descriptor{} // from full ref names
	for _, desc := range snap.roots {
		refName := layout.RefName(desc)
		if refName == "" {
			if len(snap.roots) == 1 {
				plain["latest"] = []ocispec.Descriptor{desc}
			}
			continue
		}
		host, repository, tag, ok := SplitRefName(refName)
		switch {
		case !ok:
			warn("a ref name that can be no tag: served by digest only", "source", snap.src, "refName", refName)
		case snap.docs[desc.Digest] == nil:
			warn("an entry that is not there, or is too large for a manifest: it has no tag", "source", snap.src, "refName", refName)
		case repository == "":
			plain[tag] = append(plain[tag], desc)
		default:
			borrowed[tag] = append(borrowed[tag], desc)
			if err := x.tag(x.repo(host, repository, i), tag, snap, desc); err != nil {
				return err
			}
		}
	}
	own := x.repo(snap.host, snap.name, i)
	for tag, descs := range plain {
		if !oneThing(descs) {
			warn("a ref name of several entries: served by digest only", "source", snap.src, "refName", tag, "entries", len(descs))
			continue
		}
		if err := x.tag(own, tag, snap, descs[0]); err != nil {
			return err
		}
	}
	for tag, descs := range borrowed {
		if len(plain[tag]) == 0 && own.tags[tag] == nil && oneThing(descs) {
			own.tags[tag] = snap.docs[descs[0].Digest]
		}
	}
	return nil
}

func oneThing(descs []ocispec.Descriptor) bool {
	return !slices.ContainsFunc(descs, func(desc ocispec.Descriptor) bool { return desc.Digest != descs[0].Digest })
}

func (x *set) tag(r *repo, tag string, snap *snapshot, desc ocispec.Descriptor) error {
	doc := snap.docs[desc.Digest]
	if doc == nil {
		return nil // absent from a sparse source
	}
	if have := r.tags[tag]; have != nil && have.digest != doc.digest {
		return layout.WithHint(fmt.Errorf("%s: %w: tag %s of repository %s is %s and %s", snap.src, layout.ErrConflict, tag, r.name, have.digest, doc.digest),
			"SOURCE=NAME serves a source as another repository")
	}
	r.tags[tag] = doc
	return nil
}

// document returns the manifest or index d, present or past.
func (x *set) document(r *repo, d digest.Digest, t time.Time) *document {
	for _, i := range r.sources {
		if doc := x.sources[i].docs[d]; doc != nil {
			return doc
		}
	}
	for _, i := range r.sources {
		for _, p := range x.pasts[i] {
			if doc := p.docs[d]; doc != nil && t.Before(p.until) {
				return doc
			}
		}
	}
	return nil
}

// blob returns the blob d, present or past.
func (x *set) blob(r *repo, d digest.Digest, t time.Time) *blob {
	for _, i := range r.sources {
		if b := x.sources[i].blobs[d]; b != nil {
			return b
		}
	}
	for _, i := range r.sources {
		for _, p := range x.pasts[i] {
			if b := p.blobs[d]; b != nil && t.Before(p.until) {
				return b
			}
		}
	}
	return nil
}

// referrers returns what refers to d, sorted by digest.
func (x *set) referrers(r *repo, d digest.Digest) []ocispec.Descriptor {
	var found []ocispec.Descriptor
	for _, i := range r.sources {
		found = append(found, x.sources[i].referrers[d]...)
	}
	slices.SortFunc(found, func(a, b ocispec.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	return slices.CompactFunc(found, func(a, b ocispec.Descriptor) bool { return cmp.Compare(a.Digest, b.Digest) == 0 })
}
