package gardenlinux

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gardenlinux/gloci-layout/layout"
)

const (
	containerAMD = "container-amd64-2150.1.0-abc12345"
	containerARM = "container-arm64-2150.1.0-abc12345"
	pxeAMD       = "baremetal_pxe-amd64-2150.1.0-abc12345"
	usiAMD       = "aws-gardener_prod_usi-amd64-2150.1.0-abc12345"
	kvmAMD       = "kvm-gardener_prod-amd64-2150.1.0-abc12345"
)

func titles(flavors []Flavor) map[string][]string {
	out := make(map[string][]string)
	for _, f := range flavors {
		for _, file := range f.Files {
			out[f.Name.BaseName()] = append(out[f.Name.BaseName()], file.Title)
		}
	}
	return out
}

// The files of five real builds, in one directory, without a warning.
func TestReadBuild(t *testing.T) {
	dir := builds(t, containerAMD, "oci").listed(containerAMD).and(
		builds(t, containerARM, "oci").listed(containerARM),
		builds(t, pxeAMD, "pxe.tar.gz").listed(pxeAMD),
		builds(t, usiAMD, "esp.tar", "raw", "uki").listed(usiAMD),
		builds(t, kvmAMD, "raw"), // no list
		files{
			"bootstrap-amd64-2150.1.0-abc12345.tar": "the builder's", "bootstrap-amd64-2150.1.0-abc12345.tar.log": "", ".sentinel": "",
			containerAMD + ".artifacts.log": "",
		},
	).write(t, t.TempDir())
	for name, target := range map[string]string{"container-amd64": containerAMD + ".artifacts", "old": "gone"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "cert"), 0o755); err != nil {
		t.Fatal(err)
	}
	var log warnings
	flavors, err := ReadBuild(dir, BuildOptions{Logger: log.logger(), Unknown: UnknownError})
	if err != nil {
		t.Fatal(err)
	}
	always := func(base string, first, last []string) []string {
		out := slices.Clone(first)
		out = append(out, last...)
		for i := range out {
			out[i] = base + "." + out[i]
		}
		return out
	}
	want := map[string][]string{
		containerAMD: always(containerAMD, []string{"requirements", "manifest", "release", "sbom", "tar", "oci"},
			[]string{"manifest.log", "oci.log", "release.log", "requirements.log", "sbom.log", "tar.log"}),
		containerARM: always(containerARM, []string{"requirements", "manifest", "release", "sbom", "tar", "oci"},
			[]string{"manifest.log", "oci.log", "release.log", "requirements.log", "sbom.log", "tar.log"}),
		pxeAMD: always(pxeAMD, []string{"requirements", "pxe.tar.gz", "manifest", "release", "sbom", "tar"},
			[]string{"manifest.log", "pxe.tar.gz.log", "release.log", "requirements.log", "sbom.log", "tar.log"}),
		usiAMD: always(usiAMD, []string{"requirements", "manifest", "release", "sbom", "esp.tar", "tar", "uki", "raw"},
			[]string{"esp.tar.log", "manifest.log", "raw.log", "release.log", "requirements.log", "sbom.log", "tar.log", "uki.log"}),
		kvmAMD: always(kvmAMD, []string{"requirements", "manifest", "release", "sbom", "tar", "raw"},
			[]string{"manifest.log", "raw.log", "release.log", "requirements.log", "sbom.log", "tar.log"}),
	}
	if diff := cmp.Diff(want, titles(flavors)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	var order []string
	for _, f := range flavors {
		order = append(order, f.Name.BaseName())
		if f.Release == nil || f.Release.Version != "2150.1.0" {
			t.Errorf("%s: release %+v", f.Name, f.Release)
		}
	}
	if diff := cmp.Diff([]string{usiAMD, pxeAMD, containerAMD, containerARM, kvmAMD}, order); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	for _, line := range log.lines(dir) {
		t.Errorf("warning: %s", line)
	}
}

