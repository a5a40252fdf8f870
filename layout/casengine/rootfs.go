package casengine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/apex/log"
	"github.com/apex/log/handlers/discard"
	"github.com/opencontainers/umoci/oci/layer"

	"github.com/gardenlinux/gloci-layout/layout"
)

// ErrChanged reports a file that was changed while it was read.
var ErrChanged = errors.New("changed while it was read")

// An Owner is who files belong to.
type Owner struct{ UID, GID int }

// TreeOptions changes what [Tree] writes. Nil is the zero value.
type TreeOptions struct {
	// Latest is the time after which no entry was modified: a later one is set
	// back to it. The zero Time leaves all times as they are.
	Latest time.Time
	// Owner is that of every entry; nil leaves each its own.
	Owner *Owner
	// Logger gets warnings about what a layer cannot hold; nil is silent.
	Logger *slog.Logger
}

// Tree returns the directory dir as the tar archive of a layer (image-spec
// layer.md), made by umoci. The directory itself is no entry: its mode and owner
// are those of the place where it was made. docs/format.md says which bytes come
// out. The tree is read as an overlayfs upper directory: character devices 0:0
// and directories with the attribute overlay.opaque become whiteouts.
//
// Sockets are left out with a warning. Files named .wh.* are
// [layout.ErrInvalid], and something that changes while it is read is
// [ErrChanged]. Nothing is followed out of dir, and nothing is written there.
// Ending ctx ends reads. Close must be called.
func Tree(ctx context.Context, dir string, opts *TreeOptions) (io.ReadCloser, error) {
	if opts == nil {
		opts = &TreeOptions{}
	}
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, layout.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	t := &tree{
		dir: dir, top: f, owner: opts.Owner, logger: opts.Logger, inodes: map[inode]uint64{},
		canceled: func() error { return context.Cause(ctx) }, done: make(chan struct{}),
	}
	if t.logger == nil {
		t.logger = slog.New(slog.DiscardHandler)
	}
	repack := &layer.RepackOptions{OnDiskFormat: layer.OverlayfsRootfs{}}
	if !opts.Latest.IsZero() {
		repack.SourceDateEpoch = &opts.Latest
	}
	quiet()
	root := mounted.add(t)
	return &treeReader{layer.GenerateInsertLayer(root, ".", false, repack), t, root, cancel}, nil
}

// quiet takes umoci's messages off stderr: what went wrong comes as an error.
var quiet = sync.OnceFunc(func() { log.SetHandler(discard.Default) })

// treeReader gives what umoci makes.
type treeReader struct {
	io.ReadCloser
	t      *tree
	root   string
	cancel context.CancelCauseFunc
}

func (r *treeReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err == nil || err == io.EOF {
		return n, err
	}
	<-r.t.done
	if r.t.err != nil {
		err = r.t.err
	}
	return n, err
}

// Close ends the work and waits for its end.
func (r *treeReader) Close() error {
	r.cancel(errors.New("closed"))
	err := r.ReadCloser.Close()
	<-r.t.done
	mounted.remove(r.root)
	return errors.Join(err, r.t.top.Close())
}

// An inode is the identity of a file.
type inode struct{ dev, ino uint64 }

// A tree is a directory that umoci reads. It asks about one file at a time, the
// one that walk is at.
type tree struct {
	dir      string
	top      *os.File
	owner    *Owner
	logger   *slog.Logger
	canceled func() error
	done     chan struct{} // closed when umoci is through

	inodes map[inode]uint64 // of files with several names
	last   uint64           // the number that was given last

	// Where the walk is: an entry of an open directory.
	path string // below dir, for messages
	at   string // where the system finds it
	info fs.FileInfo
	read bool // its content was

	err error // why the walk ended, in our words; for reading when done is closed
}

// walk calls visit for all that is below the directory, each directory before
// what is in it, sorted by name. Paths begin with root.
func (t *tree) walk(root string, visit filepath.WalkFunc) error {
	defer close(t.done)
	t.err = t.walkDir(t.top, root, ".", visit)
	return t.err
}

func (t *tree) walkDir(dir *os.File, root, rel string, visit filepath.WalkFunc) error {
	before, err := dir.Stat()
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return t.explain(rel, err)
	}
	slices.Sort(names)
	base := t.base(dir, rel)
	for _, name := range names {
		if err := t.canceled(); err != nil {
			return err
		}
		if err := t.visit(filepath.Join(base, name), root, filepath.Join(rel, name), visit); err != nil {
			return err
		}
	}
	after, err := dir.Stat()
	if err != nil {
		return err
	}
	if !same(before, after) {
		return changed(filepath.Join(t.dir, rel))
	}
	return nil
}

// base returns a path of an open directory that no rename of the directories
// above it leads elsewhere, where the system has one.
func (t *tree) base(dir *os.File, rel string) string {
	p := fmt.Sprintf("/proc/self/fd/%d", dir.Fd())
	if _, err := os.Lstat(p); err == nil {
		return p
	}
	return filepath.Join(t.dir, rel)
}

// visit gives umoci the entry at, and what is below it.
func (t *tree) visit(at, root, rel string, visit filepath.WalkFunc) error {
	info, err := os.Lstat(at)
	if err != nil {
		return t.explain(rel, err)
	}
	if info.Mode()&fs.ModeSocket != 0 {
		t.logger.Warn("left out: a layer holds no sockets", "file", filepath.Join(t.dir, rel))
		return nil
	}
	if strings.HasPrefix(filepath.Base(rel), whiteoutPrefix) {
		err := fmt.Errorf("%s: %w: in a layer this name takes another file away", filepath.Join(t.dir, rel), layout.ErrInvalid)
		return layout.WithHint(err, "a character device 0:0 named after that file does so, as in overlayfs")
	}
	t.path, t.at, t.info, t.read = rel, at, info, false
	err = visit(filepath.Join(root, rel), t.fileInfo(), nil)
	if t.read || err != nil {
		// A file that grows or shrinks is an error of umoci in other words.
		if now, lerr := os.Lstat(at); lerr != nil || !same(info, now) {
			return changed(filepath.Join(t.dir, rel))
		}
	}
	if err != nil {
		return t.explain(rel, err)
	}
	if !info.IsDir() {
		return nil
	}
	dir, err := os.OpenFile(at, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return t.explain(rel, err)
	}
	defer dir.Close() //nolint:errcheck // only read
	if opened, err := dir.Stat(); err != nil || !same(info, opened) {
		return errors.Join(err, changed(filepath.Join(t.dir, rel)))
	}
	return t.walkDir(dir, root, rel, visit)
}

// whiteoutPrefix begins the names of whiteouts (layer.md, "Whiteouts").
const whiteoutPrefix = ".wh."

func changed(path string) error {
	return layout.WithHint(fmt.Errorf("%s: %w", path, ErrChanged), "end what writes there, and try again")
}

// explain names the file that err is about as the user knows it.
func (t *tree) explain(rel string, err error) error {
	if cause := t.canceled(); cause != nil {
		return cause
	}
	if errors.Is(err, fs.ErrNotExist) { // it was there when the directory was read
		return changed(filepath.Join(t.dir, rel))
	}
	var known *fs.PathError
	if errors.As(err, &known) {
		return &fs.PathError{Op: known.Op, Path: filepath.Join(t.dir, rel), Err: known.Err}
	}
	return fmt.Errorf("%s: %w", filepath.Join(t.dir, rel), err)
}
