//go:build linux

package extract_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/extract"
	"github.com/gardenlinux/gloci-layout/layout/extract/extracttest"
)

func ownerOf(info fs.FileInfo) int    { return int(info.Sys().(*syscall.Stat_t).Uid) } //nolint:errcheck,forcetypeassert // always on Linux
func blocksOf(info fs.FileInfo) int64 { return info.Sys().(*syscall.Stat_t).Blocks }   //nolint:errcheck,forcetypeassert // always on Linux

// nobody is the user that has no rights.
const nobody = 65534

// again runs tests of this file's package once more, in another process.
func again(t *testing.T, tests string, attr *syscall.SysProcAttr, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run", tests, "-test.v")
	cmd.SysProcAttr = attr
	cmd.Dir = "/" // the source need not be readable
	cmd.Env = append(os.Environ(), env...)
	return cmd
}

// TestPlainUser runs the tests again as a user without rights.
func TestPlainUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("this is a plain user")
	}
	attr := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	tests := "^(TestHostileLayers|TestOverlay|TestRootfsLinks|TestMerge|TestModes|TestMetadata|TestSkipped|TestPlace|TestSweep|TestReadOnlyPlaces|TestPreserveNotAllowed)$"
	args := []string{}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	cmd := again(t, tests, attr, "HOME=/nonexistent")
	cmd.Args = append(cmd.Args, args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("as a plain user: %v\n%s", err, out)
	}
	for _, name := range []string{"TestHostileLayers", "TestPlace", "TestReadOnlyPlaces", "TestPreserveNotAllowed"} {
		if !strings.Contains(string(out), "--- PASS: "+name+" ") {
			t.Errorf("%s has not passed as a plain user", name)
		}
	}
}

// TestReadOnlyPlaces: where nothing may be written, nothing is, and an empty
// directory in such a place can be used.
func TestReadOnlyPlaces(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write anywhere; TestPlainUser runs this")
	}
	src := extracttest.NewSource()
	layers := layersOf(src, extracttest.PlainTar, extracttest.Tar(extracttest.Entry{Name: "d", Type: '5', Mode: 0o500}, extracttest.File("d/f", "x")))
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "mine"), 0o700), os.Chmod(dir, 0o500)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { makeReadable(t, filepath.Dir(dir)) })
	_, err := extract.Extract(t.Context(), src, layers, filepath.Join(dir, "out"), nil)
	if !errors.Is(err, fs.ErrPermission) {
		t.Errorf("in a read-only directory: %v", err)
	}
	if _, err := extract.Extract(t.Context(), src, layers, filepath.Join(dir, "mine"), nil); err != nil {
		t.Errorf("an empty directory in a read-only one: %v", err)
	}
	if got := strings.Join(list(t, dir), ", "); got != "mine/, mine/d/, mine/d/f = x" {
		t.Errorf("there is %s", got)
	}
}

// TestPreserveNotAllowed: what was asked for and cannot be done is an error.
func TestPreserveNotAllowed(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may do all; TestPlainUser runs this")
	}
	for name, e := range map[string]extracttest.Entry{
		"owner":      {Name: "f", Type: '0', UID: 1, GID: 1},
		"device":     {Name: "f", Type: '4', Major: 8},
		"capability": {Name: "f", Type: '0', UID: int64(os.Geteuid()), GID: int64(os.Getegid()), PAX: map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}},
	} {
		src := extracttest.NewSource()
		dir := t.TempDir()
		_, err := extract.Extract(t.Context(), src, layersOf(src, extracttest.PlainTar, extracttest.Tar(e)), filepath.Join(dir, "out"), &extract.Options{Preserve: true})
		if names, _ := os.ReadDir(dir); !errors.Is(err, fs.ErrPermission) || len(names) > 0 {
			t.Errorf("%s: %v, left over: %v", name, err, names)
		}
	}
}

