package sync_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
	"github.com/gardenlinux/gloci-layout/sync/pushtest"
	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

func open(t *testing.T, reg *regtest.Registry, ref string) (layout.Source, error) {
	t.Helper()
	parsed, err := layout.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	opts := pushtest.Options(t, reg)
	src, err := layoutsync.OpenSource(t.Context(), parsed, &opts)
	if err == nil {
		t.Cleanup(func() {
			if err := src.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return src, err
}

// TestRemote reads a repository as a layout, by tag, by digest and whole.
func TestRemote(t *testing.T) {
	reg := regtest.Start(t, nil)
	l := pushtest.NewLayout(t, everything)
	if _, err := layoutsync.Push(t.Context(), l, pushtest.Repository(t, reg, "team/app"), &layoutsync.PushOptions{Registry: pushtest.Options(t, reg)}); err != nil {
		t.Fatal(err)
	}
	app := digestOf(t, l, "1.0")
	base := "docker://" + reg.Host + "/team/app"
	for _, tt := range []struct {
		ref  string
		want []string // ref names
	}{
		{base + ":1.0", []string{"1.0"}},
		{base + "@" + string(app), []string{""}},
		{base + ":1.0@" + string(app), []string{"1.0"}},
	} {
		src, err := open(t, reg, tt.ref)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range entries(t, src) {
			got = append(got, layout.RefName(e))
			if e.Digest != app {
				t.Errorf("%s lists %s, want %s", tt.ref, e.Digest, app)
			}
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.ref, diff)
		}
		if src.String() != tt.ref {
			t.Errorf("String = %q, want %q", src, tt.ref)
		}
		compareTrees(t, l, src, entries(t, src))
	}

	src, err := open(t, reg, base)
	if err != nil {
		t.Fatal(err)
	}
	var stored []layout.BlobInfo
	for info, err := range src.Blobs(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, info)
	}
	if !slices.IsSortedFunc(stored, func(a, b layout.BlobInfo) int { return bytes.Compare([]byte(a.Digest), []byte(b.Digest)) }) {
		t.Error("Blobs are not sorted")
	}
	for info, err := range l.Blobs(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if got, err := src.Stat(t.Context(), info.Digest); err != nil || got != info {
			t.Errorf("Stat(%s) = %v, %v", info.Digest, got, err)
		}
		if !slices.Contains(stored, info) {
			t.Errorf("Blobs lacks %s", info.Digest)
		}
	}
	none := digest.FromString("none")
	if _, err := src.Stat(t.Context(), none); !errors.Is(err, layout.ErrNotFound) {
		t.Errorf("Stat of nothing = %v", err)
	}
	if _, err := src.Blob(t.Context(), ocispec.Descriptor{MediaType: "text/plain", Digest: none, Size: 4}); !errors.Is(err, layout.ErrNotFound) {
		t.Errorf("Blob of nothing = %v", err)
	}
	for _, ref := range []string{base + ":none", base + "@" + string(none), base + "/none"} {
		if _, err := open(t, reg, ref); !errors.Is(err, layout.ErrNotFound) {
			t.Errorf("open %s = %v, want ErrNotFound", ref, err)
		}
	}
}

// TestRegistryToRegistry copies between repositories of two registries; each
// manifest is read once.
func TestRegistryToRegistry(t *testing.T) {
	from, to := regtest.Start(t, nil), regtest.Start(t, nil)
	l := pushtest.NewLayout(t, everything)
	if _, err := layoutsync.Push(t.Context(), l, pushtest.Repository(t, from, "app"), &layoutsync.PushOptions{Registry: pushtest.Options(t, from)}); err != nil {
		t.Fatal(err)
	}
	src, err := open(t, from, "docker://"+from.Host+"/app")
	if err != nil {
		t.Fatal(err)
	}
	from.Reset()
	if _, err := layoutsync.Push(t.Context(), src, pushtest.Repository(t, to, "copy"), &layoutsync.PushOptions{Registry: pushtest.Options(t, to)}); err != nil {
		t.Fatal(err)
	}
	got := counts(from)
	compareTrees(t, src, openRemote(t, to, "copy"), entries(t, src))
	// The list of referrers is one more document here.
	if got["GET manifest"] != documentsOfEverything+1 {
		t.Errorf("%d requests for manifests, want %d", got["GET manifest"], documentsOfEverything+1)
	}
	if diff := cmp.Diff(pushtest.ResolveTags(t, from, "app"), pushtest.ResolveTags(t, to, "copy")); diff != "" {
		t.Errorf("tags (-source +copy):\n%s", diff)
	}
}

// skopeo runs skopeo, or skips the test where there is none.
func skopeo(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("skopeo")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("SKIPPED: skopeo is not installed")
	}
	policy := pushtest.WriteFile(t, t.TempDir(), "policy.json", `{"default":[{"type":"insecureAcceptAnything"}]}`)
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), path, append([]string{"--policy", policy}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("skopeo %v: %v\n%s", args, err, out)
	}
}

