//go:build linux

package main_test

import (
	"archive/tar"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/errdef"
)

// A peerView is what the tools are shown: one rich layout as a directory, as an
// .oci file and as a repository.
type peerView struct {
	*rich
	repo string // HOST/REPO, plain HTTP
}

// tags are the ref names, and what they are called in a registry.
func (v *peerView) tags(t testing.TB) map[string]ocispec.Descriptor {
	tags := map[string]ocispec.Descriptor{}
	for name, desc := range v.refs(t) {
		if name == refFull {
			name = "v1"
		}
		tags[name] = desc
	}
	return tags
}

// A choice is what a tool has to take for an architecture: an image or, if there
// is none, nothing at all.
type choice struct {
	ref, arch string
	image     *testImage
}

func (v *peerView) choices() []choice {
	host, other := runtime.GOARCH, otherArch()
	mine, theirs, half := v.images[host], v.images[other], v.images["half"]
	return []choice{
		{refRelease, host, &mine},
		{refRelease, other, &theirs},
		{refHalf, host, &half},
		{refHalf, other, nil},
		{refArtifacts, host, nil},
		{refArtifacts, other, nil},
	}
}

// skopeo, and with it containers/image, which podman, buildah and CRI-O share.
func skopeoReads(t *testing.T, v *peerView) {
	h := newPeerHome(t)
	for name, source := range map[string]struct {
		refs map[string]ocispec.Descriptor
		at   string
	}{
		"oci":         {v.refs(t), "oci:" + v.dir},
		"oci-archive": {v.refs(t), "oci-archive:" + v.archive},
		"docker":      {v.tags(t), "docker://" + v.repo},
	} {
		for ref, desc := range source.refs {
			raw := h.run("skopeo", "inspect", "--tls-verify=false", "--raw", source.at+":"+ref)
			if got := digest.FromString(raw); got != desc.Digest {
				t.Errorf("%s: inspect --raw of %s = %s, want %s", name, ref, got, desc.Digest)
			}
		}
		h.fails([]string{"unsupported image-specific operation"}, "skopeo", "inspect", "--tls-verify=false", source.at+":"+refNotes)
		for _, c := range v.choices() {
			out := h.path("skopeo-" + name + c.ref + c.arch)
			args := []string{"--override-arch", c.arch, "copy", "--src-tls-verify=false", source.at + ":" + c.ref, "dir:" + out}
			if c.image == nil {
				h.fails([]string{"no image found in image index"}, "skopeo", args...)
				continue
			}
			h.run("skopeo", args...)
			checkDirTransport(t, out, c.image)
		}
	}

	// Another layout, and back to ours: not one byte is lost on the way, of
	// artifacts neither.
	out := h.path("copy")
	for _, ref := range []string{refApp, refNotes} {
		h.run("skopeo", "copy", "oci-archive:"+v.archive+":"+ref, "oci:"+out+":"+ref)
	}
	h.run("skopeo", "copy", "--all", "--preserve-digests", "oci:"+v.dir+":"+refHalf, "oci:"+out+":"+refHalf)
	for _, ref := range []string{refApp, refNotes, refHalf} {
		if got, want := refsOf(t, out)[ref].Digest, v.refs(t)[ref].Digest; got != want {
			t.Errorf("copy of %s = %s, want %s", ref, got, want)
		}
		for _, d := range reachable(t, v.dir, v.refs(t)[ref].Digest) {
			blobOf(t, out, d)
		}
	}
}

// checkDirTransport checks a directory of containers/image: the manifest, and a
// file for each blob.
func checkDirTransport(t *testing.T, dir string, want *testImage) {
	t.Helper()
	if got := digest.FromString(readPeerFile(t, filepath.Join(dir, "manifest.json"))); got != want.manifest.Digest {
		t.Errorf("%s holds manifest %s, want %s", dir, got, want.manifest.Digest)
		return
	}
	for _, desc := range append([]ocispec.Descriptor{want.config}, want.layers...) {
		if got := digest.FromString(readPeerFile(t, filepath.Join(dir, desc.Digest.Encoded()))); got != desc.Digest {
			t.Errorf("%s: blob %s has the content of %s", dir, desc.Digest, got)
		}
	}
}

