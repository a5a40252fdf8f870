package extract_test

import (
	"errors"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/extract"
)

func TestMediaTypeName(t *testing.T) {
	for mediaType, want := range map[string]string{
		"application/vnd.x.tar+gzip":                                   "x|.tar.gz",
		"application/json+gzip":                                        "layer|.json.gz",
		"application/io.gardenlinux.kernel":                            "kernel|",
		"application/vnd.cncf.helm.chart.content.v1.tar+gzip":          "cncf.helm.chart.content.v1|.tar.gz",
		"application/vnd.cncf.helm.chart.provenance.v1.prov":           "cncf.helm.chart.provenance.v1|.prov",
		"application/vnd.cncf.flux.content.v1.json":                    "cncf.flux.content.v1|.json",
		"application/vnd.timoni.content.v1.tar+gzip":                   "timoni.content.v1|.tar.gz",
		"application/vnd.in-toto+json":                                 "in-toto|.json",
		"application/vnd.oci.image.layer.v1.tar":                       "oci.image.layer.v1|.tar",
		"application/vnd.oci.image.layer.v1.tar+zstd":                  "oci.image.layer.v1|.tar.zst",
		"application/vnd.docker.image.rootfs.diff.tar.gzip":            "docker.image.rootfs.diff|.tar.gz",
		"application/io.gardenlinux.image.archive.format.pxe.tar.gz":   "image.archive.format.pxe|.tar.gz",
		"application/io.gardenlinux.image.format.qcow2":                "image.format|.qcow2",
		"application/io.gardenlinux.squashfs":                          "layer|.squashfs",
		"application/io.gardenlinux.cert.secureboot.db.arn":            "cert.secureboot.db|.arn",
		"application/io.gardenlinux.cert.secureboot.pk.der":            "cert.secureboot.pk|.der",
		"application/io.gardenlinux.io.platform.test.log":              "io.platform.test|.log",
		"application/io.gardenlinux.log":                               "layer|.log",
		"application/vnd.io.gardenlinux.initrd":                        "initrd|",
		"application/vnd.cyclonedx+json":                               "cyclonedx|.json",
		"application/gzip":                                             "layer|.gz",
		"application/zstd":                                             "layer|.zst",
		"application/x-tar":                                            "x-tar|",
		"application/octet-stream":                                     "layer|.bin",
		"Application/Octet-Stream; charset=x":                          "layer|.bin",
		"text/plain":                                                   "layer|.txt",
		"text/plain; charset=utf-8":                                    "layer|.txt",
		"TEXT/YAML":                                                    "layer|.yaml",
		"text/markdown":                                                "markdown|",
		"application/foo+bar":                                          "foo.bar|",
		"application/json.x":                                           "json.x|",
		"":                                                             "layer|.bin",
		"text":                                                         "layer|.bin",
		"/":                                                            "layer|.bin",
		"a/b/c":                                                        "layer|.bin",
		"application/../../etc/passwd":                                 "layer|.bin",
		"application/.hidden":                                          "layer|.bin",
		"application/é":                                                "layer|.bin",
		"application/" + strings.Repeat("x", 128):                      "layer|.bin",
		"application/vnd...":                                           "layer|",
		"application/vnd..hidden":                                      "hidden|",
		"application/vnd.":                                             "layer|",
		"application/a..b":                                             "a.b|",
		"application/io.gardenlinux.vnd.kernel":                        "vnd.kernel|",
		" application/vnd.oci.image.layer.v1.tar+gzip ; a=b ":          "oci.image.layer.v1|.tar.gz",
		"application/vnd.ironcore.image.squashfs.v1alpha1.squashfs":    "ironcore.image.squashfs.v1alpha1|.squashfs",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "oci.image.layer.nondistributable.v1|.tar.gz",
	} {
		base, ext := extract.MediaTypeName(mediaType)
		if got := base + "|" + ext; got != want {
			t.Errorf("MediaTypeName(%q) = %s, want %s", mediaType, got, want)
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{"a", "a/b", "a.b", ".a", "...", "a b", "é", "-rf", strings.Repeat("a", 255)} {
		if err := extract.CheckName(name); err != nil {
			t.Errorf("CheckName(%q) = %v, want nil", name, err)
		}
	}
	for _, name := range []string{
		"", ".", "..", "/", "/a", "a/", "a//b", "./a", "a/.", "../a", "a/../b", "a/..", "a\x00", "a\nb", "\x1b[2J", `a\b`, "\xff",
		strings.Repeat("a", 256), strings.Repeat("a/", 600) + "a",
	} {
		if err := extract.CheckName(name); !errors.Is(err, layout.ErrUnsafe) {
			t.Errorf("CheckName(%q) = %v, want ErrUnsafe", name, err)
		}
	}
}

func blobOf(mediaType, content string, annotations ...string) ocispec.Descriptor {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(content), Size: int64(len(content))}
	for i := 0; i+1 < len(annotations); i += 2 {
		if desc.Annotations == nil {
			desc.Annotations = map[string]string{}
		}
		desc.Annotations[annotations[i]] = annotations[i+1]
	}
	return desc
}

func TestTemplate(t *testing.T) {
	m := layout.Match{
		Desc:     blobOf(ocispec.MediaTypeImageManifest, "m", "cname", "kvm", "both", "entry"),
		Document: &layout.Document{Annotations: map[string]string{"both": "manifest", "own": "manifest", "empty": "", "up": "../x"}},
	}
	l := layout.Layer{Number: 3, Desc: blobOf("application/vnd.x.tar+gzip", "layer", "org.opencontainers.image.title", "d/t", "of", "layer")}
	for template, want := range map[string]string{
		"{title}":              "d/t",
		"{base}{ext}":          "x.tar.gz",
		"{index}-{base}{ext}":  "3-x.tar.gz",
		"{digest12}":           l.Desc.Digest.Encoded()[:12],
		"{cname}/{title}":      "kvm/d/t",
		"{annotation:of}":      "layer",
		"{annotation:both}":    "entry",
		"{annotation:own}":     "manifest",
		"x{annotation:empty}y": "xy",
		"{{{base}}}":           "{x}",
		"plain":                "plain",
	} {
		parsed, err := extract.ParseTemplate(template)
		if err != nil {
			t.Errorf("ParseTemplate(%q): %v", template, err)
			continue
		}
		if got, err := parsed.Name(m, l); err != nil || got != want {
			t.Errorf("%q makes %q, %v, want %q", template, got, err, want)
		}
	}
	for _, bad := range []string{"", "{", "}", "{base", "base}", "{}", "{name}", "{annotation}", "{annotation:}", "{base:x}", "{annotation:KEY", "{ base }"} {
		if _, err := extract.ParseTemplate(bad); !errors.Is(err, layout.ErrInvalid) {
			t.Errorf("ParseTemplate(%q): %v, want ErrInvalid", bad, err)
		}
	}
	bare := layout.Layer{Number: -1, Desc: blobOf("text/plain", "config")}
	for template, want := range map[string]error{
		"{title}": layout.ErrNotFound, "{annotation:x}": layout.ErrNotFound, "{annotation:up}": layout.ErrUnsafe,
		"/{base}": layout.ErrUnsafe, "{annotation:empty}": layout.ErrUnsafe, "a/{index}/..": layout.ErrUnsafe,
	} {
		parsed, err := extract.ParseTemplate(template)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parsed.Name(m, bare); !errors.Is(err, want) {
			t.Errorf("%q makes %q, %v, want %v", template, got, err, want)
		}
	}
	if parsed, _ := extract.ParseTemplate("{index}{ext}"); parsed != nil {
		if got, err := parsed.Name(m, bare); err != nil || got != "config.txt" {
			t.Errorf("name of a config: %q, %v", got, err)
		}
	}
	if parsed, _ := extract.ParseTemplate("{cname}"); parsed != nil {
		if got, err := parsed.Name(layout.Match{}, bare); !errors.Is(err, layout.ErrNotFound) {
			t.Errorf("cname of nothing: %q, %v", got, err)
		}
	}
}

func TestNameLayers(t *testing.T) {
	const title = "org.opencontainers.image.title"
	for name, tt := range map[string]struct {
		layers   []ocispec.Descriptor
		template string
		want     string
		err      error
	}{
		"title before type":     {[]ocispec.Descriptor{blobOf("application/io.gardenlinux.log", "a", title, "build.log")}, "", "build.log", nil},
		"type":                  {[]ocispec.Descriptor{blobOf("application/io.gardenlinux.log", "a")}, "", "layer.log", nil},
		"two of one name":       {[]ocispec.Descriptor{blobOf("text/plain", "a"), blobOf("text/plain", "b")}, "", "", layout.ErrConflict},
		"two told apart":        {[]ocispec.Descriptor{blobOf("text/plain", "a"), blobOf("text/plain", "b")}, "{index}{ext}", "0.txt 1.txt", nil},
		"same bytes, one name":  {[]ocispec.Descriptor{blobOf("text/plain", "a"), blobOf("text/plain", "a")}, "", "layer.txt", nil},
		"same bytes, two names": {[]ocispec.Descriptor{blobOf("text/plain", "a", title, "x"), blobOf("text/plain", "a", title, "y")}, "", "x y", nil},
		"file and directory":    {[]ocispec.Descriptor{blobOf("text/plain", "a", title, "x"), blobOf("text/plain", "b", title, "x/y")}, "", "", layout.ErrConflict},
		"directory and file":    {[]ocispec.Descriptor{blobOf("text/plain", "a", title, "x/y/z"), blobOf("text/plain", "b", title, "x/y")}, "", "", layout.ErrConflict},
		"one directory":         {[]ocispec.Descriptor{blobOf("text/plain", "a", title, "x/y"), blobOf("text/plain", "b", title, "x/z")}, "", "x/y x/z", nil},
		"title leads out":       {[]ocispec.Descriptor{blobOf("text/plain", "a", title, "../x")}, "", "", layout.ErrUnsafe},
		"title is empty":        {[]ocispec.Descriptor{blobOf("text/plain", "a", title, "")}, "", "", layout.ErrUnsafe},
		"title is absolute":     {[]ocispec.Descriptor{blobOf("text/plain", "a", title, "/etc/passwd")}, "", "", layout.ErrUnsafe},
		"template over a title": {[]ocispec.Descriptor{blobOf("text/plain", "a", title, "/etc/passwd")}, "{base}{ext}", "layer.txt", nil},
	} {
		t.Run(name, func(t *testing.T) {
			m := layout.LayerMatch{Match: layout.Match{Desc: blobOf(ocispec.MediaTypeImageManifest, "m")}}
			for i, desc := range tt.layers {
				m.Layers = append(m.Layers, layout.Layer{Desc: desc, Number: i})
			}
			var template *extract.Template
			if tt.template != "" {
				var err error
				if template, err = extract.ParseTemplate(tt.template); err != nil {
					t.Fatal(err)
				}
			}
			named, err := extract.NameLayers(m, template)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			var got []string
			for _, n := range named {
				got = append(got, n.Name)
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("names %q, want %q", got, tt.want)
			}
			if errors.Is(tt.err, layout.ErrConflict) {
				for _, desc := range tt.layers {
					if !strings.Contains(err.Error(), string(desc.Digest)) {
						t.Errorf("the error does not name %s: %v", desc.Digest, err)
					}
				}
			}
		})
	}
}

// FuzzMediaTypeName: whatever the media type, its name is one safe component,
// which its case and parameters do not change.
func FuzzMediaTypeName(f *testing.F) {
	for _, seed := range []string{
		"application/vnd.x.tar+gzip", "application/vnd.", "text/plain", "a/b", "../../x", "application/vnd..", "application/+++",
		"application/vnd.io.gardenlinux.gz", "APPLICATION/X;y", "application/a/b", "x/" + strings.Repeat(".a", 63),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, mediaType string) {
		base, ext := extract.MediaTypeName(mediaType)
		name := base + ext
		if err := extract.CheckName(name); err != nil || strings.Contains(name, "/") || strings.HasPrefix(name, ".") || base == "" {
			t.Fatalf("MediaTypeName(%q) = %q, %q: %v", mediaType, base, ext, err)
		}
		if ext != "" && !strings.HasPrefix(ext, ".") {
			t.Fatalf("MediaTypeName(%q) has the extension %q", mediaType, ext)
		}
		if b, e := extract.MediaTypeName(strings.ToLower(mediaType) + "; a=b"); b != base || e != ext {
			t.Fatalf("MediaTypeName(%q) = %q, %q, with a parameter %q, %q", mediaType, base, ext, b, e)
		}
	})
}

