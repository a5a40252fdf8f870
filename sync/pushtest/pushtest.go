// Package pushtest has what tests of pushing and publishing share: layouts to
// push, options and repositories of a registry that is started for a test, and a
// home directory without the machine's configuration.
package pushtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// RealHome is that of whoever runs the tests.
var RealHome = os.Getenv("HOME")

// Main runs the tests of a package, for its TestMain, and returns the exit status.
// It keeps the machine's configuration and logins out of them, and has them work
// in memory where they can: what they show of registries has nothing to do with
// the fsyncs of thousands of layouts.
func Main(m *testing.M) int {
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
	return status
}

// MuchGarbage has the test collect garbage less often: it makes much of it, and
// keeps little.
func MuchGarbage(t *testing.T) {
	before := debug.SetGCPercent(400)
	t.Cleanup(func() { debug.SetGCPercent(before) })
}

// Options reach reg without anything of the machine.
func Options(t *testing.T, reg *regtest.Registry) layoutsync.RegistryOptions {
	t.Helper()
	dir := t.TempDir()
	opts := layoutsync.RegistryOptions{
		RegistriesConf: WriteFile(t, dir, "registries.conf", ""), RegistriesConfDir: filepath.Join(dir, "none"),
		Policy: WriteFile(t, dir, "policy.json", `{"default":[{"type":"insecureAcceptAnything"}]}`),
		Tries:  1,
	}
	if reg != nil && reg.CAFile() == "" {
		verify := false
		opts.TLSVerify = &verify
	}
	return opts
}

// WriteFile writes a file that its owner alone may read, and returns its path.
func WriteFile(t *testing.T, dir, name, content string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Repository is one of reg.
func Repository(t *testing.T, reg *regtest.Registry, name string) layoutsync.Repository {
	t.Helper()
	r, err := layoutsync.ParseRepository(reg.Host + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Seeds is how many random runs are made; the variable GLOCI_SEEDS says more.
func Seeds(t *testing.T, few int) int {
	t.Helper()
	if s := os.Getenv("GLOCI_SEEDS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if testing.Short() {
		return few / 25
	}
	return few
}

// A Maker puts content into a stage.
type Maker struct {
	T     *testing.T
	Stage *layout.Stage
}

// Blob makes a blob with this content.
func (m Maker) Blob(content, mediaType string) ocispec.Descriptor {
	m.T.Helper()
	desc, err := m.Stage.AddBytes(m.T.Context(), []byte(content), mediaType)
	if err != nil {
		m.T.Fatal(err)
	}
	return desc
}

// JSON makes a blob of what an encoder has returned.
func (m Maker) JSON(raw []byte, err error, mediaType string) ocispec.Descriptor {
	m.T.Helper()
	if err != nil {
		m.T.Fatal(err)
	}
	return m.Blob(string(raw), mediaType)
}

// Image makes a container image with these layers.
func (m Maker) Image(arch string, layers ...string) ocispec.Descriptor {
	m.T.Helper()
	config := m.Blob(fmt.Sprintf(`{"architecture":%q,"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`, arch), ocispec.MediaTypeImageConfig)
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config}
	for _, l := range layers {
		manifest.Layers = append(manifest.Layers, m.Blob(l, ocispec.MediaTypeImageLayerGzip))
	}
	raw, err := layout.EncodeManifest(manifest)
	desc := m.JSON(raw, err, ocispec.MediaTypeImageManifest)
	desc.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
	return desc
}

// Artifact makes an artifact with one file; a subject may be nil.
func (m Maker) Artifact(artifactType, content string, subject *ocispec.Descriptor) ocispec.Descriptor {
	m.T.Helper()
	config := ocispec.DescriptorEmptyJSON // with its data
	m.Blob("{}", config.MediaType)
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifactType,
		Config: config, Layers: []ocispec.Descriptor{m.Blob(content, artifactType+".file")}, Subject: subject,
	}
	raw, err := layout.EncodeManifest(manifest)
	desc := m.JSON(raw, err, ocispec.MediaTypeImageManifest)
	desc.ArtifactType = artifactType
	return desc
}

// Index makes an index.
func (m Maker) Index(entries ...ocispec.Descriptor) ocispec.Descriptor {
	m.T.Helper()
	x := layout.NewIndex()
	for _, e := range entries {
		x.Add(e)
	}
	return m.Blob(string(x.Bytes()), ocispec.MediaTypeImageIndex)
}

// NewLayout makes a layout; fill returns its entries by ref name. A name that
// begins with a space stands for an entry without one.
func NewLayout(t *testing.T, fill func(m Maker) map[string]ocispec.Descriptor) *layout.Layout {
	t.Helper()
	l, err := layout.Create(t.Context(), filepath.Join(t.TempDir(), "layout"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	Edit(t, l, fill)
	return l
}

// Edit adds to a layout what fill returns, as NewLayout does.
func Edit(t *testing.T, l *layout.Layout, fill func(m Maker) map[string]ocispec.Descriptor) {
	t.Helper()
	stage, err := l.Stage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stage.Close() //nolint:errcheck // what counts is in the layout
	entries := fill(Maker{t, stage})
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

// ResolveTags returns what the tags of a repository name.
func ResolveTags(t *testing.T, reg *regtest.Registry, name string) map[string]digest.Digest {
	t.Helper()
	opts := Options(t, reg)
	if reg.CAFile() != "" {
		opts.CertDir = filepath.Dir(reg.CAFile())
	}
	src, err := layoutsync.OpenSource(context.WithoutCancel(t.Context()), layout.Reference{Transport: "docker", Location: reg.Host + "/" + name}, &opts)
	if err != nil {
		return map[string]digest.Digest{"error: " + err.Error(): ""}
	}
	defer src.Close() //nolint:errcheck // only read
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
