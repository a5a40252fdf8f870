// Package sourcetest holds the tests that every [layout.Source] of stored
// content must pass: one set of guarantees, run on a directory and on archives.
package sourcetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// An Opener opens the layout that lies in dir as the source under test: the
// directory itself, or an archive that it makes of its files as they are, also
// of damaged ones. The source lives as long as the test.
type Opener func(t *testing.T, dir string) layout.Source

// Run runs the tests.
func Run(t *testing.T, open Opener) {
	s := suite{open}
	t.Run("Index", s.index)
	t.Run("IndexRefused", s.indexRefused)
	t.Run("Blob", s.blob)
	t.Run("BlobDamaged", s.blobDamaged)
	t.Run("BlobWrongSize", s.blobWrongSize)
	t.Run("BlobMissing", s.blobMissing)
	t.Run("BlobEmbedded", s.blobEmbedded)
	t.Run("Blobs", s.blobs)
	t.Run("Section", s.section)
	t.Run("Walk", s.walk)
	t.Run("Resolve", s.resolve)
	t.Run("Select", s.selects)
	t.Run("Verify", s.verify)
	t.Run("Concurrent", s.concurrent)
	t.Run("Canceled", s.canceled)
}

type suite struct{ open Opener }

// sample opens the sample layout after damage, if not nil, was done to it.
func (s suite) sample(t *testing.T, damage func(dir string, c *Content)) (layout.Source, *Content) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "sample")
	c := Write(t, dir)
	if damage != nil {
		damage(dir, c)
	}
	return s.open(t, dir), c
}

func (s suite) index(t *testing.T) {
	src, c := s.sample(t, nil)
	x, err := src.Index(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := string(x.Bytes()); got != c.Index {
		t.Errorf("index.json = %q, want its exact bytes %q", got, c.Index)
	}
	x.Remove(0)
	clear(x.Bytes())
	again, err := src.Index(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := string(again.Bytes()); got != c.Index {
		t.Errorf("after an edit of the first snapshot, the second = %q", got)
	}
	if src.String() == "" {
		t.Error("String() is empty")
	}
}

func (s suite) indexRefused(t *testing.T) {
	for _, raw := range []string{
		"", "{}", "null", "[]", `{"schemaVersion":2`, `{"schemaVersion":2,"manifests":[],"manifests":[]}`,
		`{"schemaVersion":2,"manifests":[],"Manifests":[]}`, `{"schemaVersion":2,"manifests":[]}x`,
		`{"schemaVersion":2,"manifests":[],"layers":[]}`,
		`{"schemaVersion":2,"manifests":[{"mediaType":"a/b","digest":"sha256:../../x","size":1}]}`,
		"\ufeff" + `{"schemaVersion":2,"manifests":[]}`,
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "index.json"), raw)
		write(t, filepath.Join(dir, "oci-layout"), `{"imageLayoutVersion":"1.0.0"}`)
		src := s.open(t, dir)
		if _, err := src.Index(t.Context()); !errors.Is(err, layout.ErrInvalid) {
			t.Errorf("index.json %q: error %v, want ErrInvalid", raw, err)
		}
	}
}

func (s suite) blob(t *testing.T) {
	src, c := s.sample(t, nil)
	for d, want := range c.Stored {
		got, err := Read(t.Context(), src, ocispec.Descriptor{MediaType: "a/b", Digest: d, Size: int64(len(want))})
		if err != nil {
			t.Errorf("Blob(%s): %v", d, err)
		}
		if got != want {
			t.Errorf("Blob(%s) = %.40q, want %.40q", d, got, want)
		}
	}
}

