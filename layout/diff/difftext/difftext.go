// Package difftext makes text of the comparisons of package diff, for whoever
// prints them: lines, rows of numbers, and both collected by entry.
package difftext

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/layout/diff"
	"github.com/gardenlinux/gloci-layout/layout/diff/filediff"
	"github.com/gardenlinux/gloci-layout/layout/show"
)

// Legend says what kinds are called, in the order in which they are explained.
var Legend = []struct {
	Kind diff.Kind
	Text string
}{
	{filediff.Added, "added"},
	{filediff.Removed, "removed"},
	{filediff.Changed, "changed"},
	{filediff.Moved, "ref name moved"},
	{filediff.Renamed, "renamed"},
	{filediff.Reordered, "other order"},
	{filediff.Recompressed, "same content, other compression"},
	{filediff.Upgraded, "upgraded"},
	{filediff.Downgraded, "downgraded"},
}

// Letter is how a line for a kind of change begins.
func Letter(k diff.Kind) string {
	switch k {
	case filediff.Added:
		return "A"
	case filediff.Removed:
		return "D"
	case filediff.Changed:
		return "M"
	case filediff.Moved:
		return "V"
	case filediff.Renamed:
		return "R"
	case filediff.Reordered:
		return "O"
	case filediff.Recompressed:
		return "Z"
	case filediff.Upgraded:
		return "U"
	case filediff.Downgraded:
		return "L"
	}
	return "?"
}

// Mode shows permissions in octal.
func Mode(m int64) string { return fmt.Sprintf("%04o", m) }

// maxValue is how much of a value one line shows.
const maxValue = 120

// quotedPath is the path of a file in an archive in an archive.
func quotedPath(path []string) string {
	parts := make([]string, len(path))
	for i, p := range path {
		parts[i] = show.Quoted(p)
	}
	return strings.Join(parts, "!/")
}

// Indent grows with the level; what stands side by side has the same.
func Indent(l diff.Level) string {
	n := map[diff.Level]int{
		diff.LevelIndex: 1, diff.LevelManifest: 2, diff.LevelConfig: 3, diff.LevelLayer: 3, diff.LevelFile: 4, diff.LevelPackage: 4, diff.LevelPackage + 1: 5,
	}[l]
	return strings.Repeat("  ", n)
}

// EntryName is what the entry is called in which a difference lies.
func EntryName(ch *diff.Change) string { return show.Quoted(cmp.Or(ch.Entry, ch.Ref, "index.json")) }

// Line is the line of a difference, without its letter, and those below it. All
// foreign text in them is clean.
func Line(ch *diff.Change) (head string, more []string) {
	in := Indent(ch.Level)
	head = in
	inline := false // fields stand behind the name
	switch ch.Level {
	case diff.LevelRefs:
		head += "ref " + show.Quoted(cmp.Or(ch.Ref, ch.Entry)) + digests(ch)
	case diff.LevelIndex:
		if head += EntryName(ch); ch.Kind == filediff.Reordered {
			head += ": the order of the entries"
		}
		head += digests(ch)
	case diff.LevelManifest:
		if head += "manifest"; ch.Kind == filediff.Reordered {
			head += ": the order of the layers"
		}
	case diff.LevelConfig:
		head += "config" + digests(ch)
	case diff.LevelLayer:
		head += "layer " + show.Quoted(ch.Layer) + sizes(ch)
	case diff.LevelFile:
		head += quotedPath(ch.Path)
		inline = true
		if ch.Kind == filediff.Reordered {
			head += ": the order of the files"
			if len(ch.Path) == 0 {
				head = in + "the order of the files"
			}
		}
	case diff.LevelPackage:
		p := ch.Package
		head += "package " + show.Quoted(p.Name)
		if p.Architecture != "" {
			head += ":" + show.Quoted(p.Architecture)
		}
		head += " " + arrow(text(p.A), text(p.B))
		return head, nil
	case diff.LevelDefault:
	}
	var fields []string
	for _, f := range ch.Fields {
		fields = append(fields, fieldText(f))
	}
	switch {
	case inline && ch.FileA != nil && ch.FileB != nil && len(fields) > 0:
		head += "  " + strings.Join(fields, ", ")
	case inline && (ch.FileA == nil) != (ch.FileB == nil):
		head += "  " + fileText(cmp.Or(ch.FileA, ch.FileB))
	default:
		for _, f := range fields {
			more = append(more, in+"  "+f)
		}
	}
	return head, append(more, rangeTexts(ch, in)...)
}

