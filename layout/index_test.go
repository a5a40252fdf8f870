package layout_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"

	"github.com/gardenlinux/gloci-layout/layout"
)

const (
	digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	digestC = "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
)

// foreignIndex is what another tool could have written: its own order, white
// space and fields that nobody knows.
const foreignIndex = `{
  "x-tool": {"b": 1.50e3, "a": "ü\u00e9 <&>"},
  "manifests": [
    { "size": 7, "x-entry": [1, 2], "digest": "` + digestA + `", "mediaType": "application/vnd.oci.image.manifest.v1+json",
      "platform": {"os": "linux", "architecture": "amd64", "x-platform": null},
      "annotations": {"org.opencontainers.image.ref.name": "one", "b": "2", "a": "1"} },
    { "mediaType": "application/x", "digest": "` + digestB + `", "size": 0, "data": "" }
  ],
  "schemaVersion": 2
}`

func parseIndex(t testing.TB, raw string) *layout.Index {
	t.Helper()
	x, err := layout.ParseIndex([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestIndexUneditedKeepsItsBytes(t *testing.T) {
	raw := strings.Replace(foreignIndex, `, "data": ""`, "", 1)
	if got := string(parseIndex(t, raw).Bytes()); got != raw {
		t.Errorf("Bytes() = %s\nwant %s", got, raw)
	}
}

func TestIndexEditKeepsWhatItDoesNotKnow(t *testing.T) {
	x := parseIndex(t, strings.Replace(foreignIndex, `, "data": ""`, "", 1))
	x.Add(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digestC, Size: 3, Annotations: map[string]string{"z": "a,b=c"}})
	want := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[` +
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + digestA + `","size":7,"annotations":{"a":"1","b":"2","org.opencontainers.image.ref.name":"one"},` +
		`"platform":{"os":"linux","architecture":"amd64","x-platform":null},"x-entry":[1,2]},` +
		`{"mediaType":"application/x","digest":"` + digestB + `","size":0},` +
		`{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"` + digestC + `","size":3,"annotations":{"z":"a,b=c"}}` +
		`],"x-tool":{"b":1.50e3,"a":"ü\u00e9 <&>"}}` + "\n"
	if diff := cmp.Diff(want, string(x.Bytes())); diff != "" {
		t.Errorf("Bytes() (-want +got):\n%s", diff)
	}
	// A change of one field of an entry leaves the rest of it.
	desc := x.Entries()[0]
	desc.Platform.Architecture = "arm64"
	desc.Annotations["b"] = "3"
	x.Set(0, desc)
	for _, part := range []string{`"architecture":"arm64"`, `"x-platform":null`, `"x-entry":[1,2]`, `"b":"3"`, `1.50e3`} {
		if !strings.Contains(string(x.Bytes()), part) {
			t.Errorf("after Set, %s is missing in %s", part, x.Bytes())
		}
	}
}

// An annotation that is null reads as an empty text. It stays null until somebody
// gives it a value or takes it out.
func TestIndexKeepsNulls(t *testing.T) {
	entry := `{"mediaType":"a/b","digest":"sha256:` + hexA + `","size":7,"annotations":{"b":null,"c":"","a":null}}`
	x, err := layout.ParseIndex([]byte(`{"schemaVersion":2,"manifests":[` + entry + `],"annotations":{"e":null,"f":null,"d":null,"g":null}}`))
	if err != nil {
		t.Fatal(err)
	}
	first := x.Entries()[0]
	if want := map[string]string{"a": "", "b": "", "c": ""}; !maps.Equal(first.Annotations, want) {
		t.Errorf("annotations %q, want %q", first.Annotations, want)
	}
	first.Annotations["a"] = "set"
	x.Set(0, first)
	x.DeleteAnnotation("d")
	x.SetAnnotation("f", "set")
	x.SetAnnotation("g", "")
	want := `{"schemaVersion":2,"mediaType":"` + typeIndex + `","manifests":[{"mediaType":"a/b","digest":"sha256:` + hexA +
		`","size":7,"annotations":{"a":"set","b":null,"c":""}}],"annotations":{"e":null,"f":"set","g":""}}` + "\n"
	if diff := cmp.Diff(want, string(x.Bytes())); diff != "" {
		t.Errorf("edited index (-want +got):\n%s", diff)
	}
}

func TestIndexEntriesAreCopies(t *testing.T) {
	x := parseIndex(t, strings.Replace(foreignIndex, `, "data": ""`, "", 1))
	e := x.Entries()
	e[0].Annotations["a"] = "changed"
	e[0].Platform.OS = "changed"
	if again := x.Entries()[0]; again.Annotations["a"] != "1" || again.Platform.OS != "linux" {
		t.Errorf("a change of what Entries returned reached the index: %v", again)
	}
}

func TestIndexEmptyDataIsChecked(t *testing.T) {
	// digestB is not the digest of nothing.
	if _, err := layout.ParseIndex([]byte(foreignIndex)); err == nil {
		t.Error("embedded data that does not hash to its digest was taken")
	}
}

func TestIndexSortOrder(t *testing.T) {
	gl := func(cname, arch string, d digest.Digest) ocispec.Descriptor {
		return ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageManifest, Digest: d, Size: 1,
			Annotations: map[string]string{"cname": cname},
			Platform:    &ocispec.Platform{OS: "gardenlinux", Architecture: arch, OSVersion: "1.0.0"},
		}
	}
	runtime := func(arch string, d digest.Digest) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d, Size: 1, Platform: &ocispec.Platform{OS: "linux", Architecture: arch}}
	}
	plain := ocispec.Descriptor{MediaType: "application/x", Digest: digestC, Size: 1}
	want := []ocispec.Descriptor{runtime("amd64", digestB), runtime("arm64", digestA), plain, gl("a", "amd64", digestB), gl("b", "amd64", digestA), gl("a", "arm64", digestC)}
	rapid.Check(t, func(t *rapid.T) {
		x := layout.NewIndex()
		for _, d := range rapid.Permutation(want).Draw(t, "order") {
			x.Add(d)
		}
		x.Sort()
		if diff := cmp.Diff(want, x.Entries()); diff != "" {
			t.Fatalf("sorted (-want +got):\n%s", diff)
		}
	})
	// Runtime entries that only the digest tells apart keep their order: a
	// client takes the first.
	x := layout.NewIndex()
	x.Add(runtime("amd64", digestB))
	x.Add(runtime("amd64", digestA))
	x.Sort()
	if got := x.Entries()[0].Digest; got != digestB {
		t.Errorf("first of two equal platforms is %s, want the one that was first", got)
	}
}

