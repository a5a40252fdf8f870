//go:build linux

package main_test

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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
	t.Parallel()
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
	t.Parallel()
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

// A layer comes to a manifest that was published already. Everything that led
// there leads to the new one, and the old one goes.
func TestStoryAttach(t *testing.T) {
	t.Parallel()
	s := newStory(t)
	mustRun(t, s.dir, "add", "image", s.layout, "--into", storyVersion, "oci:"+s.exported()+":app")
	mustRun(t, s.dir, "tag", s.layout, storyVersion, "latest")
	mustRun(t, s.dir, "gc", s.layout, "--grace", "0") // of the index without the container
	repo := s.host + "/story/attach"
	if r := s.sync(repo); r.exit != 0 {
		t.Fatalf("sync: exit %d\n%s", r.exit, r.stderr)
	}
	before := entriesOf(t, s.layout, storyVersion)
	oldIndex := refsOf(t, s.layout)[storyVersion].Digest
	chosen := slices.IndexFunc(before, func(e ocispec.Descriptor) bool {
		return strings.HasPrefix(e.Annotations["cname"], "kvm") && e.Platform.Architecture == "arm64"
	})
	oldManifest := decode[ocispec.Manifest](t, blobOf(t, s.layout, before[chosen].Digest))

	file := s.path("kvm-arm64-" + storyVersion + "-abc12345.test-log")
	writePeerFile(t, file, "all tests passed\n")
	mustRun(t, s.dir, "attach", "layer", s.layout, storyVersion, "--cname", "kvm", "--arch", "arm64", file)
	mustRun(t, s.dir, "verify", s.layout)

	refs := refsOf(t, s.layout)
	if refs[storyVersion].Digest == oldIndex || refs["latest"].Digest != refs[storyVersion].Digest {
		t.Errorf("%s = %s, latest = %s: want both at a new digest", storyVersion, refs[storyVersion].Digest, refs["latest"].Digest)
	}
	after := entriesOf(t, s.layout, storyVersion)
	want := slices.Clone(before)
	want[chosen].Digest, want[chosen].Size = after[chosen].Digest, after[chosen].Size
	if diff := cmp.Diff(want, after); diff != "" || after[chosen].Digest == before[chosen].Digest {
		t.Errorf("the entries but for one digest (-want +got):\n%s", diff)
	}
	// regctl reads the new manifest through the new index.
	m := decode[ocispec.Manifest](t, s.run("regctl", "manifest", "get", "--format", "raw-body", "ocidir://"+s.layout+"@"+string(after[chosen].Digest)))
	if n := len(oldManifest.Layers); len(m.Layers) != n+1 || !cmp.Equal(m.Layers[:n], oldManifest.Layers) ||
		m.Layers[n].Digest != digest.FromString("all tests passed\n") || m.Layers[n].MediaType != "application/io.gardenlinux.test-log" {
		t.Errorf("the layers were %+v and are %+v", oldManifest.Layers, m.Layers)
	}

	// What nothing names any more goes, and nothing else.
	blobs := blobNames(t, s.layout)
	mustRun(t, s.dir, "gc", s.layout, "--grace", "0")
	gone := slices.DeleteFunc(blobs, func(name string) bool { return slices.Contains(blobNames(t, s.layout), name) })
	old := []string{before[chosen].Digest.Encoded(), oldIndex.Encoded()}
	slices.Sort(old)
	if !slices.Equal(gone, old) {
		t.Errorf("gc took %q, want the old manifest and the old index %q", gone, old)
	}
	mustRun(t, s.dir, "verify", s.layout)

	// The registry has the old ones. The tags move; nothing of it is a conflict.
	if r := s.sync(repo); r.exit != 0 {
		t.Fatalf("sync of the new manifest: exit %d\n%s", r.exit, r.stderr)
	}
	for _, tag := range []string{storyVersion, "latest"} {
		if got := registryDigest(t, repo, tag); got != refs[tag].Digest {
			t.Errorf("%s of the registry = %s, want %s", tag, got, refs[tag].Digest)
		}
	}
	s.artifacts = slices.DeleteFunc(after, func(e ocispec.Descriptor) bool { return e.Platform.OS != "gardenlinux" })
	s.checkBoth(repo)
}

