package hashing_test

import (
	"bytes"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/layout/internal/hashing"
)

// Each Sum is that of what came since the last, whatever the sizes of writes.
func TestHasher(t *testing.T) {
	h := hashing.New()
	defer h.Stop()
	for _, size := range []int{0, 1, 256 << 10, 256<<10 + 1, 10 << 20, 0, 7} {
		data := bytes.Repeat([]byte("abc"), size/3+1)[:size]
		for _, step := range []int{1 << 20, 999_999, size + 1} {
			for rest := data; len(rest) > 0; {
				p := rest[:min(step, len(rest))]
				if n, err := h.Write(p); n != len(p) || err != nil {
					t.Fatalf("Write = %d, %v", n, err)
				}
				rest = rest[len(p):]
			}
			if got, want := h.Sum(), digest.FromBytes(data); got != want {
				t.Errorf("%d bytes in writes of %d: %s, want %s", size, step, got, want)
			}
		}
	}
}
