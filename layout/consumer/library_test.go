package consumer_test

import (
	"encoding/json"
	"testing"

	"github.com/containers/image/v5/manifest"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"

	"github.com/gardenlinux/gloci-layout/layout/consumer"
	"github.com/gardenlinux/gloci-layout/layout/sourcetest"
)

const typeList = "application/vnd.docker.distribution.manifest.list.v2+json"

// A newer containers/image than that of the podman and skopeo which tests can
// run, on random indexes: it prefers zstd, and knows what they do not.
func TestContainersImageChooses(t *testing.T) {
	m := sourcetest.NewMemory(t)
	rapid.Check(t, func(t *rapid.T) {
		mediaType := rapid.SampledFrom([]string{sourcetest.TypeIndex, sourcetest.TypeIndex, typeList}).Draw(t, "type")
		pick := func(name string, values ...string) string { return rapid.SampledFrom(values).Draw(t, name) }
		p := ocispec.Platform{OS: "linux", Architecture: pick("want arch", "amd64", "arm64", "arm"), Variant: pick("want variant", "", "", "v5", "v6", "v7", "v8", "v2")}
		entries := []ocispec.Descriptor{}
		for i := range rapid.IntRange(0, 6).Draw(t, "entries") {
			desc := ocispec.Descriptor{MediaType: sourcetest.TypeManifest, Digest: digest.FromString(string(rune('a' + i))), Size: 1}
			if mediaType == typeList || rapid.IntRange(0, 4).Draw(t, "platform") > 0 {
				desc.Platform = &ocispec.Platform{
					OS: pick("os", "linux", "linux", "linux", "gardenlinux"), Architecture: pick("arch", p.Architecture, p.Architecture, "amd64", "arm"),
					Variant: pick("variant", "", "", "v2", "v5", "v6", "v7", "v8"), OSVersion: pick("version", "", "1.0"),
				}
			}
			if rapid.Bool().Draw(t, "zstd") {
				desc.Annotations = map[string]string{"io.github.containers.compression.zstd": "true"}
			}
			entries = append(entries, desc)
		}
		raw, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": mediaType, "manifests": entries})
		if err != nil {
			t.Fatal(err)
		}
		list, err := manifest.ListFromBlob(raw, mediaType)
		if err != nil {
			t.Fatal(err)
		}
		want, err := list.ChooseInstance(&types.SystemContext{OSChoice: p.OS, ArchitectureChoice: p.Architecture, VariantChoice: p.Variant})
		o, takeErr := consumer.Skopeo.Take(t.Context(), m, m.Put(mediaType, string(raw)), consumer.Ask{Platform: &p, Host: p})
		if takeErr != nil {
			t.Fatal(takeErr)
		}
		if err != nil {
			if o.Failure == nil || o.Failure.Kind != consumer.FailPlatform || o.Failure.Message != err.Error() {
				t.Fatalf("Take = %+v, want failure %v", o.Failure, err)
			}
			return
		}
		// The manifests are not there, but the choice is made.
		if o.Desc.Digest != want || len(o.Path) != 1 {
			t.Fatalf("Take chooses %s (%s), want %s", o.Desc.Digest, o.Why, want)
		}
	})
}
