package sync_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// realHome is that of whoever runs the tests.
var realHome = os.Getenv("HOME")

// TestMain keeps the machine's configuration and logins out of the tests, and
// has them work in memory where they can: what they show of registries has
// nothing to do with the fsyncs of thousands of layouts.
func TestMain(m *testing.M) {
	memory := "/dev/shm"
	if os.Getenv("TMPDIR") != "" {
		memory = ""
	}
	home, err := os.MkdirTemp(memory, "sync-test-")
	if err != nil {
		home, err = os.MkdirTemp("", "sync-test-")
	}
	if err != nil {
		panic(err)
	}
	for _, name := range []string{"REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_CONFIG_HOME", "CONTAINERS_REGISTRIES_CONF", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
		_ = os.Unsetenv(name)
	}
	for name, value := range map[string]string{"HOME": home, "XDG_RUNTIME_DIR": home, "TMPDIR": home} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	status := m.Run()
	_ = os.RemoveAll(home)
	os.Exit(status)
}

// muchGarbage has the test collect garbage less often: it makes much of it, and
// keeps little.
func muchGarbage(t *testing.T) {
	before := debug.SetGCPercent(400)
	t.Cleanup(func() { debug.SetGCPercent(before) })
}

// options reach reg without anything of the machine.
func options(t *testing.T, reg *regtest.Registry) layoutsync.RegistryOptions {
	t.Helper()
	dir := t.TempDir()
	opts := layoutsync.RegistryOptions{
		RegistriesConf: write(t, dir, "registries.conf", ""), RegistriesConfDir: filepath.Join(dir, "none"),
		Policy: write(t, dir, "policy.json", `{"default":[{"type":"insecureAcceptAnything"}]}`),
		Tries:  1,
	}
	if reg != nil && reg.CAFile() == "" {
		verify := false
		opts.TLSVerify = &verify
	}
	return opts
}

func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func repository(t *testing.T, reg *regtest.Registry, name string) layoutsync.Repository {
	t.Helper()
	r, err := layoutsync.ParseRepository(reg.Host + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A maker puts content into a stage.
type maker struct {
	t     *testing.T
	stage *layout.Stage
}

func (m maker) blob(content, mediaType string) ocispec.Descriptor {
	m.t.Helper()
	desc, err := m.stage.AddBytes(m.t.Context(), []byte(content), mediaType)
	if err != nil {
		m.t.Fatal(err)
	}
	return desc
}

func (m maker) json(raw []byte, err error, mediaType string) ocispec.Descriptor {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
	return m.blob(string(raw), mediaType)
}

// image makes a container image with these layers.
func (m maker) image(arch string, layers ...string) ocispec.Descriptor {
	m.t.Helper()
	config := m.blob(fmt.Sprintf(`{"architecture":%q,"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`, arch), ocispec.MediaTypeImageConfig)
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config}
	for _, l := range layers {
		manifest.Layers = append(manifest.Layers, m.blob(l, ocispec.MediaTypeImageLayerGzip))
	}
	raw, err := layout.EncodeManifest(manifest)
	desc := m.json(raw, err, ocispec.MediaTypeImageManifest)
	desc.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
	return desc
}

// artifact makes an artifact with one file; a subject may be nil.
func (m maker) artifact(artifactType, content string, subject *ocispec.Descriptor) ocispec.Descriptor {
	m.t.Helper()
	config := ocispec.DescriptorEmptyJSON // with its data
	m.blob("{}", config.MediaType)
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifactType,
		Config: config, Layers: []ocispec.Descriptor{m.blob(content, artifactType+".file")}, Subject: subject,
	}
	raw, err := layout.EncodeManifest(manifest)
	desc := m.json(raw, err, ocispec.MediaTypeImageManifest)
	desc.ArtifactType = artifactType
	return desc
}

