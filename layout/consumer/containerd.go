package consumer

import (
	"context"
	"fmt"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// Containerd is containerd and what pulls with it: ctr, nerdctl, kubelet by CRI,
// and docker where its image store is containerd's.
var Containerd Consumer = containerd{}

type containerd struct{}

func (containerd) Name() string { return "containerd" }

func (containerd) About() string {
	return "the best platform that the machine runs (386 on amd64, arm on arm64), then entries without one by their config; follows indexes in indexes"
}

func (containerd) IsImageClient() bool { return true }

// Take follows Client.Pull: at each index the one entry that fits best is
// followed. containerd client/pull.go, fetch (with limit 1); core/images/image.go,
// Manifest; client/image.go, Unpack and getLayers.
func (c containerd) Take(ctx context.Context, src layout.Source, root ocispec.Descriptor, ask Ask) (*Outcome, error) {
	o := &Outcome{Desc: root, Why: "it is no index: nothing is chosen"}
	want := ask.platform()
	m := onlyPlatform(want, ask.Host.OS)
	if ok, err := o.read(ctx, src); !ok {
		return o, err
	}
	for depth := 0; o.Document.IsIndex; depth++ {
		if depth == layout.DefaultMaxDepth {
			return o.fail(FailNested, "indexes nested deeper than %d", depth), nil
		}
		entries := o.Document.Manifests
		numbers := m.order(entries, func(p *ocispec.Platform) bool { return p == nil })
		if len(numbers) == 0 {
			o.Why = fmt.Sprintf("none of %d entries fits %s", len(entries), layout.FormatPlatform(want))
			return o.fail(FailPlatform, "no match for platform in manifest %s: not found", root.Digest), nil
		}
		o.down(entries[numbers[0]])
		o.Why = entryName(numbers[0], o.Desc) + " is the best fit for " + layout.FormatPlatform(want)
		// core/images/image.go, Manifest: it goes by what the entry says.
		if !layout.IsIndex(o.Desc.MediaType) && o.Desc.MediaType != ocispec.MediaTypeImageManifest && o.Desc.MediaType != mediaTypeDockerManifest {
			return o.fail(FailDocument, "unexpected media type %s for %s: not found", o.Desc.MediaType, o.Desc.Digest), nil
		}
		if ok, err := o.read(ctx, src); !ok {
			return o, err
		}
		if o.Document.IsIndex != layout.IsIndex(o.Desc.MediaType) {
			return o.fail(FailDocument, "manifest: invalid desc %s: it is %s, not %s", o.Desc.Digest, o.Document.MediaType, o.Desc.MediaType), nil
		}
	}
	if !isImageManifest(o.Document) {
		return o.fail(FailDocument, "unexpected media type %s for %s: not found", o.Document.MediaType, o.Desc.Digest), nil
	}
	conf, err := readConfig(ctx, src, o.Document)
	if err != nil {
		return nil, err
	}
	if conf == nil {
		return o.fail(FailDocument, "config %s is missing or no JSON", o.Document.Config.Digest), nil
	}
	if o.Desc.Platform == nil && len(o.Path) > 0 {
		// core/images/image.go, ConfigPlatform.
		if m.rank(conf.platform()) < 0 {
			o.Why += ", but its config says another platform"
			return o.fail(FailPlatform, "no match for platform in manifest %s: not found", root.Digest), nil
		}
		o.Why += ", by its config"
	}
	c.layers(o, conf)
	if o.Failure == nil {
		o.platformNote(conf, want)
	}
	return o, nil
}

// layers sets what is unpacked. The config must have a diffID for each.
func (containerd) layers(o *Outcome, conf *config) {
	for _, l := range o.Document.Layers {
		if isImageLayer(l.MediaType) {
			o.Layers = append(o.Layers, l)
		}
	}
	const mismatch = "mismatched image rootfs and manifest layers"
	switch n := len(conf.RootFS.DiffIDs); {
	case !o.Document.IsImage() && n+len(o.Document.Layers) == 0:
		o.fail(FailSilent, "no error, but an image without content: an artifact without layers")
	case !o.Document.IsImage():
		o.note("containerd from 1.7.8 on takes an artifact without image layers, without an error, for an image without content")
		o.fail(FailArtifact, mismatch)
	case n == len(o.Layers) && n != len(o.Document.Layers):
		o.note("containerd from 1.7.8 on leaves out the layers that are none of an image")
		o.fail(FailLayer, mismatch)
	case n != len(o.Layers):
		o.fail(FailLayer, mismatch)
	}
}

// isImageLayer tells whether a media type is that of a layer of a root file
// system. containerd core/images/mediatypes.go, IsLayerType.
func isImageLayer(mediaType string) bool {
	if strings.HasPrefix(mediaType, "application/vnd.oci.image.layer.") {
		return true
	}
	base, _, _ := strings.Cut(mediaType, "+")
	switch base {
	case "application/vnd.docker.image.rootfs.diff.tar", "application/vnd.docker.image.rootfs.diff.tar.gzip",
		"application/vnd.docker.image.rootfs.foreign.diff.tar", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
		"application/vnd.docker.image.rootfs.diff.tar.zstd", "application/vnd.erofs.layer.v1":
		return true
	}
	return false
}

// IsImageLayer tells whether image clients unpack a layer of this media type
// into a root file system.
func IsImageLayer(mediaType string) bool { return isImageLayer(mediaType) }
