package cmdline

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

// A page is what there is to say about a command; the path is empty for the
// program itself.
type page struct {
	name        string // with the program
	usage       string // one line
	synopsis    string
	description string // paragraphs, parted by empty lines; an indented one is literal
	flags       []flagDoc
	commands    []page // those directly below it, without their own commands
}

type flagDoc struct {
	names       []string // with dashes, the short one first
	placeholder string
	usage       string
}

func newPage(app *cli.App, path []*cli.Command) page {
	if len(path) == 0 {
		p := page{
			name: app.Name, usage: app.Usage, description: app.Description,
			synopsis: app.Name + " [FLAG...] COMMAND [FLAG...] [OPERAND...]",
			flags:    flagDocs(app.Flags),
		}
		p.flags = append(p.flags,
			flagDoc{names: []string{"-h", "--help"}, usage: "show help for the program or for a command"},
			flagDoc{names: []string{"--version"}, usage: "print the version"})
		for _, c := range app.Commands {
			p.add(app, nil, c)
		}
		return p
	}
	c := path[len(path)-1]
	p := page{
		name: app.Name + " " + Name(path), usage: c.Usage, description: c.Description,
		flags: flagDocs(c.Flags),
	}
	p.synopsis = p.name
	if len(p.flags) > 0 {
		p.synopsis += " [FLAG...]"
	}
	if c.ArgsUsage != "" {
		p.synopsis += " " + c.ArgsUsage
	}
	if len(c.Subcommands) > 0 {
		p.synopsis += " COMMAND"
	}
	for _, sub := range c.Subcommands {
		p.add(app, path, sub)
	}
	return p
}

func (p *page) add(app *cli.App, path []*cli.Command, c *cli.Command) {
	if c.Hidden {
		return
	}
	sub := newPage(app, append(path[:len(path):len(path)], c))
	sub.commands = nil
	p.commands = append(p.commands, sub)
}

// pages returns the program's page and one for each command, in the order of
// their definition.
func pages(app *cli.App) []page {
	all := []page{newPage(app, nil)}
	walk(app.Commands, nil, func(path []*cli.Command) {
		for _, c := range path {
			if c.Hidden {
				return
			}
		}
		all = append(all, newPage(app, path))
	})
	return all
}

func flagDocs(flags []cli.Flag) []flagDoc {
	var docs []flagDoc
	for _, f := range flags {
		d, ok := f.(cli.DocGenerationFlag)
		if v, hides := f.(cli.VisibleFlag); !ok || hides && !v.IsVisible() {
			continue
		}
		var doc flagDoc
		for _, n := range dashed(f) {
			if len(n) == 2 {
				doc.names = append([]string{n}, doc.names...)
			} else {
				doc.names = append(doc.names, n)
			}
		}
		doc.usage = d.GetUsage()
		if before, rest, ok := strings.Cut(doc.usage, "`"); ok {
			name, after, _ := strings.Cut(rest, "`")
			doc.placeholder, doc.usage = name, before+name+after
		} else if d.TakesValue() {
			doc.placeholder = "VALUE"
		}
		if !d.TakesValue() {
			doc.placeholder = ""
		}
		var notes []string
		if s, ok := f.(cli.DocGenerationSliceFlag); ok && s.IsSliceFlag() {
			notes = append(notes, "may be repeated")
		}
		if v := strings.Trim(d.GetDefaultText(), `"`); v != "" && v != "false" && v != "0" && v != "0s" && d.TakesValue() {
			notes = append(notes, "default "+v)
		}
		if len(notes) > 0 {
			doc.usage += " (" + strings.Join(notes, ", ") + ")"
		}
		docs = append(docs, doc)
	}
	return docs
}

// head is how the flag is written: "-q, --quiet" or "--jobs N".
func (d flagDoc) head() string {
	h := strings.Join(d.names, ", ")
	if d.placeholder != "" {
		h += " " + d.placeholder
	}
	return h
}

// paragraphs parts a description.
func paragraphs(s string) []string {
	var all []string
	for _, p := range strings.Split(strings.Trim(s, "\n"), "\n\n") {
		if p = strings.Trim(p, "\n"); p != "" {
			all = append(all, p)
		}
	}
	return all
}

func literal(paragraph string) bool { return strings.HasPrefix(paragraph, "  ") }

// WriteHelp writes the help of the command at the end of path, or of the
// program, as plain text of at most 80 columns where words allow.
func WriteHelp(w io.Writer, app *cli.App, path []*cli.Command) error {
	p := newPage(app, path)
	var b strings.Builder
	fmt.Fprintf(&b, "%s - %s\n\nUsage:\n  %s\n", p.name, p.usage, p.synopsis)
	for _, para := range paragraphs(p.description) {
		b.WriteString("\n")
		if literal(para) {
			b.WriteString(para + "\n")
		} else {
			b.WriteString(wrap(para, 80, "") + "\n")
		}
	}
	if len(p.commands) > 0 {
		b.WriteString("\nCommands:\n")
		for _, c := range p.commands {
			entry(&b, strings.TrimPrefix(c.name, p.name+" "), c.usage, 14)
		}
	}
	if len(p.flags) > 0 {
		b.WriteString("\nFlags:\n")
		for _, f := range p.flags {
			entry(&b, f.head(), f.usage, 26)
		}
	}
	if len(path) > 0 {
		fmt.Fprintf(&b, "\nFlags of every command: %s --help\n", app.Name)
	} else {
		fmt.Fprintf(&b, "\nHelp on a command: %s COMMAND --help\n", app.Name)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func entry(b *strings.Builder, head, text string, column int) {
	indent := strings.Repeat(" ", column)
	lines := strings.TrimPrefix(wrap(text, 80, indent), indent)
	if len(head)+4 > column {
		fmt.Fprintf(b, "  %s\n%s%s\n", head, indent, lines)
	} else {
		fmt.Fprintf(b, "  %-*s%s\n", column-2, head, lines)
	}
}

func wrap(text string, width int, indent string) string {
	var lines []string
	line := indent
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > width && line != indent {
			lines = append(lines, line)
			line = indent
		}
		if line != indent {
			line += " "
		}
		line += word
	}
	return strings.Join(append(lines, line), "\n")
}
