package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// makeSelections makes a layout for each kind of artifact.
func makeSelections(t testing.TB, dir string) {
	t.Helper()
	one := func(name string, make func(m *maker) ocispec.Descriptor) {
		makeArtifacts(t, filepath.Join(dir, name), func(m *maker) { m.ref("v1", make(m)) })
	}
	makeGardenLinux(t, filepath.Join(dir, "gl"))
	one("timoni", (*maker).timoni)
	one("flux", (*maker).fluxTarball)
	one("static", (*maker).fluxStatic)
	one("helm", func(m *maker) ocispec.Descriptor { return m.helm(false) })
	one("helm-prov-first", func(m *maker) ocispec.Descriptor { return m.helm(true) })
	for _, style := range []string{"old", "new", "stripped"} {
		one("buildkit-"+style, func(m *maker) ocispec.Descriptor { return m.buildkit(style) })
	}
	one("docker", (*maker).dockerList)
	one("twins", (*maker).twins)
	// An index in an index in an index; the flux artifact is named on two levels.
	one("nested", func(m *maker) ocispec.Descriptor {
		flux := m.fluxTarball()
		inner := m.index(flux, m.fluxStatic())
		middle := m.index(inner, m.timoni())
		return m.index(at(m.image("arm64", "app"), "linux/arm64", nil), middle, flux)
	})
	// Everything in one index.json.
	makeArtifacts(t, filepath.Join(dir, "all"), func(m *maker) {
		m.ref("timoni", m.timoni())
		m.ref("flux", m.fluxTarball())
		m.ref("registry.example/team/static:v1", m.fluxStatic())
		m.ref("helm", m.helm(true))
		m.ref("buildkit", m.buildkit("old"))
		m.ref("docker", m.dockerList())
		m.ref("", m.twins())
	})
}

const (
	glKVM   = "kvm-gardener_prod-amd64-2150.1.0-abc12345"
	glUSI   = "aws-gardener_prod_usi-amd64-2150.1.0-abc12345"
	glPXE   = "baremetal_pxe-amd64-2150.1.0-abc12345"
	inToto  = "application/vnd.in-toto+json"
	timoni  = "application/vnd.timoni.content.v1.tar+gzip"
	slsa    = "in-toto.io/predicate-type=https://slsa.dev/provenance/v0.2"
	spdx    = "in-toto.io/predicate-type=https://spdx.dev/Document"
	chart   = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
	prov    = "application/vnd.cncf.helm.chart.provenance.v1.prov"
	fluxTar = "application/vnd.cncf.flux.content.v1.tar+gzip"
)

