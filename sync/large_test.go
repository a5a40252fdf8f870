package sync_test

import (
	"context"
	"os"
	"path/filepath"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
	"github.com/gardenlinux/gloci-layout/sync/pushtest"
	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// heap returns the bytes of memory that the process has from the system and
// uses.
func heap() uint64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() - samples[1].Value.Uint64()
}

// TestLargeBlob sends 256 MiB, out and back, in flat memory.
func TestLargeBlob(t *testing.T) {
	if testing.Short() {
		t.Skip("moves 512 MiB")
	}
	const size, limit = 256 << 20, 32 << 20
	reg := regtest.Start(t, nil)
	file := filepath.Join(t.TempDir(), "sparse")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	var blob ocispec.Descriptor
	l := pushtest.NewLayout(t, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		var err error
		if blob, err = m.Stage.AddFile(t.Context(), file, "application/vnd.example.disk"); err != nil {
			t.Fatal(err)
		}
		config := m.Blob("{}", ocispec.MediaTypeEmptyJSON)
		raw, err := layout.EncodeManifest(ocispec.Manifest{ArtifactType: "application/vnd.example.disk", Config: config, Layers: []ocispec.Descriptor{blob}})
		return map[string]ocispec.Descriptor{"disk": m.JSON(raw, err, ocispec.MediaTypeImageManifest)}
	})

	before := heap()
	ctx, stop := context.WithCancel(t.Context())
	most := make(chan uint64)
	go func() {
		var top uint64
		for ctx.Err() == nil {
			top = max(top, heap())
			time.Sleep(2 * time.Millisecond)
		}
		most <- top
	}()
	opts := pushtest.Options(t, reg)
	if _, err := layoutsync.Push(t.Context(), l, pushtest.Repository(t, reg, "disk"), &layoutsync.PushOptions{Registry: opts}); err != nil {
		t.Fatal(err)
	}
	src := openRemote(t, reg, "disk")
	copied, err := layout.Create(t.Context(), filepath.Join(t.TempDir(), "copy"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	stage, err := copied.Stage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stage.Close()
	if err := stage.CopyTree(t.Context(), src, entries(t, src), nil); err != nil {
		t.Fatal(err)
	}
	stop()
	top := <-most
	t.Logf("%d MiB before, %d MiB at most", before>>20, top>>20)
	if top > before+limit {
		t.Errorf("memory grew by %d MiB, want at most %d", (top-before)>>20, limit>>20)
	}
	if !stage.Has(blob.Digest) || blob.Digest.Algorithm() != digest.SHA256 {
		t.Error("the blob did not arrive")
	}
}
