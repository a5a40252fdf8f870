package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/delta"
)

// The members of a delta. Each is named by the sha256 digest of its content, so
// that damage of any of them shows.
const (
	deltaDir         = "gloci-delta"
	deltaDescription = ".json"
	deltaPatch       = ".patch"
)

// hexOf64 is as long as the hex digits of a sha256 digest.
const hexOf64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// placeOfDelta tells the place of a file in deltaDir.
func placeOfDelta(file string) (place, digest.Digest, error) {
	for suffix, p := range map[string]place{deltaDescription: placeDescription, deltaPatch: placePatch} {
		if hex, ok := strings.CutSuffix(file, suffix); ok {
			d, err := layout.ParseDigest("sha256:" + hex)
			return p, d, err
		}
	}
	return 0, "", unknown("a file")
}

// loadDelta reads the description of a delta, if there is one, and holds it
// against the members. The patches are verified when they are read. No bit of a
// delta is without a meaning, so that the change of any shows.
func (a *Archive) loadDelta(t *table) error {
	if len(t.descriptions) == 0 && len(t.patches) == 0 {
		return nil
	}
	if len(t.descriptions) != 1 {
		return fmt.Errorf("%w delta: %d descriptions", layout.ErrInvalid, len(t.descriptions))
	}
	for d, s := range t.descriptions {
		name := deltaDir + "/" + d.Encoded() + deltaDescription
		raw, err := a.read(name, s, delta.MaxDocument)
		if err != nil {
			return err
		}
		if got := digest.FromBytes(raw); got != d {
			return fmt.Errorf("member %q: %w: the bytes hash to %s", name, layout.ErrMismatch, got)
		}
		if a.delta, err = delta.Parse(raw); err != nil {
			return fmt.Errorf("member %q: %w", name, err)
		}
	}
	a.patches = t.patches
	if got := digest.FromBytes(a.raw); got != a.delta.Index.Digest || int64(len(a.raw)) != a.delta.Index.Size {
		return fmt.Errorf("member %q: %w: the delta is for %s", ocispec.ImageIndexFile, layout.ErrMismatch, a.delta.Index.Digest)
	}
	if t.loose {
		return fmt.Errorf("%w delta: a header with another checksum field than \"%%06o\", NUL and space", layout.ErrInvalid)
	}
	for _, pad := range t.pads {
		var zeros block
		if _, err := a.f.ReadAt(zeros[:pad.size], pad.off); err != nil {
			return readError(err)
		}
		if zeros != (block{}) {
			return fmt.Errorf("%w delta: data between members, at byte %d", layout.ErrInvalid, pad.off)
		}
	}
	return a.checkDelta()
}

// checkDelta tells whether description and members belong together.
func (a *Archive) checkDelta() error {
	var errs []error
	for _, d := range a.sorted {
		if a.delta.Expects(d) {
			errs = append(errs, fmt.Errorf("%w delta: blob %s is there, and is not to be there", layout.ErrInvalid, d))
		}
	}
	used := map[digest.Digest]bool{}
	for _, p := range a.delta.Patches {
		s, ok := a.patches[p.Patch.Digest]
		used[p.Patch.Digest] = true
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("%w delta: the patch for blob %s is missing", layout.ErrInvalid, p.Digest))
		case s.size != p.Patch.Size:
			errs = append(errs, fmt.Errorf("the patch for blob %s: %w: %d bytes, want %d", p.Digest, layout.ErrMismatch, s.size, p.Patch.Size))
		}
		errs = append(errs, a.checkPieces(p))
	}
	if len(used) < len(a.patches) {
		errs = append(errs, fmt.Errorf("%w delta: %d patches that are for nothing", layout.ErrInvalid, len(a.patches)-len(used)))
	}
	return errors.Join(errs...)
}

