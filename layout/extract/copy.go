package extract

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/internal/tempfile"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/internal/durable"
)

// CopyOptions changes what [CopyFile] and [CopyDir] do. Nil is the zero value.
type CopyOptions struct {
	// Force replaces files that are in the way.
	Force bool
	// Jobs is how many blobs are copied at once. Zero means four.
	Jobs int
	// Progress is told of each blob; calls do not overlap. Nil is silent.
	Progress func(layout.Event)
}

func (o *CopyOptions) withDefaults() CopyOptions {
	var c CopyOptions
	if o != nil {
		c = *o
	}
	if c.Jobs == 0 {
		c.Jobs = 4
	}
	if progress := c.Progress; progress != nil {
		var mu sync.Mutex
		c.Progress = func(ev layout.Event) {
			mu.Lock()
			defer mu.Unlock()
			progress(ev)
		}
	} else {
		c.Progress = func(layout.Event) {}
	}
	return c
}

// copyBlob copies desc to the empty file f and tells of it.
func (o *CopyOptions) copyBlob(ctx context.Context, src layout.Source, desc ocispec.Descriptor, f *os.File) error {
	o.Progress(layout.Event{Kind: "start", Desc: desc})
	err := layout.CopyBlob(ctx, src, desc, f, func(n int64) { o.Progress(layout.Event{Kind: "bytes", Desc: desc, Bytes: n}) })
	if err == nil {
		o.Progress(layout.Event{Kind: "done", Desc: desc})
	}
	return err
}

// CopyFile writes the content of desc to file, with mode 0644 whatever the umask
// is. Until the last byte is verified and on the disk, nothing is at file, or
// what was there before; so it stays after an error or a crash.
//
// Something at file is [layout.ErrExists], unless opts.Force: then a regular file
// is replaced, and of a symbolic link the file that it leads to. A directory that
// is not there is [layout.ErrNotFound]; other errors are those of
// [layout.CopyBlob].
func CopyFile(ctx context.Context, src layout.Source, desc ocispec.Descriptor, file string, opts *CopyOptions) error {
	o := opts.withDefaults()
	target, err := o.target(file)
	if err != nil {
		return err
	}
	f, err := durable.Replace(target)
	if err != nil {
		return noParent(err, filepath.Dir(file))
	}
	defer f.Discard() //nolint:errcheck // does nothing after Commit; else an error is returned already
	if err := o.copyBlob(ctx, src, desc, f.File); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if o.Force {
		return f.Commit(0o644)
	}
	if err := f.CommitNew(0o644); errors.Is(err, fs.ErrExist) {
		return inTheWay(file)
	} else if err != nil {
		return err
	}
	return nil
}

// target returns the file that becomes the copy.
func (o *CopyOptions) target(file string) (string, error) {
	info, err := os.Lstat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return file, nil
	case err != nil:
		return "", err
	case !o.Force:
		return "", inTheWay(file)
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		if file, err = filepath.EvalSymlinks(file); err != nil {
			return "", err
		}
		if info, err = os.Lstat(file); err != nil {
			return "", err
		}
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s: not a regular file: %w", file, layout.ErrExists)
	}
	return file, nil
}

func inTheWay(file string) error {
	return layout.WithHint(fmt.Errorf("%s: %w", file, layout.ErrExists), "--force replaces it")
}

func noParent(err error, dir string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return layout.WithHint(fmt.Errorf("directory %s: %w", dir, layout.ErrNotFound), "create it first: mkdir -p "+dir)
	}
	return err
}

// CopyTo writes the content of desc to w, every byte verified before the first
// is written: the blob is read twice where it is part of a file, else it is kept
// in a temporary file without a name.
func CopyTo(ctx context.Context, src layout.Source, desc ocispec.Descriptor, w io.Writer, opts *CopyOptions) (err error) {
	o := opts.withDefaults()
	if _, ok := src.(layout.Sectioner); ok {
		o.Progress(layout.Event{Kind: "start", Desc: desc})
		if err := stream(ctx, src, desc, io.Discard); err != nil {
			return err
		}
		if err := stream(ctx, src, desc, w); err != nil {
			return err
		}
		o.Progress(layout.Event{Kind: "bytes", Desc: desc, Bytes: desc.Size})
		o.Progress(layout.Event{Kind: "done", Desc: desc})
		return nil
	}
	f, err := tempfile.New("")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := o.copyBlob(ctx, src, desc, f); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}

func stream(ctx context.Context, src layout.Source, desc ocispec.Descriptor, w io.Writer) error {
	rc, err := src.Blob(ctx, desc)
	if err != nil {
		return err
	}
	defer rc.Close() //nolint:errcheck // read to its verified end
	_, err = io.Copy(w, rc)
	return err
}
