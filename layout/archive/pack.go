package archive

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/delta"
)

// blobsDir is the directory of the blobs, as a member.
const blobsDir = ocispec.ImageBlobsDir + "/"

// marker is the oci-layout of every archive that we write.
const marker = `{"imageLayoutVersion":"1.0.0"}`

// PackOptions changes what [Pack] writes. Nil is the zero value.
type PackOptions struct {
	// All packs every stored blob, also those that index.json does not reach.
	All bool
	// RefNames packs only the entries with these ref names, as
	// [layout.Index.FindRef] finds them, and what they reach. Nil packs all.
	RefNames []string
	// NoReferrers leaves out what refers to the entries of RefNames, or to what
	// they reach; see [layout.ReferrersBelow]. Else it gets an entry too.
	NoReferrers bool
	// Base is what the receiver holds already: the archive becomes a delta, with
	// only the blobs that it lacks; see package delta. Nil packs all.
	Base *delta.Inventory
	// Bases hold the content of Base, or of some of it: layers that have a
	// predecessor there are stored as patches of it where that saves a tenth (see
	// package patch). Key tells which entries are states of the same thing; see
	// [delta.Predecessors]. A predecessor is read twice, in a temporary file if it
	// does not lie in one. Nil stores all that Base lacks whole.
	Bases []layout.Source
	Key   func(ocispec.Descriptor) string
	// Describe is told what the delta is before anything is written. Nil is
	// silent.
	Describe func(*delta.Description)
	// Sparse leaves away members of indexes that src lacks.
	Sparse bool
	// Docker adds manifest.json, which docker load reads, with the container
	// images; of an index the one for DockerPlatform, which may be nil if there
	// is only one. More are [layout.ErrAmbiguous], none at all
	// [layout.ErrNotFound]. Whatever else is packed stays in the archive.
	Docker         bool
	DockerPlatform *ocispec.Platform
	// Time is the mtime of every member, cut to whole seconds, from 1970 to
	// 2242. The zero Time means the Unix epoch: Pack never reads the clock.
	Time time.Time
	// Compression of the archive as a whole, and its level; see
	// [compress.NewWriter].
	Compression compress.Format
	Level       int
	// NoDigest has [PackFile] return no digest of the file, which costs a second
	// hash over all bytes. Blobs are verified all the same.
	NoDigest bool
	// Progress is told of each blob; calls do not overlap. Nil is silent.
	Progress func(layout.Event)
}

// Pack writes the layout src to w as a tar archive: oci-layout, index.json,
// blobs/, then each algorithm's directory and its blobs, sorted by name. Only
// blobs that index.json reaches are packed, unless opts.All; a subject that src
// lacks is left out, and so is a layer that it lacks and that has URLs
// (descriptor.md, "urls"). index.json keeps its exact bytes, unless
// opts.RefNames leaves entries out, or src is a registry that has further
// referrers.
//
// Every blob is verified while it is copied. One that is missing is
// [layout.ErrNotFound], one that does not match [layout.ErrMismatch]; what was
// written to w by then lacks the end of an archive, and readers refuse it. An
// entry that RefNames asks for and that is not there is [layout.ErrNotFound],
// RefNames together with All is [layout.ErrInvalid], as is a Time that does not
// fit.
//
// Memory is bounded, whatever the sizes of the blobs.
func Pack(ctx context.Context, src layout.Source, w io.Writer, opts *PackOptions) error {
	if err := pack(ctx, src, w, opts); err != nil {
		return fmt.Errorf("pack %s: %w", src, err)
	}
	return nil
}

func pack(ctx context.Context, src layout.Source, w io.Writer, opts *PackOptions) error {
	var o PackOptions
	if opts != nil {
		o = *opts
	}
	p, err := makePlan(ctx, src, &o)
	if err != nil {
		return err
	}
	return errors.Join(p.compressed(ctx, src, w, &o), p.patches.close())
}

// compressed writes the archive as o says that it is compressed.
func (p *plan) compressed(ctx context.Context, src layout.Source, w io.Writer, o *PackOptions) error {
	if out, ok := w.(*output); ok && o.Compression == compress.None && out.anywhere() {
		return p.place(ctx, src, out, o)
	}
	zw, err := compress.NewWriter(w, o.Compression, o.Level)
	if err != nil {
		return err
	}
	err = p.write(ctx, src, zw, o, nil)
	if cerr := zw.Close(); err == nil { // closed in any case: it may have goroutines
		err = cerr
	}
	return err
}

