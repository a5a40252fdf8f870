package gardenlinux

import (
	"testing"
)

// The table as readers of published images know it. It is written out: a
// media type that changes is a breaking change.
var mediaTypeCases = map[string]string{
	"x.tar":                     "application/io.gardenlinux.image.archive.format.tar",
	"x.esp.tar":                 "application/io.gardenlinux.image.archive.format.tar",
	"x.tar.gz":                  "application/io.gardenlinux.image.archive.format.tar.gz",
	"x.pxe.tar.gz":              "application/io.gardenlinux.image.archive.format.pxe.tar.gz",
	"x.firecracker.tar.gz":      "application/io.gardenlinux.image.archive.format.firecracker.tar.gz",
	"x.iso":                     "application/io.gardenlinux.image.archive.format.iso",
	"x.oci":                     "application/io.gardenlinux.image.archive.format.oci",
	"x.raw":                     "application/io.gardenlinux.image.archive.format.raw",
	"x.qcow2":                   "application/io.gardenlinux.image.format.qcow2",
	"x.vhd":                     "application/io.gardenlinux.image.format.vhd",
	"x.vmdk":                    "application/io.gardenlinux.image.format.vmdk",
	"x.ova":                     "application/io.gardenlinux.image.format.ova",
	"x.gcpimage.tar.gz":         "application/io.gardenlinux.image.format.gcpimage.tar.gz",
	"vmlinuz":                   "application/io.gardenlinux.kernel",
	"x.vmlinuz":                 "application/io.gardenlinux.kernel",
	"initrd":                    "application/io.gardenlinux.initrd",
	"initrd.unified":            "application/io.gardenlinux.initrd",
	"x.initrd.unified":          "application/io.gardenlinux.initrd",
	"cmdline":                   "application/io.gardenlinux.cmdline",
	"root.squashfs":             "application/io.gardenlinux.squashfs",
	"x.squashfs":                "application/io.gardenlinux.squashfs",
	"x.efi":                     "application/io.gardenlinux.efi",
	"x.uki":                     "application/io.gardenlinux.uki",
	"x.release":                 "application/io.gardenlinux.release",
	"x.manifest":                "application/io.gardenlinux.manifest",
	"x.requirements":            "application/io.gardenlinux.image.requirements",
	"x.sbom":                    "application/vnd.cyclonedx+json",
	"x.log":                     "application/io.gardenlinux.log",
	"x.tar.log":                 "application/io.gardenlinux.log",
	"x.qemu.test.log":           "application/io.gardenlinux.log",
	"x.test-log":                "application/io.gardenlinux.test-log",
	"x.platform.test.log":       "application/io.gardenlinux.io.platform.test.log",
	"x.platform.test.xml":       "application/io.gardenlinux.io.platform.test.xml",
	"x.chroot.test.log":         "application/io.gardenlinux.io.chroot.test.log",
	"x.chroot.test.xml":         "application/io.gardenlinux.io.chroot.test.xml",
	"x.secureboot.pk.crt":       "application/io.gardenlinux.cert.secureboot.pk.crt",
	"x.secureboot.pk.der":       "application/io.gardenlinux.cert.secureboot.pk.der",
	"x.secureboot.pk.auth":      "application/io.gardenlinux.cert.secureboot.pk.auth",
	"x.secureboot.kek.crt":      "application/io.gardenlinux.cert.secureboot.kek.crt",
	"x.secureboot.kek.der":      "application/io.gardenlinux.cert.secureboot.kek.der",
	"x.secureboot.kek.auth":     "application/io.gardenlinux.cert.secureboot.kek.auth",
	"x.secureboot.db.crt":       "application/io.gardenlinux.cert.secureboot.db.crt",
	"x.secureboot.db.der":       "application/io.gardenlinux.cert.secureboot.db.der",
	"x.secureboot.db.auth":      "application/io.gardenlinux.cert.secureboot.db.auth",
	"x.secureboot.db.arn":       "application/io.gardenlinux.cert.secureboot.db.arn",
	"x.secureboot.aws-efivars":  "application/io.gardenlinux.cert.secureboot.aws-efivars",
	"a-amd64-2150.1.0-abc.tar":  "application/io.gardenlinux.image.archive.format.tar",
	"x.secureboot.null.pk.auth": "",
	"x.secureboot.pk.conf":      "",
	"x.secureboot.kek.conf":     "",
	"x.secureboot.db.conf":      "",
	"x.oci.test.xml":            "",
	"x.qemu.test.xml":           "",
	"x.cloud.test.xml":          "",
	"x.artifacts":               "",
	"artifacts":                 "",
	"x.TAR":                     "",
	"xtar":                      "",
	"myvmlinuz":                 "",
	"vmlinuz.sig":               "",
	"x.tar.xz":                  "",
	"":                          "",
}

func TestMediaType(t *testing.T) {
	for name, want := range mediaTypeCases {
		got, known := MediaType(name)
		if got != want || known != (want != "") {
			t.Errorf("MediaType(%q) = %q, %v, want %q", name, got, known, want)
		}
	}
	used := make(map[string]bool)
	for name := range mediaTypeCases {
		if i := rank(name); i < len(mappings) {
			used[mappings[i].suffix] = true
		}
	}
	for _, suffix := range Suffixes() {
		if !used[suffix] {
			t.Errorf("suffix %q has no case", suffix)
		}
	}
}

// A suffix that ends with another must come first, or it is never found.
func TestSuffixOrder(t *testing.T) {
	suffixes := Suffixes()
	for i, before := range suffixes {
		for _, suffix := range suffixes[i+1:] {
			if hasSuffix(suffix, before) {
				t.Errorf("%q hides %q", before, suffix)
			}
		}
	}
	if len(suffixes) != 41 {
		t.Errorf("%d suffixes, want 41", len(suffixes))
	}
}

func TestUnmapped(t *testing.T) {
	for _, name := range []string{
		"x.secureboot.null.pk.auth", "x.secureboot.pk.conf", "x.secureboot.kek.conf", "x.secureboot.db.conf",
		"x.oci.test.xml", "x.qemu.test.xml", "x.cloud.test.xml",
	} {
		if !isUnmapped(name) {
			t.Errorf("isUnmapped(%q) = false", name)
		}
	}
	if isUnmapped("x.surprise") || isUnmapped("x.tar") {
		t.Error("isUnmapped knows what builds do not make")
	}
}

func TestUnknownPolicy(t *testing.T) {
	for s, want := range map[string]UnknownPolicy{"error": UnknownError, "octet-stream": UnknownOctetStream, "skip": UnknownSkip} {
		got, err := ParseUnknownPolicy(s)
		if err != nil || got != want || got.String() != s {
			t.Errorf("ParseUnknownPolicy(%q) = %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "Error", "drop"} {
		if got, err := ParseUnknownPolicy(s); err == nil {
			t.Errorf("ParseUnknownPolicy(%q) = %v", s, got)
		}
	}
	if UnknownPolicy(0) != UnknownOctetStream {
		t.Error("the zero policy loses a file or fails")
	}
}
