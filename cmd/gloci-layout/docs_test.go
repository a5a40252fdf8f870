package main

import (
	"bytes"
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gardenlinux/gloci-layout/cmd/gloci-layout/internal/cmdline"
)

var update = flag.Bool("update", false, "write the generated part of docs/cli.md, and what scripts compare with cmp")

// objects are all JSON objects that commands print.
var objects = []cmdline.Object{
	{Command: "init", Value: initResult{}},
	{Command: "add image", Note: "one for each entry", Value: changeResult{}},
	{Command: "add flavor", Note: "one for each entry", Value: changeResult{}},
	{Command: "add artifact", Note: "one for each entry", Value: changeResult{}},
	{Command: "tag", Note: "one for each new name", Value: changeResult{}},
	{Command: "untag", Note: "one for each name", Value: changeResult{}},
	{Command: "rm", Note: "one for each entry", Value: changeResult{}},
	{Command: "attach layer", Note: "one for each document that changed, and each referrer of one", Value: editResult{}},
	{Command: "attach referrer", Value: editResult{}},
	{Command: "detach layer", Note: "as attach layer", Value: editResult{}},
	{Command: "replace layer", Note: "as attach layer", Value: editResult{}},
	{Command: "recompress", Note: "one for each layer", Value: recompressResult{}},
	{Command: "recompress", Note: "one for all layers", Value: recompressSummary{}},
	{Command: "recompress", Note: "then as attach layer", Value: editResult{}},
	{Command: "annotate", Note: "as attach layer", Value: editResult{}},
	{Command: "referrers", Note: "one for each line", Value: referrerResult{}},
	{Command: "merge", Note: "one for each change", Value: mergeResult{}},
	{Command: "merge", Note: "or one for each conflict", Value: mergeConflictResult{}},
	{Command: "index create", Note: "one for each entry and for the index", Value: changeResult{}},
	{Command: "index add", Note: "one for each change", Value: changeResult{}},
	{Command: "index rm", Note: "one for each change", Value: changeResult{}},
	{Command: "index ls", Note: "one for each entry", Value: indexEntryResult{}},
	{Command: "index flatten", Note: "one for each change", Value: changeResult{}},
	{Command: "index nest", Note: "one for each change", Value: changeResult{}},
	{Command: "ls", Note: "one for each entry", Value: lsResult{}},
	{Command: "tree", Note: "one for each line", Value: treeResult{}},
	{Command: "inspect", Value: inspectResult{}},
	{Command: "copy", Note: "one for each file", Value: copyResult{}},
	{Command: "extract", Note: "one for each file, directory and link", Value: extractResult{}},
	{Command: "diff", Note: "one for each difference", Value: diffResult{}},
	{Command: "diff", Note: "and `--stat`, one for each entry", Value: diffStatResult{}},
	{Command: "diff", Note: "at the end", Value: diffSummary{}},
	{Command: "verify", Note: "one for each finding", Value: findingResult{}},
	{Command: "verify", Note: "at the end", Value: verifyResult{}},
	{Command: "resolve", Note: "one for each program", Value: resolveResult{}},
	{Command: "lint", Note: "one for each finding", Value: lintFindingResult{}},
	{Command: "lint", Note: "at the end", Value: lintResult{}},
	{Command: "lint", Note: "with --rules, one for each rule", Value: lintRuleResult{}},
	{Command: "report", Note: "unless FILE is -", Value: reportResult{}},
	{Command: "gc", Note: "one for each blob", Value: gcBlobResult{}},
	{Command: "gc", Note: "at the end", Value: gcResult{}},
	{Command: "pack", Note: "unless FILE.oci is -", Value: packResult{}},
	{Command: "unpack", Value: initResult{}},
	{Command: "inventory", Note: "with -o", Value: inventoryResult{}},
	{Command: "sync", Note: "one for each tag", Value: syncTagResult{}},
	{Command: "sync", Note: "at the end", Value: syncResult{}},
	{Command: "publish", Note: "one for each tag", Value: publishTagResult{}},
	{Command: "publish", Note: "at the end", Value: publishResult{}},
	{Command: "serve", Note: "one for each repository", Value: serveRepositoryResult{}},
	{Command: "serve", Note: "when it listens", Value: serveResult{}},
	{Command: "man", Note: "one for each file", Value: manResult{}},
	{Command: "version", Value: versionResult{}},
}

// docs/cli.md is what the definitions of the commands say. `make generate` writes it.
func TestReference(t *testing.T) {
	const file = "../../docs/cli.md"
	const marker = "<!-- What follows is made from the definitions of the commands: make generate -->\n"
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	byHand, generated, ok := bytes.Cut(have, []byte(marker))
	if !ok {
		t.Fatalf("%s has no line %q", file, marker)
	}
	app := newApp(&env{stdout: &output{w: t.Output()}, stderr: t.Output()})
	want := append([]byte("\n"), cmdline.Markdown(app, exitStatuses, objects)...)
	if *update {
		if err := os.WriteFile(file, append(append(byHand, marker...), want...), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(want), string(generated)); diff != "" {
		t.Errorf("%s is out of date, run make generate (-want +have):\n%s", file, diff)
	}
}
