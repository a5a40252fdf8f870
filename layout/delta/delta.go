// Package delta describes archives that lack what their reader has already, and
// puts them together with it again.
//
// A delta is an .oci archive with all of index.json, and only such blobs as its
// base lacks: one or more sources whose blobs the receiver holds. Its
// [Description] lists the blobs that it expects there, so that a wrong base is
// known before anything is done. [Open] makes a [layout.Source] of both, which
// is the whole layout, byte for byte.
//
// The base is what index.json reaches there; see [Take]. It may be known by an
// [Inventory] alone, digests and sizes.
//
// docs/format.md has the bytes.
package delta

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
)

// MediaType is the mediaType of the description of a delta (docs/format.md), and
// MediaTypeRecipes that of one which looks into compressed blobs.
const (
	MediaType        = "application/vnd.gardenlinux.gloci-layout.delta.v2+json"
	MediaTypeRecipes = "application/vnd.gardenlinux.gloci-layout.delta.v3+json"
)

// MaxPieces is how many blobs a patch may copy from, and how many patches may
// need one another in a row.
const MaxPieces = 16

// A Description says what a delta is made of, and what it needs.
type Description struct {
	// Index is the index.json beside it.
	Index layout.BlobInfo
	// Bases are the index.json of the bases, as far as they have one.
	Bases []layout.BlobInfo
	// Expected are the blobs that the base has, sorted by digest.
	Expected []layout.BlobInfo
	// Patches are how further blobs are made, sorted by digest.
	Patches []Patch
}

// A Patch is how a blob is made of others: of those in Base and then those in
// Own, one after another. There is at least one, and each once.
type Patch struct {
	layout.BlobInfo                   // the blob that is made
	Base            []layout.BlobInfo // blobs of the base
	Own             []layout.BlobInfo // blobs that the delta has, whole or as patches
	Patch           layout.BlobInfo   // the member that says how
	// Uncompressed are those of Base and Own of which the content is taken, not the
	// compressed bytes: their digests, and how many bytes that content has. Sorted
	// by digest.
	Uncompressed []layout.BlobInfo
	// Recipe says how the blob is compressed, if what the patch makes is not the
	// blob but its content. Nil: it is the blob.
	Recipe *Recipe
}

// A Recipe is how content becomes a compressed blob; see [compress.Recipe].
type Recipe struct {
	compress.Recipe
	Content layout.BlobInfo // what is compressed
}

// content returns how many bytes the content of the piece d has; 0 means that its
// bytes are taken as they are.
func (p *Patch) content(d digest.Digest) int64 {
	i, ok := slices.BinarySearchFunc(p.Uncompressed, d, compareDigest)
	if !ok {
		return 0
	}
	return p.Uncompressed[i].Size
}

// made returns what the patch makes: the blob, or its content.
func (p *Patch) made() layout.BlobInfo {
	if p.Recipe != nil {
		return p.Recipe.Content
	}
	return p.BlobInfo
}

// A Carrier is a source that may be a delta: an archive.
type Carrier interface {
	layout.Source
	layout.Sectioner
	// Delta returns the description; nil if the source is whole.
	Delta() *Description
	// OpenPatch opens a patch of the description; it is verified when it is read.
	OpenPatch(ctx context.Context, p Patch) (io.ReadCloser, error)
}

// Of returns the description of src, if it is a delta, with its base or without.
func Of(src layout.Source) *Description {
	if d, ok := src.(interface{ Delta() *Description }); ok {
		return d.Delta()
	}
	return nil
}

// Lacks returns the description of src if it is a delta without its base, so
// that blobs of it are not to be had.
func Lacks(src layout.Source) *Description {
	if c, ok := src.(Carrier); ok {
		return c.Delta()
	}
	return nil
}

// Expects tells whether d is expected at the base, as it is or for a patch.
func (d *Description) Expects(want digest.Digest) bool {
	_, ok := slices.BinarySearchFunc(d.Expected, want, compareDigest)
	if ok {
		return true
	}
	_, ok = d.patch(want)
	return ok
}

