package delta_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/archive"
	"github.com/gardenlinux/gloci-layout/layout/delta"
	"github.com/gardenlinux/gloci-layout/layout/sourcetest"
)

func must(t rapid.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func info(content string) layout.BlobInfo {
	return layout.BlobInfo{Digest: digest.FromString(content), Size: int64(len(content))}
}

// split takes every second blob of the layout in dir away to another directory,
// and returns an archive of the rest that is a delta to that, both with their
// files as they are.
func split(t *testing.T, dir string) (*archive.Archive, *layout.Layout) {
	t.Helper()
	base := filepath.Join(t.TempDir(), "base")
	must(t, os.CopyFS(base, os.DirFS(dir)))
	index, err := os.ReadFile(filepath.Join(dir, "index.json"))
	must(t, err)
	d := &delta.Description{Index: layout.BlobInfo{Digest: digest.FromBytes(index), Size: int64(len(index))}}
	var blobs []string
	_ = fs.WalkDir(os.DirFS(dir), "blobs", func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			blobs = append(blobs, name)
		}
		return nil
	})
	slices.Sort(blobs)
	for i, name := range blobs {
		parts := strings.Split(name, "/")
		want := digest.Digest(parts[1] + ":" + parts[2])
		if _, err := layout.ParseDigest(string(want)); err != nil || i%2 == 0 {
			must(t, os.Remove(filepath.Join(base, name)))
			continue
		}
		st, err := os.Stat(filepath.Join(dir, name))
		must(t, err)
		d.Expected = append(d.Expected, layout.BlobInfo{Digest: want, Size: st.Size()})
		must(t, os.Remove(filepath.Join(dir, name)))
	}
	must(t, os.WriteFile(filepath.Join(base, "index.json"), layout.NewIndex().Bytes(), 0o644))
	must(t, os.Mkdir(filepath.Join(dir, "gloci-delta"), 0o755))
	raw := d.Bytes()
	must(t, os.WriteFile(filepath.Join(dir, "gloci-delta", digest.FromBytes(raw).Encoded()+".json"), raw, 0o644))
	var out bytes.Buffer
	tw := tar.NewWriter(&out)
	must(t, tw.AddFS(os.DirFS(dir)))
	must(t, tw.Close())
	a, err := archive.OpenReader(t.Context(), &out, "delta.oci", nil)
	must(t, err)
	t.Cleanup(func() { a.Close() })
	l, err := layout.Open(t.Context(), base, nil)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return a, l
}

// A delta and its base keep the guarantees of a source.
func TestIsSource(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T, dir string) layout.Source {
		a, base := split(t, dir)
		src, err := delta.Open(t.Context(), a, base)
		must(t, err)
		return src
	})
}

// A blob that the base has and the whole has not is none of the whole.
func TestHidesTheBase(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "l")
	sourcetest.Write(t, dir)
	a, base := split(t, dir)
	s, err := base.Stage(t.Context())
	must(t, err)
	more, err := s.AddBytes(t.Context(), []byte("more"), "a/b")
	must(t, err)
	must(t, s.Update(t.Context(), func(*layout.Tx) error { return nil }))
	must(t, s.Close())
	src, err := delta.Open(t.Context(), a, base)
	must(t, err)
	if _, err := src.Blob(t.Context(), more); !errors.Is(err, layout.ErrNotFound) {
		t.Errorf("a blob that only the base has: %v, want ErrNotFound", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "l")
	sourcetest.Write(t, dir)
	a, base := split(t, dir)
	needs := a.Delta().Needs()
	empty, err := layout.Create(t.Context(), filepath.Join(t.TempDir(), "empty"), nil)
	must(t, err)
	t.Cleanup(func() { empty.Close() })
	_, err = delta.Open(t.Context(), a, empty)
	be := new(delta.BaseError)
	if !errors.Is(err, layout.ErrNotFound) || !errors.As(err, &be) || !slices.Equal(be.Missing, needs) {
		t.Errorf("an empty base: %v, want a BaseError with all of %v", err, needs)
	}
	// One blob is gone, another has lost its last byte.
	must(t, os.Remove(filepath.Join(base.Dir(), layout.BlobPath(needs[0].Digest))))
	must(t, os.Truncate(filepath.Join(base.Dir(), layout.BlobPath(needs[1].Digest)), needs[1].Size-1))
	if _, err = delta.Open(t.Context(), a, base); !errors.As(err, &be) || !slices.Equal(be.Missing, needs[:2]) {
		t.Errorf("a base without two blobs: %v, want a BaseError with %v", err, needs[:2])
	}
	if _, err := delta.Open(t.Context(), a, empty, base); !errors.As(err, &be) || !slices.Equal(be.Missing, needs[:2]) {
		t.Errorf("two bases: %v, want a BaseError with %v", err, needs[:2])
	}
	whole, err := archive.OpenReader(t.Context(), packed(t.Context(), t, empty, nil), "whole.oci", nil)
	must(t, err)
	t.Cleanup(func() { whole.Close() })
	if _, err := delta.Open(t.Context(), whole, base); !errors.Is(err, layout.ErrInvalid) {
		t.Errorf("an archive that is no delta: %v, want ErrInvalid", err)
	}
}

func packed(ctx context.Context, t rapid.TB, src layout.Source, opts *archive.PackOptions) *bytes.Buffer {
	t.Helper()
	var out bytes.Buffer
	must(t, archive.Pack(ctx, src, &out, opts))
	return &out
}

