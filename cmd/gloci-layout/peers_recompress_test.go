//go:build linux

package main_test

import (
	"crypto/sha256"
	le "encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestPeersRecompressed has the other tools read and run an image whose layer was
// recompressed to zstd: to several frames and a seek table behind them.
func TestPeersRecompressed(t *testing.T) {
	if os.Geteuid() != 0 {
		cannot(t, "buildah run --isolation chroot needs root here")
	}
	if strings.HasPrefix(string(busybox()), "no busybox") {
		cannot(t, "busybox-static is not installed: there is nothing that could run")
	}
	work := shortDir(t)
	rootfs, before, after := filepath.Join(work, "rootfs"), filepath.Join(work, "before"), filepath.Join(work, "after")
	makeRootFS(t, rootfs)
	big := make([]byte, 20<<20) // half noise, half zeros
	noise := rand.NewChaCha8([32]byte{})
	for i := 0; i < len(big); i += 8 << 10 {
		_, _ = noise.Read(big[i : i+4<<10])
	}
	writePeerFile(t, filepath.Join(rootfs, "srv/big"), string(big))
	mustRun(t, work, "init", before)
	platform := "linux/" + runtime.GOARCH
	mustRun(t, work, "add", "image", before, "--rootfs", rootfs, "--ref", "app", "--platform", platform, "--env", "PATH=/bin")
	mustRun(t, work, "add", "image", before, "--base", "app", "--layer", smallLayer(t, work), "--into", "release", "--platform", platform)
	if err := os.CopyFS(after, os.DirFS(before)); err != nil {
		t.Fatal(err)
	}
	mustRun(t, work, "recompress", after, "--to", "zstd", "--all")
	mustRun(t, work, "verify", after)
	mustRun(t, work, "lint", after)
	for _, ref := range []string{"app", "release"} {
		mustRun(t, work, "diff", before+":"+ref, after+":"+ref, "--semantic")
	}
	layer := manifestOf(t, after, "app").Layers[0]
	if layer.MediaType != ocispec.MediaTypeImageLayerZstd {
		t.Fatalf("the layer is %s", layer.MediaType)
	}
	// The end of a seek table: the number of frames, a byte, the magic.
	if end := blobOf(t, after, layer.Digest); le.LittleEndian.Uint32([]byte(end[len(end)-4:])) != 0x8F92EAB1 || le.LittleEndian.Uint32([]byte(end[len(end)-9:])) < 3 {
		t.Fatalf("the layer has no seek table of three frames: % x", end[len(end)-9:])
	}
	archive, onTheWay := filepath.Join(work, "after.oci"), filepath.Join(work, "packed.oci")
	mustRun(t, work, "pack", after, archive)
	mustRun(t, work, "pack", before, onTheWay, "--to-zstd")
	want := digest.NewDigestFromBytes(digest.SHA256, sum(big)).Encoded() + "  /srv/big\n"

	t.Run("skopeo", func(t *testing.T) {
		h := newPeerHome(t)
		// It uncompresses every layer on the way.
		for i, from := range []string{"oci:" + after + ":app", "oci-archive:" + archive + ":app", "oci-archive:" + onTheWay + ":app"} {
			out := h.path("plain" + string(rune('0'+i)))
			h.run("skopeo", "copy", "--dest-decompress", from, "dir:"+out)
			got := decode[ocispec.Manifest](t, readPeerFile(t, filepath.Join(out, "manifest.json"))).Layers[0]
			if want := imageConfig(t, before, "app").RootFS.DiffIDs[0]; got.Digest != want {
				t.Errorf("%s: the layer is %s uncompressed, want %s", from, got.Digest, want)
			}
			if hash := digest.FromString(readPeerFile(t, filepath.Join(out, got.Digest.Encoded()))); hash != got.Digest {
				t.Errorf("%s: the layer hashes to %s, not %s", from, hash, got.Digest)
			}
		}
		h.run("skopeo", "copy", "--all", "--preserve-digests", "oci:"+after+":release", "oci:"+h.path("copy")+":release")
	})
	t.Run("buildah", func(t *testing.T) {
		h := newPeerHome(t)
		h.needEngine("buildah")
		for _, from := range []string{"oci:" + after + ":app", "oci:" + after + ":release", "oci-archive:" + onTheWay + ":app"} {
			name := strings.TrimSpace(h.buildah("from", "--pull-always", from))
			if got := h.buildah("run", "--isolation", "chroot", name, "--", "/bin/sh", "-c", "sha256sum /srv/big"); got != want {
				t.Errorf("%s prints %q, want %q", from, got, want)
			}
			h.buildah("rm", name)
		}
	})
	t.Run("podman", func(t *testing.T) {
		h := newPeerHome(t)
		h.needEngine("podman")
		h.podmanPulls(after, "app")
	})
}

func sum(b []byte) []byte {
	s := sha256.Sum256(b)
	return s[:]
}

// smallLayer writes a layer of one file, and returns where it is.
func smallLayer(t *testing.T, dir string) string {
	t.Helper()
	file := filepath.Join(dir, "small.tar.gz")
	writePeerFile(t, file, string(gzipOf(t, tarOf(t, []member{{name: "srv/more", content: "more\n", mode: 0o644}}))))
	return file
}
