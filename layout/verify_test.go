package layout_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

func kinds(t testing.TB, l *layout.Layout) []string {
	t.Helper()
	r, err := layout.Verify(t.Context(), l, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range r.Findings {
		got = append(got, f.Kind)
	}
	return got
}

func TestVerifyFindings(t *testing.T) {
	// layer is the layer of the one artifact that each layout holds.
	tests := map[string]struct {
		damage func(t *testing.T, l *layout.Layout, manifest, layer string)
		want   []string
	}{
		"sound": {func(*testing.T, *layout.Layout, string, string) {}, nil},
		"flipped": {func(t *testing.T, _ *layout.Layout, _, layer string) {
			raw := []byte(readFile(t, layer))
			raw[len(raw)-1] ^= 0x80
			writeFile(t, layer, string(raw))
		}, []string{layout.FindingDigest}},
		"short": {func(t *testing.T, _ *layout.Layout, _, layer string) {
			writeFile(t, layer, readFile(t, layer)[1:])
		}, []string{layout.FindingDigest, layout.FindingSize}},
		"missing layer": {func(t *testing.T, _ *layout.Layout, _, layer string) {
			if err := os.Remove(layer); err != nil {
				t.Fatal(err)
			}
		}, []string{layout.FindingMissing}},
		"missing manifest": {func(t *testing.T, _ *layout.Layout, manifest, _ string) {
			if err := os.Remove(manifest); err != nil {
				t.Fatal(err)
			}
		}, []string{layout.FindingMissing}},
		"flipped manifest": {func(t *testing.T, _ *layout.Layout, manifest, _ string) {
			raw := []byte(readFile(t, manifest))
			raw[20] ^= 1
			writeFile(t, manifest, string(raw))
		}, []string{layout.FindingDigest}},
		"link": {func(t *testing.T, _ *layout.Layout, _, layer string) {
			elsewhere := filepath.Join(t.TempDir(), "f")
			if err := errors.Join(os.Rename(layer, elsewhere), os.Symlink(elsewhere, layer)); err != nil {
				t.Fatal(err)
			}
		}, []string{layout.FindingUnsafe}},
		"strays": {func(t *testing.T, l *layout.Layout, _, _ string) {
			writeFile(t, filepath.Join(l.Dir(), "blobs", "sha256", "README"), "")
			writeFile(t, filepath.Join(l.Dir(), "blobs", "md5"), "")
		}, []string{layout.FindingStray, layout.FindingStray}},
		"unreferenced damage": {func(t *testing.T, l *layout.Layout, _, _ string) {
			writeFile(t, filepath.Join(l.Dir(), filepath.FromSlash(layout.BlobPath(digestA))), "no a")
		}, []string{layout.FindingDigest}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLayout(t)
			var manifest, layer string
			edit(t, l, func(s *layout.Stage, tx *layout.Tx) {
				desc := artifact(t, s, "a", nil)
				tx.SetRef("a", desc)
				manifest = blobFile(l, desc)
				layer = blobFile(l, putBlob(t, s, "application/x.layer", "layer of a"))
			})
			test.damage(t, l, manifest, layer)
			if diff := cmp.Diff(test.want, kinds(t, l)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestVerifyEveryByte flips each byte of a small layout in turn: none escapes.
func TestVerifyEveryByte(t *testing.T) {
	l := newLayout(t)
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) {
		tx.SetRef("a", index(t, s, artifact(t, s, "a", nil), image(t, s, "i", "arm64")))
	})
	flips := 0
	for name, data := range files(t, l.Dir()) {
		if filepath.Dir(name) == "." {
			continue
		}
		path := filepath.Join(l.Dir(), name)
		for i := range data {
			b := []byte(data)
			b[i] ^= 0x01
			writeFile(t, path, string(b))
			flips++
			if got := kinds(t, l); len(got) == 0 {
				t.Errorf("%s: byte %d flipped, nothing found", name, i)
			}
		}
		writeFile(t, path, data)
	}
	mustVerify(t, l)
	t.Logf("%d bytes flipped, each found", flips)
}

func TestGC(t *testing.T) {
	l := newLayout(t)
	var kept, gone ocispec.Descriptor
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) {
		kept, gone = image(t, s, "kept", "amd64"), artifact(t, s, "gone", nil)
		raw, err := layout.EncodeManifest(ocispec.Manifest{Config: ocispec.DescriptorEmptyJSON, Subject: &kept, ArtifactType: "application/x.sig"})
		if err != nil {
			t.Fatal(err)
		}
		putBlob(t, s, ocispec.MediaTypeEmptyJSON, "{}")
		tx.SetRef("sig", putBlob(t, s, ocispec.MediaTypeImageManifest, string(raw))) // reaches kept by its subject alone
		tx.SetRef("gone", gone)
	})
	edit(t, l, func(_ *layout.Stage, tx *layout.Tx) { tx.Index().Remove(tx.Index().FindRef("gone")...) })
	stray := filepath.Join(l.Dir(), "blobs", "sha256", "README")
	writeFile(t, stray, "not mine")
	now := time.Now()
	for _, test := range []struct {
		opts    layout.GCOptions
		removed int
	}{
		{layout.GCOptions{Now: now, Grace: time.Hour}, 0},
		{layout.GCOptions{Now: now.Add(2 * time.Hour), Grace: time.Hour, DryRun: true}, 2},
		{layout.GCOptions{Now: now.Add(2 * time.Hour), Grace: time.Hour}, 2},
		{layout.GCOptions{Now: now.Add(2 * time.Hour)}, 0},
	} {
		r, err := l.GC(t.Context(), test.opts)
		if err != nil || len(r.Removed) != test.removed {
			t.Errorf("GC(%+v) = %+v, %v; want %d removed", test.opts, r, err, test.removed)
		}
	}
	if _, err := l.Stat(t.Context(), gone.Digest); !errors.Is(err, layout.ErrNotFound) {
		t.Errorf("the removed manifest: %v", err)
	}
	if got := kinds(t, l); len(got) != 1 || got[0] != layout.FindingStray {
		t.Errorf("after GC verify finds %v, want the stray alone", got)
	}
}

func TestGCFollowsDockerTypes(t *testing.T) {
	l := newLayout(t)
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) {
		config := putBlob(t, s, "application/vnd.docker.container.image.v1+json", `{"os":"linux","architecture":"amd64"}`)
		layer := putBlob(t, s, "application/vnd.docker.image.rootfs.diff.tar.gzip", "layer")
		manifest := putBlob(t, s, "application/vnd.docker.distribution.manifest.v2+json",
			`{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{"mediaType":"`+config.MediaType+`","digest":"`+string(config.Digest)+`","size":37},"layers":[{"mediaType":"`+layer.MediaType+`","digest":"`+string(layer.Digest)+`","size":5}]}`)
		tx.SetRef("docker", manifest)
		tx.SetRef("unknown", putBlob(t, s, "application/x.unheard-of", "kept too"))
	})
	r, err := l.GC(t.Context(), layout.GCOptions{Now: time.Now()})
	if err != nil || len(r.Removed) != 0 || r.Kept != 4 {
		t.Errorf("GC = %+v, %v; want 4 kept, none removed", r, err)
	}
}