func (m maker) index(entries ...ocispec.Descriptor) ocispec.Descriptor {
	m.t.Helper()
	x := layout.NewIndex()
	for _, e := range entries {
		x.Add(e)
	}
	return m.blob(string(x.Bytes()), ocispec.MediaTypeImageIndex)
}

// newLayout makes a layout; fill returns its entries by ref name. A name that
// begins with a space stands for an entry without one.
func newLayout(t *testing.T, fill func(m maker) map[string]ocispec.Descriptor) *layout.Layout {
	t.Helper()
	l, err := layout.Create(t.Context(), filepath.Join(t.TempDir(), "layout"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	edit(t, l, fill)
	return l
}

func edit(t *testing.T, l *layout.Layout, fill func(m maker) map[string]ocispec.Descriptor) {
	t.Helper()
	stage, err := l.Stage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stage.Close()
	entries := fill(maker{t, stage})
	err = stage.Update(t.Context(), func(tx *layout.Tx) error {
		for name, desc := range entries {
			if name[0] == ' ' {
				tx.Index().Add(desc)
			} else {
				tx.SetRef(name, desc)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// everything is a layout with all that a push has to carry: images that share a
// layer and a config, artifacts with embedded data and without layers, nested
// indexes, Docker types, JSON that is not canonical, a full ref name, two ref
// names for one digest, a referrer, and an entry without ref name.
func everything(m maker) map[string]ocispec.Descriptor {
	amd64, arm64 := m.image("amd64", "base", "amd64 layer"), m.image("arm64", "base", "arm64 layer")
	nested := m.index(m.artifact("application/vnd.example.kernel", "kernel", nil), m.artifact("application/vnd.example.initrd", "initrd", nil))
	app := m.index(amd64, arm64, nested)

	config := m.blob(`{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}`, "application/vnd.docker.container.image.v1+json")
	layer := m.blob("base", "application/vnd.docker.image.rootfs.diff.tar.gzip")
	docker := m.blob(fmt.Sprintf("{\n   \"schemaVersion\": 2,\n   \"mediaType\": \"application/vnd.docker.distribution.manifest.v2+json\",\n   \"config\": {\"mediaType\": %q, \"size\": %d, \"digest\": %q},\n   \"x-unknown\": [1.0, {}],\n   \"layers\": [{\"mediaType\": %q, \"size\": %d, \"digest\": %q}]\n}",
		config.MediaType, config.Size, config.Digest, layer.MediaType, layer.Size, layer.Digest), "application/vnd.docker.distribution.manifest.v2+json")
	list := m.blob(fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":[{"mediaType":%q,"size":%d,"digest":%q,"platform":{"architecture":"amd64","os":"linux"}}]}`,
		docker.MediaType, docker.Size, docker.Digest), "application/vnd.docker.distribution.manifest.list.v2+json")

	noLayers := m.blob(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.example.empty","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"data":"e30="},"layers":[]}`, ocispec.MediaTypeImageManifest)
	return map[string]ocispec.Descriptor{
		"1.0": app, "latest": app, "example.org/team/app:docker": list, "empty": noLayers,
		" referrer": m.artifact("application/vnd.example.sbom", "sbom", &amd64),
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

// resolveTags returns what the tags of a repository name.
func resolveTags(t *testing.T, reg *regtest.Registry, name string) map[string]digest.Digest {
	t.Helper()
	opts := options(t, reg)
	if reg.CAFile() != "" {
		opts.CertDir = filepath.Dir(reg.CAFile())
	}
	src, err := layoutsync.OpenSource(context.WithoutCancel(t.Context()), layout.Reference{Transport: "docker", Location: reg.Host + "/" + name}, &opts)
	if err != nil {
		return map[string]digest.Digest{"error: " + err.Error(): ""}
	}
	defer src.Close()
	x, err := src.Index(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tags := map[string]digest.Digest{}
	for _, e := range x.Entries() {
		tags[layout.RefName(e)] = e.Digest
	}
	return tags
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
