//go:build linux

package main_test

import (
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// An archiveForm is a way in which pack writes one layout.
type archiveForm struct {
	file   string
	args   []string
	docker bool // has a manifest.json
	// Debian 12's containers/image takes no docker-archive in gzip, also none
	// that others wrote; docker load does. What is not claimed is not tested.
	unclaimed bool
}

func archiveForms() []archiveForm {
	return []archiveForm{
		{file: "plain.oci"},
		{file: "gzip.oci.gz"},
		{file: "zstd.oci.zst"},
		{file: "docker.oci", args: []string{"--docker"}, docker: true},
		{file: "docker.oci.zst", args: []string{"--docker"}, docker: true},
		{file: "docker.oci.gz", args: []string{"--docker"}, docker: true, unclaimed: true},
		{file: "joined.oci", args: []string{"--split", "300K"}},
	}
}

// packForms packs what ref names in all forms, and joins parts as cat does.
func packForms(t *testing.T, h *peerHome, v *peerView, ref string) []archiveForm {
	t.Helper()
	forms := archiveForms()
	for _, f := range forms {
		mustRun(t, h.dir, append([]string{"pack", v.dir + ":" + ref, f.file}, f.args...)...)
	}
	list, err := filepath.Glob(h.path("joined.oci.*-of-*"))
	if err != nil || len(list) < 2 {
		t.Fatalf("parts: %q, %v", list, err)
	}
	var whole strings.Builder
	for _, part := range list {
		whole.WriteString(readPeerFile(t, part))
	}
	if whole.String() != readPeerFile(t, h.path("plain.oci")) {
		t.Error("parts that are joined are not the archive")
	}
	writePeerFile(t, h.path("joined.oci"), whole.String())
	return forms
}

// skopeo, podman and buildah: every form as what it is.
func archivesForContainers(t *testing.T, v *peerView) {
	h := newPeerHome(t)
	h.needEngine("podman")
	h.needEngine("buildah")
	image := v.images[runtime.GOARCH]
	id := image.config.Digest.Encoded()
	for _, f := range packForms(t, h, v, refFull) {
		out := h.path("dir-" + f.file)
		h.run("skopeo", "copy", "oci-archive:"+f.file+":"+refFull, "dir:"+out)
		checkDirTransport(t, out, &image)
		if f.docker && !f.unclaimed {
			// As it says itself: docker-archive is read without its layers'
			// compression, so the config is what stays.
			out := h.path("docker-dir-" + f.file)
			h.run("skopeo", "copy", "docker-archive:"+f.file+":"+refFull, "dir:"+out)
			if got := readPeerFile(t, filepath.Join(out, id)); got != blobOf(t, v.dir, image.config.Digest) {
				t.Errorf("%s: skopeo reads another config", f.file)
			}
		}
		if !f.unclaimed {
			h.podman("load", "--quiet", "--input", f.file)
			if got := strings.Fields(h.podman("images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}")); !slices.Equal(got, []string{"sha256:" + id, refFull}) {
				t.Errorf("podman load %s: %q, want %s as %s", f.file, got, id, refFull)
			}
			h.podman("rmi", "--force", id)
		}
	}
	for name, from := range map[string]string{
		"a": "oci-archive:zstd.oci.zst:" + refFull, "b": "oci-archive:gzip.oci.gz:" + refFull, "c": "docker-archive:docker.oci:" + refFull, "d": "docker-archive:docker.oci.zst:" + refFull,
	} {
		h.buildah("from", "--pull-always", "--name", name, from)
		if got := h.buildah("inspect", "--format", "{{.FromImageID}}", name); strings.TrimSpace(got) != id {
			t.Errorf("buildah from %s: image %s, want %s", from, got, id)
		}
		h.buildah("rm", name)
	}
}

// containerd, and umoci on what tar has unpacked.
func archivesForOthers(t *testing.T, v *peerView) {
	h := newPeerHome(t)
	image := v.images[runtime.GOARCH]
	forms := packForms(t, h, v, refApp)
	for _, f := range forms {
		dir := h.path("umoci-" + f.file)
		mustRun(t, h.dir, "init", dir) // a directory; tar writes over all of it
		h.run("tar", "--auto-compress", "-xf", f.file, "-C", dir)
		if got := strings.TrimSpace(h.run("umoci", "list", "--layout", dir)); got != refApp {
			t.Errorf("%s: umoci lists %q, want %s", f.file, got, refApp)
		}
	}
	ctr := startContainerd(t, h)
	for _, f := range forms {
		if !strings.HasSuffix(f.file, ".oci") {
			continue // ctr decompresses nothing
		}
		name := "example.org/" + strings.ReplaceAll(f.file, ".", "-")
		r := ctr("images", "import", "--no-unpack", "--base-name", name, h.path(f.file))
		images := ctr("images", "ls").stdout
		if r.exit != 0 || !strings.Contains(images, name+":"+refApp+" ") || !strings.Contains(images, string(image.manifest.Digest)) {
			t.Errorf("import of %s: exit %d\n%s%s", f.file, r.exit, r.stderr, images)
		}
		for _, line := range strings.Split(images, "\n")[1:] {
			if fields := strings.Fields(line); len(fields) > 0 {
				ctr("images", "rm", "--sync", fields[0])
			}
		}
	}
}

// What pack --docker wrote is read by this program as a docker-archive, too.
func archivesForUs(t *testing.T, v *peerView) {
	h := newPeerHome(t)
	image := v.images[runtime.GOARCH]
	for _, f := range packForms(t, h, v, refFull) {
		mustRun(t, h.dir, "verify", f.file)
		if !f.docker {
			continue
		}
		r := mustRun(t, h.dir, "inspect", "docker-archive:"+f.file+":"+refFull)
		if !strings.Contains(r.stdout, string(image.config.Digest)) {
			t.Errorf("%s: read as a docker-archive: %s", f.file, r.stdout)
		}
	}
}
