package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// makeFlavors makes an index of runtime images and n flavours.
func makeFlavors(t testing.TB, dir string, n int) {
	t.Helper()
	makeArtifacts(t, dir, func(m *maker) {
		var entries []ocispec.Descriptor
		for _, arch := range []string{"amd64", "arm64"} {
			entries = append(entries, at(m.image(arch, "gardenlinux"), "linux/"+arch, nil))
		}
		config := m.blob("application/vnd.unknown.config.v1+json", "{}", nil)
		for i := range n {
			cname := fmt.Sprintf("kvm-f%d-amd64-2150.1.0-abc12345", i)
			desc := at(m.manifest(ocispec.Manifest{
				Config: config,
				Layers: []ocispec.Descriptor{
					m.blob("application/io.gardenlinux.initrd", "initrd of "+cname, notes{"org.opencontainers.image.title": "initrd"}),
					m.blob("application/io.gardenlinux.kernel", "kernel of "+cname, notes{"org.opencontainers.image.title": "vmlinuz"}),
					m.blob("application/io.gardenlinux.image.archive.format.tar.gz", tgz(t, "etc/", "", "etc/cname", cname), notes{"org.opencontainers.image.title": cname + ".tar.gz"}),
				},
				Annotations: notes{"cname": cname},
			}), "gardenlinux/amd64", notes{"cname": cname, "architecture": "amd64"})
			desc.Platform.OSVersion = "2150.1.0"
			entries = append(entries, desc)
		}
		m.ref("2150.1.0", m.index(entries...))
	})
}

// Of a repository with 200 flavours, only what leads to the chosen layer is
// asked for: the index, the manifest, the blob.
func TestRequests(t *testing.T) {
	noCredentials(t)
	reg := regtest.Start(t, &regtest.Options{TLS: true})
	certs := t.TempDir()
	ca, err := os.ReadFile(reg.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(certs, "ca.crt"), ca, 0o644); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "flavors")
	makeFlavors(t, dir, 200)
	repo := "docker://" + reg.Host + "/gardenlinux"
	mustGloci(t, "sync", dir+":2150.1.0", repo+":2150.1.0", "--cert-dir", certs, "-q")
	tag := repo + ":2150.1.0"

	const index, manifest, blob = "GET manifest by tag", "GET manifest", "GET blob"
	for _, tt := range []struct {
		args   string
		status int
		want   []string
		file   string // below OUT
		holds  string
	}{
		{"copy TAG --cname kvm-f137 --media-type application/io.gardenlinux.kernel -o OUT/k", 0, []string{index, manifest, blob}, "k", "kernel of kvm-f137-amd64-2150.1.0-abc12345"},
		{"copy TAG --cname kvm-f137 --title vmlinuz -o OUT/d/", 0, []string{index, manifest, blob}, "d/vmlinuz", "kernel of kvm-f137-amd64-2150.1.0-abc12345"},
		{"copy TAG --cname kvm-f0-amd64-2150.1.0 --arch amd64 --layer 1 -o -", 0, []string{index, manifest, blob}, "", ""},
		{"extract TAG --cname kvm-f199 --title *.tar.gz -o OUT/x", 0, []string{index, manifest, blob}, "x/etc/cname", "kvm-f199-amd64-2150.1.0-abc12345"},
		{"copy TAG --cname kvm-f137 -o OUT/all/", 0, []string{index, manifest, blob, blob, blob}, "all/vmlinuz", "kernel of kvm-f137-amd64-2150.1.0-abc12345"},
		{"copy TAG --platform linux/arm64 -o OUT/image", 0, []string{index, manifest, blob}, "", ""},
		{"extract TAG --platform linux/arm64 --rootfs -o OUT/rootfs", 0, []string{index, manifest, blob, blob}, "rootfs/rootfs/etc/gardenlinux", "gardenlinux on arm64\n"},
		{"copy TAG --platform linux/arm64 --config -o OUT/config", 0, []string{index, manifest, blob}, "", ""},
		{"copy DIGEST --title vmlinuz -o OUT/by-digest", 0, []string{manifest, blob}, "by-digest", "kernel of kvm-f7-amd64-2150.1.0-abc12345"},
		{"copy TAG --cname kvm-f200 -o OUT/none", 3, []string{index}, "", ""},
		{"copy TAG --cname kvm-f1 --title none -o OUT/none", 3, []string{index, manifest}, "", ""},
		{"copy TAG --cname kvm-f1 -o OUT/none", 4, []string{index, manifest}, "", ""},
		{"copy TAG --platform linux/riscv64 -o OUT/none", 3, []string{index}, "", ""},
		{"copy NOTAG -o OUT/none", 3, []string{index}, "", ""},
	} {
		t.Run(strings.ReplaceAll(tt.args, "/", "|"), func(t *testing.T) {
			out := t.TempDir()
			digest := ""
			if strings.Contains(tt.args, "DIGEST") {
				digest = digestOf(t, dir, "kvm-f7")
			}
			args := strings.Fields(strings.NewReplacer("NOTAG", repo+":none", "TAG", tag, "OUT", out, "DIGEST", repo+"@"+digest).Replace(tt.args))
			reg.Reset()
			status, _, stderr := gloci(append(args, "--cert-dir", certs)...)
			if status != tt.status {
				t.Fatalf("exit %d, want %d\n%s", status, tt.status, stderr)
			}
			var got []string
			for _, r := range reg.Requests() {
				what := r.Method + " " + r.Path
				switch {
				case strings.Contains(r.Path, "/manifests/sha256:"):
					what = r.Method + " manifest"
				case strings.Contains(r.Path, "/manifests/"):
					what = r.Method + " manifest by tag"
				case strings.Contains(r.Path, "/blobs/"):
					what = r.Method + " blob"
				}
				got = append(got, what)
			}
			slices.Sort(got)
			want := slices.Clone(tt.want)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("requests %q, want %q", got, want)
			}
			if tt.file != "" {
				if b, err := os.ReadFile(filepath.Join(out, tt.file)); err != nil || string(b) != tt.holds {
					t.Errorf("%s holds %q, %v, want %q", tt.file, b, err, tt.holds)
				}
			}
		})
	}
}

// digestOf returns the digest of the manifest with this cname.
func digestOf(t *testing.T, dir, cname string) string {
	t.Helper()
	out := mustGloci(t, "copy", dir, "--cname", cname, "--layer", "0", "-o", filepath.Join(t.TempDir(), "f"), "--json")
	_, manifest, _ := strings.Cut(out, `"manifest":"`)
	digest, _, _ := strings.Cut(manifest, `"`)
	return digest
}
