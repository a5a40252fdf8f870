package gardenlinux

import (
	"archive/tar"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/gardenlinux/gloci-layout/layout"
)

func TestStageImage(t *testing.T) {
	good := image{arch: "amd64", refName: "container-amd64"}
	for _, c := range []struct {
		name, oci string
		is        error // nil: it is staged
		want      string
	}{
		{"as built", oci(t, good), nil, ""},
		{"without ref name", oci(t, image{arch: "amd64", refName: ""}), nil, ""},
		{"saved by podman", oci(t, image{arch: "amd64", refName: "localhost/gardenlinux:2150.1.0"}), nil, ""},
		{"saved as latest", oci(t, image{arch: "amd64", refName: "latest"}), nil, ""},
		{"compressed", gz(t, []byte(oci(t, good))), nil, ""},
		{"ours and another", oci(t, image{arch: "arm64", refName: "other"}, good), nil, ""},
		{"an index of two", ociLayout(t, true, image{arch: "arm64"}, image{arch: "amd64"}), nil, ""},
		{"an index of two without ours", ociLayout(t, true, image{arch: "arm64"}, image{arch: "s390x"}), layout.ErrAmbiguous, "container image for linux/amd64"},
		{"platform in the entry", oci(t, image{arch: "amd64", platform: "amd64"}), nil, ""},
		{"wrong platform in the entry", oci(t, image{arch: "amd64", platform: "arm64"}), ErrDisagree, `platform is "linux/arm64" in the entry of the image, but "linux/amd64"`},
		{"config without platform", oci(t, image{arch: "amd64", config: `{"rootfs":{"type":"layers"}}`}), layout.ErrInvalid, "no os or architecture"},
		{"config of another system", oci(t, image{arch: "amd64", config: `{"architecture":"amd64","os":"windows"}`}), ErrDisagree, `platform is "windows/amd64"`},
		{"two, none of them ours", oci(t, image{arch: "arm64", refName: "x"}, image{arch: "amd64", refName: "y"}), layout.ErrAmbiguous, "container image container-amd64"},
		{"two without names", oci(t, image{arch: "arm64", refName: ""}, image{arch: "amd64", refName: ""}), layout.ErrAmbiguous, "@sha256:"},
		{"another architecture", oci(t, image{arch: "arm64", refName: "container-amd64"}), ErrDisagree, `platform is "linux/arm64" in the image's config, but "linux/amd64" in the names of the files`},
		{"another flavor", oci(t, image{arch: "amd64", refName: "container-pythondev-amd64"}), ErrDisagree, `flavor is "container-pythondev-amd64" in the ref name of the image, but "container-amd64"`},
		{"a flavor of another architecture", oci(t, image{arch: "amd64", refName: "container-arm64"}), ErrDisagree, ""},
		{"empty", oci(t), layout.ErrNotFound, "container image"},
		{"no archive", "not a tar", nil, "any error"},
		{"no layout", string(tarball(t, tar.Header{Name: "index.json", Uname: "{}"})), nil, "any error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t)
			dir := builds(t, containerAMD).with(files{containerAMD + ".oci": c.oci}).write(t, t.TempDir())
			staged, err := stageDir(t, s, dir, BuildOptions{})
			switch {
			case c.is == nil && c.want == "":
				if err != nil {
					t.Fatal(err)
				}
				if got := document(t, s, staged[0].Runtime[0]); len(staged[0].Runtime) != 1 || content(t, s, got.Layers[0]) != "layer for amd64" {
					t.Errorf("image %s", got.Raw)
				}
			case err == nil, c.is != nil && !errors.Is(err, c.is), c.is != nil && !strings.Contains(err.Error(), c.want), !strings.Contains(err.Error(), ".oci"):
				t.Errorf("StageAll: %v, want %v with %q", err, c.is, c.want)
			}
		})
	}
}

// An image whose bytes are not what its manifest says is found while copying.
func TestStageImageDamaged(t *testing.T) {
	damaged := strings.Replace(oci(t, image{arch: "amd64", refName: ""}), "layer for amd64", "LAYER for amd64", 1)
	dir := builds(t, containerAMD).with(files{containerAMD + ".oci": damaged}).write(t, t.TempDir())
	if _, err := stageDir(t, newStage(t), dir, BuildOptions{}); !errors.Is(err, layout.ErrMismatch) {
		t.Errorf("StageAll: %v, want ErrMismatch", err)
	}
}

// The container image of one flavor must not take the place of another's.
func TestCheckRuntime(t *testing.T) {
	ctx := context.Background()
	s := newStage(t)
	x := layout.NewIndex()
	for _, st := range mustStage(t, s, builds(t, containerAMD, "oci").and(builds(t, kvmAMD, "raw"))) {
		x.PutEntry(st.Entry)
		for _, r := range st.Runtime {
			x.PutEntry(r)
		}
	}
	read := func(fs files) []Flavor {
		t.Helper()
		flavors, err := ReadBuild(fs.write(t, t.TempDir()), BuildOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return flavors
	}
	for _, c := range []struct {
		base string
		is   error
	}{
		{"container-pythonDev-amd64-2150.1.0-abc12345", layout.ErrConflict},
		{"container-pythonDev-arm64-2150.1.0-abc12345", nil},
		{"container-amd64-2150.1.0-00000000", nil},
		{"container-amd64-2151.0.0-00000000", nil},
	} {
		err := CheckRuntime(ctx, s, x, read(builds(t, c.base, "oci")))
		if !errors.Is(err, c.is) || err != nil && !strings.Contains(err.Error(), containerAMD) {
			t.Errorf("CheckRuntime(%s) = %v, want %v", c.base, err, c.is)
		}
	}
	if err := CheckRuntime(ctx, s, x, read(builds(t, kvmAMD, "raw"))); err != nil {
		t.Errorf("a flavor without an image: %v", err)
	}
	// Somebody took the image out and kept the files: the place is free.
	without := layout.NewIndex()
	for _, e := range x.Entries() {
		if e.Platform.OS != "linux" {
			without.Add(e)
		}
	}
	if err := CheckRuntime(ctx, s, without, read(builds(t, "container-pythonDev-amd64-2150.1.0-abc12345", "oci"))); err != nil {
		t.Errorf("an index without image: %v", err)
	}
	if err := CheckRuntime(ctx, s, layout.NewIndex(), read(builds(t, "container-pythonDev-amd64-2150.1.0-abc12345", "oci"))); err != nil {
		t.Errorf("an empty index: %v", err)
	}
}
