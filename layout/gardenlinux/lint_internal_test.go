package gardenlinux

import (
	"math/rand/v2"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The first of those that begin alike is what a look at all of them, one after the
// other, finds.
func TestFirstByPrefix(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	text := func(most int) string {
		b := make([]byte, r.IntN(most+1))
		for i := range b {
			b[i] = "ab-"[r.IntN(3)]
		}
		return string(b)
	}
	found := 0
	for range 300 {
		entries := make([]ocispec.Descriptor, r.IntN(12))
		for i := range entries {
			entries[i].Annotations = map[string]string{annotationCName: text(5)}
		}
		choose := firstByPrefix(entries)
		for range 10 {
			cname := text(3)
			want := Update{CName: cname}.choose(entries)
			if got := choose(cname); got != want {
				t.Fatalf("%q among %v: %d, want %d", cname, entries, got, want)
			}
			if want >= 0 {
				found++
			}
		}
	}
	if found == 0 {
		t.Error("nothing was found")
	}
}
