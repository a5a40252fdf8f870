package delta

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/compress/patch"
	"github.com/gardenlinux/gloci-layout/layout"
)

// maxChosen is how many blobs a patch is made of beside the predecessor; see
// [MaxPieces] for what is read.
const maxChosen = 7

// A Piece is a blob that a patch copies from.
type Piece struct {
	Base    layout.Source // nil: a blob of the whole
	Desc    ocispec.Descriptor
	Content int64 // bytes of its uncompressed content, if that is copied from; 0: as it is
}

// A Choice is what patches for a blob are best made of.
type Choice struct {
	Pieces []Piece // of the blob as it is
	// Recipe may make the blob of its content; whether it does was not looked at.
	// Nil if there is none. OfContent is what patches for the content are made of.
	Recipe    *Recipe
	OfContent []Piece
}

// A view is a blob as it is, or the content that is compressed in it.
type view struct {
	Piece
	blob   int // blobs of one number are the same
	sketch *patch.Sketch
}

// A sketched is what one reads of a blob: its views, and how it was compressed.
type sketched struct {
	stored, content *patch.Sketch // content is nil if it is not compressed
	recipe          *Recipe
	size            int64 // of the content
}

// Pieces finds what patches for blobs, which src has, are best made of: the
// predecessor, and what has in common with the blob what that has not. These are
// predecessors of others in a base that lies in files, and smaller ones of blobs.
// Of what is compressed with gzip or zstd the content counts, too. Each of blobs
// and of its predecessors is read and verified, jobs at once. Blobs that nothing is
// like are not in the result, which depends on contents only.
func Pieces(ctx context.Context, src layout.Source, blobs []ocispec.Descriptor, predecessors map[digest.Digest]Predecessor, jobs int) (map[digest.Digest]Choice, error) {
	var files []Piece // the base, by digest; then blobs, by size
	olds := map[digest.Digest]int{}
	for _, d := range slices.Sorted(maps.Keys(predecessors)) {
		if p := predecessors[d]; olds[p.Desc.Digest] == 0 {
			olds[p.Desc.Digest] = 1
			files = append(files, Piece{Base: p.Base, Desc: p.Desc})
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
	found, err := sketch(ctx, src, files, jobs)
	if err != nil {
		return nil, err
	}
	c := newChoices(files, found)
	choices := map[digest.Digest]Choice{}
	for i := first; i < len(files); i++ {
		old := -1
		if p, ok := predecessors[files[i].Desc.Digest]; ok {
			old = olds[p.Desc.Digest]
		}
		// A compressed blob is compared with compressed ones.
		choice := Choice{Pieces: c.choose(i, c.stored[i], old, c.content[i] >= 0)}
		if found[i].recipe != nil {
			if choice.OfContent = c.choose(i, c.content[i], old, false); choice.OfContent != nil {
				choice.Recipe = found[i].recipe
			}
		}
		if choice.Pieces != nil || choice.OfContent != nil {
			choices[files[i].Desc.Digest] = choice
		}
	}
	return choices, nil
}

// choices are the views of all blobs, and what was chosen so far.
type choices struct {
	views           []view
	stored, content []int // by the number of a blob, its views; -1 if there is none
	chooser         *patch.Chooser
	depths          []int // by the number of a blob: how many patches in a row may be needed
}

func newChoices(files []Piece, found []sketched) *choices {
	c := &choices{depths: make([]int, len(files))}
	for i, f := range files {
		c.stored = append(c.stored, len(c.views))
		c.views = append(c.views, view{Piece: f, blob: i, sketch: found[i].stored})
		c.content = append(c.content, -1)
		if found[i].content != nil {
			c.content[i] = len(c.views)
			f.Content = found[i].size
			c.views = append(c.views, view{Piece: f, blob: i, sketch: found[i].content})
		}
	}
	sketches := make([]*patch.Sketch, len(c.views))
	for i, v := range c.views {
		sketches[i] = v.sketch
	}
	c.chooser = patch.NewChooser(sketches)
	return c
}

// choose returns what a patch for the view of blob is best made of: its
// predecessor old, if that is not negative, compressed or its content, and others.
func (c *choices) choose(blob, of, old int, compressed bool) []Piece {
	var chosen []int
	if old >= 0 {
		v := c.content[old]
		if v < 0 || compressed {
			v = c.stored[old]
		}
		chosen = append(chosen, v)
	}
	more := c.chooser.Choose(of, chosen, maxChosen, func(j int) bool {
		if base := c.views[j].Base; base != nil {
			_, ok := base.(layout.Sectioner)
			return ok
		}
		return c.views[j].blob < blob && c.depths[c.views[j].blob] < MaxPieces
	})
	slices.Sort(more) // those of the base first
	var pieces []Piece
	used := map[int]bool{}
	for _, j := range append(chosen, more...) {
		v := c.views[j]
		if used[v.blob] {
			continue // its content, or what that is compressed to: one of them will do
		}
		used[v.blob] = true
		pieces = append(pieces, v.Piece)
		c.depths[blob] = max(c.depths[blob], c.depths[v.blob]+1)
	}
	return pieces
}

// sketch reads and verifies all files.
func sketch(ctx context.Context, src layout.Source, files []Piece, jobs int) ([]sketched, error) {
	found := make([]sketched, len(files))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(jobs)
	for i, f := range files {
		g.Go(func() error {
			from := src
			if f.Base != nil {
				from = f.Base
			}
			var err error
			if found[i], err = sketchOne(ctx, from, f.Desc); err == nil && f.Base == nil && found[i].content != nil {
				err = found[i].findRecipe(ctx, from, f.Desc)
			}
			return err
		})
	}
	return found, g.Wait()
}

// sketchOne reads and verifies a blob, and the content that is compressed in it.
func sketchOne(ctx context.Context, from layout.Source, desc ocispec.Descriptor) (s sketched, err error) {
	rc, err := from.Blob(ctx, desc)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	s.stored = patch.NewSketch(desc.Size)
	buf := make([]byte, 256<<10)
	n, err := io.ReadFull(rc, buf[:min(compress.DetectLen, desc.Size)])
	if err != nil {
		return s, err
	}
	all := io.TeeReader(io.MultiReader(bytes.NewReader(bytes.Clone(buf[:n])), rc), s.stored)
	if format := compress.Detect(buf[:n]); format == compress.Gzip || format == compress.Zstd {
		s.sketchContent(all, format, desc, buf)
	}
	// What is left where the content ended, or was none.
	_, err = io.CopyBuffer(onlyWriter{io.Discard}, all, buf)
	return s, err
}

// onlyWriter hides that a writer can do more than write.
type onlyWriter struct{ io.Writer }

// sketchContent takes samples of what is compressed in r, if all of that can be
// read. An error of r comes again when it is read next.
func (s *sketched) sketchContent(r io.Reader, format compress.Format, desc ocispec.Descriptor, buf []byte) {
	dec, err := compress.NewReader(r, format)
	if err != nil {
		return
	}
	defer dec.Close() //nolint:errcheck // it only frees the decoder
	content, digester := patch.NewSketch(desc.Size), digest.SHA256.Digester()
	n, err := io.CopyBuffer(io.MultiWriter(content, digester.Hash()), onlyReader{dec}, buf)
	if err != nil || checkContent(n, layout.BlobInfo{Digest: desc.Digest, Size: desc.Size}) != nil {
		return
	}
	s.content, s.size = content, n
	s.recipe = &Recipe{Content: layout.BlobInfo{Digest: digester.Digest(), Size: n}}
}

// onlyReader hides that a reader can do more than read.
type onlyReader struct{ io.Reader }

// findRecipe looks for a recipe that may make the blob again.
func (s *sketched) findRecipe(ctx context.Context, from layout.Source, desc ocispec.Descriptor) error {
	r, closer, err := OpenAt(ctx, from, desc)
	if err != nil {
		return err
	}
	defer closer.Close() //nolint:errcheck // only read
	found, err := compress.FindRecipe(r, desc.Size)
	if found == nil || err != nil {
		s.recipe = nil
		return err
	}
	s.recipe.Recipe = *found
	return nil
}