// Names that real builds have, one at a time: read without a complaint.
func TestReadBuildNames(t *testing.T) {
	for base, suffixes := range map[string][]string{
		"container-pythonDev-arm64-2150.1.0-abc12345":           {"oci"},
		"container-amd64-today-local":                           {"oci"},
		"aws-gardener_prod-amd64-1877.3-75df9f40":               {"raw"},
		"gcp-gardener_prod-arm64-2150.1.0-abc12345":             {"gcpimage.tar.gz"},
		"azure-gardener_prod_usi-amd64-2150.1.0-abc12345":       {"vhd", "uki", "esp.tar"},
		"vmware-gardener_prod-amd64-2150.1.0-abc12345":          {"ova"},
		"openstack-gardener_prod-amd64-2150.1.0-abc12345":       {"qcow2", "vmdk"},
		"baremetal_iso-amd64-2150.1.0-abc12345":                 {"iso"},
		"kvm-disaSTIGmedium_prod-amd64-2150.1.0-abc12345":       {"raw"},
		"firecracker-amd64-934.1-abc12345":                      {"firecracker.tar.gz"},
		"aws-gardener_prod_tpm2_trustedboot-amd64-1877.3-local": {"raw", "uki", "esp.tar", "secureboot.pk.crt", "secureboot.aws-efivars"},
	} {
		var log warnings
		dir := builds(t, base, suffixes...).listed(base).write(t, t.TempDir())
		flavors, err := ReadBuild(dir, BuildOptions{Unknown: UnknownError, Want: mustName(t, base), Logger: log.logger()})
		if err != nil || len(flavors) != 1 || flavors[0].Name.BaseName() != base || len(flavors[0].Files) != 2*(5+len(suffixes)) || log.Len() > 0 {
			t.Errorf("%s: %v, %v\n%s", base, titles(flavors), err, log.String())
		}
	}
}

func TestReadBuildBareNames(t *testing.T) {
	bare := files{"vmlinuz": "1", "initrd": "2", "root.squashfs": "3", "cmdline": "4"}
	var log warnings
	dir := builds(t, pxeAMD).with(bare).write(t, t.TempDir())
	flavors, err := ReadBuild(dir, BuildOptions{Logger: log.logger()})
	if err != nil || log.Len() > 0 {
		t.Fatal(err, log.String())
	}
	got := titles(flavors)[pxeAMD]
	for name := range bare {
		if !slices.Contains(got, name) {
			t.Errorf("%s is no file of the only flavor: %q", name, got)
		}
	}

	dir = builds(t, pxeAMD, "pxe.tar.gz").with(bare).write(t, t.TempDir())
	if flavors, err = ReadBuild(dir, BuildOptions{Logger: log.logger()}); err != nil {
		t.Fatal(err)
	}
	if got := titles(flavors)[pxeAMD]; slices.Contains(got, "vmlinuz") {
		t.Errorf("vmlinuz beside the PXE archive: %q", got)
	}
	if got := log.lines(dir); len(got) != 4 || !strings.Contains(got[0], "file=cmdline") {
		t.Errorf("warnings %q, want one for each of the 4 files", got)
	}

	dir = builds(t, pxeAMD, "pxe.tar.gz").and(builds(t, kvmAMD, "raw"), bare).write(t, t.TempDir())
	if _, err = ReadBuild(dir, BuildOptions{}); !errors.Is(err, layout.ErrAmbiguous) || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("two flavors: %v, want ErrAmbiguous for each of 4", err)
	}
}

func TestReadBuildWarns(t *testing.T) {
	base := "aws-gardener_prod_trustedboot-amd64-2150.1.0-abc12345"
	fs := builds(t, base, "raw", "uki").listed(base).with(files{
		base + ".chroot.test.xml": "not listed", "README.md": "", "gcp-amd64-x.tar": "", "cache.bin": "",
	})
	var log warnings
	dir := fs.write(t, t.TempDir())
	if _, err := ReadBuild(dir, BuildOptions{Logger: log.logger()}); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`msg="left out: the name is not that of a build's file" file=README.md`,
		`msg="left out: the name is not that of a build's file" file=cache.bin`,
		`msg="left out: the name is not that of a build's file" file=gcp-amd64-x.tar`,
		`msg="left out: not in the list of artifacts" file=` + base + `.chroot.test.xml list=` + base + `.artifacts`,
	}
	if diff := cmp.Diff(want, log.lines(dir)); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

