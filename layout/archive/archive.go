// Package archive reads and writes OCI image layouts as tar archives: .oci
// files, plain or compressed with gzip or zstd.
//
// # Reading
//
// [Open] reads the headers of an archive once and then gives content out of
// the file by its offset; nothing is unpacked. A compressed archive is
// decompressed to a temporary file first, which has no name. One that is split
// into parts (package parts) is read from these in the same way.
//
// An archive is hostile until it is checked. These members are accepted, as
// regular files or directories, each file once, with or without "./" before
// the name:
//
//   - oci-layout, index.json, blobs/ and below it sha256/ and sha512/ with
//     files that are named by a digest;
//   - manifest.json and repositories, which docker save, podman save and
//     BuildKit add for old versions of Docker: ignored;
//   - .gloci/ and what is in it, the working files of a layout directory that
//     somebody packed with tar: ignored;
//   - the directory ingest, which oras-go and BuildKit leave: ignored;
//   - gloci-delta/ and the description and patches of a delta in it; see package
//     delta. All that it describes has to be right.
//
// Everything else is an error: [layout.ErrUnsafe] for links, devices, FIFOs,
// absolute names and names with "..", else [layout.ErrInvalid], as for sparse
// files, extended headers that contradict their member, an archive that ends
// early and data after its end.
//
// # Writing
//
// [Pack] writes the same bytes for the same content, whatever the umask, the
// clock, the locale, the user, the order of directories and the number of
// cores. The members are oci-layout, index.json, manifest.json if it is asked for
// ([PackOptions].Docker), the directory blobs/, and for
// each algorithm, by name, its directory and its blobs sorted by name. Tools
// that do not make parent directories by themselves need those of the archive.
// A header is USTAR with mode 0644 (0755 for a directory), owner 0, no owner's
// name and the time of [PackOptions]; a PAX header with "path" or "size" alone
// stands before it where the name is longer than 100 bytes (sha512) or the size
// is 8 GiB or more. The end is two blocks of zeros. docs/format.md says more.
package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/archive/parts"
	"github.com/gardenlinux/gloci-layout/layout/delta"
)

// ownDir is where a layout directory has its working files.
const ownDir = ".gloci"

// Options changes how an archive is opened. Nil is the zero value.
type Options struct {
	// TempDir is where a compressed archive is decompressed to. "" means
	// [os.TempDir].
	TempDir string
	// MaxSize is the most bytes that a compressed archive may hold. Zero means
	// [compress.DefaultMaxBytes], a negative number no limit.
	MaxSize int64
	// FollowSymlinks reads through parts that are symbolic links.
	FollowSymlinks bool
}

// An Archive is an open archive. It is a [layout.Source] and a
// [layout.Sectioner], and may be used by several goroutines. Close ends the
// reading of its blobs.
type Archive struct {
	name string
	f    *parts.File
	raw  []byte // index.json

	blobs  map[digest.Digest]span
	sorted []digest.Digest

	delta   *delta.Description     // nil: it is whole
	patches map[digest.Digest]span // of delta
}

// Open opens the archive in file. A file that is not there is
// [layout.ErrNotFound]. One that is no archive of a layout is
// [layout.ErrNotLayout]: no tar archive at all, or without oci-layout or
// index.json. See the comment of the package for other errors. A compressed
// archive may be of gzip, zstd, xz or bzip2; one that passes a limit or is damaged
// is [layout.ErrInvalid] and the error of package compress.
//
// An archive that is split is opened by its manifest, file.parts.json, or by the
// name that it has as a whole where that is not there; see [parts.Open].
func Open(ctx context.Context, file string, opts *Options) (*Archive, error) {
	if opts == nil {
		opts = &Options{}
	}
	a, err := openFile(ctx, file, opts)
	if manifest := parts.Of(file); err != nil && manifest != "" && !errors.Is(err, layout.ErrNotFound) {
		err = layout.WithHint(err, "it is one part of an archive: name "+manifest)
	}
	return a, err
}

