//go:build linux

package main_test

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// The stories that this program was made for, told with the tools that take part
// in them.

const (
	storyVersion = "2160.0.0"
	storyImage   = "example.org/story/app:v1"
)

// A story is a container image in the storage of podman and buildah, and a layout
// with the artifacts of a Garden Linux version.
type story struct {
	*peerHome
	host   string // of a registry
	layout string
	// artifacts are the entries of the version's index before anybody else's.
	artifacts []ocispec.Descriptor
}

func newStory(t *testing.T) *story {
	t.Helper()
	s := &story{peerHome: newPeerHome(t), host: regtest.Start(t, nil).Host}
	s.needEngine("podman")
	s.needEngine("buildah")
	if os.Geteuid() != 0 {
		cannot(t, "buildah run --isolation chroot needs root here")
	}
	s.layout = s.path("layout")
	buildDir(t, s.path("build"), storyVersion, "baremetal_pxe-amd64", "baremetal_pxe-arm64", "kvm-amd64", "kvm-arm64")
	for _, arch := range []string{"amd64", "arm64"} {
		writePeerFile(t, s.path("build/kvm-"+arch+"-"+storyVersion+"-abc12345.raw"), "the disk for "+arch+"\n")
	}
	mustRun(t, s.dir, "init", s.layout)
	mustRun(t, s.dir, "add", "flavor", s.layout, "--ref", storyVersion, s.path("build"))
	s.artifacts = entriesOf(t, s.layout, storyVersion)
	if len(s.artifacts) != 4 {
		t.Fatalf("the version has %d entries, want 4", len(s.artifacts))
	}

	// A container that somebody builds: nothing of it is made by this program.
	writePeerFile(t, s.path("app.tar"), string(tarOf(t, []member{
		{name: "bin/", mode: 0o755},
		{name: "bin/busybox", content: string(busybox()), mode: 0o755},
		{name: "bin/cat", link: "busybox"},
		{name: "etc/", mode: 0o755},
		{name: "etc/app", content: "the app\n", mode: 0o644},
	})))
	name := strings.TrimSpace(s.buildah("from", "scratch"))
	s.buildah("add", "--quiet", name, s.path("app.tar"), "/")
	s.buildah("config", "--cmd", "/bin/cat /etc/app", name)
	s.buildah("commit", "--quiet", "--timestamp", "0", name, storyImage)
	return s
}

func entriesOf(t testing.TB, dir, ref string) []ocispec.Descriptor {
	t.Helper()
	return decode[ocispec.Index](t, blobOf(t, dir, refsOf(t, dir)[ref].Digest)).Manifests
}

// podmanIndex pushes an index of podman's own making with the container in it.
func (s *story) podmanIndex(repo string) {
	s.t.Helper()
	list := "example.org/list/" + strings.ReplaceAll(filepath.Base(repo), ":", "-")
	s.podman("manifest", "create", list)
	s.podman("manifest", "add", list, "containers-storage:"+storyImage)
	s.podman("manifest", "push", "--all", "--tls-verify=false", list, "docker://"+repo+":"+storyVersion)
}

// buildahImage pushes the container under the tag, with no index around it.
func (s *story) buildahImage(repo string) {
	s.t.Helper()
	s.buildah("push", "--quiet", "--tls-verify=false", storyImage, "docker://"+repo+":"+storyVersion)
}

func (s *story) sync(repo string, args ...string) ran {
	s.t.Helper()
	return runBinary(s.t, s.dir, append([]string{"sync", "--tls-verify=false", s.layout, "docker://" + repo}, args...)...)
}