// selections are command lines of copy, and what they choose: layers as
// "NUMBER NAME CONTENT", where CONTENT "*" is not looked at; or the exit status
// and what the error says.
var selections = []struct {
	args   string
	want   []string
	status int
	says   []string // regular expressions
}{
	// The Garden Linux set: an index of flavours and runtime images.
	{args: "gl:2150.1.0 --cname baremetal_pxe --media-type application/io.gardenlinux.kernel", want: []string{"* vmlinuz kernel of " + glPXE}},
	{args: "gl --cname baremetal_pxe --title vmlinuz", want: []string{"* vmlinuz kernel of " + glPXE}},
	{args: "gl --cname baremetal_pxe-amd64 --title root.squashfs", want: []string{"* root.squashfs squashfs of " + glPXE}},
	{args: "gl --cname " + glPXE + " --title cmdline", want: []string{"* cmdline ro\n"}},
	{args: "gl --cname kvm-gardener_prod --arch amd64 --title *.raw", want: []string{"* " + glKVM + ".raw raw of " + glKVM}},
	{args: "gl --cname kvm-gardener_prod --title *.raw", status: 4, says: []string{`  (oci|oci-archive|docker):\S+/gl@sha256:[0-9a-f]{64}  .*gardenlinux/amd64  .*cname=kvm-gardener_prod-amd64`, `gardenlinux/arm64  .*cname=kvm-gardener_prod-arm64`, `hint: `}},
	{args: "gl --cname kvm-gardener_prod --arch riscv64 --title *.raw", status: 3, says: []string{`cname kvm-gardener_prod, architecture riscv64`, `6 other manifests there`, `names: .*` + glPXE}},
	{args: "gl --cname kvm --title *.raw", status: 3, says: []string{`not found`}},
	{args: "gl --cname aws-gardener_prod_usi --media-type application/io.gardenlinux.image.archive.format.tar", want: []string{
		"* " + glUSI + ".esp.tar esp.tar of " + glUSI, "* " + glUSI + ".tar rootfs of " + glUSI,
	}},
	{args: "gl --cname aws-gardener_prod_usi --media-type application/io.gardenlinux.image.archive.format.tar --title *.esp.tar", want: []string{"* " + glUSI + ".esp.tar esp.tar of " + glUSI}},
	{args: "gl --cname aws-gardener_prod_usi --media-type application/io.gardenlinux.log", want: []string{
		"* " + glUSI + ".esp.tar.log *", "* " + glUSI + ".raw.log *", "* " + glUSI + ".uki.log *",
	}},
	{args: "gl --cname aws-gardener_prod_usi --media-type application/io.gardenlinux.uki", want: []string{"* " + glUSI + ".uki uki of " + glUSI}},
	{args: "gl --media-type application/io.gardenlinux.uki", want: []string{"* " + glUSI + ".uki uki of " + glUSI}},
	{args: "gl --platform linux/amd64", want: []string{"0 oci.image.layer.v1.tar.gz *"}},
	{args: "gl --platform linux/amd64 --config", want: []string{"-1 oci.image.config.v1.json *"}},
	{args: "gl --platform gardenlinux/arm64 --title *.release", want: []string{"* kvm-gardener_prod-arm64-2150.1.0-abc12345.release *"}},
	{args: "gl --platform windows/amd64", status: 3, says: []string{`platforms: gardenlinux/amd64, gardenlinux/arm64, linux/amd64, linux/arm64`}},
	{args: "gl --arch arm64 --media-type application/vnd.oci.*", want: []string{"0 oci.image.layer.v1.tar.gz *"}},
	{args: "gl --cname baremetal_pxe --title *.iso", status: 3, says: []string{`layers there: .*1 application/io.gardenlinux.kernel`}},
	{args: "gl:1.0 --title vmlinuz", status: 3, says: []string{`ref name "1.0"`, `hint: there are: 2150.1.0`}},
	{args: "gl --annotation version=2150.1.0 --title vmlinuz", want: []string{"* vmlinuz *"}},

	// Timoni: equal types, told apart by an annotation of the layers.
	{args: "timoni --layer-annotation sh.timoni.content.type=module", want: []string{"1 timoni.content.v1.tar.gz *"}},
	{args: "timoni --layer-annotation sh.timoni.content.type=module/vendor", want: []string{"0 timoni.content.v1.tar.gz *"}},
	{args: "timoni --layer-annotation sh.timoni.content.type=cue.mod", status: 3, says: []string{`layers there: 2 ` + regexp.QuoteMeta(timoni)}},
	{args: "timoni --media-type " + timoni, status: 6, says: []string{`two layers .* "timoni.content.v1.tar.gz"`, `layer 0  sha256:`, `layer 1  sha256:`, `hint: .*--name`}},
	{args: "timoni --name {index}-{base}{ext}", want: []string{"0 0-timoni.content.v1.tar.gz *", "1 1-timoni.content.v1.tar.gz *"}},
	{args: "timoni --name {annotation:sh.timoni.content.type}{ext}", want: []string{"0 module/vendor.tar.gz *", "1 module.tar.gz *"}},
	{args: "timoni --name {annotation:sh.timoni.content.type}", status: 6, says: []string{`"module"`}},
	{args: "timoni --layer 1", want: []string{"1 timoni.content.v1.tar.gz *"}},
	{args: "timoni --layer 1 --layer-annotation sh.timoni.content.type=module/vendor", status: 3, says: []string{`has no layer 1 with annotation`}},
	{args: "timoni --layer 2", status: 3, says: []string{`has 2 layers, and layer 2 is none of them`}},
	{args: "timoni --layer -1", status: 64, says: []string{`the first layer is 0`}},
	{args: "timoni --config", want: []string{`-1 timoni.config.v1.json {"created":"2023-09-28T23:58:44Z"}`}},
	{args: "timoni --config --layer 0", status: 64},

	// Flux, with an archive and with a single file.
	{args: "flux", want: []string{"0 cncf.flux.content.v1.tar.gz *"}},
	{args: "flux --artifact-type application/vnd.cncf.flux.config.v1+json", want: []string{"0 cncf.flux.content.v1.tar.gz *"}},
	{args: "flux --platform linux/amd64", status: 3, says: []string{`1 other manifest there: 1 application/vnd.cncf.flux.config.v1\+json`}},
	{args: "static", want: []string{`0 cncf.flux.content.v1.json {"replicas":3}`}},
	{args: "static --media-type " + fluxTar, status: 3, says: []string{`layers there: 1 application/vnd.cncf.flux.content.v1.json`}},

	// Helm: the chart and its signature in either order.
	{args: "helm --media-type " + chart, want: []string{"0 cncf.helm.chart.content.v1.tar.gz *"}},
	{args: "helm-prov-first --media-type " + chart, want: []string{"1 cncf.helm.chart.content.v1.tar.gz *"}},
	{args: "helm --media-type *.prov", status: 3},
	{args: "helm-prov-first --media-type " + prov, want: []string{"0 cncf.helm.chart.provenance.v1.prov -----BEGIN PGP SIGNED MESSAGE-----\n"}},
	{args: "helm-prov-first", want: []string{"0 cncf.helm.chart.provenance.v1.prov *", "1 cncf.helm.chart.content.v1.tar.gz *"}},
	{args: "helm-prov-first --layer 0 --media-type " + chart, status: 3},
	{args: "helm --config --name {base}{ext}", want: []string{`-1 cncf.helm.config.v1.json *`}},

	// BuildKit: attestations are no images.
	{args: "buildkit-old --platform linux/amd64", want: []string{"0 oci.image.layer.v1.tar.gz *"}},
	{args: "buildkit-new --platform linux/arm64", want: []string{"0 oci.image.layer.v1.tar.gz *"}},
	{args: "buildkit-old", status: 4, says: []string{`2 candidates`, `linux/amd64`, `linux/arm64`}},
	{args: "buildkit-new", status: 4, says: []string{`2 candidates`}},
	{args: "buildkit-stripped", status: 4, says: []string{`2 candidates`}},
	{args: "buildkit-old --media-type " + inToto, status: 3, says: []string{`layers there: 2 application/vnd.oci.image.layer.v1.tar\+gzip`, `2 attestation manifests were not searched`, `hint: --attestations include`}},
	{args: "buildkit-new --media-type " + inToto, status: 3, says: []string{`2 attestation manifests were not searched`}},
	{args: "buildkit-stripped --media-type " + inToto, status: 3, says: []string{`2 attestation manifests were not searched`}},
	{args: "buildkit-old --media-type " + inToto + " --attestations include", status: 4, says: []string{`unknown/unknown`}},
	{args: "buildkit-old --attestations include --media-type " + inToto + " --annotation vnd.docker.reference.digest=AMD64 --layer-annotation " + spdx, want: []string{`0 in-toto.json {"predicateType":"https://spdx.dev/Document","of":"amd64"}`}},
	{args: "buildkit-new --attestations include --artifact-type application/vnd.docker.attestation.manifest.v1+json --annotation vnd.docker.reference.digest=AMD64 --layer-annotation " + slsa, want: []string{
		`1 in-toto.json {"predicateType":"https://slsa.dev/provenance/v0.2","of":"amd64"}`,
	}},
	{args: "buildkit-old --attestations perhaps", status: 64},

	// An index in an index in an index.
	{args: "nested --media-type " + fluxTar, want: []string{"0 cncf.flux.content.v1.tar.gz *"}},
	{args: "nested --media-type application/vnd.cncf.flux.content.v1.json", want: []string{`0 cncf.flux.content.v1.json {"replicas":3}`}},
	{args: "nested --media-type application/vnd.cncf.flux.*", status: 4, says: []string{`2 candidates`}},
	{args: "nested --layer-annotation sh.timoni.content.type=module", want: []string{"1 timoni.content.v1.tar.gz *"}},
	{args: "nested --platform linux/arm64", want: []string{"0 oci.image.layer.v1.tar.gz *"}},
	{args: "nested --platform linux/amd64", status: 3, says: []string{`platforms: linux/arm64`}},
	{args: "nested", status: 4, says: []string{`4 candidates`, `linux/arm64`, `artifactType=application/vnd.timoni.config.v1\+json`, `ref=v1`}},

	// Equal bytes under different types.
	{args: "twins --media-type application/vnd.example.policy+json", want: []string{`1 example.policy.json {"same":true}`}},
	{args: "twins --media-type application/json", status: 6, says: []string{`"layer.json"`}},
	{args: "twins --layer 0", want: []string{`0 layer.json {"same":true}`}},
	{args: "twins --layer 2", want: []string{`2 example.policy.json {"same":true}`}},
	{args: "twins --name {digest12}{ext}", want: []string{`0 ` + hex12(`{"same":true}`) + `.json {"same":true}`, `3 ` + hex12(`{"same":false}`) + `.json {"same":false}`}},

	// A manifest list of Docker.
	{args: "docker --platform linux/s390x", want: []string{"0 docker.image.rootfs.diff.tar.gz *"}},
	{args: "docker --platform linux/arm64", status: 3, says: []string{`platforms: linux/amd64, linux/s390x`}},
	{args: "docker", status: 4, says: []string{`application/vnd.docker.distribution.manifest.v2\+json`}},
	{args: "docker --platform linux/amd64 --config", want: []string{"-1 docker.container.image.v1.json *"}},

	// Everything at once.
	{args: "all --media-type " + chart, want: []string{"1 cncf.helm.chart.content.v1.tar.gz *"}},
	{args: "all:v1", want: []string{`0 cncf.flux.content.v1.json {"replicas":3}`}},
	{args: "all:registry.example/team/static:v1", want: []string{`0 cncf.flux.content.v1.json {"replicas":3}`}},
	{args: "all --platform linux/s390x", want: []string{"0 docker.image.rootfs.diff.tar.gz *"}},
	{args: "all --platform linux/amd64", status: 4, says: []string{`ref=buildkit`, `ref=docker`}},
	{args: "all:docker --platform linux/amd64", want: []string{"0 docker.image.rootfs.diff.tar.gz *"}},
	{args: "all --artifact-type application/vnd.example.twins --layer 3", want: []string{`3 layer.json {"same":false}`}},
	{args: "all --digest 000000000000", status: 3, says: []string{`other manifests there`}},
	{args: "all --digest 0000", status: 5},
	{args: "all --title [", status: 64},
}

