package layout_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// D1, D2: a digest becomes a path, so it is what the grammar says or nothing.
var hostileDigests = []struct {
	text string
	ok   bool
}{
	{"sha256:" + hexA, true},
	{"sha512:" + hexA + hexA, true},
	{"", false},
	{":", false},
	{"sha256", false},
	{"sha256:", false},
	{hexA, false},
	{":" + hexA, false},
	{"sha256:" + hexA[1:], false},
	{"sha256:" + hexA + "a", false},
	{"sha256:" + hexA + "\n", false},
	{"sha256:" + hexA + "\x00", false},
	{" sha256:" + hexA, false},
	{"sha256: " + hexA[1:], false},
	{"sha256:" + strings.ToUpper(hexA), false},
	{"SHA256:" + hexA, false},
	{"sha256:" + strings.Repeat("g", 64), false},
	{"sha256:" + hexA + hexA, false},
	{"sha512:" + hexA, false},
	{"sha384:" + hexA + hexA[:32], false},
	{"sha1:" + hexA[:40], false},
	{"md5:" + hexA[:32], false},
	{"blake3:" + hexA, false},
	{"sha256+b64:" + hexA, false},
	{"sha256:sha256:" + hexA[7:], false},
	{"sha256:../../../../../etc/passwd", false},
	{"sha256:" + strings.Repeat("../", 21) + "a", false}, // 64 characters
	{"../sha256:" + hexA, false},
	{"sha256/../x:" + hexA, false},
	{"/sha256:" + hexA, false},
	{"sha256:/" + hexA[1:], false},
	{"sha256:." + hexA[1:], false},
	{"sha256:" + strings.Repeat("\u0430", 64), false}, // Cyrillic
	{"sha256:" + strings.Repeat("\uff11", 64), false}, // full-width 1
	{"sha256:" + strings.Repeat("a", 1<<20), false},
}

func TestHostileDigest(t *testing.T) {
	for _, tt := range hostileDigests {
		d, err := layout.ParseDigest(tt.text)
		want := layout.ErrInvalid
		if tt.ok {
			want = nil
		}
		checkError(t, "ParseDigest", err, want)
		if tt.ok && string(d) != tt.text || !tt.ok && d != "" {
			t.Errorf("ParseDigest(%.100q) = %q", tt.text, d)
		}
	}
}