func TestGCRefusesWhatItCannotRead(t *testing.T) {
	l := newLayout(t)
	var manifest ocispec.Descriptor
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) {
		manifest = artifact(t, s, "a", nil)
		tx.SetRef("a", index(t, s, manifest))
	})
	writeFile(t, blobFile(l, manifest), "{}")
	before := files(t, l.Dir())
	if _, err := l.GC(t.Context(), layout.GCOptions{Now: time.Now()}); !errors.Is(err, layout.ErrMismatch) {
		t.Errorf("GC of a damaged layout: %v, want ErrMismatch", err)
	}
	if diff := cmp.Diff(before, files(t, l.Dir())); diff != "" {
		t.Errorf("something was removed:\n%s", diff)
	}
	if err := os.Remove(blobFile(l, manifest)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.GC(t.Context(), layout.GCOptions{Now: time.Now()}); !errors.Is(err, layout.ErrNotFound) {
		t.Errorf("GC with a missing member: %v, want ErrNotFound", err)
	}
	if _, err := l.GC(t.Context(), layout.GCOptions{Now: time.Now(), Sparse: true}); err != nil {
		t.Errorf("GC of a sparse layout: %v", err)
	}
}

// TestGCWaitsForStages: a blob that is staged and not yet named survives.
func TestGCWaitsForStages(t *testing.T) {
	l := newLayout(t)
	s, err := l.Stage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	desc := artifact(t, s, "a", nil)
	done := make(chan error)
	go func() {
		_, err := l.GC(t.Context(), layout.GCOptions{Now: time.Now().Add(time.Hour)})
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("GC did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	if err := s.Update(t.Context(), func(tx *layout.Tx) error { tx.SetRef("a", desc); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	mustVerify(t, l)
	if _, err := l.Stat(t.Context(), desc.Digest); err != nil {
		t.Error(err)
	}
}

func TestGCNeedsATime(t *testing.T) {
	if _, err := newLayout(t).GC(t.Context(), layout.GCOptions{}); err == nil {
		t.Error("GC without a time did not fail")
	}
}