func umociReads(t *testing.T, v *peerView) {
	h := newPeerHome(t)
	// umoci reads directories only: that of the .oci file is made by unpack.
	unpacked := h.path("unpacked")
	mustRun(t, h.dir, "unpack", v.archive, unpacked)
	for _, dir := range []string{v.dir, unpacked} {
		want := slices.Sorted(maps.Keys(v.refs(t)))
		got := strings.Fields(h.run("umoci", "list", "--layout", dir))
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("list = %q, want %q", got, want)
		}
		type stat struct {
			History []struct {
				Layer  *ocispec.Descriptor `json:"layer"`
				DiffID digest.Digest       `json:"diff_id"`
			} `json:"history"`
		}
		image := v.images[runtime.GOARCH]
		for i, entry := range decode[stat](t, h.run("umoci", "stat", "--json", "--image", dir+":"+refApp)).History {
			if entry.Layer == nil || entry.Layer.Digest != image.layers[i].Digest || entry.DiffID != image.diffIDs[i] {
				t.Errorf("stat: layer %d = %+v, want %s of %s", i, entry, image.diffIDs[i], image.layers[i].Digest)
			}
		}
		bundle := h.path("bundle-" + filepath.Base(dir))
		args := []string{"unpack", "--image", dir + ":" + refApp, bundle}
		if os.Geteuid() != 0 {
			args = slices.Insert(args, 1, "--rootless")
		}
		h.run("umoci", args...)
		if got := readPeerFile(t, filepath.Join(bundle, "rootfs/etc/os-release")); got != image.release {
			t.Errorf("unpack: os-release = %q, want %q", got, image.release)
		}
		if _, err := os.Lstat(filepath.Join(bundle, "rootfs/etc/gone")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("unpack: the file that the second layer removes is there: %v", err)
		}
		// It knows no platforms: it asks, and never takes the first it finds.
		for _, ref := range []string{refRelease, refNested} {
			h.fails([]string{"tag is ambiguous"}, "umoci", "stat", "--image", dir+":"+ref)
		}
		h.fails([]string{"unknown config blob type"}, "umoci", "stat", "--image", dir+":"+refNotes)
	}
}

func podmanReads(t *testing.T, v *peerView) {
	h := newPeerHome(t)
	h.needEngine("podman")
	for _, at := range []string{"oci:" + v.dir, "oci-archive:" + v.archive, "docker://" + v.repo} {
		for _, c := range v.choices() {
			args := []string{"pull", "--quiet", "--arch", c.arch, at + ":" + c.ref}
			if strings.HasPrefix(at, "docker:") {
				args = slices.Insert(args, 1, "--tls-verify=false")
			}
			if c.image == nil {
				h.fails([]string{"no image found in image index"}, "podman", append(h.storage("podman"), args...)...)
				continue
			}
			// An image is named by its config there.
			id := strings.TrimSpace(h.podman(args...))
			if id != c.image.config.Digest.Encoded() {
				t.Errorf("pull %s:%s for %s = image %s, want %s", at, c.ref, c.arch, id, c.image.config.Digest)
				continue
			}
			type inspected struct {
				Architecture string
				RepoDigests  []string
				RootFS       struct{ Layers []digest.Digest }
			}
			got := decode[[]inspected](t, h.podman("image", "inspect", id))[0]
			if got.Architecture != c.arch || !slices.Equal(got.RootFS.Layers, c.image.diffIDs) {
				t.Errorf("pull %s:%s for %s: inspect = %+v", at, c.ref, c.arch, got)
			}
			if !slices.ContainsFunc(got.RepoDigests, func(s string) bool { return strings.HasSuffix(s, "@"+string(c.image.manifest.Digest)) }) {
				t.Errorf("pull %s:%s: %q do not name manifest %s", at, c.ref, got.RepoDigests, c.image.manifest.Digest)
			}
		}
	}
	h.fails([]string{"unsupported image-specific operation"}, "podman", append(h.storage("podman"), "pull", "oci:"+v.dir+":"+refNotes)...)
}

func buildahReads(t *testing.T, v *peerView) {
	h := newPeerHome(t)
	h.needEngine("buildah")
	if os.Geteuid() != 0 {
		cannot(t, "buildah run --isolation chroot needs root here")
	}
	image := v.images[runtime.GOARCH]
	if strings.HasPrefix(string(busybox()), "no busybox") {
		cannot(t, "busybox-static is not installed: there is nothing that could run")
	}
	for name, at := range map[string]string{
		"oci": "oci:" + v.dir + ":" + refRelease, "oci-archive": "oci-archive:" + v.archive + ":" + refFull,
		"docker": "docker://" + v.repo + ":" + refRelease,
	} {
		h.buildah("from", "--pull-always", "--tls-verify=false", "--name", name, at)
		if got := h.buildah("run", "--isolation", "chroot", name, "cat", "/etc/os-release"); got != image.release {
			t.Errorf("%s: the container prints %q, want %q", at, got, image.release)
		}
		h.buildah("rm", name)
	}
	h.fails([]string{"no image found in image index"}, "buildah",
		append(h.storage("buildah"), "from", "oci:"+v.dir+":"+refArtifacts)...)
}

