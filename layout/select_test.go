package layout_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

func TestSelect(t *testing.T) {
	l := newLayout(t)
	names := map[string]string{}
	var first string
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) {
		amd, arm, att := image(t, s, "amd", "amd64"), image(t, s, "arm", "arm64"), artifact(t, s, "att", nil)
		arm.Platform = &ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}
		att.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
		art := artifact(t, s, "art", map[string]string{"in": "manifest"})
		art.Annotations = map[string]string{"cname": "kvm", "in-entry": "a,b=c"}
		first = art.Digest.Encoded()
		for name, d := range map[string]ocispec.Descriptor{"amd": amd, "arm": arm, "att": att, "art": art} {
			names[string(d.Digest)] = name
		}
		tx.SetRef("v", index(t, s, index(t, s, amd, art), arm, att, amd))
		tx.SetRef("w", amd)
	})
	platform := func(s string) *ocispec.Platform {
		p, err := layout.ParsePlatform(s)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for name, test := range map[string]struct {
		sel  layout.Selector
		want string
	}{
		"all":                      {layout.Selector{}, "amd art arm"},
		"with attestations":        {layout.Selector{Attestations: true}, "amd art arm att"},
		"platform of the config":   {layout.Selector{Platform: platform("linux/amd64")}, "amd"},
		"platform of the entry":    {layout.Selector{Platform: platform("linux/arm64")}, "arm"},
		"variant":                  {layout.Selector{Platform: platform("linux/arm64/v7")}, ""},
		"no platform is not amd64": {layout.Selector{Platform: platform("linux/amd64"), ArtifactType: "application/x.test"}, ""},
		"artifact type":            {layout.Selector{ArtifactType: "application/x.test"}, "art"},
		"manifest annotation":      {layout.Selector{Annotations: map[string]string{"in": "manifest"}}, "art"},
		"entry annotation":         {layout.Selector{Annotations: map[string]string{"in-entry": "a,b=c"}}, "art"},
		"absent annotation":        {layout.Selector{Annotations: map[string]string{"absent": ""}}, ""},
		"digest":                   {layout.Selector{Digest: "sha256:" + first}, "art"},
		"prefix":                   {layout.Selector{Digest: first[:12]}, "art"},
		"prefix with algorithm":    {layout.Selector{Digest: "sha256:" + first[:13]}, "art"},
		"match":                    {layout.Selector{Match: func(d ocispec.Descriptor, _ *layout.Document) bool { return d.Annotations["cname"] == "kvm" }}, "art"},
	} {
		t.Run(name, func(t *testing.T) {
			matches, err := layout.Select(t.Context(), l, roots(t, l), test.sel)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, m := range matches {
				got = append(got, names[string(m.Desc.Digest)])
			}
			if diff := cmp.Diff(test.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	for _, bad := range []string{first[:11], "sha256:" + first[:5], strings.ToUpper(first[:12]) + "X", "md5:" + first[:12]} {
		if _, err := layout.Select(t.Context(), l, roots(t, l), layout.Selector{Digest: bad}); !errors.Is(err, layout.ErrInvalid) {
			t.Errorf("digest %q: %v, want ErrInvalid", bad, err)
		}
	}
	_, err := layout.SelectOne(t.Context(), l, roots(t, l), layout.Selector{})
	var ambiguous *layout.AmbiguousError
	if !errors.Is(err, layout.ErrAmbiguous) || !errors.As(err, &ambiguous) || len(ambiguous.Candidates) != 3 {
		t.Errorf("SelectOne of many: %v, want ErrAmbiguous with 3 candidates", err)
	}
	if got := strings.Count(err.Error(), "@sha256:"); got != 3 {
		t.Errorf("the error shows %d digests, want 3: %v", got, err)
	}
	if _, err := layout.SelectOne(t.Context(), l, roots(t, l), layout.Selector{ArtifactType: "none"}); !errors.Is(err, layout.ErrNotFound) {
		t.Errorf("SelectOne of none: %v, want ErrNotFound", err)
	}
}

func TestParsePlatform(t *testing.T) {
	for _, s := range []string{"", "linux", "linux/", "/amd64", "a/b/c/d", "a//c"} {
		if _, err := layout.ParsePlatform(s); !errors.Is(err, layout.ErrInvalid) {
			t.Errorf("ParsePlatform(%q) = %v, want ErrInvalid", s, err)
		}
	}
}

func TestResolve(t *testing.T) {
	l := newLayout(t)
	var inner, layer ocispec.Descriptor
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) {
		a, b := artifact(t, s, "a", nil), artifact(t, s, "b", nil)
		layer = putBlob(t, s, "application/x.layer", "layer of b")
		inner = index(t, s, b)
		tx.SetRef("short", a)
		tx.SetRef("example.com:5000/x/y:long", index(t, s, inner, a))
	})
	for _, test := range []struct {
		ref    string
		digest ocispec.Descriptor
		n      int
		want   error
	}{
		{"", ocispec.Descriptor{}, 2, nil},
		{"short", ocispec.Descriptor{}, 1, nil},
		{"long", ocispec.Descriptor{}, 1, nil},
		{"example.com:5000/x/y:long", ocispec.Descriptor{}, 1, nil},
		{"ong", ocispec.Descriptor{}, 0, layout.ErrNotFound},
		{"y:long", ocispec.Descriptor{}, 0, layout.ErrNotFound},
		{"", inner, 1, nil},
		{"", layer, 1, nil},
		{"long", layer, 1, nil},
		{"short", layer, 0, layout.ErrNotFound},
		{"", ocispec.Descriptor{Digest: digestA}, 0, layout.ErrNotFound},
	} {
		got, err := layout.Resolve(t.Context(), l, test.ref, test.digest.Digest)
		if !errors.Is(err, test.want) || len(got) != test.n {
			t.Errorf("Resolve(%q, %q) = %d descriptors, %v; want %d, %v", test.ref, test.digest.Digest, len(got), err, test.n, test.want)
		}
		if test.digest.Digest != "" && test.n == 1 && got[0].MediaType != test.digest.MediaType {
			t.Errorf("Resolve(%q) gives the media type %q, want %q", test.digest.Digest, got[0].MediaType, test.digest.MediaType)
		}
	}
	if _, err := layout.ResolveOne(t.Context(), l, "", ""); !errors.Is(err, layout.ErrAmbiguous) {
		t.Errorf("ResolveOne of two: %v, want ErrAmbiguous", err)
	}
	if _, err := layout.ResolveOne(t.Context(), newLayout(t), "", ""); !errors.Is(err, layout.ErrNotFound) {
		t.Errorf("ResolveOne of an empty layout: %v, want ErrNotFound", err)
	}
}

func TestParseReference(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, d := range []string{"d", "with:colon", "at@sign"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, "f.oci", "")
	for in, want := range map[string]layout.Reference{
		"d":                         {Transport: "oci", Location: "d"},
		"d:v1":                      {Transport: "oci", Location: "d", RefName: "v1"},
		"d:h:5000/r:v1":             {Transport: "oci", Location: "d", RefName: "h:5000/r:v1"},
		"d@" + digestA:              {Transport: "oci", Location: "d", Digest: digestA},
		"d:v1@" + digestA:           {Transport: "oci", Location: "d", RefName: "v1", Digest: digestA},
		"oci:d:v1":                  {Transport: "oci", Location: "d", RefName: "v1"},
		"with:colon":                {Transport: "oci", Location: "with:colon"},
		"with:colon:v1":             {Transport: "oci", Location: "with:colon", RefName: "v1"},
		"at@sign":                   {Transport: "oci", Location: "at@sign"},
		"absent:v1":                 {Transport: "oci", Location: "absent", RefName: "v1"},
		"f.oci":                     {Transport: "oci-archive", Location: "f.oci"},
		"f.oci:v1":                  {Transport: "oci-archive", Location: "f.oci", RefName: "v1"},
		"oci-archive:absent.oci":    {Transport: "oci-archive", Location: "absent.oci"},
		"docker-archive:f.oci:a:b":  {Transport: "docker-archive", Location: "f.oci", RefName: "a:b"},
		"dir:d":                     {Transport: "dir", Location: "d"},
		"docker://h/r":              {Transport: "docker", Location: "h/r"},
		"docker://h:5000/r/s:t":     {Transport: "docker", Location: "h:5000/r/s", RefName: "t"},
		"docker://h:5000/r":         {Transport: "docker", Location: "h:5000/r"},
		"docker://h/r:t@" + digestA: {Transport: "docker", Location: "h/r", RefName: "t", Digest: digestA},
	} {
		got, err := layout.ParseReference(in)
		if err != nil {
			t.Errorf("ParseReference(%q): %v", in, err)
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("ParseReference(%q) (-want +got):\n%s", in, diff)
		}
		if again, err := layout.ParseReference(got.String()); err != nil || again != got {
			t.Errorf("ParseReference(%q) = %v, %v; want what it came from", got, again, err)
		}
	}
	for _, in := range []string{"", "oci:", "docker://", "docker://h", "docker://h/", "docker://h/r:", "docker://h/r@sha256:x", "d@sha256:00", "http://x/y"} {
		if got, err := layout.ParseReference(in); !errors.Is(err, layout.ErrInvalid) {
			t.Errorf("ParseReference(%q) = %v, %v; want ErrInvalid", in, got, err)
		}
	}
}

func TestValidateRefName(t *testing.T) {
	for _, s := range []string{"latest", "1.0.0", "2150.1.0-baremetal_pxe-amd64", "a/b", "h:5000/r:t", "_x", "a_", "a--b", "h/r:1_2", "sha256-aa.sig", "x@y"} {
		if err := layout.ValidateRefName(s); err != nil {
			t.Errorf("ValidateRefName(%q) = %v", s, err)
		}
	}
	for _, s := range []string{"", " ", "a b", "a\n", "/a", "a//b", "-a", "ä", strings.Repeat("a", 600), "a\x1b[0m"} {
		if err := layout.ValidateRefName(s); !errors.Is(err, layout.ErrInvalid) {
			t.Errorf("ValidateRefName(%q) = %v, want ErrInvalid", s, err)
		}
	}
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for name, make := range map[string]func(p string) error{
		"absent": func(string) error { return nil },
		"empty":  func(p string) error { return os.Mkdir(p, 0o700) },
		"interrupted": func(p string) error {
			return errors.Join(os.MkdirAll(filepath.Join(p, "blobs"), 0o755), os.Mkdir(filepath.Join(p, ".gloci"), 0o755),
				os.WriteFile(filepath.Join(p, "index.json"), layout.NewIndex().Bytes(), 0o644))
		},
	} {
		if err := make(path(name)); err != nil {
			t.Fatal(err)
		}
		l, err := layout.Create(t.Context(), path(name), nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		mustVerify(t, l)
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if got := readFile(t, filepath.Join(path(name), "oci-layout")); got != `{"imageLayoutVersion":"1.0.0"}` {
			t.Errorf("%s: oci-layout = %s", name, got)
		}
		if _, err := layout.Create(t.Context(), path(name), nil); !errors.Is(err, layout.ErrExists) {
			t.Errorf("%s: again: %v, want ErrExists", name, err)
		}
	}
	if info, err := os.Stat(path("empty")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory that was there: %v, %v; want its mode kept", info.Mode(), err)
	}
	if err := errors.Join(os.Mkdir(path("full"), 0o755), os.WriteFile(filepath.Join(path("full"), "x"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	if _, err := layout.Create(t.Context(), path("full"), nil); !errors.Is(err, layout.ErrExists) {
		t.Errorf("a directory with a file: %v, want ErrExists", err)
	}
	if _, err := layout.Create(t.Context(), path("a/b/c"), nil); !errors.Is(err, layout.ErrNotFound) {
		t.Errorf("no parent: %v, want ErrNotFound", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".*tmp*")); len(left) > 0 || err != nil {
		t.Errorf("left over: %v %v", left, err)
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := layout.Open(t.Context(), filepath.Join(dir, "absent"), nil); !errors.Is(err, layout.ErrNotFound) {
		t.Errorf("absent: %v, want ErrNotFound", err)
	}
	_, err := layout.Open(t.Context(), dir, nil)
	var hint *layout.HintError
	if !errors.Is(err, layout.ErrNotLayout) || !errors.As(err, &hint) {
		t.Errorf("an empty directory: %v, want ErrNotLayout with a hint", err)
	}
	writeFile(t, filepath.Join(dir, "file"), "")
	if _, err := layout.Open(t.Context(), filepath.Join(dir, "file"), nil); !errors.Is(err, layout.ErrNotLayout) {
		t.Errorf("a file: %v, want ErrNotLayout", err)
	}
	for _, marker := range []string{"", "{}", `{"imageLayoutVersion":"2.0.0"}`, `{"imageLayoutVersion":1}`, `{"ImageLayoutVersion":"1.0.0"}`} {
		writeFile(t, filepath.Join(dir, "oci-layout"), marker)
		if _, err := layout.Open(t.Context(), dir, nil); !errors.Is(err, layout.ErrNotLayout) {
			t.Errorf("oci-layout %q: %v, want ErrNotLayout", marker, err)
		}
	}
	writeFile(t, filepath.Join(dir, "oci-layout"), `{"imageLayoutVersion": "1.0.0"}`)
	l, err := layout.Open(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Index(t.Context()); !errors.Is(err, layout.ErrInvalid) {
		t.Errorf("no index.json: %v, want ErrInvalid", err)
	}
	writeFile(t, filepath.Join(dir, "index.json"), `{"schemaVersion":2,"manif`)
	if _, err := l.Index(t.Context()); !errors.Is(err, layout.ErrInvalid) {
		t.Errorf("a torn index.json: %v, want ErrInvalid", err)
	}
}
