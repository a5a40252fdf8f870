package gardenlinux

import (
	"fmt"
	"slices"
	"strings"
)

// Media types that code of this package asks for by name.
const (
	// MediaTypeUnknown is that of a file whose suffix has none of its own.
	MediaTypeUnknown = "application/octet-stream"
	// MediaTypeOCI is that of a container image in an OCI layout tarball.
	MediaTypeOCI = "application/io.gardenlinux.image.archive.format.oci"

	mediaTypePXE     = "application/io.gardenlinux.image.archive.format.pxe.tar.gz"
	mediaTypeRelease = "application/io.gardenlinux.release"
)

type mapping struct{ suffix, mediaType string }

// mappings is in match order: the first hit wins, so a suffix comes before all
// that it ends with. It is the order of layers too. Both are what readers of
// published images see: change neither.
var mappings = []mapping{
	{"secureboot.aws-efivars", "application/io.gardenlinux.cert.secureboot.aws-efivars"},
	{"secureboot.kek.auth", "application/io.gardenlinux.cert.secureboot.kek.auth"},
	{"secureboot.pk.auth", "application/io.gardenlinux.cert.secureboot.pk.auth"},
	{"secureboot.kek.crt", "application/io.gardenlinux.cert.secureboot.kek.crt"},
	{"secureboot.kek.der", "application/io.gardenlinux.cert.secureboot.kek.der"},
	{"secureboot.db.auth", "application/io.gardenlinux.cert.secureboot.db.auth"},
	{"firecracker.tar.gz", "application/io.gardenlinux.image.archive.format.firecracker.tar.gz"},
	{"secureboot.pk.crt", "application/io.gardenlinux.cert.secureboot.pk.crt"},
	{"secureboot.pk.der", "application/io.gardenlinux.cert.secureboot.pk.der"},
	{"secureboot.db.crt", "application/io.gardenlinux.cert.secureboot.db.crt"},
	{"secureboot.db.der", "application/io.gardenlinux.cert.secureboot.db.der"},
	{"secureboot.db.arn", "application/io.gardenlinux.cert.secureboot.db.arn"},
	{"platform.test.log", "application/io.gardenlinux.io.platform.test.log"},
	{"platform.test.xml", "application/io.gardenlinux.io.platform.test.xml"},
	{"gcpimage.tar.gz", "application/io.gardenlinux.image.format.gcpimage.tar.gz"},
	{"chroot.test.log", "application/io.gardenlinux.io.chroot.test.log"},
	{"chroot.test.xml", "application/io.gardenlinux.io.chroot.test.xml"},
	{"initrd.unified", "application/io.gardenlinux.initrd"},
	{"root.squashfs", "application/io.gardenlinux.squashfs"},
	{"requirements", "application/io.gardenlinux.image.requirements"},
	{"pxe.tar.gz", mediaTypePXE},
	{"test-log", "application/io.gardenlinux.test-log"},
	{"squashfs", "application/io.gardenlinux.squashfs"},
	{"manifest", "application/io.gardenlinux.manifest"},
	{"vmlinuz", "application/io.gardenlinux.kernel"},
	{"cmdline", "application/io.gardenlinux.cmdline"},
	{"release", mediaTypeRelease},
	{"initrd", "application/io.gardenlinux.initrd"},
	{"tar.gz", "application/io.gardenlinux.image.archive.format.tar.gz"},
	{"qcow2", "application/io.gardenlinux.image.format.qcow2"},
	{"sbom", "application/vnd.cyclonedx+json"},
	{"tar", "application/io.gardenlinux.image.archive.format.tar"},
	{"iso", "application/io.gardenlinux.image.archive.format.iso"},
	{"oci", MediaTypeOCI},
	{"vhd", "application/io.gardenlinux.image.format.vhd"},
	{"vmdk", "application/io.gardenlinux.image.format.vmdk"},
	{"ova", "application/io.gardenlinux.image.format.ova"},
	{"efi", "application/io.gardenlinux.efi"},
	{"uki", MediaTypeUKI},
	{"raw", "application/io.gardenlinux.image.archive.format.raw"},
	{"log", "application/io.gardenlinux.log"},
}

// unmapped are suffixes that Garden Linux builds and tests do produce, but
// gives no media type. They go by the policy for unknown suffixes.
var unmapped = []string{
	"oci.test.xml", "qemu.test.xml", "cloud.test.xml",
	"secureboot.pk.conf", "secureboot.kek.conf", "secureboot.db.conf",
	"secureboot.null.pk.auth",
}

// suffixArtifacts is that of the list of a build's files, itself never a layer.
const suffixArtifacts = "artifacts"

// MediaType returns the layer media type of a file by its base name: the first
// of [Suffixes] that the name is, or ends with behind a dot. A name without one
// is "" and false; so is the list {base}.artifacts.
func MediaType(fileName string) (mediaType string, known bool) {
	i := rank(fileName)
	if i == len(mappings) {
		return "", false
	}
	return mappings[i].mediaType, true
}

// Suffixes returns the suffixes that have a media type, in the order in which
// they are tried and in which layers are listed.
func Suffixes() []string {
	suffixes := make([]string, len(mappings))
	for i, m := range mappings {
		suffixes[i] = m.suffix
	}
	return suffixes
}

// rank is the place of a file among the suffixes; len(mappings) for none.
func rank(fileName string) int {
	i := slices.IndexFunc(mappings, func(m mapping) bool { return hasSuffix(fileName, m.suffix) })
	if i < 0 {
		return len(mappings)
	}
	return i
}

func hasSuffix(fileName, suffix string) bool {
	return fileName == suffix || strings.HasSuffix(fileName, "."+suffix)
}

func isUnmapped(fileName string) bool {
	return slices.ContainsFunc(unmapped, func(s string) bool { return hasSuffix(fileName, s) })
}

// An UnknownPolicy says what becomes of a file whose suffix has no media type.
// The zero value is [UnknownOctetStream].
type UnknownPolicy int

// What can become of a file with an unknown suffix. None is silent.
const (
	// UnknownOctetStream makes it a layer of [MediaTypeUnknown], with a warning.
	UnknownOctetStream UnknownPolicy = iota
	// UnknownError refuses it with [ErrSuffix].
	UnknownError
	// UnknownSkip leaves it out, with a warning.
	UnknownSkip
)

var policyNames = []string{"octet-stream", "error", "skip"}

// ParseUnknownPolicy reads error, octet-stream or skip.
func ParseUnknownPolicy(s string) (UnknownPolicy, error) {
	i := slices.Index(policyNames, s)
	if i < 0 {
		return 0, fmt.Errorf("policy %.40q, want error, octet-stream or skip", s)
	}
	return UnknownPolicy(i), nil
}

func (p UnknownPolicy) String() string {
	if p < 0 || int(p) >= len(policyNames) {
		return fmt.Sprintf("UnknownPolicy(%d)", int(p))
	}
	return policyNames[p]
}