func (d *Description) patch(want digest.Digest) (Patch, bool) {
	i, ok := slices.BinarySearchFunc(d.Patches, want, func(p Patch, d digest.Digest) int { return compareDigest(p.BlobInfo, d) })
	if !ok {
		return Patch{}, false
	}
	return d.Patches[i], true
}

// Needs returns what the base must have, sorted by digest.
func (d *Description) Needs() []layout.BlobInfo {
	needs := slices.Clone(d.Expected)
	for _, p := range d.Patches {
		needs = append(needs, p.Base...)
	}
	slices.SortFunc(needs, compareInfo)
	return slices.Compact(needs)
}

type descriptionDocument struct {
	MediaType string      `json:"mediaType"`
	Index     blob        `json:"index"`
	Bases     []blob      `json:"bases"`
	Blobs     []blob      `json:"blobs"`
	Patches   []patchJSON `json:"patches"`
}

type patchJSON struct {
	Digest       digest.Digest `json:"digest"`
	Size         int64         `json:"size"`
	Base         []blob        `json:"base"`
	Own          []blob        `json:"own"`
	Patch        blob          `json:"patch"`
	Uncompressed []blob        `json:"uncompressed,omitempty"`
	Recipe       *recipeJSON   `json:"recipe,omitempty"`
}

// Bytes returns the description as a document, in its one form.
func (d *Description) Bytes() []byte {
	doc := descriptionDocument{MediaType: MediaType, Index: blob(d.Index), Bases: toBlobs(d.Bases), Blobs: toBlobs(d.Expected), Patches: make([]patchJSON, len(d.Patches))}
	for i, p := range d.Patches {
		doc.Patches[i] = patchJSON{
			Digest: p.Digest, Size: p.Size, Base: toBlobs(p.Base), Own: toBlobs(p.Own), Patch: blob(p.Patch),
			Uncompressed: toBlobs(p.Uncompressed), Recipe: p.Recipe.json(),
		}
		if p.Recipe != nil || len(p.Uncompressed) > 0 {
			doc.MediaType = MediaTypeRecipes
		}
	}
	return encode(doc)
}

// Parse reads what [Description.Bytes] writes. Anything else is
// [layout.ErrInvalid].
func Parse(raw []byte) (*Description, error) {
	d, err := parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%w description of a delta: %w", layout.ErrInvalid, err)
	}
	return d, nil
}

func parse(raw []byte) (*Description, error) {
	var doc descriptionDocument
	if err := decode(raw, &doc, MediaType, MediaTypeRecipes); err != nil {
		return nil, err
	}
	d := &Description{Index: layout.BlobInfo(doc.Index), Bases: toInfos(doc.Bases), Expected: toInfos(doc.Blobs)}
	errs := []error{checkInfo(d.Index), checkInfos(d.Bases), checkInfos(d.Expected)}
	for i, j := range doc.Patches {
		p := Patch{BlobInfo: layout.BlobInfo{Digest: j.Digest, Size: j.Size}, Base: toInfos(j.Base), Own: toInfos(j.Own), Patch: layout.BlobInfo(j.Patch), Uncompressed: toInfos(j.Uncompressed)}
		var err error
		p.Recipe, err = j.Recipe.recipe()
		errs = append(errs, err, checkInfo(p.BlobInfo), p.checkContents(), p.checkPieces(d), checkInfo(p.Patch))
		switch {
		case i > 0 && d.Patches[i-1].Digest >= p.Digest:
			errs = append(errs, fmt.Errorf("patch of %s: digests are not sorted", p.Digest))
		case d.Expects(p.Digest):
			errs = append(errs, fmt.Errorf("patch of %s, which is expected at the base", p.Digest))
		}
		d.Patches = append(d.Patches, p)
	}
	errs = append(errs, d.checkChains())
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if !bytes.Equal(d.Bytes(), raw) {
		return nil, errors.New("it is not in the canonical form")
	}
	return d, nil
}