func (s suite) blobDamaged(t *testing.T) {
	for name, damage := range map[string]func(b []byte) []byte{
		"first bit":  func(b []byte) []byte { b[0] ^= 1; return b },
		"last bit":   func(b []byte) []byte { b[len(b)-1] ^= 0x80; return b },
		"short":      func(b []byte) []byte { return b[:len(b)-1] },
		"long":       func(b []byte) []byte { return append(b, 0) },
		"much long":  func(b []byte) []byte { return append(b, b...) },
		"empty":      func([]byte) []byte { return nil },
		"other same": func(b []byte) []byte { return bytes.Repeat([]byte("x"), len(b)) },
	} {
		t.Run(name, func(t *testing.T) {
			src, c := s.sample(t, func(dir string, c *Content) {
				for _, desc := range []ocispec.Descriptor{c.Layer, c.Large} {
					write(t, path(dir, desc.Digest), string(damage([]byte(c.Stored[desc.Digest]))))
				}
			})
			for _, desc := range []ocispec.Descriptor{c.Layer, c.Large} {
				got, err := Read(t.Context(), src, desc)
				if !errors.Is(err, layout.ErrMismatch) {
					t.Errorf("Blob(%s): error %v, want ErrMismatch", desc.Digest, err)
				}
				if be := new(layout.BlobError); !errors.As(err, &be) || be.Desc.Digest != desc.Digest {
					t.Errorf("Blob(%s): %v does not name the blob", desc.Digest, err)
				}
				if int64(len(got)) > desc.Size {
					t.Errorf("Blob(%s) gave %d bytes of %d", desc.Digest, len(got), desc.Size)
				}
				if _, err := layout.ReadAll(t.Context(), src, desc, 64<<20); !errors.Is(err, layout.ErrMismatch) {
					t.Errorf("ReadAll(%s): error %v, want ErrMismatch", desc.Digest, err)
				}
			}
		})
	}
}

func (s suite) blobWrongSize(t *testing.T) {
	src, c := s.sample(t, nil)
	for _, size := range []int64{0, 1, c.Layer.Size - 1, c.Layer.Size + 1, 1 << 40} {
		desc := c.Layer
		desc.Size = size
		if got, err := Read(t.Context(), src, desc); !errors.Is(err, layout.ErrMismatch) || int64(len(got)) > size {
			t.Errorf("size %d, %d bytes stored: gave %d bytes and %v, want ErrMismatch", size, c.Layer.Size, len(got), err)
		}
	}
	desc := c.Layer
	desc.Size = -1
	if _, err := Read(t.Context(), src, desc); !errors.Is(err, layout.ErrInvalid) {
		t.Errorf("size -1: error %v, want ErrInvalid", err)
	}
	if _, err := layout.ReadAll(t.Context(), src, c.Layer, c.Layer.Size-1); !errors.Is(err, layout.ErrInvalid) {
		t.Errorf("ReadAll over its limit: error %v, want ErrInvalid", err)
	}
}

func (s suite) blobMissing(t *testing.T) {
	src, c := s.sample(t, nil)
	for _, d := range []digest.Digest{digest.FromString("nothing"), digest.SHA512.FromString("nothing")} {
		if _, err := Read(t.Context(), src, ocispec.Descriptor{Digest: d, Size: 7}); !errors.Is(err, layout.ErrNotFound) {
			t.Errorf("Blob(%s): error %v, want ErrNotFound", d, err)
		}
		if _, err := src.Stat(t.Context(), d); !errors.Is(err, layout.ErrNotFound) {
			t.Errorf("Stat(%s): error %v, want ErrNotFound", d, err)
		}
		if sec, ok := src.(layout.Sectioner); ok {
			if _, _, _, err := sec.Section(t.Context(), d); !errors.Is(err, layout.ErrNotFound) {
				t.Errorf("Section(%s): error %v, want ErrNotFound", d, err)
			}
		}
	}
	hex := c.Layer.Digest.Encoded()
	for _, d := range []digest.Digest{
		"", "sha256:", "sha256:../../index.json", "sha256:../sha256/" + digest.Digest(hex), "oci-layout",
		digest.Digest("sha256:" + strings.ToUpper(hex)), digest.Digest("sha384:" + hex), digest.Digest("sha256:" + hex + "/"),
		digest.Digest("sha256:" + hex[1:]),
	} {
		if _, err := Read(t.Context(), src, ocispec.Descriptor{Digest: d, Size: c.Layer.Size}); !errors.Is(err, layout.ErrInvalid) {
			t.Errorf("Blob(%q): error %v, want ErrInvalid", d, err)
		}
		if _, err := src.Stat(t.Context(), d); !errors.Is(err, layout.ErrInvalid) {
			t.Errorf("Stat(%q): error %v, want ErrInvalid", d, err)
		}
	}
}

