// Package layout reads and edits an OCI image layout.
//
// A layout is the marker oci-layout, index.json, and one file per blob under
// blobs/<algorithm>/<encoded>; see image-layout.md of image-spec v1.1.1. It may
// hold container images and any other artifacts, in indexes nested in indexes.
//
// # Reading
//
// Everything that reads works on a [Source]: a directory ([Open]), a tarball
// (package archive), a registry (package sync). Bytes are hostile until they
// are checked: [Document] and [Index] come from one strict reader, [Walk] is
// the one way to follow descriptors, and blobs are verified while they are read.
//
// # Editing
//
// [Layout.Update] and [Stage.Update] are the one way to change a layout: many
// processes may do so at once and lose nothing. What an edit does not touch
// keeps its exact bytes; what it rewrites keeps its unknown fields.
//
// # Durability
//
// A blob gets its final name only after all its bytes were counted, hashed and
// forced to the disk, and index.json is swapped last. Killed at any moment, the
// layout is the old one or the new one; what is left over lies under .gloci, or
// is a whole blob that nothing names, and [Layout.GC] takes it.
package layout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout/internal/strictjson"
)

// The names inside a layout. Everything of ours that is not part of the
// specification lies in one directory.
const (
	markerFile = ocispec.ImageLayoutFile // oci-layout; also the index lock
	indexFile  = ocispec.ImageIndexFile  // index.json
	blobsDir   = ocispec.ImageBlobsDir   // blobs
	ownDir     = ".gloci"
	lockFile   = ownDir + "/lock" // the content lock
	tempPrefix = ownDir + "/tmp-"
)

const (
	fileMode = 0o644
	dirMode  = 0o755
)

// marker is what oci-layout holds, as every tool writes it.
const marker = `{"imageLayoutVersion":"1.0.0"}`

// Options changes how a layout is opened. Nil is the zero value.
type Options struct {
	// FollowSymlinks reads through symbolic links, also those that lead out of
	// the directory, as layouts made by Bazel have them. Else a link in the
	// place of a file of the layout is [ErrUnsafe].
	FollowSymlinks bool
	// Logger gets warnings; nil is silent.
	Logger *slog.Logger
}

// A Layout is an open layout directory. It may be used by several goroutines.
type Layout struct {
	dir  string
	opts Options
	root *os.Root

	mu    sync.Mutex
	blobs map[digest.Algorithm]*os.Root // the directories of blobs/, opened when first used
	dirs  map[digest.Algorithm]*os.File // the same, for readSmall
}

// Open opens the layout in dir. A missing directory is [ErrNotFound]; one
// without a good oci-layout is [ErrNotLayout]. index.json is read anew by each
// operation, so Open does not look at it. Nothing is written: a layout on
// read-only media can be opened and read.
func Open(ctx context.Context, dir string, opts *Options) (*Layout, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	l := &Layout{dir: dir, blobs: map[digest.Algorithm]*os.Root{}, dirs: map[digest.Algorithm]*os.File{}}
	if opts != nil {
		l.opts = *opts
	}
	var err error
	l.root, err = openFollowing(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: %w", dir, ErrNotFound)
	case errors.Is(err, syscall.ENOTDIR):
		return nil, fmt.Errorf("%s: not a directory: %w", dir, ErrNotLayout)
	case err != nil:
		return nil, err
	}
	if err := l.checkMarker(); err != nil {
		return nil, errors.Join(err, l.root.Close())
	}
	return l, nil
}

func (l *Layout) checkMarker() error {
	raw, err := l.readFile(markerFile, 4<<10) // 4 KiB
	if errors.Is(err, fs.ErrNotExist) {
		return WithHint(fmt.Errorf("%s: no file %s: %w", l.dir, markerFile, ErrNotLayout), "make one with: gloci-layout init "+l.dir)
	}
	if err != nil {
		return err
	}
	if err := CheckMarker(raw); err != nil {
		return fmt.Errorf("%s: %w", l.dir, err)
	}
	return nil
}

// CheckMarker tells whether raw is the content of an oci-layout file that this
// package can read (image-layout.md, "oci-layout file"); if not, the error is
// [ErrNotLayout].
func CheckMarker(raw []byte) error {
	v, err := strictjson.Parse(raw)
	var ms []strictjson.Member
	if err == nil {
		ms, err = members(v, []string{"imageLayoutVersion"})
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %w", markerFile, ErrNotLayout, err)
	}
	for _, m := range ms {
		if m.Name != "imageLayoutVersion" {
			continue
		}
		version, err := m.Value.Text()
		if err == nil && version == ocispec.ImageLayoutVersion {
			return nil
		}
		return fmt.Errorf("%s: %w: version %q, want %q", markerFile, ErrNotLayout, version, ocispec.ImageLayoutVersion)
	}
	return fmt.Errorf("%s: %w: imageLayoutVersion is missing", markerFile, ErrNotLayout)
}

