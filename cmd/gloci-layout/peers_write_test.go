//go:build linux

package main_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/oci"
)

func skopeoWrites(t *testing.T, v *peerView) {
	h := newPeerHome(t)
	from := "oci:" + v.dir + ":"
	app, half := v.images[runtime.GOARCH], v.refs(t)[refHalf].Digest
	copyTo := func(to string, args ...string) {
		h.run("skopeo", append(append([]string{"copy", "--dest-tls-verify=false"}, args...), to)...)
	}

	dir := h.path("oci")
	copyTo("oci:"+dir+":one", from+refApp)
	copyTo("oci:"+dir+":example.org/half:v1", "--all", from+refHalf)
	copyTo("oci:"+dir+":notes", from+refNotes)
	h.readTheirs(v, "oci:"+dir, theirs{"one", app.manifest.Digest, &app}, theirs{"example.org/half:v1", half, nil},
		theirs{"notes", v.refs(t)[refNotes].Digest, nil})

	copyTo("oci-archive:"+h.path("a.oci")+":example.org/one:v1", from+refApp)
	h.readTheirs(v, "oci-archive:"+h.path("a.oci"), theirs{"example.org/one:v1", app.manifest.Digest, &app})

	copyTo("dir:"+h.path("d"), from+refApp)
	h.readTheirs(v, "dir:"+h.path("d"), theirs{"", app.manifest.Digest, &app})
	copyTo("dir:"+h.path("d-all"), "--all", from+refHalf)
	h.readTheirs(v, "dir:"+h.path("d-all"), theirs{"", half, nil})

	copyTo("docker-archive:"+h.path("docker.tar")+":example.org/one:v1", from+refApp)
	h.readTheirs(v, "docker-archive:"+h.path("docker.tar"), theirs{"example.org/one:v1", "", &app})

	// Docker's media types, from a registry: nothing of it is turned into OCI's.
	docker := strings.TrimSuffix(v.repo, "test") + "docker"
	copyTo("docker://"+docker+":one", "--format", "v2s2", from+refApp)
	list := newRawLayout(t, h.path("list"))
	mine, theirs := list.runnable(runtime.GOARCH, "list").manifest, list.runnable(otherArch(), "list").manifest
	mine.Platform, theirs.Platform = platform("linux", runtime.GOARCH), platform("linux", otherArch())
	list.index(named(list.nested(mine, theirs), "list"))
	copyTo("docker://"+docker+":list", "--all", "--format", "v2s2", "oci:"+list.dir+":list")
	ours := h.path("from-docker")
	mustRun(t, h.dir, "init", ours)
	mustRun(t, h.dir, "add", "image", "--tls-verify=false", "--all", ours, "docker://"+docker)
	mustRun(t, h.dir, "verify", ours)
	for tag, mediaType := range map[string]string{
		"one":  "application/vnd.docker.distribution.manifest.v2+json",
		"list": "application/vnd.docker.distribution.manifest.list.v2+json",
	} {
		got, want := refsOf(t, ours)[tag], registryDigest(t, docker, tag)
		if got.Digest != want || got.MediaType != mediaType {
			t.Errorf("add image docker://: %s = %s %s, want %s %s", tag, got.MediaType, got.Digest, mediaType, want)
		}
	}
	mustRun(t, h.dir, "sync", "--tls-verify=false", ours, "docker://"+docker+"-again")
	for tag, desc := range refsOf(t, ours) {
		if got := registryDigest(t, docker+"-again", tag); got != desc.Digest {
			t.Errorf("sync of Docker's media types: %s = %s, want %s", tag, got, desc.Digest)
		}
	}
}

func umociWrites(t *testing.T, v *peerView) {
	h := newPeerHome(t)
	dir := h.path("umoci")
	rootless := func(args ...string) []string {
		if os.Geteuid() != 0 {
			return slices.Insert(args, 1, "--rootless")
		}
		return args
	}
	writePeerFile(t, h.path("file"), "inserted\n")
	h.run("umoci", "init", "--layout", dir)
	if rows := mustRun(t, h.dir, "ls", "--json", dir).stdout; rows != "" {
		t.Errorf("ls of an empty layout = %q", rows)
	}
	h.run("umoci", "new", "--image", dir+":new")
	h.run("umoci", rootless("insert", "--image", dir+":new", h.path("file"), "/srv/file")...)
	h.run("umoci", rootless("unpack", "--image", dir+":new", h.path("bundle"))...)
	writePeerFile(t, h.path("bundle/rootfs/srv/more"), "repacked\n")
	h.run("umoci", "repack", "--image", dir+":repacked", h.path("bundle"))
	h.run("umoci", "config", "--image", dir+":repacked", "--tag", "labeled", "--config.label", "org.example.note=a, b")

	var want []theirs
	for name, desc := range refsOf(t, dir) {
		want = append(want, theirs{name, desc.Digest, nil})
	}
	if len(want) != 3 {
		t.Fatalf("umoci wrote %+v, want 3 ref names", want)
	}
	h.readTheirs(v, "oci:"+dir, want...)
	labeled := refsOf(t, dir)["labeled"]
	config := decode[ocispec.Image](t, mustRun(t, h.dir, "inspect", "--raw", "--config", dir+":labeled").stdout)
	if got := config.Config.Labels["org.example.note"]; got != "a, b" {
		t.Errorf("inspect --config: label = %q", got)
	}
	m := decode[ocispec.Manifest](t, mustRun(t, h.dir, "inspect", "--raw", dir+"@"+string(labeled.Digest)).stdout)
	if len(m.Layers) != 2 || len(config.RootFS.DiffIDs) != 2 {
		t.Fatalf("%d layers and %d diffIDs, want 2 of each", len(m.Layers), len(config.RootFS.DiffIDs))
	}
	for i, file := range []struct{ name, content string }{{"srv/file", "inserted\n"}, {"srv/more", "repacked\n"}} {
		layer := mustRun(t, h.dir, "cat", dir+"@"+string(m.Layers[i].Digest)).stdout
		if got := uncompressed(t, layer); got != config.RootFS.DiffIDs[i] {
			t.Errorf("layer %d has diffID %s, want %s", i, got, config.RootFS.DiffIDs[i])
		}
		r, err := gzip.NewReader(strings.NewReader(layer))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if got := fileInTar(t, string(raw), file.name); got != file.content {
			t.Errorf("%s of layer %d = %q, want %q", file.name, i, got, file.content)
		}
	}
}

