package main

import (
	"context"
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

// firstConsole returns the steps of the first ```console block.
func firstConsole(t *testing.T, text string) []step {
	t.Helper()
	_, rest, ok := strings.Cut(text, "\n```console\n")
	block, _, ok2 := strings.Cut(rest, "```\n")
	if !ok || !ok2 {
		t.Fatal("README.md has no console block")
	}
	var steps []step
	for line := range strings.Lines(block) {
		switch command, ok := strings.CutPrefix(line, "$ "); {
		case ok:
			steps = append(steps, step{command: strings.TrimSuffix(command, "\n")})
		case len(steps) == 0:
			t.Fatalf("README.md: output %q before the first command", line)
		default:
			steps[len(steps)-1].want += line
		}
	}
	return steps
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
	steps := firstConsole(t, string(text))
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
			t.Errorf("$ %s\n%s\nREADME.md shows\n%s", s.command, got, s.want)
		}
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
