package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/casengine"
	"github.com/gardenlinux/gloci-layout/layout/image"
)

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func stage(t testing.TB) *layout.Stage {
	t.Helper()
	l, err := layout.Create(t.Context(), filepath.Join(t.TempDir(), "l"), nil)
	must(t, err)
	s, err := l.Stage(t.Context())
	must(t, err)
	t.Cleanup(func() { must(t, s.Close(), l.Close()) })
	return s
}

// archiveOf returns a tar archive of one file.
func archiveOf(t testing.TB, name, content string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	must(t, w.WriteHeader(&tar.Header{Name: name, Size: int64(len(content)), Mode: 0o644, Typeflag: tar.TypeReg}))
	_, err := io.WriteString(w, content)
	must(t, err, w.Close())
	return b.Bytes()
}

func compressed(t testing.TB, raw []byte, f compress.Format) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := compress.NewWriter(&b, f, 0)
	must(t, err)
	_, err = w.Write(raw)
	must(t, err, w.Close())
	return b.Bytes()
}

func write(t testing.TB, raw []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, raw, 0o644))
	return path
}

var mediaTypes = map[compress.Format]string{
	compress.None: "application/vnd.oci.image.layer.v1.tar",
	compress.Gzip: "application/vnd.oci.image.layer.v1.tar+gzip",
	compress.Zstd: "application/vnd.oci.image.layer.v1.tar+zstd",
}

// The bytes of the layer, the config and the manifest of a directory, each by
// itself, so that a failure says which has moved.
func TestImageOfTree(t *testing.T) {
	dir := t.TempDir()
	created := time.Unix(1700000000, 0)
	must(t, os.Mkdir(filepath.Join(dir, "etc"), 0o755), os.WriteFile(filepath.Join(dir, "etc/os-release"), []byte("ID=example\n"), 0o644),
		os.Chmod(filepath.Join(dir, "etc"), 0o755), os.Chmod(filepath.Join(dir, "etc/os-release"), 0o644))
	user, workdir := "7:8", "/srv"
	edit := &image.Edit{
		Platform: &ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}, Created: created,
		Entrypoint: []string{"/bin/<sh>"}, Cmd: []string{"-c", "true"}, Env: []string{"B=1", "A=2=3"},
		Labels: map[string]string{"z": "1", "a": "2"}, User: &user, WorkingDir: &workdir,
		ExposedPorts: []string{"80/tcp", "53/udp"}, Volumes: []string{"/z", "/a"},
	}
	want := map[string]string{
		"layer":    "sha256:e2351c8fcbed440a97b471322e62aa434f1a5630383826b7cc299c30d83a6413",
		"diffID":   "sha256:195f49f60504b7e1003a25b5a504433989f12789ff9482d673af2f2cc610eee6",
		"manifest": "sha256:4baa9ceed138439c2d0a9a2bc47ecb55914a5b6391263add40eadf6ad053a4a0",
		"config": `{"created":"2023-11-14T22:13:20Z","architecture":"arm64","os":"linux","variant":"v8","config":{"User":"7:8",` +
			`"ExposedPorts":{"53/udp":{},"80/tcp":{}},"Env":["B=1","A=2=3"],"Entrypoint":["/bin/<sh>"],"Cmd":["-c","true"],` +
			`"Volumes":{"/a":{},"/z":{}},"WorkingDir":"/srv","Labels":{"a":"2","z":"1"}},` +
			`"rootfs":{"type":"layers","diff_ids":["sha256:195f49f60504b7e1003a25b5a504433989f12789ff9482d673af2f2cc610eee6"]},` +
			`"history":[{"created":"2023-11-14T22:13:20Z","created_by":"test"}]}` + "\n",
	}
	for _, procs := range []int{1, 8} {
		func() {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			s := stage(t)
			l, err := image.StageTree(t.Context(), s, dir, compress.Gzip, &casengine.TreeOptions{Latest: created, Owner: &casengine.Owner{}})
			must(t, err)
			l.CreatedBy = "test"
			desc, err := image.Make(t.Context(), s, nil, []image.Layer{l}, edit, map[string]string{"org.example.b": "2", "org.example.a": "1"})
			must(t, err)
			doc, err := layout.ReadDocument(t.Context(), s, desc)
			must(t, err)
			config, err := layout.ReadAll(t.Context(), s, *doc.Config, 1<<20)
			must(t, err)
			got := map[string]string{"layer": string(l.Desc.Digest), "diffID": string(l.DiffID), "manifest": string(desc.Digest), "config": string(config)}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%d processors (-want +got):\n%s", procs, diff)
			}
		}()
	}
}

