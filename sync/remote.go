package sync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/containers/image/v5/docker/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/sync/internal/registry"
)

// A Remote reads a repository of a registry as a layout. Its index.json is made
// up: one entry for the tag or digest that was asked for, or one for every tag,
// each with its tag as ref name. It may be used by several goroutines.
type Remote struct {
	named  reference.Named
	ref    layout.Reference
	client *registry.Client
	choose func(tags []string) []string // nil takes all
	policy string                       // file of the signature policy, for Pull

	contents *registry.Contents // by digest

	mu    sync.Mutex
	first []ocispec.Descriptor // what opening has found, for the first Index

	unlisted atomic.Bool // the registry keeps no lists of referrers
	tags     *tagSet     // once it was asked for
}

// OpenRemote opens HOST/REPOSITORY as ref names it, with the tag ref.RefName or
// the digest ref.Digest; with neither, all its tags. Mirrors of registries.conf
// are tried in order. What the registry does not have is
// [layout.ErrNotFound].
func OpenRemote(ctx context.Context, ref layout.Reference, opts *RegistryOptions) (*Remote, error) {
	return openRemote(ctx, ref, nil, opts)
}

// OpenTags is [OpenRemote] for some tags of a repository: those that choose
// leaves of the sorted list. It is called anew for each Index. A tag that is
// gone when it is asked for is [layout.ErrNotFound].
func OpenTags(ctx context.Context, repository Repository, choose func(tags []string) []string, opts *RegistryOptions) (*Remote, error) {
	return openRemote(ctx, layout.Reference{Transport: "docker", Location: repository.String()}, choose, opts)
}

func openRemote(ctx context.Context, ref layout.Reference, choose func(tags []string) []string, opts *RegistryOptions) (*Remote, error) {
	if opts == nil {
		opts = &RegistryOptions{}
	}
	named, err := registry.ParseName(ref.Location)
	if err != nil {
		return nil, err
	}
	if ref.RefName != "" && !registry.ValidTag(ref.RefName) {
		return nil, fmt.Errorf("%w tag %q", layout.ErrInvalid, ref.RefName)
	}
	full, err := withReference(named, ref)
	if err != nil {
		return nil, err
	}
	endpoints, err := opts.ReadEndpoints(full)
	if err != nil {
		return nil, err
	}
	var failed []error
	for _, e := range endpoints {
		r := &Remote{named: named, ref: ref, choose: choose, policy: opts.Policy}
		if r.client, err = registry.Open(ctx, e, false, opts); err != nil {
			failed = append(failed, err)
			continue
		}
		r.contents = registry.NewContents(r.client)
		if r.first, err = r.resolve(ctx); err == nil {
			return r, nil
		}
		r.client.Close()
		failed = append(failed, err)
		if ctx.Err() != nil {
			break
		}
	}
	// The registry itself stands last: its answer is the one that counts.
	slices.Reverse(failed)
	if len(failed) == 1 {
		return nil, failed[0]
	}
	return nil, errors.Join(failed...)
}

// withReference returns what registries.conf has to be asked for: some mirrors
// are for tags only, others for digests.
func withReference(named reference.Named, ref layout.Reference) (reference.Named, error) {
	switch {
	case ref.Digest != "":
		return reference.WithDigest(named, ref.Digest)
	case ref.RefName != "":
		return reference.WithTag(named, ref.RefName)
	}
	return named, nil
}