// checkPieces tells whether the archive has the blobs that p says it has, and not
// those that p says its base has.
func (a *Archive) checkPieces(p delta.Patch) error {
	for _, info := range p.Own {
		if a.delta.Expects(info.Digest) {
			continue // made of a patch, whose size was compared
		}
		s, ok := a.blobs[info.Digest]
		if !ok {
			return fmt.Errorf("%w delta: blob %s, of which blob %s is made, is missing", layout.ErrInvalid, info.Digest, p.Digest)
		}
		if s.size != info.Size {
			return fmt.Errorf("blob %s, of which blob %s is made: %w: %d bytes, want %d", info.Digest, p.Digest, layout.ErrMismatch, s.size, info.Size)
		}
	}
	for _, info := range p.Base {
		if _, ok := a.blobs[info.Digest]; ok {
			return fmt.Errorf("%w delta: blob %s is there, and is expected at the base", layout.ErrInvalid, info.Digest)
		}
	}
	return nil
}

// Delta returns what the archive lacks, if it is a delta; nil if it is whole.
// Blobs that it lacks are [layout.ErrNotFound]; [delta.Open] puts it together
// with its base.
func (a *Archive) Delta() *delta.Description { return a.delta }

// OpenPatch implements [delta.Carrier].
func (a *Archive) OpenPatch(ctx context.Context, p delta.Patch) (io.ReadCloser, error) {
	desc := ocispec.Descriptor{MediaType: "application/octet-stream", Digest: p.Patch.Digest, Size: p.Patch.Size}
	return layout.OpenBlob(ctx, desc, func(d digest.Digest) (io.ReadCloser, error) {
		s, ok := a.patches[d]
		if !ok {
			return nil, fmt.Errorf("%s: patch %s: %w", a.name, d, layout.ErrNotFound)
		}
		if err := a.f.Unchanged(s.off, s.size); err != nil {
			return nil, &layout.BlobError{Op: "open", Desc: desc, Err: err}
		}
		return io.NopCloser(io.NewSectionReader(a.f, s.off, s.size)), nil
	})
}

// Partial implements [layout.Partial].
func (a *Archive) Partial() *layout.Parts {
	if a.delta == nil {
		return nil
	}
	parts := &layout.Parts{Expected: a.delta.Needs(), Elsewhere: slices.Clone(a.delta.Expected)}
	for _, p := range a.delta.Patches {
		parts.Elsewhere = append(parts.Elsewhere, p.BlobInfo)
		parts.Others = append(parts.Others, layout.Part{
			Path: deltaDir + "/" + p.Patch.Digest.Encoded() + deltaPatch, BlobInfo: p.Patch,
			Open: func(ctx context.Context) (io.ReadCloser, error) { return a.OpenPatch(ctx, p) },
		})
	}
	return parts
}

// without takes out of blobs what base has, and returns the description of the
// delta that is left.
func (p *plan) without(blobs map[digest.Digest]ocispec.Descriptor, base *delta.Inventory) *delta.Description {
	d := &delta.Description{
		Index: layout.BlobInfo{Digest: digest.FromBytes(p.index), Size: int64(len(p.index))},
		Bases: base.Indexes,
	}
	for key, desc := range blobs {
		if base.Has(desc) {
			d.Expected = append(d.Expected, layout.BlobInfo{Digest: desc.Digest, Size: desc.Size})
			delete(blobs, key)
		}
	}
	slices.SortFunc(d.Expected, func(a, b layout.BlobInfo) int { return cmp.Compare(a.Digest, b.Digest) })
	return d
}

// delta writes what makes the archive a delta.
func (r *reader) delta(p *plan) error {
	if p.delta == nil {
		return nil
	}
	if err := r.dir(deltaDir + "/"); err != nil {
		return err
	}
	raw := p.delta.Bytes()
	if len(raw) > delta.MaxDocument {
		return fmt.Errorf("%w delta: its description has %d bytes, more than the limit of %d", layout.ErrInvalid, len(raw), delta.MaxDocument)
	}
	if err := r.file(deltaDir+"/"+digest.FromBytes(raw).Encoded()+deltaDescription, raw); err != nil {
		return err
	}
	return r.patchFiles(p)
}
