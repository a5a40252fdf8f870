package gardenlinux

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

var update = flag.Bool("update", false, "rewrite testdata/*.json")

// stageDir reads and stages a build directory.
func stageDir(t testing.TB, s *layout.Stage, dir string, opts BuildOptions) ([]Staged, error) {
	t.Helper()
	flavors, err := ReadBuild(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	return StageAll(context.Background(), s, flavors)
}

func mustStage(t testing.TB, s *layout.Stage, fs files) []Staged {
	t.Helper()
	staged, err := stageDir(t, s, fs.write(t, t.TempDir()), BuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return staged
}

func document(t testing.TB, src layout.Source, desc ocispec.Descriptor) *layout.Document {
	t.Helper()
	doc, err := layout.ReadDocument(context.Background(), src, desc)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func content(t testing.TB, src layout.Source, desc ocispec.Descriptor) string {
	t.Helper()
	raw, err := layout.ReadAll(context.Background(), src, desc, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// The bytes of manifests and entries, as published. A difference here is one
// that readers of published images see.
func TestStageGolden(t *testing.T) {
	s := newStage(t)
	quoted := strings.Replace(osRelease(mustName(t, pxeAMD)), "_slim,base,baremetal,_pxe", `"_slim,base,baremetal,_pxe"`, 1)
	fixed := builds(t, containerAMD, "oci").with(files{containerAMD + ".sbom": "-"}).and(
		// A gzip stream is not ours to pin; its members are.
		builds(t, pxeAMD).with(files{"vmlinuz": "kernel", "initrd": "initrd", "cmdline": "ro", "root.squashfs": "root", pxeAMD + ".release": quoted}),
	)
	// Bare names need a directory with one flavor.
	for _, base := range []string{containerAMD, pxeAMD} {
		one := files{}
		for name, text := range fixed {
			if n, _, ok := splitFileName(name); ok && n.BaseName() == base || !ok && base == pxeAMD {
				one[name] = text
			}
		}
		staged := mustStage(t, s, one)
		for _, st := range staged {
			x := layout.NewIndex()
			x.PutEntry(st.Entry)
			for _, r := range st.Runtime {
				x.PutEntry(r)
			}
			for file, raw := range map[string][]byte{
				st.Name.CName + ".manifest.json": document(t, s, st.Entry).Raw,
				st.Name.CName + ".index.json":    x.Bytes(),
			} {
				path := filepath.Join("testdata", file)
				if *update {
					if err := os.WriteFile(path, raw, 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(string(want), string(raw)); diff != "" {
					t.Errorf("%s (-want +got):\n%s", path, diff)
				}
			}
		}
	}
}

// What the golden files cannot say: why each part is there, in literals.
func TestStageShape(t *testing.T) {
	s := newStage(t)
	staged := mustStage(t, s, builds(t, containerAMD, "oci"))[0]
	if diff := cmp.Diff(map[string]string{"cname": containerAMD, "architecture": "amd64", "feature_set": "_slim,base,container"}, staged.Entry.Annotations); diff != "" {
		t.Errorf("annotations of the entry (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(&ocispec.Platform{Architecture: "amd64", OS: "gardenlinux", OSVersion: "2150.1.0"}, staged.Entry.Platform); diff != "" {
		t.Errorf("platform of the entry (-want +got):\n%s", diff)
	}
	doc := document(t, s, staged.Entry)
	if got := content(t, s, *doc.Config); got != "{}" || doc.Config.MediaType != "application/vnd.unknown.config.v1+json" {
		t.Errorf("config %q of %s", got, doc.Config.MediaType)
	}
	if diff := cmp.Diff(map[string]string{"cname": containerAMD, "architecture": "amd64"}, doc.Config.Annotations); diff != "" {
		t.Errorf("annotations of the config (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{
		"version": "2150.1.0", "cname": containerAMD, "architecture": "amd64", "feature_set": "_slim,base,container", "commit": "abc12345",
		"org.opencontainers.image.architecture": "amd64",
		"org.opencontainers.image.description": "Image: container-amd64-2150.1.0-abc12345 Flavor: container Architecture: amd64 " +
			"Features: _slim,base,container Commit: abc12345 ",
		"org.opencontainers.image.title": "Garden Linux", "org.opencontainers.image.source": "https://github.com/gardenlinux/gardenlinux",
		"org.opencontainers.image.version": "2150.1.0", "org.opencontainers.image.revision": "abc12345",
	}, doc.Annotations); diff != "" {
		t.Errorf("annotations of the manifest (-want +got):\n%s", diff)
	}
	if doc.Subject != nil || bytes.Contains(doc.Raw, []byte(`"artifactType"`)) {
		t.Errorf("subject or artifactType in %s", doc.Raw)
	}
	for _, l := range doc.Layers {
		title := l.Annotations["org.opencontainers.image.title"]
		want, _ := MediaType(title)
		if l.MediaType != want || l.Annotations["io.gardenlinux.image.layer.architecture"] != "amd64" || len(l.Annotations) != 2 {
			t.Errorf("layer %+v, want %s", l, want)
		}
		if strings.HasSuffix(title, ".tar") && content(t, s, l) != "tar of "+containerAMD {
			t.Errorf("layer %s has the wrong bytes", title)
		}
	}

	if len(staged.Runtime) != 1 {
		t.Fatalf("%d runtime entries, want 1", len(staged.Runtime))
	}
	r := staged.Runtime[0]
	if diff := cmp.Diff(&ocispec.Platform{Architecture: "amd64", OS: "linux"}, r.Platform); diff != "" || r.Annotations != nil || r.ArtifactType != "" {
		t.Errorf("runtime entry %+v (-want +got):\n%s", r, diff)
	}
	image := document(t, s, r)
	if !image.IsImage() || content(t, s, image.Layers[0]) != "layer for amd64" || !strings.Contains(content(t, s, *image.Config), `"/bin/bash"`) {
		t.Errorf("image %s", image.Raw)
	}
	oci := slices.IndexFunc(doc.Layers, func(l ocispec.Descriptor) bool {
		return l.MediaType == "application/io.gardenlinux.image.archive.format.oci"
	})
	if oci < 0 || doc.Layers[oci].Digest == r.Digest {
		t.Errorf("the .oci file is no layer of its own: %+v", doc.Layers)
	}
}

// Without a .release, as --no-default-require allows, nothing is made up.
func TestStageWithoutRelease(t *testing.T) {
	s := newStage(t)
	dir := files{kvmAMD + ".raw": "disk"}.write(t, t.TempDir())
	staged, err := stageDir(t, s, dir, BuildOptions{NoDefaultRequire: true})
	if err != nil {
		t.Fatal(err)
	}
	doc := document(t, s, staged[0].Entry)
	if _, ok := doc.Annotations["feature_set"]; ok || staged[0].Entry.Annotations["feature_set"] != "" {
		t.Errorf("feature_set in %s", doc.Raw)
	}
	if got := doc.Annotations["org.opencontainers.image.description"]; !strings.HasSuffix(got, "Features:  Commit: abc12345 ") {
		t.Errorf("description %q", got)
	}
}

func layerTitles(doc *layout.Document) []string {
	var out []string
	for _, l := range doc.Layers {
		out = append(out, l.Annotations["org.opencontainers.image.title"])
	}
	return out
}

// The faults of all flavors come in one error, in order.
func TestStageAllErrors(t *testing.T) {
	dir := builds(t, containerAMD).with(files{containerAMD + ".oci": oci(t, image{arch: "arm64", refName: ""})}).and(
		builds(t, containerARM).with(files{containerARM + ".oci": oci(t, image{arch: "amd64", refName: ""})}),
		builds(t, pxeAMD).with(files{pxeAMD + ".pxe.tar.gz": pxe(t, "vmlinuz")}),
		builds(t, kvmAMD, "raw"),
	).write(t, t.TempDir())
	_, err := stageDir(t, newStage(t), dir, BuildOptions{})
	if err == nil {
		t.Fatal("no error")
	}
	lines := strings.Split(err.Error(), "\n")
	want := []string{"missing layers: initrd, squashfs", `"linux/arm64"`, `"linux/amd64"`}
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d:\n%v", len(lines), len(want), err)
	}
	for i := range want {
		if !strings.Contains(lines[i], want[i]) {
			t.Errorf("line %d is %q, want %q", i, lines[i], want[i])
		}
	}
}

// Neither the order of creation nor the number of processors shows.
func TestStageDeterministic(t *testing.T) {
	fs := builds(t, containerAMD, "oci").and(
		builds(t, containerARM, "oci"), builds(t, pxeAMD, "pxe.tar.gz"), builds(t, usiAMD, "esp.tar", "raw", "uki"), builds(t, kvmAMD, "raw"),
	)
	names := make([]string, 0, len(fs))
	for name := range fs {
		names = append(names, name)
	}
	slices.Sort(names)
	var want []Staged
	for round := range 4 {
		rand.New(rand.NewPCG(uint64(round), 0)).Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		dir := t.TempDir()
		for _, name := range names {
			files{name: fs[name]}.write(t, dir)
		}
		before := runtime.GOMAXPROCS(round + 1)
		staged, err := stageDir(t, newStage(t), dir, BuildOptions{})
		runtime.GOMAXPROCS(before)
		if err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			want = staged
		}
		if diff := cmp.Diff(want, staged); diff != "" {
			t.Fatalf("round %d (-first +this):\n%s", round, diff)
		}
	}
}

func TestStageCanceled(t *testing.T) {
	dir := builds(t, pxeAMD, "pxe.tar.gz").write(t, t.TempDir())
	flavors, err := ReadBuild(dir, BuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := newStage(t)
	why := errors.New("the user had enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(why)
	if _, err := StageAll(ctx, s, flavors); !errors.Is(err, why) && !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "\n") {
		t.Errorf("StageAll: %v, want one line about the interrupt", err)
	}
}

// A file that goes away between reading and staging.
func TestStageFileGone(t *testing.T) {
	dir := builds(t, kvmAMD, "raw").write(t, t.TempDir())
	flavors, err := ReadBuild(dir, BuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, kvmAMD+".raw")); err != nil {
		t.Fatal(err)
	}
	_, _, err = flavors[0].Stage(context.Background(), newStage(t))
	if !errors.Is(err, layout.ErrNotFound) || strings.Contains(err.Error(), "missing") {
		t.Errorf("Stage: %v, want ErrNotFound alone", err)
	}
}

// Two builds, one of them again from another commit and with a file less, and
// the other architecture: what an index holds afterwards.
func TestPublish(t *testing.T) {
	ctx := context.Background()
	l, err := layout.Create(ctx, filepath.Join(t.TempDir(), "layout"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	add := func(fs files) {
		t.Helper()
		flavors, err := ReadBuild(fs.write(t, t.TempDir()), BuildOptions{})
		if err != nil {
			t.Fatal(err)
		}
		s, err := l.Stage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		staged, err := StageAll(ctx, s, flavors)
		if err != nil {
			t.Fatal(err)
		}
		err = s.Update(ctx, func(tx *layout.Tx) error {
			_, err := tx.EditIndex(ctx, "2150.1.0", true, func(x *layout.Index) error {
				if err := CheckRuntime(ctx, tx.Source(), x, flavors); err != nil {
					return err
				}
				for _, st := range staged {
					x.PutEntry(st.Entry)
					for _, r := range st.Runtime {
						x.PutEntry(r)
					}
				}
				return nil
			})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	add(builds(t, containerAMD, "oci").and(builds(t, kvmAMD, "raw")))
	add(builds(t, containerARM, "oci"))
	rebuilt := "kvm-gardener_prod-amd64-2150.1.0-00000000"
	add(builds(t, rebuilt, "raw").with(files{rebuilt + ".sbom": "-", rebuilt + ".sbom.log": "-"}))
	add(builds(t, containerAMD, "oci")) // the same again

	root, err := layout.ResolveOne(ctx, l, "2150.1.0", "")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range document(t, l, root).Manifests {
		got = append(got, layout.FormatPlatform(*e.Platform)+" "+e.Annotations["cname"])
		if e.Annotations["cname"] == rebuilt {
			if titles := layerTitles(document(t, l, e)); slices.ContainsFunc(titles, func(s string) bool { return !strings.HasPrefix(s, rebuilt) }) || len(titles) != 10 {
				t.Errorf("layers of the rebuild: %q", titles)
			}
		}
	}
	want := []string{"linux/amd64 ", "linux/arm64 ", "gardenlinux/amd64 " + containerAMD, "gardenlinux/amd64 " + rebuilt, "gardenlinux/arm64 " + containerARM}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	result, err := layout.Verify(ctx, l, nil)
	if err != nil || len(result.Findings) > 0 {
		t.Errorf("verify: %+v, %v", result, err)
	}
}
