package gardenlinux

import (
	"cmp"
	"slices"
)

// kinds says which layers a build has because of a feature in its cname, or of
// its platform. What the builder makes follows from the image.* and convert.*
// scripts of its features; a disk image (.raw) comes where none of these is.
var kinds = []struct {
	features []string // platform or flags, any of them
	unless   []string // but none of these
	suffixes []string
}{
	{features: []string{"container"}, suffixes: []string{"oci"}},
	{features: []string{"_pxe", "_bfpxe"}, suffixes: []string{"vmlinuz", "initrd", "squashfs"}},
	{features: []string{"_usi", "_trustedboot"}, suffixes: []string{"uki"}},
	{features: []string{"_iso"}, suffixes: []string{"iso"}},
	{features: []string{"gcp", "gdch"}, suffixes: []string{"gcpimage.tar.gz"}},
	{features: []string{"azure"}, suffixes: []string{"vhd"}},
	{features: []string{"vmware"}, suffixes: []string{"ova"}},
	{features: []string{"ali", "lima", "openstack"}, suffixes: []string{"qcow2"}},
	{
		features: []string{"aws", "baremetal", "kvm", "metal"},
		unless:   []string{"_pxe", "_bfpxe", "_iso"},
		suffixes: []string{"raw"},
	},
}

// DefaultRequire returns the suffixes, sorted, of the layers without which a
// build is of no use:
//
//	every build                       release
//	container                         oci
//	_pxe, _bfpxe                      vmlinuz, initrd, squashfs
//	_usi, _trustedboot                uki
//	_iso                              iso
//	gcp, gdch                         gcpimage.tar.gz
//	azure                             vhd
//	vmware                            ova
//	ali, lima, openstack              qcow2
//	aws, baremetal, kvm, metal        raw, but not with _pxe, _bfpxe or _iso
//
// The flags are those of the cname. The platform is that of the .release file,
// else the first word of the cname, which need not be one (ADR 0034). Nothing
// is asked of a platform that is not in the list.
func DefaultRequire(n Name, r *Release) []string {
	var features []string
	for i, f := range n.Features() {
		if i == 0 && r != nil && r.Platform != "" {
			f = r.Platform
		}
		if i == 0 || f[0] == '_' {
			features = append(features, f)
		}
	}
	has := func(list []string) bool {
		return slices.ContainsFunc(list, func(f string) bool { return slices.Contains(features, f) })
	}
	suffixes := []string{"release"}
	for _, k := range kinds {
		if has(k.features) && !has(k.unless) {
			suffixes = append(suffixes, k.suffixes...)
		}
	}
	slices.Sort(suffixes)
	return slices.Compact(suffixes)
}

// require sets what the flavor must have.
func (f *Flavor) require(opts BuildOptions) {
	f.Required = slices.Clone(opts.Require)
	if !opts.NoDefaultRequire {
		f.Required = append(f.Required, DefaultRequire(f.Name, f.Release)...)
	}
	slices.Sort(f.Required)
	f.Required = slices.Compact(f.Required)
}

// missing compares the required layers with those that there are.
func (f *Flavor) missing(layers []File) error {
	var missing []string
	for _, r := range f.Required {
		if !slices.ContainsFunc(layers, func(l File) bool { return meets(l, r) }) {
			missing = append(missing, r)
		}
	}
	if missing == nil {
		return nil
	}
	return &MissingError{Name: f.Name, Missing: missing}
}

// meets tells whether a layer is what is required.
func meets(l File, required string) bool {
	var mediaType string
	if i := slices.IndexFunc(mappings, func(m mapping) bool { return m.suffix == required }); i >= 0 {
		mediaType = mappings[i].mediaType
	}
	return l.MediaType == cmp.Or(mediaType, required) || hasSuffix(l.Title, required)
}