// resolve asks the registry for the entries of Index.
func (r *Remote) resolve(ctx context.Context) ([]ocispec.Descriptor, error) {
	if r.ref.Digest != "" || r.ref.RefName != "" {
		name := cmp.Or(string(r.ref.Digest), r.ref.RefName)
		// Whoever opens a source reads what it names: that is one request.
		desc, raw, err := r.client.Fetch(ctx, name)
		if err != nil {
			return nil, err
		}
		r.contents.Keep(desc.Digest, raw)
		return []ocispec.Descriptor{named(desc, r.ref.RefName)}, nil
	}
	tags, err := r.client.Tags(ctx)
	if err != nil {
		return nil, err
	}
	r.setTags(tags)
	slices.Sort(tags)
	tags = slices.Compact(tags)
	if r.choose != nil {
		tags = r.choose(tags)
	}
	found := make([]ocispec.Descriptor, len(tags))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(r.client.Askers(len(tags)))
	for i, tag := range tags {
		group.Go(func() error {
			desc, err := r.client.Resolve(ctx, tag)
			if errors.Is(err, layout.ErrNotFound) && r.choose == nil {
				return nil // deleted since it was listed
			}
			found[i] = named(desc, tag)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(d ocispec.Descriptor) bool { return d.Digest == "" })
	sizes := map[digest.Digest]int64{}
	for _, desc := range found {
		if size, ok := sizes[desc.Digest]; ok && size != desc.Size {
			return nil, fmt.Errorf("%s: the registry says that %s has %d bytes, and that it has %d: %w", r, desc.Digest, size, desc.Size, layout.ErrMismatch)
		}
		sizes[desc.Digest] = desc.Size
	}
	return found, nil
}

// named gives desc a ref name.
func named(desc ocispec.Descriptor, refName string) ocispec.Descriptor {
	if refName != "" {
		desc.Annotations = map[string]string{ocispec.AnnotationRefName: refName}
	}
	return desc
}

// Index asks the registry for what the tags name now.
func (r *Remote) Index(ctx context.Context) (*layout.Index, error) {
	r.mu.Lock()
	entries := r.first
	r.first = nil
	r.mu.Unlock()
	if entries == nil {
		var err error
		if entries, err = r.resolve(ctx); err != nil {
			return nil, err
		}
	}
	x := layout.NewIndex()
	for _, e := range entries {
		x.Add(e)
	}
	return x, nil
}

// Blob implements [layout.Source]. A transfer that breaks goes on where it
// broke.
func (r *Remote) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	return r.contents.Blob(ctx, desc)
}

// BlobFrom implements [layout.Resumer].
func (r *Remote) BlobFrom(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	return r.client.BlobFrom(ctx, desc, offset)
}

// Blobs implements [layout.Source]: a registry lists no blobs, so these are
// the reachable ones.
func (r *Remote) Blobs(ctx context.Context) iter.Seq2[layout.BlobInfo, error] {
	return reachable(ctx, r)
}

// reachable lists what a source's index.json leads to, sorted.
func reachable(ctx context.Context, src layout.Source) iter.Seq2[layout.BlobInfo, error] {
	return func(yield func(layout.BlobInfo, error) bool) {
		x, err := src.Index(ctx)
		if err != nil {
			yield(layout.BlobInfo{}, err)
			return
		}
		sizes := map[digest.Digest]int64{}
		for n, err := range layout.Walk(ctx, src, x.Entries(), nil) {
			if err != nil {
				yield(layout.BlobInfo{}, err)
				return
			}
			if !n.Absent {
				sizes[n.Desc.Digest] = n.Desc.Size
			}
		}
		list := make([]layout.BlobInfo, 0, len(sizes))
		for d, size := range sizes {
			list = append(list, layout.BlobInfo{Digest: d, Size: size})
		}
		slices.SortFunc(list, func(a, b layout.BlobInfo) int { return cmp.Compare(a.Digest, b.Digest) })
		for _, info := range list {
			if !yield(info, nil) {
				return
			}
		}
	}
}

// Stat implements [layout.Source].
func (r *Remote) Stat(ctx context.Context, d digest.Digest) (layout.BlobInfo, error) {
	return r.contents.Stat(ctx, d)
}

// String returns docker://HOST/REPOSITORY and the tag or digest.
func (r *Remote) String() string {
	ref := r.ref
	ref.Location = r.named.Name()
	return ref.String()
}

// Close ends idle connections.
func (r *Remote) Close() error {
	r.client.Close()
	return nil
}