// TestPreserve: owners, all mode bits, attributes and devices, for root.
func TestPreserve(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, this is not tested here: it takes root")
	}
	const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	src := extracttest.NewSource()
	layers := layersOf(src, extracttest.PlainTar, extracttest.Tar(
		extracttest.Entry{Name: "d", Type: '5', Mode: 0o2755, UID: 10, GID: 20, PAX: map[string]string{"SCHILY.xattr.user.a": "dir"}},
		extracttest.Entry{Name: "d/su", Type: '0', Body: "x", Mode: 0o4755, UID: 11, GID: 21, PAX: map[string]string{"SCHILY.xattr.security.capability": capability}},
		extracttest.Entry{Name: "null", Type: '3', Mode: 0o666, Major: 1, Minor: 3, UID: 12},
		extracttest.Entry{Name: "pipe", Type: '6', Mode: 0o600, UID: 13},
		extracttest.Entry{Name: "l", Type: '2', Link: "d", UID: 14, GID: 24, PAX: map[string]string{"SCHILY.xattr.trusted.t": "link"}},
	))
	out := filepath.Join(t.TempDir(), "out")
	if _, err := extract.Extract(t.Context(), src, layers, out, &extract.Options{Preserve: true}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		mode     uint32
		uid, gid uint32
		attr     string
		value    string
	}{
		"d":    {unix.S_IFDIR | 0o2755, 10, 20, "user.a", "dir"},
		"d/su": {unix.S_IFREG | 0o4755, 11, 21, "security.capability", capability},
		"null": {unix.S_IFCHR | 0o666, 12, 0, "", ""},
		"pipe": {unix.S_IFIFO | 0o600, 13, 0, "", ""},
		"l":    {unix.S_IFLNK | 0o777, 14, 24, "trusted.t", "link"},
	} {
		var st unix.Stat_t
		file := filepath.Join(out, name)
		if err := unix.Lstat(file, &st); err != nil || st.Mode != want.mode || st.Uid != want.uid || st.Gid != want.gid {
			t.Errorf("%s: %v, mode %#o, owner %d:%d; want %+v", name, err, st.Mode, st.Uid, st.Gid, want)
		}
		if want.attr == "" {
			continue
		}
		value := make([]byte, 100)
		n, err := unix.Lgetxattr(file, want.attr, value)
		if err != nil || string(value[:max(n, 0)]) != want.value {
			t.Errorf("%s: %s = %q, %v", name, want.attr, value[:max(n, 0)], err)
		}
	}
}

// TestFullDisk: the disk is as it was.
func TestFullDisk(t *testing.T) {
	disk := t.TempDir()
	err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=1m,nr_inodes=200")
	if errors.Is(err, unix.EPERM) {
		t.Skipf("SKIPPED, this is not tested here: mount: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	src := extracttest.NewSource()
	many := []extracttest.Entry{}
	for i := range 300 {
		many = append(many, extracttest.File(strings.Repeat("a", i/250+1)+string(rune('a'+i%26))+strings.Repeat("b", i), ""))
	}
	for name, data := range map[string][]byte{
		"bytes": extracttest.Tar(extracttest.File("small", "x"), extracttest.File("big", strings.Repeat("x", 2<<20))),
		"files": extracttest.Tar(many...),
	} {
		_, err := extract.Extract(t.Context(), src, layersOf(src, extracttest.PlainTar, data), filepath.Join(disk, "out"), nil)
		if names, _ := os.ReadDir(disk); !errors.Is(err, unix.ENOSPC) || len(names) > 0 {
			t.Errorf("%s: %v, left over: %v", name, err, names)
		}
	}
	// The disk itself can be the place, though nothing can be renamed to it.
	layers := layersOf(src, extracttest.PlainTar, extracttest.Tar(extracttest.File("f", "x")))
	if _, err := extract.Extract(t.Context(), src, layers, disk, nil); err != nil {
		t.Errorf("to a mount point: %v", err)
	}
	if got := strings.Join(list(t, disk), ", "); got != "f = x" {
		t.Errorf("there is %s", got)
	}
	if _, err := extract.Extract(t.Context(), src, layers, disk, &extract.Options{Force: true}); !errors.Is(err, layout.ErrConflict) {
		t.Errorf("force on a mount point: %v", err)
	}
}

// TestKilled: kill -9 at any time leaves nothing at OUT, and what it leaves
// beside it is gone after the next extraction.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("GLOCI_TEST_KILLED"); dir != "" {
		extractForever(t, dir)
		return
	}
	for _, wait := range []time.Duration{0, 5, 20, 60, 150} {
		dir := t.TempDir()
		out := filepath.Join(dir, "out")
		cmd := again(t, "^TestKilled$", nil, "GLOCI_TEST_KILLED="+dir)
		pipe, err := cmd.StdinPipe() // stays open
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if names, _ := os.ReadDir(dir); len(names) > 0 {
				break
			}
		}
		time.Sleep(wait * time.Millisecond)
		if err := errors.Join(cmd.Process.Kill(), pipe.Close()); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
		if _, err := os.Lstat(out); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("killed after %d ms: something is at OUT: %v", wait, list(t, out))
		}
		left, err := os.ReadDir(dir)
		if err != nil || len(left) != 1 {
			t.Errorf("killed after %d ms: %v, %v; want the temporary directory", wait, left, err)
		}
		src := extracttest.NewSource()
		layers := layersOf(src, extracttest.PlainTar, extracttest.Tar(extracttest.File("f", "x")))
		if _, err := extract.Extract(t.Context(), src, layers, out, nil); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 || left[0].Name() != "out" {
			t.Errorf("after the next extraction: %v, %v", left, err)
		}
	}
}

