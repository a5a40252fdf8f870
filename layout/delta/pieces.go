package delta

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/gardenlinux/gloci-layout/compress/patch"
	"github.com/gardenlinux/gloci-layout/layout"
)

// maxChosen is how many blobs a patch is made of beside the predecessor; see
// [MaxPieces] for what is read.
const maxChosen = 7

// A Piece is a blob that a patch copies from.
type Piece struct {
	Base layout.Source // nil: a blob of the whole
	Desc ocispec.Descriptor
}

// Pieces finds what patches for blobs, which src has, are best made of: the
// predecessor, and what has in common with the blob what that has not. These are
// predecessors of others in a base that lies in files, and smaller ones of blobs.
// Each of blobs and of its predecessors is read and verified, jobs at once. Blobs
// that nothing is like are not in the result, which depends on contents only.
func Pieces(ctx context.Context, src layout.Source, blobs []ocispec.Descriptor, predecessors map[digest.Digest]Predecessor, jobs int) (map[digest.Digest][]Piece, error) {
	var files []Piece // the base, by digest; then blobs, by size
	olds := map[digest.Digest]int{}
	for _, d := range slices.Sorted(maps.Keys(predecessors)) {
		if p := predecessors[d]; olds[p.Desc.Digest] == 0 {
			olds[p.Desc.Digest] = 1
			files = append(files, Piece(p))
		}
	}
	slices.SortFunc(files, func(a, b Piece) int { return cmp.Compare(a.Desc.Digest, b.Desc.Digest) })
	for i, f := range files {
		olds[f.Desc.Digest] = i
	}
	blobs = slices.Clone(blobs)
	slices.SortFunc(blobs, func(a, b ocispec.Descriptor) int {
		return cmp.Or(cmp.Compare(a.Size, b.Size), cmp.Compare(a.Digest, b.Digest))
	})
	first := len(files)
	for _, desc := range blobs {
		files = append(files, Piece{Desc: desc})
	}
	sketches, err := sketch(ctx, src, files, jobs)
	if err != nil {
		return nil, err
	}
	chooser := patch.NewChooser(sketches)
	depths := make([]int, len(files)) // how many patches in a row may be needed
	pieces := map[digest.Digest][]Piece{}
	for i := first; i < len(files); i++ {
		var chosen []int
		if p, ok := predecessors[files[i].Desc.Digest]; ok {
			chosen = append(chosen, olds[p.Desc.Digest])
		}
		more := chooser.Choose(i, chosen, maxChosen, func(j int) bool {
			if base := files[j].Base; base != nil {
				_, ok := base.(layout.Sectioner)
				return ok
			}
			return j < i && depths[j] < MaxPieces
		})
		slices.Sort(more) // those of the base first
		for _, j := range append(chosen, more...) {
			pieces[files[i].Desc.Digest] = append(pieces[files[i].Desc.Digest], files[j])
			depths[i] = max(depths[i], depths[j]+1)
		}
	}
	return pieces, nil
}

// sketch reads and verifies all files.
func sketch(ctx context.Context, src layout.Source, files []Piece, jobs int) ([]*patch.Sketch, error) {
	sketches := make([]*patch.Sketch, len(files))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(jobs)
	for i, f := range files {
		sketches[i] = patch.NewSketch(f.Desc.Size)
		g.Go(func() error {
			from := src
			if f.Base != nil {
				from = f.Base
			}
			rc, err := from.Blob(ctx, f.Desc)
			if err != nil {
				return err
			}
			_, err = io.CopyBuffer(sketches[i], rc, make([]byte, 256<<10))
			return errors.Join(err, rc.Close())
		})
	}
	return sketches, g.Wait()
}
