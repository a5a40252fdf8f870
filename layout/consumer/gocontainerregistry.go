package consumer

import (
	"context"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// Crane is crane, and what else is built on go-containerregistry: ko, kaniko,
// and the cosign command.
var Crane Consumer = crane{}

type crane struct{}

func (crane) Name() string { return "crane" }

func (crane) About() string {
	return "the first entry of the platform, one without is linux/amd64; follows indexes in indexes; takes artifacts"
}

func (crane) IsImageClient() bool { return true }

func (crane) Take(ctx context.Context, src layout.Source, root ocispec.Descriptor, ask Ask) (*Outcome, error) {
	o := &Outcome{Desc: root, Why: "it is no index: nothing is chosen"}
	if ok, err := takeFirst(ctx, src, o, ask.Platform); !ok {
		return o, err
	}
	o.Layers = o.Document.Layers
	if !o.Document.IsImage() {
		o.note("an artifact, taken like an image")
	}
	return o, nil
}

// linuxAMD64 is what is wanted where nobody says a platform, on any machine, and
// what an entry is for that has none. go-containerregistry
// pkg/v1/remote/options.go, defaultPlatform.
var linuxAMD64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}

// takeFirst goes down to the first manifest that fits, through nested indexes.
// It is false where the consumer fails. go-containerregistry
// pkg/v1/remote/index.go, childByPlatform and imageByPlatform;
// pkg/v1/remote/descriptor.go, Image.
func takeFirst(ctx context.Context, src layout.Source, o *Outcome, platform *ocispec.Platform) (ok bool, err error) {
	want := linuxAMD64
	if platform != nil {
		want = *platform
	}
	if ok, err := o.read(ctx, src); !ok {
		return false, err
	}
	for depth := 0; o.Document.IsIndex; depth++ {
		if depth == layout.DefaultMaxDepth {
			o.fail(FailNested, "indexes nested deeper than %d", depth)
			return false, nil
		}
		index := o.Document
		at := -1
		for i, d := range index.Manifests {
			have := linuxAMD64
			if d.Platform != nil {
				have = *d.Platform
			}
			if layout.PlatformFits(have, want) {
				at = i
				break
			}
		}
		if at < 0 {
			o.Why = fmt.Sprintf("none of %d entries is for %s", len(index.Manifests), layout.FormatPlatform(want))
			o.fail(FailPlatform, "no child with platform %s in index %s", layout.FormatPlatform(want), o.Desc.Digest)
			return false, nil
		}
		o.down(index.Manifests[at])
		o.Why = entryName(at, o.Desc) + " is the first for " + layout.FormatPlatform(want)
		if o.Desc.Platform == nil {
			o.Why = entryName(at, o.Desc) + " is taken for linux/amd64"
		}
		if ok, err := o.read(ctx, src); !ok {
			return false, err
		}
		// index.go, childDescriptor, accepts the entry's media type alone.
		if t := o.Desc.MediaType; !layout.IsIndex(t) && !layout.IsManifest(t) {
			o.note("a registry that does not look at the header Accept serves it all the same")
			o.fail(FailDocument, "MANIFEST_UNKNOWN: OCI manifest found, but accept header does not support OCI manifests: it asks for %s", t)
			return false, nil
		}
		// descriptor.go, Image, goes by the media type of the entry: what is no
		// index there is read as a manifest.
		if o.Document.IsIndex && !layout.IsIndex(o.Desc.MediaType) {
			o.fail(FailDocument, "%s is an index, but its entry says %s", o.Desc.Digest, o.Desc.MediaType)
			return false, nil
		}
		if !o.Document.IsIndex && layout.IsIndex(o.Desc.MediaType) {
			o.fail(FailPlatform, "no child with platform %s in index %s", layout.FormatPlatform(want), o.Desc.Digest)
			return false, nil
		}
	}
	return true, nil
}

// Flux is the source-controller of Flux with an OCIRepository. It takes one layer
// of an artifact.
type Flux struct {
	MediaType string // of the layer: spec.layerSelector.mediaType; "" takes the first layer
	Copy      bool   // spec.layerSelector.operation is copy, not extract
}

// Name is "flux".
func (Flux) Name() string { return "flux" }

// About says how it chooses.
func (Flux) About() string {
	return "as crane without --platform chooses: linux/amd64; then the first layer, or the first of a media type, as a gzip tar"
}

// IsImageClient is false: it reads artifacts, though images would do.
func (Flux) IsImageClient() bool { return false }

// Take follows fluxcd source-controller
// internal/controller/ocirepository_controller.go, reconcileSource and
// selectLayer. No platform can be asked for.
func (f Flux) Take(ctx context.Context, src layout.Source, root ocispec.Descriptor, _ Ask) (*Outcome, error) {
	o := &Outcome{Desc: root, Why: "it is no index"}
	if ok, err := takeFirst(ctx, src, o, nil); !ok {
		return o, err
	}
	if len(o.Document.Layers) == 0 {
		return o.fail(FailLayer, "no layers found in artifact"), nil
	}
	layer := o.Document.Layers[0]
	if f.MediaType != "" {
		found := false
		for _, l := range o.Document.Layers {
			if found = l.MediaType == f.MediaType; found {
				layer = l
				break
			}
		}
		if !found {
			return o.fail(FailLayer, "failed to find layer with media type '%s' in artifact", f.MediaType), nil
		}
		o.Why += "; the first layer of type " + f.MediaType
	} else {
		o.Why += "; the first layer, as no media type is asked for"
	}
	o.Layers = []ocispec.Descriptor{layer}
	if f.Copy {
		return o, nil
	}
	// fluxcd/pkg tar/untar.go, Untar.
	gzip, err := isGzip(ctx, src, layer)
	switch {
	case err != nil:
		return o, err
	case !gzip:
		o.fail(FailLayer, "failed to extract layer contents from artifact: requires gzip-compressed body: gzip: invalid header")
	}
	return o, nil
}
