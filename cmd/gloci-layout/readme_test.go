package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// A step is a command of the README and the output that it shows.
type step struct{ command, want string }

// consoles returns the steps of the ```console blocks of file, one list for each.
func consoles(t *testing.T, file, text string) [][]step {
	t.Helper()
	var all [][]step
	for rest := text; ; {
		_, after, ok := strings.Cut(rest, "\n```console\n")
		if !ok {
			break
		}
		block, next, ok := strings.Cut(after, "```\n")
		if !ok {
			t.Fatalf("%s: a console block without end", file)
		}
		rest = "\n" + next
		var steps []step
		for line := range strings.Lines(block) {
			switch command, ok := strings.CutPrefix(line, "$ "); {
			case ok:
				steps = append(steps, step{command: strings.TrimSuffix(command, "\n")})
			case len(steps) == 0:
				t.Fatalf("%s: output %q before the first command", file, line)
			default:
				steps[len(steps)-1].want += line
			}
		}
		all = append(all, steps)
	}
	if len(all) == 0 {
		t.Fatalf("%s has no console block", file)
	}
	return all
}

// readmeRegistry is how the README calls a registry.
const readmeRegistry = "127.0.0.1:5000"

// The first commands of the README do what it shows; "..." there stands for any
// text.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	steps := consoles(t, "README.md", string(text))[0]
	if len(steps) < 3 {
		t.Fatalf("README.md shows only %d commands", len(steps))
	}
	dir := t.TempDir()
	for name, content := range map[string]string{"vmlinuz": "a kernel\n", "initrd": "an initrd\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	host := readmeRegistry
	if strings.Contains(string(text), readmeRegistry) {
		host = regtest.Start(t, nil).Host
	}
	runSteps(t, "README.md", dir, host, steps)
}

// runSteps runs the steps of file in dir, with host in the place of
// readmeRegistry.
func runSteps(t *testing.T, file, dir, host string, steps []step) {
	t.Helper()
	for _, s := range steps {
		cmd := exec.CommandContext(context.Background(), "bash", "-euc", strings.ReplaceAll(s.command, readmeRegistry, host))
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "HOME="+dir, "CONTAINERS_REGISTRIES_CONF=/dev/null", "LC_ALL=C")
		out, err := cmd.Output()
		if err != nil {
			var stderr []byte
			if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // of Output, never wrapped
				stderr = exit.Stderr
			}
			t.Fatalf("%s: %v\n%s", s.command, err, stderr)
		}
		got := strings.ReplaceAll(string(out), host, readmeRegistry)
		if !shown(s.want).MatchString(got) {
			t.Errorf("$ %s\n%s\n%s shows\n%s", s.command, got, file, s.want)
		}
	}
}

// The commands in docs/airgap.md do what it shows.
func TestAirgapDoc(t *testing.T) {
	text, err := os.ReadFile("../../docs/airgap.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var disk, next strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&disk, "%d\n", i)
		fmt.Fprintf(&next, "%s%d\n", map[bool]string{true: "new "}[i/10 == 5000], i)
	}
	for name, content := range map[string]string{"disk.raw": disk.String(), "next.raw": next.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, steps := range consoles(t, "docs/airgap.md", string(text)) {
		runSteps(t, "docs/airgap.md", dir, readmeRegistry, steps)
	}
}

// shown is what matches output as the README shows it.
func shown(want string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`\A`)
	for i, part := range strings.Split(want, "...") {
		if i > 0 {
			b.WriteString(`(?s:.*)`)
		}
		b.WriteString(regexp.QuoteMeta(part))
	}
	b.WriteString(`\z`)
	return regexp.MustCompile(b.String())
}

func TestShown(t *testing.T) {
	for _, tt := range []struct {
		want, got string
		ok        bool
	}{
		{"", "", true},
		{"", "x\n", false},
		{"created a\n", "created a\n", true},
		{"created a\n", "created b\n", false},
		{"packed sha256:...\n", "packed sha256:12 3 KiB\n", true},
		{"packed sha256:...\n", "packed sha512:12 3 KiB\n", false},
		{"...\n", "one\ntwo\n", true},
	} {
		if got := shown(tt.want).MatchString(tt.got); got != tt.ok {
			t.Errorf("%q shown as %q: %v, want %v", tt.got, tt.want, got, tt.ok)
		}
	}
}

// The commands in docs/extract.md do what it shows, on artifacts that are made as
// other tools make them. There stderr is shown too, and the exit status.
func TestExtractDoc(t *testing.T) {
	text, err := os.ReadFile("../../docs/extract.md")
	if err != nil {
		t.Fatal(err)
	}
	noCredentials(t)
	dir := t.TempDir()
	makeSelections(t, dir)
	// Shorter names than those of the table of selections.
	for from, to := range map[string]string{"buildkit-old": "buildkit", "helm-prov-first": "helm"} {
		if err := errors.Join(os.RemoveAll(filepath.Join(dir, to)), os.Rename(filepath.Join(dir, from), filepath.Join(dir, to))); err != nil {
			t.Fatal(err)
		}
	}
	host := regtest.Start(t, nil).Host
	mustGloci(t, "sync", filepath.Join(dir, "gl")+":2150.1.0", "docker://"+host+"/gardenlinux:2150.1.0", "--tls-verify=false", "-q")
	commands := 0
	for _, steps := range consoles(t, "docs/extract.md", string(text)) {
		for _, s := range steps {
			commands++
			cmd := exec.CommandContext(context.Background(), "bash", "-euc", strings.ReplaceAll(s.command, readmeRegistry, host))
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "LC_ALL=C")
			out, err := cmd.CombinedOutput()
			got := strings.ReplaceAll(string(out), host, readmeRegistry)
			if got != "" && !strings.HasSuffix(got, "\n") {
				got += "\n" // a document cannot show that it is missing
			}
			if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // of CombinedOutput, never wrapped
				got += fmt.Sprintf("[exit status %d]\n", exit.ExitCode())
			} else if err != nil {
				t.Fatal(err)
			}
			// "..." stands for any text, but not for a failure.
			failed := strings.Contains(got, "[exit status") && !strings.Contains(s.want, "[exit status")
			if failed || !shown(s.want).MatchString(got) {
				t.Errorf("$ %s\n%s\ndocs/extract.md shows\n%s", s.command, got, s.want)
			}
		}
	}
	if commands < 20 {
		t.Errorf("docs/extract.md shows only %d commands", commands)
	}
}