// checkBoth demands that the index of the tag has the container and all
// artifacts, that podman and buildah take the container, and that other tools
// find each artifact with all its blobs. It returns the digest of the index.
func (s *story) checkBoth(repo string) digest.Digest {
	t := s.t
	t.Helper()
	at := repo + ":" + storyVersion
	raw := s.run("skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+at)
	var images []ocispec.Descriptor
	artifacts := 0
	for _, e := range decode[ocispec.Index](t, raw).Manifests {
		switch {
		case slices.ContainsFunc(s.artifacts, func(a ocispec.Descriptor) bool { return a.Digest == e.Digest }):
			artifacts++
			if e.Annotations["cname"] == "" || e.Platform == nil || e.Platform.OS != "gardenlinux" {
				t.Errorf("%s: an artifact lost what it had: %+v", at, e)
			}
		case e.Platform != nil && e.Platform.OS == "linux" && e.Platform.Architecture == runtime.GOARCH:
			images = append(images, e)
		default:
			t.Errorf("%s: unexpected entry %+v", at, e)
		}
	}
	if artifacts != len(s.artifacts) || len(images) != 1 {
		t.Fatalf("%s has %d artifacts and %d images, want %d and one:\n%s", at, artifacts, len(images), len(s.artifacts), raw)
	}

	config := decode[ocispec.Manifest](t, s.run("crane", "manifest", "--insecure", repo+"@"+string(images[0].Digest))).Config.Digest
	if got := strings.TrimSpace(s.podman("pull", "--quiet", "--tls-verify=false", at)); got != config.Encoded() {
		t.Errorf("podman pull %s = %s, want %s", at, got, config.Encoded())
	}
	name := strings.TrimSpace(s.buildah("from", "--pull-always", "--tls-verify=false", at))
	if got := s.buildah("run", "--isolation", "chroot", name, "--", "/bin/cat", "/etc/app"); got != "the app\n" {
		t.Errorf("the container of %s prints %q", at, got)
	}
	s.buildah("rm", name)

	for _, a := range s.artifacts {
		m := decode[ocispec.Manifest](t, s.run("crane", "manifest", "--insecure", repo+"@"+string(a.Digest)))
		if len(m.Layers) == 0 {
			t.Errorf("artifact %s has no layers", a.Digest)
		}
		for _, l := range m.Layers {
			if got := digest.FromString(s.run("crane", "blob", "--insecure", repo+"@"+string(l.Digest))); got != l.Digest {
				t.Errorf("blob %s of artifact %s has other bytes", l.Digest, a.Digest)
			}
		}
	}
	mustRun(t, s.dir, "verify", "--tls-verify=false", "docker://"+at)
	return digest.FromString(raw)
}

// A container and the artifacts of a version share one tag, whoever comes first.
func TestStoryOneTag(t *testing.T) {
	s := newStory(t)
	ends := map[string]digest.Digest{}
	for name, push := range map[string]func(repo string){"podman's index": s.podmanIndex, "buildah's image": s.buildahImage} {
		key := strings.NewReplacer("'", "", " ", "-").Replace(name)
		// The container first. Nobody drops it by accident.
		first := s.host + "/story/" + key + "-first"
		push(first)
		before := registryDigest(t, first, storyVersion)
		if r := s.sync(first); r.exit != 6 || !strings.Contains(r.stderr, "--merge") {
			t.Errorf("sync over %s: exit %d, want 6 and a hint\n%s", name, r.exit, r.stderr)
		}
		if got := registryDigest(t, first, storyVersion); got != before {
			t.Errorf("sync over %s moved the tag to %s", name, got)
		}
		if r := s.sync(first, "--merge"); r.exit != 0 {
			t.Fatalf("sync --merge after %s: exit %d\n%s", name, r.exit, r.stderr)
		}
		ends[name+" first"] = s.checkBoth(first)

		// The artifacts first; then a push takes the tag, as pushes do.
		last := s.host + "/story/" + key + "-last"
		if r := s.sync(last); r.exit != 0 {
			t.Fatalf("sync: exit %d\n%s", r.exit, r.stderr)
		}
		push(last)
		if r := s.sync(last, "--merge"); r.exit != 0 {
			t.Fatalf("sync --merge after %s: exit %d\n%s", name, r.exit, r.stderr)
		}
		ends[name+" last"] = s.checkBoth(last)
		// And once more: nothing to do.
		if r := s.sync(last, "--merge", "--json"); r.exit != 0 || !strings.Contains(r.stdout, `"changed":false`) {
			t.Errorf("sync --merge again: exit %d\n%s%s", r.exit, r.stdout, r.stderr)
		}
		if a, b := ends[name+" first"], ends[name+" last"]; a != b {
			t.Errorf("%s: the two orders end in %s and %s", name, a, b)
		}
	}
}

// The same in a layout, with what the tools write into layouts and archives.
func TestStoryOneLayout(t *testing.T) {
	s := newStory(t)
	s.buildah("push", "--quiet", storyImage, "oci:"+s.path("pushed")+":app")
	s.podman("save", "--quiet", "--format", "oci-archive", "--output", s.path("saved.oci"), storyImage)
	ends := map[string]bool{}
	for name, source := range map[string]string{"buildah push": "oci:" + s.path("pushed") + ":app", "podman save": "oci-archive:" + s.path("saved.oci")} {
		for _, containerFirst := range []bool{true, false} {
			dir := filepath.Join(s.dir, strings.ReplaceAll(name, " ", "-"))
			if containerFirst {
				dir += "-first"
			}
			steps := [][]string{
				{"add", "flavor", dir, "--ref", storyVersion, s.path("build")},
				{"add", "image", dir, source, "--into", storyVersion},
			}
			if containerFirst {
				slices.Reverse(steps)
			}
			mustRun(t, s.dir, "init", dir)
			for _, args := range steps {
				mustRun(t, s.dir, args...)
			}
			mustRun(t, s.dir, "verify", dir)
			ends[readPeerFile(t, filepath.Join(dir, "index.json"))] = true
			if n := len(entriesOf(t, dir, storyVersion)); n != 5 {
				t.Errorf("%s: %d entries, want 5", dir, n)
			}
			id := strings.TrimSpace(s.podman("pull", "--quiet", "oci:"+dir+":"+storyVersion))
			if got := s.podman("image", "inspect", "--format", "{{.Id}}", storyImage); strings.TrimSpace(got) != id {
				t.Errorf("podman pull of %s = %s, want %s", dir, id, got)
			}
		}
	}
	if len(ends) != 1 {
		t.Errorf("%d different ends, want one", len(ends))
	}

	// buildah pushes into our layout itself. It writes index.json anew; what it
	// leaves there is taken from there.
	s.buildah("push", "--quiet", storyImage, "oci:"+s.layout+":app")
	mustRun(t, s.dir, "add", "image", s.layout, "oci:"+s.layout+":app", "--into", storyVersion)
	mustRun(t, s.dir, "untag", s.layout, "app")
	mustRun(t, s.dir, "verify", s.layout)
	if n := len(entriesOf(t, s.layout, storyVersion)); n != 5 {
		t.Errorf("%d entries, want 5", n)
	}
	repo := s.host + "/story/layout"
	if r := s.sync(repo); r.exit != 0 {
		t.Fatalf("sync: exit %d\n%s", r.exit, r.stderr)
	}
	s.checkBoth(repo)
}
