package casengine_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/gardenlinux/gloci-layout/layout/casengine"
)

// Whiteouts are what overlayfs has in an upper directory, as root and as others
// mount it.
func TestTreeWhiteouts(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "opaque"), 0o755), os.WriteFile(filepath.Join(dir, "opaque", "new"), nil, 0o644))
	if err := unix.Mknod(filepath.Join(dir, "gone"), unix.S_IFCHR, 0); err != nil {
		t.Skipf("SKIPPED, not tested here: mknod: %v", err)
	}
	must(t, os.Link(filepath.Join(dir, "gone"), filepath.Join(dir, "opaque", "gone"))) // as overlayfs does
	attribute(t, filepath.Join(dir, "opaque"), "user.overlay.opaque", "y")
	must(t, os.WriteFile(filepath.Join(dir, "opaque", "went"), nil, 0o644)) // where mknod is not allowed
	attribute(t, filepath.Join(dir, "opaque", "went"), "user.overlay.whiteout", "y")
	want := []string{
		fmt.Sprintf(`0 0000 0:0 0 %q 0 bytes`, ".wh.gone"),
		fmt.Sprintf(`5 0755 0:0 %d %q`, epoch.Unix(), "opaque/"),
		fmt.Sprintf(`0 0000 0:0 0 %q 0 bytes`, "opaque/.wh..wh..opq"),
		fmt.Sprintf(`0 0000 0:0 0 %q 0 bytes`, "opaque/.wh.gone"),
		fmt.Sprintf(`0 0644 0:0 %d %q 0 bytes`, epoch.Unix(), "opaque/new"),
		fmt.Sprintf(`0 0000 0:0 0 %q 0 bytes`, "opaque/.wh.went"),
	}
	opts := &casengine.TreeOptions{Latest: epoch, Owner: &casengine.Owner{}}
	raw, err := readTree(t, dir, opts)
	must(t, err)
	if diff := cmp.Diff(want, list(t, raw)); diff != "" {
		t.Errorf("Tree (-want +got):\n%s", diff)
	}
	if os.Geteuid() != 0 {
		return
	}
	must(t, unix.Removexattr(filepath.Join(dir, "opaque"), "user.overlay.opaque"))
	attribute(t, filepath.Join(dir, "opaque"), "trusted.overlay.opaque", "y")
	if raw, err = readTree(t, dir, opts); err != nil || !cmp.Equal(want, list(t, raw)) {
		t.Errorf("trusted.overlay.opaque: %v, %s", err, cmp.Diff(want, list(t, raw)))
	}
}

func attribute(t *testing.T, path, name, value string) {
	t.Helper()
	if err := unix.Lsetxattr(path, name, []byte(value), 0); errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPERM) {
		t.Skipf("SKIPPED, not tested here: setxattr %s: %v", name, err)
	} else if err != nil {
		t.Fatal(err)
	}
}

func TestTreeAttributes(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	must(t, os.WriteFile(file, nil, 0o644))
	attribute(t, file, "user.note", "a\x00b")
	attribute(t, file, "user.empty", "")
	attribute(t, file, "user.overlay.origin", "of this host")
	want := fmt.Sprintf(`0 0644 0:0 %d "f" user.note="a\x00b"`, epoch.Unix())
	if os.Geteuid() == 0 {
		// CAP_NET_RAW, as ping has it.
		attribute(t, file, "security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
		attribute(t, file, "security.selinux", "system_u:object_r:bin_t:s0\x00")
		attribute(t, file, "trusted.note", "kept")
		attribute(t, file, "trusted.overlay.origin", "of this host")
		want += ` security.capability="\x01\x00\x00\x02\x00 \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" trusted.note="kept"`
	}
	var warnings strings.Builder
	raw, err := readTree(t, dir, &casengine.TreeOptions{
		Latest: epoch, Owner: &casengine.Owner{}, Logger: slog.New(slog.NewTextHandler(&warnings, nil)),
	})
	must(t, err)
	if diff := cmp.Diff([]string{want + " 0 bytes"}, list(t, raw)); diff != "" {
		t.Errorf("Tree (-want +got):\n%s", diff)
	}
	if !strings.Contains(warnings.String(), "user.empty") {
		t.Errorf("warnings = %q, want one about the empty attribute", warnings.String())
	}
	for _, not := range []string{"overlay", "selinux", "user.empty"} {
		if bytes.Contains(raw, []byte(not)) {
			t.Errorf("the archive has %q", not)
		}
	}
}

// Files of several file systems have the same inode numbers, and are not links
// of one another.
func TestTreeOfTwoFileSystems(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"one", "two"} {
		p := filepath.Join(dir, name)
		must(t, os.Mkdir(p, 0o755))
		if err := unix.Mount("tmpfs", p, "tmpfs", 0, "mode=755"); err != nil {
			t.Skipf("SKIPPED, not tested here: mount: %v", err)
		}
		t.Cleanup(func() { must(t, unix.Unmount(p, 0)) })
		must(t, os.WriteFile(filepath.Join(p, "f"), []byte(name), 0o644), os.Link(filepath.Join(p, "f"), filepath.Join(p, "g")))
	}
	var a, b unix.Stat_t
	must(t, unix.Lstat(filepath.Join(dir, "one/f"), &a), unix.Lstat(filepath.Join(dir, "two/f"), &b))
	if a.Ino != b.Ino {
		t.Skipf("SKIPPED, not tested here: the inodes are %d and %d", a.Ino, b.Ino)
	}
	raw, err := readTree(t, dir, &casengine.TreeOptions{Latest: epoch})
	must(t, err)
	want := []string{
		`5 0755 0:0 1700000000 "one/"`, `0 0644 0:0 1700000000 "one/f" 3 bytes`, `1 0644 0:0 1700000000 "one/g" -> one/f`,
		`5 0755 0:0 1700000000 "two/"`, `0 0644 0:0 1700000000 "two/f" 3 bytes`, `1 0644 0:0 1700000000 "two/g" -> two/f`,
	}
	if diff := cmp.Diff(want, list(t, raw)); diff != "" {
		t.Errorf("Tree (-want +got):\n%s", diff)
	}
}

func TestTreeDevices(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		t.Skipf("SKIPPED, not tested here: mknod: %v", err)
	}
	must(t, unix.Mknod(filepath.Join(dir, "sda"), unix.S_IFBLK|0o660, int(unix.Mkdev(8, 0))), os.Chmod(filepath.Join(dir, "null"), 0o666), os.Chmod(filepath.Join(dir, "sda"), 0o660))
	raw, err := readTree(t, dir, &casengine.TreeOptions{Latest: epoch})
	must(t, err)
	want := []string{`3 0666 0:0 1700000000 "null" dev 1,3`, `4 0660 0:0 1700000000 "sda" dev 8,0`}
	if diff := cmp.Diff(want, list(t, raw)); diff != "" {
		t.Errorf("Tree (-want +got):\n%s", diff)
	}
}