// extractForever extracts a layer that has no end until stdin ends.
func extractForever(t *testing.T, dir string) {
	var entries []extracttest.Entry
	for i := range 20000 {
		entries = append(entries, extracttest.File(strings.Repeat("d/", i%20)+"f"+time.Duration(i).String(), "content"))
	}
	src := extracttest.NewSource()
	layers := layersOf(src, extracttest.PlainTar, extracttest.Tar(entries...))
	_, err := extract.Extract(t.Context(), src, layers, filepath.Join(dir, "out"), &extract.Options{Progress: func(e layout.Event) {
		if e.Kind == "done" {
			_, _ = io.Copy(io.Discard, os.Stdin) // the end is not to come
		}
	}})
	t.Log(err)
}

// TestMemory: hostile layers take no more memory and time than they may.
func TestMemory(t *testing.T) {
	const most = 256 << 20 // 256 MiB
	if name := os.Getenv("GLOCI_TEST_MEMORY"); name != "" {
		extractBomb(t, name)
		return
	}
	if testing.Short() {
		t.Skip("slow")
	}
	for name := range memoryBombs {
		cmd := again(t, "^TestMemory$", nil, "GLOCI_TEST_MEMORY="+name)
		start := time.Now()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
			continue
		}
		_, text, _ := strings.Cut(string(out), "VmHWM:")
		var kib int64
		if _, err := fmt.Sscan(text, &kib); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		t.Logf("%s: %d MiB, %v", name, kib>>10, time.Since(start).Round(time.Millisecond))
		if kib<<10 > most {
			t.Errorf("%s: %d MiB of memory", name, kib>>10)
		}
	}
}

// memoryBombs give an archive as it is read, so that the test itself needs no
// memory for it.
var memoryBombs = map[string]func(i int) (e extracttest.Entry, more bool){
	"names of 255 bytes": func(i int) (extracttest.Entry, bool) {
		name := time.Duration(i).String()
		return extracttest.Symlink(name+strings.Repeat("n", 255-len(name)), strings.Repeat("t", 3000)), i < 200_000
	},
	"directories": func(i int) (extracttest.Entry, bool) {
		return extracttest.Dir(time.Duration(i).String() + "/a/b/c/d/e/f/g/h"), i < 20_000
	},
	"headers of 1 MiB": func(i int) (extracttest.Entry, bool) {
		return extracttest.Entry{Name: "f", Type: '0', PAX: map[string]string{"comment": strings.Repeat("x", 1<<20-100)}}, i < 500
	},
	"attributes": func(i int) (extracttest.Entry, bool) {
		return extracttest.Entry{Name: time.Duration(i).String(), Type: '5', PAX: map[string]string{"SCHILY.xattr.user.a": strings.Repeat("x", 1<<20-100)}}, i < 500
	},
	"left out": func(i int) (extracttest.Entry, bool) {
		return extracttest.Entry{Name: time.Duration(i).String() + strings.Repeat("/p", 100), Type: '6'}, i < 1_000_000
	},
}

func extractBomb(t *testing.T, name string) {
	next := memoryBombs[name]
	pr, pw := io.Pipe()
	go func() {
		// Package compress would take 65 MiB for it, beside what is measured.
		w, err := zstd.NewWriter(pw, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(64<<10), zstd.WithEncoderLevel(zstd.SpeedFastest))
		for i := 0; err == nil; i++ {
			e, more := next(i)
			if _, err = w.Write(extracttest.Members(e)); !more {
				break
			}
		}
		_ = pw.CloseWithError(errors.Join(err, w.Close()))
	}()
	src := &pipeSource{Source: extracttest.NewSource(), r: pr}
	desc := src.Add([]byte("x"), extracttest.ImageTar+"+zstd")
	desc.Size = 1 << 40
	_, err := extract.Extract(t.Context(), src, []extract.Layer{{Desc: desc}}, filepath.Join(t.TempDir(), "out"), &extract.Options{
		Preserve: name == "attributes", Special: extract.SpecialSkip, Symlinks: extract.SymlinksSkip,
	})
	if err != nil && !errors.Is(err, layout.ErrInvalid) {
		t.Error(err)
	}
	t.Logf("ended with %.300v", err)
	// What wait4(2) says of a child is never less than what its parent had.
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", status)
}

// A pipeSource gives one blob, as it comes, and whose digest nobody knows.
type pipeSource struct {
	*extracttest.Source
	r io.Reader
}

func (s *pipeSource) Blob(context.Context, ocispec.Descriptor) (io.ReadCloser, error) {
	return io.NopCloser(s.r), nil
}
