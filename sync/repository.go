package sync

import (
	"context"
	"fmt"
	"strings"

	"github.com/containers/image/v5/docker/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/sync/internal/registry"
)

type (
	// RegistryOptions say how to reach a registry: credentials, certificates,
	// limits. The zero value does what podman does.
	RegistryOptions = registry.Options
	// A Secret is text that prints as "[redacted]".
	Secret = registry.Secret
	// An Exchange is one request and its answer, for RegistryOptions.Trace.
	Exchange = registry.Exchange
	// A RegistryError is a registry's answer, or why there was none.
	RegistryError = registry.Error
)

const (
	// DefaultJobs is how many transfers run at once unless RegistryOptions.Jobs
	// says otherwise.
	DefaultJobs = registry.DefaultJobs
	// DefaultTries is how often a request is sent unless RegistryOptions.Tries
	// says otherwise.
	DefaultTries = registry.DefaultTries
)

var (
	// ErrUnauthorized reports a registry that wants other credentials, or any.
	ErrUnauthorized = registry.ErrUnauthorized
	// ErrTokenHost reports a token server that may not be given credentials.
	ErrTokenHost = registry.ErrTokenHost
)

// A Repository is where a push goes.
type Repository struct{ named reference.Named }

// ParseRepository reads HOST/REPOSITORY, with docker:// before it or not.
// Anything else is [layout.ErrInvalid].
func ParseRepository(s string) (Repository, error) {
	named, err := registry.ParseName(s)
	return Repository{named}, err
}

// below returns the repository at path below r.
func (r Repository) below(path string) (Repository, error) {
	if path == "" {
		return r, nil
	}
	return ParseRepository(r.String() + "/" + path)
}

// String returns HOST/REPOSITORY.
func (r Repository) String() string {
	if r.named == nil {
		return ""
	}
	return r.named.Name()
}

// A Target is one thing to push.
type Target struct {
	Desc    ocispec.Descriptor // a manifest or an index
	RefName string             // in the source, for messages
	Tag     string             // in the repository; "" pushes by digest only
	Path    string             // of the repository below the one that the push goes to; "" is that one
}

// Targets returns what a push of src is to write: what ref.RefName and
// ref.Digest name in it, as [layout.Resolve] says, or all entries of its
// index.json. The tag is that of the ref name: the
// ref name itself, or the tag of HOST/REPOSITORY:TAG. A tag that the caller
// gives goes to the one entry that is chosen.
//
// All that cannot be pushed is reported at once: ref names that give no tag and
// entries that are no manifests are [layout.ErrInvalid], one tag for different
// digests is [layout.ErrAmbiguous].
func Targets(ctx context.Context, src layout.Source, ref layout.Reference, tag string) ([]Target, error) {
	entries, err := layout.Resolve(ctx, src, ref.RefName, ref.Digest)
	if err != nil {
		return nil, err
	}
	if tag != "" && len(entries) != 1 {
		list := make([]layout.Match, len(entries))
		for i, e := range entries {
			list[i] = layout.Match{Desc: e, RefName: layout.RefName(e)}
		}
		return nil, &layout.AmbiguousError{What: fmt.Sprintf("%s under the tag %s", src, tag), Candidates: list}
	}
	var targets []Target
	for _, e := range entries {
		t := Target{Desc: e, RefName: layout.RefName(e), Tag: tag}
		if ref.Digest != "" {
			t.RefName = ref.RefName
		}
		if tag == "" && t.RefName != "" {
			t.Tag = tagOf(t.RefName)
		}
		targets = append(targets, t)
	}
	return targets, checkTargets(src, targets)
}

// tagOf returns the tag that a ref name asks for; if there is none, what stands
// in its place, which is no valid tag.
func tagOf(refName string) string {
	if registry.ValidTag(refName) {
		return refName
	}
	slash := strings.LastIndexByte(refName, '/')
	if colon := strings.LastIndexByte(refName, ':'); colon > slash && registry.ValidTag(refName[colon+1:]) {
		return refName[colon+1:]
	}
	return refName
}

// checkTargets finds everything that is wrong before anything is sent.
func checkTargets(src layout.Source, targets []Target) error {
	var faults []string
	var candidates []layout.Match
	type place struct{ path, tag string }
	byTag := map[place]Target{}
	for _, t := range targets {
		if !registry.IsDocument(t.Desc) {
			faults = append(faults, fmt.Sprintf("%s is no manifest or index but %q", t.Desc.Digest, t.Desc.MediaType))
		}
		if t.Tag == "" {
			continue
		}
		if !registry.ValidTag(t.Tag) {
			faults = append(faults, fmt.Sprintf("ref name %q gives no valid tag", t.RefName))
			continue
		}
		at := place{t.Path, t.Tag}
		if first, ok := byTag[at]; ok && first.Desc.Digest != t.Desc.Digest {
			candidates = append(candidates,
				layout.Match{Desc: first.Desc, RefName: first.RefName}, layout.Match{Desc: t.Desc, RefName: t.RefName})
			continue
		}
		byTag[at] = t
	}
	switch {
	case len(faults) > 0:
		return fmt.Errorf("push %s: %w: %s", src, layout.ErrInvalid, strings.Join(faults, "; "))
	case len(candidates) > 0:
		return &layout.AmbiguousError{What: fmt.Sprintf("push %s: one tag for different digests", src), Candidates: candidates}
	}
	return nil
}