func (s suite) blobEmbedded(t *testing.T) {
	src, c := s.sample(t, func(dir string, c *Content) { write(t, path(dir, c.Layer.Digest), "damaged") })
	absent := []byte("not stored")
	for _, tt := range []struct {
		name string
		desc ocispec.Descriptor
		want error
	}{
		{"not stored", ocispec.Descriptor{Digest: digest.FromBytes(absent), Size: int64(len(absent)), Data: absent}, nil},
		{"stored damaged", ocispec.Descriptor{Digest: c.Layer.Digest, Size: c.Layer.Size, Data: []byte(c.Stored[c.Layer.Digest])}, nil},
		{"empty", ocispec.Descriptor{Digest: digest.FromString(""), Size: 0, Data: []byte{}}, nil},
		{"other bytes", ocispec.Descriptor{Digest: c.Config.Digest, Size: c.Config.Size, Data: bytes.Repeat([]byte(" "), int(c.Config.Size))}, layout.ErrMismatch},
		{"short", ocispec.Descriptor{Digest: c.Config.Digest, Size: c.Config.Size, Data: []byte("{")}, layout.ErrMismatch},
		{"long", ocispec.Descriptor{Digest: c.Config.Digest, Size: c.Config.Size, Data: []byte(c.Stored[c.Config.Digest] + " ")}, layout.ErrMismatch},
	} {
		got, err := Read(t.Context(), src, tt.desc)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.want)
		}
		if tt.want == nil && got != string(tt.desc.Data) {
			t.Errorf("%s: read %q, want %q", tt.name, got, tt.desc.Data)
		}
	}
}

