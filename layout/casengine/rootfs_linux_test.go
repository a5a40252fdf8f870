package casengine_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/casengine"
)

// epoch is a time before that of any file that a test makes.
var epoch = time.Unix(1700000000, 0)

// must fails the test on any of these errors.
func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// readTree returns what Tree gives of dir.
func readTree(t testing.TB, dir string, opts *casengine.TreeOptions) ([]byte, error) {
	t.Helper()
	r, err := casengine.Tree(t.Context(), dir, opts)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(r)
	return raw, errors.Join(err, r.Close())
}

// list shows the entries of a tar archive, one a line.
func list(t testing.TB, raw []byte) []string {
	t.Helper()
	var lines []string
	r := tar.NewReader(bytes.NewReader(raw))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return lines
		}
		must(t, err)
		line := fmt.Sprintf("%c %04o %d:%d %d %q", h.Typeflag, h.Mode, h.Uid, h.Gid, h.ModTime.Unix(), h.Name)
		if h.Linkname != "" {
			line += " -> " + h.Linkname
		}
		if h.Devmajor+h.Devminor > 0 {
			line += fmt.Sprintf(" dev %d,%d", h.Devmajor, h.Devminor)
		}
		for _, k := range []string{"user.note", "security.capability", "security.selinux", "trusted.note", "user.overlay.opaque", "trusted.overlay.opaque"} {
			if v, ok := h.PAXRecords["SCHILY.xattr."+k]; ok {
				line += fmt.Sprintf(" %s=%q", k, v)
			}
		}
		if h.Typeflag == tar.TypeReg {
			content, err := io.ReadAll(r)
			must(t, err)
			line += fmt.Sprintf(" %d bytes", len(content))
		}
		if h.Uname != "" || h.Gname != "" || !h.AccessTime.IsZero() || !h.ChangeTime.IsZero() {
			line += " and what no other machine would write"
		}
		lines = append(lines, line)
	}
}

// A step makes one file of a tree.
type step struct {
	name string
	do   func(path string) error
}

func regular(content string) func(string) error {
	return func(p string) error { return os.WriteFile(p, []byte(content), 0o600) }
}

func directory(p string) error {
	if err := os.Mkdir(p, 0o700); errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	return nil
}

// plainTree is what every user can make; parents stand before what is in them.
func plainTree() []step {
	long := "long/" + strings.Repeat("0123456789", 12)
	return []step{
		{"a", directory},
		{"a-b", regular("between a and a/b\n")},
		{"a/b", regular("x")},
		{"a/empty", regular("")},
		{"a/link", func(p string) error { return os.Symlink("/outside/../b", p) }},
		{"a/odd\xff\n name", regular("odd bytes\n")},
		{"a/ümlaut", regular("no ASCII\n")},
		{"fifo", func(p string) error { return unix.Mkfifo(p, 0o600) }},
		{"hard1", regular("two names\n")},
		{"hard2", func(p string) error { return os.Link(filepath.Join(filepath.Dir(p), "hard1"), p) }},
		{"long", directory},
		{long, directory},
		{long + "/" + strings.Repeat("z", 200), regular("a long path\n")},
		{"sparse", func(p string) error { return errors.Join(os.WriteFile(p, []byte("x"), 0o600), os.Truncate(p, 1<<20)) }},
	}
}

// makeTree makes a tree, with modes and times that no umask reaches.
func makeTree(t testing.TB, dir string, steps []step) {
	t.Helper()
	for _, s := range steps {
		must(t, s.do(filepath.Join(dir, s.name)))
	}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		mode := fs.FileMode(0o644)
		if d.IsDir() {
			mode = 0o755
		}
		return os.Chmod(p, mode)
	})
	must(t, err)
	must(t, os.Chmod(filepath.Join(dir, "a/b"), 0o755|fs.ModeSetuid|fs.ModeSticky))
	old := []unix.Timeval{{Sec: 1000, Usec: 999999}, {Sec: 1234567890, Usec: 999999}}
	must(t, unix.Lutimes(filepath.Join(dir, "a/b"), old), unix.Lutimes(filepath.Join(dir, "a/link"), old))
}

