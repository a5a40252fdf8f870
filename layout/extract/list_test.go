package extract_test

import (
	"cmp"
	"errors"
	"fmt"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/extract"
	"github.com/gardenlinux/gloci-layout/layout/extract/extracttest"
)

func TestList(t *testing.T) {
	archive := extracttest.Tar(extracttest.Dir("etc/"), extracttest.File("etc/hostname", "garden"), extracttest.Symlink("../out", "/etc"))
	src := extracttest.NewSource()
	damaged := src.Add(extracttest.Gzip(append(archive, 0)), extracttest.ImageGzip)
	src.Replace(damaged.Digest, extracttest.Gzip(archive))
	for name, tc := range map[string]struct {
		desc ocispec.Descriptor
		want []string
		err  error
	}{
		"gzip":    {src.Add(extracttest.Gzip(archive), extracttest.ImageGzip), []string{"5 etc/ 0", "0 etc/hostname 6", "2 ../out 0"}, nil},
		"plain":   {src.Add(archive, extracttest.PlainTar), []string{"5 etc/ 0", "0 etc/hostname 6", "2 ../out 0"}, nil},
		"file":    {src.Add([]byte("linux"), "application/octet-stream"), nil, extract.ErrNoArchive},
		"lie":     {src.Add([]byte("linux"), extracttest.ImageGzip), nil, layout.ErrInvalid},
		"damaged": {damaged, []string{"5 etc/ 0", "0 etc/hostname 6", "2 ../out 0"}, layout.ErrMismatch},
		"absent":  {extracttest.NewSource().Add([]byte("else"), extracttest.PlainTar), nil, layout.ErrNotFound},
	} {
		var have []string
		var err error
		for h, e := range extract.List(t.Context(), src, tc.desc) {
			if e != nil {
				err = e
				break
			}
			have = append(have, fmt.Sprintf("%c %s %d", h.Typeflag, h.Name, h.Size))
		}
		if !errors.Is(err, tc.err) {
			t.Errorf("%s: %v, want %v", name, err, tc.err)
		}
		if diff := gocmp.Diff(tc.want, have); diff != "" && name != "damaged" {
			t.Errorf("%s: (-want +have)\n%s", name, diff)
		}
	}
	// Whoever has seen enough need not read all.
	for _, err := range extract.List(t.Context(), src, src.Add(archive, extracttest.PlainTar)) {
		if err != nil {
			t.Error(err)
		}
		break
	}
}

// Layers that are damaged, bombs and broken archives are refused as extract
// refuses them; what is wrong with the names of files is nothing to a list.
func TestListHostile(t *testing.T) {
	refused := 0
	for _, h := range extracttest.HostileLayers("/tmp") {
		if h.Slow {
			continue
		}
		src := extracttest.NewSource()
		data := h.Layer()
		desc := src.Add(data, cmp.Or(h.MediaType, extracttest.PlainTar))
		if h.Damaged != nil {
			h.Damaged(data)
		}
		var err error
		for header, e := range extract.List(t.Context(), src, desc) {
			if err = e; err == nil && len(header.Name) > 4096 {
				t.Errorf("%s: a name of %d bytes", h.Name, len(header.Name))
			}
		}
		if errors.Is(h.Want, layout.ErrMismatch) != errors.Is(err, layout.ErrMismatch) {
			t.Errorf("%s: %v, want %v", h.Name, err, h.Want)
		}
		if err != nil {
			refused++
		}
	}
	if refused < 20 {
		t.Errorf("only %d layers were refused", refused)
	}
}

func TestClaimsArchive(t *testing.T) {
	for mediaType, want := range map[string]bool{
		extracttest.ImageGzip: true,
		"application/io.gardenlinux.image.archive.format.pxe.tar.gz": true,
		"application/octet-stream":                                   false,
		"application/vnd.cyclonedx+json":                             false,
	} {
		if have := extract.ClaimsArchive(mediaType); have != want {
			t.Errorf("ClaimsArchive(%q) = %v", mediaType, have)
		}
	}
}