// crane knows layouts only as what it pushes and what it pulls to.
func craneReads(t *testing.T, v *peerView) {
	h := newPeerHome(t)
	tags := v.tags(t)
	got := strings.Fields(h.run("crane", "ls", "--insecure", v.repo))
	slices.Sort(got)
	if want := slices.Sorted(maps.Keys(tags)); !slices.Equal(got, want) {
		t.Errorf("ls = %q, want %q", got, want)
	}
	for tag, desc := range tags {
		if got := strings.TrimSpace(h.run("crane", "digest", "--insecure", v.repo+":"+tag)); got != string(desc.Digest) {
			t.Errorf("digest of %s = %s, want %s", tag, got, desc.Digest)
		}
	}
	for _, c := range v.choices() {
		args := []string{"--insecure", "--platform", "linux/" + c.arch, v.repo + ":" + c.ref}
		if c.image == nil {
			h.fails([]string{"no child with platform"}, "crane", append([]string{"config"}, args...)...)
			continue
		}
		if got := strings.TrimSpace(h.run("crane", append([]string{"digest"}, args...)...)); got != string(c.image.manifest.Digest) {
			t.Errorf("digest of %s for %s = %s, want %s", c.ref, c.arch, got, c.image.manifest.Digest)
		}
		if got := digest.FromString(h.run("crane", append([]string{"config"}, args...)...)); got != c.image.config.Digest {
			t.Errorf("config of %s for %s = %s, want %s", c.ref, c.arch, got, c.image.config.Digest)
		}
		if got := fileInTar(t, h.run("crane", append([]string{"export"}, args...)...), "etc/os-release"); got != c.image.release {
			t.Errorf("export of %s for %s: os-release = %q", c.ref, c.arch, got)
		}
	}
	h.run("crane", "validate", "--insecure", "--remote", v.repo+":"+refApp)

	// Our directory, its index.json as it is, with everything below it.
	all := strings.TrimSuffix(v.repo, "test") + "crane:all"
	h.run("crane", "push", "--insecure", "--index", v.dir, all)
	want := digest.FromString(readPeerFile(t, filepath.Join(v.dir, "index.json")))
	if got := strings.TrimSpace(h.run("crane", "digest", "--insecure", all)); got != string(want) {
		t.Errorf("digest of a pushed index.json = %s, want %s", got, want)
	}
	for _, d := range reachable(t, v.dir, v.refs(t)[refNested].Digest) {
		command := "blob"
		if strings.Contains(blobOf(t, v.dir, d)[:20], `"schemaVersion"`) {
			command = "manifest"
		}
		name, _, _ := cutLast(all, ":")
		if got := digest.FromString(h.run("crane", command, "--insecure", name+"@"+string(d))); got != d {
			t.Errorf("%s %s was pushed as %s", command, d, got)
		}
	}
}