// A digest that did not come through a parser is checked as well, before it is
// a path: a file outside stays unread.
func TestHostileDigestIsNoPath(t *testing.T) {
	tr := newTree(t)
	tr.roots()
	tr.file("secret", "secret")
	l, err := tr.open(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, s := range []string{"sha256:../../secret", "sha256:../../index.json", "../..:secret", "sha256:", "", "sha384:" + hexA + hexA[:32]} {
		bounded(t, func() {
			_, err := l.Blob(t.Context(), ocispec.Descriptor{MediaType: "a/b", Digest: digest.Digest(s), Size: 6})
			checkError(t, "Blob "+s, err, layout.ErrInvalid)
			if _, err := l.Stat(t.Context(), digest.Digest(s)); !errors.Is(err, layout.ErrInvalid) && !errors.Is(err, layout.ErrNotFound) {
				t.Errorf("Stat(%q) = %v", s, err)
			}
		})
	}
}

// D3: each bit of each blob counts. One flipped bit anywhere is found, by verify
// and by whoever reads that blob, before its last byte.
func TestHostileFlippedBytes(t *testing.T) {
	tr := newTree(t)
	tr.roots(tr.index(tr.image("one")), tr.image("two"))
	blobs, err := filepath.Glob(tr.path("blobs/sha256/*"))
	if err != nil || len(blobs) != 7 {
		t.Fatalf("%d blobs, %v", len(blobs), err)
	}
	if err := tr.verify(t.Context()); err != nil {
		t.Fatalf("the layout is damaged before anything was flipped: %v", err)
	}
	flips := 0
	for _, name := range blobs {
		good, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		step := 1
		if testing.Short() {
			step = 7
		}
		for i := 0; i < len(good); i += step {
			bad := append([]byte{}, good...)
			bad[i] ^= 1 << (i % 8)
			if err := os.WriteFile(name, bad, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := tr.verify(t.Context()); !errors.Is(err, layout.ErrMismatch) {
				t.Fatalf("%s with a flipped bit at %d: verify = %v", filepath.Base(name), i, err)
			}
			flips++
		}
		if err := os.WriteFile(name, good, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := tr.verify(t.Context()); err != nil {
		t.Fatalf("the layout is damaged after all was put back: %v", err)
	}
	t.Logf("%d flipped bits, all found", flips)
}

// A blob of another length than its descriptor says, and a claim to be huge.
func TestHostileSizes(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(d *ocispec.Descriptor)
		want   error
	}{
		{"one byte more in the file", func(d *ocispec.Descriptor) { d.Size-- }, layout.ErrMismatch},
		{"one byte less in the file", func(d *ocispec.Descriptor) { d.Size++ }, layout.ErrMismatch},
		{"size 0", func(d *ocispec.Descriptor) { d.Size = 0 }, layout.ErrMismatch},
		{"size 2^62", func(d *ocispec.Descriptor) { d.Size = 1 << 62 }, nil},
		{"size 5 MiB", func(d *ocispec.Descriptor) { d.Size = 5 << 20 }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr := newTree(t)
			desc := tr.image("x")
			tt.change(&desc)
			tr.roots(desc)
			bounded(t, func() {
				if err := tr.verify(t.Context()); tt.want != nil {
					checkError(t, "Verify", err, tt.want)
				} else if !errors.Is(err, layout.ErrInvalid) && !errors.Is(err, layout.ErrMismatch) {
					t.Errorf("Verify = %v", err)
				}
				if _, err := tr.walk(t.Context()); !errors.Is(err, layout.ErrInvalid) && !errors.Is(err, layout.ErrMismatch) {
					t.Errorf("Walk = %v", err)
				}
			})
		})
	}
	t.Run("two names for one blob, the second with a wrong size", func(t *testing.T) {
		tr := newTree(t)
		desc := tr.image("x")
		liar := desc
		liar.Size += 10
		tr.roots(desc, liar)
		checkError(t, "Verify of entries", tr.verify(t.Context()), layout.ErrMismatch)
		layer := tr.blob(typeLayer, "layer")
		liar = layer
		liar.Size += 10
		tr.roots(tr.manifest(tr.blob(typeConfig, "{}"), layer, liar))
		checkError(t, "Verify of layers", tr.verify(t.Context()), layout.ErrMismatch)
	})
	t.Run("a layer that claims 2^62", func(t *testing.T) {
		tr := newTree(t)
		layer := tr.blob(typeLayer, "layer")
		layer.Size = 1 << 62
		tr.roots(tr.manifest(tr.blob(typeConfig, "{}"), layer))
		bounded(t, func() {
			checkError(t, "Verify", tr.verify(t.Context()), layout.ErrMismatch)
			l, err := tr.open(nil)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if _, err := layout.ReadAll(t.Context(), l, layer, 1<<62); !errors.Is(err, layout.ErrMismatch) {
				t.Errorf("ReadAll = %v", err)
			}
		})
	})
}

// D4: graphs that a naive walk never leaves.
func TestHostileGraphs(t *testing.T) {
	t.Run("2^30 paths", func(t *testing.T) {
		tr := newTree(t)
		left, right := tr.image("left"), tr.image("right")
		// Two documents per level, each of which names both of the level below.
		for i := range 15 {
			a, b := left, right
			a.Annotations = map[string]string{"level": encode(i)}
			left, right = tr.index(a, b), tr.index(b, a)
		}
		tr.roots(left, right)
		bounded(t, func() {
			n, err := tr.walk(t.Context())
			// 15 levels of 2, 2 manifests, 2 configs, 2 layers
			if err != nil || n != 36 {
				t.Errorf("Walk = %d nodes, %v, want 36", n, err)
			}
			checkError(t, "Verify", tr.verify(t.Context()), nil)
		})
	})
	t.Run("an index below itself", func(t *testing.T) {
		// Only possible with content that does not hash to its name.
		tr := newTree(t)
		self := ocispec.Descriptor{MediaType: typeIndex, Digest: "sha256:" + hexA}
		for range 3 { // the size of the text depends on the size in it
			self.Size = int64(len(indexText(self)))
		}
		tr.file("blobs/sha256/"+hexA, indexText(self))
		tr.roots(self)
		bounded(t, func() {
			_, err := tr.walk(t.Context())
			checkError(t, "Walk", err, layout.ErrMismatch)
			checkError(t, "Verify", tr.verify(t.Context()), layout.ErrMismatch)
		})
	})
	t.Run("an index below itself through embedded data", func(t *testing.T) {
		tr := newTree(t)
		self := tr.index()
		self.Data = []byte(indexText(self)) // not what the digest says
		tr.roots(self)
		bounded(t, func() {
			_, err := tr.walk(t.Context())
			checkError(t, "Walk", err, layout.ErrMismatch)
		})
	})
	t.Run("200 levels", func(t *testing.T) {
		tr := newTree(t)
		desc := tr.image("deep")
		for range 200 {
			desc = tr.index(desc)
		}
		tr.roots(desc)
		bounded(t, func() {
			_, err := tr.walk(t.Context())
			checkError(t, "Walk", err, layout.ErrInvalid)
			checkError(t, "Verify", tr.verify(t.Context()), layout.ErrInvalid)
		})
	})
	t.Run("a chain of 200 subjects", func(t *testing.T) {
		tr := newTree(t)
		desc := tr.image("first")
		for range 200 {
			m := ocispec.Manifest{MediaType: typeManifest, Config: tr.blob("application/vnd.oci.empty.v1+json", "{}"), Layers: []ocispec.Descriptor{}, Subject: &desc}
			m.SchemaVersion = 2
			desc = tr.blob(typeManifest, encode(m))
		}
		tr.roots(desc)
		bounded(t, func() {
			// A chain of signatures of signatures: within the limit or refused, but never silently cut off.
			if n, err := tr.walk(t.Context()); !errors.Is(err, layout.ErrInvalid) && n < 200 {
				t.Errorf("Walk = %d nodes, %v", n, err)
			}
		})
	})
	for name, missing := range map[string]func(tr *tree) ocispec.Descriptor{
		"root":   func(*tree) ocispec.Descriptor { return ocispec.Descriptor{} },
		"config": func(tr *tree) ocispec.Descriptor { return tr.blob(typeConfig, "{}") },
		"layer":  func(tr *tree) ocispec.Descriptor { return tr.blob(typeLayer, "layer") },
	} {
		t.Run("missing "+name, func(t *testing.T) {
			tr := newTree(t)
			gone := missing(tr)
			root := tr.manifest(tr.blob(typeConfig, "{}"), tr.blob(typeLayer, "layer"))
			if gone.Digest == "" {
				gone = root
			}
			tr.roots(tr.index(root))
			if err := os.Remove(tr.path("blobs/sha256/" + gone.Digest.Encoded())); err != nil {
				t.Fatal(err)
			}
			bounded(t, func() {
				err := tr.verify(t.Context())
				checkError(t, "Verify", err, layout.ErrNotFound)
				if err != nil && !strings.Contains(err.Error(), gone.Digest.Encoded()) {
					t.Errorf("the message does not name the blob: %v", err)
				}
			})
		})
	}
	t.Run("limits of a walk", func(t *testing.T) {
		tr := newTree(t)
		var images []ocispec.Descriptor
		for i := range 20 {
			images = append(images, tr.image(encode(i)))
		}
		tr.roots(tr.index(images...))
		l, err := tr.open(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		x, err := l.Index(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got error
		for _, err := range layout.Walk(t.Context(), l, x.Entries(), &layout.WalkOptions{MaxDocuments: 10}) {
			if err != nil {
				got = err
				break
			}
		}
		checkError(t, "Walk of 21 documents with a limit of 10", got, layout.ErrInvalid)
	})
}

// Canceled contexts end a read in the middle and a walk.
func TestHostileCancel(t *testing.T) {
	tr := newTree(t)
	desc := tr.blob(typeLayer, strings.Repeat("x", 1<<20))
	tr.roots(tr.manifest(tr.blob(typeConfig, "{}"), desc))
	l, err := tr.open(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	rc, err := l.Blob(ctx, desc)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	if _, err := io.ReadFull(rc, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.Copy(io.Discard, rc); !errors.Is(err, context.Canceled) {
		t.Errorf("read after cancel = %v", err)
	}
	if _, err := layout.Verify(ctx, l, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Verify after cancel = %v", err)
	}
}