// FuzzName: whatever title, annotations and template say, a name leads to a file
// below the directory, or is refused.
func FuzzName(f *testing.F) {
	f.Add("vmlinuz", "{title}", "x")
	f.Add("../up", "{base}{ext}", "..")
	f.Add("/abs", "{annotation:k}/{index}", "a/b")
	f.Add("a\x00b", "{{{title}}}", "")
	f.Add("", "{digest12}-{cname}", "../../../etc")
	f.Fuzz(func(t *testing.T, title, template, annotation string) {
		l := layout.Layer{Desc: blobOf("application/vnd.x.tar", "x", "org.opencontainers.image.title", title, "k", annotation)}
		m := layout.Match{Desc: blobOf(ocispec.MediaTypeImageManifest, "m", "cname", annotation)}
		parsed, err := extract.ParseTemplate(template)
		if err != nil && !errors.Is(err, layout.ErrInvalid) {
			t.Fatal(err)
		}
		for _, tm := range []*extract.Template{nil, parsed} {
			name, err := extract.LayerName(m, l, tm)
			if err != nil {
				if !errors.Is(err, layout.ErrUnsafe) && !errors.Is(err, layout.ErrNotFound) {
					t.Fatal(err)
				}
				continue
			}
			if !filepath.IsLocal(filepath.FromSlash(name)) || path.Clean(name) != name || strings.ContainsAny(name, "\x00\n") {
				t.Fatalf("title %q, template %q, annotation %q: name %q", title, template, annotation, name)
			}
		}
	})
}
