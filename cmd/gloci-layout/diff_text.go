package main

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/layout/diff"
	"github.com/gardenlinux/gloci-layout/layout/diff/filediff"
)

// legend says what letters stand for, in the order in which they are explained.
var legend = []struct {
	kind diff.Kind
	text string
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

func mode(m int64) string { return fmt.Sprintf("%04o", m) }

// maxValue is how much of a value one line shows.
const maxValue = 120

// quoted shows a name so that it cannot be taken for something else: in quotes,
// with escapes, unless it is plain.
func quoted(s string) string {
	if len(s) > maxText {
		s = s[:maxText] + "..."
	}
	for _, r := range s {
		if r <= ' ' || r == '"' || r == '\\' || r == '\ufffd' || needsEscape(r) {
			return strconv.Quote(s)
		}
	}
	return cmp.Or(s, `""`)
}

// quotedPath is the path of a file in an archive in an archive.
func quotedPath(path []string) string {
	parts := make([]string, len(path))
	for i, p := range path {
		parts[i] = quoted(p)
	}
	return strings.Join(parts, "!/")
}

// diffText prints one line for each difference, and more below it.
type diffText struct {
	env   *env
	color bool
	used  map[diff.Kind]bool
	ref   string // of the line before
	entry string
}

func (p *diffText) change(ch *diff.Change) error {
	if p.used == nil {
		p.used = map[diff.Kind]bool{}
	}
	p.used[ch.Kind] = true
	var b strings.Builder
	if ch.Entry != p.entry || ch.Ref != p.ref {
		p.ref, p.entry = ch.Ref, ch.Entry
		if ch.Level > diff.LevelIndex { // its entry has no line: the source was narrowed down
			fmt.Fprintf(&b, "  %s\n", entryText(ch))
		}
	}
	l, code := letter(ch.Kind)
	head, more := diffLine(ch)
	if p.color {
		l = "\x1b[" + code + "m" + l + "\x1b[0m"
	}
	fmt.Fprintf(&b, "%s %s\n", l, head)
	for _, m := range more {
		fmt.Fprintf(&b, "  %s\n", m)
	}
	for line := range strings.Lines(ch.Text) {
		fmt.Fprintf(&b, "  %s| %s\n", indent(ch.Level+1), p.textLine(strings.TrimSuffix(line, "\n")))
	}
	_, err := io.WriteString(p.env.stdout, b.String())
	return err
}

func (p *diffText) textLine(line string) string {
	text := clean(strings.ReplaceAll(line, "\t", "    "))
	if p.color && line != "" {
		switch line[0] {
		case '+':
			return "\x1b[32m" + text + "\x1b[0m"
		case '-':
			return "\x1b[31m" + text + "\x1b[0m"
		}
	}
	return text
}

func (p *diffText) end(sum diffSummary) error {
	if p.env.quiet {
		return nil
	}
	var b strings.Builder
	var words []string
	for _, l := range legend {
		if p.used[l.kind] {
			k, _ := letter(l.kind)
			words = append(words, k+" "+l.text)
		}
	}
	if len(words) > 0 {
		fmt.Fprintf(&b, "\n%s\n", strings.Join(words, ", "))
	}
	b.WriteString(sum.text() + "\n")
	_, err := io.WriteString(p.env.stdout, b.String())
	return err
}

// text is the summary in one line.
func (s diffSummary) text() string {
	verdict := "equal"
	if !s.Equal {
		verdict = plural(s.Differences, "difference")
	}
	if s.Manifests == 0 && s.Shared+s.OnlyA+s.OnlyB == 0 {
		return verdict
	}
	total := s.Shared + s.OnlyB
	if !s.Complete {
		return fmt.Sprintf("%s: %d manifests changed, %s new, %s gone; what is equal was not counted",
			verdict, s.Changed, size(s.OnlyB), size(s.OnlyA))
	}
	return fmt.Sprintf("%s: %d of %s changed, %s of %s new; only in A %s, only in B %s, shared %s",
		verdict, s.Changed, plural(s.Manifests, "manifest"), size(s.OnlyB), size(total), size(s.OnlyA), size(s.OnlyB), size(s.Shared))
}

// indent grows with the level; what stands side by side has the same.
func indent(l diff.Level) string {
	n := map[diff.Level]int{
		diff.LevelIndex: 1, diff.LevelManifest: 2, diff.LevelConfig: 3, diff.LevelLayer: 3, diff.LevelFile: 4, diff.LevelPackage: 4, diff.LevelPackage + 1: 5,
	}[l]
	return strings.Repeat("  ", n)
}

func entryText(ch *diff.Change) string { return quoted(cmp.Or(ch.Entry, ch.Ref, "index.json")) }

// diffLine is the line of a difference and those below it.
func diffLine(ch *diff.Change) (head string, more []string) {
	in := indent(ch.Level)
	head = in
	inline := false // fields stand behind the name
	switch ch.Level {
	case diff.LevelRefs:
		head += "ref " + quoted(cmp.Or(ch.Ref, ch.Entry)) + digests(ch)
	case diff.LevelIndex:
		if head += entryText(ch); ch.Kind == filediff.Reordered {
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
		head += "layer " + quoted(ch.Layer) + sizes(ch)
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
		head += "package " + quoted(p.Name)
		if p.Architecture != "" {
			head += ":" + quoted(p.Architecture)
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
			s += " (" + clean(r.Where) + ")"
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
			parts[i] = clean(strings.ReplaceAll(strings.ReplaceAll(part, "~1", "/"), "~0", "~"))
		}
		return strings.Join(parts, " ") + ": " + arrow(f.A, f.B)
	}
	switch {
	case name == "content":
		return "content"
	case f.A != nil && f.B != nil && *f.A == *f.B:
		return clean(name) + ": " + value(*f.A)
	}
	return clean(name) + " " + arrow(f.A, f.B)
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
	return quoted(s)
}

func fileText(f *filediff.File) string {
	parts := []string{string(f.Type), mode(f.Mode), fmt.Sprintf("%d:%d", f.UID, f.GID)}
	switch {
	case f.Link != "":
		parts = append(parts, "-> "+quoted(f.Link))
	case f.Type == filediff.TypeFile:
		parts = append(parts, size(f.Size))
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
		return "  " + size(ch.B.Size)
	case ch.B == nil:
		return "  " + size(ch.A.Size)
	case ch.A.Size == ch.B.Size:
		return "  " + size(ch.A.Size)
	}
	return fmt.Sprintf("  %s -> %s", size(ch.A.Size), size(ch.B.Size))
}
