package cmdline

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// A ManPage is one manual page, in the man(7) macros.
type ManPage struct {
	File string // "gloci-layout-add-image.1"
	Roff []byte
}

// ManPages renders the program's page and one for each command. They carry the
// version, but no date: the same definitions give the same bytes.
func ManPages(app *cli.App, version string, exits []ExitStatus) []ManPage {
	var out []ManPage
	for i, p := range pages(app) {
		title := strings.ReplaceAll(p.name, " ", "-")
		var b strings.Builder
		fmt.Fprintf(&b, ".TH %s 1 \"\" %s\n", roffArg(strings.ToUpper(title)), roffArg(app.Name+" "+version))
		fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(title), roff(p.usage))
		fmt.Fprintf(&b, ".SH SYNOPSIS\n%s\n", roff(p.synopsis))
		if paras := paragraphs(p.description); len(paras) > 0 {
			b.WriteString(".SH DESCRIPTION\n")
			for _, para := range paras {
				if literal(para) {
					fmt.Fprintf(&b, ".PP\n.nf\n%s\n.fi\n", roff(para))
				} else {
					fmt.Fprintf(&b, ".PP\n%s\n", roff(para))
				}
			}
		}
		if len(p.commands) > 0 {
			b.WriteString(".SH COMMANDS\n")
			for _, c := range p.commands {
				fmt.Fprintf(&b, ".TP\n.BR %s (1)\n%s\n", roffArg(strings.ReplaceAll(c.name, " ", "-")), roff(c.usage))
			}
		}
		if len(p.flags) > 0 {
			b.WriteString(".SH OPTIONS\n")
			for _, f := range p.flags {
				fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff(f.head()), roff(f.usage))
			}
		}
		b.WriteString(".SH EXIT STATUS\n")
		for _, e := range exits {
			fmt.Fprintf(&b, ".TP\n.B %d\n%s\n", e.Status, roff(e.Meaning))
		}
		if i > 0 {
			fmt.Fprintf(&b, ".SH SEE ALSO\n.BR %s (1)\n", roffArg(app.Name))
		}
		out = append(out, ManPage{File: title + ".1", Roff: []byte(b.String())})
	}
	return out
}

// roff escapes text, so that no line of it is taken for a request.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "`", `\(ga`, "'", `\(aq`, "^", `\(ha`, "~", `\(ti`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}

func roffArg(s string) string { return `"` + strings.ReplaceAll(roff(s), `"`, `\(dq`) + `"` }
