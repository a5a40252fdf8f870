package gardenlinux

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// names of every form, with what they mean. The last two columns are what a
// wrong split at "-" or "_" would get wrong.
var nameCases = []struct {
	name     string
	want     Name
	features string // joined by a space
	refName  string
}{
	{"container", Name{CName: "container"}, "container", ""},
	{"aws-gardener_prod", Name{CName: "aws-gardener_prod"}, "aws gardener _prod", ""},
	{"container-amd64", Name{"container", "amd64", "", ""}, "container", "container-amd64"},
	{"container-pythonDev-arm64", Name{"container-pythonDev", "arm64", "", ""}, "container pythonDev", "container-pythondev-arm64"},
	{"metal-khost_dev", Name{CName: "metal-khost_dev"}, "metal khost _dev", ""},
	{"openstack-metal-amd64", Name{"openstack-metal", "amd64", "", ""}, "openstack metal", "openstack-metal-amd64"},
	{"aws-gardener_prod-amd64-1877.3", Name{"aws-gardener_prod", "amd64", "1877.3", ""}, "aws gardener _prod", "aws-gardener_prod-amd64"},
	{"baremetal_pxe-amd64-2150.1.0", Name{"baremetal_pxe", "amd64", "2150.1.0", ""}, "baremetal _pxe", "baremetal_pxe-amd64"},
	{"container-amd64-2150.1.7", Name{"container", "amd64", "2150.1.7", ""}, "container", "container-amd64"}, // a fork's
	{"container-amd64-today", Name{"container", "amd64", "today", ""}, "container", "container-amd64"},
	{"container-amd64-today-local", Name{"container", "amd64", "today", "local"}, "container", "container-amd64"},
	{"aws-gardener_prod-amd64-1877.3-a1b2c3d4", Name{"aws-gardener_prod", "amd64", "1877.3", "a1b2c3d4"}, "aws gardener _prod", "aws-gardener_prod-amd64"},
	{
		"gcp-gardener_prod_tpm2_trustedboot-arm64-1770.0-60d819dd",
		Name{"gcp-gardener_prod_tpm2_trustedboot", "arm64", "1770.0", "60d819dd"},
		"gcp gardener _prod _tpm2 _trustedboot", "gcp-gardener_prod_tpm2_trustedboot-arm64",
	},
}

func TestParseName(t *testing.T) {
	for _, c := range nameCases {
		n, err := ParseName(c.name)
		if err != nil {
			t.Errorf("ParseName(%q): %v", c.name, err)
			continue
		}
		if diff := cmp.Diff(c.want, n); diff != "" {
			t.Errorf("ParseName(%q) (-want +got):\n%s", c.name, diff)
		}
		if got := n.String(); got != c.name {
			t.Errorf("ParseName(%q).String() = %q", c.name, got)
		}
		if got := strings.Join(n.Features(), " "); got != c.features {
			t.Errorf("ParseName(%q).Features() = %q, want %q", c.name, got, c.features)
		}
		if got := n.RefName(); got != c.refName {
			t.Errorf("ParseName(%q).RefName() = %q, want %q", c.name, got, c.refName)
		}
	}
}

