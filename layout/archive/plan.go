package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/delta"
)

// A plan is what goes into an archive.
type plan struct {
	index  []byte
	docker []byte               // manifest.json; nil: no such member
	blobs  []ocispec.Descriptor // sorted by path
	delta  *delta.Description   // nil: it is no delta

	patches patches // of delta
}

func makePlan(ctx context.Context, src layout.Source, o *PackOptions) (*plan, error) {
	if o.Time.IsZero() {
		o.Time = epoch
	}
	if s := o.Time.Unix(); s < 0 || s > maxOctal {
		return nil, fmt.Errorf("%w time %s: a tar archive has 1970 to 2242", layout.ErrInvalid, o.Time.UTC().Format(time.RFC3339))
	}
	x, err := src.Index(ctx)
	if err != nil {
		return nil, err
	}
	if o.RefNames != nil && o.All {
		return nil, fmt.Errorf("%w options: all blobs, and those of some ref names", layout.ErrInvalid)
	}
	if err := reduce(ctx, src, x, o); err != nil {
		return nil, err
	}
	if d := delta.Lacks(src); d != nil {
		return nil, delta.NoBase(src, d)
	}
	p := &plan{index: x.Bytes()}
	blobs, err := reachable(ctx, src, x.Entries(), o.Sparse)
	if err != nil {
		return nil, err
	}
	if o.All {
		for info, err := range src.Blobs(ctx) {
			if err != nil {
				return nil, err
			}
			if _, ok := blobs[info.Digest]; !ok {
				blobs[info.Digest] = ocispec.Descriptor{MediaType: "application/octet-stream", Digest: info.Digest, Size: info.Size}
			}
		}
	}
	if o.Docker {
		if o.Base != nil {
			return nil, fmt.Errorf("%w options: a delta has not all that docker load needs", layout.ErrInvalid)
		}
		if p.docker, err = dockerManifest(ctx, src, x.Entries(), blobs, o); err != nil {
			return nil, err
		}
	}
	if o.Base != nil {
		p.delta = p.without(blobs, o.Base)
		if o.Bases != nil {
			if err := p.makePatches(ctx, src, x.Entries(), blobs, o); err != nil {
				return nil, errors.Join(err, p.patches.close())
			}
		}
		if o.Describe != nil {
			o.Describe(p.delta)
		}
	}
	for _, desc := range blobs {
		p.blobs = append(p.blobs, desc)
	}
	slices.SortFunc(p.blobs, func(a, b ocispec.Descriptor) int {
		return cmp.Compare(layout.BlobPath(a.Digest), layout.BlobPath(b.Digest))
	})
	return p, nil
}

// reduce takes out the entries of x that are not asked for, and puts in what
// refers to the others and has none.
func reduce(ctx context.Context, src layout.Source, x *layout.Index, o *PackOptions) error {
	entries := x.Entries()
	keep := make([]bool, len(entries))
	var roots []ocispec.Descriptor
	for _, name := range o.RefNames {
		found := x.FindRef(name)
		if len(found) == 0 {
			return fmt.Errorf("ref name %q: %w", name, layout.ErrNotFound)
		}
		for _, i := range found {
			keep[i] = true
			roots = append(roots, entries[i])
		}
	}
	_, lists := src.(layout.ReferrerLister)
	if o.RefNames == nil {
		if !lists || o.NoReferrers {
			return nil // all is reached
		}
		roots = entries
		for i := range keep {
			keep[i] = true
		}
	}
	var referrers []layout.Referrer
	if !o.NoReferrers {
		var err error
		if referrers, err = layout.ReferrersBelow(ctx, src, roots); err != nil {
			return err
		}
	}
	var add []ocispec.Descriptor
	for _, r := range referrers {
		listed := false
		for i, e := range entries {
			if e.Digest == r.Desc.Digest && (layout.RefName(r.Desc) == "" || layout.RefName(e) == layout.RefName(r.Desc)) {
				keep[i], listed = true, true
			}
		}
		if !listed {
			add = append(add, r.Desc)
		}
	}
	var remove []int
	for i, kept := range keep {
		if !kept {
			remove = append(remove, i)
		}
	}
	x.Remove(remove...)
	for _, desc := range add {
		x.Add(desc)
	}
	if len(add) > 0 {
		x.Sort()
	}
	return nil
}

// reachable returns what roots reach. Whatever cannot be packed is told before
// anything is written.
func reachable(ctx context.Context, src layout.Source, roots []ocispec.Descriptor, sparse bool) (map[digest.Digest]ocispec.Descriptor, error) {
	blobs := map[digest.Digest]ocispec.Descriptor{}
	for n, err := range layout.Walk(ctx, src, roots, &layout.WalkOptions{Sparse: sparse}) {
		if err != nil {
			return nil, err
		}
		if n.Absent {
			continue
		}
		if have, ok := blobs[n.Desc.Digest]; ok && have.Size == n.Desc.Size {
			continue // named as a document and as a layer
		}
		if n.Document == nil && n.Desc.Data == nil {
			info, err := src.Stat(ctx, n.Desc.Digest)
			if errors.Is(err, layout.ErrNotFound) && len(n.Desc.URLs) > 0 {
				continue
			}
			if err == nil && info.Size != n.Desc.Size {
				err = mismatch(n.Desc, "%d bytes, want %d", info.Size, n.Desc.Size)
			}
			if err != nil {
				return nil, err
			}
		}
		blobs[n.Desc.Digest] = n.Desc
	}
	return blobs, nil
}

// size returns how many bytes the archive has before it is compressed.
func (p *plan) size() int64 {
	_, n := p.places()
	return n
}

// places returns where each of the blobs begins in the archive, and how many
// bytes that has before it is compressed.
func (p *plan) places() (begin []int64, size int64) {
	member := func(name string, size int64) int64 {
		return int64(len(appendHeader(nil, name, size, typeRegular, epoch))) + size + padding(size)
	}
	n := member(ocispec.ImageLayoutFile, int64(len(marker))) + member(ocispec.ImageIndexFile, int64(len(p.index)))
	if p.docker != nil {
		n += member(dockerFile, int64(len(p.docker)))
	}
	n += member(blobsDir, 0)
	if p.delta != nil {
		n += member(deltaDir+"/", 0) + member(deltaDir+"/"+hexOf64+deltaDescription, int64(len(p.delta.Bytes())))
		for _, s := range p.patches.spans {
			n += member(deltaDir+"/"+hexOf64+deltaPatch, s.size)
		}
	}
	var in digest.Algorithm // whose directory was counted last
	for _, desc := range p.blobs {
		if a := desc.Digest.Algorithm(); a != in {
			in = a
			n += member(blobsDir+string(a)+"/", 0)
		}
		n += member(layout.BlobPath(desc.Digest), desc.Size)
		begin = append(begin, n-desc.Size-padding(desc.Size))
	}
	if in == "" {
		n += member(blobsDir+"sha256/", 0)
	}
	return begin, n + 2*blockSize
}
