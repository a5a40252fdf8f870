package layertar_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/extract/extracttest"
	"github.com/gardenlinux/gloci-layout/layout/internal/layertar"
)

func TestMediaType(t *testing.T) {
	for mediaType, want := range map[string]layertar.Claim{
		"application/vnd.oci.image.layer.v1.tar":                       {Archive: true, Known: true},
		"application/vnd.oci.image.layer.v1.tar+gzip":                  {Archive: true, Known: true, Compression: compress.Gzip},
		"application/vnd.oci.image.layer.v1.tar+zstd":                  {Archive: true, Known: true, Compression: compress.Zstd},
		"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": {Archive: true, Known: true, Compression: compress.Gzip},
		"application/vnd.docker.image.rootfs.diff.tar.gzip":            {Archive: true, Known: true, Compression: compress.Gzip},
		"application/vnd.docker.image.rootfs.diff.tar":                 {Archive: true, Known: true},
		"application/io.gardenlinux.image.archive.format.pxe.tar.gz":   {Archive: true, Known: true, Compression: compress.Gzip},
		"Application/VND.X.Tar+GZIP; charset=x":                        {Archive: true, Known: true, Compression: compress.Gzip},
		"application/x-tar":                                            {Archive: true, Known: true},
		"application/x-tgz":                                            {Archive: true, Known: true, Compression: compress.Gzip},
		"application/x.tar+xz":                                         {Archive: true, Known: true, Compression: compress.Xz},
		"application/json+gzip":                                        {Known: true, Compression: compress.Gzip},
		"application/gzip":                                             {Known: true, Compression: compress.Gzip},
		"application/vnd.cncf.helm.chart.content.v1.tar+gzip":          {Archive: true, Known: true, Compression: compress.Gzip},
		"application/vnd.oci.image.layer.v1.tar+gzip+encrypted":        {},
		"application/octet-stream":                                     {},
		"application/io.gardenlinux.kernel":                            {},
		"application/vnd.tar.manifest":                                 {},
		"":                                                             {},
		"tar":                                                          {Archive: true, Known: true},
		"application/vnd.timoni.sh.content.v1.tar+gzip":                {Archive: true, Known: true, Compression: compress.Gzip},
		"application/io.gardenlinux.image.archive.format.oci":          {},
	} {
		if got := layertar.MediaType(mediaType); got != want {
			t.Errorf("MediaType(%q) = %+v, want %+v", mediaType, got, want)
		}
	}
}

// read returns what the layer holds.
func read(src *extracttest.Source, data []byte, mediaType string, opts *layertar.Options) (string, *layertar.Reader, error) {
	desc := src.Add(data, mediaType)
	r, err := layertar.Open(context.Background(), src, desc, opts)
	if err != nil {
		return "", nil, err
	}
	defer r.Close()
	var b strings.Builder
	if !r.IsArchive() {
		content, err := io.ReadAll(r.Content())
		return "content " + string(content), r, err
	}
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return b.String(), r, nil
		}
		if err != nil {
			return b.String(), r, err
		}
		body, err := io.ReadAll(r)
		if err != nil {
			return b.String(), r, err
		}
		fmt.Fprintf(&b, "%s=%s;", h.Name, body)
	}
}

func TestFormats(t *testing.T) {
	archive := extracttest.Tar(extracttest.File("a", "1"), extracttest.File("b", strings.Repeat("x", 3<<20)))
	want := "a=1;b=" + strings.Repeat("x", 3<<20) + ";"
	v7 := extracttest.Tar(extracttest.Entry{Name: "a", Type: '0', Body: "1", NoMagic: true})
	gz := extracttest.Gzip
	for _, tt := range []struct {
		name, mediaType string
		data            []byte
		want            string
		format          compress.Format
		err             error
	}{
		{"plain", "application/x-tar", archive, want, compress.None, nil},
		{"gzip", "application/x.tar+gzip", gz(archive), want, compress.Gzip, nil},
		{"zstd", "application/x.tar+zstd", extracttest.Compress(archive, compress.Zstd), want, compress.Zstd, nil},
		{"by its content", "application/octet-stream", archive, want, compress.None, nil},
		{"by its content, gzip", "application/octet-stream", gz(archive), want, compress.Gzip, nil},
		{"gzip of anything", "application/gzip", gz(archive), want, compress.Gzip, nil},
		{"an ova is a file", "application/vnd.x.ova", archive, "content " + string(archive), compress.None, nil},
		{"version 7, said to be tar", "application/x-tar", v7, "a=1;", compress.None, nil},
		{"version 7, not said to be", "application/octet-stream", v7, "content " + string(v7), compress.None, nil},
		{"no archive", "text/plain", []byte("text"), "content text", compress.None, nil},
		{"nothing", "text/plain", nil, "content ", compress.None, nil},
		{"nothing, said to be tar", "application/x-tar", nil, "", compress.None, nil},
		{"empty archive", "application/x-tar", make([]byte, 1024), "", compress.None, nil},
		{"compressed text", "application/json+gzip", gz([]byte("{}")), "content " + string(gz([]byte("{}"))), compress.Gzip, nil},
		{"xz", "application/x.tar+xz", []byte("\xfd7zXZ\x00rest"), "content \xfd7zXZ\x00rest", compress.Xz, nil},
		{"said gzip, is zstd", "application/x.tar+gzip", extracttest.Compress(archive, compress.Zstd), "", 0, layout.ErrInvalid},
		{"said gzip, is none", "application/x.tar+gzip", archive, "", 0, layout.ErrInvalid},
		{"said none, is gzip", "application/x.tar", gz(archive), "", 0, layout.ErrInvalid},
		{"said tar, is text", "application/x.tar+gzip", gz([]byte(strings.Repeat("text", 1000))), "", 0, layout.ErrInvalid},
		{"said tar, is short", "application/x.tar", []byte("text"), "", 0, layout.ErrInvalid},
		{"two members of gzip", "application/x.tar+gzip", append(gz(archive[:700]), gz(archive[700:])...), want, compress.Gzip, nil},
	} {
		got, r, err := read(extracttest.NewSource(), tt.data, tt.mediaType, &layertar.Options{DiffID: digest.SHA256})
		if !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.err)
			continue
		}
		if err != nil {
			for _, part := range []string{"sha256:", "media type"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%s: %v does not name the %s", tt.name, err, part)
				}
			}
			continue
		}
		if got != tt.want {
			t.Errorf("%s: %.200q (%d bytes), want %.200q (%d bytes)", tt.name, got, len(got), tt.want, len(tt.want))
		}
		if r.Compression() != tt.format {
			t.Errorf("%s: compression %s, want %s", tt.name, r.Compression(), tt.format)
		}
		if id := r.DiffID(); r.IsArchive() && tt.want == want && id != digest.FromBytes(archive) {
			t.Errorf("%s: diffID %s, want %s", tt.name, id, digest.FromBytes(archive))
		}
	}
}