// exported is a layout that buildah made of the container.
func (s *story) exported() string {
	s.t.Helper()
	s.buildah("push", "--quiet", storyImage, "oci:"+s.path("exported")+":app")
	return s.path("exported")
}

func blobNames(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "blobs/sha256"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// A manifest that mixes layers of an image with other files cannot be pulled. It
// is refused before it exists.
func TestStoryMixedManifest(t *testing.T) {
	t.Parallel()
	s := newStory(t)
	exported := s.exported()
	mustRun(t, s.dir, "add", "image", s.layout, "--into", storyVersion, "oci:"+exported+":app")
	mustRun(t, s.dir, "add", "image", s.layout, "oci:"+exported+":app")
	before := readPeerFile(t, filepath.Join(s.layout, "index.json"))
	blobs := blobNames(t, s.layout)
	release := filepath.Join(s.path("build"), "kvm-"+runtime.GOARCH+"-"+storyVersion+"-abc12345.release")
	for _, args := range [][]string{
		{storyVersion, "--platform", "linux/" + runtime.GOARCH, release},
		{storyVersion, "--platform", "linux/" + runtime.GOARCH, release + ":application/io.gardenlinux.release"},
		{"app", release},
	} {
		r := runBinary(t, s.dir, append([]string{"attach", "layer", s.layout}, args...)...)
		if r.exit != 6 || !strings.Contains(r.stderr, "application/io.gardenlinux.release") || !strings.Contains(r.stderr, "\nhint: ") {
			t.Errorf("attach layer %q: exit %d, want 6, the media type and a hint\n%s", args, r.exit, r.stderr)
		}
	}
	if readPeerFile(t, filepath.Join(s.layout, "index.json")) != before || !slices.Equal(blobNames(t, s.layout), blobs) {
		t.Error("what was refused changed the layout")
	}

	// Made by hand, it is what podman, buildah and skopeo do not take: neither from
	// a layout nor from a registry.
	mixed := newRawLayout(t, s.path("mixed"))
	im := mixed.runnable(runtime.GOARCH, storyVersion)
	good := mixed.manifest(im.config, im.layers...)
	bad := mixed.manifest(im.config, append(slices.Clone(im.layers), mixed.blob("application/io.gardenlinux.release", readPeerFile(t, release)))...)
	mixed.index(named(good, "good"), named(bad, "bad"))
	repo := s.host + "/story/mixed"
	if r := runBinary(t, s.dir, "sync", "--tls-verify=false", mixed.dir, "docker://"+repo); r.exit != 0 {
		t.Fatalf("sync: exit %d\n%s", r.exit, r.stderr)
	}
	for _, at := range []string{"oci:" + mixed.dir, "docker://" + repo} {
		for _, tool := range []string{"podman", "buildah"} {
			pull := func(ref string) []string {
				return append(s.storage(tool), "pull", "--tls-verify=false", at+":"+ref)
			}
			s.run(tool, pull("good")...) // so it is the layer that it refuses
			s.fails(refusals, tool, pull("bad")...)
		}
		s.run("skopeo", "copy", "--src-tls-verify=false", at+":good", "docker-archive:"+s.path("good.tar"))
		if err := os.Remove(s.path("good.tar")); err != nil {
			t.Fatal(err)
		}
		s.fails(refusals, "skopeo", "copy", "--src-tls-verify=false", at+":bad", "docker-archive:"+s.path("bad.tar"))
	}
}

// refusals are what the tools say of a layer that is none: podman and buildah
// unpack it before they look at what it says it is.
var refusals = []string{"ApplyLayer stdout:  stderr: unexpected EOF", "Unknown media type during manifest conversion"}
