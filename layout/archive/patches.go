package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/compress/patch"
	"github.com/gardenlinux/gloci-layout/internal/tempfile"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/delta"
)

const (
	// minPatched is the size of the smallest blob that is worth a patch.
	minPatched = 4 << 10 // 4 KiB
	// maxPatchers bounds how many blobs are compared at once; each takes about
	// 100 MiB.
	maxPatchers = 4
)

// errSavesLittle ends a patch that is hardly smaller than its blob, or of no use.
var errSavesLittle = errors.New("the patch saves less than a tenth, or the blob cannot be made again")

// patches are the patches of a delta that is written.
type patches struct {
	spool *os.File // of all of them, without a name

	mu    sync.Mutex
	end   int64
	spans map[digest.Digest]span // in spool, by the digests of the patches
}

// makePatches puts patches in the place of blobs, where that saves a tenth. They
// are made of predecessors at the bases and of other blobs.
func (p *plan) makePatches(ctx context.Context, src layout.Source, roots []ocispec.Descriptor, blobs map[digest.Digest]ocispec.Descriptor, o *PackOptions) error {
	jobs := min(runtime.GOMAXPROCS(0), maxPatchers)
	choices, err := findPieces(ctx, src, roots, blobs, o, jobs)
	if err != nil {
		return err
	}
	if p.patches.spool, err = tempfile.New(""); err != nil {
		return err
	}
	p.patches.spans = map[digest.Digest]span{}
	made := make(chan delta.Patch, len(blobs))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(jobs)
	for d, choice := range choices {
		g.Go(func() error {
			m, err := p.patches.best(ctx, src, blobs[d], choice)
			if errors.Is(err, errSavesLittle) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("patch for blob %s: %w", d, err)
			}
			made <- m
			return nil
		})
	}
	err = g.Wait()
	close(made)
	for m := range made {
		p.delta.Patches = append(p.delta.Patches, m)
		delete(blobs, m.Digest)
	}
	slices.SortFunc(p.delta.Patches, func(a, b delta.Patch) int { return cmp.Compare(a.Digest, b.Digest) })
	return err
}

// findPieces finds what patches for blobs may be made of.
func findPieces(ctx context.Context, src layout.Source, roots []ocispec.Descriptor, blobs map[digest.Digest]ocispec.Descriptor, o *PackOptions, jobs int) (map[digest.Digest]delta.Choice, error) {
	predecessors, err := delta.Predecessors(ctx, src, roots, o.Bases, o.Key)
	if err != nil {
		return nil, err
	}
	var list []ocispec.Descriptor
	for d, desc := range blobs {
		if desc.Size >= minPatched && desc.Data == nil {
			list = append(list, desc)
			continue
		}
		delete(predecessors, d)
	}
	for d, from := range predecessors {
		info, err := from.Base.Stat(ctx, from.Desc.Digest)
		// It was there, or never: then the blob is packed whole.
		if _, ok := blobs[d]; !ok || !o.Base.Has(from.Desc) || err != nil || info.Size != from.Desc.Size {
			delete(predecessors, d)
		}
	}
	return delta.Pieces(ctx, src, list, predecessors, jobs)
}

// best makes the patch for a blob: for its content, if that saves enough and
// becomes the same blob again, else for the blob as it is. All blobs were
// verified: what is made of another one would be of no use to anybody.
func (p *patches) best(ctx context.Context, src layout.Source, desc ocispec.Descriptor, choice delta.Choice) (delta.Patch, error) {
	if choice.Recipe != nil {
		m, err := p.make(ctx, src, desc, choice.OfContent, choice.Recipe)
		if !errors.Is(err, errSavesLittle) {
			return m, err
		}
	}
	if choice.Pieces == nil {
		return delta.Patch{}, errSavesLittle
	}
	return p.make(ctx, src, desc, choice.Pieces, nil)
}

// make makes one patch, for the content of the blob if there is a recipe.
func (p *patches) make(ctx context.Context, src layout.Source, desc ocispec.Descriptor, from []delta.Piece, recipe *delta.Recipe) (m delta.Patch, err error) {
	m.BlobInfo, m.Recipe = layout.BlobInfo{Digest: desc.Digest, Size: desc.Size}, recipe
	var parts []patch.Part
	for _, piece := range from {
		at, list := piece.Base, &m.Base
		if at == nil {
			at, list = src, &m.Own
		}
		r, closer, err := openPiece(ctx, at, piece)
		if err != nil {
			return m, err
		}
		defer closer.Close() //nolint:errcheck // only read
		*list = append(*list, layout.BlobInfo{Digest: piece.Desc.Digest, Size: piece.Desc.Size})
		part := patch.Part{ReaderAt: r, Size: piece.Desc.Size}
		if piece.Content > 0 {
			part.Size = piece.Content
			m.Uncompressed = append(m.Uncompressed, layout.BlobInfo{Digest: piece.Desc.Digest, Size: piece.Content})
		}
		parts = append(parts, part)
	}
	slices.SortFunc(m.Uncompressed, func(a, b layout.BlobInfo) int { return cmp.Compare(a.Digest, b.Digest) })
	rc, size, err := openTarget(ctx, src, desc, recipe)
	if err != nil {
		return m, err
	}
	defer rc.Close() //nolint:errcheck // only read
	f, err := tempfile.New("")
	if err != nil {
		return m, err
	}
	defer f.Close() //nolint:errcheck // it has no name, and is copied
	out := &patchWriter{w: f, left: desc.Size - (desc.Size+9)/10, digester: digest.SHA256.Digester()}
	base, baseSize := patch.Join(parts...)
	if err := patch.Encode(out, base, baseSize, rc, size); err != nil {
		return m, err
	}
	if recipe != nil {
		if err := proves(ctx, src, desc, recipe); err != nil {
			return m, err
		}
	}
	m.Patch = layout.BlobInfo{Digest: out.digester.Digest(), Size: out.n}
	return m, p.keep(f, m.Patch)
}