// A trustedboot directory has files that Garden Linux gives no media type.
func TestUnknownSuffix(t *testing.T) {
	base := "aws-gardener_prod_trustedboot-amd64-2150.1.0-abc12345"
	dir := builds(t, base, "raw", "uki").with(files{
		base + ".secureboot.pk.conf": "", base + ".secureboot.null.pk.auth": "", base + ".surprise": "",
	}).write(t, t.TempDir())
	odd := []string{base + ".secureboot.null.pk.auth", base + ".secureboot.pk.conf", base + ".surprise"}

	var log warnings
	flavors, err := ReadBuild(dir, BuildOptions{Logger: log.logger()})
	if err != nil {
		t.Fatal(err)
	}
	got := flavors[0].Files[len(flavors[0].Files)-3:]
	for i, f := range got {
		if f.Title != odd[i] || f.MediaType != "application/octet-stream" {
			t.Errorf("file %d from the end is %+v, want %s", i-3, f, odd[i])
		}
	}
	if diff := cmp.Diff([]string{
		`msg="Garden Linux has no media type for this suffix" file=` + odd[0] + ` mediaType=application/octet-stream`,
		`msg="Garden Linux has no media type for this suffix" file=` + odd[1] + ` mediaType=application/octet-stream`,
		`msg="unknown suffix" file=` + odd[2] + ` mediaType=application/octet-stream`,
	}, log.lines(dir)); diff != "" {
		t.Errorf("octet-stream: warnings (-want +got):\n%s", diff)
	}

	log.Reset()
	if flavors, err = ReadBuild(dir, BuildOptions{Logger: log.logger(), Unknown: UnknownSkip}); err != nil {
		t.Fatal(err)
	}
	for _, name := range odd {
		if slices.Contains(titles(flavors)[base], name) {
			t.Errorf("skip: %s is there", name)
		}
	}
	if got := log.lines(dir); len(got) != 3 || !strings.HasPrefix(got[2], `msg="left out: unknown suffix"`) {
		t.Errorf("skip: warnings %q", got)
	}

	if _, err = ReadBuild(dir, BuildOptions{Unknown: UnknownError}); !errors.Is(err, ErrSuffix) || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("error: %v, want ErrSuffix for each of 3", err)
	}
}

// replace changes the .release of a build.
func replace(t testing.TB, base, old, replacement string) string {
	t.Helper()
	before := osRelease(mustName(t, base))
	after := strings.Replace(before, old, replacement, 1)
	if after == before {
		t.Fatalf("no %q in %q", old, before)
	}
	return after
}