// pullable makes a layout whose image has a layer that is a tar.
func pullable(t *testing.T) *layout.Layout {
	t.Helper()
	file, err := os.ReadFile("testdata/layer.tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	return pushtest.NewLayout(t, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		diffID := "sha256:" + readString(t, "testdata/layer.diffid")
		layer := m.Blob(string(file), ocispec.MediaTypeImageLayerGzip)
		config := m.Blob(`{"architecture":"amd64","os":"linux","config":{"Cmd":["/hello"]},"rootfs":{"type":"layers","diff_ids":["`+diffID+`"]},"history":[{"created_by":"test"}]}`, ocispec.MediaTypeImageConfig)
		raw, err := layout.EncodeManifest(ocispec.Manifest{Config: config, Layers: []ocispec.Descriptor{layer}})
		return map[string]ocispec.Descriptor{"hello": m.JSON(raw, err, ocispec.MediaTypeImageManifest)}
	})
}

func readString(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(b))
}

// TestDir reads what skopeo wrote, an index and all its members, with all
// digests as they were.
func TestDir(t *testing.T) {
	l := pushtest.NewLayout(t, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		return map[string]ocispec.Descriptor{"app": m.Index(m.Image("amd64", "base", "one"), m.Image("arm64", "base", "two"))}
	})
	dir := filepath.Join(t.TempDir(), "dir")
	skopeo(t, "copy", "--all", "--preserve-digests", "oci:"+l.Dir()+":app", "dir:"+dir)
	src, err := open(t, nil, "dir:"+dir)
	if err != nil {
		t.Fatal(err)
	}
	got := entries(t, src)
	if len(got) != 1 || got[0].Digest != digestOf(t, l, "app") {
		t.Fatalf("entries %v", got)
	}
	compareTrees(t, l, src, got)
	n := 0
	for info, err := range src.Blobs(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if stat, err := src.Stat(t.Context(), info.Digest); err != nil || stat != info {
			t.Errorf("Stat(%s) = %v, %v", info.Digest, stat, err)
		}
		n++
	}
	if n != 8 {
		t.Errorf("%d blobs, want 8", n)
	}
}

