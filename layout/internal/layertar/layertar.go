// Package layertar reads the tar archive in a layer, for all who look at the
// files of layers.
//
// # What a reader guards
//
// How a layer is compressed is known from its media type and from its first
// bytes, and both have to agree. A layer is hostile: what comes out of it is
// bounded in bytes, in their ratio to what went in, in entries and in the
// length and depth of names. Names themselves are not judged; that is for who
// makes files of them.
//
// # When a layer is verified
//
// The blob is hashed while it is read, and io.EOF comes from [Reader.Next] only
// after all of it, with what follows the end of the archive, was read and found
// to be what its descriptor says. What was read before that is not verified.
package layertar

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/internal/readahead"
)

// The default limits of [Options].
const (
	DefaultMaxBytes   = compress.DefaultMaxBytes // 64 GiB
	DefaultMaxEntries = 2_000_000
	DefaultMaxName    = 4096 // bytes, PATH_MAX of Linux
	DefaultMaxDepth   = 128  // components of a name
)

// Options are the limits of a [Reader]. Nil is the zero value; a limit that is
// zero is the default, a negative one is none.
type Options struct {
	MaxBytes   int64 // that come out of the compression, and of all files together
	MaxRatio   int64 // of what comes out to what goes in; see [compress.ReaderOptions]
	MaxEntries int64
	MaxName    int // bytes of a name and of the target of a link
	MaxDepth   int // components of a name

	// DiffID is the algorithm that hashes what comes out of the compression,
	// for [Reader.DiffID]; "" does not.
	DiffID digest.Algorithm

	// Count is told of the stored bytes that were read, in a goroutine of the
	// reader's.
	Count func(n int64)
}

func (o *Options) fill() {
	o.MaxBytes = orDefault(o.MaxBytes, DefaultMaxBytes)
	o.MaxEntries = orDefault(o.MaxEntries, DefaultMaxEntries)
	o.MaxName = orDefault(o.MaxName, DefaultMaxName)
	o.MaxDepth = orDefault(o.MaxDepth, DefaultMaxDepth)
}

func orDefault[T int | int64](n, def T) T {
	if n == 0 {
		return def
	}
	return n
}

// A Reader reads one layer. It may not be shared.
type Reader struct {
	desc    ocispec.Descriptor
	opts    Options
	format  compress.Format
	archive bool

	rc     io.ReadCloser     // what the source gave
	head   *bufio.Reader     // of rc: its first bytes are looked at, then read again
	blob   *readahead.Reader // of head: reads and hashes the blob
	unpack io.ReadCloser     // of blob
	plain  *readahead.Reader // of unpack: uncompresses
	hashed *readahead.Reader // of plain: hashes again; nil without Options.DiffID
	hash   hash.Hash         // of what plain gives
	stream *stream           // of the last of them
	tr     *tar.Reader

	entries int64
	bytes   int64 // of all files so far, as long as they will be
	err     error // sticky
}

// counter tells how much was read.
type counter struct {
	r     io.Reader
	count func(n int64)
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if n > 0 && c.count != nil {
		c.count(int64(n))
	}
	return n, err
}

// probeSize is how many stored bytes are looked at for the first header.
const probeSize = 256 << 10 // 256 KiB

// aheadChunks are read ahead by each reader of the chain: 1 MiB.
const aheadChunks = 4

// Open opens the layer desc of src. Where the media type and the first bytes
// disagree about the compression, or the type says "tar" and the content is
// none, the error is [layout.ErrInvalid] and names both.
//
// Ending ctx ends reads.
func Open(ctx context.Context, src layout.Source, desc ocispec.Descriptor, opts *Options) (*Reader, error) {
	r := &Reader{desc: desc}
	if opts != nil {
		r.opts = *opts
	}
	r.opts.fill()
	rc, err := src.Blob(ctx, desc)
	if err != nil {
		return nil, err
	}
	r.rc, r.head = rc, bufio.NewReaderSize(&counter{rc, r.opts.Count}, probeSize)
	if err := r.probe(); err != nil {
		return nil, errors.Join(r.truth(err), rc.Close())
	}
	return r, nil
}