func TestTree(t *testing.T) {
	dir := t.TempDir()
	makeTree(t, dir, plainTree())
	raw, err := readTree(t, dir, &casengine.TreeOptions{Latest: epoch, Owner: &casengine.Owner{UID: 7, GID: 3000000}})
	must(t, err)
	long := "long/" + strings.Repeat("0123456789", 12)
	want := []string{
		`5 0755 7:3000000 1700000000 "a/"`,
		`0 5755 7:3000000 1234567890 "a/b" 1 bytes`,
		`0 0644 7:3000000 1700000000 "a/empty" 0 bytes`,
		`2 0777 7:3000000 1234567890 "a/link" -> /outside/../b`,
		`0 0644 7:3000000 1700000000 "a/odd\xff\n name" 10 bytes`,
		`0 0644 7:3000000 1700000000 "a/ümlaut" 9 bytes`,
		`0 0644 7:3000000 1700000000 "a-b" 18 bytes`,
		`6 0644 7:3000000 1700000000 "fifo"`,
		`0 0644 7:3000000 1700000000 "hard1" 10 bytes`,
		`1 0644 7:3000000 1700000000 "hard2" -> hard1`,
		`5 0755 7:3000000 1700000000 "long/"`,
		`5 0755 7:3000000 1700000000 "` + long + `/"`,
		`0 0644 7:3000000 1700000000 "` + long + `/` + strings.Repeat("z", 200) + `" 12 bytes`,
		`0 0644 7:3000000 1700000000 "sparse" 1048576 bytes`,
	}
	if diff := cmp.Diff(want, list(t, raw)); diff != "" {
		t.Errorf("Tree (-want +got):\n%s", diff)
	}
	// Other bytes for the same tree would be another layer for everybody.
	sum := sha256.Sum256(raw)
	const pinned = "f0094e2478f07d42246a2d0d12fd902ccee01dd1750350ba2b3ac779f273c780"
	if got := hex.EncodeToString(sum[:]); got != pinned {
		t.Errorf("the archive is %s, want %s", got, pinned)
	}
}

// Owners and times are those of the files where nobody says otherwise.
func TestTreeAsItIs(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "f"), nil, 0o644), os.Chtimes(filepath.Join(dir, "f"), epoch, epoch.Add(500*time.Millisecond)))
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 {
		uid, gid = 12, 34
		must(t, os.Lchown(filepath.Join(dir, "f"), uid, gid))
	}
	raw, err := readTree(t, dir, nil)
	must(t, err)
	want := []string{fmt.Sprintf(`0 0644 %d:%d 1700000000 "f" 0 bytes`, uid, gid)}
	if diff := cmp.Diff(want, list(t, raw)); diff != "" {
		t.Errorf("Tree (-want +got):\n%s", diff)
	}
}

// The same tree gives the same bytes: copied, made in another order, under
// another umask, in another time zone, on one processor.
func TestTreeRepeats(t *testing.T) {
	opts := &casengine.TreeOptions{Latest: epoch}
	dir := t.TempDir()
	makeTree(t, dir, plainTree())
	want, err := readTree(t, dir, opts)
	must(t, err)

	copied := filepath.Join(t.TempDir(), "copy")
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", dir, copied).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
	again := t.TempDir()
	old := unix.Umask(0o077)
	steps := plainTree()
	// Files in reverse order, after the directories.
	order := []step{steps[0], steps[10], steps[11]}
	for i := len(steps) - 1; i >= 0; i-- {
		if steps[i].name == "hard2" { // the names change places
			order = append(order, step{"hard2", regular("two names\n")})
		} else if steps[i].name == "hard1" {
			order = append(order, step{"hard1", func(p string) error { return os.Link(filepath.Join(again, "hard2"), p) }})
		} else if i != 0 && i != 10 && i != 11 {
			order = append(order, steps[i])
		}
	}
	makeTree(t, again, order)
	unix.Umask(old)
	for name, other := range map[string]string{"cp -a": copied, "another order and umask": again} {
		got, err := readTree(t, other, opts)
		must(t, err)
		if !bytes.Equal(got, want) {
			t.Errorf("%s: other bytes (-want +got):\n%s", name, cmp.Diff(list(t, want), list(t, got)))
		}
	}

	t.Setenv("TZ", "Pacific/Kiritimati")
	t.Setenv("LC_ALL", "tr_TR.UTF-8")
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	t.Chdir(filepath.Dir(dir))
	got, err := readTree(t, filepath.Base(dir), opts)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Error("another zone, locale, directory, one processor: other bytes")
	}
}