func TestDirHostile(t *testing.T) {
	good := func(t *testing.T) string {
		dir := t.TempDir()
		pushtest.WriteFile(t, dir, "version", "Directory Transport Version: 1.1\n")
		pushtest.WriteFile(t, dir, "manifest.json", `{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}`)
		return dir
	}
	hex := "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
	for _, tt := range []struct {
		name    string
		damage  func(t *testing.T, dir string)
		opening bool // the error comes with opening
		want    error
	}{
		{"nothing", func(_ *testing.T, _ string) {}, false, layout.ErrNotFound},
		{"wrong bytes", func(t *testing.T, dir string) { pushtest.WriteFile(t, dir, hex, "[]") }, false, layout.ErrMismatch},
		{"link", func(t *testing.T, dir string) {
			if err := os.Symlink(pushtest.WriteFile(t, dir, "other", "{}"), filepath.Join(dir, hex)); err != nil {
				t.Fatal(err)
			}
		}, false, layout.ErrUnsafe},
		{"no version", func(_ *testing.T, dir string) { os.Remove(filepath.Join(dir, "version")) }, true, layout.ErrInvalid},
		{"version 2", func(t *testing.T, dir string) {
			pushtest.WriteFile(t, dir, "version", "Directory Transport Version: 2.0\n")
		}, true, layout.ErrInvalid},
		{"no manifest", func(_ *testing.T, dir string) { os.Remove(filepath.Join(dir, "manifest.json")) }, true, layout.ErrNotFound},
		{"no JSON", func(t *testing.T, dir string) { pushtest.WriteFile(t, dir, "manifest.json", "{") }, true, layout.ErrInvalid},
		{"manifest and index", func(t *testing.T, dir string) {
			pushtest.WriteFile(t, dir, "manifest.json", `{"schemaVersion":2,"layers":[],"manifests":[]}`)
		}, true, layout.ErrInvalid},
		{"no directory", func(_ *testing.T, dir string) { os.RemoveAll(dir) }, true, layout.ErrNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := good(t)
			tt.damage(t, dir)
			src, err := open(t, nil, "dir:"+dir)
			if tt.opening {
				if !errors.Is(err, tt.want) {
					t.Errorf("OpenSource = %v, want %v", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			_, err = layout.ReadAll(t.Context(), src, ocispec.Descriptor{MediaType: ocispec.MediaTypeEmptyJSON, Digest: digest.Digest("sha256:" + hex), Size: 2}, 10)
			if !errors.Is(err, tt.want) {
				t.Errorf("Blob = %v, want %v", err, tt.want)
			}
		})
	}
}

// TestDockerArchive converts what docker save would write: one image, chosen by
// name or because it is alone, always into the same bytes.
func TestDockerArchive(t *testing.T) {
	l := pullable(t)
	file := filepath.Join(t.TempDir(), "saved.tar")
	skopeo(t, "copy", "oci:"+l.Dir()+":hello", "docker-archive:"+file+":example.org/team/hello:1.0")
	var first digest.Digest
	for _, tt := range []struct {
		ref, name string
		procs     int
	}{
		{"docker-archive:" + file, "example.org/team/hello:1.0", 1},
		{"docker-archive:" + file + ":example.org/team/hello:1.0", "example.org/team/hello:1.0", 4},
	} {
		procs := runtime.GOMAXPROCS(tt.procs)
		src, err := open(t, nil, tt.ref)
		runtime.GOMAXPROCS(procs)
		if err != nil {
			t.Fatal(err)
		}
		got := entries(t, src)
		if len(got) != 1 || layout.RefName(got[0]) != tt.name {
			t.Fatalf("%s: entries %v", tt.ref, got)
		}
		doc, err := layout.ReadDocument(t.Context(), src, got[0])
		if err != nil {
			t.Fatal(err)
		}
		if doc.MediaType != ocispec.MediaTypeImageManifest || !doc.IsImage() || len(doc.Layers) != 1 || doc.Layers[0].MediaType != ocispec.MediaTypeImageLayerGzip {
			t.Errorf("%s: manifest %s", tt.ref, doc.Raw)
		}
		if first == "" {
			first = got[0].Digest
		}
		if got[0].Digest != first {
			t.Errorf("%s: %s, and %s the first time", tt.ref, got[0].Digest, first)
		}
		result, err := layout.Verify(t.Context(), src, &layout.VerifyOptions{})
		if err != nil || len(result.Findings) > 0 {
			t.Errorf("verify: %v, %v", result, err)
		}
	}
	for ref, want := range map[string]error{
		"docker-archive:" + file + ":other:1":                                layout.ErrNotFound,
		"docker-archive:" + filepath.Join(t.TempDir(), "none"):               layout.ErrNotFound,
		"docker-archive:" + pushtest.WriteFile(t, t.TempDir(), "bad", "bad"): layout.ErrInvalid,
	} {
		if _, err := open(t, nil, ref); !errors.Is(err, want) {
			t.Errorf("open %s = %v, want %v", ref, err, want)
		}
	}
}

// TestDockerArchiveDamaged has a layer that is not the one that the config names.
func TestDockerArchiveDamaged(t *testing.T) {
	l := pullable(t)
	dir := t.TempDir()
	file, damaged := filepath.Join(dir, "saved.tar"), filepath.Join(dir, "damaged.tar")
	skopeo(t, "copy", "oci:"+l.Dir()+":hello", "docker-archive:"+file+":example.org/team/hello:1.0")
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close() //nolint:errcheck // only read
	out, err := os.Create(damaged)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close() //nolint:errcheck // closed below, where it matters
	r, w, layers := tar.NewReader(in), tar.NewWriter(out), 0
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg && filepath.Ext(h.Name) == ".tar" {
			content[len(content)-1] = 1 // behind the end of the archive in it
			layers++
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), out.Close()); err != nil || layers != 1 {
		t.Fatalf("%d layers damaged, error %v", layers, err)
	}
	if _, err := open(t, nil, "docker-archive:"+damaged); !errors.Is(err, layout.ErrMismatch) || !strings.Contains(err.Error(), "layer sha256:") {
		t.Errorf("open = %v, want the layer's mismatch", err)
	}
}
