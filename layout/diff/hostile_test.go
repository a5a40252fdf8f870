package diff_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/diff"
	"github.com/gardenlinux/gloci-layout/layout/diff/filediff"
	"github.com/gardenlinux/gloci-layout/layout/extract/extracttest"
)

// Layers that mean harm are compared like others: nothing crashes or hangs,
// nothing is written outside, and that they differ is told. Damage is an error.
func TestHostileLayers(t *testing.T) {
	dir, temp := t.TempDir(), t.TempDir()
	victim := filepath.Join(dir, extracttest.Victim)
	if err := os.WriteFile(victim, []byte("untouched"), 0o644); err != nil {
		t.Fatal(err)
	}
	friendly := tarOf(map[string]string{"a": "x", "etc/passwd": "root", "victim": "v"})
	for _, h := range extracttest.HostileLayers(dir) {
		t.Run(h.Name, func(t *testing.T) {
			if h.Slow && testing.Short() {
				t.Skip("slow")
			}
			data := h.Layer()
			mediaType := h.MediaType
			if mediaType == "" {
				mediaType = ocispec.MediaTypeImageLayer
			}
			side := func(layer []byte, damage func([]byte)) diff.Side {
				s := newStore()
				l := s.put(mediaType, bytes.Clone(layer))
				if damage != nil {
					damage(s.blobs[l.Digest])
				}
				desc := s.putJSON(ocispec.MediaTypeImageManifest, map[string]any{
					"schemaVersion": 2, "config": s.put(ocispec.MediaTypeEmptyJSON, []byte("{}")), "layers": []ocispec.Descriptor{l},
				})
				s.entries = []ocispec.Descriptor{named(desc, "x")}
				return diff.Side{Source: s}
			}
			hostile, good := side(data, h.Damaged), side(friendly, nil)
			// Much of what is hostile comes after something that a comparison with
			// another layer stops at, so it also meets its like.
			like := side(append(bytes.Clone(data), 0), h.Damaged)
			pairs := [][2]diff.Side{{hostile, good}, {good, hostile}, {hostile, like}}
			if h.Slow {
				pairs = pairs[:1]
			}
			for _, pair := range pairs {
				start := time.Now()
				n := 0
				var last error
				for _, err := range diff.Compare(t.Context(), pair[0], pair[1], &diff.Options{Files: filediff.Options{Text: true, TempDir: temp}}, nil) {
					n++
					last = err
				}
				switch {
				case h.Damaged != nil:
					if !errors.Is(last, layout.ErrMismatch) {
						t.Errorf("damaged: error %v, want ErrMismatch", last)
					}
				case last != nil:
					t.Errorf("error %v", last)
				case n < 3:
					t.Errorf("%d changes", n)
				}
				if d := time.Since(start); d > time.Minute {
					t.Errorf("it took %v", d)
				}
			}
		})
	}
	if content, err := os.ReadFile(victim); err != nil || string(content) != "untouched" {
		t.Errorf("the victim is %q, %v", content, err)
	}
	for _, d := range []string{dir, temp} {
		entries, err := os.ReadDir(d)
		if err != nil || len(entries) != map[string]int{dir: 1, temp: 0}[d] {
			t.Errorf("%s has %v, %v", d, entries, err)
		}
	}
}