// TestLimits: each limit is a limit, and one less is none.
func TestLimits(t *testing.T) {
	archive := extracttest.Tar(extracttest.File("a/b/c", "12345"), extracttest.File("d", "67890"))
	n := int64(len(archive))
	for _, tt := range []struct {
		name     string
		ok, over layertar.Options
	}{
		{"bytes", layertar.Options{MaxBytes: n}, layertar.Options{MaxBytes: n - 1}},
		{"entries", layertar.Options{MaxEntries: 2}, layertar.Options{MaxEntries: 1}},
		{"name", layertar.Options{MaxName: 5}, layertar.Options{MaxName: 4}},
		{"depth", layertar.Options{MaxDepth: 3}, layertar.Options{MaxDepth: 2}},
	} {
		src := extracttest.NewSource()
		if _, _, err := read(src, archive, extracttest.PlainTar, &tt.ok); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if _, _, err := read(src, archive, extracttest.PlainTar, &tt.over); !errors.Is(err, layout.ErrInvalid) {
			t.Errorf("%s: %v, want layout.ErrInvalid", tt.name, err)
		}
	}
	// Sparse files count as long as they are.
	sparse := extracttest.Tar(extracttest.Sparse("s", 1<<20, 0, "x"))
	if _, _, err := read(extracttest.NewSource(), sparse, extracttest.PlainTar, &layertar.Options{MaxBytes: 1<<20 - 1}); !errors.Is(err, layout.ErrInvalid) {
		t.Errorf("sparse: %v, want layout.ErrInvalid", err)
	}
}

// TestDamage: wherever a bit flips, the end of the reader tells, and never says
// that the layer is at fault for what its bytes are.
func TestDamage(t *testing.T) {
	archive := append(extracttest.Tar(extracttest.File("a", "1"), extracttest.Dir("d")), make([]byte, 3000)...)
	for _, f := range []compress.Format{compress.None, compress.Gzip, compress.Zstd} {
		data := extracttest.Compress(archive, f)
		mediaType := "application/x.tar"
		if f != compress.None {
			mediaType += "+" + f.String()
		}
		step := max(1, len(data)/200)
		for i := 0; i < len(data); i += step {
			src := extracttest.NewSource()
			desc := src.Add(data, mediaType)
			damaged := bytes.Clone(data)
			damaged[i] ^= 0x10
			src.Replace(desc.Digest, damaged)
			err := drain(src, func() (*layertar.Reader, error) { return layertar.Open(t.Context(), src, desc, nil) })
			if !errors.Is(err, layout.ErrMismatch) {
				t.Errorf("%s: byte %d: %v, want layout.ErrMismatch", f, i, err)
			}
		}
	}
}

func drain(_ layout.Source, open func() (*layertar.Reader, error)) error {
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	for err == nil {
		_, err = r.Next()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// TestClose: a reader can be given up anywhere, and its goroutines end; the
// race detector and the leak of a blocked test would tell.
func TestClose(t *testing.T) {
	archive := extracttest.Gzip(extracttest.Tar(extracttest.File("a", strings.Repeat("x", 8<<20)), extracttest.File("b", "y")))
	for entries := range 3 {
		src := extracttest.NewSource()
		r, err := layertar.Open(t.Context(), src, src.Add(archive, extracttest.ImageGzip), &layertar.Options{DiffID: digest.SHA256})
		if err != nil {
			t.Fatal(err)
		}
		for range entries {
			if _, err := r.Next(); err != nil {
				t.Fatal(err)
			}
			_, _ = r.Read(make([]byte, 10))
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	src := extracttest.NewSource()
	r, err := layertar.Open(ctx, src, src.Add(archive, extracttest.ImageGzip), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, first := r.Next()
	cancel()
	var last error
	for last == nil {
		_, last = r.Next()
	}
	// What was read ahead may be all there is.
	if first != nil || !errors.Is(last, context.Canceled) && !errors.Is(last, io.EOF) {
		t.Errorf("%v, then %v, want context.Canceled", first, last)
	}
}

func TestEntries(t *testing.T) {
	src := extracttest.NewSource()
	long := strings.Repeat("n", 150)
	got, _, err := read(src, extracttest.Tar(extracttest.File(long, "1"), extracttest.Entry{Name: "g", Type: '0', Body: "2", Global: map[string]string{"comment": "x"}}), extracttest.PlainTar, nil)
	if diff := cmp.Diff(long+"=1;g=2;", got); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
}
