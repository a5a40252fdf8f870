package gardenlinux

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"

	"github.com/gardenlinux/gloci-layout/layout"
)

// entry is one as in published indexes.
func entry(cname, arch, version string) ocispec.Descriptor {
	return ocispec.Descriptor{
		MediaType:   "application/vnd.oci.image.manifest.v1+json",
		Digest:      "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
		Annotations: map[string]string{"cname": cname, "architecture": arch},
		Platform:    &ocispec.Platform{OS: "gardenlinux", Architecture: arch, OSVersion: version},
	}
}

func TestMatchCName(t *testing.T) {
	prod := entry("aws-gardener_prod-amd64-2150.1.0-abc12345", "amd64", "2150.1.0")
	prodARM := entry("aws-gardener_prod-arm64-2150.1.0-abc12345", "arm64", "2150.1.0")
	usi := entry("aws-gardener_prod_usi-amd64-2150.1.0-abc12345", "amd64", "2150.1.0")
	python := entry("container-pythonDev-amd64-2150.1.0-abc12345", "amd64", "2150.1.0")
	bare := entry("aws-gardener_prod", "amd64", "2150.1.0") // ADR 0035, should the annotation ever follow it
	runtime := ocispec.Descriptor{Platform: &ocispec.Platform{OS: "linux", Architecture: "amd64"}}
	foreign := entry("Not A Name", "amd64", "1")
	all := []ocispec.Descriptor{prod, prodARM, usi, python, bare, runtime, foreign}
	for _, c := range []struct {
		query, arch string
		want        []int // of all
	}{
		{"aws-gardener_prod", "", []int{0, 1, 4}},
		{"aws-gardener_prod", "amd64", []int{0, 4}},
		{"aws-gardener_prod", "arm64", []int{1}},
		{"aws-gardener_prod-amd64", "", []int{0, 4}},
		{"aws-gardener_prod-amd64", "arm64", nil},
		{"aws-gardener_prod-amd64-2150.1.0", "", []int{0, 4}},
		{"aws-gardener_prod-amd64-2150.1.0-abc12345", "", []int{0}},
		{"aws-gardener_prod_usi", "", []int{2}},
		{"aws-gardener", "", nil},
		{"aws", "", nil},
		{"aws-gardener_prod-amd64-2150.1", "", nil},
		{"aws-gardener_prod-amd64-2150.1.0-abc1234", "", nil},
		{"aws-gardener_prod-", "", nil},
		{"container-pythonDev", "", []int{3}},
		{"container-pythondev", "", nil},
		{"container", "", nil},
		{"Not A Name", "", nil},
		{"", "amd64", []int{0, 2, 3, 4}},
		{"", "", []int{0, 1, 2, 3, 4}},
	} {
		match := MatchCName(c.query, c.arch)
		var got, inDoc []int
		for i, e := range all {
			if match(e, nil) {
				got = append(got, i)
			}
			// The same where only the manifest or its config has the annotations.
			doc := &layout.Document{Annotations: e.Annotations}
			if i%2 == 0 {
				doc = &layout.Document{Config: &ocispec.Descriptor{Annotations: e.Annotations}}
			}
			if match(ocispec.Descriptor{Platform: e.Platform}, doc) {
				inDoc = append(inDoc, i)
			}
		}
		skip := SkipEntry(c.query, c.arch)
		for i, e := range all {
			if skip(e) && match(e, &layout.Document{Annotations: e.Annotations}) {
				t.Errorf("SkipEntry(%q, %q) skips %d, which matches", c.query, c.arch, i)
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("MatchCName(%q, %q) by entry (-want +got):\n%s", c.query, c.arch, diff)
		}
		if diff := cmp.Diff(c.want, inDoc); diff != "" {
			t.Errorf("MatchCName(%q, %q) by document (-want +got):\n%s", c.query, c.arch, diff)
		}
	}
}

// MatchCName in the selector that commands use.
func TestMatchCNameSelect(t *testing.T) {
	ctx := context.Background()
	s := newStage(t)
	var roots []ocispec.Descriptor
	for _, st := range mustStage(t, s, builds(t, containerAMD, "oci").and(builds(t, containerARM, "oci"), builds(t, usiAMD, "raw", "uki"))) {
		roots = append(append(roots, st.Runtime...), st.Entry)
	}
	for query, want := range map[string]int{"container": 2, "container-arm64": 1, "aws-gardener_prod": 0, "aws-gardener_prod_usi": 1} {
		got, err := layout.Select(ctx, s, roots, layout.Selector{Match: MatchCName(query, "")})
		if err != nil || len(got) != want {
			t.Errorf("select %q: %v, %v, want %d", query, got, err, want)
		}
	}
}

func TestKey(t *testing.T) {
	for _, c := range []struct {
		desc ocispec.Descriptor
		want string
	}{
		{entry("aws-gardener_prod-amd64-2150.1.0-abc12345", "amd64", "2150.1.0"), "aws-gardener_prod-amd64-2150.1.0"},
		{entry("aws-gardener_prod-amd64-2150.1.0-local", "amd64", "2150.1.0"), "aws-gardener_prod-amd64-2150.1.0"},
		{entry("aws-gardener_prod-amd64-1877.3", "amd64", "1877.3"), "aws-gardener_prod-amd64-1877.3"},
		{entry("aws-gardener_prod", "arm64", "1877.3"), "aws-gardener_prod-arm64-1877.3"},
		{entry("aws-gardener_prod", "arm64", ""), ""},
		{entry("aws-gardener_prod", "sparc", "1877.3"), ""},
		{entry("Not A Name", "amd64", "1877.3"), ""},
		{entry("", "amd64", "1877.3"), ""},
		{ocispec.Descriptor{Platform: &ocispec.Platform{OS: "linux", Architecture: "amd64"}}, ""},
		{ocispec.Descriptor{}, ""},
	} {
		if got := Key(c.desc); got != c.want {
			t.Errorf("Key(%v) = %q, want %q", c.desc.Annotations, got, c.want)
		}
	}
}

// Package layout finds the key of an entry without knowing our names; of our
// entries, both must say the same are the same.
func TestKeyAsLayout(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func() ocispec.Descriptor {
			n := Name{
				CName:   rapid.SampledFrom([]string{"aws", "aws_prod", "aws-gardener_prod", "aws-gardener_prod_usi", "container"}).Draw(t, "cname"),
				Arch:    rapid.SampledFrom([]string{"amd64", "arm64"}).Draw(t, "arch"),
				Version: rapid.SampledFrom([]string{"2150.1.0", "2150.1", "2150.11.0", "today"}).Draw(t, "version"),
				Commit:  rapid.SampledFrom([]string{"local", "abc12345", "00000000"}).Draw(t, "commit"),
			}
			return entry(n.BaseName(), n.Arch, n.Version)
		}
		a, b := draw(), draw()
		if ours, theirs := Key(a) == Key(b), layout.EntryKey(a) == layout.EntryKey(b); ours != theirs || Key(a) == "" {
			t.Fatalf("keys of %s and %s: %q, %q here, %q, %q in layout", a.Annotations, b.Annotations, Key(a), Key(b), layout.EntryKey(a), layout.EntryKey(b))
		}
	})
}

