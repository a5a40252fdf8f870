package layertar

import (
	"archive/tar"
	"bytes"
	"strings"

	"github.com/gardenlinux/gloci-layout/compress"
)

// A Claim is what a media type says of the bytes that it describes.
type Claim struct {
	// Archive says that it is a tar archive.
	Archive bool
	// Compression is what Known says is known.
	Compression compress.Format
	// Known tells whether the media type speaks of compression at all: those
	// that end in a compression do, and those that end in "tar", which stand
	// for an archive that is not compressed.
	Known bool
}

// tails are the last facets of media types that say something.
var tails = map[string]Claim{
	"tar":   {Archive: true, Known: true},
	"gtar":  {Archive: true, Known: true},
	"ustar": {Archive: true, Known: true},
	"gzip":  {Compression: compress.Gzip, Known: true},
	"gz":    {Compression: compress.Gzip, Known: true},
	"tgz":   {Compression: compress.Gzip, Known: true, Archive: true},
	"zstd":  {Compression: compress.Zstd, Known: true},
	"zst":   {Compression: compress.Zstd, Known: true},
	"xz":    {Compression: compress.Xz, Known: true},
	"txz":   {Compression: compress.Xz, Known: true, Archive: true},
	"bzip2": {Compression: compress.Bzip2, Known: true},
	"bz2":   {Compression: compress.Bzip2, Known: true},
}

// MediaType returns what mediaType says. Parameters and case do not count.
// "application/vnd.oci.image.layer.v1.tar+gzip" and
// "application/io.gardenlinux.image.archive.format.pxe.tar.gz" claim a
// gzip-compressed archive, "application/octet-stream" claims nothing.
func MediaType(mediaType string) Claim {
	mediaType, _, _ = strings.Cut(mediaType, ";")
	facets := strings.FieldsFunc(strings.ToLower(strings.TrimSpace(mediaType)), func(r rune) bool {
		return strings.ContainsRune("/.+-", r)
	})
	if len(facets) == 0 {
		return Claim{}
	}
	claim := tails[facets[len(facets)-1]]
	if claim.Known && !claim.Archive && len(facets) > 1 {
		claim.Archive = tails[facets[len(facets)-2]].Archive
	}
	return claim
}

// containers are last facets of media types whose content is a file for some
// program, even where its bytes are a tar archive too.
var containers = map[string]bool{"ova": true, "oci": true}

func isContainer(mediaType string) bool {
	mediaType, _, _ = strings.Cut(mediaType, ";")
	mediaType = strings.ToLower(strings.TrimSpace(mediaType))
	return containers[mediaType[strings.LastIndexAny(mediaType, "/.+-")+1:]]
}

// blockSize is the unit of a tar archive (POSIX.1-2017, pax, "ustar
// Interchange Format").
const blockSize = 512

// magic tells whether head begins with a header block of POSIX or GNU tar.
func magic(head []byte) bool {
	return len(head) >= blockSize && bytes.HasPrefix(head[257:], []byte("ustar"))
}

// isTar tells whether head is the beginning of a tar archive, of Version 7
// too, or all of an empty one.
func isTar(head []byte) bool {
	if len(head) == 0 {
		return true
	}
	if len(head) < blockSize {
		return false
	}
	if magic(head) || bytes.Count(head[:blockSize], []byte{0}) == blockSize {
		return true
	}
	// Version 7 had no magic, but the checksum.
	_, err := tar.NewReader(bytes.NewReader(head[:blockSize])).Next()
	return err == nil
}
