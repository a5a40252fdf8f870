package consumer

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// Regctl is regctl, and what else is built on regclient.
var Regctl Consumer = regctl{}

type regctl struct{}

func (regctl) Name() string { return "regctl" }

func (regctl) About() string {
	return "the best platform that the machine runs; never an entry without one; follows indexes in indexes; takes artifacts"
}

func (regctl) IsImageClient() bool { return true }

// Take follows regclient manifest.go, ManifestGet with a platform; and
// types/descriptor/descriptor.go, DescriptorListSearch.
func (regctl) Take(ctx context.Context, src layout.Source, root ocispec.Descriptor, ask Ask) (*Outcome, error) {
	o := &Outcome{Desc: root, Why: "it is no index: nothing is chosen"}
	want := ask.platform()
	if ok, err := o.read(ctx, src); !ok {
		return o, err
	}
	for depth := 0; o.Document.IsIndex; depth++ {
		if depth == layout.DefaultMaxDepth {
			return o.fail(FailNested, "indexes nested deeper than %d", depth), nil
		}
		entries := o.Document.Manifests
		at, best := -1, ocispec.Platform{}
		for i, d := range entries {
			if d.Platform != nil && regBetter(want, *d.Platform, best) {
				at, best = i, *d.Platform
			}
		}
		if at < 0 {
			o.Why = fmt.Sprintf("none of %d entries fits %s", len(entries), layout.FormatPlatform(want))
			return o.fail(FailPlatform, "platform not found: %s", layout.FormatPlatform(want)), nil
		}
		o.down(entries[at])
		o.Why = entryName(at, o.Desc) + " is the best fit for " + layout.FormatPlatform(want)
		if ok, err := o.read(ctx, src); !ok {
			return o, err
		}
	}
	o.Layers = o.Document.Layers
	if !o.Document.IsImage() {
		o.note("an artifact, taken like an image; regctl image inspect refuses its config")
	}
	return o, nil
}

// regNormalize is regclient types/platform/platform.go, normalize.
func regNormalize(p ocispec.Platform) ocispec.Platform {
	if p.OS == "macos" {
		p.OS = "darwin"
	}
	switch p.Architecture {
	case "i386":
		p.Architecture, p.Variant = "386", ""
	case "x86_64", "x86-64", "amd64":
		p.Architecture = "amd64"
		if p.Variant == "v1" {
			p.Variant = ""
		}
	case "aarch64", "arm64":
		p.Architecture = "arm64"
		if p.Variant == "8" || p.Variant == "v8" {
			p.Variant = ""
		}
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	case "arm":
		switch p.Variant {
		case "", "7":
			p.Variant = "v7"
		case "5", "6", "8":
			p.Variant = "v" + p.Variant
		}
	}
	return p
}

// regBetter tells whether a machine of platform host takes target rather than
// prev, which is the zero Platform at first. types/platform/compare.go, Better.
func regBetter(host, target, prev ocispec.Platform) bool {
	host, target, prev = regNormalize(host), regNormalize(target), regNormalize(prev)
	if !regCompatible(host, target) {
		return false
	}
	// What equals the host's is better than what does not.
	prefer := func(host, target, prev string) int {
		switch {
		case target == prev:
			return 0
		case target == host:
			return 1
		case prev == host:
			return -1
		}
		return 0
	}
	return cmp.Or(
		prefer(host.OS, target.OS, prev.OS),
		prefer(host.Architecture, target.Architecture, prev.Architecture),
		prefer(host.Variant, target.Variant, prev.Variant),
		cmp.Compare(version(target.Variant), version(prev.Variant)),
		prefer(host.OSVersion, target.OSVersion, prev.OSVersion),
		-regVersionCompare(prev.OSVersion, target.OSVersion),
	) > 0
}

// regCompatible is types/platform/compare.go, Compatible.
func regCompatible(host, target ocispec.Platform) bool {
	switch host.OS {
	case "windows", "darwin": // which run linux in a virtual machine
		if target.OS != host.OS && target.OS != "linux" {
			return false
		}
	case "linux", "freebsd":
		if target.OS != host.OS {
			return false
		}
	default:
		if target.OS != host.OS || target.OSVersion != host.OSVersion || len(target.OSFeatures) > 0 {
			return false
		}
	}
	h, t := version(host.Variant), version(target.Variant)
	return host.Architecture == target.Architecture &&
		(h >= t || h == 1 && target.Variant == "" || host.Variant == "" && t == 1)
}

// regVersionCompare is types/platform/compare.go, semverCmp.
func regVersionCompare(a, b string) int {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i, x := range as {
		if len(bs) <= i {
			return 1
		}
		m, errA := strconv.Atoi(x)
		n, errB := strconv.Atoi(bs[i])
		switch {
		case errA != nil && errB != nil:
			return 0
		case errA != nil:
			return -1
		case errB != nil:
			return 1
		case m != n:
			return cmp.Compare(m, n)
		}
	}
	return 0
}
