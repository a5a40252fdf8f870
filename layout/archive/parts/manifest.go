// Package parts reads, writes and checks a file that is split into numbered
// parts, for media and services that take no file so large.
//
// # Files
//
// The parts of FILE lie beside each other in one directory and are named
// FILE.ID.NNN-of-NNN: ID is the first eight digits of the digest of the whole,
// so that parts of two versions never meet under one name, and the numbers, from
// 001, have three digits, so that names sort. One after another they are FILE,
// byte for byte. FILE.parts.json, the manifest, names them with sizes and
// digests, so that each can be checked alone; docs/format.md describes it.
//
// # Reading
//
// A manifest is hostile until it is checked: a part is a regular file beside it,
// named without a path, each once; sizes are held against those of the files
// when they are opened. Digests are not: what is in the parts verifies itself,
// as a layout does, or [Check] does it.
//
// # Writing
//
// A [Writer] makes the parts in a working directory .FILE.tmp-split and gives
// them their names when all are whole and on the disk; the manifest comes last
// and in one step. So a manifest never names parts that are not there, and after
// a crash FILE.parts.json is the old one with all its parts, or the new one.
package parts

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/internal/pattern"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/internal/strictjson"
)

const (
	// MediaType is what the manifest says that it is.
	MediaType = "application/vnd.gardenlinux.gloci-layout.parts.v1+json"

	// MaxParts is how many parts there may be: all are open while one is read.
	MaxParts = 999

	maxName     = 255     // bytes: what file systems take
	maxManifest = 1 << 20 // 1 MiB: MaxParts parts with the longest names
	idLength    = 8       // hex digits
)

// A Manifest is what FILE.parts.json says.
type Manifest struct {
	Digest digest.Digest // of the whole file
	Size   int64         // of the whole file, in bytes
	Parts  []Part        // in order
}

// A Part is one of the files.
type Part struct {
	Name   string // beside the manifest
	Digest digest.Digest
	Size   int64 // bytes
}

var (
	manifestNames = []string{"schemaVersion", "mediaType", "digest", "size", "parts"}
	partNames     = []string{"name", "digest", "size"}
)

// Parse reads a manifest strictly; names that it does not know are passed over.
// Errors are [layout.ErrInvalid], and for a name that leads elsewhere
// [layout.ErrUnsafe].
func Parse(data []byte) (*Manifest, error) {
	v, err := strictjson.Parse(data)
	if err != nil {
		return nil, invalid(err)
	}
	ms, err := v.Members()
	if err == nil {
		err = strictjson.CheckNames(ms, manifestNames)
	}
	if err != nil {
		return nil, invalid(err)
	}
	m := &Manifest{Size: -1}
	var mediaType string
	var version int64
	for _, member := range ms {
		switch member.Name {
		case "schemaVersion":
			version, err = member.Value.Int()
		case "mediaType":
			mediaType, err = member.Value.Text()
		case "digest":
			m.Digest, err = parseDigest(member.Value)
		case "size":
			m.Size, err = member.Value.Int()
		case "parts":
			m.Parts, err = parseParts(member.Value)
		}
		if err != nil {
			return nil, invalid(fmt.Errorf("%s: %w", member.Name, err))
		}
	}
	switch {
	case mediaType != MediaType:
		return nil, fmt.Errorf("%w: mediaType %q, want %s", layout.ErrInvalid, mediaType, MediaType)
	case version != 1:
		return nil, fmt.Errorf("%w: schemaVersion %d, want 1", layout.ErrInvalid, version)
	}
	return m, m.check()
}

func invalid(err error) error { return fmt.Errorf("%w: %w", layout.ErrInvalid, err) }

func parseDigest(v strictjson.Value) (digest.Digest, error) {
	text, err := v.Text()
	if err != nil {
		return "", err
	}
	d, err := layout.ParseDigest(text)
	if err == nil && d.Algorithm() != digest.SHA256 {
		err = fmt.Errorf("%s is no sha256", d)
	}
	return d, err
}

