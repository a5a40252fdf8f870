package consumer

import (
	"context"
	"fmt"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// Docker is docker with its own image store (overlay2). Where the store is
// containerd's, as in new installations from Docker 29 on, it is [Containerd].
var Docker Consumer = docker{}

type docker struct{}

func (docker) Name() string { return "docker" }

func (docker) About() string {
	return "as containerd chooses, but entries without a platform are not asked for their config, and media types must be those of images"
}

func (docker) IsImageClient() bool { return true }

func (c docker) Take(ctx context.Context, src layout.Source, root ocispec.Descriptor, ask Ask) (*Outcome, error) {
	o := &Outcome{Desc: root, Why: "it is no index: nothing is chosen"}
	return o, c.take(ctx, src, o, ask, 0)
}

// take follows moby daemon/internal/distribution/pull_v2.go, pullTag and
// pullManifestList: the first match that is a manifest or index is taken, and
// an index in an index is searched in the same way.
func (c docker) take(ctx context.Context, src layout.Source, o *Outcome, ask Ask, depth int) error {
	if depth > layout.DefaultMaxDepth {
		o.fail(FailNested, "indexes nested deeper than %d", depth-1)
		return nil
	}
	if o.Document == nil {
		if ok, err := o.read(ctx, src); !ok {
			return err
		}
	}
	want := ask.platform()
	if !o.Document.IsIndex && !isImageManifest(o.Document) {
		o.fail(FailDocument, "unsupported manifest format")
		return nil
	}
	if !o.Document.IsIndex {
		return c.finish(ctx, src, o, want)
	}
	at := *o
	entries := o.Document.Manifests
	// A platform without any field counts as none: pull_v2.go, toOCIPlatform.
	none := func(p *ocispec.Platform) bool {
		return p == nil || p.OS == "" && p.Architecture == "" && p.Variant == "" && p.OSVersion == "" && p.OSFeatures == nil
	}
	for _, i := range onlyPlatform(want, ask.Host.OS).order(entries, none) {
		*o = at
		o.Path = slices.Clone(at.Path)
		o.down(entries[i])
		o.Why = entryName(i, o.Desc) + " is the best fit for " + layout.FormatPlatform(want)
		if ok, err := o.read(ctx, src); !ok {
			return err
		}
		if !o.Document.IsIndex && !isImageManifest(o.Document) {
			continue // "OCI spec requires to skip unknown manifest types"
		}
		nested := o.Document.IsIndex
		err := c.take(ctx, src, o, ask, depth+1)
		// Where an index below fails, the next match is tried, but not where it has
		// nothing for the platform.
		if err != nil || o.Failure == nil || !nested || o.Failure.Kind == FailPlatform {
			return err
		}
	}
	*o = at
	o.Why = fmt.Sprintf("none of %d entries fits %s", len(entries), layout.FormatPlatform(want))
	o.fail(FailPlatform, "no matching manifest for %s in the manifest list entries", layout.FormatPlatform(want))
	return nil
}

// finish judges the manifest that was chosen. The media types of config and
// layers must be those of images. pull_v2.go, pullSchema2Layers and
// checkSupportedMediaType; registry.go, supportedMediaTypes.
func (c docker) finish(ctx context.Context, src layout.Source, o *Outcome, want ocispec.Platform) error {
	o.Layers = o.Document.Layers
	if t := o.Document.Config.MediaType; !dockerTakes(t) {
		o.fail(FailArtifact, "unsupported media type %s", t)
		return nil
	}
	for _, l := range o.Document.Layers {
		if !dockerTakes(l.MediaType) {
			o.fail(FailLayer, "unsupported media type %s", l.MediaType)
			return nil
		}
	}
	conf, err := readConfig(ctx, src, o.Document)
	switch {
	case err != nil:
		return err
	case conf == nil:
		o.fail(FailDocument, "config %s is missing or no JSON", o.Document.Config.Digest)
	// pull_v2.go, receiveConfig and pullSchema2Layers.
	case len(conf.RootFS.DiffIDs) == 0:
		o.fail(FailDocument, "image config has no rootfs")
	case len(conf.RootFS.DiffIDs) != len(o.Layers):
		o.fail(FailLayer, "image config has %d diffIDs for %d layers", len(conf.RootFS.DiffIDs), len(o.Layers))
	default:
		o.platformNote(conf, want)
	}
	return nil
}

var dockerTypes = []string{
	"application/vnd.oci.image", "application/vnd.docker",
	"application/octet-stream", "application/json", "text/html", "",
}

func dockerTakes(mediaType string) bool {
	mediaType = strings.ToLower(mediaType)
	return !strings.HasPrefix(mediaType, "application/vnd.docker.ai.") && slices.ContainsFunc(dockerTypes, func(t string) bool {
		return mediaType == t || strings.HasPrefix(mediaType, t+".")
	})
}