// Of 200 flavours only the one that is asked for has to be read, and what has no
// name.
func TestSkipEntry(t *testing.T) {
	prod := entry("aws-gardener_prod-amd64-2150.1.0-abc12345", "amd64", "2150.1.0")
	runtime := ocispec.Descriptor{Platform: &ocispec.Platform{OS: "linux", Architecture: "amd64"}}
	for _, c := range []struct {
		query, arch string
		desc        ocispec.Descriptor
		want        bool
	}{
		{"aws-gardener_prod", "", prod, false},
		{"aws-gardener_prod", "amd64", prod, false},
		{"aws-gardener_prod-amd64-2150.1.0-abc12345", "", prod, false},
		{"aws-gardener_prod_usi", "", prod, true},
		{"aws-gardener_prod", "arm64", prod, true},
		{"", "arm64", prod, true},
		{"aws-gardener_prod-arm64", "", prod, true},
		{"aws-gardener_prod-amd64-2150.2.0", "", prod, true},
		{"aws-gardener_prod-amd64-2150.1.0-00000000", "", prod, true},
		{"aws-gardener_prod", "amd64", runtime, true},
		{"", "amd64", runtime, false},
		{"aws-gardener_prod", "amd64", ocispec.Descriptor{}, false},
		{"aws-gardener_prod", "amd64", ocispec.Descriptor{Platform: &ocispec.Platform{OS: "gardenlinux", Architecture: "amd64"}}, false},
		{"aws-gardener_prod-amd64-2150.1.0", "", entry("aws-gardener_prod", "", ""), false},
		{"Not A Name", "", prod, false},
		{"", "", prod, false},
	} {
		if got := SkipEntry(c.query, c.arch)(c.desc); got != c.want {
			t.Errorf("SkipEntry(%q, %q)(%s) = %v, want %v", c.query, c.arch, c.desc.Annotations["cname"], got, c.want)
		}
	}
}
