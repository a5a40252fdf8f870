package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/gardenlinux/gloci-layout/layout/diff"
	"github.com/gardenlinux/gloci-layout/layout/diff/difftext"
	"github.com/gardenlinux/gloci-layout/layout/show"
)

// quoted is [show.Quoted].
func quoted(s string) string { return show.Quoted(s) }

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
			fmt.Fprintf(&b, "  %s\n", difftext.EntryName(ch))
		}
	}
	l := difftext.Letter(ch.Kind)
	head, more := difftext.Line(ch)
	if p.color {
		l = "\x1b[" + colorOf(ch.Kind) + "m" + l + "\x1b[0m"
	}
	fmt.Fprintf(&b, "%s %s\n", l, head)
	for _, m := range more {
		fmt.Fprintf(&b, "  %s\n", m)
	}
	for line := range strings.Lines(ch.Text) {
		fmt.Fprintf(&b, "  %s| %s\n", difftext.Indent(ch.Level+1), p.textLine(strings.TrimSuffix(line, "\n")))
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
	for _, l := range difftext.Legend {
		if p.used[l.Kind] {
			words = append(words, difftext.Letter(l.Kind)+" "+l.Text)
		}
	}
	if len(words) > 0 {
		fmt.Fprintf(&b, "\n%s\n", strings.Join(words, ", "))
	}
	b.WriteString(sum.text() + "\n")
	_, err := io.WriteString(p.env.stdout, b.String())
	return err
}
