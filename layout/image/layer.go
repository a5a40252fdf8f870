package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/casengine"
)

// A Layer is a layer that is staged.
type Layer struct {
	Desc      ocispec.Descriptor
	DiffID    digest.Digest // of the tar archive, uncompressed (config.md, "Layer DiffID")
	CreatedBy string        // for the history; may be empty
}

// mediaTypes are those of layers (media-types.md).
var mediaTypes = map[compress.Format]string{
	compress.None: ocispec.MediaTypeImageLayer,
	compress.Gzip: ocispec.MediaTypeImageLayerGzip,
	compress.Zstd: ocispec.MediaTypeImageLayerZstd,
}

// StageTree stages the directory dir as a layer in format f. See
// [casengine.Tree] for what becomes of each file. Each byte is read, hashed,
// compressed and hashed again on its way to the disk; memory does not grow with
// the size of the files.
func StageTree(ctx context.Context, s *layout.Stage, dir string, f compress.Format, opts *casengine.TreeOptions) (l Layer, err error) {
	tree, err := casengine.Tree(ctx, dir, opts)
	if err != nil {
		return Layer{}, err
	}
	defer func() { err = errors.Join(err, tree.Close()) }()
	return stage(ctx, s, f, func(w io.Writer) error {
		_, err := io.Copy(w, tree)
		return err
	})
}

// StageTar stages the tar archive in the file path, plain or compressed, as a
// layer in format f. The archive stays as it is. What is no tar archive, or ends
// early, is [layout.ErrInvalid]. A pipe is read to its end.
func StageTar(ctx context.Context, s *layout.Stage, path string, f compress.Format) (Layer, error) {
	in, stop, err := openFile(ctx, path)
	if err != nil {
		return Layer{}, err
	}
	defer stop()
	return stageAnew(ctx, s, path, in, f)
}

// StageReader stages the tar archive that r holds, not compressed, as a layer in
// format f. What is no tar archive, or ends early, is [layout.ErrInvalid].
func StageReader(ctx context.Context, s *layout.Stage, r io.Reader, f compress.Format) (Layer, error) {
	return stage(ctx, s, f, func(w io.Writer) error { return copyTar(w, r) })
}

// stageAnew stages the tar archive in, from the file path, in format f.
func stageAnew(ctx context.Context, s *layout.Stage, path string, in *file, f compress.Format) (Layer, error) {
	raw, err := compress.NewReader(in, in.format)
	if err != nil {
		return Layer{}, fmt.Errorf("%s: %w", path, err)
	}
	defer raw.Close() //nolint:errcheck // only read
	l, err := StageReader(ctx, s, raw, f)
	return l, named(path, err)
}

// StageLayer stages the file path, a tar archive, plain or compressed, as the
// layer that it is: its bytes stay. Only one in xz or bzip2, which no layer may
// be (layer.md, "Layer media types"), is compressed anew, with gzip.
func StageLayer(ctx context.Context, s *layout.Stage, path string) (Layer, error) {
	in, stop, err := openFile(ctx, path)
	if err != nil {
		return Layer{}, err
	}
	defer stop()
	if mediaTypes[in.format] == "" {
		return stageAnew(ctx, s, path, in, compress.Gzip)
	}
	pr, pw := io.Pipe()
	diffID := digest.SHA256.Digester()
	var g errgroup.Group
	g.Go(func() error {
		err := checkTar(diffID.Hash(), pr, in.format)
		pr.CloseWithError(err)
		return err
	})
	desc, err := s.Add(ctx, io.TeeReader(in, pw), mediaTypes[in.format])
	pw.CloseWithError(err)
	// What the check says comes through Add too, in more words.
	if cause := g.Wait(); cause != nil {
		err = cause
	}
	if err != nil {
		return Layer{}, named(path, err)
	}
	return Layer{Desc: desc, DiffID: diffID.Digest()}, nil
}

