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

	"github.com/gardenlinux/gloci-layout/compress/patch"
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

// errSavesLittle ends a patch that is hardly smaller than its blob.
var errSavesLittle = errors.New("the patch saves less than a tenth")

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
	pieces, err := findPieces(ctx, src, roots, blobs, o, jobs)
	if err != nil {
		return err
	}
	if p.patches.spool, err = tempFile(); err != nil {
		return err
	}
	p.patches.spans = map[digest.Digest]span{}
	made := make(chan delta.Patch, len(blobs))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(jobs)
	for d, from := range pieces {
		g.Go(func() error {
			m, err := p.patches.make(ctx, src, blobs[d], from)
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
func findPieces(ctx context.Context, src layout.Source, roots []ocispec.Descriptor, blobs map[digest.Digest]ocispec.Descriptor, o *PackOptions, jobs int) (map[digest.Digest][]delta.Piece, error) {
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

// make makes one patch. All blobs were verified: what is made of another one
// would be of no use to anybody.
func (p *patches) make(ctx context.Context, src layout.Source, desc ocispec.Descriptor, from []delta.Piece) (m delta.Patch, err error) {
	m.BlobInfo = layout.BlobInfo{Digest: desc.Digest, Size: desc.Size}
	var parts []patch.Part
	for _, piece := range from {
		at, list := piece.Base, &m.Base
		if at == nil {
			at, list = src, &m.Own
		}
		r, closer, err := delta.OpenAt(ctx, at, piece.Desc)
		if err != nil {
			return m, err
		}
		defer closer.Close() //nolint:errcheck // only read
		*list = append(*list, layout.BlobInfo{Digest: piece.Desc.Digest, Size: piece.Desc.Size})
		parts = append(parts, patch.Part{ReaderAt: r, Size: piece.Desc.Size})
	}
	rc, err := src.Blob(ctx, desc)
	if err != nil {
		return m, err
	}
	defer rc.Close() //nolint:errcheck // only read
	f, err := tempFile()
	if err != nil {
		return m, err
	}
	defer f.Close() //nolint:errcheck // it has no name, and is copied
	out := &patchWriter{w: f, left: desc.Size - (desc.Size+9)/10, digester: digest.SHA256.Digester()}
	base, size := patch.Join(parts...)
	if err := patch.Encode(out, base, size, rc, desc.Size); err != nil {
		return m, err
	}
	m.Patch = layout.BlobInfo{Digest: out.digester.Digest(), Size: out.n}
	return m, p.keep(f, m.Patch)
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

// tempFile makes a temporary file without a name: nothing is left behind,
// however this process ends.
func tempFile() (*os.File, error) {
	f, err := os.CreateTemp("", "gloci-layout-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
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
