package sync_test

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/sync/pushtest"
	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// TestMain keeps the machine out of the tests.
func TestMain(m *testing.M) { os.Exit(pushtest.Main(m)) }

// everything is a layout with all that a push has to carry: images that share a
// layer and a config, artifacts with embedded data and without layers, nested
// indexes, Docker types, JSON that is not canonical, a full ref name, two ref
// names for one digest, a referrer, and an entry without ref name.
func everything(m pushtest.Maker) map[string]ocispec.Descriptor {
	amd64, arm64 := m.Image("amd64", "base", "amd64 layer"), m.Image("arm64", "base", "arm64 layer")
	nested := m.Index(m.Artifact("application/vnd.example.kernel", "kernel", nil), m.Artifact("application/vnd.example.initrd", "initrd", nil))
	app := m.Index(amd64, arm64, nested)

	config := m.Blob(`{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}`, "application/vnd.docker.container.image.v1+json")
	layer := m.Blob("base", "application/vnd.docker.image.rootfs.diff.tar.gzip")
	docker := m.Blob(fmt.Sprintf("{\n   \"schemaVersion\": 2,\n   \"mediaType\": \"application/vnd.docker.distribution.manifest.v2+json\",\n   \"config\": {\"mediaType\": %q, \"size\": %d, \"digest\": %q},\n   \"x-unknown\": [1.0, {}],\n   \"layers\": [{\"mediaType\": %q, \"size\": %d, \"digest\": %q}]\n}",
		config.MediaType, config.Size, config.Digest, layer.MediaType, layer.Size, layer.Digest), "application/vnd.docker.distribution.manifest.v2+json")
	list := m.Blob(fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":[{"mediaType":%q,"size":%d,"digest":%q,"platform":{"architecture":"amd64","os":"linux"}}]}`,
		docker.MediaType, docker.Size, docker.Digest), "application/vnd.docker.distribution.manifest.list.v2+json")

	noLayers := m.Blob(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.example.empty","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"data":"e30="},"layers":[]}`, ocispec.MediaTypeImageManifest)
	return map[string]ocispec.Descriptor{
		"1.0": app, "latest": app, "example.org/team/app:docker": list, "empty": noLayers,
		" referrer": m.Artifact("application/vnd.example.sbom", "sbom", &amd64),
	}
}

// sizes of everything: tags, documents, blobs, subjects
const (
	tagsOfEverything      = 4
	documentsOfEverything = 10 // app, amd64, arm64, nested, kernel, initrd, list, docker, empty, sbom
	blobsOfEverything     = 10 // 2 + 1 configs, "{}", base, 2 layers, kernel, initrd, sbom
)

// compareTrees checks that dest has every blob that the roots of src lead to,
// byte for byte.
func compareTrees(t *testing.T, src, dest layout.Source, roots []ocispec.Descriptor) {
	t.Helper()
	n := 0
	for node, err := range layout.Walk(t.Context(), src, roots, nil) {
		if err != nil {
			t.Fatal(err)
		}
		plain := ocispec.Descriptor{MediaType: node.Desc.MediaType, Digest: node.Desc.Digest, Size: node.Desc.Size}
		want, err := layout.ReadAll(t.Context(), src, node.Desc, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		got, err := layout.ReadAll(t.Context(), dest, plain, 1<<20)
		if err != nil {
			t.Errorf("%s: %v", dest, err)
			continue
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs", node.Desc.Digest)
		}
		n++
	}
	if n == 0 {
		t.Error("nothing was compared")
	}
}

// counts sums up the requests by method and kind of path.
func counts(reg *regtest.Registry) map[string]int {
	n := map[string]int{}
	for _, r := range reg.Requests() {
		parts := bytes.Split([]byte(r.Path), []byte("/"))
		kind := "other"
		switch {
		case r.Path == "/v2/":
			kind = "ping"
		case r.Path == "/token":
			kind = "token"
		case slices.ContainsFunc(parts, func(p []byte) bool { return string(p) == "uploads" }):
			kind = "upload"
		case slices.ContainsFunc(parts, func(p []byte) bool { return string(p) == "manifests" }):
			kind = "manifest"
		case slices.ContainsFunc(parts, func(p []byte) bool { return string(p) == "blobs" }):
			kind = "blob"
		}
		n[r.Method+" "+kind]++
	}
	return n
}