func fileInTar(t testing.TB, raw, name string) string {
	t.Helper()
	r := tar.NewReader(strings.NewReader(raw))
	for {
		h, err := r.Next()
		if err != nil {
			t.Fatalf("%s in a tar: %v", name, err)
		}
		if strings.TrimPrefix(h.Name, "./") != name {
			continue
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
}

func regctlReads(t *testing.T, v *peerView) {
	h := newPeerHome(t)
	host, _, _ := strings.Cut(v.repo, "/")
	plain := []string{"--host", "reg=" + host + ",tls=disabled"}
	regctl := func(args ...string) string { return h.run("regctl", append(plain, args...)...) }

	// It shows what stands behind the last colon.
	tags := v.tags(t)
	for _, at := range []string{"ocidir://" + v.dir, v.repo} {
		got := strings.Fields(regctl("tag", "ls", at))
		slices.Sort(got)
		if want := slices.Sorted(maps.Keys(tags)); !slices.Equal(got, want) {
			t.Errorf("tag ls %s = %q, want %q", at, got, want)
		}
		for tag, desc := range tags {
			if got := digest.FromString(regctl("manifest", "get", "--format", "raw-body", at+":"+tag)); got != desc.Digest {
				t.Errorf("manifest get %s:%s = %s, want %s", at, tag, got, desc.Digest)
			}
		}
		for _, c := range v.choices() {
			args := []string{"--platform", "linux/" + c.arch, at + ":" + c.ref}
			if c.image == nil {
				h.fails([]string{"platform not found"}, "regctl", append(slices.Concat(plain, []string{"image", "inspect"}), args...)...)
				continue
			}
			if got := strings.TrimSpace(regctl(append([]string{"image", "digest"}, args...)...)); got != string(c.image.manifest.Digest) {
				t.Errorf("image digest of %s for %s = %s, want %s", c.ref, c.arch, got, c.image.manifest.Digest)
			}
		}
		if got := regctl("artifact", "get", "--file", "notes.md", at+":"+refNotes); got != "# Notes\n" {
			t.Errorf("artifact get %s = %q", at, got)
		}
	}

	// Our .oci, one ref name of it, into a layout and into a registry; our
	// directory, an index in an index.
	out := "ocidir://" + h.path("imported")
	regctl("image", "import", "--name", refRelease, out+":x", v.archive)
	regctl("image", "copy", "ocidir://"+v.dir+":"+refNested, out+":"+refNested)
	remote := strings.TrimSuffix(v.repo, "test") + "regctl"
	regctl("image", "import", "--name", refFull, remote+":v1", v.archive)
	regctl("image", "copy", "ocidir://"+v.dir+":"+refRelease, remote+":"+refRelease)
	for at, ref := range map[string]string{
		out + ":x": refRelease, out + ":" + refNested: refNested, remote + ":v1": refFull, remote + ":" + refRelease: refRelease,
	} {
		if got, want := strings.TrimSpace(regctl("image", "digest", at)), v.refs(t)[ref].Digest; got != string(want) {
			t.Errorf("%s of %s = %s, want %s", ref, at, got, want)
		}
	}
	for _, ref := range []string{refRelease, refNested} {
		for _, d := range reachable(t, v.dir, v.refs(t)[ref].Digest) {
			blobOf(t, h.path("imported"), d)
		}
	}
}

// oras-go is what the oras program, and Garden Linux's glci, read layouts with.
func orasReads(t *testing.T, v *peerView) {
	ctx := t.Context()
	fromDir, err := oci.NewFromFS(ctx, os.DirFS(v.dir))
	if err != nil {
		t.Fatal(err)
	}
	fromTar, err := oci.NewFromTar(ctx, v.archive)
	if err != nil {
		t.Fatal(err)
	}
	for name, store := range map[string]*oci.ReadOnlyStore{"directory": fromDir, ".oci": fromTar} {
		var got []string
		if err := store.Tags(ctx, "", func(tags []string) error { got = append(got, tags...); return nil }); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if want := slices.Sorted(maps.Keys(v.refs(t))); !slices.Equal(got, want) {
			t.Errorf("%s: tags = %q, want %q", name, got, want)
		}
		for ref, want := range v.refs(t) {
			out := filepath.Join(t.TempDir(), "copy")
			to, err := oci.New(out)
			if err != nil {
				t.Fatal(err)
			}
			desc, err := oras.Copy(ctx, store, ref, to, ref, oras.DefaultCopyOptions)
			if err != nil || desc.Digest != want.Digest {
				t.Errorf("%s: copy of %s = %s, %v, want %s", name, ref, desc.Digest, err, want.Digest)
				continue
			}
			for _, d := range reachable(t, v.dir, want.Digest) {
				blobOf(t, out, d)
			}
		}
		for _, c := range v.choices() {
			opts := oras.ResolveOptions{TargetPlatform: platform("linux", c.arch)}
			desc, err := oras.Resolve(ctx, store, c.ref, opts)
			switch {
			case c.image == nil && !errors.Is(err, errdef.ErrNotFound):
				t.Errorf("%s: %s for %s = %s, %v, want %v", name, c.ref, c.arch, desc.Digest, err, errdef.ErrNotFound)
			case c.image != nil && (err != nil || desc.Digest != c.image.manifest.Digest):
				t.Errorf("%s: %s for %s = %s, %v, want %s", name, c.ref, c.arch, desc.Digest, err, c.image.manifest.Digest)
			}
		}
	}
}
