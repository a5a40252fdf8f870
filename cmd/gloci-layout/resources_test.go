//go:build linux && (amd64 || arm64)

package main_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gardenlinux/gloci-layout/cmd/gloci-layout/internal/killpoint"
)

// tree returns the names, modes and sizes below dir, but for what the program
// keeps for itself in .gloci.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	m := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == ".gloci" {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := info.Mode().String()
		if d.Type().IsRegular() {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			text += " " + string(b)
		}
		m[strings.TrimPrefix(p, dir)] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// leftovers returns the temporary files in the layout and beside it.
func leftovers(t *testing.T, layoutDir string) []string {
	t.Helper()
	var out []string
	for _, pattern := range []string{filepath.Join(layoutDir, ".gloci", "tmp*"), filepath.Join(filepath.Dir(layoutDir), ".*tmp*")} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, names...)
	}
	return out
}

// mount mounts and unmounts at the end of the test. Without the right to do so
// the test is skipped.
func mount(t *testing.T, source, target, fstype string, flags uintptr, data string) {
	t.Helper()
	err := unix.Mount(source, target, fstype, flags, data)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		t.Skipf("SKIPPED, this is not tested here: mount %s: %v", fstype, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(target, 0); err != nil {
			t.Error(err)
		}
	})
}