func openFile(ctx context.Context, file string, opts *Options) (*Archive, error) {
	if manifest := parts.Find(file); manifest != "" {
		return openParts(ctx, manifest, file, opts)
	}
	// O_NONBLOCK: the open of a FIFO would wait for its writer.
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", file, layout.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file: %w", file, layout.ErrNotLayout)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	whole, err := parts.Whole(f)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(file, layout.PartsSuffix) {
		if err := whole.Close(); err != nil {
			return nil, err
		}
		return openParts(ctx, file, file, opts)
	}
	return openPlain(ctx, whole, file, opts)
}

// openParts opens the archive that the manifest names the parts of.
func openParts(ctx context.Context, manifest, name string, opts *Options) (*Archive, error) {
	f, err := parts.Open(manifest, &parts.Options{FollowSymlinks: opts.FollowSymlinks})
	if err != nil {
		return nil, err
	}
	return openPlain(ctx, f, name, opts)
}

// openPlain opens the archive in f, which may be compressed and is closed after
// an error.
func openPlain(ctx context.Context, f *parts.File, name string, opts *Options) (*Archive, error) {
	var prefix [compress.DetectLen]byte
	n, err := f.ReadAt(prefix[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, f.Close())
	}
	if format := compress.Detect(prefix[:n]); format != compress.None {
		plain, err := spool(ctx, io.NewSectionReader(f, 0, f.Size()), format, opts)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if f, err = parts.Whole(plain); err != nil {
			return nil, err
		}
	}
	return open(ctx, f, name)
}

// OpenReader opens the archive that r gives, plain or compressed, for input
// that has no offsets: it is copied to a temporary file without a name first.
// name stands for it in messages. The limits and errors are those of [Open].
func OpenReader(ctx context.Context, r io.Reader, name string, opts *Options) (*Archive, error) {
	f, err := spoolReader(ctx, r, opts)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	whole, err := parts.Whole(f)
	if err != nil {
		return nil, err
	}
	return open(ctx, whole, name)
}

// open reads the headers of f, which is closed after an error.
func open(ctx context.Context, f *parts.File, name string) (*Archive, error) {
	a := &Archive{name: name, f: f}
	if err := a.load(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	return a, nil
}

func (a *Archive) load(ctx context.Context) error {
	var first block
	if _, err := a.f.ReadAt(first[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if first.check() != nil { // also true of an empty file and of an empty archive
		return fmt.Errorf("not a tar archive: %w", layout.ErrNotLayout)
	}
	t, err := scan(ctx, a.f, a.f.Size())
	if err != nil {
		return err
	}
	if t.marker == nil {
		return fmt.Errorf("no member %s: %w", ocispec.ImageLayoutFile, layout.ErrNotLayout)
	}
	if t.index == nil {
		return fmt.Errorf("no member %s: %w", ocispec.ImageIndexFile, layout.ErrNotLayout)
	}
	marker, err := a.read(ocispec.ImageLayoutFile, *t.marker, maxMarker)
	if err != nil {
		return err
	}
	if err := layout.CheckMarker(marker); err != nil {
		return err
	}
	if a.raw, err = a.read(ocispec.ImageIndexFile, *t.index, layout.MaxDocument); err != nil {
		return err
	}
	a.blobs = t.blobs
	a.sorted = slices.Sorted(maps.Keys(t.blobs))
	if err := a.loadDelta(t); err != nil {
		return err
	}
	return a.f.Unchanged(0, a.f.Size())
}

func (a *Archive) read(name string, s span, limit int64) ([]byte, error) {
	if s.size > limit {
		return nil, fmt.Errorf("member %q: %w: %d bytes, more than the limit of %d", name, layout.ErrInvalid, s.size, limit)
	}
	data := make([]byte, s.size)
	if _, err := a.f.ReadAt(data, s.off); err != nil {
		return nil, readError(err)
	}
	return data, nil
}

// Index returns the index.json that was read by [Open]. One that cannot be read
// is [layout.ErrInvalid].
func (a *Archive) Index(ctx context.Context) (*layout.Index, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	x, err := layout.ParseIndex(slices.Clone(a.raw))
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", a.name, ocispec.ImageIndexFile, err)
	}
	return x, nil
}

// Blob opens the content of desc; see [layout.Source].
func (a *Archive) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	return layout.OpenBlob(ctx, desc, func(d digest.Digest) (io.ReadCloser, error) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		s, err := a.find(d)
		if err != nil {
			return nil, err
		}
		// This finds the accident early and by its name; the digests find
		// whatever it does not.
		if err := a.f.Unchanged(s.off, s.size); err != nil {
			return nil, &layout.BlobError{Op: "open", Desc: desc, Err: err}
		}
		// A wrong size is told before gigabytes are hashed.
		if s.size != desc.Size {
			return nil, &layout.BlobError{Op: "open", Desc: desc, Err: fmt.Errorf("%w: %d bytes, want %d", layout.ErrMismatch, s.size, desc.Size)}
		}
		return io.NopCloser(io.NewSectionReader(a.f, s.off, s.size)), nil
	})
}