// What is written is read, and nothing else is.
func TestDocuments(t *testing.T) {
	a, b, c := info("a"), info("b"), info("c")
	list := []layout.BlobInfo{a, b}
	slices.SortFunc(list, func(a, b layout.BlobInfo) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	v := &delta.Inventory{Indexes: []layout.BlobInfo{c}, Blobs: list}
	again, err := delta.ParseInventory(v.Bytes())
	must(t, err)
	if !bytes.Equal(again.Bytes(), v.Bytes()) || !again.Has(ocispec.Descriptor{Digest: a.Digest, Size: 1}) || again.Has(ocispec.Descriptor{Digest: a.Digest, Size: 2}) {
		t.Errorf("an inventory became %s", again.Bytes())
	}
	d := &delta.Description{Index: c, Bases: []layout.BlobInfo{a}, Expected: list, Patches: []delta.Patch{{BlobInfo: c, Base: []layout.BlobInfo{a}, Patch: b}}}
	read, err := delta.Parse(d.Bytes())
	must(t, err)
	if !bytes.Equal(read.Bytes(), d.Bytes()) || !read.Expects(c.Digest) || len(read.Needs()) != 2 {
		t.Errorf("a description became %s", read.Bytes())
	}
	for name, document := range map[string]struct {
		raw   []byte
		parse func(raw []byte) error
	}{
		"inventory":   {v.Bytes(), func(raw []byte) error { _, err := delta.ParseInventory(raw); return err }},
		"description": {d.Bytes(), func(raw []byte) error { _, err := delta.Parse(raw); return err }},
	} {
		text := string(document.raw)
		for _, bad := range []string{
			"", "{}", text[:len(text)-1], text + "\n", strings.TrimSuffix(text, "}\n") + `,"x":1}` + "\n",
			strings.Replace(strings.Replace(text, "v1+json", "v3+json", 1), "v2+json", "v1+json", 1), strings.Replace(text, `"size":1`, `"size":-1`, 1),
			strings.Replace(text, `"size":1`, `"size":1.0`, 1), strings.Replace(text, `"size"`, `"Size"`, 1), strings.Replace(text, ":", ": ", 1),
			strings.Replace(text, string(a.Digest), "sha256:../../x", 1), strings.Replace(text, `"blobs":[{"digest":"`+string(list[0].Digest), `"blobs":[{"digest":"`+string(list[1].Digest), 1),
			strings.Replace(text, string(list[0].Digest), strings.ToUpper(string(list[0].Digest)), 1),
		} {
			if bad == text {
				t.Errorf("%s: a case is none", name)
			}
			if err := document.parse([]byte(bad)); !errors.Is(err, layout.ErrInvalid) {
				t.Errorf("%s %q: error %v, want ErrInvalid", name, bad, err)
			}
		}
	}
	d.Patches[0].BlobInfo = a // expected, and made
	if _, err := delta.Parse(d.Bytes()); !errors.Is(err, layout.ErrInvalid) {
		t.Errorf("a patch for what is expected: %v, want ErrInvalid", err)
	}
}

// What a patch is made of has to be where the description says.
func TestArchiveHasPieces(t *testing.T) {
	index := layout.NewIndex().Bytes()
	blob, made, how := info("blob"), info("made"), info("patch")
	for name, test := range map[string]struct {
		p     delta.Patch
		blobs []string
		want  error // nil: it is opened
	}{
		"own":                    {delta.Patch{BlobInfo: made, Own: []layout.BlobInfo{blob}, Patch: how}, []string{"blob"}, nil},
		"own, missing":           {delta.Patch{BlobInfo: made, Own: []layout.BlobInfo{blob}, Patch: how}, nil, layout.ErrInvalid},
		"own, of another size":   {delta.Patch{BlobInfo: made, Own: []layout.BlobInfo{{Digest: blob.Digest, Size: 3}}, Patch: how}, []string{"blob"}, layout.ErrMismatch},
		"of the base":            {delta.Patch{BlobInfo: made, Base: []layout.BlobInfo{blob}, Patch: how}, nil, nil},
		"of the base, but there": {delta.Patch{BlobInfo: made, Base: []layout.BlobInfo{blob}, Patch: how}, []string{"blob"}, layout.ErrInvalid},
	} {
		d := &delta.Description{Index: layout.BlobInfo{Digest: digest.FromBytes(index), Size: int64(len(index))}, Patches: []delta.Patch{test.p}}
		raw := d.Bytes()
		members := map[string]string{
			"oci-layout": `{"imageLayoutVersion":"1.0.0"}`, "index.json": string(index),
			"gloci-delta/" + digest.FromBytes(raw).Encoded() + ".json": string(raw), "gloci-delta/" + how.Digest.Encoded() + ".patch": "patch",
		}
		for _, content := range test.blobs {
			members[layout.BlobPath(info(content).Digest)] = content
		}
		var out bytes.Buffer
		tw := tar.NewWriter(&out)
		for _, name := range slices.Sorted(maps.Keys(members)) {
			must(t, tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(members[name]))}))
			_, err := tw.Write([]byte(members[name]))
			must(t, err)
		}
		must(t, tw.Close())
		a, err := archive.OpenReader(t.Context(), &out, "delta.oci", nil)
		if err == nil {
			must(t, a.Close())
		}
		if !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}
