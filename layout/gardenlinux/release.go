package gardenlinux

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxRelease bounds a .release file. Real ones have about 1 KiB.
const maxRelease = 64 << 10 // 64 KiB

// ErrRelease reports a .release file that is no os-release file.
var ErrRelease = errors.New("not an os-release file")

// A Release is what a .release file says: the /etc/os-release of the image.
// Fields are "" where it lacks the key.
type Release struct {
	// CName is GARDENLINUX_CNAME. Today that is the versioned flavor, by ADR
	// 0035 it will be the cname alone; [ParseName] reads both.
	CName string
	// Variant is VARIANT_ID: the flavor.
	Variant string
	// Version is GARDENLINUX_VERSION.
	Version string
	// Commit and CommitLong are GARDENLINUX_COMMIT_ID and _LONG.
	Commit, CommitLong string
	// Platform is GARDENLINUX_PLATFORM.
	Platform string
	// FeatureSet is GARDENLINUX_FEATURES as the file spells it: if the file
	// quotes the value, the quotes are part of it. So is the annotation
	// feature_set of what has been published, and a reader may compare the two.
	FeatureSet string
	// Features is the list in FeatureSet, without quotes.
	Features []string
}

// ParseRelease reads an os-release file (os-release(5)): lines KEY=VALUE, the
// value bare or in quotes, comments and empty lines. It is [ErrRelease] where a
// line has another form, a value is not printable UTF-8, a key that
// [Release] holds is there twice with two values, or b has more than 64 KiB.
func ParseRelease(b []byte) (*Release, error) {
	if len(b) > maxRelease {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrRelease, maxRelease)
	}
	if !utf8.Valid(b) {
		return nil, fmt.Errorf("%w: not UTF-8", ErrRelease)
	}
	r := &Release{}
	fields := map[string]*string{
		"GARDENLINUX_CNAME":          &r.CName,
		"VARIANT_ID":                 &r.Variant,
		"GARDENLINUX_VERSION":        &r.Version,
		"GARDENLINUX_COMMIT_ID":      &r.Commit,
		"GARDENLINUX_COMMIT_ID_LONG": &r.CommitLong,
		"GARDENLINUX_PLATFORM":       &r.Platform,
		"GARDENLINUX_FEATURES":       nil, // kept twice, below
	}
	seen := make(map[string]string)
	for i, line := range strings.Split(string(b), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, raw, found := strings.Cut(line, "=")
		if !found || !isKey(key) {
			return nil, fmt.Errorf("%w: line %d: %.80q, want KEY=VALUE", ErrRelease, i+1, line)
		}
		field, wanted := fields[key]
		if !wanted {
			continue
		}
		raw = strings.TrimSpace(raw)
		value, err := unquote(raw)
		if err != nil {
			return nil, fmt.Errorf("%w: line %d: %s: %w", ErrRelease, i+1, key, err)
		}
		if before, twice := seen[key]; twice && before != raw {
			return nil, fmt.Errorf("%w: line %d: %s is %.80s, but was %.80s before", ErrRelease, i+1, key, raw, before)
		}
		seen[key] = raw
		if key == "GARDENLINUX_FEATURES" {
			r.FeatureSet, r.Features = raw, splitList(value)
			continue
		}
		*field = value
	}
	return r, nil
}

func splitList(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

func isKey(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '_' && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// unquote reads a value as a shell would, as far as os-release(5) allows it:
// no expansion, nothing behind the closing quote.
func unquote(raw string) (string, error) {
	if strings.ContainsFunc(raw, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return "", errors.New("value has characters that do not print")
	}
	if raw == "" || (raw[0] != '"' && raw[0] != '\'') {
		if strings.ContainsAny(raw, `"'`) {
			return "", errors.New("quote inside a bare value")
		}
		return raw, nil
	}
	var b strings.Builder
	for i := 1; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == raw[0]:
			if i != len(raw)-1 {
				return "", errors.New("text behind the closing quote")
			}
			return b.String(), nil
		case c == '\\' && raw[0] == '"' && i+1 < len(raw) && strings.IndexByte("\"\\$`", raw[i+1]) >= 0:
			i++
			b.WriteByte(raw[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", errors.New("no closing quote")
}
