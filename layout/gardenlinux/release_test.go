package gardenlinux

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseRelease(t *testing.T) {
	for _, c := range []struct {
		file string // of testdata/release
		want Release
	}{
		{"bare.release", Release{
			CName: "aws-gardener_prod-amd64-2150.1.0", Variant: "aws-gardener_prod-amd64", Version: "2150.1.0",
			Commit: "abc12345", CommitLong: "abc12345c2f25e89651e3f780b913619ffe52121", Platform: "aws",
			FeatureSet: "log,sap,ssh,_boot,_nopkg,_prod,_slim,base,server,cloud,aws,gardener",
			Features:   []string{"log", "sap", "ssh", "_boot", "_nopkg", "_prod", "_slim", "base", "server", "cloud", "aws", "gardener"},
		}},
		{"quoted.release", Release{
			CName: "container", Variant: "container-amd64", Version: "today", Commit: "local", CommitLong: "local", Platform: "container",
			FeatureSet: `"_slim,base,container"`,
			Features:   []string{"_slim", "base", "container"},
		}},
		{"old.release", Release{
			CName: "metal_pxe-arm64-1592.4", Version: "1592.4", Commit: "00942a0", CommitLong: "00942a0a5c2f25e89651e3f780b913619ffe5212",
			FeatureSet: "'_pxe,base,metal'",
			Features:   []string{"_pxe", "base", "metal"},
		}},
	} {
		raw, err := os.ReadFile(filepath.Join("testdata", "release", c.file))
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseRelease(raw)
		if err != nil {
			t.Errorf("ParseRelease(%s): %v", c.file, err)
			continue
		}
		if diff := cmp.Diff(&c.want, got); diff != "" {
			t.Errorf("ParseRelease(%s) (-want +got):\n%s", c.file, diff)
		}
	}
}

func TestParseReleaseValues(t *testing.T) {
	for raw, want := range map[string]string{
		"":                     "",
		"2150.1.0":             "2150.1.0",
		`"2150.1.0"`:           "2150.1.0",
		`'2150.1.0'`:           "2150.1.0",
		`""`:                   "",
		`"a\"b\\c\$d\` + "`\"": `a"b\c$d` + "`",
		`"a\nb"`:               `a\nb`,
		`'a\"b'`:               `a\"b`,
		`  x  `:                "x",
		"x\r":                  "x",
	} {
		r, err := ParseRelease([]byte("# comment\n\nGARDENLINUX_VERSION=" + raw + "\nOTHER=1\n"))
		if err != nil || r.Version != want {
			t.Errorf("value %s = %+v, %v, want %q", raw, r, err, want)
		}
	}
}

func TestParseReleaseRefuses(t *testing.T) {
	for _, s := range []string{
		"no assignment", "=x", "1A=x", "A B=x", "export A=x", "\xff=x", "GARDENLINUX_VERSION=\xff",
		`GARDENLINUX_VERSION="x`, `GARDENLINUX_VERSION="x"y`, `GARDENLINUX_VERSION=x"y"`, `GARDENLINUX_VERSION='x`, `GARDENLINUX_VERSION="x\"`,
		"GARDENLINUX_VERSION=a\x00b", "GARDENLINUX_VERSION=a\x1bb", "GARDENLINUX_VERSION=1\nGARDENLINUX_VERSION=2",
		strings.Repeat("A=b\n", 17<<10),
	} {
		if r, err := ParseRelease([]byte(s)); !errors.Is(err, ErrRelease) {
			t.Errorf("ParseRelease(%.40q) = %+v, %v; want ErrRelease", s, r, err)
		}
	}
	if _, err := ParseRelease([]byte("GARDENLINUX_VERSION=1\nGARDENLINUX_VERSION=1\nOTHER=1\nOTHER=2\n")); err != nil {
		t.Errorf("the same twice, and others: %v", err)
	}
}

// FuzzParseRelease: no panic; what is accepted can go into an annotation.
func FuzzParseRelease(f *testing.F) {
	files, err := filepath.Glob("testdata/release/*")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds:", err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := ParseRelease(raw)
		if err != nil {
			if !errors.Is(err, ErrRelease) {
				t.Fatalf("ParseRelease(%q): %v", raw, err)
			}
			return
		}
		for _, value := range append([]string{r.CName, r.Variant, r.Version, r.Commit, r.CommitLong, r.Platform, r.FeatureSet}, r.Features...) {
			if strings.ContainsAny(value, "\n\x00\x1b") || len(value) > len(raw) {
				t.Fatalf("ParseRelease(%q) has %q", raw, value)
			}
		}
	})
}
