package sourcetest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Content is what [Write] writes.
type Content struct {
	Index     string                   // the bytes of index.json
	Stored    map[digest.Digest]string // every blob
	Reachable []digest.Digest          // what index.json reaches, in the order of a walk

	App                        ocispec.Descriptor // an index, under the ref name "app"
	AMD64, ARM64               ocispec.Descriptor // its manifests, linux/amd64 and linux/arm64
	Artifact                   ocispec.Descriptor // a manifest, under the ref name "registry.example.com/app:1.0"
	Attached                   ocispec.Descriptor // a manifest without a ref name; its subject is Artifact
	Config, Layer, Large, Long ocispec.Descriptor // leaves; Large is 600 KiB, Long has a sha512 digest
	Unreferenced               ocispec.Descriptor // stored, but nothing names it
}

// Write writes a layout to dir, byte by byte and without the code under test: a
// nested index, an artifact with a subject that refers to it, an empty blob, one
// with a sha512 digest, one that nothing names, odd white space, and members
// that no specification knows.
func Write(t testing.TB, dir string) *Content {
	t.Helper()
	c := &Content{Stored: map[digest.Digest]string{}}
	put := func(mediaType, data string, a digest.Algorithm) ocispec.Descriptor {
		d := a.FromString(data)
		write(t, path(dir, d), data)
		c.Stored[d] = data
		return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
	}
	putJSON := func(mediaType string, v map[string]any) ocispec.Descriptor {
		v["schemaVersion"], v["mediaType"], v["x-unknown"] = 2, mediaType, map[string]any{"kept": []int{1, 2}}
		return put(mediaType, marshal(t, v), digest.SHA256)
	}
	descs := func(ds ...ocispec.Descriptor) []ocispec.Descriptor { return ds }

	c.Config = put(ocispec.MediaTypeImageConfig, `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`, digest.SHA256)
	configARM := put(ocispec.MediaTypeImageConfig, `{"architecture":"arm64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`, digest.SHA256)
	c.Layer = put("application/x.layer", "a small layer, used three times", digest.SHA256)
	c.Large = put("application/x.large", strings.Repeat("0123456789abcdef\n", 600<<10/17), digest.SHA256)
	c.Long = put("application/x.long", "a layer with a sha512 digest", digest.SHA512)
	empty := put("application/x.empty", "", digest.SHA256)
	emptyJSON := put(ocispec.MediaTypeEmptyJSON, "{}", digest.SHA256)
	c.Unreferenced = put("application/x.lost", "nothing names these bytes", digest.SHA256)

	c.AMD64 = putJSON(ocispec.MediaTypeImageManifest, map[string]any{"config": c.Config, "layers": descs(c.Layer, c.Large)})
	c.AMD64.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	c.ARM64 = putJSON(ocispec.MediaTypeImageManifest, map[string]any{"config": configARM, "layers": descs(c.Layer, c.Long)})
	c.ARM64.Platform = &ocispec.Platform{OS: "linux", Architecture: "arm64"}
	c.App = putJSON(ocispec.MediaTypeImageIndex, map[string]any{"manifests": descs(c.AMD64, c.ARM64)})
	c.App.Annotations = map[string]string{ocispec.AnnotationRefName: "app"}
	c.Artifact = putJSON(ocispec.MediaTypeImageManifest, map[string]any{"artifactType": "application/x.thing", "config": emptyJSON, "layers": descs(empty, c.Layer)})
	subject := c.Artifact
	c.Artifact.ArtifactType = "application/x.thing"
	c.Artifact.Annotations = map[string]string{ocispec.AnnotationRefName: "registry.example.com/app:1.0"}
	c.Attached = putJSON(ocispec.MediaTypeImageManifest, map[string]any{"artifactType": "application/x.note", "config": emptyJSON, "layers": descs(), "subject": subject})
	c.Attached.ArtifactType = "application/x.note"

	c.Index = "{ \"x-unknown\" : [1.50, null],\n\t\"schemaVersion\": 2,\r\n \"manifests\" : " +
		marshal(t, descs(c.App, c.Artifact, c.Attached)) + "}\n\n"
	write(t, filepath.Join(dir, "index.json"), c.Index)
	write(t, filepath.Join(dir, "oci-layout"), `{"imageLayoutVersion": "1.0.0"}`+"\n")

	c.Reachable = []digest.Digest{
		c.App.Digest, c.AMD64.Digest, c.Config.Digest, c.Layer.Digest, c.Large.Digest,
		c.ARM64.Digest, configARM.Digest, c.Long.Digest,
		c.Artifact.Digest, emptyJSON.Digest, empty.Digest, c.Attached.Digest,
	}
	return c
}

func marshal(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// path returns where a layout in dir has the blob d.
func path(dir string, d digest.Digest) string {
	return filepath.Join(dir, "blobs", string(d.Algorithm()), d.Encoded())
}

func write(t testing.TB, file, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}