const (
	// packChunk and packChunks are what lies between the goroutines that read,
	// hash and write: enough that none waits for the others, and little enough
	// that the bytes are still in the cache.
	packChunk  = 256 << 10 // 256 KiB
	packChunks = 12
)

// A chunk is a part of the archive on its way to the output.
type chunk struct {
	buf  []byte // of packChunk bytes
	n    int    // bytes used
	at   int    // number of the blob; -1 before the first
	desc *ocispec.Descriptor
	kind string // of the event that is due when the chunk is written, or ""
	hash bool   // not verified yet
	last bool   // of the blob
	skip int64  // bytes behind these that others write
	err  error  // there are no more chunks, and this is why
}

// write writes the archive. Reading, hashing and writing are three goroutines
// that pass chunks on, so that they go on at the same time. Blobs that are
// placed, unless that is nil, are left out.
func (p *plan) write(ctx context.Context, src layout.Source, w io.Writer, o *PackOptions, placed *placed) error {
	g, ctx := errgroup.WithContext(ctx)
	free := make(chan []byte, packChunks)
	for range packChunks {
		free <- make([]byte, packChunk)
	}
	// No channel ever blocks its sender: there are no more chunks than places.
	read := make(chan chunk, packChunks+1) // one more for an error
	verified := make(chan chunk, packChunks)
	g.Go(func() error {
		defer close(read)
		r := reader{ctx: ctx, free: free, out: read, mtime: o.Time, at: -1, placed: placed}
		if err := r.archive(src, p); err != nil {
			// Behind what was read: the first failure of the archive is told.
			read <- chunk{at: r.at, err: err}
		}
		return nil
	})
	g.Go(func() error {
		defer close(verified)
		at, err := verify(read, verified)
		placed.failed(at, err)
		return err
	})
	g.Go(func() error {
		err := p.output(w, verified, free, o, placed)
		placed.failed(-1, err)
		return err
	})
	return g.Wait()
}

// output writes the chunks and gives their buffers back.
func (p *plan) output(w io.Writer, in <-chan chunk, free chan<- []byte, o *PackOptions, placed *placed) error {
	bw := bufio.NewWriterSize(w, 64<<10)
	for c := range in {
		if _, err := bw.Write(c.buf[:c.n]); err != nil {
			return err
		}
		if c.skip > 0 {
			if err := bw.Flush(); err != nil {
				return err
			}
			if err := placed.out.skip(c.skip); err != nil {
				return err
			}
		}
		if o.Progress != nil && c.desc != nil {
			o.Progress(layout.Event{Kind: c.kind, Desc: *c.desc, Bytes: eventBytes(c)})
		}
		free <- c.buf
	}
	return bw.Flush() // harmless after another's failure: the archive has no end then
}

// verify passes chunks on and checks the blobs that nobody has checked. It
// returns the number of the blob that failed.
func verify(in <-chan chunk, out chan<- chunk) (at int, err error) {
	var h hash.Hash
	var n int64
	for c := range in {
		if c.err != nil {
			return c.at, c.err
		}
		if c.hash {
			if h == nil {
				h, n = c.desc.Digest.Algorithm().Hash(), 0
			}
			h.Write(c.buf[:c.n])
			n += int64(c.n)
		}
		if c.hash && c.last {
			if err := check(*c.desc, n, h); err != nil {
				return c.at, err
			}
			h = nil
		}
		out <- c
	}
	return 0, nil
}

// check compares desc with the n bytes that h was given.
func check(desc ocispec.Descriptor, n int64, h hash.Hash) error {
	if got := digest.NewDigest(desc.Digest.Algorithm(), h); got != desc.Digest || n != desc.Size {
		return mismatch(desc, "%d bytes that hash to %s", n, got)
	}
	return nil
}

func mismatch(desc ocispec.Descriptor, format string, args ...any) error {
	return &layout.BlobError{Op: "copy", Desc: desc, Err: fmt.Errorf("%w: "+format, append([]any{layout.ErrMismatch}, args...)...)}
}

func eventBytes(c chunk) int64 {
	if c.kind == "bytes" {
		return int64(c.n)
	}
	return 0
}