func writeFile(t *testing.T, name string, size int) {
	t.Helper()
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i >> 8)
	}
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// A full disk: one clear line, the old layout, and work as usual once there is room.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	disk := filepath.Join(dir, "disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	mount(t, "tmpfs", disk, "tmpfs", 0, "size=1m,nr_inodes=200")
	writeFile(t, filepath.Join(dir, "big"), 2<<20)
	writeFile(t, filepath.Join(dir, "small"), 100)
	add := func(l, ref, file string) []string {
		return []string{"add", "artifact", l, "--ref", ref, "--artifact-type", "application/vnd.example", file, "--quiet"}
	}
	mustRun(t, dir, "init", "disk/L")
	mustRun(t, dir, "init", "big-layout")
	mustRun(t, dir, add("big-layout", "big", "big")...)
	mustRun(t, dir, "pack", "big-layout", "big.oci", "--quiet")
	mustRun(t, dir, add("disk/L", "small", "small")...)
	before := tree(t, disk)

	full := func(args ...string) {
		t.Helper()
		r := runBinary(t, dir, args...)
		what := strings.Join(args, " ")
		if r.exit != 2 || !strings.Contains(r.stderr, "no space left on device") {
			t.Errorf("%s: exit %d, want 2 and the cause\n%s", what, r.exit, r.stderr)
		}
		checkMessage(t, what, r.stderr)
		if after := tree(t, disk); !maps.Equal(before, after) {
			t.Errorf("%s: the disk is not as it was", what)
		}
		if left := leftovers(t, filepath.Join(disk, "L")); left != nil {
			t.Errorf("%s: left over: %q", what, left)
		}
		if err := verifyClean(t.Context(), filepath.Join(disk, "L")); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	full(add("disk/L", "big", "big")...)
	full("add", "image", "disk/L", "oci:big-layout:big", "--quiet")
	full("add", "image", "disk/L", "oci-archive:big.oci:big", "--quiet")
	full("pack", "big-layout", "disk/out.oci", "--quiet")
	full("unpack", "big.oci", "disk/new", "--quiet")

	// Not one byte free: even the smallest edit fails, as well as it can.
	filler := filepath.Join(disk, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	for chunk := make([]byte, 4096); err == nil; {
		_, err = f.Write(chunk)
	}
	if cerr := f.Close(); !errors.Is(err, unix.ENOSPC) || cerr != nil {
		t.Fatal(err, cerr)
	}
	before = tree(t, disk)
	full("tag", "disk/L", "small", "other", "--quiet")
	full("rm", "disk/L", "small", "--quiet")
	full("init", "disk/second", "--quiet")
	for _, args := range [][]string{{"ls", "disk/L"}, {"verify", "disk/L"}, {"tree", "disk/L"}, {"gc", "disk/L", "--grace", "0"}} {
		mustRun(t, dir, args...)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	mustRun(t, dir, "tag", "disk/L", "small", "other", "--quiet")
	mustRun(t, dir, add("disk/L", "again", "small")...)
	if err := verifyClean(t.Context(), filepath.Join(disk, "L")); err != nil {
		t.Error(err)
	}
}

// editing are the commands that change the layout in ro/L.
var editing = [][]string{
	{"add", "artifact", "ro/L", "--ref", "new", "--artifact-type", "application/vnd.example", "file", "--quiet"},
	{"add", "image", "ro/L", "oci:src:app", "--quiet"},
	{"tag", "ro/L", "app", "other", "--quiet"},
	{"untag", "ro/L", "app", "--quiet"},
	{"rm", "ro/L", "app", "--quiet"},
	{"gc", "ro/L", "--grace", "0", "--quiet"},
	{"init", "ro/new", "--quiet"},
	{"unpack", "src.oci", "ro/new", "--quiet"},
	{"pack", "src", "ro/out.oci", "--quiet"},
}

func checkReadOnly(t *testing.T, dir string, run func(args ...string) ran) {
	t.Helper()
	before := tree(t, filepath.Join(dir, "ro"))
	for _, args := range [][]string{
		{"ls", "ro/L"},
		{"tree", "ro/L"},
		{"inspect", "ro/L:app"},
		{"verify", "ro/L"},
		{"gc", "ro/L", "--dry-run"},
		{"pack", "ro/L", "-", "--quiet"},
	} {
		if r := run(args...); r.exit != 0 && args[0] != "gc" {
			t.Errorf("%s: exit %d\n%s", strings.Join(args, " "), r.exit, r.stderr)
		}
	}
	for _, args := range editing {
		r := run(args...)
		what := strings.Join(args, " ")
		if r.exit != 2 || !strings.Contains(r.stderr, "read-only") && !strings.Contains(r.stderr, "permission denied") {
			t.Errorf("%s: exit %d, want 2 and the cause\n%s", what, r.exit, r.stderr)
		}
		checkMessage(t, what, r.stderr)
	}
	if after := tree(t, filepath.Join(dir, "ro")); !maps.Equal(before, after) {
		t.Error("something was changed")
	}
}

func makeReadOnly(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(dir, "ro"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "file"), 100)
	src := newRawLayout(t, filepath.Join(dir, "src"))
	src.index(named(src.image("the layer of another"), "app"))
	mustRun(t, dir, "pack", "src", "src.oci", "--quiet")
	l := newRawLayout(t, filepath.Join(dir, "ro", "L"))
	l.index(named(l.image("the layer"), "app"))
	l.blob("x/garbage", "nothing names this")
}

// Read-only media: what reads works, what edits says so.
func TestReadOnlyMount(t *testing.T) {
	dir := t.TempDir()
	makeReadOnly(t, dir)
	ro := filepath.Join(dir, "ro")
	mount(t, ro, ro, "", unix.MS_BIND, "")
	if err := unix.Mount("", ro, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	checkReadOnly(t, dir, func(args ...string) ran { return runBinary(t, dir, args...) })
}

// A directory of somebody else.
func TestReadOnlyDirectory(t *testing.T) {
	// Another user cannot enter the directories of go test.
	dir, err := os.MkdirTemp("", "gloci-layout-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = filepath.WalkDir(dir, func(p string, _ fs.DirEntry, _ error) error { return os.Chmod(p, 0o755) })
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	makeReadOnly(t, dir)
	b, err := os.ReadFile(binary(t))
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "program")
	if err := errors.Join(os.WriteFile(program, b, 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	var attr *syscall.SysProcAttr
	if os.Geteuid() == 0 {
		attr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	} else {
		err := filepath.WalkDir(filepath.Join(dir, "ro"), func(p string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Chmod(p, 0o555))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	checkReadOnly(t, dir, func(args ...string) ran {
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Dir, cmd.Env, cmd.SysProcAttr = dir, binaryEnv(dir), attr
		return runCommand(t, cmd)
	})
}

// sparse makes a file of n bytes that takes no room.
func sparse(t *testing.T, name string, n int64) {
	t.Helper()
	if err := errors.Join(os.WriteFile(name, nil, 0o644), os.Truncate(name, n)); err != nil {
		t.Fatal(err)
	}
}

// Ctrl-C in the middle of a long command: exit status 130 at once, nothing left
// over, the layout as it was.
func TestInterruptLongCommands(t *testing.T) {
	dir := t.TempDir()
	const big = 8 << 30 // sparse: longer than the test waits, and no room taken
	sparse(t, filepath.Join(dir, "big"), big)
	l := newRawLayout(t, filepath.Join(dir, "L"))
	layer := l.blob("x/small", "small")
	l.index(named(l.manifest(l.blob("application/vnd.oci.empty.v1+json", "{}"), layer), "small"))
	mustRun(t, dir, "tag", "L", "small", "other", "--quiet")

	// The digest of this one is wrong, which nobody can know before its end.
	const wrong = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	src := newRawLayout(t, filepath.Join(dir, "src"))
	huge := src.blob("x/huge", "")
	huge.Digest, huge.Size = "sha256:"+wrong, big
	sparse(t, src.path("blobs/sha256/"+wrong), big)
	src.index(named(src.manifest(src.blob("application/vnd.oci.empty.v1+json", "{}"), huge), "huge"))

	for _, tt := range []struct {
		args    []string
		growing string // what shows that the command is in the middle; "" for those that only read the huge blob
	}{
		{[]string{"add", "artifact", "L", "--ref", "big", "--artifact-type", "application/vnd.example", "big", "--quiet"}, "L/.gloci/tmp-*/*"},
		{[]string{"add", "image", "L", "oci:src:huge", "--quiet"}, "L/.gloci/tmp-*/*"},
		{[]string{"pack", "src", "out.oci", "--quiet"}, ".out.oci.*tmp*"},
		{[]string{"pack", "src", "out.oci.gz", "--quiet"}, ".out.oci.gz.*tmp*"},
		{[]string{"verify", "src", "--quiet"}, ""},
	} {
		t.Run(strings.Join(tt.args[:2], " "), func(t *testing.T) {
			before := tree(t, filepath.Join(dir, "L"))
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			cmd := binaryCommand(ctx, t, dir, tt.args...)
			var stderr strings.Builder
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			go func() {
				if tt.growing == "" {
					waitForOpen(ctx, cmd.Process.Pid, wrong)
				} else {
					waitFor(ctx, filepath.Join(dir, tt.growing))
				}
				_ = cmd.Process.Signal(os.Interrupt)
			}()
			err := cmd.Wait()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 130 {
				t.Errorf("%v, want exit status 130\n%s", err, stderr.String())
			}
			checkMessage(t, "interrupted", stderr.String())
			if after := tree(t, filepath.Join(dir, "L")); !maps.Equal(before, after) {
				t.Error("the layout is not as it was")
			}
			if left := leftovers(t, filepath.Join(dir, "L")); left != nil {
				t.Errorf("left over: %q", left)
			}
			if outs, _ := filepath.Glob(filepath.Join(dir, "out*")); outs != nil {
				t.Errorf("left over: %q", outs)
			}
		})
	}
}

// waitForOpen returns when the process has a file open whose name ends with name.
func waitForOpen(ctx context.Context, pid int, name string) {
	for ctx.Err() == nil {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, file := range files {
			if to, err := os.Readlink(file); err == nil && strings.HasSuffix(to, name) {
				return
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// waitFor returns when a file that fits pattern has some bytes.
func waitFor(ctx context.Context, pattern string) {
	for ctx.Err() == nil {
		names, _ := filepath.Glob(pattern)
		for _, name := range names {
			if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() && info.Size() > 1<<20 {
				return
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// measure runs the program and tells how much memory it took. What it prints to
// stdout is not kept.
func measure(t *testing.T, dir string, args ...string) *killpoint.Result {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	res, err := killpoint.Run(t.Context(), killpoint.Command{
		Path: binary(t), Args: args, Dir: dir, Env: binaryEnv(dir),
		Under: filepath.Join(dir, "nothing"), Stdout: null, Timeout: 5 * time.Minute,
	}, killpoint.Plan{})
	if errors.Is(err, killpoint.ErrUnsupported) {
		t.Skipf("SKIPPED, memory is not measured here: %v", err)
	}
	if err != nil {
		t.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	return res
}

// A huge blob takes no more memory than a small one.
func TestMemoryIsFlat(t *testing.T) {
	if testing.Short() {
		t.Skip("writes gigabytes")
	}
	size, limit := int64(1<<30), int64(64<<20)
	if os.Getenv("GLOCI_BIG") != "" {
		size = 4 << 30
	}
	dir := t.TempDir()
	mustRun(t, dir, "init", "L")
	sparse(t, filepath.Join(dir, "big"), size)
	for _, args := range [][]string{
		{"add", "artifact", "L", "--ref", "big", "--artifact-type", "application/vnd.example", "big", "--quiet"},
		{"verify", "L"},
		{"pack", "L", "big.oci", "--quiet"},
		{"verify", "big.oci"},
		{"pack", "L", "-", "--quiet"},
	} {
		began := time.Now()
		res := measure(t, dir, args...)
		if res.Exit != 0 {
			t.Fatalf("%s: exit %d\n%s", strings.Join(args, " "), res.Exit, res.Stderr)
		}
		rss := res.MaxRSS
		t.Logf("%-12s %4d MiB in %5.2f s, %3d MiB of memory", strings.Join(args[:2], " "), size>>20, time.Since(began).Seconds(), rss>>20)
		if rss > limit {
			t.Errorf("%s: %d MiB of memory, want at most %d", strings.Join(args, " "), rss>>20, limit>>20)
		}
	}
}