func podmanWrites(t *testing.T, v *peerView) {
	h := newPeerHome(t)
	h.needEngine("podman")
	app, name := v.images[runtime.GOARCH], "example.org/saved:v1"
	h.podman("tag", strings.TrimSpace(h.podman("pull", "--quiet", "oci:"+v.dir+":"+refRelease)), name)
	for _, format := range []string{"oci-archive", "docker-archive", "oci-dir", "docker-dir"} {
		out := h.path("save-" + format)
		h.podman("save", "--quiet", "--format", format, "--output", out, name)
		want := theirs{name, "", &app}
		source := format + ":" + out
		switch format {
		case "oci-dir":
			source = "oci:" + out
			want.digest = refsOf(t, out)[name].Digest
		case "docker-dir":
			source, want.refName = "dir:"+out, ""
			want.digest = digest.FromString(readPeerFile(t, filepath.Join(out, "manifest.json")))
		}
		h.readTheirs(v, source, want)
	}
	// Two images in one file, as docker save makes it too.
	both := h.path("both")
	h.podman("tag", name, "example.org/other:v2")
	h.podman("save", "--quiet", "--multi-image-archive", "--format", "docker-archive", "--output", both, name, "example.org/other:v2")
	h.readTheirs(v, "docker-archive:"+both, theirs{name, "", &app}, theirs{"example.org/other:v2", "", &app})
}

func buildahWrites(t *testing.T, v *peerView) {
	h := newPeerHome(t)
	h.needEngine("buildah")
	app, name := v.images[runtime.GOARCH], "example.org/pushed:v1"
	id := strings.TrimSpace(h.buildah("pull", "--quiet", "oci-archive:"+v.archive+":"+refRelease))
	for _, to := range []string{"oci", "oci-archive", "docker-archive"} {
		out := h.path("push-" + to)
		h.buildah("push", "--quiet", id, to+":"+out+":"+name)
		want := theirs{name, "", &app}
		if to == "oci" {
			want.digest = refsOf(t, out)[name].Digest
		}
		h.readTheirs(v, to+":"+out, want)
	}
}

func craneWrites(t *testing.T, v *peerView) {
	h := newPeerHome(t)
	out := h.path("oci")
	var want []theirs
	app := v.images[runtime.GOARCH]
	for _, ref := range []string{refApp, refRelease, refNested, refNotes} {
		h.run("crane", "pull", "--insecure", "--format", "oci", "--annotate-ref", v.repo+":"+ref, out)
		w := theirs{v.repo + ":" + ref, v.refs(t)[ref].Digest, nil}
		if ref == refApp {
			w.image = &app
		}
		want = append(want, w)
	}
	// Without a ref name too.
	h.run("crane", "pull", "--insecure", "--format", "oci", v.repo+":"+refHalf, out)
	h.readTheirs(v, out, append(want, theirs{"", v.refs(t)[refHalf].Digest, nil})...)

	other := v.images[otherArch()]
	for _, format := range []string{"tarball", "legacy"} {
		file := h.path(format + ".tar")
		h.run("crane", "pull", "--insecure", "--format", format, "--platform", "linux/"+otherArch(), v.repo+":"+refRelease, file)
		h.readTheirs(v, "docker-archive:"+file, theirs{v.repo + ":" + refRelease, "", &other})
	}
}