func (a *Archive) find(d digest.Digest) (span, error) {
	s, ok := a.blobs[d]
	if !ok && a.delta != nil && a.delta.Expects(d) {
		return span{}, layout.WithHint(fmt.Errorf("%s: blob %s of the base of this delta: %w", a.name, d, layout.ErrNotFound), "name the base with --base SOURCE")
	}
	if !ok {
		return span{}, fmt.Errorf("%s: blob %s: %w", a.name, d, layout.ErrNotFound)
	}
	return s, nil
}

// Blobs lists every stored blob; see [layout.Source].
func (a *Archive) Blobs(ctx context.Context) iter.Seq2[layout.BlobInfo, error] {
	return func(yield func(layout.BlobInfo, error) bool) {
		for _, d := range a.sorted {
			if ctx.Err() != nil {
				yield(layout.BlobInfo{Digest: d}, context.Cause(ctx))
				return
			}
			if !yield(layout.BlobInfo{Digest: d, Size: a.blobs[d].size}, nil) {
				return
			}
		}
	}
}

// Stat returns what is stored under d, or [layout.ErrNotFound].
func (a *Archive) Stat(_ context.Context, d digest.Digest) (layout.BlobInfo, error) {
	d, err := layout.ParseDigest(string(d))
	if err != nil {
		return layout.BlobInfo{}, err
	}
	s, err := a.find(d)
	if err != nil {
		return layout.BlobInfo{}, err
	}
	return layout.BlobInfo{Digest: d, Size: s.size}, nil
}

// Section returns the part of the archive that is the blob d; see
// [layout.Sectioner]. The file has an offset of its own. Where the blob lies in
// several parts, or the system cannot open a file without a name again, the
// error is [errors.ErrUnsupported], and [Archive.Blob] has to serve.
func (a *Archive) Section(_ context.Context, d digest.Digest) (f *os.File, off, size int64, err error) {
	if d, err = layout.ParseDigest(string(d)); err != nil {
		return nil, 0, 0, err
	}
	s, err := a.find(d)
	if err != nil {
		return nil, 0, 0, err
	}
	if err := a.f.Unchanged(s.off, s.size); err != nil {
		return nil, 0, 0, fmt.Errorf("%s: %w", a.name, err)
	}
	f, off, err = a.f.Section(s.off, s.size)
	return f, off, s.size, err
}

// Pieces returns the parts of the archive that are the blob d; see
// [layout.Piecer].
func (a *Archive) Pieces(_ context.Context, d digest.Digest) ([]layout.Piece, error) {
	d, err := layout.ParseDigest(string(d))
	if err != nil {
		return nil, err
	}
	s, err := a.find(d)
	if err != nil {
		return nil, err
	}
	if err := a.f.Unchanged(s.off, s.size); err != nil {
		return nil, fmt.Errorf("%s: %w", a.name, err)
	}
	return a.f.Pieces(s.off, s.size)
}

// String returns the name of the file as it was given.
func (a *Archive) String() string { return a.name }

// Close closes its files; a temporary file is gone with it.
func (a *Archive) Close() error { return a.f.Close() }

var (
	_ layout.Source    = (*Archive)(nil)
	_ layout.Partial   = (*Archive)(nil)
	_ delta.Carrier    = (*Archive)(nil)
	_ layout.Sectioner = (*Archive)(nil)
	_ layout.Piecer    = (*Archive)(nil)

	// epoch is the time of every member unless another is asked for.
	epoch = time.Unix(0, 0)
)
