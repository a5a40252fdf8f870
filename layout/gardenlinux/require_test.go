package gardenlinux

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestDefaultRequire(t *testing.T) {
	for cname, want := range map[string]string{
		"container":                          "oci release",
		"container-pythonDev":                "oci release",
		"baremetal_pxe":                      "initrd release squashfs vmlinuz",
		"baremetal-gardener_pxe":             "initrd release squashfs vmlinuz",
		"metal_pxe":                          "initrd release squashfs vmlinuz",
		"bluefield_bfpxe":                    "initrd release squashfs vmlinuz",
		"baremetal-capi":                     "raw release",
		"baremetal_iso":                      "iso release",
		"aws-gardener_prod":                  "raw release",
		"aws-gardener_prod_usi":              "raw release uki",
		"aws-gardener_prod_tpm2_trustedboot": "raw release uki",
		"azure-gardener_prod":                "release vhd",
		"gcp-gardener_prod_usi":              "gcpimage.tar.gz release uki",
		"gdch-gardener_prod":                 "gcpimage.tar.gz release",
		"vmware-gardener_prod":               "ova release",
		"openstack-gardener_prod":            "qcow2 release",
		"ali-gardener_prod":                  "qcow2 release",
		"lima":                               "qcow2 release",
		"kvm_prod":                           "raw release",
		"bare-libc":                          "release",
		"openstack-metal":                    "qcow2 release", // metal is no platform here
	} {
		if got := strings.Join(DefaultRequire(Name{CName: cname}, nil), " "); got != want {
			t.Errorf("DefaultRequire(%s) = %q, want %q", cname, got, want)
		}
	}
	for platform, want := range map[string]string{"": "qcow2 release", "openstackMetal": "release", "frankenstein": "release", "kvm": "raw release"} {
		if got := strings.Join(DefaultRequire(Name{CName: "openstack-metal"}, &Release{Platform: platform}), " "); got != want {
			t.Errorf("DefaultRequire(openstack-metal) on platform %q = %q, want %q", platform, got, want)
		}
	}
	known := slices.Collect(maps.Keys(mediaTypeCases))
	for _, k := range kinds {
		for _, suffix := range k.suffixes {
			if !slices.ContainsFunc(known, func(name string) bool { return hasSuffix(name, suffix) }) || rank(suffix) == len(mappings) {
				t.Errorf("%q is required by %q but has no media type", suffix, k.features)
			}
		}
	}
}
