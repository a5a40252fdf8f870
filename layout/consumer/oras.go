package consumer

import (
	"context"
	"fmt"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// ORAS is the oras program, and others that are built on oras-go.
var ORAS Consumer = oras{}

type oras struct{}

func (oras) Name() string { return "oras" }

func (oras) About() string {
	return "without a platform everything; else the first entry of the platform, an index too; a manifest only if its image config says the platform"
}

func (oras) IsImageClient() bool { return false }

// Take follows oras-go internal/platform/platform.go, SelectManifest and Match.
func (oras) Take(ctx context.Context, src layout.Source, root ocispec.Descriptor, ask Ask) (*Outcome, error) {
	o := &Outcome{Desc: root, Why: "no platform is asked for: all of it is taken"}
	ok, err := o.read(ctx, src)
	if !ok {
		return o, err
	}
	want := ask.Platform
	switch {
	case want == nil:
		o.Layers = o.Document.Layers
	case o.Document.IsIndex:
		entries := o.Document.Manifests
		i := slices.IndexFunc(entries, func(d ocispec.Descriptor) bool { return d.Platform != nil && layout.PlatformFits(*d.Platform, *want) })
		if i < 0 {
			o.Why = fmt.Sprintf("none of %d entries is for %s", len(entries), layout.FormatPlatform(*want))
			return o.fail(FailPlatform, "%s: not found: no matching manifest was found in the manifest list", o.Desc.Digest), nil
		}
		o.down(entries[i])
		o.Why = entryName(i, o.Desc) + " is the first for " + layout.FormatPlatform(*want)
		// The entry is the answer: what it names is not looked at.
		if ok, err := o.read(ctx, src); !ok {
			return o, err
		}
		o.Layers = o.Document.Layers
		if o.Document.IsIndex {
			o.note("an index in the index, taken with all that it names")
		}
	default:
		return orasManifest(ctx, src, o, *want)
	}
	return o, nil
}

// orasManifest is a manifest that nothing led to: its image config has to say
// the platform. platform.go, getPlatformFromConfig.
func orasManifest(ctx context.Context, src layout.Source, o *Outcome, want ocispec.Platform) (*Outcome, error) {
	expect := mediaTypeDockerConfig
	switch o.Document.MediaType {
	case ocispec.MediaTypeImageManifest:
		expect = ocispec.MediaTypeImageConfig
	case mediaTypeDockerManifest:
	default:
		return o.fail(FailDocument, "%s: %s: unsupported", o.Desc.Digest, o.Document.MediaType), nil
	}
	o.Why = "it is no index: its config must be for the platform"
	o.Layers = o.Document.Layers
	if t := o.Document.Config.MediaType; t != expect {
		o.note("without --platform it is taken")
		return o.fail(FailArtifact, "fail to recognize platform from unknown config %s: expect %s: unsupported", t, expect), nil
	}
	conf, err := readConfig(ctx, src, o.Document)
	if err != nil {
		return nil, err
	}
	if conf == nil {
		return o.fail(FailDocument, "config %s is missing or no JSON", o.Document.Config.Digest), nil
	}
	if p := conf.platform(); !layout.PlatformFits(p, want) {
		o.Why = "its config is for " + platformName(&p)
		return o.fail(FailPlatform, "%s: not found: platform in manifest does not match target platform", o.Desc.Digest), nil
	}
	return o, nil
}
