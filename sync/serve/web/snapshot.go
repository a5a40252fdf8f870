package web

import (
	"context"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/lint"
)

// Limits of what is kept of a source in memory; what is beyond is told, and not
// shown.
const (
	maxDocuments   = 20_000
	maxDescriptors = 500_000 // that the documents name
)

// A snapshot is all that pages need of one state of a source but the raw bytes of
// documents. It does not change.
type snapshot struct {
	id        string
	roots     []*document // each digest once, in the order of index.json
	documents []*document // each digest once, parents first
	byDigest  map[digest.Digest]*document
	stored    int64 // bytes of all blobs, each once
	named     int64 // bytes of all blobs, once for each manifest that names them
	blobs     int
	uses      map[digest.Digest]int32 // in how many manifests a blob is
	truncated bool
	findings  []lint.Finding
	byFinding map[digest.Digest][]lint.Finding

	entries     []versionView // the first of versions
	makeEntries sync.Once
}

// A document is an index or manifest, as far as pages list it.
type document struct {
	desc         ocispec.Descriptor // as it is first named
	err          error
	absent       bool
	isIndex      bool
	isImage      bool
	artifactType string
	config       *ocispec.Descriptor
	layers       []ocispec.Descriptor
	manifests    []ocispec.Descriptor
	subject      *ocispec.Descriptor
	annotations  map[string]string

	refNames  []string // of its entries of index.json
	role      role
	flavor    Flavor
	arch      string
	size, own int64 // bytes of all that it names, and of what no other manifest names
	parents   []*document
	referrers []*document
}

// A role is what a document is for.
type role string

const (
	roleIndex       role = "index"
	roleImage       role = "image"
	roleArtifact    role = "artifact"
	roleSignature   role = "signature"
	roleSBOM        role = "SBOM"
	roleAttestation role = "attestation"
	roleReferrer    role = "referrer"
	roleDamaged     role = "damaged"
	roleAbsent      role = "absent"
	roleOther       role = "blob"
)

// refers tells whether a document of this role says something of another one.
func (r role) refers() bool {
	return r == roleSignature || r == roleSBOM || r == roleAttestation || r == roleReferrer
}

// cache keeps the newest snapshot of each repository.
type cache struct {
	mu    sync.Mutex
	slots map[string]*slot
}

type slot struct {
	mu   sync.Mutex
	snap *snapshot
}

// snapshot returns that of the state repo has now.
func (x *request) snapshot(repo Repository) (*snapshot, error) {
	ctx := x.r.Context()
	var index *layout.Index
	id := "v:" + repo.Version
	if repo.Version == "" {
		var err error
		if index, err = repo.Source.Index(ctx); err != nil {
			return nil, err
		}
		id = "i:" + string(index.Descriptor().Digest)
	}
	s := x.h.cache.slot(repo.Name, x.repos)
	s.mu.Lock() // one builds, others wait for it
	defer s.mu.Unlock()
	if s.snap != nil && s.snap.id == id {
		return s.snap, nil
	}
	// Others wait for it, so it is finished even if this client hangs up.
	snap, err := x.h.opts.build(context.WithoutCancel(ctx), repo.Source, index)
	if err != nil {
		return nil, err
	}
	snap.id = id
	s.snap = snap
	return snap, nil
}

// slot returns that of a repository, and forgets those that are served no more.
func (c *cache) slot(name string, repos []Repository) *slot {
	c.mu.Lock()
	defer c.mu.Unlock()
	for have := range c.slots {
		if !slices.ContainsFunc(repos, func(r Repository) bool { return r.Name == have }) {
			delete(c.slots, have)
		}
	}
	if c.slots == nil {
		c.slots = map[string]*slot{}
	}
	if c.slots[name] == nil {
		c.slots[name] = &slot{}
	}
	return c.slots[name]
}
