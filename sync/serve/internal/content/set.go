package content

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// A Set is all that is served at one time. It does not change.
type Set struct {
	sources []*snapshot // in the order of [Options].Sources
	pasts   [][]*past   // by source, the youngest first
	Repos   map[string]*Repo
	Names   []string // of the repositories, sorted

	refs int // requests that use it, and one while it is current; guarded by Store.mu
}

// A Repo is one repository: the tags, and all of the sources that they are in.
type Repo struct {
	Name     string
	Tags     map[string]*Document
	TagNames []string        // sorted
	Hosts    map[string]bool // registries that it is a mirror of

	sources []int // numbers in Set.sources
}

// maxPasts is how many states of one source are remembered beside the present
// one: an archive that was replaced takes room on its disk as long as it is open.
const maxPasts = 16

// Sources yields the names of the sources and what they have, as it was when
// they were loaded. It may be used as long as the set is held.
func (x *Set) Sources(yield func(name string, src layout.Source) bool) {
	for _, snap := range x.sources {
		if !yield(snap.name, frozen{snap}) {
			return
		}
	}
}

// SourcesOf returns how the sources of r name themselves.
func (x *Set) SourcesOf(r *Repo) []string {
	var names []string
	for _, i := range r.sources {
		names = append(names, x.sources[i].src.String())
	}
	return names
}

// all yields the snapshots that the set needs.
func (x *Set) all(yield func(*snapshot) bool) {
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

// assemble makes the repositories out of the sources.
func (x *Set) assemble(warn func(msg string, args ...any)) error {
	x.Repos = map[string]*Repo{}
	for i, snap := range x.sources {
		x.repo(snap.host, snap.name, i)
		if err := x.addTags(i, warn); err != nil {
			return err
		}
	}
	for name, r := range x.Repos {
		x.Names = append(x.Names, name)
		for tag := range r.Tags {
			r.TagNames = append(r.TagNames, tag)
		}
		slices.Sort(r.TagNames)
	}
	slices.Sort(x.Names)
	return nil
}

// repo returns the repository of a name, with source i in it.
func (x *Set) repo(host, name string, i int) *Repo {
	r := x.Repos[name]
	if r == nil {
		r = &Repo{Name: name, Tags: map[string]*Document{}, Hosts: map[string]bool{}}
		x.Repos[name] = r
	}
	if host != "" {
		r.Hosts[host] = true
	}
	if !slices.Contains(r.sources, i) {
		r.sources = append(r.sources, i)
	}
	return r
}

// addTags gives the entries of source i their tags. In the repository of the
// source an entry also has the tag of its full ref name, where that is of one
// thing only; an entry without ref name, alone, is latest.
func (x *Set) addTags(i int, warn func(msg string, args ...any)) error {
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
		if len(plain[tag]) == 0 && own.Tags[tag] == nil && oneThing(descs) {
			own.Tags[tag] = snap.docs[descs[0].Digest]
		}
	}
	return nil
}

func oneThing(descs []ocispec.Descriptor) bool {
	return !slices.ContainsFunc(descs, func(desc ocispec.Descriptor) bool { return desc.Digest != descs[0].Digest })
}

func (x *Set) tag(r *Repo, tag string, snap *snapshot, desc ocispec.Descriptor) error {
	doc := snap.docs[desc.Digest]
	if doc == nil {
		return nil // absent from a sparse source
	}
	if have := r.Tags[tag]; have != nil && have.Digest != doc.Digest {
		return layout.WithHint(fmt.Errorf("%s: %w: tag %s of repository %s is %s and %s", snap.src, layout.ErrConflict, tag, r.Name, have.Digest, doc.Digest),
			"SOURCE=NAME serves a source as another repository")
	}
	r.Tags[tag] = doc
	return nil
}

// Document returns the manifest or index d, present or past.
func (x *Set) Document(r *Repo, d digest.Digest, t time.Time) *Document {
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

// Blob returns the blob d, present or past.
func (x *Set) Blob(r *Repo, d digest.Digest, t time.Time) *Blob {
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

// has tells whether the set has b itself, present or past, and not another that
// has its digest.
func (x *Set) has(b *Blob) bool {
	for i, snap := range x.sources {
		if snap.blobs[b.Digest] == b || slices.ContainsFunc(x.pasts[i], func(p *past) bool { return p.blobs[b.Digest] == b }) {
			return true
		}
	}
	return false
}

// Referrers returns what refers to d, sorted by digest.
func (x *Set) Referrers(r *Repo, d digest.Digest) []ocispec.Descriptor {
	var found []ocispec.Descriptor
	for _, i := range r.sources {
		found = append(found, x.sources[i].referrers[d]...)
	}
	slices.SortFunc(found, func(a, b ocispec.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	return slices.CompactFunc(found, func(a, b ocispec.Descriptor) bool { return cmp.Compare(a.Digest, b.Digest) == 0 })
}
