package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/delta"
	"github.com/gardenlinux/gloci-layout/layout/internal/durable"
)

// UnpackOptions changes what [Unpack] does. Nil is the zero value.
type UnpackOptions struct {
	// Jobs is how many blobs are copied at once. Zero means twice the
	// processors.
	Jobs int
	// Progress is told of each blob; calls do not overlap. Nil is silent.
	Progress func(layout.Event)
}

// Unpack copies all that src stores, reachable or not, into a new layout
// directory: every blob verified, index.json with its exact bytes.
//
// dir may be absent; then its parent must exist, the copy is made in a
// directory beside it, and the layout appears under its name whole. It may also
// be an empty directory or a layout without entries, into which the blobs are
// brought and then index.json in one step. Anything else in the way is
// [layout.ErrExists]. After an error dir is as it was.
//
// A delta may also be unpacked into a layout that holds its base: then what
// stood in its index.json must be that of a base, or be in the new one, else
// the error is [layout.ErrConflict]. What only the old one names stays as blobs
// for [layout.Layout.GC] to take. A delta without its base, or with another, is
// a [delta.BaseError], or [layout.ErrNotFound] if there is no layout in dir.
func Unpack(ctx context.Context, src layout.Source, dir string, opts *UnpackOptions) error {
	var o UnpackOptions
	if opts != nil {
		o = *opts
	}
	if err := unpack(ctx, src, filepath.Clean(dir), &o); err != nil {
		return fmt.Errorf("unpack %s: %w", src, err)
	}
	return nil
}

func unpack(ctx context.Context, src layout.Source, dir string, o *UnpackOptions) error {
	// What cannot be read is no reason to make a directory.
	x, err := src.Index(ctx)
	if err != nil {
		return err
	}
	_, err = os.Lstat(dir)
	switch {
	case delta.Of(src) != nil:
		return unpackDelta(ctx, src, x, dir, errors.Is(err, fs.ErrNotExist), o)
	case errors.Is(err, fs.ErrNotExist):
		return unpackBeside(ctx, src, x, dir, o)
	case err != nil:
		return err
	}
	return unpackInto(ctx, src, x, dir, o)
}

// unpackInto fills the directory dir, which is empty or a layout without
// entries.
func unpackInto(ctx context.Context, src layout.Source, x *layout.Index, dir string, o *UnpackOptions) error {
	l, err := layout.Create(ctx, dir, nil)
	created := err == nil
	if errors.Is(err, layout.ErrExists) {
		l, err = openEmpty(ctx, dir, err)
	}
	if err != nil {
		return err
	}
	err = errors.Join(copyInto(ctx, src, x, l, replaceNothing(l), o), l.Close())
	if err != nil && created {
		// The directory was empty, and is so again.
		for _, name := range []string{ocispec.ImageLayoutFile, ocispec.ImageIndexFile, ocispec.ImageBlobsDir, ownDir} {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, name)))
		}
	}
	return err
}

// openEmpty opens the layout in dir if it has no entries, as "init" makes one
// and as an attempt leaves it that was killed. Else the error is exists.
func openEmpty(ctx context.Context, dir string, exists error) (*layout.Layout, error) {
	l, err := layout.Open(ctx, dir, nil)
	if err != nil {
		return nil, exists
	}
	if have, err := l.Index(ctx); err != nil || !isEmpty(have) {
		return nil, errors.Join(exists, l.Close())
	}
	return l, nil
}

func isEmpty(x *layout.Index) bool {
	return string(x.Bytes()) == string(layout.NewIndex().Bytes())
}

// unpackBeside fills a sibling directory and renames it.
func unpackBeside(ctx context.Context, src layout.Source, x *layout.Index, dir string, o *UnpackOptions) (err error) {
	parentDir := filepath.Dir(dir)
	parent, err := os.OpenRoot(parentDir)
	if errors.Is(err, fs.ErrNotExist) {
		return layout.WithHint(fmt.Errorf("directory %s: %w", parentDir, layout.ErrNotFound), "create it first: mkdir -p "+parentDir)
	}
	if err != nil {
		return err
	}
	defer parent.Close() //nolint:errcheck // only read
	name, err := durable.MkdirTemp(parent, "."+filepath.Base(dir)+".tmp-")
	if err != nil {
		return err
	}
	temp := filepath.Join(parentDir, name)
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(temp))
		}
	}()
	l, err := layout.Create(ctx, temp, nil)
	if err != nil {
		return err
	}
	if err := errors.Join(copyInto(ctx, src, x, l, replaceNothing(l), o), l.Close()); err != nil {
		return err
	}
	if err := os.Chmod(temp, 0o755); err != nil {
		return err
	}
	if err := durable.RenameNoReplace(temp, dir); err != nil {
		if errors.Is(err, fs.ErrExist) {
			err = fmt.Errorf("%s: %w", dir, layout.ErrExists)
		}
		return err
	}
	return durable.SyncDir(parentDir)
}

// replaceNothing allows for a layout without entries only.
func replaceNothing(l *layout.Layout) func(have *layout.Index) error {
	return func(have *layout.Index) error {
		if !isEmpty(have) {
			return fmt.Errorf("%s: %w", l, layout.ErrExists)
		}
		return nil
	}
}

// copyInto brings all that src stores into the layout l, if may allows for its
// index.json to be replaced.
func copyInto(ctx context.Context, src layout.Source, x *layout.Index, l *layout.Layout, may func(have *layout.Index) error, o *UnpackOptions) error {
	s, err := l.Stage(ctx)
	if err != nil {
		return err
	}
	err = stageAll(ctx, src, s, o)
	if err == nil {
		err = s.Update(ctx, func(tx *layout.Tx) error {
			if err := may(tx.Index()); err != nil {
				return err
			}
			*tx.Index() = *x // as a whole: its bytes stay what they are
			return nil
		})
	}
	return errors.Join(err, s.Close())
}

// stageAll stages all that src stores. To [layout.Stage.CopyTree] the blobs are
// leaves, which it copies and verifies without looking into them.
func stageAll(ctx context.Context, src layout.Source, s *layout.Stage, o *UnpackOptions) error {
	var leaves []ocispec.Descriptor
	for info, err := range src.Blobs(ctx) {
		if err != nil {
			return err
		}
		leaves = append(leaves, ocispec.Descriptor{MediaType: "application/octet-stream", Digest: info.Digest, Size: info.Size})
	}
	co := layout.CopyOptions{Jobs: o.Jobs}
	if o.Progress != nil {
		var mu sync.Mutex
		co.Progress = func(e layout.Event) {
			mu.Lock()
			defer mu.Unlock()
			o.Progress(e)
		}
	}
	return s.CopyTree(ctx, src, leaves, &co)
}