// addBase stages an image that another tool made, with what we do not know.
func addBase(t testing.TB, s *layout.Stage, config string) *image.Base {
	t.Helper()
	raw := archiveOf(t, "base", "base\n")
	l, err := s.AddBytes(t.Context(), compressed(t, raw, compress.Gzip), "application/vnd.docker.image.rootfs.diff.tar.gzip")
	must(t, err)
	c, err := s.AddBytes(t.Context(), []byte(strings.ReplaceAll(config, "DIFFID", string(digest.FromBytes(raw)))), "application/vnd.docker.container.image.v1+json")
	must(t, err)
	m, err := json.Marshal(ocispec.Manifest{MediaType: "application/vnd.docker.distribution.manifest.v2+json", Config: c, Layers: []ocispec.Descriptor{l}})
	must(t, err)
	m = bytes.Replace(m, []byte(`"schemaVersion":0`), []byte(`"schemaVersion":2`), 1)
	desc, err := s.AddBytes(t.Context(), m, "application/vnd.docker.distribution.manifest.v2+json")
	must(t, err)
	base, err := image.Find(t.Context(), s, []ocispec.Descriptor{desc}, nil)
	must(t, err)
	return base
}

func TestMakeOnBase(t *testing.T) {
	const config = `{ "x-new": [1.0, 2], "created":"2020-01-01T00:00:00Z", "architecture":"amd64", "os":"linux", "container_config": {"Hostname":"h"},
		"config": {"Healthcheck":{"Interval":1e9}, "Env":["PATH=/bin","B=old","C=3"], "Cmd":["old"], "Labels":{"old":"1"}, "OnBuild":null},
		"rootfs":{"type":"layers","diff_ids":["DIFFID"]},
		"history":[{"created_by":"a\u003cb","x":1},{"created_by":"env","empty_layer": true}] }`
	s := stage(t)
	base := addBase(t, s, config)
	extra := archiveOf(t, "top", "top\n")
	l, err := image.StageLayer(t.Context(), s, write(t, extra))
	must(t, err)
	l.CreatedBy = "top"
	desc, err := image.Make(t.Context(), s, base, []image.Layer{l}, &image.Edit{
		Entrypoint: []string{"/new"}, Env: []string{"B=new", "D=4"}, Labels: map[string]string{"new": "2"},
	}, nil)
	must(t, err)
	doc, err := layout.ReadDocument(t.Context(), s, desc)
	must(t, err)
	got, err := layout.ReadAll(t.Context(), s, *doc.Config, 1<<20)
	must(t, err)
	want := `{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin","B=new","C=3","D=4"],"Entrypoint":["/new"],` +
		`"Labels":{"new":"2","old":"1"},"Healthcheck":{"Interval":1e9},"OnBuild":null},` +
		`"rootfs":{"type":"layers","diff_ids":["` + string(digest.FromBytes(archiveOf(t, "base", "base\n"))) + `","` + string(digest.FromBytes(extra)) + `"]},` +
		`"history":[{"created_by":"a\u003cb","x":1},{"created_by":"env","empty_layer":true},{"created_by":"top"}],` +
		`"container_config":{"Hostname":"h"},"x-new":[1.0,2]}` + "\n"
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	types := []string{doc.MediaType, doc.Config.MediaType}
	for _, l := range doc.Layers {
		types = append(types, l.MediaType)
	}
	wantTypes := []string{
		"application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.config.v1+json",
		"application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.image.layer.v1.tar",
	}
	if diff := cmp.Diff(wantTypes, types); diff != "" {
		t.Errorf("media types (-want +got):\n%s", diff)
	}
	if got := doc.Annotations["org.opencontainers.image.base.digest"]; got != string(base.Document.Descriptor.Digest) {
		t.Errorf("base.digest = %q, want %s", got, base.Document.Descriptor.Digest)
	}
}

// What a base of another layout has comes along, but not its manifest.
func TestMakeOnBaseOfAnotherLayout(t *testing.T) {
	base := addBase(t, stage(t), `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["DIFFID"]}}`)
	s := stage(t)
	desc, err := image.Make(t.Context(), s, base, nil, &image.Edit{Env: []string{"A=1"}}, nil)
	must(t, err)
	for n, err := range layout.Walk(t.Context(), s, []ocispec.Descriptor{desc}, nil) {
		must(t, err)
		if _, err := layout.ReadAll(t.Context(), s, n.Desc, 1<<20); err != nil {
			t.Error(err)
		}
	}
	if s.Has(base.Document.Descriptor.Digest) {
		t.Error("the manifest of the base was copied, and nothing names it")
	}
}