func TestPutEntryKeys(t *testing.T) {
	gl := func(cname, arch, version string, d digest.Digest) ocispec.Descriptor {
		return ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageManifest, Digest: d, Size: 1,
			Annotations: map[string]string{"cname": cname, "architecture": arch},
			Platform:    &ocispec.Platform{OS: "gardenlinux", Architecture: arch, OSVersion: version},
		}
	}
	x := layout.NewIndex()
	put := func(desc ocispec.Descriptor, wantReplaced bool, wantLen int) {
		t.Helper()
		if replaced := x.PutEntry(desc); (replaced != nil) != wantReplaced || x.Len() != wantLen {
			t.Errorf("PutEntry(%v) replaced %v, %d entries; want %v, %d", desc, replaced, x.Len(), wantReplaced, wantLen)
		}
	}
	put(gl("kvm-amd64-1.0.0-aaaaaaaa", "amd64", "1.0.0", digestA), false, 1)
	put(gl("kvm-amd64-1.0.0-bbbbbbbb", "amd64", "1.0.0", digestB), true, 1)                 // a rebuild
	put(gl("kvm-arm64-1.0.0-bbbbbbbb", "arm64", "1.0.0", digestC), false, 2)                // another architecture
	put(gl("kvm-amd64-1.1.0-bbbbbbbb", "amd64", "1.1.0", digestC), false, 3)                // another version
	put(gl("kvm_usi-amd64-1.0.0-bbbbbbbb", "amd64", "1.0.0", digestC), false, 4)            // another flavour
	put(ocispec.Descriptor{MediaType: "application/x", Digest: digestA, Size: 1}, false, 5) // keyed by digest
	put(ocispec.Descriptor{MediaType: "application/x", Digest: digestA, Size: 1}, true, 5)  // the same
	put(ocispec.Descriptor{MediaType: "application/x", Digest: digestB, Size: 1}, false, 6) // another
	linux := func(d digest.Digest, variant string) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d, Size: 1, Platform: &ocispec.Platform{OS: "linux", Architecture: "arm", Variant: variant}}
	}
	put(linux(digestA, "v6"), false, 7)
	put(linux(digestB, "v7"), false, 8)
	put(linux(digestC, "v6"), true, 8)
}

// TestIndexEditUndo: any entries added and taken out again leave the canonical
// bytes, and unknown fields, as they were.
func TestIndexEditUndo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := layout.NewIndex()
		n := rapid.IntRange(0, 6).Draw(t, "entries")
		text := rapid.StringMatching(`[a-zA-Z0-9 "\\/<>ü\n]{0,8}`)
		for i := range n {
			x.Add(ocispec.Descriptor{
				MediaType: "application/x", Digest: digest.FromString(fmt.Sprint(i)), Size: int64(i),
				Annotations: rapid.MapOfN(text, text, 1, 3).Draw(t, "annotations"),
			})
		}
		var doc map[string]json.RawMessage
		if err := json.Unmarshal(x.Bytes(), &doc); err != nil {
			t.Fatal(err)
		}
		doc["x-unknown"] = json.RawMessage(fmt.Sprintf(`[{"k":%q}]`, "v"))
		raw, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		y, err := layout.ParseIndex(raw)
		if err != nil {
			t.Fatal(err)
		}
		y.Add(ocispec.Descriptor{MediaType: "application/y", Digest: digestA, Size: 1})
		y.Remove(n)
		canonical := string(y.Bytes())
		z, err := layout.ParseIndex([]byte(canonical))
		if err != nil {
			t.Fatal(err)
		}
		at := rapid.IntRange(0, n).Draw(t, "number")
		z.Add(ocispec.Descriptor{MediaType: "application/y", Digest: digestA, Size: 1, Annotations: map[string]string{"k": "v"}})
		if at < n { // change an entry and change it back
			e := z.Entries()[at]
			was := maps.Clone(e.Annotations)
			e.Annotations["extra"] = "x"
			z.Set(at, e)
			e.Annotations = was
			z.Set(at, e)
		}
		z.Remove(n)
		if got := string(z.Bytes()); got != canonical {
			t.Fatalf("edit and undo:\n%s\nwant\n%s", got, canonical)
		}
		if !strings.Contains(canonical, `"x-unknown"`) {
			t.Fatalf("unknown field lost: %s", canonical)
		}
	})
}

func TestEncodeManifestIsCanonical(t *testing.T) {
	raw, err := layout.EncodeManifest(ocispec.Manifest{
		ArtifactType: "application/x",
		Config:       ocispec.DescriptorEmptyJSON,
		Annotations:  map[string]string{"b": "<2>", "a": "1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/x",` +
		`"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"data":"e30="},` +
		`"layers":[],"annotations":{"a":"1","b":"<2>"}}` + "\n"
	if string(raw) != want {
		t.Errorf("EncodeManifest = %s\nwant %s", raw, want)
	}
}