func parseParts(v strictjson.Value) ([]Part, error) {
	items, err := v.Items()
	if err != nil {
		return nil, err
	}
	if len(items) > MaxParts {
		return nil, fmt.Errorf("%d parts, more than the limit of %d", len(items), MaxParts)
	}
	list := make([]Part, len(items))
	for i, item := range items {
		ms, err := item.Members()
		if err == nil {
			err = strictjson.CheckNames(ms, partNames)
		}
		if err != nil {
			return nil, err
		}
		p := Part{Size: -1}
		for _, member := range ms {
			switch member.Name {
			case "name":
				p.Name, err = member.Value.Text()
			case "digest":
				p.Digest, err = parseDigest(member.Value)
			case "size":
				p.Size, err = member.Value.Int()
			}
			if err != nil {
				return nil, fmt.Errorf("part %d: %s: %w", i+1, member.Name, err)
			}
		}
		list[i] = p
	}
	return list, nil
}

// check refuses what does not fit together.
func (m *Manifest) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{layout.ErrInvalid}, args...)...)
	}
	if m.Digest == "" || len(m.Parts) == 0 {
		return bad("no digest, or no parts")
	}
	seen := make(map[string]bool, len(m.Parts))
	left := m.Size
	for i, p := range m.Parts {
		if err := checkName(p.Name); err != nil {
			return fmt.Errorf("part %d: %w", i+1, err)
		}
		switch {
		case seen[p.Name]:
			return bad("part %d: %q is there twice", i+1, p.Name)
		case p.Digest == "":
			return bad("part %d: no digest", i+1)
		case p.Size < 1:
			return bad("part %d: no size, or one of %d bytes", i+1, p.Size)
		case p.Size > left:
			return bad("the parts have more bytes than the whole, which has %d", m.Size)
		}
		seen[p.Name] = true
		left -= p.Size
	}
	if left != 0 {
		return bad("the parts have %d bytes, the whole has %d", m.Size-left, m.Size)
	}
	return nil
}

// checkName refuses a name that is not that of a file beside the manifest.
func checkName(name string) error {
	switch {
	case name == "", len(name) > maxName, strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("%w: a name of %d bytes, or with control characters", layout.ErrInvalid, len(name))
	case name == ".", name == "..", strings.ContainsAny(name, `/\`):
		return fmt.Errorf("%w: %q is not the name of a file beside the manifest", layout.ErrUnsafe, name)
	}
	return nil
}

// Bytes returns the manifest as it is written: one line, the names in a fixed
// order, a newline at the end.
func (m *Manifest) Bytes() []byte {
	items := make([]strictjson.Value, len(m.Parts))
	for i, p := range m.Parts {
		items[i] = strictjson.FromMembers([]strictjson.Member{
			{Name: "name", Value: strictjson.Quote(p.Name)},
			{Name: "digest", Value: strictjson.Quote(string(p.Digest))},
			{Name: "size", Value: strictjson.FromInt(p.Size)},
		})
	}
	return append(strictjson.FromMembers([]strictjson.Member{
		{Name: "schemaVersion", Value: strictjson.FromInt(1)},
		{Name: "mediaType", Value: strictjson.Quote(MediaType)},
		{Name: "digest", Value: strictjson.Quote(string(m.Digest))},
		{Name: "size", Value: strictjson.FromInt(m.Size)},
		{Name: "parts", Value: strictjson.FromItems(items)},
	}), '\n')
}

// partName returns the name of part n, from 1, of the whole file that is named
// base and has digest d.
func partName(base string, d digest.Digest, n, of int) string {
	return fmt.Sprintf("%s.%s.%03d-of-%03d", base, d.Encoded()[:idLength], n, of)
}

var partPattern = pattern.New(`^(.+)\.[0-9a-f]{8}\.[0-9]{3}-of-[0-9]{3}$`)

// Of returns the manifest that file is a part of, by its name; "" if that is not
// the name of a part.
func Of(file string) string {
	dir, base := filepath.Split(file)
	if m := partPattern.FindStringSubmatch(base); m != nil {
		return dir + m[1] + layout.PartsSuffix
	}
	return ""
}

// Find returns the manifest that stands for file where that is not there, and ""
// if there is none.
func Find(file string) string {
	if _, err := os.Lstat(file); err == nil {
		return ""
	}
	if info, err := os.Stat(file + layout.PartsSuffix); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	return file + layout.PartsSuffix
}
