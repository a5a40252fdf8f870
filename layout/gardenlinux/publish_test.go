package gardenlinux

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

func TestFlavorTag(t *testing.T) {
	for in, want := range map[string]string{
		"baremetal_pxe-amd64-2150.1.0-abc12345": "2150.1.0-baremetal_pxe-amd64",
		"baremetal_pxe-amd64-2150.1.0":          "2150.1.0-baremetal_pxe-amd64",
		"container-pythonDev-arm64-1877.3":      "1877.3-container-pythonDev-arm64",
		"baremetal_pxe-amd64":                   "",
		"baremetal_pxe":                         "",
	} {
		n, err := ParseName(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := FlavorTag(n); got != want {
			t.Errorf("FlavorTag(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestFindPart(t *testing.T) {
	const pxe = "cname:baremetal_pxe|amd64|2150.1.0"
	for in, want := range map[string][2]string{
		"baremetal_pxe-amd64":                   {"2150.1.0-baremetal_pxe-amd64", pxe},
		"baremetal_pxe-amd64-2150.1.0":          {"2150.1.0-baremetal_pxe-amd64", pxe},
		"baremetal_pxe-amd64-2150.1.0-abc12345": {"2150.1.0-baremetal_pxe-amd64", pxe},
		"2150.1.0-baremetal_pxe-amd64":          {"2150.1.0-baremetal_pxe-amd64", pxe},
		"linux/arm64":                           {"arm64-2150.1.0", "platform:linux/arm64///"},
		"arm64-2150.1.0":                        {"arm64-2150.1.0", "platform:linux/arm64///"},
		"arm64-2150.1":                          {},
		"linux/s390x":                           {},
		"baremetal_pxe":                         {},
		"baremetal_pxe-amd64-1.0":               {},
		"":                                      {},
		"2150.1.0-adopted-0123":                 {},
	} {
		tag, entry, ok := FindPart("2150.1.0", in)
		got := [2]string{tag}
		if ok {
			got[1] = layout.EntryKey(entry)
		}
		if got != want {
			t.Errorf("FindPart(%q) = %q, want %q", in, got, want)
		}
	}
}

// What the tagged manifest says is what the build's entry said.
func TestFlavorEntry(t *testing.T) {
	s := newStage(t)
	entry := mustStage(t, s, builds(t, containerAMD, "oci"))[0].Entry
	doc := document(t, s, entry)
	plain := ocispec.Descriptor{MediaType: entry.MediaType, Digest: entry.Digest, Size: entry.Size}
	n, got, ok := FlavorEntry(plain, doc)
	if !ok || FlavorTag(n) != "2150.1.0-container-amd64" {
		t.Fatalf("FlavorEntry = %v, %t", n, ok)
	}
	if diff := cmp.Diff(entry, got); diff != "" {
		t.Errorf("entry (-staged +read):\n%s", diff)
	}
	for _, doc := range []*layout.Document{nil, {IsIndex: true}, {}, {Annotations: map[string]string{"cname": "baremetal-amd64"}}} {
		if _, _, ok := FlavorEntry(plain, doc); ok {
			t.Errorf("%+v is a flavor", doc)
		}
	}
}
