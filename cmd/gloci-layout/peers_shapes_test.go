//go:build linux

package main_test

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	typeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	typeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	typeDockerConfig   = "application/vnd.docker.container.image.v1+json"
	typeDockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	typeUnknownConfig  = "application/vnd.unknown.config.v1+json"
	typeRelease        = "application/io.gardenlinux.release"
)

// A shape is one form that a tag can have.
type shape struct {
	name      string
	root      ocispec.Descriptor
	platforms []string // that are asked for
}

// shapes are built by hand: no program would write most of them.
type shapes struct {
	*rawLayout
	list []shape
}

// of stores an image for a platform. Each has another content, so that layers
// and config tell them apart.
func (s *shapes) of(content, osName, arch, variant string) ocispec.Descriptor {
	return s.docker(content, osName, arch, variant, "", testTypeConfig, testTypeGzip)
}

func (s *shapes) docker(content, osName, arch, variant, manifestType, configType, layerType string, more ...ocispec.Descriptor) ocispec.Descriptor {
	raw := tarOf(s.t, []member{{name: "content", content: content, mode: 0o644}})
	layer := s.blob(layerType, string(gzipOf(s.t, raw)))
	conf := s.blob(configType, s.encode(map[string]any{
		"architecture": arch, "os": osName, "variant": variant, "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []digest.Digest{digest.FromBytes(raw)}},
	}))
	if manifestType == "" {
		manifestType = testTypeManifest
	}
	return s.blob(manifestType, s.encode(map[string]any{
		"schemaVersion": 2, "mediaType": manifestType, "config": conf, "layers": append([]ocispec.Descriptor{layer}, more...),
	}))
}

// artifact stores what Garden Linux's tools write: files, and {} for a config.
func (s *shapes) artifact(content string) ocispec.Descriptor {
	return s.manifest(s.blob(typeUnknownConfig, "{}"), s.blob(typeRelease, content))
}

// indexOf stores an index of pairs: a descriptor, and the platform of its entry,
// "os/arch[@version][/variant]" or "-" for none.
func (s *shapes) indexOf(mediaType string, pairs ...any) ocispec.Descriptor {
	s.t.Helper()
	entries := []ocispec.Descriptor{}
	for pair := range slices.Chunk(pairs, 2) {
		desc, isDesc := pair[0].(ocispec.Descriptor)
		name, isName := pair[1].(string)
		if !isDesc || !isName {
			s.t.Fatalf("want a descriptor and a platform: %v", pair)
		}
		if name != "-" {
			parts := append(strings.Split(name, "/"), "")
			arch, version, _ := strings.Cut(parts[1], "@")
			desc.Platform = &ocispec.Platform{OS: parts[0], Architecture: arch, OSVersion: version, Variant: parts[2]}
		}
		entries = append(entries, desc)
	}
	doc := map[string]any{"schemaVersion": 2, "manifests": entries}
	if mediaType != "" {
		doc["mediaType"] = mediaType
	} else {
		mediaType = ocispec.MediaTypeImageIndex
	}
	return s.blob(mediaType, s.encode(doc))
}

func (s *shapes) add(name string, root ocispec.Descriptor, platforms ...string) {
	s.list = append(s.list, shape{name, root, platforms})
}

