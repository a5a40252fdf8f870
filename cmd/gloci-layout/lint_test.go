package main

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// docs/lint.md has a section for each rule, in the order of lint --rules, that
// begins with its severity.
func TestLintReference(t *testing.T) {
	doc, err := os.ReadFile("../../docs/lint.md")
	if err != nil {
		t.Fatal(err)
	}
	var have, want []string
	for _, m := range regexp.MustCompile(`(?m)^## ([a-z-]+)\n\nSeverity: (error|warning|info)\b`).FindAllSubmatch(doc, -1) {
		have = append(have, string(m[1])+" "+string(m[2]))
	}
	headings := regexp.MustCompile(`(?m)^## `).FindAll(doc, -1)
	for _, r := range lintRules() {
		want = append(want, r.Name()+" "+string(r.Severity()))
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("docs/lint.md (-rules +document):\n%s", diff)
	}
	if len(headings) != len(have) {
		t.Errorf("docs/lint.md has %d sections, %d of which begin with a severity", len(headings), len(have))
	}
	names := lintRuleNames()
	slices.Sort(names)
	if len(slices.Compact(names)) != len(want) {
		t.Errorf("two rules have one name: %q", names)
	}
}