// Every layer has its entry in the history, and nothing has two.
func TestHistory(t *testing.T) {
	s := stage(t)
	for name, c := range map[string]struct {
		history string // of the base
		layers  int
		edit    image.Edit
		want    string
	}{
		"a base without one":     {`null`, 1, image.Edit{}, `[{"comment":"layer of the base"},{"created_by":"L"}]`},
		"config alone":           {`[{}]`, 0, image.Edit{Cmd: []string{"x"}}, `[{},{"created_by":"change of the config","empty_layer":true}]`},
		"nothing":                {`[{}]`, 0, image.Edit{}, `[{}]`},
		"layers and config":      {`[{}]`, 1, image.Edit{Cmd: []string{"x"}}, `[{},{"created_by":"L"}]`},
		"more than there can be": {`[{},{}]`, 1, image.Edit{}, ""},
	} {
		base := addBase(t, s, `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["DIFFID"]},"history":`+c.history+`}`)
		var layers []image.Layer
		for range c.layers {
			l, err := image.StageLayer(t.Context(), s, write(t, archiveOf(t, "f", "")))
			must(t, err)
			l.CreatedBy = "L"
			layers = append(layers, l)
		}
		desc, err := image.Make(t.Context(), s, base, layers, &c.edit, nil)
		if c.want == "" {
			if !errors.Is(err, layout.ErrInvalid) {
				t.Errorf("%s: %v, want ErrInvalid", name, err)
			}
			continue
		}
		must(t, err)
		doc, err := layout.ReadDocument(t.Context(), s, desc)
		must(t, err)
		raw, err := layout.ReadAll(t.Context(), s, *doc.Config, 1<<20)
		must(t, err)
		var config struct{ History json.RawMessage }
		must(t, json.Unmarshal(raw, &config))
		if string(config.History) != c.want {
			t.Errorf("%s: history = %s, want %s", name, config.History, c.want)
		}
	}
}

func TestMakeErrors(t *testing.T) {
	s := stage(t)
	good := `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["DIFFID"]}}`
	for name, config := range map[string]string{
		"no list":          "[]",
		"a name twice":     `{"os":"linux","os":"linux"}`,
		"another case":     strings.Replace(good, `"os"`, `"OS"`, 1),
		"no platform":      `{"rootfs":{"type":"layers","diff_ids":["DIFFID"]}}`,
		"too few diffIDs":  strings.Replace(good, `"DIFFID"`, ``, 1),
		"a bad diffID":     strings.Replace(good, "DIFFID", "sha256:1", 1),
		"config no object": strings.Replace(good, `"rootfs"`, `"config":[],"rootfs"`, 1),
	} {
		base := addBase(t, s, good)
		c, err := s.AddBytes(t.Context(), []byte(strings.ReplaceAll(config, "DIFFID", string(digest.FromString("x")))), base.Document.Config.MediaType)
		must(t, err)
		base.Document.Config = &c
		if _, err := image.Make(t.Context(), s, base, nil, &image.Edit{}, nil); !errors.Is(err, layout.ErrInvalid) {
			t.Errorf("%s: Make = %v, want ErrInvalid", name, err)
		}
	}
	if _, err := image.Make(t.Context(), s, nil, nil, &image.Edit{}, nil); !errors.Is(err, layout.ErrInvalid) {
		t.Errorf("no platform and no base: Make = %v, want ErrInvalid", err)
	}
}

func ExampleMake() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // of an example
	if err := os.Mkdir(filepath.Join(dir, "rootfs"), 0o755); err != nil {
		panic(err)
	}
	l, err := layout.Create(ctx, filepath.Join(dir, "layout"), nil)
	if err != nil {
		panic(err)
	}
	defer l.Close() //nolint:errcheck // of an example
	s, err := l.Stage(ctx)
	if err != nil {
		panic(err)
	}
	defer s.Close() //nolint:errcheck // of an example
	rootfs, err := image.StageTree(ctx, s, filepath.Join(dir, "rootfs"), compress.None, nil)
	if err != nil {
		panic(err)
	}
	platform := &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	desc, err := image.Make(ctx, s, nil, []image.Layer{rootfs}, &image.Edit{Platform: platform, Cmd: []string{"/bin/sh"}}, nil)
	if err != nil {
		panic(err)
	}
	err = s.Update(ctx, func(tx *layout.Tx) error {
		tx.SetRef("app", desc)
		return nil
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(rootfs.DiffID)
	// Output: sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
}
