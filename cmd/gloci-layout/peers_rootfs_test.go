//go:build linux

package main_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// TestPeersRootFS makes images of root file systems and lets the other tools read
// them, run them and unpack them.
func TestPeersRootFS(t *testing.T) {
	if os.Geteuid() != 0 {
		cannot(t, "buildah run --isolation chroot needs root here, and so do devices and owners")
	}
	if strings.HasPrefix(string(busybox()), "no busybox") {
		cannot(t, "busybox-static is not installed: there is nothing that could run")
	}
	work := shortDir(t)
	rootfs, layoutDir := filepath.Join(work, "rootfs"), filepath.Join(work, "layout")
	makeRootFS(t, rootfs)
	// On top: a file more, one that goes, and a directory of which all goes.
	upper := filepath.Join(work, "upper.tar.gz")
	writePeerFile(t, upper, string(gzipOf(t, tarOf(t, []member{
		{name: "etc/.wh.gone", mode: 0o644},
		{name: "srv/", mode: 0o755},
		{name: "srv/.wh..wh..opq", mode: 0o644},
		{name: "srv/new", content: "new\n", mode: 0o644},
	}))))
	// The same as overlayfs keeps it.
	overlay := filepath.Join(work, "overlay")
	writePeerFile(t, filepath.Join(overlay, "srv/new"), "new\n")
	if err := errors.Join(os.Mkdir(filepath.Join(overlay, "etc"), 0o755), unix.Mknod(filepath.Join(overlay, "etc/gone"), unix.S_IFCHR, 0),
		unix.Setxattr(filepath.Join(overlay, "srv"), "trusted.overlay.opaque", []byte("y"), 0)); err != nil {
		t.Fatal(err)
	}

	mustRun(t, work, "init", layoutDir)
	platform := "linux/" + runtime.GOARCH
	for _, format := range []string{"gzip", "zstd", "none"} {
		mustRun(t, work, "add", "image", layoutDir, "--rootfs", rootfs, "--compress", format, "--ref", format, "--platform", platform,
			"--entrypoint", "/bin/sh", "--entrypoint", "-c", "--cmd", "echo ran as $(id -u) in $(pwd) with $NOTE", "--env", "PATH=/bin", "--env", "NOTE=a, b",
			"--user", "7", "--workdir", "/srv", "--label", "org.example.note=1", "--expose", "80/tcp")
	}
	mustRun(t, work, "add", "image", layoutDir, "--base", "gzip", "--layer", upper, "--env", "NOTE=derived", "--ref", "derived")
	mustRun(t, work, "add", "image", layoutDir, "--base", "gzip", "--rootfs", overlay, "--owner", "0", "--env", "NOTE=derived", "--into", "release")
	mustRun(t, work, "verify", layoutDir)
	archive := filepath.Join(work, "all.oci")
	mustRun(t, work, "pack", layoutDir, archive)

	t.Run("skopeo", func(t *testing.T) {
		h := newPeerHome(t)
		for _, ref := range []string{"gzip", "zstd", "none", "derived"} {
			h.run("skopeo", "copy", "--preserve-digests", "oci:"+layoutDir+":"+ref, "oci:"+h.path("copy")+":"+ref)
			if got, want := refsOf(t, h.path("copy"))[ref].Digest, refsOf(t, layoutDir)[ref].Digest; got != want {
				t.Errorf("skopeo copy of %s = %s, want %s", ref, got, want)
			}
			// It decompresses every layer on the way, and checks the diffIDs.
			h.run("skopeo", "copy", "--dest-decompress", "oci:"+layoutDir+":"+ref, "dir:"+h.path("plain-"+ref))
			config := imageConfig(t, layoutDir, ref)
			raw := decode[ocispec.Manifest](t, readPeerFile(t, h.path("plain-"+ref+"/manifest.json")))
			for i, l := range raw.Layers {
				if l.Digest != config.RootFS.DiffIDs[i] {
					t.Errorf("layer %d of %s is %s uncompressed, the config says %s", i, ref, l.Digest, config.RootFS.DiffIDs[i])
				}
			}
		}
		h.run("skopeo", "inspect", "--config", "oci:"+layoutDir+":derived")
		h.run("skopeo", "inspect", "oci:"+layoutDir+":gzip") // there is no time of creation
	})
	t.Run("umoci", func(t *testing.T) {
		h := newPeerHome(t)
		h.run("umoci", "unpack", "--image", layoutDir+":gzip", h.path("bundle"))
		if diff := cmp.Diff(filesBelow(t, rootfs), filesBelow(t, h.path("bundle/rootfs"))); diff != "" {
			t.Errorf("umoci unpack (-was +is):\n%s", diff)
		}
		h.run("umoci", "unpack", "--image", layoutDir+":derived", h.path("derived"))
		checkDerived(t, h.path("derived/rootfs"))
	})
	t.Run("tar", func(t *testing.T) {
		h := newPeerHome(t)
		blob := filepath.Join(layoutDir, "blobs/sha256", manifestOf(t, layoutDir, "none").Layers[0].Digest.Encoded())
		if err := os.Mkdir(h.path("tar"), 0o755); err != nil {
			t.Fatal(err)
		}
		h.run("tar", "--xattrs", "--xattrs-include=*", "-xpf", blob, "-C", h.path("tar"), "--numeric-owner")
		if diff := cmp.Diff(filesBelow(t, rootfs), filesBelow(t, h.path("tar"))); diff != "" {
			t.Errorf("tar -x (-was +is):\n%s", diff)
		}
	})
	for ref, want := range map[string]string{"gzip": "a, b", "zstd": "a, b", "none": "a, b", "derived": "derived", "release": "derived"} {
		t.Run("buildah/"+ref, func(t *testing.T) {
			h := newPeerHome(t)
			h.needEngine("buildah")
			at := "oci:" + layoutDir + ":" + ref
			if ref == "derived" {
				at = "oci-archive:" + archive + ":" + ref
			}
			name := strings.TrimSpace(h.buildah("from", at))
			command := imageConfig(t, layoutDir, ref).Config
			args := append([]string{"run", "--isolation", "chroot", name, "--"}, append(command.Entrypoint, command.Cmd...)...)
			if got := h.buildah(args...); got != "ran as 7 in /srv with "+want+"\n" {
				t.Errorf("the container prints %q", got)
			}
			mounted := strings.TrimSpace(h.buildah("mount", name))
			if want != "a, b" {
				checkDerived(t, mounted)
			} else {
				was, is := filesBelow(t, rootfs), filesBelow(t, mounted)
				// buildah makes files on which it mounts.
				for _, p := range []string{"dev", "proc", "sys", "run", "etc", "etc/hostname", "etc/hosts", "etc/resolv.conf"} {
					delete(was, p)
					delete(is, p)
				}
				if diff := cmp.Diff(was, is); diff != "" {
					t.Errorf("the container's files (-was +is):\n%s", diff)
				}
			}
			h.buildah("umount", name)
			h.buildah("rm", name)
		})
	}
	t.Run("podman", func(t *testing.T) {
		h := newPeerHome(t)
		h.needEngine("podman")
		h.podmanPulls(layoutDir, "gzip")
		single := h.path("one.oci")
		mustRun(t, h.dir, "pack", layoutDir+":derived", single)
		h.podman("load", "--quiet", "--input", single)
		type inspected struct {
			Config struct {
				User, WorkingDir string
				Env, Entrypoint  []string
				Labels           map[string]string
				ExposedPorts     map[string]struct{}
			}
			RootFS  struct{ Layers []digest.Digest }
			History []struct {
				CreatedBy string `json:"created_by"`
			}
		}
		id := manifestOf(t, layoutDir, "derived").Config.Digest.Encoded()
		got := decode[[]inspected](t, h.podman("image", "inspect", id))[0]
		if got.Config.User != "7" || got.Config.WorkingDir != "/srv" || !slices.Contains(got.Config.Env, "NOTE=derived") ||
			got.Config.Labels["org.example.note"] != "1" || len(got.Config.ExposedPorts) != 1 || len(got.RootFS.Layers) != 2 || len(got.History) != 2 {
			t.Errorf("podman image inspect = %+v", got)
		}
		h.podman("history", id)
	})
}

