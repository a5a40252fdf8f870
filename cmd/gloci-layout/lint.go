package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/gardenlinux"
	"github.com/gardenlinux/gloci-layout/layout/lint"
)

func newLintCommand(e *env) *cli.Command {
	var from sourceFlags
	var list bool
	var opts lint.LoadOptions
	return &cli.Command{
		Name: "lint", Usage: "find what would go wrong for those who read it", ArgsUsage: "[SOURCE]",
		Description: "Asks for every tag what podman, docker and other programs would take, on every platform that it has something for, " +
			"and looks for what has gone wrong for readers before. docs/lint.md describes the rules. No blob is hashed: that is for verify.\n\n" +
			"Exit status 0: no finding of severity error, 1: there is one.\n\n" + sourceHelp,
		Flags: append([]cli.Flag{
			&cli.StringSliceFlag{Name: "disable", Usage: "leave out the rule `RULE`; may be given more than once"},
			&cli.BoolFlag{Name: "sparse", Usage: "members of indexes that the source lacks are no findings", Destination: &opts.Sparse},
			&cli.BoolFlag{Name: "rules", Usage: "list the rules instead", Destination: &list},
		}, from.flags()...),
		Action: func(c *cli.Context) error {
			rules, err := chosenRules(c)
			if err != nil {
				return err
			}
			switch {
			case list && c.NArg() > 0:
				return usagef(c, "--rules takes no SOURCE")
			case list:
				return listRules(e, rules)
			case c.NArg() == 0:
				return usagef(c, "name a SOURCE")
			}
			return from.with(c, e, c.Args().First(), func(src layout.Source, ref layout.Reference) error {
				t, err := lint.Load(c.Context, src, ref.RefName, ref.Digest, &opts)
				if err != nil {
					return err
				}
				findings, err := lint.Run(c.Context, t, rules)
				if err != nil {
					return err
				}
				return showFindings(e, src, findings)
			})
		},
	}
}

// lintRules are all rules.
func lintRules() []lint.Rule { return append(lint.Rules(), gardenlinux.LintRules()...) }

func lintRuleNames() []string {
	var names []string
	for _, r := range lintRules() {
		names = append(names, r.Name())
	}
	return names
}

// chosenRules are those that no --disable names.
func chosenRules(c *cli.Context) ([]lint.Rule, error) {
	rules := lintRules()
	for _, name := range c.StringSlice("disable") {
		if !slices.Contains(lintRuleNames(), name) {
			return nil, usagef(c, "--disable %q: there is no such rule; there are %s", name, joinNames(lintRuleNames()))
		}
		rules = slices.DeleteFunc(rules, func(r lint.Rule) bool { return r.Name() == name })
	}
	return rules, nil
}

type lintRuleResult struct {
	Rule     string `json:"rule" doc:"its name"`
	Severity string `json:"severity" doc:"of its findings, or of the worst: error, warning or info"`
	About    string `json:"about" doc:"what it finds"`
}

func (r lintRuleResult) columns() []string { return []string{r.Rule, r.Severity, r.About} }

func listRules(e *env, rules []lint.Rule) error {
	var rows []lintRuleResult
	for _, r := range rules {
		rows = append(rows, lintRuleResult{r.Name(), string(r.Severity()), r.About()})
	}
	return table(e, []string{"RULE", "SEVERITY", "FINDS"}, rows)
}

type lintFindingResult struct {
	Type     string          `json:"type" doc:"finding"`
	Rule     string          `json:"rule" doc:"the rule that found it"`
	Severity string          `json:"severity" doc:"error, warning or info"`
	RefNames []string        `json:"refNames" doc:"the ref names below which it is; none where the entry has none"`
	Path     []digest.Digest `json:"path" doc:"from the entry of index.json down to what is wrong"`
	Why      string          `json:"why" doc:"what is wrong"`
	Cure     string          `json:"cure,omitempty" doc:"what to do; LAYOUT stands for the layout"`
}

type lintResult struct {
	Type     string `json:"type" doc:"summary"`
	Clean    bool   `json:"clean" doc:"there is no finding of severity error"`
	Errors   int    `json:"errors" doc:"findings of severity error"`
	Warnings int    `json:"warnings" doc:"findings of severity warning"`
	Infos    int    `json:"infos" doc:"findings of severity info"`
}

func showFindings(e *env, src layout.Source, findings []lint.Finding) error {
	sum := lintResult{Type: "summary"}
	for _, f := range findings {
		switch f.Severity {
		case lint.Error:
			sum.Errors++
		case lint.Warning:
			sum.Warnings++
		default:
			sum.Infos++
		}
		if err := showFinding(e, f); err != nil {
			return err
		}
	}
	sum.Clean = sum.Errors == 0
	if err := e.confirm(sum, "%s: %s, %s, %s", src, plural(sum.Errors, "error"), plural(sum.Warnings, "warning"), plural(sum.Infos, "info")); err != nil {
		return err
	}
	if !sum.Clean {
		return errAnswerIsNo
	}
	return nil
}

func showFinding(e *env, f lint.Finding) error {
	r := lintFindingResult{
		Type: "finding", Rule: f.Rule, Severity: string(f.Severity), Why: f.Why, Cure: f.Cure,
		RefNames: append([]string{}, f.RefNames...), Path: append([]digest.Digest{}, f.Path...),
	}
	if e.json {
		return e.emitJSON(r)
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, "%s\n", clean(fmt.Sprintf(format, args...))) }
	line("%s: %s: %s", f.Severity, f.Rule, f.Why)
	where := ""
	if len(f.RefNames) > 0 {
		where = joinSome(f.RefNames, 3) + " "
	}
	for i, d := range f.Path {
		if i > 0 {
			where += " > "
		}
		where += string(d)
	}
	line("  at    %s", where)
	if f.Cure != "" {
		line("  cure  %s", f.Cure)
	}
	_, err := io.WriteString(e.stdout, b.String())
	return err
}