// openTarget opens what a patch is to make, and tells its size.
func openTarget(ctx context.Context, src layout.Source, desc ocispec.Descriptor, recipe *delta.Recipe) (io.ReadCloser, int64, error) {
	if recipe == nil {
		rc, err := src.Blob(ctx, desc)
		return rc, desc.Size, err
	}
	rc, err := delta.OpenContent(ctx, src, desc, recipe.Content.Size)
	return rc, recipe.Content.Size, err
}

// openPiece opens a piece to be read anywhere; a content becomes a temporary file.
func openPiece(ctx context.Context, src layout.Source, piece delta.Piece) (io.ReaderAt, io.Closer, error) {
	if piece.Content == 0 {
		return delta.OpenAt(ctx, src, piece.Desc)
	}
	rc, err := delta.OpenContent(ctx, src, piece.Desc, piece.Content)
	if err != nil {
		return nil, nil, err
	}
	defer rc.Close() //nolint:errcheck // only read
	f, err := tempfile.New("")
	if err == nil {
		_, err = io.Copy(f, rc)
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return f, f, err
}

// proves compresses the content of a blob as the recipe says, and compares. If that
// makes other bytes, nothing is saved by it.
func proves(ctx context.Context, src layout.Source, desc ocispec.Descriptor, recipe *delta.Recipe) error {
	want, closer, err := delta.OpenAt(ctx, src, desc)
	if err != nil {
		return err
	}
	defer closer.Close() //nolint:errcheck // only read
	rc, err := delta.OpenContent(ctx, src, desc, recipe.Content.Size)
	if err != nil {
		return err
	}
	defer rc.Close() //nolint:errcheck // only read
	c := compress.NewComparer(want, desc.Size)
	zw, err := recipe.NewWriter(c)
	if err != nil {
		return err
	}
	buf := make([]byte, packChunk)
	for eof := false; err == nil && !eof && c.Same(); {
		var n int
		if n, eof, err = fill(rc, buf); err == nil {
			_, err = zw.Write(buf[:n])
		}
	}
	if err := errors.Join(err, zw.Close(), c.Err()); err != nil {
		return err
	}
	if !c.Complete() {
		return errSavesLittle
	}
	return nil
}

// keep copies a patch from f to the others.
func (p *patches) keep(f *os.File, info layout.BlobInfo) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.spans[info.Digest]; ok {
		return nil
	}
	if _, err := io.Copy(io.NewOffsetWriter(p.spool, p.end), io.NewSectionReader(f, 0, info.Size)); err != nil {
		return err
	}
	p.spans[info.Digest] = span{p.end, info.Size}
	p.end += info.Size
	return nil
}

func (p *patches) close() error {
	if p.spool == nil {
		return nil
	}
	return p.spool.Close()
}

// A patchWriter hashes and counts, and ends what gets too long.
type patchWriter struct {
	w        io.Writer
	n, left  int64
	digester digest.Digester
}

func (w *patchWriter) Write(p []byte) (int, error) {
	if int64(len(p)) > w.left {
		return 0, errSavesLittle
	}
	n, err := w.w.Write(p)
	w.digester.Hash().Write(p[:n])
	w.n, w.left = w.n+int64(n), w.left-int64(n)
	return n, err
}

// patchFiles writes the patches as members, sorted by name.
func (r *reader) patchFiles(p *plan) error {
	var digests []digest.Digest
	for _, m := range p.delta.Patches {
		digests = append(digests, m.Patch.Digest)
	}
	slices.Sort(digests)
	for _, d := range slices.Compact(digests) {
		s := p.patches.spans[d]
		err := r.bytes(nil, "", func(b []byte) []byte {
			return appendHeader(b, deltaDir+"/"+d.Encoded()+deltaPatch, s.size, typeRegular, r.mtime)
		})
		in := io.NewSectionReader(p.patches.spool, s.off, s.size)
		for eof := false; err == nil && !eof; {
			var buf []byte
			if buf, err = r.buffer(); err != nil {
				return err
			}
			var n int
			if n, eof, err = fill(in, buf); err == nil {
				r.out <- chunk{buf: buf, n: n}
			}
		}
		if err == nil {
			err = r.pad(nil, s.size)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
