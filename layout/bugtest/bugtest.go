// Package bugtest plants bugs into a copy of the program and wants its tests to
// find them. A test that finds nothing would look like one that has nothing to
// find.
//
// All bugs of a list are in one binary, which is built once; the variable
// GLOCI_PLANTED chooses the one that it has. The sources stay as they are: go
// build takes the changed files from an overlay.
package bugtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
)

// Variable is the environment variable that names the planted bug.
const Variable = "GLOCI_PLANTED"

// A Bug is a way in which the program can be broken, and the test that has to
// find it. One without edits is the control: nothing may be found.
type Bug struct {
	Name  string
	Edits []Edit
	Run   string   // the test, for -test.run: as small as it can be
	Says  string   // what it says when it finds the bug: a regular expression
	Env   []string // more of the environment of the test
	Args  []string // more arguments of the test
}

// An Edit is a change of the program. Old stands once in File, whose path is
// below the directory of the module. PLANTED in New is true if the bug is the
// chosen one. If two bugs have one Old, it stands once in New, too.
type Edit struct{ File, Old, New string }

// Build runs go with args, which must build something with -o, where all bugs
// are in the sources of the module. It returns the path of what was built.
func Build(t *testing.T, module string, bugs []Bug, env []string, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	overlay, err := plant(module, dir, bugs)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "planted")
	args = append(args, "-overlay="+overlay, "-o", out)
	if tags := BuildTags(); tags != "" {
		args = append(args, "-tags="+tags)
	}
	cmd := exec.CommandContext(t.Context(), "go", append(args, ".")...)
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the bugs do not build: %v\n%s", err, b)
	}
	return out
}

// Mutants plants each bug into the tests of the package in the working directory,
// built once, and wants the test of the bug to find it. module is the directory
// of the module; env is more of the environment of go.
func Mutants(t *testing.T, module string, bugs []Bug, env ...string) {
	t.Helper()
	if testing.Short() {
		t.Skip("builds the tests once more")
	}
	if os.Getenv(Variable) != "" {
		t.Skip("inside a mutant")
	}
	path := Build(t, module, bugs, env, "test", "-c")
	for _, b := range bugs {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			b.Find(t, path)
		})
	}
}

// plant writes the changed files and the overlay that names them to dir.
func plant(module, dir string, bugs []Bug) (overlay string, err error) {
	module, err = filepath.Abs(module)
	if err != nil {
		return "", err
	}
	sources, planted := map[string]string{}, map[string]string{}
	for _, b := range bugs {
		for _, e := range b.Edits {
			file := filepath.Join(module, filepath.FromSlash(e.File))
			if _, ok := sources[file]; !ok {
				raw, err := os.ReadFile(file)
				if err != nil {
					return "", err
				}
				sources[file], planted[file] = string(raw), string(raw)
			}
			for _, text := range []string{sources[file], planted[file]} {
				if n := strings.Count(text, e.Old); n != 1 {
					return "", fmt.Errorf("%s: %s holds the text to be changed %d times, want once: the bug has to follow the program:\n%s", b.Name, e.File, n, e.Old)
				}
			}
			chosen := "(plantedBug == " + strconv.Quote(b.Name) + ")"
			planted[file] = strings.Replace(planted[file], e.Old, strings.ReplaceAll(e.New, "PLANTED", chosen), 1)
		}
	}
	replace := map[string]string{}
	add := func(file, text string) error {
		if replace[file] == "" {
			replace[file] = filepath.Join(dir, strconv.Itoa(len(replace))+".go")
		}
		return os.WriteFile(replace[file], []byte(text), 0o600)
	}
	for file, text := range planted {
		syntax, err := parser.ParseFile(token.NewFileSet(), file, sources[file], parser.PackageClauseOnly)
		if err != nil {
			return "", err
		}
		choice := "package " + syntax.Name.Name + "\n\nimport \"os\"\n\nvar plantedBug = os.Getenv(" + strconv.Quote(Variable) + ")\n"
		if err := errors.Join(add(file, text), add(filepath.Join(filepath.Dir(file), "planted_bug.go"), choice)); err != nil {
			return "", err
		}
	}
	raw, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, raw, 0o600)
}

// BuildTags returns the build tags of the running test binary.
func BuildTags() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "-tags" {
			return s.Value
		}
	}
	return ""
}

// Find runs the test of the bug, in the test binary at path, and wants it to
// find the bug.
func (b Bug) Find(t *testing.T, path string, env ...string) {
	t.Helper()
	// -test.v tells a test that was skipped from one that passed.
	args := append([]string{"-test.run=" + b.Run, "-test.v", "-test.timeout=5m"}, b.Args...)
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = append(append(os.Environ(), env...), b.Env...)
	if len(b.Edits) > 0 {
		cmd.Env = append(cmd.Env, Variable+"="+b.Name)
	}
	raw, err := cmd.CombinedOutput()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	exit, out := cmd.ProcessState.ExitCode(), string(raw)
	found := regexp.MustCompile(".*(" + b.Says + ").*").FindString(out)
	switch {
	case strings.Contains(out, "--- SKIP"):
		t.Skipf("SKIPPED, it cannot be shown here that this is found:\n%s", shorten(out))
	case len(b.Edits) == 0 && exit != 0:
		t.Errorf("%s finds a bug where there is none:\n%s", b.Run, shorten(out))
	case len(b.Edits) == 0:
		for name := range strings.SplitSeq(b.Run, "|") {
			name, _, _ = strings.Cut(strings.TrimPrefix(name, "^"), "$")
			if !strings.Contains(out, "--- PASS: "+name+" ") {
				t.Errorf("%s did not run:\n%s", name, shorten(out))
			}
		}
	case exit == 0:
		t.Errorf("%s does not find it", b.Run)
	// A test that fails ends with 1; 2 is a panic or a wrong flag.
	case exit != 1 || found == "":
		t.Errorf("%s ends with exit %d and does not say %q:\n%s", b.Run, exit, b.Says, shorten(out))
	default:
		t.Logf("found: %.300s", strings.TrimSpace(found))
	}
}

// shorten returns the end of a long output.
func shorten(out string) string {
	const most = 4000
	if len(out) <= most {
		return out
	}
	return "...\n" + out[len(out)-most:]
}
