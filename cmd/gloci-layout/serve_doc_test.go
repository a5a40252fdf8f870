package main

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The commands in docs/serve.md do what it shows, on the archive of the README and
// on a free port.
func TestServeDoc(t *testing.T) {
	text, err := os.ReadFile("../../docs/serve.md")
	if err != nil {
		t.Fatal(err)
	}
	noCredentials(t)
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	bash := func(command string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, "bash", "-euc", command)
		cmd.Dir = dir
		return cmd
	}
	prepare := bash("echo a kernel >vmlinuz; echo an initrd >initrd; gloci-layout init garden; " +
		"gloci-layout add artifact garden --ref 1.0.0 --artifact-type application/vnd.example.boot vmlinuz initrd; gloci-layout pack garden garden.oci")
	if out, err := prepare.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	steps := consoles(t, "docs/serve.md", string(text))[0]
	command, ok := strings.CutSuffix(steps[0].command, " &")
	if !ok || len(steps) < 2 {
		t.Fatalf("docs/serve.md begins with %q", steps[0].command)
	}
	server := bash("exec " + command + " --addr 127.0.0.1:0")
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Process.Signal(syscall.SIGINT); err != nil {
			t.Error(err)
		}
		if err := server.Wait(); err != nil {
			t.Errorf("serve ended with %v", err)
		}
	}()
	got, host := "", ""
	for lines := bufio.NewScanner(out); host == "" && lines.Scan(); {
		got += lines.Text() + "\n"
		_, host, _ = strings.Cut(lines.Text(), "listening on http://")
	}
	check := func(s step, got string) {
		t.Helper()
		if got = strings.ReplaceAll(got, host, readmeRegistry); !shown(s.want).MatchString(got) {
			t.Errorf("$ %s\n%s\ndocs/serve.md shows\n%s", s.command, got, s.want)
		}
	}
	check(steps[0], got)
	for _, s := range steps[1:] {
		out, err := bash(strings.ReplaceAll(s.command, readmeRegistry, host)).Output()
		if err != nil {
			t.Errorf("%s: %v", s.command, err)
		}
		check(s, string(out))
	}
}
