// Package pkglist compares lists of packages: the database of dpkg, the list
// that a Garden Linux build leaves beside an image, and CycloneDX documents.
package pkglist

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// ErrFormat reports a document that is no list of packages.
var ErrFormat = errors.New("no list of packages")

// A Package is one entry of a list.
type Package struct {
	Name         string
	Architecture string // "" where the list does not tell
	Version      string
}

// A Change is a package that is not the same in two lists.
type Change struct {
	Name, Architecture string
	A, B               string // versions; "" where that list lacks the package
}

// Mirror returns the change seen from the other side.
func (c Change) Mirror() Change { c.A, c.B = c.B, c.A; return c }

// A Format is how a list is written.
type Format string

// The formats of lists.
const (
	None      Format = ""
	Lines     Format = "lines"     // "NAME VERSION" on each line: Garden Linux .manifest
	Dpkg      Format = "dpkg"      // /var/lib/dpkg/status
	CycloneDX Format = "cyclonedx" // CycloneDX JSON
)

// MaxBytes is the largest list that is read.
const MaxBytes = 64 << 20 // 64 MiB

// FormatOf guesses the format from the path of a file in an archive or the title
// of a layer; None if it looks like no list.
func FormatOf(name string) Format {
	dir, base := path.Split(name)
	base = strings.ToLower(base)
	switch {
	case base == "status" && strings.HasSuffix(dir, "dpkg/"), strings.HasSuffix(dir, "dpkg/status.d/") && !strings.HasSuffix(base, ".md5sums"):
		return Dpkg
	case strings.HasSuffix(base, ".manifest") || base == "manifest":
		return Lines
	case strings.HasSuffix(base, ".sbom"), strings.HasSuffix(base, ".cdx.json"), base == "bom.json", strings.HasSuffix(base, ".sbom.json"):
		return CycloneDX
	}
	return None
}

// Parse reads a list. What is none in this format is [ErrFormat].
func Parse(f Format, data []byte) ([]Package, error) {
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrFormat, MaxBytes)
	}
	switch f {
	case Lines:
		return parseLines(data)
	case Dpkg:
		return parseDpkg(data)
	case CycloneDX:
		return parseCycloneDX(data)
	case None:
	}
	return nil, fmt.Errorf("%w: unknown format %q", ErrFormat, f)
}

func parseLines(data []byte) ([]Package, error) {
	var list []Package
	for line := range bytes.Lines(data) {
		words := strings.Fields(string(line))
		if len(words) == 0 {
			continue
		}
		if len(words) != 2 || !isName(words[0]) {
			return nil, fmt.Errorf("%w: line %.80q, want a name and a version", ErrFormat, line)
		}
		name, arch, _ := strings.Cut(words[0], ":")
		list = append(list, Package{Name: name, Architecture: arch, Version: words[1]})
	}
	return list, nil
}

// isName is lenient: what begins like a package name of any distribution.
func isName(s string) bool {
	c := s[0]
	return isDigit(c) || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '.'
}

// parseDpkg reads the paragraphs of a status file. Packages that are removed but
// for their configuration do not count.
func parseDpkg(data []byte) ([]Package, error) {
	var list []Package
	s := bufio.NewScanner(bytes.NewReader(data))
	s.Buffer(nil, 4<<20)
	fields := map[string]string{}
	end := func() error {
		if len(fields) == 0 {
			return nil
		}
		p := Package{Name: fields["package"], Architecture: fields["architecture"], Version: fields["version"]}
		status := strings.Fields(fields["status"])
		clear(fields)
		if p.Name == "" {
			return fmt.Errorf("%w: a paragraph without Package", ErrFormat)
		}
		if len(status) == 3 && (status[2] == "not-installed" || status[2] == "config-files") {
			return nil
		}
		list = append(list, p)
		return nil
	}
	for s.Scan() {
		line := s.Text()
		switch {
		case strings.TrimSpace(line) == "":
			if err := end(); err != nil {
				return nil, err
			}
			continue
		case line[0] == ' ' || line[0] == '\t':
			continue // more of the field before
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("%w: line %.80q, want FIELD: VALUE", ErrFormat, line)
		}
		switch name = strings.ToLower(name); name { // deb-control(5): case means nothing
		case "package", "architecture", "version", "status":
			fields[name] = strings.TrimSpace(value)
		default:
			fields[""] = "" // a paragraph without any name is no list
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return list, end()
}

func parseCycloneDX(data []byte) ([]Package, error) {
	type component struct {
		Group, Name, Version, Purl string
		Components                 []json.RawMessage
	}
	var bom struct {
		BOMFormat  string
		Components []json.RawMessage
	}
	if err := json.Unmarshal(data, &bom); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if bom.BOMFormat != "CycloneDX" {
		return nil, fmt.Errorf("%w: bomFormat %.40q", ErrFormat, bom.BOMFormat)
	}
	var list []Package
	// Components may hold others; a queue, for a hostile one may nest deeply.
	for queue := bom.Components; len(queue) > 0; queue = queue[1:] {
		var c component
		if err := json.Unmarshal(queue[0], &c); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrFormat, err)
		}
		queue = append(queue, c.Components...)
		name := c.Name
		if c.Group != "" {
			name = c.Group + "/" + name
		}
		if name != "" {
			list = append(list, Package{Name: name, Architecture: purlArch(c.Purl), Version: c.Version})
		}
	}
	return list, nil
}

// purlArch returns the qualifier arch of a package URL.
func purlArch(purl string) string {
	_, qualifiers, _ := strings.Cut(purl, "?")
	qualifiers, _, _ = strings.Cut(qualifiers, "#")
	for q := range strings.SplitSeq(qualifiers, "&") {
		if arch, ok := strings.CutPrefix(q, "arch="); ok {
			return arch
		}
	}
	return ""
}

// Diff returns what differs between two lists, sorted by name, architecture and
// versions. A package that has several versions is matched version by version;
// what then is left of it is an upgrade or downgrade if it is one on each side.
func Diff(a, b []Package) []Change {
	type key struct{ name, arch string }
	type versions struct{ a, b []string }
	all := map[key]*versions{}
	at := func(p Package) *versions {
		k := key{p.Name, p.Architecture}
		if all[k] == nil {
			all[k] = &versions{}
		}
		return all[k]
	}
	for _, p := range a {
		v := at(p)
		v.a = append(v.a, p.Version)
	}
	for _, p := range b {
		v := at(p)
		v.b = append(v.b, p.Version)
	}
	var changes []Change
	for _, k := range slices.SortedFunc(maps.Keys(all), func(x, y key) int {
		return cmp.Or(cmp.Compare(x.name, y.name), cmp.Compare(x.arch, y.arch))
	}) {
		va, vb := without(all[k].a, all[k].b), without(all[k].b, all[k].a)
		if len(va) == 1 && len(vb) == 1 {
			changes = append(changes, Change{Name: k.name, Architecture: k.arch, A: va[0], B: vb[0]})
			continue
		}
		for _, v := range va {
			changes = append(changes, Change{Name: k.name, Architecture: k.arch, A: v})
		}
		for _, v := range vb {
			changes = append(changes, Change{Name: k.name, Architecture: k.arch, B: v})
		}
	}
	return changes
}

// without returns what of a is left when each of b takes one away, sorted.
func without(a, b []string) []string {
	count := make(map[string]int, len(b))
	for _, v := range b {
		count[v]++
	}
	var rest []string
	for _, v := range a {
		if count[v]--; count[v] < 0 {
			rest = append(rest, v)
		}
	}
	slices.SortFunc(rest, CompareVersions)
	return rest
}