// Close releases what Open took. Open blobs stay readable.
func (l *Layout) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.root.Close()
	for _, r := range l.blobs {
		err = errors.Join(err, r.Close())
	}
	for _, d := range l.dirs {
		err = errors.Join(err, d.Close())
	}
	l.blobs, l.dirs = nil, nil
	return err
}

// String returns the directory as it was given.
func (l *Layout) String() string { return l.dir }

// Dir returns the directory as it was given.
func (l *Layout) Dir() string { return l.dir }

func (l *Layout) warn(msg string, args ...any) {
	if l.opts.Logger != nil {
		l.opts.Logger.Warn(msg, args...)
	}
}

// Index reads index.json. One that is missing or unreadable is [ErrInvalid].
func (l *Layout) Index(ctx context.Context) (*Index, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	raw, err := l.readFile(indexFile, MaxDocument)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: no file %s: %w", l.dir, indexFile, ErrInvalid)
	}
	if err != nil {
		return nil, err
	}
	x, err := ParseIndex(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(l.dir, indexFile), err)
	}
	return x, nil
}

// open opens the stored file of d, unverified.
func (l *Layout) open(d digest.Digest) (*os.File, fs.FileInfo, error) {
	root, err := l.blobRoot(d.Algorithm())
	var f *os.File
	var info fs.FileInfo
	if err == nil {
		f, info, err = l.openRegular(root, d.Encoded(), os.O_RDONLY)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%s: blob %s: %w", l.dir, d, ErrNotFound)
	}
	return f, info, err
}

// Blob opens the content of desc, reachable from index.json or not; see
// [Source].
func (l *Layout) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	return OpenBlob(ctx, desc, func(d digest.Digest) (io.ReadCloser, error) {
		if desc.Size <= readAtOnce {
			if content, ok := l.readSmall(desc); ok {
				return io.NopCloser(bytes.NewReader(content)), nil
			}
		}
		f, info, err := l.open(d)
		if err != nil {
			return nil, err
		}
		// A wrong size is told before gigabytes are hashed.
		if info.Size() != desc.Size {
			return nil, errors.Join(&BlobError{Op: "open", Desc: desc, Err: fmt.Errorf("%w: %d bytes, want %d", ErrMismatch, info.Size(), desc.Size)}, f.Close())
		}
		return f, nil
	})
}

// Section returns the file of a blob; see [Sectioner].
func (l *Layout) Section(_ context.Context, d digest.Digest) (f *os.File, off, size int64, err error) {
	if d, err = ParseDigest(string(d)); err != nil {
		return nil, 0, 0, err
	}
	f, info, err := l.open(d)
	if err != nil {
		return nil, 0, 0, err
	}
	return f, 0, info.Size(), nil
}

// Stat returns what is stored under d, or [ErrNotFound].
func (l *Layout) Stat(_ context.Context, d digest.Digest) (BlobInfo, error) {
	d, err := ParseDigest(string(d))
	if err != nil {
		return BlobInfo{}, err
	}
	info, err := l.stat(d)
	if err != nil {
		return BlobInfo{}, err
	}
	return BlobInfo{Digest: d, Size: info.Size()}, nil
}

func (l *Layout) stat(d digest.Digest) (fs.FileInfo, error) {
	root, err := l.blobRoot(d.Algorithm())
	var info fs.FileInfo
	if err == nil {
		if l.opts.FollowSymlinks {
			info, err = os.Stat(filepath.Join(root.Name(), d.Encoded()))
		} else {
			info, err = root.Lstat(d.Encoded())
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: blob %s: %w", l.dir, d, ErrNotFound)
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: %w: not a regular file", filepath.Join(root.Name(), d.Encoded()), ErrUnsafe)
	}
	return info, nil
}

// Blobs lists every stored blob. Files that are no blobs are left out; what
// stands at the path of a blob and is no regular file is [ErrUnsafe].
func (l *Layout) Blobs(ctx context.Context) iter.Seq2[BlobInfo, error] {
	return func(yield func(BlobInfo, error) bool) {
		for _, a := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
			names, err := l.names(a)
			if err != nil && !yield(BlobInfo{}, err) {
				return
			}
			for _, name := range names {
				d, err := ParseDigest(string(a) + ":" + name)
				if err != nil {
					continue
				}
				if ctx.Err() != nil {
					yield(BlobInfo{Digest: d}, context.Cause(ctx))
					return
				}
				info, err := l.Stat(ctx, d)
				if errors.Is(err, ErrNotFound) { // taken away since
					continue
				}
				info.Digest = d
				if !yield(info, err) {
					return
				}
			}
		}
	}
}