func TestReadBuildRefuses(t *testing.T) {
	good := builds(t, containerAMD, "oci")
	release := containerAMD + ".release"
	type row struct {
		name  string
		files files
		opts  BuildOptions
		is    error
		want  []string // parts of the error
	}
	for _, c := range []row{
		{"nothing", files{}, BuildOptions{}, layout.ErrNotFound, []string{"build not found"}},
		{"no build", files{"vmlinuz": "", "x.tar": ""}, BuildOptions{}, layout.ErrNotFound, nil},
		{"bootstrap only", files{"bootstrap-amd64-2150.1.0-abc12345.tar": ""}, BuildOptions{}, layout.ErrNotFound, nil},
		{
			"cname", good.with(files{release: replace(t, containerAMD, "CNAME=container", "CNAME=container-pythonDev")}),
			BuildOptions{},
			ErrDisagree,
			[]string{`cname is "container-pythonDev" in `, release + ` (GARDENLINUX_CNAME), but "container" in the names of the files`},
		},
		{
			"architecture", good.with(files{release: replace(t, containerAMD, "CNAME=container-amd64", "CNAME=container-arm64")}),
			BuildOptions{},
			ErrDisagree,
			[]string{`architecture is "arm64" in `, `, but "amd64" in `},
		},
		{
			"variant", good.with(files{release: replace(t, containerAMD, "VARIANT_ID=container-amd64", "VARIANT_ID=container-arm64")}),
			BuildOptions{},
			ErrDisagree,
			[]string{`architecture is "arm64" in `, `(VARIANT_ID), but "amd64" in `},
		},
		{
			"version", good.with(files{release: replace(t, containerAMD, "VERSION=2150.1.0", "VERSION=2150.2.0")}),
			BuildOptions{},
			ErrDisagree,
			[]string{`version is "2150.2.0" in `, `(GARDENLINUX_VERSION), but "2150.1.0" in `},
		},
		{
			"version in cname", good.with(files{release: replace(t, containerAMD, "amd64-2150.1.0", "amd64-1877.3")}),
			BuildOptions{},
			ErrDisagree,
			[]string{`version is "1877.3" in `, `(GARDENLINUX_CNAME)`},
		},
		{
			"commit", good.with(files{release: replace(t, containerAMD, "ID=abc12345", "ID=abc12346")}),
			BuildOptions{},
			ErrDisagree,
			[]string{`commit is "abc12346" in `, `(GARDENLINUX_COMMIT_ID), but "abc12345" in `},
		},
		{
			"local commit", good.with(files{release: replace(t, containerAMD, "ID=abc12345", "ID=local")}),
			BuildOptions{},
			ErrDisagree,
			[]string{`commit is "local" in `},
		},
		{
			"long commit", good.with(files{release: osRelease(mustName(t, containerAMD)) + "GARDENLINUX_COMMIT_ID_LONG=def67890c2f25e89651e3f780b913619ffe52121\n"}),
			BuildOptions{},
			ErrDisagree,
			[]string{"(GARDENLINUX_COMMIT_ID_LONG)"},
		},
		{
			"features", good.with(files{release: replace(t, containerAMD, "base,container", "base,baremetal")}),
			BuildOptions{},
			ErrDisagree,
			[]string{`feature set is "_slim,base,baremetal" in `, `(GARDENLINUX_FEATURES), but "container" in `},
		},
		{
			"no cname", good.with(files{release: replace(t, containerAMD, "CNAME=", "CNAME=_")}),
			BuildOptions{},
			ErrDisagree,
			[]string{`cname is "_container-amd64-2150.1.0" in `},
		},
		{
			"all at once", good.with(files{
				release: "GARDENLINUX_CNAME=aws-arm64-1877.3\nGARDENLINUX_VERSION=1877.4\nGARDENLINUX_COMMIT_ID=local\n", containerAMD + ".oci": "-", containerAMD + ".surprise": "",
			}),
			BuildOptions{Unknown: UnknownError},
			ErrMissing,
			[]string{`cname is "aws"`, `architecture is "arm64"`, `version is "1877.3"`, `version is "1877.4"`, `commit is "local"`, "missing layers: oci", "suffix without a media type"},
		},
		{"wanted cname", good, BuildOptions{Want: Name{CName: "aws"}}, ErrDisagree, []string{`cname is "aws" in what was asked for, but "container" in `}},
		{"wanted arch", good, BuildOptions{Want: Name{Arch: "arm64"}}, ErrDisagree, []string{`architecture is "arm64" in what was asked for, but "amd64" in `, containerAMD + ".*"}},
		{"wanted version", good, BuildOptions{Want: Name{Version: "2150.2.0"}}, ErrDisagree, []string{`version is "2150.2.0" in what was asked for, but "2150.1.0" in `}},
		{"wanted commit", good, BuildOptions{Want: Name{Commit: "local"}}, ErrDisagree, nil},
		{"nonsense wanted", good, BuildOptions{Want: Name{Arch: "x86_64"}}, ErrName, []string{`architecture "x86_64"`}},
		{"nonsense required", good, BuildOptions{Require: []string{"oci", " "}}, layout.ErrInvalid, []string{`required layer " "`}},
		{
			"bad release", good.with(files{release: "<html>"}),
			BuildOptions{},
			ErrRelease,
			[]string{release + `: not an os-release file: line 1: "<html>"`},
		},
		{"large release", good.with(files{release: strings.Repeat("#\n", 64<<10)}), BuildOptions{}, layout.ErrInvalid, []string{release + ": invalid"}},
		{
			"two releases of a build", good.with(files{containerAMD + ".old.release": ""}),
			BuildOptions{},
			layout.ErrAmbiguous,
			[]string{"2 files say what it is: " + containerAMD + ".old.release, " + release},
		},
		{
			"a bare release", good.with(files{"release": ""}), BuildOptions{}, layout.ErrAmbiguous, []string{"2 files say what it is"},
		},
		{
			"two images", good.with(files{containerAMD + ".x.oci": ""}), BuildOptions{}, layout.ErrAmbiguous, []string{"2 files with its container image"},
		},
		{
			"two builds of one flavor", good.and(builds(t, "container-amd64-2150.1.0-local", "oci")),
			BuildOptions{},
			layout.ErrConflict,
			[]string{containerAMD + " and container-amd64-2150.1.0-local are two builds"},
		},
		{
			"two images for a platform", good.and(builds(t, "container-pythonDev-amd64-2150.1.0-abc12345", "oci")),
			BuildOptions{},
			layout.ErrConflict,
			[]string{containerAMD + " and container-pythonDev-amd64-2150.1.0-abc12345 both have a container image for linux/amd64"},
		},
		{"missing image", good.with(files{containerAMD + ".oci": "-"}), BuildOptions{}, ErrMissing, []string{containerAMD + ": missing layers: oci"}},
		{"nothing but a log", files{usiAMD + ".tar.log": ""}, BuildOptions{}, ErrMissing, []string{usiAMD + ": missing layers: raw, release, uki"}},
		{"missing boot files", builds(t, pxeAMD).with(files{"initrd": ""}), BuildOptions{}, ErrMissing, []string{pxeAMD + ": missing layers: squashfs, vmlinuz"}},
		{
			"required", good,
			BuildOptions{Require: []string{"uki", "esp.tar", "application/x", "tar"}, NoDefaultRequire: true},
			ErrMissing,
			[]string{"missing layers: application/x, esp.tar, uki"},
		},
		{
			"listed but absent", good.listed(containerAMD).with(files{containerAMD + ".sbom": "-"}),
			BuildOptions{},
			layout.ErrNotFound,
			[]string{containerAMD + ".artifacts: line 9: " + containerAMD + ".sbom: not found"},
		},
		{
			"listed from elsewhere", good.with(files{containerAMD + ".artifacts": "../" + release}), BuildOptions{}, layout.ErrUnsafe, []string{"line 1"},
		},
		{
			"listed of another", good.with(files{containerAMD + ".artifacts": release + "\r\n\n" + containerARM + ".release\n"}),
			BuildOptions{},
			layout.ErrInvalid,
			[]string{"line 3", "is not a file of " + containerAMD},
		},
		{"a huge list", good.with(files{containerAMD + ".artifacts": strings.Repeat("\n", 1<<20+1)}), BuildOptions{}, layout.ErrInvalid, []string{"more than 1048576 bytes"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := c.files.write(t, t.TempDir())
			flavors, err := ReadBuild(dir, c.opts)
			if !errors.Is(err, c.is) || flavors != nil {
				t.Fatalf("ReadBuild = %v, %v; want %v", titles(flavors), err, c.is)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q lacks %q", err, want)
				}
			}
			if after := readDir(t, dir); !cmp.Equal(after, c.files, cmp.Transformer("map", func(f files) map[string]string { return f })) {
				t.Error("the directory has changed")
			}
		})
	}
}

