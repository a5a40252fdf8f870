package sync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/sync/internal/registry"
)

// A dirSource is a directory in the format "dir:" of containers/image: the root
// in manifest.json, other documents in HEX.manifest.json, blobs in HEX. It is
// read as it is, so all digests stay.
type dirSource struct {
	dir  string
	root *os.Root
	desc ocispec.Descriptor // of manifest.json
}

const (
	dirManifest  = "manifest.json"
	dirSignature = "signature-%d"
	dirSuffix    = ".manifest.json"
)

func openDir(dir string) (*dirSource, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, layout.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	s := &dirSource{dir: dir, root: root}
	if s.desc, err = s.describe(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", s, err), root.Close())
	}
	return s, nil
}

// describe makes the descriptor of manifest.json.
func (s *dirSource) describe() (ocispec.Descriptor, error) {
	version, err := s.read("version", 1024)
	if errors.Is(err, layout.ErrNotFound) || err == nil && !strings.HasPrefix(string(version), "Directory Transport Version: 1.") {
		return ocispec.Descriptor{}, fmt.Errorf("%w: not a directory of the dir transport, version 1", layout.ErrInvalid)
	}
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	raw, err := s.read(dirManifest, layout.MaxDocument)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	var faults []error
	for _, mediaType := range registry.ManifestTypes {
		desc.MediaType = mediaType
		_, err := layout.ParseDocument(desc, raw)
		if err == nil {
			return desc, nil
		}
		faults = append(faults, err)
	}
	return ocispec.Descriptor{}, faults[1] // as an image manifest, which it mostly is
}

// open opens a regular file; links and devices are refused.
func (s *dirSource) open(name string) (*os.File, fs.FileInfo, error) {
	before, err := s.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%s: %w", name, layout.ErrNotFound)
	}
	if err != nil {
		return nil, nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s: %w: not a regular file", name, layout.ErrUnsafe)
	}
	f, err := s.root.Open(name)
	if err != nil {
		return nil, nil, err
	}
	after, err := f.Stat()
	if err == nil && !os.SameFile(before, after) {
		err = fmt.Errorf("%s: %w: it was replaced", name, layout.ErrUnsafe)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, after, nil
}

func (s *dirSource) read(name string, limit int64) ([]byte, error) {
	f, info, err := s.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	if info.Size() > limit {
		return nil, fmt.Errorf("%s: %w: %d bytes, more than the limit of %d", name, layout.ErrInvalid, info.Size(), limit)
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

// find opens the file that holds d.
func (s *dirSource) find(d digest.Digest) (*os.File, fs.FileInfo, error) {
	if _, err := layout.ParseDigest(string(d)); err != nil {
		return nil, nil, err
	}
	if d == s.desc.Digest {
		return s.open(dirManifest)
	}
	f, info, err := s.open(d.Encoded())
	if errors.Is(err, layout.ErrNotFound) {
		f, info, err = s.open(d.Encoded() + dirSuffix)
	}
	if errors.Is(err, layout.ErrNotFound) {
		err = fmt.Errorf("%s: %s: %w", s, d, layout.ErrNotFound)
	}
	return f, info, err
}

// Index implements [layout.Source]: one entry without a ref name.
func (s *dirSource) Index(context.Context) (*layout.Index, error) {
	x := layout.NewIndex()
	x.Add(s.desc)
	return x, nil
}

// Blob implements [layout.Source].
func (s *dirSource) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	return layout.OpenBlob(ctx, desc, func(d digest.Digest) (io.ReadCloser, error) {
		f, _, err := s.find(d)
		if err != nil {
			return nil, err
		}
		return f, nil
	})
}

// Section implements [layout.Sectioner].
func (s *dirSource) Section(_ context.Context, d digest.Digest) (f *os.File, off, size int64, err error) {
	f, info, err := s.find(d)
	if err != nil {
		return nil, 0, 0, err
	}
	return f, 0, info.Size(), nil
}

// Stat implements [layout.Source].
func (s *dirSource) Stat(_ context.Context, d digest.Digest) (layout.BlobInfo, error) {
	f, info, err := s.find(d)
	if err != nil {
		return layout.BlobInfo{}, err
	}
	return layout.BlobInfo{Digest: d, Size: info.Size()}, f.Close()
}

// Blobs implements [layout.Source].
func (s *dirSource) Blobs(context.Context) iter.Seq2[layout.BlobInfo, error] {
	return func(yield func(layout.BlobInfo, error) bool) {
		names, err := fs.ReadDir(s.root.FS(), ".")
		if err != nil {
			yield(layout.BlobInfo{}, err)
			return
		}
		list := []layout.BlobInfo{{Digest: s.desc.Digest, Size: s.desc.Size}}
		for _, entry := range names {
			hex := strings.TrimSuffix(entry.Name(), dirSuffix)
			algorithm := digest.SHA256
			if len(hex) > 64 {
				algorithm = digest.SHA512
			}
			d, err := layout.ParseDigest(string(algorithm) + ":" + hex)
			if err != nil || d == s.desc.Digest || !entry.Type().IsRegular() {
				continue // version, signature-1, ...
			}
			info, err := entry.Info()
			if err != nil {
				yield(layout.BlobInfo{}, err)
				return
			}
			list = append(list, layout.BlobInfo{Digest: d, Size: info.Size()})
		}
		slices.SortFunc(list, func(a, b layout.BlobInfo) int { return cmp.Compare(a.Digest, b.Digest) })
		for _, info := range slices.CompactFunc(list, func(a, b layout.BlobInfo) bool { return a.Digest == b.Digest }) {
			if !yield(info, nil) {
				return
			}
		}
	}
}

func (s *dirSource) String() string { return "dir:" + s.dir }

// Close ends the use of the directory.
func (s *dirSource) Close() error { return s.root.Close() }
