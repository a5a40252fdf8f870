package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/gardenlinux/gloci-layout/layout/diff"
)

// maxListed is how many lines one entry has in a release note.
const maxListed = 200

// diffMarkdown prints a comparison for a release note or a pull request.
type diffMarkdown struct {
	env     *env
	a, b    string
	stat    diffStat
	entries []*markdownEntry
}

// A markdownEntry is what differs of one entry.
type markdownEntry struct {
	packages []string // rows of a table, each once
	lines    []string
	more     int
}

func (p *diffMarkdown) change(ch *diff.Change) error {
	if err := p.stat.change(ch); err != nil {
		return err
	}
	if len(p.stat.rows) == 0 {
		return nil
	}
	if len(p.entries) < len(p.stat.rows) {
		p.entries = append(p.entries, &markdownEntry{})
	}
	e := p.entries[len(p.entries)-1]
	if pkg := ch.Package; pkg != nil {
		row := fmt.Sprintf("| %s | %s | %s | %s |", ch.Kind, markdown(pkg.Name), markdown(pkg.A), markdown(pkg.B))
		if !slices.Contains(e.packages, row) { // the same package in several lists
			e.add(&e.packages, row)
		}
		return nil
	}
	head, more := diffLine(ch)
	l, _ := letter(ch.Kind)
	depth := strings.TrimPrefix(indent(ch.Level), indent(diff.LevelIndex))
	e.add(&e.lines, depth+"- "+l+" "+markdown(strings.TrimLeft(head, " ")))
	for _, m := range more {
		e.add(&e.lines, depth+"  - "+markdown(strings.TrimSpace(m)))
	}
	if ch.Text != "" {
		e.add(&e.lines, fence(ch.Text, depth+"  "))
	}
	return nil
}

func (e *markdownEntry) add(list *[]string, line string) {
	if len(*list) >= maxListed {
		e.more++
		return
	}
	*list = append(*list, line)
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
	if len(p.stat.rows) > 0 {
		b.WriteString("\n| | entry | layers | files | packages | only A | only B |\n| --- | --- | --- | --- | --- | --- | --- |\n")
		for _, r := range p.stat.rows {
			c := r.columns()
			l, _, _ := strings.Cut(c[0], " ")
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n", l, entryName(r), c[1], c[2], c[3], c[4], c[5])
		}
	}
	for i, e := range p.entries {
		fmt.Fprintf(&b, "\n### %s\n", entryName(p.stat.rows[i]))
		if len(e.packages) > 0 {
			b.WriteString("\n| package | name | from | to |\n| --- | --- | --- | --- |\n" + strings.Join(e.packages, "\n") + "\n")
		}
		if len(e.lines) > 0 {
			fmt.Fprintf(&b, "\n<details><summary>%s</summary>\n\n%s\n\n</details>\n", plural(len(e.lines), "line"), strings.Join(e.lines, "\n"))
		}
		if e.more > 0 {
			fmt.Fprintf(&b, "\nand %d more\n", e.more)
		}
	}
	if len(p.entries) > 0 {
		words := make([]string, len(legend))
		for i, l := range legend {
			k, _ := letter(l.kind)
			words[i] = k + " " + l.text
		}
		fmt.Fprintf(&b, "\n%s\n", strings.Join(words, ", "))
	}
	_, err := io.WriteString(p.env.stdout, b.String())
	return err
}

func entryName(r diffStatResult) string {
	return markdown(quoted(cmp.Or(r.Entry, r.Ref, "index.json")))
}