func regctlWrites(t *testing.T, v *peerView) {
	h := newPeerHome(t)
	host, _, _ := strings.Cut(v.repo, "/")
	plain := []string{"--host", "reg=" + host + ",tls=disabled"}
	regctl := func(args ...string) string { return h.run("regctl", append(plain, args...)...) }

	out := h.path("ocidir")
	app := v.images[runtime.GOARCH]
	regctl("image", "copy", v.repo+":"+refRelease, "ocidir://"+out+":release")
	regctl("image", "copy", v.repo+":"+refNested, "ocidir://"+out+":nested")
	regctl("image", "copy", v.repo+":v1", "ocidir://"+out+":v1")
	regctl("artifact", "put", "--artifact-type", typeNotes, "--file", filepath.Join(v.dir, "index.json"), "ocidir://"+out+":put")
	h.readTheirs(v, out, theirs{"release", v.refs(t)[refRelease].Digest, nil}, theirs{"nested", v.refs(t)[refNested].Digest, nil},
		theirs{"v1", app.manifest.Digest, &app}, theirs{"put", refsOf(t, out)["put"].Digest, nil})

	file := h.path("all.tar")
	regctl("image", "export", v.repo+":"+refRelease, file)
	h.readTheirs(v, file, theirs{refRelease, v.refs(t)[refRelease].Digest, nil})

	// One file that is both.
	other := v.images[otherArch()]
	file = h.path("one.tar")
	regctl("image", "export", "--platform", "linux/"+otherArch(), "--name", "example.org/exported:v1", v.repo+":"+refRelease, file)
	oci := decodeLines[listed](t, mustRun(t, h.dir, "ls", "--json", "oci-archive:"+file).stdout)
	if len(oci) != 1 || oci[0].Digest != other.manifest.Digest {
		t.Fatalf("ls of an exported image = %+v, want %s", oci, other.manifest.Digest)
	}
	h.readTheirs(v, "oci-archive:"+file, theirs{oci[0].RefName, other.manifest.Digest, &other})
	h.readTheirs(v, "docker-archive:"+file, theirs{"example.org/exported:v1", "", &other})
}

func orasWrites(t *testing.T, v *peerView) {
	h := newPeerHome(t)
	ctx, dir := t.Context(), h.path("store")
	store, err := oci.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	// What it is given, byte by byte.
	from, err := oci.NewFromFS(ctx, os.DirFS(v.dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{refRelease, refApp, refNested} {
		if _, err := oras.Copy(ctx, from, ref, store, ref, oras.DefaultCopyOptions); err != nil {
			t.Fatal(err)
		}
	}
	// What it makes: an artifact about an image, under two names and under none.
	layer, err := oras.PushBytes(ctx, store, "text/markdown", []byte("# About\n"))
	if err != nil {
		t.Fatal(err)
	}
	layer.Annotations = map[string]string{"org.opencontainers.image.title": "about.md"}
	subject := v.images[runtime.GOARCH].manifest
	about, err := oras.PackManifest(ctx, store, oras.PackManifestVersion1_1, "application/vnd.example.about", oras.PackManifestOptions{
		Subject: &subject, Layers: []ocispec.Descriptor{layer},
		ManifestAnnotations: map[string]string{"org.opencontainers.image.created": "2026-01-01T00:00:00Z", "org.example.note": "a, b"},
	})
	old, oldErr := oras.PackManifest(ctx, store, oras.PackManifestVersion1_0, "application/vnd.example.old", oras.PackManifestOptions{
		Layers:              []ocispec.Descriptor{layer},
		ManifestAnnotations: map[string]string{"org.opencontainers.image.created": "2026-01-01T00:00:00Z"},
	})
	if err := errors.Join(err, oldErr, store.Tag(ctx, about, "about"), store.Tag(ctx, about, "example.org/about:v1")); err != nil {
		t.Fatal(err)
	}
	// An index of them.
	raw := encodeIndex(t, about, old)
	list := content.NewDescriptorFromBytes(testTypeIndex, raw)
	if err := errors.Join(store.Push(ctx, list, bytes.NewReader(raw)), store.Tag(ctx, list, "list")); err != nil {
		t.Fatal(err)
	}
	app := v.images[runtime.GOARCH]
	want := []theirs{
		{refRelease, v.refs(t)[refRelease].Digest, nil},
		{refApp, app.manifest.Digest, &app},
		{refNested, v.refs(t)[refNested].Digest, nil},
		{"about", about.Digest, nil},
		{"example.org/about:v1", about.Digest, nil},
		{"list", list.Digest, nil},
	}
	// It also lists what has no name of its own, in its index.json.
	for _, desc := range decode[ocispec.Index](t, readPeerFile(t, filepath.Join(dir, "index.json"))).Manifests {
		if desc.Annotations["org.opencontainers.image.ref.name"] == "" {
			want = append(want, theirs{"", desc.Digest, nil})
		}
	}
	h.readTheirs(v, dir, want...)
	got := decode[ocispec.Manifest](t, mustRun(t, h.dir, "inspect", "--raw", dir+":about").stdout)
	if got.Subject == nil || got.Subject.Digest != subject.Digest || got.Annotations["org.example.note"] != "a, b" ||
		got.ArtifactType != "application/vnd.example.about" {
		t.Errorf("inspect of an artifact of oras-go = %+v", got)
	}
}

// encodeIndex makes the bytes of an index.
func encodeIndex(t testing.TB, entries ...ocispec.Descriptor) []byte {
	t.Helper()
	r := &rawLayout{t: t}
	return []byte(r.encode(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: testTypeIndex, Manifests: entries}))
}
