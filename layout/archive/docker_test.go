package archive_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/archive"
)

// A handMade layout is written without this program.
type handMade struct {
	t   *testing.T
	dir string
}

func newHandMade(t *testing.T) handMade {
	t.Helper()
	h := handMade{t, t.TempDir()}
	h.file("oci-layout", markerJSON)
	return h
}

func (h handMade) file(name, content string) {
	h.t.Helper()
	path := filepath.Join(h.dir, filepath.FromSlash(name))
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
		h.t.Fatal(err)
	}
}

// blob stores content and returns its descriptor, without the closing brace.
func (h handMade) blob(mediaType, content string) string {
	d := digest.FromString(content)
	h.file("blobs/sha256/"+d.Encoded(), content)
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d`, mediaType, d, len(content))
}

func (h handMade) image(arch, layerType string, layers ...string) string {
	var list []string
	for _, l := range layers {
		list = append(list, h.blob(layerType, l)+"}")
	}
	return h.blob("application/vnd.oci.image.manifest.v1+json", fmt.Sprintf(`{"schemaVersion":2,"config":%s},"layers":[%s]}`,
		h.blob("application/vnd.oci.image.config.v1+json", fmt.Sprintf(`{"architecture":%q,"os":"linux"}`, arch)), strings.Join(list, ",")))
}

func (h handMade) list(entries ...string) string {
	return h.blob("application/vnd.oci.image.index.v1+json", `{"schemaVersion":2,"manifests":[`+strings.Join(entries, ",")+`]}`)
}

func (h handMade) open(entries ...string) *layout.Layout {
	h.file("index.json", `{"schemaVersion":2,"manifests":[`+strings.Join(entries, ",")+`]}`)
	return openDir(h.t, h.dir)
}

func withName(desc, name string) string {
	return desc + fmt.Sprintf(`,"annotations":{"org.opencontainers.image.ref.name":%q}}`, name)
}

func blobPath(content string) string { return "blobs/sha256/" + digest.FromString(content).Encoded() }

const (
	layerTar   = "application/vnd.oci.image.layer.v1.tar"
	dockerJSON = "manifest.json"
)

func TestPackDocker(t *testing.T) {
	h := newHandMade(t)
	amd64, arm64 := h.image("amd64", layerTar+"+gzip", "base", "top"), h.image("arm64", layerTar, "base")
	signature := h.image("", "application/vnd.dev.cosign.simplesigning.v1+json", "signed")
	artifact := h.blob("application/vnd.oci.image.manifest.v1+json",
		`{"schemaVersion":2,"artifactType":"x/y","config":`+h.blob("application/vnd.oci.empty.v1+json", "{}")+`},"layers":[`+h.blob("text/plain", "note")+`}]}`)
	attested := h.image("", layerTar, "statement") + `,"annotations":{"vnd.docker.reference.type":"attestation-manifest"}}`
	both := h.list(amd64+`,"platform":{"os":"linux","architecture":"amd64"}}`, arm64+`,"platform":{"os":"linux","architecture":"arm64"}}`, artifact+"}", attested)
	nested := h.list(h.list(arm64+"}")+"}", attested)

	amd64Entry := func(tags string) string {
		return `{"Config":"` + blobPath(`{"architecture":"amd64","os":"linux"}`) + `","RepoTags":` + tags + `,"Layers":["` + blobPath("base") + `","` + blobPath("top") + `"]}`
	}
	arm64Entry := func(tags string) string {
		return `{"Config":"` + blobPath(`{"architecture":"arm64","os":"linux"}`) + `","RepoTags":` + tags + `,"Layers":["` + blobPath("base") + `"]}`
	}
	arm := &ocispec.Platform{OS: "linux", Architecture: "arm64"}
	for _, tt := range []struct {
		name     string
		entries  []string
		platform *ocispec.Platform
		want     string
		err      error
	}{
		{"one image", []string{withName(amd64, "app")}, nil, "[" + amd64Entry(`["app:latest"]`) + "]\n", nil},
		{"names", []string{
			withName(amd64, "example.org:5000/a/b:v1"), withName(amd64, "app"), withName(amd64, "Upper"), withName(amd64, "a_b__c-d.e/f"),
			withName(amd64, "x..y"), withName(amd64, strings.Repeat("a", 64)), withName(amd64, "1.0.0+x"), amd64 + "}",
			amd64 + `,"annotations":{"org.opencontainers.image.ref.name":"v1","io.containerd.image.name":"docker.io/library/app:v1"}}`,
		}, nil, "[" + amd64Entry(`["example.org:5000/a/b:v1","app:latest","a_b__c-d.e/f:latest","docker.io/library/app:v1"]`) + "]\n", nil},
		{"no name", []string{amd64 + "}"}, nil, "[" + amd64Entry("null") + "]\n", nil},
		{"artifacts are not told", []string{withName(artifact, "note"), withName(signature, "sha256-x.sig"), withName(arm64, "app")}, nil, "[" + arm64Entry(`["app:latest"]`) + "]\n", nil},
		{"of an index by platform", []string{withName(both, "app"), withName(amd64, "other")}, arm, "[" + arm64Entry(`["app:latest"]`) + "]\n", nil},
		{"the only one of an index", []string{withName(nested, "app"), withName(amd64, "other")}, nil, "[" + arm64Entry(`["app:latest"]`) + "," + amd64Entry(`["other:latest"]`) + "]\n", nil},
		{"several", []string{withName(both, "app")}, nil, "", layout.ErrAmbiguous},
		{"only artifacts", []string{withName(artifact, "note"), withName(signature, "x")}, nil, "", layout.ErrNotFound},
		{"another platform", []string{withName(amd64, "app")}, arm, "", layout.ErrNotFound},
		{"nothing", nil, nil, "", layout.ErrNotFound},
	} {
		l := h.open(tt.entries...)
		opts := &archive.PackOptions{Docker: true, DockerPlatform: tt.platform}
		var out strings.Builder
		err := archive.Pack(t.Context(), l, &out, opts)
		var hint *layout.HintError
		if !errors.Is(err, tt.err) || err != nil && (!errors.As(err, &hint) || out.Len() > 0) {
			t.Errorf("%s: error %v, want %v with a hint, and nothing written", tt.name, err, tt.err)
		}
		if err != nil {
			continue
		}
		headers, content := members(t, []byte(out.String()))
		if got := content[dockerJSON]; got != tt.want || headers[2].Name != dockerJSON {
			t.Errorf("%s: third member %s, manifest.json\n%s, want\n%s", tt.name, headers[2].Name, got, tt.want)
		}
		// All else is as ever.
		without := packed(t, l, nil)
		a, err := openBytes(t, []byte(out.String()), nil)
		if err != nil {
			t.Fatal(err)
		}
		if string(packed(t, a, nil)) != string(without) {
			t.Errorf("%s: packed again without manifest.json, it is another archive", tt.name)
		}
		file := filepath.Join(t.TempDir(), "x.oci")
		if _, err := archive.PackParts(t.Context(), l, file, 4096, opts); err != nil || string(joined(t, file)) != out.String() {
			t.Errorf("%s: in parts, other bytes: %v", tt.name, err)
		}
	}
}
