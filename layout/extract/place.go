package extract

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/internal/durable"
)

// A place is where the result of an extraction is to appear, and the temporary
// directory that it is made in. That one stands beside it as a rule. It stands
// inside of it where it cannot be replaced: an empty directory that is a mount
// point or the working directory, or whose parent may not be written.
type place struct {
	out    string // absolute and clean
	state  state
	inside bool
	parent *os.Root // of the temporary directory
	name   string   // of the temporary directory in parent
	root   *os.Root // the temporary directory
	lock   *durable.LockedDir
	done   bool
}

// state is what is at out before the extraction.
type state int

const (
	stateAbsent state = iota
	stateEmpty
	stateFull // and to be replaced
)

// openPlace makes the temporary directory.
func openPlace(out string, force bool, protect []string) (_ *place, err error) {
	if out == "" {
		return nil, fmt.Errorf("%w: an empty path", layout.ErrInvalid)
	}
	p := &place{}
	if p.out, err = filepath.Abs(out); err != nil {
		return nil, err
	}
	prefix := "." + filepath.Base(p.out) + ".extract-"
	if len(prefix) > 200 { // names have at most 255 bytes
		prefix = prefix[:200]
	}
	if p.state, err = look(p.out, force); err != nil {
		return nil, err
	}
	stays := p.state != stateAbsent && fixed(p.out)
	if p.state == stateFull {
		if err := mayReplace(p.out, stays, protect); err != nil {
			return nil, err
		}
	}
	p.inside = p.state == stateEmpty && stays
	dir := filepath.Dir(p.out)
	if p.inside {
		dir = p.out
	}
	err = p.makeTemp(dir, prefix)
	if p.state == stateEmpty && !p.inside && (errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS)) {
		p.inside = true
		err = p.makeTemp(p.out, prefix)
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// look says what is at out; what may not be there is [layout.ErrExists].
func look(out string, force bool) (state, error) {
	info, err := os.Lstat(out)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return stateAbsent, nil
	case err != nil:
		return 0, err
	case !info.IsDir():
		return 0, fmt.Errorf("%s: %w, and is no directory", out, layout.ErrExists)
	}
	d, err := os.Open(out)
	if err != nil {
		return 0, err
	}
	defer d.Close() //nolint:errcheck // only read
	durable.SweepDirs(out, "."+filepath.Base(out)+".extract-", removeAll)
	_, err = d.ReadDir(1)
	switch {
	case errors.Is(err, io.EOF):
		return stateEmpty, nil
	case err != nil:
		return 0, err
	case !force:
		return 0, layout.WithHint(fmt.Errorf("%s: %w, and is not empty", out, layout.ErrExists), "--force replaces it with all that is in it")
	}
	return stateFull, nil
}

// fixed tells whether dir cannot be given another directory's place: because it
// is the working directory, holds it, or is a mount point.
func fixed(dir string) bool {
	info, err := os.Stat(dir)
	if err != nil {
		return true
	}
	above, err := os.Stat(filepath.Dir(dir))
	if err != nil || os.SameFile(info, above) || !sameDevice(info, above) {
		return true
	}
	here, err := filepath.Abs(".")
	return err != nil || holds(info, here)
}

// holds tells whether dir is p or above p.
func holds(dir fs.FileInfo, p string) bool {
	if resolved, err := filepath.EvalSymlinks(p); err == nil {
		p = resolved
	}
	for {
		if info, err := os.Stat(p); err == nil && os.SameFile(info, dir) {
			return true
		}
		up := filepath.Dir(p)
		if up == p {
			return false
		}
		p = up
	}
}

func sameDevice(a, b fs.FileInfo) bool { return deviceOf(a) == deviceOf(b) }

// mayReplace refuses to take directories away that nobody means.
func mayReplace(out string, stays bool, protect []string) error {
	if stays {
		return fmt.Errorf("%w: %s is a mount point or the working directory, or holds it, and is not empty: it cannot be replaced", layout.ErrConflict, out)
	}
	info, err := os.Stat(out)
	if err != nil {
		return err
	}
	for _, keep := range protect {
		abs, err := filepath.Abs(keep)
		if err != nil {
			return err
		}
		if holds(info, abs) {
			return fmt.Errorf("%w: %s is or holds %s: it cannot be replaced", layout.ErrConflict, out, keep)
		}
	}
	return nil
}

func (p *place) makeTemp(dir, prefix string) (err error) {
	parent, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return layout.WithHint(fmt.Errorf("directory %s: %w", dir, layout.ErrNotFound), "create it first: mkdir -p "+dir)
	}
	if err != nil {
		return err
	}
	durable.SweepDirs(dir, prefix, removeAll)
	p.parent = parent
	made, err := durable.MkdirLocked(parent, prefix)
	if err != nil {
		return errors.Join(err, p.close())
	}
	p.name, p.root, p.lock = made.Name, made.Root, made
	return nil
}

