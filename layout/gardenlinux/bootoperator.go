package gardenlinux

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/consumer"
)

// pxeCName is the flavor that boot-operator looks for by name. Garden Linux has
// renamed it to baremetal_pxe.
const pxeCName = "metal_pxe"

// BootOperator is ironcore's boot-operator, which tells machines where to boot
// from: by PXE, or by HTTP.
type BootOperator struct {
	HTTP  bool
	CName string // PXE: the beginning of the annotation cname; "" is metal_pxe
}

// Name is "boot-operator" (PXE) or "boot-operator-http".
func (b BootOperator) Name() string {
	if b.HTTP {
		return "boot-operator-http"
	}
	return "boot-operator"
}

// About says how it chooses.
func (b BootOperator) About() string {
	if b.HTTP {
		return "the first entry of the architecture, whatever its os; the first layer application/vnd.ironcore.image.uki"
	}
	return "the first entry with cname metal_pxe and the architecture, else the first of the architecture, whatever its os; the last kernel, initrd and squashfs layer"
}

// IsImageClient is false.
func (BootOperator) IsImageClient() bool { return false }

// Take follows ironcore-dev/boot-operator internal/oci/manifest.go,
// FindManifestByArchitecture. Of the platform only the architecture counts; only
// an OCI index is one; indexes in indexes are not followed.
func (b BootOperator) Take(ctx context.Context, src layout.Source, root ocispec.Descriptor, ask consumer.Ask) (*consumer.Outcome, error) {
	o := &consumer.Outcome{Desc: root, Why: "it is no OCI index: nothing is chosen"}
	if ok, err := readInto(ctx, src, o); !ok {
		return o, err
	}
	arch := ask.Host.Architecture
	if ask.Platform != nil {
		arch = ask.Platform.Architecture
	}
	if o.Document.MediaType == ocispec.MediaTypeImageIndex {
		if !b.choose(o, arch) {
			return o, nil
		}
		if ok, err := readInto(ctx, src, o); !ok {
			return o, err
		}
	}
	if b.HTTP {
		return b.uki(o), nil
	}
	return b.pxe(o), nil
}

// choose goes down to an entry; false where none fits.
func (b BootOperator) choose(o *consumer.Outcome, arch string) bool {
	entries := o.Document.Manifests
	prefix := cmp.Or(b.CName, pxeCName)
	i := -1
	if !b.HTTP {
		i = slices.IndexFunc(entries, func(d ocispec.Descriptor) bool {
			return strings.HasPrefix(d.Annotations[annotationCName], prefix) && d.Annotations[annotationArchitecture] == arch
		})
	}
	why := fmt.Sprintf("entry %d is the first with cname %s for %s", i+1, prefix, arch)
	if i < 0 {
		i = slices.IndexFunc(entries, func(d ocispec.Descriptor) bool { return d.Platform != nil && d.Platform.Architecture == arch })
		why = fmt.Sprintf("entry %d is the first for %s", i+1, arch)
		if !b.HTTP {
			why += "; none has a cname " + prefix
		}
	}
	if i < 0 {
		o.Why = fmt.Sprintf("none of %d entries is for %s", len(entries), arch)
		failed(o, consumer.FailPlatform, "failed to find target manifest with architecture %s", arch)
		return false
	}
	o.Path, o.Desc, o.Document, o.Why = append(o.Path, o.Desc), entries[i], nil, why
	return true
}

// pxeLayers are the layers for PXE, under the name that the operator gives
// their URLs. The last one wins.
// internal/controller/serverbootconfiguration_pxe_controller.go,
// getLayerDigestsFromNestedManifest.
var pxeLayers = []struct {
	url        string
	mediaTypes []string
}{
	{"kernelURL", []string{"application/vnd.ironcore.image.kernel", "application/io.gardenlinux.kernel"}},
	{"initrdURL", []string{"application/vnd.ironcore.image.initramfs", "application/io.gardenlinux.initrd"}},
	{"squashfsURL", []string{"application/vnd.ironcore.image.squashfs", "application/io.gardenlinux.squashfs"}},
}

func (BootOperator) pxe(o *consumer.Outcome) *consumer.Outcome {
	var empty []string
	for _, p := range pxeLayers {
		n := -1
		for i, l := range o.Document.Layers {
			if slices.Contains(p.mediaTypes, l.MediaType) {
				n = i
			}
		}
		if n < 0 {
			empty = append(empty, p.url)
			continue
		}
		o.Layers = append(o.Layers, o.Document.Layers[n])
	}
	if len(empty) > 0 {
		return failed(o, consumer.FailSilent, "no error, but the IPXEBootConfig gets no %s", strings.Join(empty, ", no "))
	}
	return o
}

// uki follows internal/uki/oci.go, getUKIDigestFromNestedManifest.
func (BootOperator) uki(o *consumer.Outcome) *consumer.Outcome {
	const mediaType = "application/vnd.ironcore.image.uki"
	for _, l := range o.Document.Layers {
		if l.MediaType == mediaType {
			o.Layers = []ocispec.Descriptor{l}
			return o
		}
	}
	if slices.ContainsFunc(o.Document.Layers, func(l ocispec.Descriptor) bool { return l.MediaType == MediaTypeUKI }) {
		o.Notes = append(o.Notes, "there is a layer "+MediaTypeUKI+", which it does not look for")
	}
	return failed(o, consumer.FailLayer, "UKI layer digest not found")
}