func TestNameForms(t *testing.T) {
	type forms struct{ Flavor, VersionedFlavor, BaseName string }
	for _, c := range []struct {
		name Name
		want forms
	}{
		{Name{}, forms{}},
		{Name{CName: "container"}, forms{}},
		{Name{Arch: "amd64", Version: "today", Commit: "local"}, forms{}},
		{Name{CName: "container", Arch: "amd64"}, forms{"container-amd64", "", ""}},
		{Name{CName: "container", Arch: "amd64", Commit: "local"}, forms{"container-amd64", "", ""}},
		{Name{"container", "amd64", "2150.1.0", ""}, forms{"container-amd64", "container-amd64-2150.1.0", ""}},
		{
			Name{"container", "amd64", "2150.1.0", "abc12345"},
			forms{"container-amd64", "container-amd64-2150.1.0", "container-amd64-2150.1.0-abc12345"},
		},
	} {
		got := forms{c.name.Flavor(), c.name.VersionedFlavor(), c.name.BaseName()}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("forms of %+v (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestParseNameRefuses(t *testing.T) {
	for _, s := range []string{
		"", "-", "_", "Container", "1aws", "_prod", "-amd64", "amd64", "aws-", "aws_", "aws--gardener", "aws__prod", "aws-_prod",
		"aws gardener", "aws.gardener", "aws/../gardener", "aws\x00", "äws", "aws-gardener-gardener", "aws_prod_prod",
		"aws-amd64-", "aws-amd64-1877", "aws-amd64-1877.", "aws-amd64-.3", "aws-amd64-1877.3.0.1", "aws-amd64-01877.3", "aws-amd64-1877.03",
		"aws-amd64-1877.x", "aws-amd64--1.2", "aws-amd64-latest", "aws-amd64-1.2-", "aws-amd64-1.2-abc1234", "aws-amd64-1.2-abc123456",
		"aws-amd64-1.2-ABC12345", "aws-amd64-1.2-abc1234g", "aws-amd64-1.2-dirty", "aws-amd64-1.2-abc12345-x", "aws-amd64-arm64",
		"aws-amd64-today-local-", "aws-amd64-1.9999999999", "aws" + strings.Repeat("_x", 100), strings.Repeat("a", 201),
	} {
		if n, err := ParseName(s); !errors.Is(err, ErrName) {
			t.Errorf("ParseName(%q) = %+v, %v; want ErrName", s, n, err)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, n := range []Name{
		{},
		{Arch: "amd64"},
		{CName: "container", Arch: "riscv64"},
		{CName: "container", Version: "today"},
		{CName: "container", Arch: "amd64", Commit: "local"},
		{CName: "container-amd64"},
		{CName: "container-amd64", Arch: "amd64"},
		{CName: "container", Arch: "amd64", Version: "2150.1.0-abc12345"},
		{CName: strings.Repeat("a", 195), Arch: "amd64", Version: "2150.1.0"},
	} {
		if err := n.Validate(); !errors.Is(err, ErrName) {
			t.Errorf("%+v.Validate() = %v, want ErrName", n, err)
		}
	}
	for _, c := range nameCases {
		if err := c.want.Validate(); err != nil {
			t.Errorf("%+v.Validate() = %v", c.want, err)
		}
	}
}

func TestEncodeCName(t *testing.T) {
	for _, c := range []struct {
		features []string
		want     string
	}{
		{[]string{"container"}, "container"},
		{[]string{"aws", "gardener", "_prod"}, "aws-gardener_prod"},
		{[]string{"baremetal", "_pxe"}, "baremetal_pxe"},
		{[]string{"container", "pythonDev"}, "container-pythonDev"},
	} {
		if got, err := EncodeCName(c.features); err != nil || got != c.want {
			t.Errorf("EncodeCName(%q) = %q, %v, want %q", c.features, got, err, c.want)
		}
	}
	for _, features := range [][]string{
		nil, {""}, {"_prod", "aws"}, {"aws-gardener"}, {"aws_prod"}, {"aws", ""}, {"aws", "_"}, {"aws", "aws"}, {"aws", "amd64"}, {"aws", "-x"}, {"Aws"},
	} {
		if got, err := EncodeCName(features); !errors.Is(err, ErrName) {
			t.Errorf("EncodeCName(%q) = %q, %v; want ErrName", features, got, err)
		}
	}
}

// drawFeatures makes any list of features that a cname can name.
func drawFeatures(t *rapid.T) []string {
	features := rapid.SliceOfNDistinct(rapid.StringMatching(`_?[a-zA-Z0-9]{1,8}`), 0, 8, rapid.ID[string]).Draw(t, "features")
	features = append([]string{rapid.StringMatching(`[a-z][a-zA-Z0-9]{0,8}`).Draw(t, "platform")}, features...)
	seen := map[string]bool{"amd64": true, "arm64": true}
	var out []string
	for i, f := range features {
		if i == 0 && seen[f] {
			f = "aws"
		}
		if !seen[f] {
			out = append(out, f)
		}
		seen[f] = true
	}
	return out
}

func drawName(t *rapid.T) Name {
	cname, err := EncodeCName(drawFeatures(t))
	if err != nil {
		t.Fatal(err)
	}
	n := Name{CName: cname}
	parts := rapid.IntRange(0, 3).Draw(t, "parts")
	if parts > 0 {
		n.Arch = rapid.SampledFrom([]string{"amd64", "arm64"}).Draw(t, "arch")
	}
	if parts > 1 {
		n.Version = rapid.StringMatching(`today|(0|[1-9][0-9]{0,3})(\.(0|[1-9][0-9]?)){1,2}`).Draw(t, "version")
	}
	if parts > 2 {
		n.Commit = rapid.StringMatching(`local|[0-9a-f]{8}`).Draw(t, "commit")
	}
	return n
}

func TestCNameRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		features := drawFeatures(t)
		cname, err := EncodeCName(features)
		if err != nil {
			t.Fatalf("EncodeCName(%q): %v", features, err)
		}
		got, err := DecodeCName(cname)
		if err != nil || !cmp.Equal(got, features) {
			t.Fatalf("DecodeCName(%q) = %q, %v, want %q", cname, got, err, features)
		}
	})
}

func TestNameRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := drawName(t)
		if err := n.Validate(); err != nil {
			t.Fatal(err)
		}
		got, err := ParseName(n.String())
		if err != nil || got != n {
			t.Fatalf("ParseName(%q) = %+v, %v, want %+v", n, got, err, n)
		}
	})
}

