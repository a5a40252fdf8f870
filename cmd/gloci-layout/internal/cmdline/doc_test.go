package cmdline_test

import (
	"context"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gardenlinux/gloci-layout/cmd/gloci-layout/internal/cmdline"
)

func TestHelp(t *testing.T) {
	app := testApp()
	app.Usage = "try things"
	var b strings.Builder
	if err := cmdline.WriteHelp(&b, app, app.Commands[1:2]); err != nil {
		t.Fatal(err)
	}
	const want = `prog verify - check

Usage:
  prog verify [FLAG...] LAYOUT

Flags:
  -j, --jobs N            run N at once (default 4)
  --tls-verify            be strict

Flags of every command: prog --help
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("help of verify (-want +got):\n%s", diff)
	}
	b.Reset()
	if err := cmdline.WriteHelp(&b, app, nil); err != nil {
		t.Fatal(err)
	}
	if s := b.String(); !strings.Contains(s, "  add         add things\n") || strings.Contains(s, "hidden") {
		t.Errorf("help of the program:\n%s", s)
	}
}

func TestManPages(t *testing.T) {
	app := testApp()
	app.Usage = `it's a -test- \ of`
	app.Description = "First.\n\n  literal -x\n\n.TH evil"
	exits := []cmdline.ExitStatus{{Status: 0, Meaning: "done"}}
	pages := cmdline.ManPages(app, "1.0", exits)
	var files []string
	for _, p := range pages {
		files = append(files, p.File)
	}
	want := []string{"prog.1", "prog-add.1", "prog-add-image.1", "prog-add-flavor.1", "prog-verify.1"}
	if diff := cmp.Diff(want, files); diff != "" {
		t.Fatalf("pages (-want +got):\n%s", diff)
	}
	text := string(pages[0].Roff)
	for _, part := range []string{".TH \"PROG\" 1 \"\" \"prog 1.0\"\n", "it\\(aqs a \\-test\\- \\e of", "\n\\&.TH evil\n", ".TP\n.B 0\ndone\n", ".BR \"prog\\-verify\" (1)"} {
		if !strings.Contains(text, part) {
			t.Errorf("page lacks %q:\n%s", part, text)
		}
	}
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Skip("groff is not installed: the pages are not formatted")
	}
	for _, p := range pages {
		cmd := exec.CommandContext(context.Background(), groff, "-man", "-Tascii", "-ww", "-z")
		cmd.Stdin = strings.NewReader(string(p.Roff))
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("groff on %s: %v\n%s", p.File, err, out)
		}
	}
}

func TestComplete(t *testing.T) {
	values := func(name string) []string {
		return map[string][]string{"ref": {"one", "two"}, "verify": {"here"}}[name]
	}
	for _, tt := range []struct {
		words []string
		want  []string // without what they are
	}{
		{nil, []string{"add", "verify"}},
		{[]string{"v"}, []string{"verify"}},
		{[]string{"add", ""}, []string{"image", "flavor"}},
		{[]string{"--quiet", "add", "i"}, []string{"image"}},
		{[]string{"add", "image", "--a"}, []string{"--annotation", "--all"}},
		{[]string{"verify", "--q"}, []string{"--quiet"}},
		{[]string{"verify", "-j"}, []string{"-j"}},
		{[]string{"add", "image", "--ref", ""}, []string{"one", "two"}},
		{[]string{"add", "image", "--ref=t"}, []string{"--ref=two"}},
		{[]string{"add", "image", "--ref", "one", ""}, nil},
		{[]string{"verify", ""}, []string{"here"}},
		{[]string{"verify", "x", ""}, nil},
		{[]string{"verify", "--", "-"}, nil},
		{[]string{"nothing", "x"}, nil},
		{[]string{"verify", "--zzz", "--j"}, []string{"--jobs"}},
	} {
		var got []string
		for _, line := range cmdline.Complete(testApp(), tt.words, values) {
			word, _, ok := strings.Cut(line, "\t")
			if !ok {
				t.Errorf("Complete(%q): line %q has no tab", tt.words, line)
			}
			got = append(got, word)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("Complete(%q) (-want +got):\n%s", tt.words, diff)
		}
	}
}