// mkdirAll makes a directory below the temporary one and opens it.
func (p *place) mkdirAll(dir string) (*os.File, error) {
	if err := p.root.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return p.root.Open(dir)
}

// finishParents sets what the directories above a group get.
func (p *place) finishParents(dir string) error {
	for dir != "." {
		dir = path.Dir(dir)
		f, err := p.root.Open(dir)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Chmod(0o755), f.Close()); err != nil {
			return err
		}
		if err := p.root.Chtimes(dir, time.Time{}, time.Unix(0, 0)); err != nil {
			return err
		}
	}
	return nil
}

// commit gives the result its name.
func (p *place) commit() error {
	temp := filepath.Join(filepath.Dir(p.out), p.name)
	var err error
	switch {
	case p.inside:
		return p.spill()
	case p.state == stateAbsent:
		err = durable.RenameNoReplace(temp, p.out)
	case p.state == stateEmpty:
		// Unlike os.Rename it replaces a directory, if that is still empty.
		if err = unix.Rename(temp, p.out); err != nil {
			err = &os.LinkError{Op: "rename", Old: temp, New: p.out, Err: err}
		}
	default:
		if err = exchange(temp, p.out); err != nil {
			return err
		}
		// What was there has the temporary name now.
		p.done = true
		return removeAll(temp)
	}
	if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) {
		return fmt.Errorf("%s: %w", p.out, layout.ErrExists)
	}
	p.done = err == nil
	return err
}

// spill moves what is in the temporary directory to the one around it.
func (p *place) spill() error {
	temp := filepath.Join(p.out, p.name)
	entries, err := os.ReadDir(temp)
	if err != nil {
		return err
	}
	for i, entry := range entries {
		err := move(filepath.Join(temp, entry.Name()), filepath.Join(p.out, entry.Name()))
		if err == nil {
			continue
		}
		for _, moved := range entries[:i] {
			err = errors.Join(err, move(filepath.Join(p.out, moved.Name()), filepath.Join(temp, moved.Name())))
		}
		return err
	}
	return nil
}

// move renames into another directory. Only a directory that may be written can
// go to another one, because its ".." changes.
func move(from, to string) error {
	err := durable.RenameNoReplace(from, to)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	info, statErr := os.Lstat(from)
	if statErr != nil || !info.IsDir() {
		return err
	}
	if err := os.Chmod(from, 0o700); err != nil {
		return err
	}
	err = durable.RenameNoReplace(from, to)
	if err != nil {
		to = from
	}
	return errors.Join(err, os.Chmod(to, info.Mode()))
}

// close removes the temporary directory if it was not given its name.
func (p *place) close() error {
	var err error
	if p.parent != nil {
		if !p.done && p.name != "" {
			err = removeAll(filepath.Join(p.parent.Name(), p.name))
		}
		err = errors.Join(err, p.parent.Close())
	}
	if p.lock != nil {
		err = errors.Join(err, p.lock.Close())
	}
	return err
}

// removeAll removes a directory and what is in it, also where directories may
// not be written.
func removeAll(name string) error {
	err := os.RemoveAll(name)
	if err == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	root, openErr := openLocked(name)
	if openErr != nil {
		return err
	}
	unlock(root)
	return errors.Join(root.Close(), os.RemoveAll(name))
}

// openLocked opens a directory as a root after making it accessible.
func openLocked(name string) (*os.Root, error) {
	info, err := os.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fs.ErrInvalid
	}
	if err := os.Chmod(name, 0o700); err != nil {
		return nil, err
	}
	return os.OpenRoot(name)
}

// unlock makes all directories below root accessible. What it cannot do, the
// removal reports.
func unlock(root *os.Root) {
	d, err := root.Open(".")
	if err != nil {
		return
	}
	entries, _ := d.ReadDir(-1)
	_ = d.Close()
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		if err := root.Chmod(entry.Name(), 0o700); err != nil {
			continue
		}
		if sub, err := root.OpenRoot(entry.Name()); err == nil {
			unlock(sub)
			_ = sub.Close()
		}
	}
}

// exchangeSlowly swaps two directories by way of a third name, for systems that
// cannot do it at once. Killed in between, b has that name.
func exchangeSlowly(a, b string) error {
	aside := a + "-old"
	if err := os.Rename(b, aside); err != nil {
		return err
	}
	if err := os.Rename(a, b); err != nil {
		return errors.Join(err, os.Rename(aside, b))
	}
	return os.Rename(aside, a)
}
