package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"
)

// TestMain has the program that the tests are be the peers, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "peer" {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestQuick runs an experiment with registries once, small, with the real
// program: more requests than are needed are an error.
func TestQuick(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	info, _ := debug.ReadBuildInfo()
	tags := ""
	for _, s := range info.Settings {
		if s.Key == "-tags" {
			tags = s.Value
		}
	}
	program := filepath.Join(t.TempDir(), "gloci-layout")
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", tags, "-o", program, "../../cmd/gloci-layout")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var out strings.Builder
	args := []string{"-quick", "-rounds", "1", "-program", program, "-dir", t.TempDir(), "-tmpfs", "", "-only", "^sync-changed$"}
	if err := run(t.Context(), args, &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, want := range []string{
		`(?m)^sync: one of 20 manifests has changed, registry that forgets, 20 ms\n.*\n  gloci-layout sync .* 1  1$`,
		// One more looks at what the tag names: would an entry be lost?
		`(?m)^  gloci-layout sync: 31 requests, .*\n(.*\n)*?  needed: 30 requests; ours are 1.03 times that$`,
		`(?m)^  oras-go oras.Copy: [0-9]+ requests`,
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("no %s in\n%s", want, &out)
		}
	}
}