func TestSplitFileName(t *testing.T) {
	for _, suffix := range []string{"tar", "tar.log", "esp.tar", "secureboot.aws-efivars", "test-log", "pxe.tar.gz", "amd64", "x-amd64-y.z"} {
		for _, c := range nameCases {
			file := c.name + "." + suffix
			n, got, ok := splitFileName(file)
			if c.want.Commit == "" {
				if ok {
					t.Errorf("splitFileName(%q) = %v, %q, want none", file, n, got)
				}
				continue
			}
			if !ok || n != c.want || got != suffix {
				t.Errorf("splitFileName(%q) = %v, %q, %v, want %v, %q", file, n, got, ok, c.want, suffix)
			}
		}
	}
	for _, file := range []string{"container-amd64-today-local", "container-amd64-today-local.", ".container-amd64-today-local.tar", "README.md", ""} {
		if n, suffix, ok := splitFileName(file); ok {
			t.Errorf("splitFileName(%q) = %v, %q, want none", file, n, suffix)
		}
	}
}

// FuzzParseName: what is accepted is valid, comes back from its own text, and
// is safe as a file name.
func FuzzParseName(f *testing.F) {
	for _, c := range nameCases {
		f.Add(c.name)
	}
	for _, s := range []string{"aws-amd64-1.2-abc12345.tar", "-amd64-", "a_b-_c", "a\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseName(s)
		if err != nil {
			if !errors.Is(err, ErrName) || n != (Name{}) {
				t.Fatalf("ParseName(%q) = %+v, %v", s, n, err)
			}
			return
		}
		if n.String() != s || n.Validate() != nil || strings.ContainsAny(s, "/\\ \n\x00") || s[0] == '.' {
			t.Fatalf("ParseName(%q) = %+v, %v", s, n, n.Validate())
		}
		cname, err := EncodeCName(n.Features())
		if err != nil || cname != n.CName {
			t.Fatalf("EncodeCName(%q) = %q, %v, want %q", n.Features(), cname, err, n.CName)
		}
		if n.Commit != "" {
			if got, suffix, ok := splitFileName(s + ".tar.log"); !ok || got != n || suffix != "tar.log" {
				t.Fatalf("splitFileName(%q) = %+v, %q, %v", s+".tar.log", got, suffix, ok)
			}
		}
	})
}