func hex12(content string) string { return digest.FromString(content).Encoded()[:12] }

// TestSelections runs every selection on directories and on tarballs in place.
func TestSelections(t *testing.T) {
	if len(selections) < 60 {
		t.Fatalf("%d selections, want 60 or more", len(selections))
	}
	dir := t.TempDir()
	makeSelections(t, dir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	tars := t.TempDir()
	reg := regtest.Start(t, nil)
	noCredentials(t)
	for _, e := range entries {
		mustGloci(t, "pack", filepath.Join(dir, e.Name()), filepath.Join(tars, e.Name()))
		if ref := selectionRef(e.Name()); ref != "" {
			mustGloci(t, "sync", filepath.Join(dir, e.Name())+ref, "docker://"+reg.Host+"/sel/"+e.Name()+ref, "--tls-verify=false", "-q")
		}
	}
	// The digest of the image that an attestation is of.
	amd64 := regexp.MustCompile(`sha256:[0-9a-f]{64}`)
	for _, form := range []struct{ name, dir string }{{"directory", dir + "/"}, {"tarball", tars + "/"}, {"registry", "docker://" + reg.Host + "/sel/"}} {
		t.Run(form.name, func(t *testing.T) {
			for _, s := range selections {
				t.Run(strings.ReplaceAll(s.args, "/", "|"), func(t *testing.T) {
					args := strings.Fields(s.args)
					if form.name == "registry" {
						ref := selectionRef(args[0])
						if ref == "" {
							t.Skip("index.json of a repository are its tags")
						}
						args[0] += ref
						args = append(args, "--tls-verify=false")
					}
					args[0] = form.dir + args[0]
					for i, a := range args {
						if strings.HasSuffix(a, "=AMD64") {
							found := mustGloci(t, "copy", args[0], "--platform", "linux/amd64", "-o", filepath.Join(t.TempDir(), "f"), "--json", "--tls-verify=false")
							_, manifest, _ := strings.Cut(found, `"manifest":"`)
							args[i] = strings.Replace(a, "AMD64", amd64.FindString(manifest), 1)
						}
					}
					checkSelection(t, args, s.want, s.status, s.says)
				})
			}
		})
	}
}

// selectionRef is the tag of a layout with one ref name; "" for others, and for
// operands that have one.
func selectionRef(name string) string {
	switch {
	case strings.Contains(name, ":") || name == "all":
		return ""
	case name == "gl":
		return ":2150.1.0"
	}
	return ":v1"
}

// noCredentials keeps a test from the registries and passwords of the machine.
func noCredentials(t *testing.T) {
	t.Helper()
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	t.Setenv("CONTAINERS_REGISTRIES_CONF", "/dev/null")
}

func checkSelection(t *testing.T, args, want []string, wantStatus int, says []string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	status, stdout, stderr := gloci(append(append([]string{"copy"}, args...), "-o", out+"/", "--json")...)
	if status != wantStatus {
		t.Fatalf("exit %d, want %d\n%s", status, wantStatus, stderr)
	}
	for _, re := range says {
		if !regexp.MustCompile(re).MatchString(stderr) {
			t.Errorf("stderr does not match %s:\n%s", re, stderr)
		}
	}
	checkCandidates(t, args, stderr)
	if wantStatus != 0 {
		if _, err := os.Lstat(out); err == nil {
			t.Errorf("%s is there after an error", out)
		}
		return
	}
	var got []string
	for line := range strings.Lines(stdout) {
		var r copyResult
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(r.Path)
		if err != nil {
			t.Fatal(err)
		}
		if digest.FromBytes(content) != r.Digest || string(r.Digest) != r.Descriptor.Digest || r.Size != int64(len(content)) {
			t.Errorf("%s is not what %+v says", r.Path, r)
		}
		name, err := filepath.Rel(out, r.Path)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%d %s %s", r.Layer, name, content))
	}
	// Where the number or content is "*", anything will do.
	slices.SortFunc(got, compareNames)
	want = slices.Clone(want)
	slices.SortFunc(want, compareNames)
	if len(got) != len(want) {
		t.Fatalf("copied %q, want %q", got, want)
	}
	for i := range want {
		re := `(?s)^` + strings.ReplaceAll(regexp.QuoteMeta(want[i]), `\*`, `.*`) + `$`
		if !regexp.MustCompile(re).MatchString(got[i]) {
			t.Errorf("copied %q, want %q", got[i], want[i])
		}
	}
}

func compareNames(a, b string) int {
	return strings.Compare(strings.SplitN(a, " ", 3)[1], strings.SplitN(b, " ", 3)[1])
}

// checkCandidates demands that each line of an ambiguous error, pasted, leaves
// one candidate.
func checkCandidates(t *testing.T, args []string, stderr string) {
	t.Helper()
	for line := range strings.Lines(stderr) {
		if !strings.HasPrefix(line, "  oci:") && !strings.HasPrefix(line, "  oci-archive:") && !strings.HasPrefix(line, "  docker:") {
			continue
		}
		pasted := slices.Clone(args)
		pasted[0] = strings.Fields(line)[0]
		out := filepath.Join(t.TempDir(), "pasted")
		if status, _, stderr := gloci(append(append([]string{"copy"}, pasted...), "-o", out, "--name", "{index}{ext}")...); status != 0 {
			t.Errorf("copy %s: exit %d\n%s", strings.Join(pasted, " "), status, stderr)
		}
	}
}
