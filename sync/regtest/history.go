package regtest

import (
	"fmt"
	"hash"
	"maps"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// A Mutation is one change of what a registry has.
type Mutation struct {
	Request int    // number of the request since the start or the last Reset
	Kind    string // "blob", "manifest", "tag", "untag" or "delete"
	Repo    string
	Tag     string
	Digest  digest.Digest // "" for untag
	Before  digest.Digest // what the tag named; "" if it is new
}

// note writes a mutation into the history.
func (m *Memory) note(q *request, mutation Mutation) {
	mutation.Request, mutation.Repo = q.n, q.name
	m.history = append(m.history, mutation)
}

// History returns all changes since the start, in order.
func (m *Memory) History() []Mutation {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Mutation{}, m.history...)
}

// AfterEach calls fn after each mutation, before the answer leaves; nil stops
// that. fn may ask the registry, but not change it.
func (m *Memory) AfterEach(fn func(Mutation)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.after = fn
}

// Tags returns what all tags of a repository name.
func (m *Memory) Tags(name string) map[string]digest.Digest {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.repo(name).tags)
}

// Manifest returns the bytes of a manifest or index, nil if it is not there.
func (m *Memory) Manifest(name string, d digest.Digest) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.repo(name).manifests[d].raw
}

// Complete tells whether a repository has all that the manifest or index d
// leads to, byte for byte. What is to be had from URLs may be missing.
func (m *Memory) Complete(name string, d digest.Digest) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.repo(name).complete(d, 0)
}

func (r *repo) complete(d digest.Digest, depth int) error {
	found, there := r.manifests[d]
	switch {
	case !there:
		return fmt.Errorf("manifest %s is missing", d)
	case depth > layout.DefaultMaxDepth:
		return fmt.Errorf("%s is nested too deep", d)
	case d.Algorithm().FromBytes(found.raw) != d:
		return fmt.Errorf("manifest %s has other content", d)
	}
	doc, err := layout.ParseDocument(ocispec.Descriptor{MediaType: found.mediaType, Digest: d, Size: int64(len(found.raw))}, found.raw)
	if err != nil {
		return err
	}
	leaves := doc.Layers
	if doc.Config != nil {
		leaves = append([]ocispec.Descriptor{*doc.Config}, leaves...)
	}
	for _, l := range leaves {
		switch data, have := r.blobs[l.Digest]; {
		case !have && len(l.URLs) == 0:
			return fmt.Errorf("blob %s of %s is missing", l.Digest, d)
		case have && l.Digest.Algorithm().FromBytes(data) != l.Digest:
			return fmt.Errorf("blob %s has other content", l.Digest)
		}
	}
	for _, e := range doc.Manifests {
		if err := r.complete(e.Digest, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// hashState adds what decides how the registry will answer to h.
func (m *Memory) hashState(h hash.Hash) {
	for _, name := range sorted(m.repos) {
		r := m.repos[name]
		h.Write(fmt.Appendf(nil, "repo %s %d %d %d\n", name, len(r.blobs), len(r.manifests), len(r.uploads)))
		for _, tag := range sorted(r.tags) {
			h.Write(fmt.Appendf(nil, "tag %s %s\n", tag, r.tags[tag]))
		}
	}
}