func readDir(t testing.TB, dir string) files {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := files{}
	for _, e := range entries {
		raw, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = string(raw)
	}
	return out
}

func TestReadBuildDirectory(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadBuild(filepath.Join(dir, "gone"), BuildOptions{}); !errors.Is(err, layout.ErrNotFound) {
		t.Errorf("no directory: %v, want ErrNotFound", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadBuild(file, BuildOptions{}); !errors.Is(err, syscall.ENOTDIR) || strings.Contains(err.Error(), "\n") {
		t.Errorf("a file: %v, want ENOTDIR", err)
	}
}

// What has the name of an artifact must be a file inside the directory.
func TestReadBuildFileTypes(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	raw := kvmAMD + ".raw"
	errAny := errors.New("any error")
	// The standard library's error for a loop has no name.
	is := func(err, target error) bool {
		return err != nil && (errors.Is(target, errAny) || errors.Is(err, target))
	}
	for _, c := range []struct {
		name string
		make func(path string) error
		is   error // nil: it is read
	}{
		{"directory", func(path string) error { return os.Mkdir(path, 0o755) }, layout.ErrInvalid},
		{"fifo", func(path string) error { return syscall.Mkfifo(path, 0o600) }, layout.ErrInvalid},
		{"link out, absolute", func(path string) error { return os.Symlink(outside, path) }, layout.ErrUnsafe},
		{"link out, relative", func(path string) error { return os.Symlink("../../../../../../etc/hosts", path) }, layout.ErrUnsafe},
		{"link to nothing", func(path string) error { return os.Symlink("nothing", path) }, layout.ErrNotFound},
		{"link to itself", func(path string) error { return os.Symlink(raw, path) }, errAny},
		{"link to the directory", func(path string) error { return os.Symlink(".", path) }, layout.ErrInvalid},
		{"link to a file", func(path string) error { return os.Symlink(kvmAMD+".tar", path) }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := builds(t, kvmAMD).write(t, t.TempDir())
			if err := c.make(filepath.Join(dir, raw)); err != nil {
				t.Skip(err)
			}
			flavors, err := ReadBuild(dir, BuildOptions{})
			if c.is != nil {
				if !is(err, c.is) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), raw) {
					t.Errorf("ReadBuild: %v, want %v in one line", err, c.is)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(flavors[0].Files, func(f File) bool { return f.Title == raw })
			if got, err := os.ReadFile(flavors[0].Files[i].Path); err != nil || string(got) != "tar of "+kvmAMD {
				t.Errorf("read %q, %v through the link", got, err)
			}
		})
	}
}