// probe looks at the beginning of the blob and decides what it is.
func (r *Reader) probe() error {
	stored, err := r.head.Peek(probeSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	claim, found := MediaType(r.desc.MediaType), compress.Detect(stored)
	r.format = found
	switch {
	case claim.Known && claim.Compression != found:
		return r.invalid("the media type %q says %s, but the content is %s", r.desc.MediaType, compression(claim.Compression), compression(found))
	case found == compress.Xz, found == compress.Bzip2:
		return nil // not unpacked: a file like any other
	}
	first := r.firstBlock(stored)
	switch {
	case claim.Archive && !isTar(first):
		return r.invalid("the media type %q says that it is a tar archive, but the content is none", r.desc.MediaType)
	case claim.Archive, magic(first) && !isContainer(r.desc.MediaType):
		r.archive = true
	}
	return nil
}

func compression(f compress.Format) string {
	if f == compress.None {
		return "not compressed"
	}
	return f.String()
}

// firstBlock returns the first block of what is stored, uncompressed.
func (r *Reader) firstBlock(stored []byte) []byte {
	zr, err := compress.NewReader(bytes.NewReader(stored), r.format)
	if err != nil {
		return stored[:0:0] // what is wrong will show when it is read
	}
	defer zr.Close() //nolint:errcheck // of a look
	block := make([]byte, blockSize)
	n, _ := io.ReadFull(zr, block)
	return block[:n]
}

// Compression returns how the layer is compressed.
func (r *Reader) Compression() compress.Format { return r.format }

// IsArchive tells whether the layer is a tar archive, as its media type or its
// first block say, in a compression that can be read. If not, there is
// [Reader.Content] in place of entries.
func (r *Reader) IsArchive() bool { return r.archive }

// Content returns the stored bytes of a layer that is no archive. An io.EOF
// from it means that they are verified.
func (r *Reader) Content() io.Reader { return r.head }

// start builds the chain of readers of an archive: while one chunk is made
// files of, the next is uncompressed, and the one after that is hashed.
func (r *Reader) start() error {
	r.blob = readahead.New(r.head, aheadChunks)
	unpack, err := compress.NewReaderOptions(r.blob, r.format, &compress.ReaderOptions{MaxBytes: r.opts.MaxBytes, MaxRatio: r.opts.MaxRatio})
	if err != nil {
		return r.explain(err)
	}
	r.unpack = unpack
	r.plain = readahead.New(unpack, aheadChunks)
	last := r.plain
	if r.opts.DiffID != "" {
		r.hash = r.opts.DiffID.Hash()
		r.hashed = readahead.New(io.TeeReader(r.plain, r.hash), aheadChunks)
		last = r.hashed
	}
	r.stream = &stream{r: last}
	r.tr = tar.NewReader(r.stream)
	return nil
}

// stream remembers how its reader failed, so that the archive is not blamed.
type stream struct {
	r   *readahead.Reader
	err error
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// Next returns the next entry, whose content [Reader.Read] gives. Headers that
// are broken and entries that pass a limit are [layout.ErrInvalid]. After the
// last entry the rest of the blob is read, and io.EOF tells that all of it is
// what its descriptor says; [layout.ErrMismatch] that it is not.
//
// Global PAX headers are no entries and are left out; one that would change
// the name or the size of entries is ErrInvalid, because programs differ in
// what they make of it.
func (r *Reader) Next() (*tar.Header, error) {
	if r.err != nil {
		return nil, r.err
	}
	h, err := r.next()
	if err != nil {
		r.err = err
		if !errors.Is(err, io.EOF) {
			r.err = r.truth(err)
		}
		return nil, r.err
	}
	return h, nil
}

func (r *Reader) next() (*tar.Header, error) {
	if !r.archive {
		return nil, r.invalid("no tar archive (media type %q)", r.desc.MediaType)
	}
	if r.tr == nil {
		if err := r.start(); err != nil {
			return nil, err
		}
	}
	for {
		h, err := r.tr.Next()
		switch {
		case errors.Is(err, io.EOF) && r.stream.err == nil:
			return nil, r.finish()
		case h == nil || err != nil && !errors.Is(err, tar.ErrInsecurePath): // names are judged by others
			return nil, r.explain(err)
		}
		if r.entries++; r.opts.MaxEntries >= 0 && r.entries > r.opts.MaxEntries {
			return nil, r.invalid("more than %d entries", r.opts.MaxEntries)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			if err := r.checkGlobal(h); err != nil {
				return nil, err
			}
			continue
		}
		if err := r.check(h); err != nil {
			return nil, err
		}
		return h, nil
	}
}

func (r *Reader) checkGlobal(h *tar.Header) error {
	for key := range h.PAXRecords {
		if key == "path" || key == "linkpath" || key == "size" || strings.HasPrefix(key, "GNU.sparse.") {
			return r.invalid("a global header changes the %s of all entries", key)
		}
	}
	return nil
}

// check holds h against the limits.
func (r *Reader) check(h *tar.Header) error {
	for _, name := range []string{h.Name, h.Linkname} {
		switch {
		case r.opts.MaxName >= 0 && len(name) > r.opts.MaxName:
			return r.invalid("entry %d: a name of %d bytes, more than %d", r.entries, len(name), r.opts.MaxName)
		case strings.IndexByte(name, 0) >= 0:
			return r.invalid("entry %d: a name with a NUL", r.entries)
		}
	}
	if n := strings.Count(h.Name, "/") + 1; r.opts.MaxDepth >= 0 && n > r.opts.MaxDepth {
		return r.invalid("entry %d: a name of %d components, more than %d", r.entries, n, r.opts.MaxDepth)
	}
	if h.Size < 0 {
		return r.invalid("%q: a size of %d", h.Name, h.Size)
	}
	// A sparse file can be far longer than what is stored of it.
	if r.opts.MaxBytes >= 0 && h.Size > r.opts.MaxBytes-r.bytes {
		return r.invalid("%q: more than %d bytes in all files", h.Name, r.opts.MaxBytes)
	}
	r.bytes += h.Size
	return nil
}

// Read reads the content of the entry that [Reader.Next] returned.
func (r *Reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if r.tr == nil {
		return 0, io.EOF
	}
	n, err := r.tr.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = r.truth(r.explain(err))
		err = r.err
	}
	return n, err
}

// finish reads what follows the archive. It is padding as a rule, and all
// other readers of tar archives pass over it too.
func (r *Reader) finish() error {
	if _, err := io.Copy(io.Discard, r.stream.r); err != nil {
		return r.explain(err)
	}
	return io.EOF
}

// explain names the layer in an error of the chain and says whose fault it is.
func (r *Reader) explain(err error) error {
	if r.stream != nil && r.stream.err != nil {
		err = r.stream.err
	}
	var named *layout.BlobError
	switch {
	case errors.As(err, &named), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return r.invalid("the archive is cut short")
	case errors.Is(err, compress.ErrLimit), errors.Is(err, compress.ErrCorrupt), errors.Is(err, compress.ErrUnsupported), r.stream != nil && r.stream.err == nil:
		return r.invalid("%w", err)
	}
	return &layout.BlobError{Op: "read", Desc: r.desc, Err: err}
}

func (r *Reader) invalid(format string, args ...any) error {
	return &layout.BlobError{Op: "read", Desc: r.desc, Err: fmt.Errorf("%w layer: "+format, append([]any{layout.ErrInvalid}, args...)...)}
}

// truth returns the cause of err: content that is no archive may be damaged,
// which only its digest tells, so the blob is read to its end.
func (r *Reader) truth(err error) error {
	if !errors.Is(err, layout.ErrInvalid) {
		return err
	}
	var rest io.Reader = r.head
	if r.blob != nil {
		r.stop()
		rest = r.blob
	}
	if _, damage := io.Copy(io.Discard, rest); errors.Is(damage, layout.ErrMismatch) {
		return damage
	}
	return err
}

// stop ends the goroutines above the one that reads the blob.
func (r *Reader) stop() {
	// From the reader to the maker: one that waits for room gives up, one that
	// waits for bytes gets them.
	if r.hashed != nil {
		r.hashed.Close()
	}
	if r.plain != nil {
		r.plain.Close()
	}
}

// DiffID returns the digest of the uncompressed archive (config.md, "Layer
// DiffID") after Next has returned io.EOF, with Options.DiffID; else "".
func (r *Reader) DiffID() digest.Digest {
	if r.hash == nil || !errors.Is(r.err, io.EOF) {
		return ""
	}
	return digest.NewDigest(r.opts.DiffID, r.hash)
}

// Close frees everything, also in the middle of a layer.
func (r *Reader) Close() error {
	r.stop()
	if r.blob != nil {
		r.blob.Close()
	}
	err := r.rc.Close()
	if r.unpack != nil {
		err = errors.Join(err, r.unpack.Close())
	}
	return err
}