// checkPieces checks what p copies from, by itself.
func (p *Patch) checkPieces(d *Description) error {
	n := len(p.Base) + len(p.Own)
	if n == 0 || n > MaxPieces {
		return fmt.Errorf("patch of %s: made of %d blobs, not of 1 to %d", p.Digest, n, MaxPieces)
	}
	seen := map[digest.Digest]bool{p.Digest: true}
	var size int64
	for _, info := range slices.Concat(p.Base, p.Own) {
		if err := checkInfo(info); err != nil {
			return err
		}
		if seen[info.Digest] {
			return fmt.Errorf("patch of %s: made of %s, twice or of itself", p.Digest, info.Digest)
		}
		seen[info.Digest] = true
		n := cmp.Or(p.content(info.Digest), info.Size)
		if n > maxPieceBytes-size {
			return fmt.Errorf("patch of %s: made of more than %d bytes", p.Digest, int64(maxPieceBytes))
		}
		size += n
	}
	for _, info := range p.Own {
		if _, ok := slices.BinarySearchFunc(d.Expected, info.Digest, compareDigest); ok {
			return fmt.Errorf("patch of %s: %s is to be in the delta, and is expected at the base", p.Digest, info.Digest)
		}
	}
	return nil
}

// maxPieceBytes is far below where a sum of sizes could overflow.
const maxPieceBytes = 1 << 60

// checkChains checks that no patch needs itself, and none too many in a row.
func (d *Description) checkChains() error {
	depths := map[digest.Digest]int{} // -1: it is being looked at
	var depth func(p Patch) (int, error)
	depth = func(p Patch) (int, error) {
		n, ok := depths[p.Digest]
		if ok && n < 0 {
			return 0, fmt.Errorf("patch of %s: it needs itself", p.Digest)
		}
		if ok {
			return n, nil
		}
		depths[p.Digest] = -1
		n = 1
		for _, own := range p.Own {
			q, ok := d.patch(own.Digest)
			if !ok {
				continue
			}
			if q.Size != own.Size {
				return 0, fmt.Errorf("patch of %s: %s has %d bytes, not %d", p.Digest, q.Digest, q.Size, own.Size)
			}
			if n := p.content(own.Digest); n > 0 && q.Recipe != nil && q.Recipe.Content.Size != n {
				return 0, fmt.Errorf("patch of %s: the content of %s has %d bytes, not %d", p.Digest, q.Digest, q.Recipe.Content.Size, n)
			}
			below, err := depth(q)
			if err != nil {
				return 0, err
			}
			n = max(n, below+1)
		}
		if n > MaxPieces {
			return 0, fmt.Errorf("patch of %s: %d patches in a row need one another, more than %d", p.Digest, n, MaxPieces)
		}
		depths[p.Digest] = n
		return n, nil
	}
	for _, p := range d.Patches {
		if _, err := depth(p); err != nil {
			return err
		}
	}
	return nil
}

// A BaseError tells that a base is not the one that a delta was made for. It is
// [layout.ErrNotFound].
type BaseError struct {
	Delta   string            // name of the delta
	Bases   []string          // names of what was searched
	Missing []layout.BlobInfo // what they lack, or have with another size
	Needs   int               // how many blobs of the base are needed
}

func (e *BaseError) Error() string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s is a delta for another base: of %d blobs that it expects, these are not in ", e.Delta, e.Needs)
	for i, name := range e.Bases {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(name)
	}
	b.WriteString(":")
	for _, m := range e.Missing {
		fmt.Fprintf(&b, "\n%s, %d bytes", m.Digest, m.Size)
	}
	return b.String()
}

// Unwrap returns [layout.ErrNotFound].
func (e *BaseError) Unwrap() error { return layout.ErrNotFound }

// NoBase is the error for a delta that is used as a whole without its base.
func NoBase(src layout.Source, d *Description) error {
	needs := d.Needs()
	var n int64
	for _, info := range needs {
		n += info.Size
	}
	return layout.WithHint(fmt.Errorf("%s is a delta, which lacks %d blobs (%d bytes) of its base: %w", src, len(needs), n, layout.ErrNotFound),
		"name the base with --base SOURCE")
}