func TestTreeLeavesSocketsOut(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o644))
	t.Chdir(dir) // the path of a socket is short
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", "socket")
	must(t, err)
	defer l.Close() //nolint:errcheck // of a test
	var warnings strings.Builder
	raw, err := readTree(t, dir, &casengine.TreeOptions{Logger: slog.New(slog.NewTextHandler(&warnings, nil))})
	must(t, err)
	if lines := list(t, raw); len(lines) != 1 || !strings.Contains(lines[0], "file") {
		t.Errorf("Tree = %q, want the file alone", lines)
	}
	if !strings.Contains(warnings.String(), filepath.Join(dir, "socket")) {
		t.Errorf("warnings = %q, want one that names the socket", warnings.String())
	}
}

func TestTreeErrors(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "wh"), 0o755), os.WriteFile(filepath.Join(dir, "wh", ".wh.gone"), nil, 0o644))
	for path, want := range map[string]error{"absent": layout.ErrNotFound, "wh": layout.ErrInvalid, "wh/.wh.gone": unix.ENOTDIR} {
		if _, err := readTree(t, filepath.Join(dir, path), nil); !errors.Is(err, want) || !strings.Contains(err.Error(), path) {
			t.Errorf("Tree(%s) = %v, want %v", path, err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	must(t, os.WriteFile(filepath.Join(dir, "big"), make([]byte, 1<<20), 0o644), os.WriteFile(filepath.Join(dir, "more"), nil, 0o644), os.RemoveAll(filepath.Join(dir, "wh")))
	r, err := casengine.Tree(ctx, dir, nil)
	must(t, err)
	_, err = io.ReadFull(r, make([]byte, 1000))
	must(t, err)
	cancel()
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, context.Canceled) {
		t.Errorf("Read after cancel = %v, want context.Canceled", err)
	}
	must(t, r.Close())
	// A reader that gives up early ends the work, too.
	r, err = casengine.Tree(t.Context(), dir, nil)
	must(t, err, r.Close())
}

// A file or directory that changes while it is read never becomes a layer that
// nobody would notice to be wrong.
func TestTreeSeesChanges(t *testing.T) {
	for name, change := range map[string]func(dir string) error{
		"grows": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "big"), make([]byte, 2<<20), 0o644)
		},
		"shrinks": func(dir string) error { return os.Truncate(filepath.Join(dir, "big"), 300<<10) },
		"other bytes of the same size": func(dir string) error {
			f, err := os.OpenFile(filepath.Join(dir, "big"), os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteAt([]byte("x"), 1<<19)
				err = errors.Join(err, f.Close())
			}
			return err
		},
		"replaced": func(dir string) error {
			return errors.Join(os.WriteFile(filepath.Join(dir, "../new"), make([]byte, 1<<20), 0o644), os.Rename(filepath.Join(dir, "../new"), filepath.Join(dir, "big")))
		},
		"removed":     func(dir string) error { return os.Remove(filepath.Join(dir, "big")) },
		"a new file":  func(dir string) error { return os.WriteFile(filepath.Join(dir, "new"), nil, 0o644) },
		"a file less": func(dir string) error { return os.Remove(filepath.Join(dir, "z")) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "tree")
			must(t, os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "big"), make([]byte, 1<<20), 0o644), os.WriteFile(filepath.Join(dir, "z"), nil, 0o644))
			r, err := casengine.Tree(t.Context(), dir, nil)
			must(t, err)
			defer r.Close() //nolint:errcheck // of a test
			_, err = io.ReadFull(r, make([]byte, 100<<10))
			must(t, err)
			must(t, change(dir))
			if _, err := io.Copy(io.Discard, r); !errors.Is(err, casengine.ErrChanged) {
				t.Errorf("Read = %v, want ErrChanged", err)
			}
		})
	}
}
