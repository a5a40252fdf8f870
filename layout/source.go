package layout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Source is content that can be read like a layout: a directory ([Layout]),
// a tarball, a repository of a registry, or what a [Stage] would make. Its
// methods may be called from several goroutines.
type Source interface {
	// Index returns a fresh snapshot of index.json.
	Index(ctx context.Context) (*Index, error)
	// Blob opens the content of desc. The reader verifies: content that ends
	// early, goes on after desc.Size bytes or hashes to another digest gives
	// ErrMismatch. What the source lacks is ErrNotFound. Embedded data
	// (descriptor.md, "data") is used before anything is opened. Ending ctx
	// ends reads.
	Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error)
	// Blobs lists every stored blob, reachable or not, sorted by digest.
	Blobs(ctx context.Context) iter.Seq2[BlobInfo, error]
	// Stat returns what is stored under d, unverified, or ErrNotFound.
	Stat(ctx context.Context, d digest.Digest) (BlobInfo, error)
	// String names the source in messages.
	String() string
	Close() error
}

// A Sectioner is a [Source] whose blobs are parts of files.
type Sectioner interface {
	// Section returns the stored bytes of d, unverified, as size bytes of f
	// from off on. The caller closes f. errors.ErrUnsupported means that this
	// blob is to be had from Source.Blob alone.
	Section(ctx context.Context, d digest.Digest) (f *os.File, off, size int64, err error)
}

// A Piece is size bytes of a file from off on.
type Piece struct {
	File      *os.File
	Off, Size int64
}

// A Piecer is a [Source] whose blobs may lie in several files, as those of a
// split archive do.
type Piecer interface {
	// Pieces returns the stored bytes of d, unverified, in their order. The caller
	// closes the files. errors.ErrUnsupported is as for [Sectioner].
	Pieces(ctx context.Context, d digest.Digest) ([]Piece, error)
}

// A Partial is a [Source] that may lack blobs which it knows of, as the delta of
// an archive does.
type Partial interface {
	// Partial says what is elsewhere; nil if nothing is.
	Partial() *Parts
}

// Parts are what belongs to a [Partial] beside the blobs that it stores.
type Parts struct {
	Expected  []BlobInfo // blobs that another source must have, sorted by digest
	Elsewhere []BlobInfo // blobs of the whole that are not stored here
	Others    []Part     // files that are no blobs
}

// A Part is a file of a [Partial] that is no blob.
type Part struct {
	Path string
	BlobInfo
	// Open opens the file; it is verified when it is read.
	Open func(ctx context.Context) (io.ReadCloser, error)
}

// A BlobInfo is a blob as it is stored.
type BlobInfo struct {
	Digest digest.Digest
	Size   int64 // bytes
}

// An Event tells the progress of one blob to whoever watches.
type Event struct {
	Kind  string // "start", "bytes", "done" or "skip"
	Desc  ocispec.Descriptor
	Bytes int64 // more bytes since the last event, for "bytes"
}

// VerifyReader returns a reader of rc's content that gives a [BlobError] with
// [ErrMismatch] instead of io.EOF if that content is not desc's, and never
// more than desc.Size bytes. Only a read up to io.EOF has verified anything.
// Ending ctx ends reads.
func VerifyReader(ctx context.Context, rc io.ReadCloser, desc ocispec.Descriptor) io.ReadCloser {
	return &verifyReader{ctx: ctx, rc: rc, desc: desc, left: desc.Size, hash: desc.Digest.Algorithm().Hash()}
}

type verifyReader struct {
	ctx  context.Context //nolint:containedctx // bounds the reads of a reader that outlives the call, as Source.Blob promises
	rc   io.ReadCloser
	desc ocispec.Descriptor
	left int64
	hash hash.Hash
	err  error
}

func (v *verifyReader) fail(format string, args ...any) error {
	v.err = &BlobError{Op: "read", Desc: v.desc, Err: fmt.Errorf("%w: "+format, append([]any{ErrMismatch}, args...)...)}
	return v.err
}

func (v *verifyReader) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	if v.ctx.Err() != nil {
		v.err = context.Cause(v.ctx)
		return 0, v.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if v.left == 0 {
		return 0, v.finish()
	}
	if int64(len(p)) > v.left {
		p = p[:v.left]
	}
	n, err := v.rc.Read(p)
	v.hash.Write(p[:n])
	v.left -= int64(n)
	switch {
	case err == nil:
	case !errors.Is(err, io.EOF):
		v.err = &BlobError{Op: "read", Desc: v.desc, Err: err}
		return n, v.err
	case v.left > 0:
		return n, v.fail("%d bytes, want %d", v.desc.Size-v.left, v.desc.Size)
	}
	if v.left == 0 {
		// The last bytes and the verdict come together: a reader that stops
		// after Size bytes must not miss it.
		if err := v.finish(); !errors.Is(err, io.EOF) {
			return n, err
		}
	}
	return n, nil
}

// finish is called once all bytes were read.
func (v *verifyReader) finish() error {
	var extra [1]byte
	for {
		n, err := v.rc.Read(extra[:])
		if n > 0 {
			return v.fail("more than %d bytes", v.desc.Size)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			v.err = &BlobError{Op: "read", Desc: v.desc, Err: err}
			return v.err
		}
	}
	if got := digest.NewDigest(v.desc.Digest.Algorithm(), v.hash); got != v.desc.Digest {
		return v.fail("the bytes hash to %s", got)
	}
	v.err = io.EOF
	return io.EOF
}

func (v *verifyReader) Close() error { return v.rc.Close() }

// embedded returns the content that desc carries itself, verified.
func embedded(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, bool) {
	if desc.Data == nil {
		return nil, false
	}
	return VerifyReader(ctx, io.NopCloser(bytes.NewReader(desc.Data)), desc), true
}

// OpenBlob does what every [Source] does in Blob: checks the digest of desc,
// uses embedded data, and else verifies what open returns.
func OpenBlob(ctx context.Context, desc ocispec.Descriptor, open func(d digest.Digest) (io.ReadCloser, error)) (io.ReadCloser, error) {
	d, err := ParseDigest(string(desc.Digest))
	if err != nil {
		return nil, err
	}
	if desc.Size < 0 {
		return nil, &BlobError{Op: "open", Desc: desc, Err: fmt.Errorf("%w size %d", ErrInvalid, desc.Size)}
	}
	if rc, ok := embedded(ctx, desc); ok {
		return rc, nil
	}
	rc, err := open(d)
	if err != nil {
		return nil, err
	}
	return VerifyReader(ctx, rc, desc), nil
}

// ReadAll returns the verified content of desc. Content larger than limit
// bytes is [ErrInvalid] and is not read.
func ReadAll(ctx context.Context, src Source, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	if desc.Size > limit {
		return nil, &BlobError{Op: "read", Desc: desc, Err: fmt.Errorf("%w: %d bytes, more than the limit of %d", ErrInvalid, desc.Size, limit)}
	}
	if small, ok := src.(smallReader); ok && desc.Data == nil && desc.Size >= 0 && desc.Size <= MaxDocument {
		if content, ok, err := readVerified(ctx, small, desc); ok {
			return content, err
		}
	}
	rc, err := src.Blob(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer rc.Close() //nolint:errcheck // only read
	// The buffer grows with what really comes: a declared size is only a claim.
	var b bytes.Buffer
	b.Grow(int(min(desc.Size, 64<<10)) + bytes.MinRead)
	if _, err := b.ReadFrom(rc); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