func manifestOf(t testing.TB, dir, ref string) ocispec.Manifest {
	t.Helper()
	return decode[ocispec.Manifest](t, mustRun(t, dir, "inspect", "--raw", dir+":"+ref, "--platform", "linux/"+runtime.GOARCH).stdout)
}

func imageConfig(t testing.TB, dir, ref string) ocispec.Image {
	t.Helper()
	return decode[ocispec.Image](t, blobOf(t, dir, manifestOf(t, dir, ref).Config.Digest))
}

// makeRootFS makes a root file system that runs and has one of everything.
func makeRootFS(t testing.TB, dir string) {
	t.Helper()
	for name, content := range map[string]string{
		"bin/busybox": string(busybox()), "etc/os-release": osRelease(runtime.GOARCH, "1"), "etc/gone": "gone\n",
		"etc/passwd": "root:x:0:0::/:/bin/sh\n", "srv/old": "old\n", "srv/ümlaut\xff\n": "odd\n", "srv/" + strings.Repeat("long ", 40): "long\n",
		"dev/.keep": "", "proc/.keep": "", "sys/.keep": "", "tmp/.keep": "", "run/.keep": "",
	} {
		writePeerFile(t, filepath.Join(dir, name), content)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	errs := []error{
		os.Chmod(at("bin/busybox"), 0o755),
		os.Chmod(at("tmp"), 0o777|fs.ModeSticky),
		os.Chmod(at("srv/old"), 0o640|fs.ModeSetgid|fs.ModeSetuid),
		os.Lchown(at("srv/old"), 12, 3_000_000),
		os.Link(at("srv/old"), at("srv/hard")),
		unix.Mkfifo(at("srv/fifo"), 0o600),
		unix.Mknod(at("srv/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
		unix.Setxattr(at("srv/old"), "user.note", []byte("a\x00b"), 0),
		unix.Setxattr(at("bin/busybox"), "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0),
		os.Truncate(at("etc/gone"), 1<<20), // sparse
		os.Chmod(at("srv/old"), 0o640|fs.ModeSetgid|fs.ModeSetuid),
	}
	for _, name := range []string{"sh", "id", "cat", "echo"} {
		errs = append(errs, os.Symlink("busybox", at("bin/"+name)), os.Lchown(at("bin/"+name), 3, 4))
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	old := time.Unix(1234567890, 0)
	for _, name := range []string{"srv/old", "srv", "etc"} {
		if err := os.Chtimes(at(name), old, old); err != nil {
			t.Fatal(err)
		}
	}
}

// filesBelow returns all that a layer holds of each file below dir.
func filesBelow(t testing.TB, dir string) map[string]string {
	t.Helper()
	files, first := map[string]string{}, map[uint64]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			t.Fatal("no stat")
		}
		text := fmt.Sprintf("%v %d:%d %d %d", info.Mode(), st.Uid, st.Gid, info.ModTime().Unix(), st.Rdev)
		switch {
		case info.Mode().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %x", sha256.Sum256(b))
			if st.Nlink > 1 {
				if first[st.Ino] == "" {
					first[st.Ino] = rel
				}
				text += " link to " + first[st.Ino]
			}
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			text += " -> " + to
		}
		for _, name := range []string{"user.note", "security.capability"} {
			buf := make([]byte, 100)
			if n, err := unix.Lgetxattr(p, name, buf); err == nil {
				text += fmt.Sprintf(" %s=%q", name, buf[:n])
			}
		}
		files[rel] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// checkDerived checks what the second layer has done.
func checkDerived(t testing.TB, dir string) {
	t.Helper()
	if _, err := os.Lstat(filepath.Join(dir, "etc/gone")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("etc/gone is there: %v", err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "srv"))
	if err != nil || len(entries) != 1 || entries[0].Name() != "new" {
		t.Errorf("srv has %v, want new alone (%v)", entries, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "etc/os-release")); err != nil {
		t.Error(err)
	}
}

// A root file system of Debian packages runs, too.
func TestPeersDebianRootFS(t *testing.T) {
	if os.Geteuid() != 0 {
		cannot(t, "buildah run --isolation chroot needs root here")
	}
	h := newPeerHome(t)
	h.needEngine("buildah")
	rootfs, dir := h.path("rootfs"), h.path("layout")
	cmd := exec.CommandContext(t.Context(), peerTool(t, "mmdebstrap"), "--variant=extract", "--include=base-files,dash,coreutils", "bookworm", rootfs)
	cmd.Dir = h.dir
	if r := runCommand(t, cmd); r.exit != 0 {
		cannot(t, "mmdebstrap cannot get packages here: %s", r.stderr)
	}
	mustRun(t, h.dir, "init", dir)
	for _, ref := range []string{"one", "two"} {
		mustRun(t, h.dir, "add", "image", dir, "--rootfs", rootfs, "--ref", ref, "--platform", "linux/"+runtime.GOARCH, "--cmd", "/bin/dash")
	}
	if refs := refsOf(t, dir); refs["one"].Digest != refs["two"].Digest {
		t.Errorf("the same root file system gives %s and %s", refs["one"].Digest, refs["two"].Digest)
	}
	h.run("umoci", "unpack", "--image", dir+":one", h.path("bundle"))
	if diff := cmp.Diff(filesBelow(t, rootfs), filesBelow(t, h.path("bundle/rootfs"))); diff != "" {
		t.Errorf("umoci unpack (-was +is):\n%s", diff)
	}
	name := strings.TrimSpace(h.buildah("from", "oci:"+dir+":one"))
	got := h.buildah("run", "--isolation", "chroot", name, "--", "/bin/dash", "-c", ". /etc/os-release; echo $VERSION_CODENAME; /usr/bin/stat -c %a /tmp")
	if got != "bookworm\n1777\n" {
		t.Errorf("the container prints %q", got)
	}
}
