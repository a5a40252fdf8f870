package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/archive"
	"github.com/gardenlinux/gloci-layout/layout/sourcetest"
)

func packed(t testing.TB, src layout.Source, opts *archive.PackOptions) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := archive.Pack(t.Context(), src, &out, opts); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// sample writes the sample layout.
func sample(t testing.TB) (string, *sourcetest.Content) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "sample")
	return dir, sourcetest.Write(t, dir)
}

// The order, the headers and the bytes are pinned apart, so that a failure says
// which has moved. A change of any is a change for the CHANGELOG.
func TestPackGolden(t *testing.T) {
	dir, c := sample(t)
	l := openDir(t, dir)
	data := packed(t, l, nil)

	headers, content := members(t, data)
	want := []string{"oci-layout", "index.json", "blobs/", "blobs/sha256/"}
	var blobs []string
	for _, d := range c.Reachable {
		blobs = append(blobs, layout.BlobPath(d))
	}
	slices.Sort(blobs)
	want = append(want, blobs[:len(blobs)-1]...)
	want = append(want, "blobs/sha512/", blobs[len(blobs)-1])
	var got []string
	for _, h := range headers {
		got = append(got, h.Name)
		w := tar.Header{Typeflag: tar.TypeReg, Name: h.Name, Size: int64(len(content[h.Name])), Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
		if strings.HasSuffix(h.Name, "/") {
			w.Typeflag, w.Mode = tar.TypeDir, 0o755
		}
		if strings.HasPrefix(h.Name, "blobs/sha512/") && w.Typeflag == tar.TypeReg {
			w.Format, w.PAXRecords = tar.FormatPAX, map[string]string{"path": h.Name}
		}
		if diff := cmp.Diff(w, *h); diff != "" {
			t.Errorf("header of %s (-want +got):\n%s", h.Name, diff)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if content["oci-layout"] != `{"imageLayoutVersion":"1.0.0"}` || content["index.json"] != c.Index {
		t.Errorf("oci-layout = %q, index.json = %q", content["oci-layout"], content["index.json"])
	}
	for _, d := range c.Reachable {
		if content[layout.BlobPath(d)] != c.Stored[d] {
			t.Errorf("content of %s differs", d)
		}
	}
	if len(data)%512 != 0 || !bytes.Equal(data[len(data)-1024:], make([]byte, 1024)) {
		t.Errorf("%d bytes, not ended by two blocks of zeros", len(data))
	}

	for _, tt := range []struct {
		name string
		opts *archive.PackOptions
		want string
	}{
		{"plain", nil, "dee704678a314023745c9309dd137a76188e4b4f6b18cbd4d4b393b2a37290fa"},
		{"all", &archive.PackOptions{All: true}, "b4e77828d6b6d3e9355e622b9f2300c056c246a69009ad5422228ec9a9a0c505"},
		{"time", &archive.PackOptions{Time: time.Unix(1_700_000_000, 999)}, "b91196790e005dce1f14ebe43915928fc2b42656fe7b39ea2b5b19f578a75907"},
		{"one ref name", &archive.PackOptions{RefNames: []string{"1.0"}}, "e848af4c585f745115fa37f0777a4b6dff42b265a4d1887737b2fc40968f55f2"},
		{"one ref name alone", &archive.PackOptions{RefNames: []string{"1.0"}, NoReferrers: true}, "97b98362e78df375ac4e2ea29e9d4027bb64249414c772fd8fca67e1a0c758d1"},
		{"gzip", &archive.PackOptions{Compression: compress.Gzip}, "186c0f9f60b12f14e7b8ec6c482bce9755a666e44856e3c914fd2f480efa2a79"},
		{"zstd", &archive.PackOptions{Compression: compress.Zstd}, "964038e34ee4d359472bd5badbb0a0c93ef5787eee0a84fccac0a9c540e7dc2e"},
	} {
		if got := fmt.Sprintf("%x", sha256.Sum256(packed(t, l, tt.opts))); got != tt.want {
			t.Errorf("%s: sha256 = %s, want %s", tt.name, got, tt.want)
		}
	}
}

// Nothing but the content reaches the bytes.
func TestPackReproducible(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	dir, _ := sample(t)
	// Another copy: files made in another order, with other modes and times.
	other := filepath.Join(t.TempDir(), "other")
	names := slices.Sorted(maps.Keys(files(t, dir)))
	slices.Reverse(names)
	for i, name := range names {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(other, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, data, 0o400), os.Chtimes(file, time.Time{}, time.Unix(int64(i)*1e6, 0))); err != nil {
			t.Fatal(err)
		}
	}
	for _, format := range []compress.Format{compress.None, compress.Gzip, compress.Zstd} {
		opts := &archive.PackOptions{All: true, Compression: format}
		runtime.GOMAXPROCS(1)
		want := packed(t, openDir(t, dir), opts)
		for _, procs := range []int{1, 2, 16} {
			runtime.GOMAXPROCS(procs)
			for name, src := range map[string]layout.Source{"the layout": openDir(t, dir), "its copy": openDir(t, other)} {
				if !bytes.Equal(packed(t, src, opts), want) {
					t.Errorf("%v: %s with %d cores gives other bytes", format, name, procs)
				}
			}
		}
		// Out of an archive it is the same.
		a, err := openBytes(t, want, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(packed(t, a, opts), want) {
			t.Errorf("%v: packing the archive gives other bytes", format)
		}
		// And out of a source that is not a Sectioner.
		if !bytes.Equal(packed(t, struct{ layout.Source }{a}, opts), want) {
			t.Errorf("%v: packing without sections gives other bytes", format)
		}
	}
}

func TestPackRefNames(t *testing.T) {
	dir, c := sample(t)
	l := openDir(t, dir)
	for _, tt := range []struct {
		names []string
		alone bool            // without what refers to it
		want  []digest.Digest // entries
		blobs int
	}{
		{[]string{"app"}, false, []digest.Digest{c.App.Digest}, 8},
		{[]string{"1.0"}, false, []digest.Digest{c.Artifact.Digest, c.Attached.Digest}, 5},
		{[]string{"1.0"}, true, []digest.Digest{c.Artifact.Digest}, 4},
		{[]string{"1.0", "app", "1.0"}, false, []digest.Digest{c.App.Digest, c.Artifact.Digest, c.Attached.Digest}, 12},
		{[]string{"1.0", "app", "1.0"}, true, []digest.Digest{c.App.Digest, c.Artifact.Digest}, 11},
		{[]string{}, false, nil, 0},
	} {
		a, err := openBytes(t, packed(t, l, &archive.PackOptions{RefNames: tt.names, NoReferrers: tt.alone}), nil)
		if err != nil {
			t.Fatal(err)
		}
		x, err := a.Index(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []digest.Digest
		for _, desc := range x.Entries() {
			got = append(got, desc.Digest)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("entries of %q (-want +got):\n%s", tt.names, diff)
		}
		if !strings.Contains(string(x.Bytes()), `"x-unknown"`) {
			t.Errorf("%q: the unknown member of index.json is lost", tt.names)
		}
		res, err := layout.Verify(t.Context(), a, nil)
		if err != nil || len(res.Findings) > 0 || res.Blobs != tt.blobs || res.Unreferenced != 0 {
			t.Errorf("%q: %+v, %v; want %d blobs", tt.names, res, err, tt.blobs)
		}
	}
}

func TestPackRefuses(t *testing.T) {
	dir, c := sample(t)
	path := func(d digest.Digest) string { return filepath.Join(dir, filepath.FromSlash(layout.BlobPath(d))) }
	for _, tt := range []struct {
		name   string
		damage func() error
		opts   *archive.PackOptions
		want   error
	}{
		{"unknown ref name", nil, &archive.PackOptions{RefNames: []string{"app", "nothing"}}, layout.ErrNotFound},
		{"all of some", nil, &archive.PackOptions{RefNames: []string{"app"}, All: true}, layout.ErrInvalid},
		{"before 1970", nil, &archive.PackOptions{Time: time.Unix(-1, 0)}, layout.ErrInvalid},
		{"after 2242", nil, &archive.PackOptions{Time: time.Unix(1<<33, 0)}, layout.ErrInvalid},
		{"level", nil, &archive.PackOptions{Compression: compress.Gzip, Level: 12}, compress.ErrUnsupported},
		{"format", nil, &archive.PackOptions{Compression: compress.Xz}, compress.ErrUnsupported},
		{"missing layer", func() error { return os.Remove(path(c.Layer.Digest)) }, nil, layout.ErrNotFound},
		{"missing manifest", func() error { return os.Remove(path(c.ARM64.Digest)) }, nil, layout.ErrNotFound},
		{"short layer", func() error { return os.Truncate(path(c.Large.Digest), 5) }, nil, layout.ErrMismatch},
		{"flipped layer", func() error { return flip(path(c.Large.Digest)) }, nil, layout.ErrMismatch},
		{"flipped manifest", func() error { return flip(path(c.ARM64.Digest)) }, nil, layout.ErrMismatch},
		{"flipped unreferenced", func() error { return flip(path(c.Unreferenced.Digest)) }, &archive.PackOptions{All: true}, layout.ErrMismatch},
		{"index.json", func() error { return os.WriteFile(filepath.Join(dir, "index.json"), []byte("{}"), 0o644) }, nil, layout.ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c = sourcetest.Write(t, dir)
			if tt.damage != nil {
				if err := tt.damage(); err != nil {
					t.Fatal(err)
				}
			}
			l := openDir(t, dir)
			for name, src := range map[string]layout.Source{"sections": l, "blobs": struct{ layout.Source }{l}} {
				var out bytes.Buffer
				if err := archive.Pack(t.Context(), src, &out, tt.opts); !errors.Is(err, tt.want) {
					t.Errorf("Pack of %s: error %v, want %v", name, err, tt.want)
				}
				if _, err := openBytes(t, out.Bytes(), nil); err == nil {
					t.Errorf("what Pack of %s wrote is taken for an archive", name)
				}
			}
			// Nothing is written over a good file, and nothing is left.
			file := filepath.Join(t.TempDir(), "x.oci")
			if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := archive.PackFile(t.Context(), l, file, tt.opts); !errors.Is(err, tt.want) {
				t.Errorf("PackFile: error %v, want %v", err, tt.want)
			}
			if got := files(t, filepath.Dir(file)); len(got) != 1 || got["x.oci"] != "old" {
				t.Errorf("PackFile left %q", got)
			}
		})
	}
	// It is sound but for those: a flipped blob that nobody asked for.
	c = sourcetest.Write(t, dir)
	if err := flip(path(c.Unreferenced.Digest)); err != nil {
		t.Fatal(err)
	}
	packed(t, openDir(t, dir), nil)
}

func flip(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	data[len(data)/2] ^= 1
	return os.WriteFile(file, data, 0o644)
}

// Content that need not be stored: embedded data is, then, a layer to be had
// from elsewhere and an absent subject stay away.
func TestPackNotStored(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "l")
	l, err := layout.Create(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	data := []byte("embedded")
	embedded := ocispec.Descriptor{MediaType: "a/b", Digest: digest.FromBytes(data), Size: 8, Data: data}
	foreign := ocispec.Descriptor{MediaType: "a/b", Digest: digest.FromString("foreign"), Size: 7, URLs: []string{"https://example.com/x"}}
	subject := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("subject"), Size: 7}
	err = l.Update(t.Context(), func(tx *layout.Tx) error {
		raw, err := layout.EncodeManifest(ocispec.Manifest{ArtifactType: "a/b", Config: embedded, Layers: []ocispec.Descriptor{foreign}, Subject: &subject})
		if err != nil {
			return err
		}
		desc, err := tx.PutDocument(raw, ocispec.MediaTypeImageManifest)
		tx.Index().Add(desc)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	_, content := members(t, packed(t, l, nil))
	if got := content[layout.BlobPath(embedded.Digest)]; got != "embedded" {
		t.Errorf("embedded blob = %q", got)
	}
	if len(content) != 6 { // two files, two directories, manifest, embedded blob
		t.Errorf("members %q", slices.Sorted(maps.Keys(content)))
	}
}

// An empty layout is an archive, too.
func TestPackEmpty(t *testing.T) {
	l, err := layout.Create(t.Context(), filepath.Join(t.TempDir(), "l"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	headers, _ := members(t, packed(t, l, nil))
	var got []string
	for _, h := range headers {
		got = append(got, h.Name)
	}
	if diff := cmp.Diff([]string{"oci-layout", "index.json", "blobs/", "blobs/sha256/"}, got); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
}

// Sizes that no octal field holds, and names that no name field holds.
func TestHeaderLarge(t *testing.T) {
	sha512Name := "blobs/sha512/" + strings.Repeat("ab", 64)
	for _, tt := range []struct {
		name   string
		size   int64
		format tar.Format
	}{
		{"blobs/sha256/" + blobHex, 0, tar.FormatUSTAR},
		{"blobs/sha256/" + blobHex, 1<<33 - 1, tar.FormatUSTAR},
		{"blobs/sha256/" + blobHex, 1 << 33, tar.FormatPAX},
		{"blobs/sha256/" + blobHex, 1 << 50, tar.FormatPAX},
		{sha512Name, 5, tar.FormatPAX},
		{sha512Name, 1 << 40, tar.FormatPAX},
	} {
		b := archive.AppendHeader(nil, tt.name, tt.size)
		h, err := tar.NewReader(bytes.NewReader(b)).Next()
		if err != nil || h.Name != tt.name || h.Size != tt.size || h.Format != tt.format {
			t.Errorf("the library reads %+v, %v; want %s of %d bytes as %v", h, err, tt.name, tt.size, tt.format)
		}
		// Our own reader, with zeros for the content and the end.
		whole := int64(len(b)) + (tt.size+511)&^511 + 1024
		if err := archive.Scan(t.Context(), sparse(b), whole); err != nil {
			t.Errorf("%s of %d bytes: %v", tt.name, tt.size, err)
		}
		if err := archive.Scan(t.Context(), sparse(b), whole-1); !errors.Is(err, layout.ErrInvalid) {
			t.Errorf("%s of %d bytes, one byte short: %v", tt.name, tt.size, err)
		}
	}
}

// sparse is a file that goes on in zeros.
type sparse []byte

func (s sparse) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off < int64(len(s)) {
		copy(p, s[off:])
	}
	return len(p), nil
}

// failAfter fails once n bytes were written.
type failAfter struct{ n int }

func (w *failAfter) Write(p []byte) (int, error) {
	if w.n -= len(p); w.n < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

func TestPackOutputFails(t *testing.T) {
	dir, _ := sample(t)
	l := openDir(t, dir)
	for _, format := range []compress.Format{compress.None, compress.Gzip, compress.Zstd} {
		whole := len(packed(t, l, &archive.PackOptions{Compression: format}))
		for _, n := range []int{0, 1, whole / 2, whole - 1} {
			err := archive.Pack(t.Context(), l, &failAfter{n}, &archive.PackOptions{Compression: format})
			if !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("%v, failing after %d of %d bytes: error %v", format, n, whole, err)
			}
		}
	}
}

func TestPackCanceled(t *testing.T) {
	dir, _ := sample(t)
	l := openDir(t, dir)
	file := filepath.Join(t.TempDir(), "x.oci")
	for _, stop := range []int{0, 1, 5, 20} {
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		progress := func(layout.Event) {
			if n++; n > stop {
				cancel()
			}
		}
		if stop == 0 {
			cancel()
		}
		if _, err := archive.PackFile(ctx, l, file, &archive.PackOptions{Progress: progress}); !errors.Is(err, context.Canceled) {
			t.Errorf("canceled after %d events: error %v, want context.Canceled", stop, err)
		}
		cancel()
		if got := files(t, filepath.Dir(file)); len(got) > 0 {
			t.Errorf("canceled after %d events: left %v", stop, slices.Sorted(maps.Keys(got)))
		}
	}
}

func TestPackProgress(t *testing.T) {
	dir, c := sample(t)
	read := map[digest.Digest]int64{}
	state := map[digest.Digest]string{}
	packed(t, openDir(t, dir), &archive.PackOptions{Progress: func(e layout.Event) {
		d := e.Desc.Digest
		switch {
		case e.Kind == "start" && state[d] == "", e.Kind == "done" && state[d] == "start":
			state[d] = e.Kind
		case e.Kind == "bytes" && state[d] == "start":
			read[d] += e.Bytes
		default:
			t.Errorf("event %s after %q of %s", e.Kind, state[d], d)
		}
	}})
	for _, d := range c.Reachable {
		if state[d] != "done" || read[d] != int64(len(c.Stored[d])) {
			t.Errorf("%s: %q, %d bytes", d, state[d], read[d])
		}
	}
	if len(state) != len(c.Reachable) {
		t.Errorf("events of %d blobs, want %d", len(state), len(c.Reachable))
	}
}

// largeBlob opens a layout with a blob of zeros that takes no room on the disk.
func largeBlob(t *testing.T, size int64) *layout.Layout {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "l")
	sourcetest.Write(t, dir)
	h := sha256.New()
	if _, err := io.CopyN(h, zeros{}, size); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "blobs", "sha256", fmt.Sprintf("%x", h.Sum(nil))))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		t.Fatal(err)
	}
	return openDir(t, dir)
}

// The size of a blob does not reach the memory that it takes.
func TestPackMemory(t *testing.T) {
	l := largeBlob(t, 200<<20)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := archive.Pack(t.Context(), l, io.Discard, &archive.PackOptions{All: true}); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 16<<20 {
		t.Errorf("Pack allocated %d bytes in all", got)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
