package consumer

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What docker and containerd do with platforms; all of it follows
// github.com/containerd/platforms.

// normalize brings a platform into the form in which platforms are compared:
// amd64/v1 is amd64, arm64/v8 is arm64, arm is arm/v7. An entry without an os is
// for the host's. database.go, normalizeOS and normalizeArch.
func normalize(p ocispec.Platform, hostOS string) ocispec.Platform {
	p.OS = strings.ToLower(cmp.Or(p.OS, hostOS))
	if p.OS == "macos" {
		p.OS = "darwin"
	}
	arch, variant := strings.ToLower(p.Architecture), strings.ToLower(p.Variant)
	switch arch {
	case "i386":
		arch, variant = "386", ""
	case "x86_64", "x86-64", "amd64":
		arch = "amd64"
		if variant == "v1" {
			variant = ""
		}
	case "aarch64", "arm64":
		arch = "arm64"
		switch variant {
		case "8", "v8", "v8.0":
			variant = ""
		case "9", "9.0", "v9.0":
			variant = "v9"
		}
	case "armhf":
		arch, variant = "arm", "v7"
	case "armel":
		arch, variant = "arm", "v6"
	case "arm":
		switch variant {
		case "", "7":
			variant = "v7"
		case "5", "6", "8":
			variant = "v" + variant
		}
	}
	p.Architecture, p.Variant = arch, variant
	return p
}

// platformVector lists the platforms that a machine of platform p can run, best
// first: lower variants of the same architecture, 386 on amd64, arm on arm64.
// compare.go, platformVector.
func platformVector(p ocispec.Platform) []ocispec.Platform {
	with := func(arch, variant string) ocispec.Platform {
		q := p
		q.Architecture, q.Variant = arch, variant
		return q
	}
	vector := []ocispec.Platform{p}
	switch p.Architecture {
	case "amd64":
		for v := version(p.Variant) - 1; v >= 1; v-- {
			vector = append(vector, with("amd64", "v"+strconv.Itoa(v)))
		}
		vector = append(vector, with("386", ""))
	case "arm":
		for v := version(p.Variant) - 1; v >= 5; v-- {
			vector = append(vector, with("arm", "v"+strconv.Itoa(v)))
		}
	case "arm64":
		minors, ok := arm64Versions(cmp.Or(p.Variant, "v8"))
		if !ok {
			return nil
		}
		vector = nil
		for _, m := range minors {
			for minor := m.minor; minor >= 0; minor-- {
				v := "v" + strconv.Itoa(m.major)
				if minor > 0 {
					v += "." + strconv.Itoa(minor)
				}
				vector = append(vector, with("arm64", v))
			}
		}
		vector = append(vector, platformVector(with("arm", "v8"))...)
	}
	return vector
}

// version is N of "vN", or 0.
func version(variant string) int {
	n, err := strconv.Atoi(strings.TrimPrefix(variant, "v"))
	if err != nil {
		return 0
	}
	return n
}

type armVersion struct{ major, minor int }

// arm64Versions lists the major versions that an arm64 variant can run, each
// with the highest minor one: v9.x runs v8.x+5. compare.go,
// arm64variantToVersion.
func arm64Versions(variant string) ([]armVersion, bool) {
	major, rest, dotted := strings.Cut(strings.TrimPrefix(variant, "v"), ".")
	minor := 0
	if dotted {
		var err error
		if minor, err = strconv.Atoi(rest); err != nil {
			return nil, false
		}
	}
	switch {
	case major == "8" && minor >= 0 && minor <= 9:
		return []armVersion{{8, minor}}, true
	case major == "9" && minor >= 0 && minor <= 7:
		return []armVersion{{9, minor}, {8, min(minor+5, 9)}}, true
	}
	return nil, false
}

// A platformMatcher is platforms.Only of containerd.
type platformMatcher struct {
	vector []ocispec.Platform // normalized, best first
	hostOS string
}

func onlyPlatform(p ocispec.Platform, hostOS string) platformMatcher {
	m := platformMatcher{hostOS: hostOS}
	for _, v := range platformVector(normalize(p, hostOS)) {
		m.vector = append(m.vector, normalize(v, hostOS))
	}
	return m
}

// rank is the place of p in the vector, -1 for none. An entry that asks for
// os.features that the host has not is not taken, but for win32k. os.version
// counts for a windows host with a version alone, which nobody can ask for.
// platforms.go, matcher.Match; platform_windows_compat.go.
func (m platformMatcher) rank(p ocispec.Platform) int {
	p = normalize(p, m.hostOS)
	return slices.IndexFunc(m.vector, func(v ocispec.Platform) bool {
		features := p.OSFeatures
		if v.OS == "windows" {
			features = slices.DeleteFunc(slices.Clone(features), func(f string) bool { return f == "win32k" })
		}
		return v.OS == p.OS && v.Architecture == p.Architecture && v.Variant == p.Variant && len(features) == 0
	})
}

// order returns the numbers of the entries that match, in the order in which
// they are tried: by their place in the vector, those without a platform last,
// else as listed. containerd core/images/handlers.go, FilterPlatforms and
// LimitManifests; moby daemon/internal/distribution/pull_v2_unix.go,
// filterManifests.
func (m platformMatcher) order(entries []ocispec.Descriptor, none func(*ocispec.Platform) bool) []int {
	ranks := map[int]int{}
	var numbers []int
	for i, d := range entries {
		r := len(m.vector)
		if !none(d.Platform) {
			if r = m.rank(*d.Platform); r < 0 {
				continue
			}
		}
		ranks[i] = r
		numbers = append(numbers, i)
	}
	slices.SortStableFunc(numbers, func(a, b int) int { return cmp.Compare(ranks[a], ranks[b]) })
	return numbers
}