func rangeTexts(ch *diff.Change, in string) []string {
	if len(ch.Ranges) == 0 || ch.Text != "" {
		return nil
	}
	var more []string
	const shown = 4
	for i, r := range ch.Ranges {
		if i == shown {
			break
		}
		s := fmt.Sprintf("%s  bytes %d-%d", in, r.Offset, r.Offset+r.Length-1)
		if r.Length == 1 {
			s = fmt.Sprintf("%s  byte %d", in, r.Offset)
		}
		if r.Where != "" {
			s += " (" + show.Clean(r.Where) + ")"
		}
		dots := ""
		if r.Length > int64(len(r.A)) {
			dots = "..."
		}
		more = append(more, s+": "+hex.EncodeToString(r.A)+dots+" -> "+hex.EncodeToString(r.B)+dots)
	}
	if len(ch.Ranges) > shown || ch.Differing > 1 {
		more = append(more, fmt.Sprintf("%s  %d bytes differ in all", in, ch.Differing))
	}
	return more
}

func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// fieldText shows a field: "annotations org.example/key: a -> b".
func fieldText(f diff.Field) string {
	name := f.Name
	if strings.HasPrefix(name, "/") {
		parts := strings.Split(name[1:], "/")
		for i, part := range parts {
			parts[i] = show.Clean(strings.ReplaceAll(strings.ReplaceAll(part, "~1", "/"), "~0", "~"))
		}
		return strings.Join(parts, " ") + ": " + arrow(f.A, f.B)
	}
	switch {
	case name == "content":
		return "content"
	case f.A != nil && f.B != nil && *f.A == *f.B:
		return show.Clean(name) + ": " + value(*f.A)
	}
	return show.Clean(name) + " " + arrow(f.A, f.B)
}

func arrow(a, b *string) string {
	switch {
	case a == nil && b == nil:
		return "-"
	case a == nil:
		return "+ " + value(*b)
	case b == nil:
		return "- " + value(*a)
	}
	return value(*a) + " -> " + value(*b)
}

func value(s string) string {
	if len(s) > maxValue {
		s = strings.ToValidUTF8(s[:maxValue], "") + "..."
	}
	return show.Quoted(s)
}

func fileText(f *filediff.File) string {
	parts := []string{string(f.Type), Mode(f.Mode), fmt.Sprintf("%d:%d", f.UID, f.GID)}
	switch {
	case f.Link != "":
		parts = append(parts, "-> "+show.Quoted(f.Link))
	case f.Type == filediff.TypeFile:
		parts = append(parts, show.Size(f.Size))
	}
	return strings.Join(parts, " ")
}

// digests shows both, or the size of what one side has.
func digests(ch *diff.Change) string {
	switch {
	case ch.A != nil && ch.B != nil && ch.A.Digest != ch.B.Digest:
		return fmt.Sprintf("  %s -> %s", short(ch.A.Digest), short(ch.B.Digest))
	case ch.A != nil && ch.B == nil:
		return "  " + string(ch.A.Digest)
	case ch.B != nil && ch.A == nil:
		return "  " + string(ch.B.Digest)
	}
	return ""
}

func short(d digest.Digest) string { return string(d)[:min(len(d), 19)] }

func sizes(ch *diff.Change) string {
	switch {
	case ch.A == nil && ch.B == nil:
		return ""
	case ch.A == nil:
		return "  " + show.Size(ch.B.Size)
	case ch.B == nil:
		return "  " + show.Size(ch.A.Size)
	case ch.A.Size == ch.B.Size:
		return "  " + show.Size(ch.A.Size)
	}
	return fmt.Sprintf("  %s -> %s", show.Size(ch.A.Size), show.Size(ch.B.Size))
}
