package layout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/layout/internal/durable"
)

// Create makes an empty layout in dir and opens it. dir may be an empty
// directory, or absent; then its parent must exist and the layout appears under
// its name whole. Anything else in the way is [ErrExists].
func Create(ctx context.Context, dir string, opts *Options) (*Layout, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = createBeside(dir)
	case errors.Is(err, syscall.ENOTDIR):
		err = fmt.Errorf("it is no directory: %w", ErrExists)
	case err != nil:
		return nil, fmt.Errorf("create layout: %w", err)
	default:
		err = createInside(dir, entries)
	}
	if err != nil {
		return nil, fmt.Errorf("create layout %s: %w", dir, readOnly(err))
	}
	return Open(ctx, dir, opts)
}

// createBeside fills a sibling directory and renames it.
func createBeside(dir string) error {
	dir = filepath.Clean(dir)
	parent, err := os.OpenRoot(filepath.Dir(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return WithHint(fmt.Errorf("directory %s: %w", filepath.Dir(dir), ErrNotFound), "create it first: mkdir -p "+filepath.Dir(dir))
	}
	if err != nil {
		return err
	}
	defer parent.Close() //nolint:errcheck // only read
	temp, err := durable.MkdirTemp(parent, "."+filepath.Base(dir)+".tmp-")
	if err != nil {
		return err
	}
	path := filepath.Join(filepath.Dir(dir), temp)
	if err := errors.Join(fill(path), os.Chmod(path, dirMode)); err != nil {
		return errors.Join(err, os.RemoveAll(path))
	}
	if err := durable.RenameNoReplace(path, dir); err != nil {
		if errors.Is(err, fs.ErrExist) {
			err = ErrExists
		}
		return errors.Join(err, os.RemoveAll(path))
	}
	return durable.SyncDir(filepath.Dir(dir))
}

// createInside fills a directory that is there. It may hold what an
// interrupted attempt has left.
func createInside(dir string, entries []fs.DirEntry) error {
	for _, e := range entries {
		switch e.Name() {
		case ownDir, blobsDir:
			if e.IsDir() {
				continue
			}
		case indexFile:
			if raw, err := os.ReadFile(filepath.Join(dir, indexFile)); err == nil && bytes.Equal(raw, NewIndex().Bytes()) {
				continue
			}
		case markerFile:
			return fmt.Errorf("it is a layout: %w", ErrExists)
		}
		return fmt.Errorf("it holds %q: %w", e.Name(), ErrExists)
	}
	if names, err := filepath.Glob(filepath.Join(globEscape(dir), blobsDir, "*", "*")); err != nil || len(names) > 0 {
		return errors.Join(err, fmt.Errorf("it holds blobs: %w", ErrExists))
	}
	return fill(dir)
}

func globEscape(dir string) string {
	var b bytes.Buffer
	for _, r := range dir {
		if r == '*' || r == '?' || r == '[' || r == '\\' {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// fill makes an empty layout; the marker comes last, so that a directory with
// a marker is whole.
func fill(dir string) error {
	blobs := filepath.Join(dir, blobsDir)
	for _, d := range []string{dir, blobs, filepath.Join(blobs, string(digest.SHA256))} {
		if err := os.Mkdir(d, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	for _, d := range []string{blobs, filepath.Join(blobs, string(digest.SHA256))} {
		if err := errors.Join(os.Chmod(d, dirMode), durable.SyncDir(d)); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{indexFile, NewIndex().Bytes()}, {markerFile, []byte(marker)}} {
		if err := writeFile(filepath.Join(dir, f.name), f.data); err != nil {
			return err
		}
	}
	return nil
}

func writeFile(path string, data []byte) error {
	f, err := durable.Replace(path)
	if err != nil {
		return err
	}
	defer f.Discard() //nolint:errcheck // only after an error that is returned
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Commit(fileMode)
}
