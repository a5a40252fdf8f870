package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/gardenlinux/gloci-layout/layout/diff"
	"github.com/gardenlinux/gloci-layout/layout/diff/difftext"
)

// maxListed is how many lines one entry has in a release note.
const maxListed = 200

// diffMarkdown prints a comparison for a release note or a pull request.
type diffMarkdown struct {
	env  *env
	a, b string
	all  difftext.Collection
}

func newDiffMarkdown(e *env, a, b string) *diffMarkdown {
	return &diffMarkdown{env: e, a: a, b: b, all: difftext.Collection{MaxLines: maxListed}}
}

func (p *diffMarkdown) change(ch *diff.Change) error {
	p.all.Add(ch)
	return nil
}

// markdownLine is a line of an entry.
func markdownLine(l difftext.EntryLine) string {
	depth := strings.Repeat("  ", l.Depth)
	switch {
	case l.Diff != "":
		return fence(l.Diff, depth+"  ")
	case l.Kind == "":
		return depth + "  - " + markdown(l.Text)
	}
	return depth + "- " + difftext.Letter(l.Kind) + " " + markdown(l.Text)
}

// fence shows text between lines of backquotes, more of them than text has.
func fence(s, indent string) string {
	ticks := "```"
	for strings.Contains(s, ticks) {
		ticks += "`"
	}
	var b strings.Builder
	b.WriteString(indent + ticks + "diff\n")
	for line := range strings.Lines(s) {
		b.WriteString(indent + clean(strings.ReplaceAll(strings.TrimSuffix(line, "\n"), "\t", "    ")) + "\n")
	}
	return b.String() + indent + ticks
}

// markdown shows text as it is: nothing in it is markup or HTML.
func markdown(s string) string {
	s = clean(s)
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '<':
			b.WriteString("&lt;")
		case r == '&':
			b.WriteString("&amp;")
		case strings.ContainsRune("\\`*_[]|~#@", r):
			b.WriteString(`\` + string(r))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func (p *diffMarkdown) end(sum diffSummary) error {
	var b strings.Builder
	fmt.Fprintf(&b, "## Changes from %s to %s\n\n%s\n", markdown(p.a), markdown(p.b), markdown(sum.text()))
	if len(p.all.Entries) > 0 {
		b.WriteString("\n| | entry | layers | files | packages | only A | only B |\n| --- | --- | --- | --- | --- | --- | --- |\n")
		for _, e := range p.all.Entries {
			s := e.Stat
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n", difftext.Letter(diff.Kind(s.Kind)), markdown(s.Name()),
				s.Layers(), s.Files(), s.Packages(), size(s.OnlyA), size(s.OnlyB))
		}
	}
	for _, e := range p.all.Entries {
		fmt.Fprintf(&b, "\n### %s\n", markdown(e.Stat.Name()))
		if len(e.Packages) > 0 {
			b.WriteString("\n| package | name | from | to |\n| --- | --- | --- | --- |\n")
			for _, x := range e.Packages {
				fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", x.Kind, markdown(x.Name), markdown(x.A), markdown(x.B))
			}
		}
		if len(e.Lines) > 0 {
			fmt.Fprintf(&b, "\n<details><summary>%s</summary>\n\n", plural(len(e.Lines), "line"))
			for _, l := range e.Lines {
				b.WriteString(markdownLine(l) + "\n")
			}
			b.WriteString("\n</details>\n")
		}
		if e.More > 0 {
			fmt.Fprintf(&b, "\nand %d more\n", e.More)
		}
	}
	if len(p.all.Entries) > 0 {
		words := make([]string, len(difftext.Legend))
		for i, l := range difftext.Legend {
			words[i] = difftext.Letter(l.Kind) + " " + l.Text
		}
		fmt.Fprintf(&b, "\n%s\n", strings.Join(words, ", "))
	}
	_, err := io.WriteString(p.env.stdout, b.String())
	return err
}
