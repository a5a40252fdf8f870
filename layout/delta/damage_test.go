package delta_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/archive"
	"github.com/gardenlinux/gloci-layout/layout/delta"
)

// artifact stages a manifest with the layers, and returns its descriptor.
func artifact(ctx context.Context, t rapid.TB, s *layout.Stage, layers ...string) ocispec.Descriptor {
	t.Helper()
	raw := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"data":"e30="},"layers":[`
	for i, content := range layers {
		desc, err := s.AddBytes(ctx, []byte(content), "application/octet-stream")
		must(t, err)
		if i > 0 {
			raw += ","
		}
		raw += fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, desc.MediaType, desc.Digest, desc.Size)
	}
	desc, err := s.AddBytes(ctx, []byte(raw+"]}\n"), ocispec.MediaTypeImageManifest)
	must(t, err)
	_, err = s.AddBytes(ctx, []byte("{}"), "application/vnd.oci.empty.v1+json")
	must(t, err)
	return desc
}

// newLayout makes a layout in dir; each element of artifacts is the layers of
// one.
func newLayout(t rapid.TB, dir string, artifacts ...[]string) *layout.Layout {
	t.Helper()
	ctx := context.Background()
	l, err := layout.Create(ctx, dir, nil)
	must(t, err)
	s, err := l.Stage(ctx)
	must(t, err)
	var descs []ocispec.Descriptor
	for i, layers := range artifacts {
		desc := artifact(ctx, t, s, layers...)
		desc.Annotations = map[string]string{ocispec.AnnotationRefName: fmt.Sprintf("ref-%d", i)}
		descs = append(descs, desc)
	}
	must(t, s.Update(ctx, func(tx *layout.Tx) error {
		for _, desc := range descs {
			tx.Index().Add(desc)
		}
		tx.Index().Sort()
		return nil
	}))
	must(t, s.Close())
	return l
}

// files returns the files below dir, the working files apart.
func files(t rapid.TB, dir string) map[string]string {
	t.Helper()
	m := map[string]string{}
	must(t, fs.WalkDir(os.DirFS(dir), ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil && name == ".gloci" {
			return fs.SkipDir
		}
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, name))
		m[name] = string(data)
		return err
	}))
	return m
}

// memory is a directory in memory, or "": thousands of small files are made.
var memory = func() string {
	if f, err := os.CreateTemp("/dev/shm", "gloci-delta-"); err == nil && errors.Join(f.Close(), os.Remove(f.Name())) == nil {
		return "/dev/shm"
	}
	return ""
}()

// sound tells whether file is a delta that nothing is wrong with, by itself.
func sound(ctx context.Context, file string) bool {
	a, err := archive.Open(ctx, file, nil)
	if err != nil {
		return false
	}
	defer a.Close()
	if a.Delta() == nil {
		return false
	}
	res, err := layout.Verify(ctx, a, &layout.VerifyOptions{Jobs: 1})
	return err == nil && len(res.Findings) == 0
}

// Every flipped bit and every truncation of a delta is found, without its base.
func TestEveryDamageIsFound(t *testing.T) {
	ctx := t.Context()
	base := newLayout(t, filepath.Join(t.TempDir(), "base"), []string{"one", "two"})
	whole := newLayout(t, filepath.Join(t.TempDir(), "whole"), []string{"one", "two"}, []string{"one", "three"})
	v, err := delta.Take(ctx, base)
	must(t, err)
	raw := packed(ctx, t, whole, &archive.PackOptions{Base: v}).Bytes()
	checkDamage(t, raw)
	if testing.Short() {
		return
	}
	// With a patch: every layer is the same but for one byte.
	old := newLayout(t, filepath.Join(t.TempDir(), "old"), []string{large(0)})
	next := newLayout(t, filepath.Join(t.TempDir(), "next"), []string{large(1)})
	v, err = delta.Take(ctx, old)
	must(t, err)
	raw = packed(ctx, t, next, &archive.PackOptions{Base: v, Bases: []layout.Source{old}}).Bytes()
	if !bytes.Contains(raw, []byte(".patch")) {
		t.Fatal("the delta has no patch")
	}
	checkDamage(t, raw)
	// With a patch of a blob of the delta that is a patch itself.
	next = newLayout(t, filepath.Join(t.TempDir(), "more"), []string{large(1) + news(1)}, []string{"more", large(1)[:9000] + news(1) + "."})
	raw = packed(ctx, t, next, &archive.PackOptions{Base: v, Bases: []layout.Source{old}}).Bytes()
	if !bytes.Contains(raw, []byte(`"own":[{`)) {
		t.Fatal("no patch is made of a blob of the delta")
	}
	checkDamage(t, raw)
}

// news returns random bytes.
func news(seed byte) string {
	b := make([]byte, 6000)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return string(b)
}

// What is new in several blobs is in the delta once, whether the first of them is
// stored whole or as a patch.
func TestPatchOfOwn(t *testing.T) {
	ctx := t.Context()
	old := newLayout(t, filepath.Join(t.TempDir(), "old"), []string{large(0), large(0) + "b", large(0) + "c"})
	kernel := news(1) + news(2) + news(3)
	layers := []string{
		large(1) + kernel + "a", large(0) + kernel + "b", kernel + large(0) + "c",
		kernel, // without a predecessor
	}
	next := newLayout(t, filepath.Join(t.TempDir(), "next"), layers)
	v, err := delta.Take(ctx, old)
	must(t, err)
	raw := packed(ctx, t, next, &archive.PackOptions{Base: v, Bases: []layout.Source{old}})
	if n := raw.Len(); n > len(kernel)+15_000 {
		t.Errorf("the delta has %d bytes, want little more than the %d that are new", n, len(kernel))
	}
	d, err := archive.OpenReader(ctx, raw, "delta.oci", nil)
	must(t, err)
	defer d.Close()
	if n := len(d.Delta().Patches); n != 3 {
		t.Errorf("%d patches, want 3", n)
	}
	if needs := d.Delta().Needs(); len(needs) == 0 || slices.ContainsFunc(needs, func(i layout.BlobInfo) bool { return i.Digest == info(kernel).Digest }) {
		t.Errorf("the base must have %v", needs)
	}
	src, err := delta.Open(ctx, d, old)
	must(t, err)
	for range 2 { // what is needed twice is kept
		if res, err := layout.Verify(ctx, src, nil); err != nil || len(res.Findings) > 0 {
			t.Errorf("Verify: %v, %v", res, err)
		}
	}
	must(t, src.Release())
	for _, content := range layers[:3] {
		rc, err := src.Blob(ctx, ocispec.Descriptor{Digest: info(content).Digest, Size: int64(len(content))})
		if err == nil {
			_, err = io.Copy(io.Discard, rc)
			err = errors.Join(err, rc.Close())
		}
		if err != nil && !errors.Is(err, os.ErrClosed) {
			t.Errorf("after Release: %v", err)
		}
	}
	must(t, archive.Unpack(ctx, d, old.Dir(), nil))
	for _, content := range layers {
		if got := files(t, old.Dir())[layout.BlobPath(info(content).Digest)]; got != content {
			t.Errorf("unpacked are %d bytes, want %d", len(got), len(content))
		}
	}
}

// Patches that need one another in a circle, or too many in a row, are refused,
// and so is whatever else no writer makes.
func TestPieces(t *testing.T) {
	a, b, c, x := info("a"), info("b"), info("c"), info("x")
	type list = []layout.BlobInfo
	many := &delta.Description{Index: x}
	var row []layout.BlobInfo
	for i := range delta.MaxPieces + 1 {
		row = append(row, info(fmt.Sprint("row", i)))
	}
	for i, r := range row {
		p := delta.Patch{BlobInfo: r, Base: list{a}, Patch: x}
		if i > 0 {
			p.Base, p.Own = nil, list{row[i-1]}
		}
		many.Patches = append(many.Patches, p)
	}
	one := func(patches ...delta.Patch) *delta.Description {
		return &delta.Description{Index: x, Expected: list{c}, Patches: patches}
	}
	other := layout.BlobInfo{Digest: b.Digest, Size: 7}
	for name, test := range map[string]struct {
		d  *delta.Description
		ok bool
	}{
		"of the base":            {one(delta.Patch{BlobInfo: a, Base: list{b}, Patch: x}), true},
		"of what is expected":    {one(delta.Patch{BlobInfo: a, Base: list{c}, Patch: x}), true},
		"of both":                {one(delta.Patch{BlobInfo: a, Base: list{c}, Own: list{b}, Patch: x}), true},
		"of a patch":             {one(delta.Patch{BlobInfo: a, Own: list{b}, Patch: x}, delta.Patch{BlobInfo: b, Base: list{c}, Patch: x}), true},
		"of nothing":             {one(delta.Patch{BlobInfo: a, Patch: x}), false},
		"of itself":              {one(delta.Patch{BlobInfo: a, Own: list{a}, Patch: x}), false},
		"of itself, in the base": {one(delta.Patch{BlobInfo: a, Base: list{a}, Patch: x}), false},
		"of one twice":           {one(delta.Patch{BlobInfo: a, Base: list{b}, Own: list{b}, Patch: x}), false},
		"own, but expected":      {one(delta.Patch{BlobInfo: a, Own: list{c}, Patch: x}), false},
		"of another size":        {one(delta.Patch{BlobInfo: a, Own: list{other}, Patch: x}, delta.Patch{BlobInfo: b, Base: list{c}, Patch: x}), false},
		"in a circle":            {one(delta.Patch{BlobInfo: a, Own: list{b}, Patch: x}, delta.Patch{BlobInfo: b, Base: list{c}, Own: list{a}, Patch: x}), false},
		"of 16":                  {one(delta.Patch{BlobInfo: a, Base: row[1:], Patch: x}), true},
		"of 17":                  {one(delta.Patch{BlobInfo: a, Base: row, Patch: x}), false},
		"of too much":            {one(delta.Patch{BlobInfo: a, Base: list{{Digest: b.Digest, Size: 1 << 60}, {Digest: x.Digest, Size: 1}}, Patch: x}), false},
		"17 in a row":            {many, false},
		"16 in a row":            {&delta.Description{Index: x, Patches: many.Patches[:delta.MaxPieces]}, true},
	} {
		d := test.d
		d.Patches = slices.Clone(d.Patches)
		slices.SortFunc(d.Patches, func(a, b delta.Patch) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
		if _, err := delta.Parse(d.Bytes()); (err == nil) != test.ok || err != nil && !errors.Is(err, layout.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A layer that changed little is a patch, and is made again.
func TestPatch(t *testing.T) {
	ctx := t.Context()
	old := newLayout(t, filepath.Join(t.TempDir(), "old"), []string{large(0)})
	next := newLayout(t, filepath.Join(t.TempDir(), "next"), []string{large(1)})
	v, err := delta.Take(ctx, old)
	must(t, err)
	raw := packed(ctx, t, next, &archive.PackOptions{Base: v, Bases: []layout.Source{old}})
	d, err := archive.OpenReader(ctx, raw, "delta.oci", nil)
	must(t, err)
	defer d.Close()
	patches := d.Delta().Patches
	if len(patches) != 1 || patches[0].Size != int64(len(large(1))) || patches[0].Patch.Size > 200 {
		t.Fatalf("the patches are %v, want one of few bytes", patches)
	}
	must(t, archive.Unpack(ctx, d, old.Dir(), nil))
	if got := files(t, old.Dir())[layout.BlobPath(patches[0].Digest)]; got != large(1) {
		t.Errorf("the patch made %d bytes, want %d others", len(got), len(large(1)))
	}
}

// large returns a layer that differs from the others in a few places.
func large(n int) string {
	var b bytes.Buffer
	for i := range 3000 {
		v := i * i * 7919
		if i%1000 == 10 {
			v += n
		}
		fmt.Fprintf(&b, "%x ", v)
	}
	return b.String()
}

func checkDamage(t *testing.T, raw []byte) {
	t.Helper()
	ctx := t.Context()
	f, err := os.CreateTemp(memory, "gloci-delta-")
	must(t, err)
	defer os.Remove(f.Name())
	defer f.Close()
	write := func(b byte, at int) {
		_, err := f.WriteAt([]byte{b}, int64(at))
		must(t, err)
	}
	_, err = f.Write(raw)
	must(t, err)
	if !sound(ctx, f.Name()) {
		t.Fatal("the delta is not sound as it is")
	}
	for i := range raw {
		if raw[i] == 0 && i%32 != 0 {
			continue // of padding, one bit of each 32 bytes will do
		}
		write(raw[i]^1<<(i%8), i)
		if sound(ctx, f.Name()) {
			t.Errorf("bit %d of byte %d is flipped (%q), and all is sound", i%8, i, raw[max(0, i-20):min(len(raw), i+20)])
		}
		write(raw[i], i)
	}
	for n := len(raw) - 1; n >= 0; n-- {
		must(t, f.Truncate(int64(n)))
		if sound(ctx, f.Name()) {
			t.Errorf("the first %d of %d bytes are sound", n, len(raw))
		}
	}
}

// The delta from A to B makes B out of A, file by file, whatever they are; and
// A itself becomes B.
func TestDeltaProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		dir, err := os.MkdirTemp(memory, "gloci-delta-")
		must(t, err)
		defer os.RemoveAll(dir)
		layers := rapid.SliceOfN(rapid.SampledFrom([]string{
			"", "a", "b", "c", large(1), large(2), large(3), large(3) + news(1), news(1),
			compressed(t, compress.Gzip, large(1)), compressed(t, compress.Gzip, large(2)), compressed(t, compress.Zstd, large(2)), foreign(t, large(1)),
		}), 0, 4)
		artifacts := rapid.SliceOfN(layers, 0, 4)
		a := newLayout(t, filepath.Join(dir, "a"), artifacts.Draw(t, "a")...)
		defer a.Close()
		b := newLayout(t, filepath.Join(dir, "b"), artifacts.Draw(t, "b")...)
		defer b.Close()
		v, err := delta.Take(ctx, a)
		must(t, err)
		po := &archive.PackOptions{Base: v}
		if rapid.Bool().Draw(t, "patches") {
			po.Bases = []layout.Source{a}
		}
		raw := packed(ctx, t, b, po).Bytes()
		if again := packed(ctx, t, b, po).Bytes(); !bytes.Equal(raw, again) {
			t.Fatal("the delta has other bytes the second time")
		}
		open := func() *archive.Archive {
			d, err := archive.OpenReader(ctx, bytes.NewReader(raw), "delta.oci", nil)
			must(t, err)
			return d
		}
		d := open()
		defer d.Close()
		src, err := delta.Open(ctx, d, a)
		must(t, err)
		if again := packed(ctx, t, src, nil).Bytes(); !bytes.Equal(again, packed(ctx, t, b, nil).Bytes()) {
			t.Fatal("the whole is packed to other bytes")
		}
		must(t, archive.Unpack(ctx, src, filepath.Join(dir, "c"), nil))
		want := files(t, b.Dir())
		for name := range want {
			// What no entry reaches is not packed.
			if name == "blobs/sha256/44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a" && len(want) == 3 {
				delete(want, name)
			}
		}
		if diff := cmp.Diff(want, files(t, filepath.Join(dir, "c"))); diff != "" {
			t.Fatalf("unpacked with its base (-want +got):\n%s", diff)
		}
		must(t, archive.Unpack(ctx, open(), a.Dir(), nil))
		after := files(t, a.Dir())
		for name, content := range want {
			if after[name] != content {
				t.Fatalf("unpacked over its base: %s = %q, want %q", name, after[name], content)
			}
		}
		if res, err := layout.Verify(ctx, a, nil); err != nil || len(res.Findings) > 0 {
			t.Fatalf("Verify: %v, %v", res, err)
		}
	})
}
