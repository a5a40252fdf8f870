//go:build linux

package extract_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/extract"
	. "github.com/gardenlinux/gloci-layout/layout/extract/extracttest" //nolint:revive // as in extract_test.go
)

// tool runs a program that another project has made; without it the test is
// skipped, aloud.
func tool(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("SKIPPED, this is not compared here: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// describe returns all that can be known of the files below dir: type, mode,
// owner, size, time, content, target, device, extended attributes, and which
// names are of one file.
func describe(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	first := map[uint64]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		text := fmt.Sprintf("mode %o owner %d:%d time %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" size %d %s", st.Size, digest.FromBytes(b))
		case unix.S_IFLNK:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			text += " -> " + target
		case unix.S_IFCHR, unix.S_IFBLK:
			text += fmt.Sprintf(" device %d", st.Rdev)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
			if first[st.Ino] == "" {
				first[st.Ino] = rel
			}
			text += fmt.Sprintf(" links %d as %s", st.Nlink, first[st.Ino])
		}
		names := make([]byte, 4096)
		n, err := unix.Llistxattr(p, names)
		if err != nil {
			return err
		}
		for _, name := range slices.Sorted(strings.SplitSeq(string(names[:n]), "\x00")) {
			if name == "" {
				continue
			}
			value := make([]byte, 4096)
			n, err := unix.Lgetxattr(p, name, value)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %s=%x", name, value[:n])
		}
		all[rel] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// compareTrees reports in what two trees differ.
func compareTrees(t *testing.T, what string, want, got map[string]string) {
	t.Helper()
	keys := map[string]bool{}
	for k := range want {
		keys[k] = true
	}
	for k := range got {
		keys[k] = true
	}
	differ := 0
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if want[k] == got[k] {
			continue
		}
		if differ++; differ <= 20 {
			t.Errorf("%s: %s\n  theirs %s\n  ours   %s", what, k, want[k], got[k])
		}
	}
	t.Logf("%s: %d names compared, %d differ", what, len(keys), differ)
}

// A realImage is an image of a real root file system and of layers that change
// it in all the ways that there are.
func realImage(t *testing.T, dir string) (l *layout.Layout, layers []extract.Layer, config ocispec.Descriptor) {
	t.Helper()
	base := filepath.Join(dir, "base.tar")
	tool(t, dir, []string{"SOURCE_DATE_EPOCH=1751328000"}, "mmdebstrap", "--mode=root", "--variant=extract", "--skip=check/qemu",
		"--include=base-files,base-passwd,bash,coreutils,dash,debconf,findutils,grep,libc6,libc-bin,login,mount,passwd,perl-base,tar,util-linux,zlib1g,iputils-ping", "bookworm", base)
	root, err := os.ReadFile(base)
	if err != nil {
		t.Fatal(err)
	}
	capability := map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "SCHILY.xattr.user.note": "kept"}
	archives := [][]byte{
		root,
		Tar(
			Entry{Name: "etc/", Type: '5', Mode: 0o755, Time: 1000},
			Entry{Name: "etc/added", Type: '0', Body: "new", Mode: 0o640, UID: 5, GID: 60, Time: 1001},
			Entry{Name: "etc/.wh.debian_version", Type: '0', Time: 1002},
			Entry{Name: "usr/share/doc/.wh..wh..opq", Type: '0', Time: 1003},
			Entry{Name: "usr/share/doc/", Type: '5', Mode: 0o755, Time: 1004},
			Entry{Name: "usr/share/doc/README", Type: '0', Body: "only this", Time: 1005},
			Entry{Name: "usr/bin/.wh.sort", Type: '0', Time: 1006},
			Entry{Name: "usr/bin/", Type: '5', Mode: 0o755, Time: 1007},
			Entry{Name: "usr/bin/capable", Type: '0', Body: "elf", Mode: 0o755, Time: 1008, PAX: capability},
			Entry{Name: "usr/bin/capable2", Type: '1', Link: "usr/bin/capable", Mode: 0o755, Time: 1008, PAX: capability},
			Entry{Name: "srv/", Type: '5', Mode: 0o2775, GID: 50, Time: 1009},
			Entry{Name: "srv/deep/", Type: '5', Mode: 0o500, Time: 1010},
			Entry{Name: "srv/deep/ns", Type: '0', Mode: 0o4711, PAX: map[string]string{"mtime": "1011.123456789"}},
			Entry{Name: "srv/link", Type: '2', Link: "/etc/passwd", UID: 3, GID: 4, Time: 1012},
			Entry{Name: "srv/file", Type: '0', Body: "old", Time: 1013},
			Entry{Name: "srv/dir/", Type: '5', Mode: 0o755, Time: 1014},
			Entry{Name: "srv/dir/in", Type: '0', Body: "in", Time: 1015},
			Entry{Name: "srv/null", Type: '3', Mode: 0o666, Major: 1, Minor: 3, Time: 1016},
			Entry{Name: "srv/pipe", Type: '6', Mode: 0o600, Time: 1017},
			Sparse("srv/sparse", 1<<20, 512<<10, "data"),
		),
		Tar(
			Entry{Name: "srv/file/", Type: '5', Mode: 0o711, Time: 2000},
			Entry{Name: "srv/file/x", Type: '0', Body: "x", Time: 2001},
			Entry{Name: "srv/dir", Type: '0', Body: "a file now", Time: 2002},
			Entry{Name: "srv/link", Type: '0', Body: "no link any more", Time: 2003},
			Entry{Name: "usr/bin/capable", Type: '0', Body: "replaced", Mode: 0o755, Time: 2004},
			// Podman gives a file the time of its last hard link, umoci and GNU
			// tar do not; an honest archive has the same in both places.
			Entry{Name: "etc/linked", Type: '1', Link: "etc/issue", Time: 1751328000},
			Entry{Name: "etc/", Type: '5', Mode: 0o755, Time: 2006},
			Entry{Name: "usr/bin/", Type: '5', Mode: 0o755, Time: 2007},
			Entry{Name: "srv/", Type: '5', Mode: 0o2775, GID: 50, Time: 2008},
		),
	}
	if l, err = layout.Create(t.Context(), filepath.Join(dir, "layout"), nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	stage, err := l.Stage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	image := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ocispec.RootFS{Type: "layers"}}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	add := func(data []byte, mediaType string) ocispec.Descriptor {
		desc, err := stage.AddBytes(t.Context(), data, mediaType)
		if err != nil {
			t.Fatal(err)
		}
		return desc
	}
	for _, a := range archives {
		desc := add(Gzip(a), ImageGzip)
		image.RootFS.DiffIDs = append(image.RootFS.DiffIDs, digest.FromBytes(a))
		manifest.Layers = append(manifest.Layers, desc)
		layers = append(layers, extract.Layer{Desc: desc})
	}
	raw, err := json.Marshal(image)
	if err != nil {
		t.Fatal(err)
	}
	config = add(raw, ocispec.MediaTypeImageConfig)
	manifest.Config = config
	if raw, err = layout.EncodeManifest(manifest); err != nil {
		t.Fatal(err)
	}
	err = stage.Update(t.Context(), func(tx *layout.Tx) error {
		desc, err := tx.PutDocument(raw, ocispec.MediaTypeImageManifest)
		if err == nil {
			tx.SetRef("image", desc)
		}
		return err
	})
	if err := errors.Join(err, stage.Close()); err != nil {
		t.Fatal(err)
	}
	return l, layers, config
}

// TestPeers: a real root file system is the same tree as others make of it.
func TestPeers(t *testing.T) {
	if testing.Short() {
		t.Skip("needs some hundred MB and a Debian mirror")
	}
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, this is not compared here: it takes root")
	}
	dir := t.TempDir()
	l, layers, config := realImage(t, dir)
	out := filepath.Join(dir, "out")
	_, err := extract.Extract(t.Context(), l, layers, out, &extract.Options{Mode: extract.Rootfs, Config: &config, Preserve: true})
	if err != nil {
		t.Fatal(err)
	}
	ours := describe(t, filepath.Join(out, "rootfs"))
	if len(ours) < 1000 {
		t.Errorf("only %d files: that is no root file system", len(ours))
	}
	t.Run("umoci", func(t *testing.T) {
		tool(t, dir, nil, "umoci", "unpack", "--image", "layout:image", "bundle")
		compareTrees(t, "umoci", describe(t, filepath.Join(dir, "bundle", "rootfs")), ours)
	})
	t.Run("podman", func(t *testing.T) {
		args := []string{"--root", filepath.Join(dir, "storage"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs"}
		t.Cleanup(func() { _ = exec.Command("podman", append(args, "system", "reset", "--force")...).Run() }) //nolint:noctx // the test is over
		id := tool(t, dir, nil, "podman", append(args, "pull", "--quiet", "oci:layout:image")...)
		top := tool(t, dir, nil, "podman", append(args, "image", "mount", id)...)
		theirs := describe(t, top)
		// The driver makes the directory of each layer itself, and it has the
		// time of that.
		mode, _, _ := strings.Cut(theirs["."], " time ")
		if !strings.HasPrefix(ours["."], mode+" time ") {
			t.Errorf("podman: .: theirs %s, ours %s", theirs["."], ours["."])
		}
		theirs["."] = ours["."]
		compareTrees(t, "podman", theirs, ours)
	})
}