func (s suite) blobs(t *testing.T) {
	src, c := s.sample(t, nil)
	var want []layout.BlobInfo
	for d, data := range c.Stored {
		want = append(want, layout.BlobInfo{Digest: d, Size: int64(len(data))})
	}
	slices.SortFunc(want, func(a, b layout.BlobInfo) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	var got []layout.BlobInfo
	for info, err := range src.Blobs(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, info)
		if stat, err := src.Stat(t.Context(), info.Digest); err != nil || stat != info {
			t.Errorf("Stat(%s) = %v, %v; want %v", info.Digest, stat, err, info)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Blobs (-want +got):\n%s", diff)
	}
	for _, err := range src.Blobs(t.Context()) {
		if err != nil {
			t.Error(err)
		}
		break // must not yield again
	}
}

func (s suite) section(t *testing.T) {
	src, c := s.sample(t, nil)
	sec, ok := src.(layout.Sectioner)
	if !ok {
		t.Skip("not a Sectioner")
	}
	type section struct {
		f    *os.File
		off  int64
		want string
	}
	var sections []section
	for d, want := range c.Stored {
		f, off, size, err := sec.Section(t.Context(), d)
		if errors.Is(err, errors.ErrUnsupported) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close() //nolint:errcheck // only read
		if size != int64(len(want)) {
			t.Errorf("Section(%s): size %d, want %d", d, size, len(want))
		}
		sections = append(sections, section{f, off, want})
	}
	// Each file has an offset of its own.
	for _, s := range sections {
		if _, err := s.f.Seek(s.off, io.SeekStart); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range sections {
		got := make([]byte, len(s.want))
		if _, err := io.ReadFull(s.f, got); err != nil || string(got) != s.want {
			t.Errorf("section at %d: %.40q, %v; want %.40q", s.off, got, err, s.want)
		}
	}
}

func (s suite) walk(t *testing.T) {
	src, c := s.sample(t, func(dir string, c *Content) {
		if err := os.Remove(path(dir, c.Attached.Digest)); err != nil {
			t.Fatal(err)
		}
	})
	x, err := src.Index(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []digest.Digest
	for n, err := range layout.Walk(t.Context(), src, x.Entries(), &layout.WalkOptions{KeepGoing: true}) {
		if missing := n.Desc.Digest == c.Attached.Digest; missing != errors.Is(err, layout.ErrNotFound) {
			t.Errorf("Walk: %s: error %v", n.Desc.Digest, err)
		}
		got = append(got, n.Desc.Digest)
	}
	if diff := cmp.Diff(c.Reachable, got); diff != "" {
		t.Errorf("Walk (-want +got):\n%s", diff)
	}
}

func (s suite) resolve(t *testing.T) {
	src, c := s.sample(t, nil)
	for _, tt := range []struct {
		refName string
		d       digest.Digest
		want    digest.Digest
		err     error
	}{
		{"app", "", c.App.Digest, nil},
		{"1.0", "", c.Artifact.Digest, nil},
		{"registry.example.com/app:1.0", "", c.Artifact.Digest, nil},
		{"", c.ARM64.Digest, c.ARM64.Digest, nil},
		{"app", c.ARM64.Digest, c.ARM64.Digest, nil},
		{"nothing", "", "", layout.ErrNotFound},
		{"", digest.FromString("nothing"), "", layout.ErrNotFound},
		{"", "", "", layout.ErrAmbiguous},
	} {
		desc, err := layout.ResolveOne(t.Context(), src, tt.refName, tt.d)
		if !errors.Is(err, tt.err) || desc.Digest != tt.want {
			t.Errorf("ResolveOne(%q, %q) = %s, %v; want %s, %v", tt.refName, tt.d, desc.Digest, err, tt.want, tt.err)
		}
	}
}

func (s suite) selects(t *testing.T) {
	src, c := s.sample(t, nil)
	x, err := src.Index(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		sel  layout.Selector
		want []digest.Digest
	}{
		{"all", layout.Selector{}, []digest.Digest{c.AMD64.Digest, c.ARM64.Digest, c.Artifact.Digest, c.Attached.Digest}},
		{"platform", layout.Selector{Platform: &ocispec.Platform{OS: "linux", Architecture: "arm64"}}, []digest.Digest{c.ARM64.Digest}},
		{"artifact type", layout.Selector{ArtifactType: "application/x.thing"}, []digest.Digest{c.Artifact.Digest}},
		{"digest prefix", layout.Selector{Digest: c.AMD64.Digest.Encoded()[:12]}, []digest.Digest{c.AMD64.Digest}},
		{"nothing", layout.Selector{ArtifactType: "application/x.nothing"}, nil},
	} {
		ms, err := layout.Select(t.Context(), src, x.Entries(), tt.sel)
		if err != nil && tt.want != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		var got []digest.Digest
		for _, m := range ms {
			got = append(got, m.Desc.Digest)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("Select %s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func (s suite) verify(t *testing.T) {
	src, c := s.sample(t, nil)
	res, err := layout.Verify(t.Context(), src, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Findings) > 0 {
		t.Errorf("a sound layout: %v", res.Findings)
	}
	if res.Blobs != len(c.Stored) {
		t.Errorf("Verify hashed %d blobs of %d", res.Blobs, len(c.Stored))
	}
	src, c = s.sample(t, func(dir string, c *Content) {
		b := []byte(c.Stored[c.Large.Digest])
		b[len(b)/2] ^= 1
		write(t, path(dir, c.Large.Digest), string(b))
		if err := os.Remove(path(dir, c.Layer.Digest)); err != nil {
			t.Fatal(err)
		}
	})
	res, err = layout.Verify(t.Context(), src, nil)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[digest.Digest]string{}
	for _, f := range res.Findings {
		kinds[f.Digest] = f.Kind
	}
	want := map[digest.Digest]string{c.Large.Digest: layout.FindingDigest, c.Layer.Digest: layout.FindingMissing}
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}

func (s suite) concurrent(t *testing.T) {
	src, c := s.sample(t, nil)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for d, want := range c.Stored {
				got, err := Read(t.Context(), src, ocispec.Descriptor{Digest: d, Size: int64(len(want))})
				if err != nil || got != want {
					t.Errorf("Blob(%s): %d bytes, %v", d, len(got), err)
				}
				if _, err := src.Stat(t.Context(), d); err != nil {
					t.Errorf("Stat(%s): %v", d, err)
				}
			}
			if _, err := src.Index(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func (s suite) canceled(t *testing.T) {
	src, c := s.sample(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	rc, err := src.Blob(ctx, c.Large)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close() //nolint:errcheck // only read
	if _, err := io.ReadFull(rc, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if n, err := io.Copy(io.Discard, rc); !errors.Is(err, context.Canceled) {
		t.Errorf("read on after cancel: %d bytes, error %v, want context.Canceled", n, err)
	}
	if _, err := Read(ctx, src, c.Layer); !errors.Is(err, context.Canceled) {
		t.Errorf("Blob after cancel: error %v, want context.Canceled", err)
	}
	if _, err := src.Index(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Index after cancel: error %v, want context.Canceled", err)
	}
	for _, err := range src.Blobs(ctx) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Blobs after cancel: error %v, want context.Canceled", err)
		}
	}
}

// Read returns what src gives for desc, and how reading it ended.
func Read(ctx context.Context, src layout.Source, desc ocispec.Descriptor) (string, error) {
	rc, err := src.Blob(ctx, desc)
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(rc)
	return string(data), errors.Join(err, rc.Close())
}