func newShapes(t testing.TB) *shapes {
	t.Helper()
	s := &shapes{rawLayout: newRawLayout(t, filepath.Join(shortDir(t), "shapes"))}
	const index = ocispec.MediaTypeImageIndex
	amd, arm := s.of("amd64", "linux", "amd64", ""), s.of("arm64", "linux", "arm64", "v8")
	v5, v6, v7 := s.of("v5", "linux", "arm", "v5"), s.of("v6", "linux", "arm", "v6"), s.of("v7", "linux", "arm", "v7")
	other := s.of("other", "linux", "amd64", "")
	files, files2 := s.artifact("files"), s.artifact("more files")
	const pc, pi = "linux/amd64", "linux/arm64"
	const gl = "gardenlinux/amd64@2150.1.0"

	s.add("single", amd, pc, pi)
	s.add("single-artifact", files, pc)
	s.add("single-docker", s.docker("docker", "linux", "amd64", "", typeDockerManifest, typeDockerConfig, typeDockerLayer), pc, pi)
	s.add("two", s.indexOf(index, amd, pc, arm, pi), pc, pi, "linux/386", "windows/amd64")
	s.add("two-reversed", s.indexOf(index, arm, pi, amd, pc), pc, pi)
	s.add("artifact-before", s.indexOf(index, files, gl, amd, pc), pc, pi)
	s.add("artifact-after", s.indexOf(index, amd, pc, files, gl), pc, pi)
	s.add("artifacts-only", s.indexOf(index, files, gl, files2, "gardenlinux/arm64@2150.1.0"), pc, pi)
	s.add("artifact-linux-first", s.indexOf(index, files, pc, amd, pc), pc)
	s.add("artifact-no-platform", s.indexOf(index, files, "-"), pc, pi)
	s.add("artifact-no-platform-beside", s.indexOf(index, files, "-", amd, pc), pc, pi)
	s.add("no-platform", s.indexOf(index, amd, "-"), pc, pi)
	s.add("no-platform-first", s.indexOf(index, other, "-", amd, pc), pc, pi)
	s.add("no-platform-twice", s.indexOf(index, arm, "-", amd, "-"), pc, pi)
	s.add("arm-variants", s.indexOf(index, v5, "linux/arm/v5", v6, "linux/arm/v6", v7, "linux/arm/v7"),
		"linux/arm", "linux/arm/v7", "linux/arm/v6", "linux/arm/v8", "linux/arm64")
	s.add("arm-variants-down", s.indexOf(index, v7, "linux/arm/v7", v6, "linux/arm/v6"), "linux/arm", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5")
	s.add("arm-none-and-v6", s.indexOf(index, v6, "linux/arm/v6", v5, "linux/arm"), "linux/arm", "linux/arm/v7", "linux/arm/v6")
	s.add("arm64-v8", s.indexOf(index, arm, "linux/arm64/v8"), pi, "linux/arm64/v8")
	s.add("arm64-plain", s.indexOf(index, arm, pi), pi, "linux/arm64/v8")
	s.add("arm64-both", s.indexOf(index, arm, "linux/arm64/v8", other, pi), pi, "linux/arm64/v8")
	s.add("arm64-or-arm", s.indexOf(index, v7, "linux/arm/v7", amd, pc), pi)
	s.add("amd64-v2-v3", s.indexOf(index, amd, pc, other, "linux/amd64/v2", v7, "linux/amd64/v3"), pc, "linux/amd64/v2", "linux/amd64/v3", "linux/amd64/v4")
	s.add("amd64-v3-only", s.indexOf(index, amd, "linux/amd64/v3"), pc, "linux/amd64/v3")
	s.add("amd64-v1", s.indexOf(index, amd, "linux/amd64/v1"), pc)
	s.add("386-for-amd64", s.indexOf(index, amd, "linux/386"), pc)
	s.add("os-version", s.indexOf(index, amd, "linux/amd64@1.0", other, pc), pc)
	s.add("windows", s.indexOf(index, amd, "windows/amd64@10.0.17763.1", other, "windows/amd64@10.0.20348.1"), "windows/amd64", pc)
	attestation := s.manifest(s.blob(testTypeConfig, `{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":[]}}`),
		s.blob("application/vnd.in-toto+json", `{"x":1}`))
	s.add("attestation", s.indexOf(index, attestation, "unknown/unknown", amd, pc, attestation, "unknown/unknown"), pc, pi)
	inner := s.indexOf(index, amd, pc, arm, pi)
	s.add("nested", s.indexOf(index, inner, "-"), pc, pi)
	s.add("nested-platform", s.indexOf(index, inner, pc), pc, pi)
	s.add("nested-beside", s.indexOf(index, inner, "-", other, pc), pc, pi)
	s.add("nested-after", s.indexOf(index, other, pc, inner, "-"), pc, pi)
	s.add("nested-three", s.indexOf(index, s.indexOf(index, inner, pc), pc), pc)
	s.add("nested-none", s.indexOf(index, s.indexOf(index, arm, pi), "-"), pc)
	s.add("no-media-type", s.indexOf("", amd, pc, arm, pi), pc, pi)
	list := s.docker("listed", "linux", "amd64", "", typeDockerManifest, typeDockerConfig, typeDockerLayer)
	s.add("docker-list", s.indexOf(typeDockerList, list, pc), pc, pi)
	s.add("docker-in-index", s.indexOf(index, list, pc), pc)
	typed := amd
	typed.ArtifactType = "application/vnd.example"
	s.add("artifact-type-on-entry", s.indexOf(index, typed, pc, other, pc), pc)
	s.add("duplicates", s.indexOf(index, other, pc, amd, pc), pc)
	s.add("empty-index", s.indexOf(index), pc)
	s.add("lying-platform", s.indexOf(index, arm, pc), pc)
	unknown := amd
	unknown.MediaType = "application/vnd.example.manifest"
	s.add("unknown-entry-type", s.indexOf(index, unknown, pc, other, pc), pc)
	s.add("unknown-entry-type-only", s.indexOf(index, unknown, pc), pc)
	s.add("mixed", s.indexOf(index, s.docker("mixed", "linux", "amd64", "", "", testTypeConfig, testTypeGzip, s.blob(typeRelease, "ID=gardenlinux")), pc), pc)
	s.add("empty-manifest", s.manifest(s.blob(typeUnknownConfig, "{}")), pc)
	s.add("empty-image", s.manifest(s.blob(testTypeConfig, `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`)), pc)
	return s
}

// push puts all shapes into a registry, by hand: sync would refuse some.
func (s *shapes) push(repo string) {
	s.t.Helper()
	blobs := map[digest.Digest]string{}
	names, err := os.ReadDir(s.path("blobs/sha256"))
	if err != nil {
		s.t.Fatal(err)
	}
	do := func(method, url, contentType, body string) *http.Response {
		req, err := http.NewRequestWithContext(s.t.Context(), method, url, strings.NewReader(body))
		if err != nil {
			s.t.Fatal(err)
		}
		req.Header.Set("Content-Type", contentType)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			s.t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode >= 300 {
			s.t.Fatalf("%s %s: %s: %s", method, url, res.Status, text)
		}
		return res
	}
	host, name, _ := strings.Cut(repo, "/")
	base := "http://" + host + "/v2/" + name
	for _, n := range names {
		d := digest.Digest("sha256:" + n.Name())
		blobs[d] = readPeerFile(s.t, s.path("blobs/sha256/"+n.Name()))
		if strings.Contains(blobs[d], `"schemaVersion"`) {
			continue
		}
		at, err := do(http.MethodPost, base+"/blobs/uploads/", "application/octet-stream", "").Location()
		if err != nil {
			s.t.Fatal(err)
		}
		q := at.Query()
		q.Set("digest", string(d))
		at.RawQuery = q.Encode()
		do(http.MethodPut, at.String(), "application/octet-stream", blobs[d])
	}
	pushed := map[digest.Digest]bool{}
	var put func(desc ocispec.Descriptor, name string)
	put = func(desc ocispec.Descriptor, name string) {
		body := blobs[desc.Digest]
		doc := decode[ocispec.Index](s.t, body)
		if doc.MediaType == "" {
			doc.MediaType = desc.MediaType
		}
		for _, child := range doc.Manifests {
			if !pushed[child.Digest] {
				put(child, string(child.Digest))
			}
		}
		pushed[desc.Digest] = true
		do(http.MethodPut, base+"/manifests/"+name, doc.MediaType, body)
	}
	for _, sh := range s.list {
		put(sh.root, sh.name)
	}
}
