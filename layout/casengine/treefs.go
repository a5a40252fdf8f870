package casengine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/opencontainers/umoci/pkg/fseval"
	"golang.org/x/sys/unix"
)

// umoci's layer code reaches files through fseval.Default alone. Ours stands
// before it and answers for paths below the names that [Tree] makes up, which no
// file can have. So a layer is made without what umoci's own access does:
//   - it takes two files of two file systems that have one inode number for one
//     file, and so loses the second;
//   - it fails on a socket;
//   - it does not see that a file changes while it is read;
//   - it follows whatever a directory has been replaced by.
func init() { fseval.Default = treeFS{fseval.Default} }

// mounted has the trees that are being read, by their made-up names.
var mounted mounts

type mounts struct {
	mu    sync.Mutex
	next  int
	trees map[string]*tree
}

// rootPrefix begins names that no file can have.
const rootPrefix = "/\x00tree-"

func (m *mounts) add(t *tree) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next++
	name := fmt.Sprintf("%s%d", rootPrefix, m.next)
	if m.trees == nil {
		m.trees = map[string]*tree{}
	}
	m.trees[name] = t
	return name
}

func (m *mounts) remove(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.trees, name)
}

// of returns the tree that path is in, or nil.
func (m *mounts) of(path string) *tree {
	if !strings.HasPrefix(path, rootPrefix) {
		return nil
	}
	root := path
	if i := strings.IndexByte(path[1:], '/'); i >= 0 {
		root = path[:i+1]
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.trees[root]
}

// treeFS is what umoci sees: for a tree only what [layer.GenerateInsertLayer]
// uses, for all else what was there before.
type treeFS struct{ fseval.FsEval }

// Walk calls fn for all that is below root, and not for root.
func (f treeFS) Walk(root string, fn filepath.WalkFunc) error {
	if t := mounted.of(root); t != nil {
		return t.walk(root, fn)
	}
	return f.FsEval.Walk(root, fn)
}

// Lstat is [os.Lstat].
func (f treeFS) Lstat(path string) (os.FileInfo, error) {
	if t := mounted.of(path); t != nil {
		return t.fileInfo(), nil
	}
	return f.FsEval.Lstat(path)
}

// Lstatx is [unix.Lstat]; in a tree inode numbers are such that files with the
// same one are one file.
func (f treeFS) Lstatx(path string) (unix.Stat_t, error) {
	if t := mounted.of(path); t != nil {
		return t.lstatx()
	}
	return f.FsEval.Lstatx(path)
}

// Readlink is [os.Readlink].
func (f treeFS) Readlink(path string) (string, error) {
	if t := mounted.of(path); t != nil {
		return os.Readlink(t.at)
	}
	return f.FsEval.Readlink(path)
}

// Open is [os.Open].
func (f treeFS) Open(path string) (*os.File, error) {
	if t := mounted.of(path); t != nil {
		return t.open()
	}
	return f.FsEval.Open(path)
}

// Llistxattr lists the names of extended attributes.
func (f treeFS) Llistxattr(path string) ([]string, error) {
	if t := mounted.of(path); t != nil {
		return t.llistxattr()
	}
	return f.FsEval.Llistxattr(path)
}

// Lgetxattr returns one extended attribute.
func (f treeFS) Lgetxattr(path, name string) ([]byte, error) {
	if t := mounted.of(path); t != nil {
		return t.lgetxattr(name)
	}
	return f.FsEval.Lgetxattr(path, name)
}

// ownedInfo is the information on a file that belongs to somebody else.
type ownedInfo struct {
	fs.FileInfo
	stat *syscall.Stat_t
}

func (i ownedInfo) Sys() any { return i.stat }

func (t *tree) fileInfo() fs.FileInfo {
	stat, ok := t.info.Sys().(*syscall.Stat_t)
	if t.owner == nil || !ok {
		return t.info
	}
	other := *stat
	other.Uid, other.Gid = uint32(t.owner.UID), uint32(t.owner.GID)
	return ownedInfo{t.info, &other}
}

func (t *tree) lstatx() (unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Lstat(t.at, &st); err != nil {
		return st, &fs.PathError{Op: "lstat", Path: t.at, Err: err}
	}
	id := inode{uint64(st.Dev), st.Ino} //nolint:unconvert // another type on other systems
	number, ok := t.inodes[id]
	if !ok {
		t.last++
		number = t.last
		// A directory has more links than names.
		if st.Nlink > 1 && !t.info.IsDir() {
			t.inodes[id] = number
		}
	}
	st.Ino = number
	return st, nil
}

func (t *tree) open() (*os.File, error) {
	// What has become a FIFO meanwhile must not make us wait.
	f, err := os.OpenFile(t.at, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	t.read = true
	if opened, err := f.Stat(); err != nil || !same(t.info, opened) {
		return nil, errors.Join(err, f.Close(), ErrChanged)
	}
	return f, nil
}

// same tells whether a file is the same and unchanged.
func same(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Mode() == b.Mode() && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && changeTime(a) == changeTime(b)
}
