package extract

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sync/errgroup"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/internal/durable"
)

// CopyDir writes layers to files of dir, with mode 0644, directories 0755,
// whatever the umask is. Names have passed [CheckName], and no two are the same
// ([NameLayers]).
//
// A dir that is not there appears whole, or not at all after an error or a crash;
// its parent must exist ([layout.ErrNotFound]). To a directory that is there,
// files are added: none before all blobs are verified and on the disk, then one
// after another. Links in it are not followed out of it ([layout.ErrUnsafe]). A
// file in the way is [layout.ErrExists], before anything is read, unless
// opts.Force.
func CopyDir(ctx context.Context, src layout.Source, dir string, layers []NamedLayer, opts *CopyOptions) error {
	o := opts.withDefaults()
	dir = filepath.Clean(dir)
	for _, l := range layers {
		if err := CheckName(l.Name); err != nil {
			return err
		}
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return copyNewDir(ctx, src, dir, layers, &o)
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s: not a directory: %w", dir, layout.ErrExists)
	}
	return copyIntoDir(ctx, src, dir, layers, &o)
}

// copyNewDir fills a sibling directory and renames it.
func copyNewDir(ctx context.Context, src layout.Source, dir string, layers []NamedLayer, o *CopyOptions) (err error) {
	parentDir := filepath.Dir(dir)
	parent, err := os.OpenRoot(parentDir)
	if err != nil {
		return noParent(err, parentDir)
	}
	defer parent.Close() //nolint:errcheck // only read
	temp, err := durable.MkdirTemp(parent, "."+filepath.Base(dir)+".tmp-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, parent.RemoveAll(temp))
		}
	}()
	root, err := parent.OpenRoot(temp)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // only read
	made := []string{"."}
	for _, l := range layers {
		if made, err = makeDirs(root, path.Dir(l.Name), made); err != nil {
			return err
		}
	}
	err = o.copyAll(ctx, src, layers, func(i int) (*os.File, error) {
		return root.OpenFile(layers[i].Name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	})
	if err != nil {
		return err
	}
	if err := root.Chmod(".", 0o755); err != nil {
		return err
	}
	if err := syncDirs(root, made); err != nil {
		return err
	}
	if err := durable.RenameNoReplace(filepath.Join(parentDir, temp), dir); err != nil {
		if errors.Is(err, fs.ErrExist) {
			err = inTheWay(dir)
		}
		return err
	}
	return durable.SyncDir(parentDir)
}

// copyIntoDir puts all files into a directory of their own inside dir, and then
// gives each its name.
func copyIntoDir(ctx context.Context, src layout.Source, dir string, layers []NamedLayer, o *CopyOptions) (err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // only read
	for _, l := range layers {
		if err := o.free(root, l.Name); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	temp, err := durable.MkdirTemp(root, ".gloci-layout.tmp-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.RemoveAll(temp)) }()
	staged := func(i int) string { return path.Join(temp, strconv.Itoa(i)) }
	err = o.copyAll(ctx, src, layers, func(i int) (*os.File, error) {
		return root.OpenFile(staged(i), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	})
	if err != nil {
		return err
	}
	made := []string{"."}
	for i, l := range layers {
		if made, err = makeDirs(root, path.Dir(l.Name), made); err != nil {
			return err
		}
		if err := o.place(root, staged(i), l.Name); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	return syncDirs(root, made)
}

// free tells whether name may become a file of ours.
func (o *CopyOptions) free(root *os.Root, name string) error {
	info, err := root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return unsafe(err)
	case !o.Force:
		return inTheWay(name)
	case info.IsDir():
		return fmt.Errorf("%s: is a directory: %w", name, layout.ErrExists)
	}
	return nil
}

// place gives the file temp its name. Without Force a link is made first, which
// never replaces what another program has made meanwhile.
func (o *CopyOptions) place(root *os.Root, temp, name string) error {
	if !o.Force {
		err := root.Link(temp, name)
		if err == nil {
			return root.Remove(temp)
		}
		if errors.Is(err, fs.ErrExist) {
			return inTheWay(name)
		}
		// A file system without links.
		if err := o.free(root, name); err != nil {
			return err
		}
	}
	return unsafe(root.Rename(temp, name))
}

// unsafe marks what os.Root refuses because it leads out of the directory.
func unsafe(err error) error {
	var named *fs.PathError
	if errors.As(err, &named) && named.Err.Error() == "path escapes from parent" {
		return fmt.Errorf("%s: %w", named.Path, layout.ErrUnsafe)
	}
	return err
}

// copyAll copies layer i to the file that create makes for it, several at once.
func (o *CopyOptions) copyAll(ctx context.Context, src layout.Source, layers []NamedLayer, create func(i int) (*os.File, error)) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(o.Jobs)
	for i, l := range layers {
		g.Go(func() error {
			if gctx.Err() != nil {
				return context.Cause(gctx)
			}
			f, err := create(i)
			if err != nil {
				return err
			}
			if err := o.copyBlob(gctx, src, l.Desc, f); err != nil {
				return errors.Join(err, f.Close())
			}
			return durable.Finish(f, 0o644)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// makeDirs makes name and what is above it, and adds those to made whose names or
// content are new.
func makeDirs(root *os.Root, name string, made []string) ([]string, error) {
	if name == "." || slices.Contains(made, name) {
		return made, nil
	}
	made, err := makeDirs(root, path.Dir(name), made)
	if err != nil {
		return made, err
	}
	err = root.Mkdir(name, 0o755)
	switch {
	case err == nil:
		if err = root.Chmod(name, 0o755); err != nil {
			return made, err
		}
	case errors.Is(err, fs.ErrExist):
		info, err := root.Stat(name)
		if err != nil {
			return made, unsafe(err)
		}
		if !info.IsDir() {
			return made, fmt.Errorf("%s: not a directory: %w", name, layout.ErrExists)
		}
	default:
		return made, unsafe(err)
	}
	return append(made, name), nil
}

// syncDirs makes the names in dirs last.
func syncDirs(root *os.Root, dirs []string) error {
	for _, d := range slices.Backward(dirs) {
		if err := durable.SyncRootDir(root, d); err != nil {
			return err
		}
	}
	return nil
}
