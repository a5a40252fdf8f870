package pkglist_test

import (
	"errors"
	"os/exec"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gardenlinux/gloci-layout/layout/diff/pkglist"
)

func TestParse(t *testing.T) {
	want := []pkglist.Package{{"apt", "amd64", "2.9.8"}, {"libc6", "amd64", "2.40-3"}}
	for name, test := range map[string]struct {
		format pkglist.Format
		text   string
	}{
		"manifest": {pkglist.Lines, "apt:amd64 2.9.8\nlibc6:amd64\t2.40-3\n\n"},
		"dpkg": {pkglist.Dpkg, "Package: apt\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.9.8\nDescription: a\n long: text\n .\n\n\n" +
			"Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n" +
			"Package: libc6\nVersion: 2.40-3\nArchitecture: amd64\n"},
		"cyclonedx": {pkglist.CycloneDX, `{"bomFormat":"CycloneDX","components":[
			{"name":"apt","version":"2.9.8","purl":"pkg:deb/debian/apt@2.9.8?arch=amd64&distro=x"},
			{"name":"libc6","version":"2.40-3","purl":"pkg:deb/debian/libc6@2.40-3?distro=x&arch=amd64#sub"}]}`},
	} {
		have, err := pkglist.Parse(test.format, []byte(test.text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, have); diff != "" {
			t.Errorf("%s (-want +have):\n%s", name, diff)
		}
	}
	for format, text := range map[pkglist.Format]string{
		pkglist.Lines:     "one two three\n",
		pkglist.Dpkg:      "Version: 1\n\n",
		pkglist.CycloneDX: `{"spdxVersion":"SPDX-2.3"}`,
		pkglist.None:      "",
	} {
		if _, err := pkglist.Parse(format, []byte(text)); !errors.Is(err, pkglist.ErrFormat) {
			t.Errorf("%q as %s: error %v, want ErrFormat", text, format, err)
		}
	}
}

func TestFormatOf(t *testing.T) {
	for name, want := range map[string]pkglist.Format{
		"var/lib/dpkg/status":                   pkglist.Dpkg,
		"var/lib/dpkg/status.d/base":            pkglist.Dpkg,
		"var/lib/dpkg/status.d/base.md5sums":    pkglist.None,
		"aws-prod-amd64-1877.1-abc123.manifest": pkglist.Lines,
		"x.sbom":                                pkglist.CycloneDX,
		"proc/status":                           pkglist.None,
		"etc/passwd":                            pkglist.None,
	} {
		if have := pkglist.FormatOf(name); have != want {
			t.Errorf("FormatOf(%q) = %q, want %q", name, have, want)
		}
	}
}

func TestDiff(t *testing.T) {
	a := []pkglist.Package{{"apt", "", "1"}, {"gone", "", "1"}, {"linux", "", "6.1"}, {"linux", "", "6.6"}, {"same", "amd64", "1"}}
	b := []pkglist.Package{{"same", "amd64", "1"}, {"apt", "", "2"}, {"linux", "", "6.6"}, {"linux", "", "6.12"}, {"new", "", "3"}, {"same", "i386", "1"}}
	want := []pkglist.Change{
		{"apt", "", "1", "2"},
		{"gone", "", "1", ""},
		{"linux", "", "6.1", "6.12"},
		{"new", "", "", "3"},
		{"same", "i386", "", "1"},
	}
	have := pkglist.Diff(a, b)
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("-want +have:\n%s", diff)
	}
	for i, c := range pkglist.Diff(b, a) {
		if c.Mirror() != want[i] {
			t.Errorf("the other way: %v, want the mirror of %v", c, want[i])
		}
	}
	if have := pkglist.Diff(a, a); len(have) != 0 {
		t.Errorf("a list differs from itself: %v", have)
	}
}

var versions = []string{
	"0", "1", "1.0", "1.0-1", "1.0-1~bpo12+1", "1.0-1+b1", "1.0-1.1", "1.0~rc1-1", "1.0~rc1", "1.0~~", "1.0~", "1.0a", "1.0+", "1.0.1",
	"1:0.9", "2:0.1", "0:1.0", "9", "10", "010", "2.40-3", "2.40-3gardenlinux1", "2.9.8", "6.6.60", "6.12.1", "1.2.3-4-5", "20240203-1",
	"1.0-1z", "1.0-1A", "1.0.", "99999999999999999999999", "99999999999999999999998",
}

// Of each pair of versions dpkg says the same, where it is installed.
func TestCompareVersions(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{
		{"1.0~rc1", "1.0", -1},
		{"1.0", "1.0+b1", -1},
		{"1:0.1", "2.0", 1},
		{"6.6.60", "6.12.1", -1},
		{"2.40-3", "2.40-10", -1},
		{"1.0a", "1.0+", -1},
		{"010", "10", 0},
	} {
		if have := pkglist.CompareVersions(test.a, test.b); have != test.want {
			t.Errorf("CompareVersions(%q, %q) = %d, want %d", test.a, test.b, have, test.want)
		}
	}
	dpkg, err := exec.LookPath("dpkg")
	if err != nil {
		t.Skip("dpkg is not installed: the other pairs are not checked")
	}
	// Both orders are total, so what dpkg says of neighbours in ours says it of all:
	// a process for each of 1,000 pairs would take longer than all else here.
	sorted := slices.SortedFunc(slices.Values(versions), pkglist.CompareVersions)
	rank := make([]int, len(sorted))
	for i := 1; i < len(sorted); i++ {
		relation := "eq"
		if rank[i] = rank[i-1]; pkglist.CompareVersions(sorted[i-1], sorted[i]) != 0 {
			relation = "lt"
			rank[i]++
		}
		out, err := exec.CommandContext(t.Context(), dpkg, "--compare-versions", sorted[i-1], relation, sorted[i]).CombinedOutput()
		if err != nil {
			t.Errorf("dpkg: not %q %s %q: %v: %s", sorted[i-1], relation, sorted[i], err, out)
		}
	}
	for i, a := range sorted {
		for j, b := range sorted {
			if have, want := pkglist.CompareVersions(a, b), min(1, max(-1, rank[i]-rank[j])); have != want {
				t.Errorf("CompareVersions(%q, %q) = %d, want %d", a, b, have, want)
			}
		}
	}
}