// checkTar hashes the tar archive that r holds in format f, to its end.
func checkTar(h hash.Hash, r io.Reader, f compress.Format) error {
	raw, err := compress.NewReader(r, f)
	if err != nil {
		return err
	}
	defer raw.Close() //nolint:errcheck // only read
	return copyTar(h, raw)
}

// stage runs write and stages what it writes, in format f.
func stage(ctx context.Context, s *layout.Stage, f compress.Format, write func(w io.Writer) error) (Layer, error) {
	mediaType, ok := mediaTypes[f]
	if !ok {
		return Layer{}, fmt.Errorf("%w: layer in format %s", compress.ErrUnsupported, f)
	}
	pr, pw := io.Pipe()
	diffID := digest.SHA256.Digester()
	var g errgroup.Group
	g.Go(func() error {
		z, err := compress.NewWriter(pw, f, 0)
		if err == nil {
			// Close even after an error: it ends goroutines.
			err = write(io.MultiWriter(diffID.Hash(), z))
			if closeErr := z.Close(); err == nil {
				err = closeErr
			}
		}
		pw.CloseWithError(err)
		return err
	})
	desc, err := s.Add(ctx, pr, mediaType)
	pr.CloseWithError(err)
	// What write says comes through Add too, in more words; and if Add failed,
	// write has failed with that.
	if cause := g.Wait(); cause != nil {
		err = cause
	}
	if err != nil {
		return Layer{}, err
	}
	return Layer{Desc: desc, DiffID: diffID.Digest()}, nil
}

// copyTar copies a tar archive, and what follows it, and checks its headers.
func copyTar(w io.Writer, r io.Reader) error {
	n := &counter{w: w}
	tee := io.TeeReader(r, n)
	archive := tar.NewReader(tee)
	for {
		_, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if !errors.Is(err, compress.ErrCorrupt) && (errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF)) {
			return fmt.Errorf("%w: no tar archive: %w", layout.ErrInvalid, err)
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return err
		}
	}
	if n.n == 0 {
		return fmt.Errorf("%w: no tar archive: it is empty", layout.ErrInvalid)
	}
	_, err := io.Copy(io.Discard, tee)
	return err
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// named says which file err is about.
func named(path string, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s: %w", path, err)
	if errors.Is(err, compress.ErrUnsupported) {
		err = layout.WithHint(err, "layers are plain, gzip or zstd")
	}
	return err
}

// A file is an open file and how its content is compressed.
type file struct {
	io.Reader
	format compress.Format
}

// interruptible says why a read ended that stop ended.
type interruptible struct {
	canceled func() error
	r        io.Reader
}

func (i *interruptible) Read(p []byte) (int, error) {
	n, err := i.r.Read(p)
	if err != nil {
		if cause := i.canceled(); cause != nil {
			return n, cause
		}
	}
	return n, err
}

// openFile opens a file or a pipe. stop closes it.
func openFile(ctx context.Context, path string) (in *file, stop func(), err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%s: %w", path, layout.ErrNotFound)
	}
	if err != nil {
		return nil, nil, err
	}
	// A reader that waits for a pipe has to hear that it is over.
	canceled := func() error { return context.Cause(ctx) }
	unwatch := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	stop = func() {
		unwatch()
		_ = f.Close() // only read
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() && info.Mode()&fs.ModeNamedPipe == 0 {
		err = fmt.Errorf("%s: %w: neither a directory nor a file", path, layout.ErrInvalid)
	}
	prefix := make([]byte, compress.DetectLen)
	n := 0
	if err == nil {
		n, err = io.ReadFull(f, prefix)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = nil
		}
		if cause := canceled(); cause != nil {
			err = cause
		}
	}
	if err != nil {
		stop()
		return nil, nil, err
	}
	in = &file{io.MultiReader(bytes.NewReader(prefix[:n]), &interruptible{canceled, f}), compress.Detect(prefix[:n])}
	return in, stop, nil
}
