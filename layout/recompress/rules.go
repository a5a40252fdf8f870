package recompress

import (
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/internal/layertar"
)

// A Rule says of some layers which compression their readers take.
type Rule struct {
	Name   string
	Reason string
	Source string // where the readers say so

	// applies tells whether the rule forbids to store the layer in a format.
	applies func(desc ocispec.Descriptor, f compress.Format) bool
}

// Rules are why layers are kept as they are, in the order in which they are
// asked.
var Rules = []Rule{
	{
		"foreign", "it has URLs, which lead to the bytes as they are",
		"image-spec descriptor.md, urls",
		func(desc ocispec.Descriptor, _ compress.Format) bool { return len(desc.URLs) > 0 },
	},
	{
		"named", "its media type names the file with its compression, and readers look for that type",
		"gardenlinux/python-gardenlinux-lib src/gardenlinux/constants.py, GL_MEDIA_TYPE_LOOKUP",
		func(desc ocispec.Descriptor, _ compress.Format) bool {
			mediaType := strings.ToLower(desc.MediaType)
			return strings.HasPrefix(mediaType, "application/io.gardenlinux.") ||
				slices.ContainsFunc([]string{".tar.gz", ".tar.zst", ".tar.xz", ".tar.bz2", ".tgz", ".txz"}, func(s string) bool { return strings.HasSuffix(mediaType, s) })
		},
	},
	{
		"titled", "its title is that of a file in another compression, under which readers store it",
		"image-spec annotations.md, org.opencontainers.image.title; oras-project/oras-go content/file/file.go",
		func(desc ocispec.Descriptor, f compress.Format) bool {
			named := compress.FormatOfName(desc.Annotations[ocispec.AnnotationTitle])
			return named != compress.None && named != f
		},
	},
	{
		"flux", "flux reads gzip only",
		"fluxcd/pkg tar/tar.go, Untar: requires gzip-compressed body",
		func(desc ocispec.Descriptor, f compress.Format) bool {
			return strings.HasPrefix(desc.MediaType, "application/vnd.cncf.flux.") && f != compress.Gzip
		},
	},
	{
		"helm", "helm takes charts of this media type only",
		"helm/helm pkg/registry/constants.go, ChartLayerMediaType",
		func(desc ocispec.Descriptor, _ compress.Format) bool {
			return strings.HasPrefix(desc.MediaType, "application/vnd.cncf.helm.") || strings.HasPrefix(desc.MediaType, "application/tar+")
		},
	},
	{
		"oras", "oras unpacks it as gzip",
		"oras-project/oras-go content/file/utils.go, extractTarGzip, for annotation io.deis.oras.content.unpack",
		func(desc ocispec.Descriptor, f compress.Format) bool {
			return desc.Annotations["io.deis.oras.content.unpack"] == "true" && f != compress.Gzip
		},
	},
}

// rule returns the rule that forbids it, or nil.
func rule(desc ocispec.Descriptor, f compress.Format) *Rule {
	for i, r := range Rules {
		if r.applies(desc, f) {
			return &Rules[i]
		}
	}
	return nil
}

// tails are what media types end with that say how an archive is compressed.
var tails = []struct {
	tail   string
	format compress.Format
}{
	{"gzip", compress.Gzip},
	{"gz", compress.Gzip},
	{"zstd", compress.Zstd},
	{"zst", compress.Zstd},
	{"xz", compress.Xz},
	{"bzip2", compress.Bzip2},
	{"bz2", compress.Bzip2},
}

// parseType splits the media type of an archive into what stands before its
// compression, with what joins them, and that; ok is false for anything that is
// no archive by its type.
func parseType(mediaType string) (base, join string, f compress.Format, ok bool) {
	claim := layertar.MediaType(mediaType)
	if !claim.Archive || !claim.Known {
		return "", "", 0, false
	}
	join = "+"
	if strings.HasPrefix(mediaType, "application/vnd.docker.") {
		join = "."
	}
	for _, t := range tails {
		for _, j := range []string{"+", "."} {
			if base, ok := strings.CutSuffix(mediaType, j+t.tail); ok {
				return base, j, t.format, true
			}
		}
	}
	return mediaType, join, compress.None, strings.HasSuffix(mediaType, "tar")
}

// typeOf returns the media type of the same archive in format f.
func typeOf(base, join string, f compress.Format) string {
	if f == compress.None {
		return base
	}
	return base + join + f.String()
}

// stale begins the names of annotations of layers that describe compressed
// bytes: tables of contents that let clients read parts of them.
// containers/storage pkg/chunked/internal/minimal/compression.go and
// containerd/stargz-snapshotter estargz/types.go.
var stale = []string{
	"io.github.containers.zstd-chunked.",
	"containerd.io/snapshot/stargz/",
	"io.containers.estargz.",
	"containerd.io/snapshot/nydus-",
}

// dropStale takes such annotations out.
func dropStale(desc *ocispec.Descriptor) (dropped []string) {
	for key := range desc.Annotations {
		if slices.ContainsFunc(stale, func(s string) bool { return strings.HasPrefix(key, s) }) {
			dropped = append(dropped, key)
		}
	}
	slices.Sort(dropped)
	for _, key := range dropped {
		delete(desc.Annotations, key)
	}
	return dropped
}

// annotationZstd tells in the entry of an image that its layers are zstd.
// containers/image internal/manifest/oci_index.go,
// OCI1InstanceAnnotationCompressionZSTD: without it skopeo cannot copy an index
// and keep its digest, for it would add the annotation itself.
const annotationZstd = "io.github.containers.compression.zstd"

// markEntry makes the entry of an image say whether its layers are zstd.
func markEntry(entry *ocispec.Descriptor, m *layout.Manifest) {
	if !m.IsImage() {
		return
	}
	zstd := slices.ContainsFunc(m.Layers(), func(l ocispec.Descriptor) bool { return strings.HasSuffix(l.MediaType, "zstd") })
	switch {
	case !zstd:
		delete(entry.Annotations, annotationZstd)
	case entry.Annotations == nil:
		entry.Annotations = map[string]string{annotationZstd: "true"}
	default:
		entry.Annotations[annotationZstd] = "true"
	}
}
