package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/containers/image/v5/signature/sigstore"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       *update,
		Setup: func(env *testscript.Env) error {
			// Nothing of the machine: no credentials, no registries.conf, no policy.
			env.Setenv("HOME", filepath.Join(env.WorkDir, ".home"))
			env.Setenv("XDG_RUNTIME_DIR", filepath.Join(env.WorkDir, ".run"))
			env.Setenv("CONTAINERS_REGISTRIES_CONF", "/dev/null")
			env.Setenv("LC_ALL", "C")
			env.Values["t"] = env.T()
			env.Values["registries"] = map[string]*regtest.Registry{}
			for _, dir := range []string{".home", ".run"} {
				if err := os.Mkdir(filepath.Join(env.WorkDir, dir), 0o700); err != nil {
					return err
				}
			}
			return nil
		},
		Condition: scriptCondition,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"status":   cmdStatus,
			"image":    cmdImage,
			"multi":    cmdMulti,
			"registry": cmdRegistry,
			"requests": cmdRequests,
			"sigkey":   cmdSigkey,
			"flip":     cmdFlip,
			"bash":     cmdBash,
		},
	})
}

// scriptCondition knows [tool:NAME]: NAME is installed. Where CI is set, a
// missing tool is a failure, as a green run must not mean that nothing ran.
func scriptCondition(cond string) (bool, error) {
	if cond == "root" {
		return os.Geteuid() == 0, nil
	}
	name, ok := strings.CutPrefix(cond, "tool:")
	if !ok {
		return false, fmt.Errorf("unknown condition %q", cond)
	}
	_, err := exec.LookPath(name)
	if err != nil && os.Getenv("CI") != "" {
		return false, fmt.Errorf("%s is not installed: %w", name, err)
	}
	return err == nil, nil
}

// cmdStatus runs a command that must end with an exit status:
//
//	status 64 gloci-layout tag
//
// What it writes is for the commands stdout, stderr and cmp.
func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
	stderr := ts.ReadFile("stderr")
	if want == 0 || want == exitNo {
		return
	}
	// One clear line, then what belongs to it.
	lines := 0
	for line := range strings.Lines(stderr) {
		if strings.HasPrefix(line, "gloci-layout: ") {
			lines++
		}
	}
	if lines != 1 || strings.Contains(stderr, "goroutine ") {
		ts.Fatalf("stderr is not one clear error:\n%s", stderr)
	}
}

func withLayout(ts *testscript.TestScript, dir string, fn func(ctx context.Context, s *layout.Stage) error) {
	ctx := context.Background()
	dir = ts.MkAbs(dir)
	l, err := layout.Open(ctx, dir, nil)
	if errors.Is(err, layout.ErrNotFound) {
		l, err = layout.Create(ctx, dir, nil)
	}
	ts.Check(err)
	defer l.Close()
	s, err := l.Stage(ctx)
	ts.Check(err)
	defer s.Close()
	ts.Check(fn(ctx, s))
}

// cmdImage stores an image of one layer, the same for the same arguments:
//
//	image LAYOUT REFNAME OS/ARCH CONTENT     (REFNAME - stands for none)
func cmdImage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: image LAYOUT REFNAME OS/ARCH CONTENT")
	}
	withLayout(ts, args[0], func(ctx context.Context, s *layout.Stage) error {
		desc, err := stageImage(ctx, s, args[2], args[3])
		if err != nil {
			return err
		}
		desc.Platform = nil
		return s.Update(ctx, func(tx *layout.Tx) error { return nameIt(tx, args[1], desc) })
	})
}

// cmdMulti stores an image index:
//
//	multi LAYOUT REFNAME OS/ARCH=CONTENT...
func cmdMulti(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: multi LAYOUT REFNAME OS/ARCH=CONTENT...")
	}
	withLayout(ts, args[0], func(ctx context.Context, s *layout.Stage) error {
		x := layout.NewIndex()
		for _, a := range args[2:] {
			platform, content, _ := strings.Cut(a, "=")
			desc, err := stageImage(ctx, s, platform, content)
			if err != nil {
				return err
			}
			x.Add(desc)
		}
		return s.Update(ctx, func(tx *layout.Tx) error {
			desc, err := tx.PutDocument(x.Bytes(), ocispec.MediaTypeImageIndex)
			if err != nil {
				return err
			}
			return nameIt(tx, args[1], desc)
		})
	})
}

func nameIt(tx *layout.Tx, refName string, desc ocispec.Descriptor) error {
	if refName == "-" {
		tx.Index().Add(desc)
		return nil
	}
	tx.SetRef(refName, desc)
	return nil
}

func stageImage(ctx context.Context, s *layout.Stage, platform, content string) (ocispec.Descriptor, error) {
	p, err := layout.ParsePlatform(platform)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	layer, err := s.AddBytes(ctx, []byte(content), ocispec.MediaTypeImageLayer)
	if err != nil {
		return layer, err
	}
	config, err := s.AddBytes(ctx, fmt.Appendf(nil, `{"architecture":%q,"os":%q,"config":{},"rootfs":{"type":"layers","diff_ids":[%q]}}`,
		p.Architecture, p.OS, layer.Digest), ocispec.MediaTypeImageConfig)
	if err != nil {
		return config, err
	}
	raw, err := layout.EncodeManifest(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: config, Layers: []ocispec.Descriptor{layer},
	})
	if err != nil {
		return config, err
	}
	desc, err := s.AddBytes(ctx, raw, ocispec.MediaTypeImageManifest)
	desc.Platform = p
	return desc, err
}

// cmdSigkey makes a key pair of containers/image in NAME.private and NAME.pub,
// its passphrase in NAME.pass, and a policy that asks for it in NAME.json:
//
//	sigkey NAME
func cmdSigkey(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: sigkey NAME")
	}
	pair, err := sigstore.GenerateKeyPair([]byte("sesame"))
	ts.Check(err)
	name := ts.MkAbs(args[0])
	for suffix, content := range map[string]string{
		".private": string(pair.PrivateKey), ".pub": string(pair.PublicKey), ".pass": "sesame\n",
		".json": fmt.Sprintf(`{"default":[{"type":"sigstoreSigned","keyPath":%q}]}`, name+".pub"),
	} {
		ts.Check(os.WriteFile(name+suffix, []byte(content), 0o600))
	}
}

// cmdRegistry starts the reference registry and sets the variable NAME to its
// HOST:PORT:
//
//	registry NAME [USER:PASSWORD | delete]
func cmdRegistry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: registry NAME [USER:PASSWORD | delete]")
	}
	t, ok := ts.Value("t").(testing.TB)
	if !ok {
		ts.Fatalf("this test cannot start a registry")
	}
	opts := &regtest.Options{}
	if len(args) == 2 && args[1] == "delete" {
		opts.Delete = true
	} else if len(args) == 2 {
		user, password, _ := strings.Cut(args[1], ":")
		opts.Users = map[string]string{user: password}
	}
	r := regtest.Start(t, opts)
	ts.Setenv(args[0], r.Host)
	registries(ts)[args[0]] = r
}

// registries are those that this script has started, by name.
func registries(ts *testscript.TestScript) map[string]*regtest.Registry {
	m, ok := ts.Value("registries").(map[string]*regtest.Registry)
	if !ok {
		ts.Fatalf("this test has no registries")
	}
	return m
}

// cmdRequests checks how many requests registry NAME got since the last time:
//
//	requests NAME N
func cmdRequests(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: requests NAME N")
	}
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	r := registries(ts)[args[0]]
	if r == nil {
		ts.Fatalf("no registry %s", args[0])
	}
	if got := r.Count("", ""); want >= 0 && got != want {
		ts.Fatalf("%d requests, want %d: %v", got, want, r.Requests())
	}
	r.Reset()
}

// cmdFlip changes one byte of a blob or file:
//
//	flip LAYOUT CONTENT     (the blob that holds CONTENT)
//	flip FILE
func cmdFlip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: flip LAYOUT CONTENT | flip FILE")
	}
	file := ts.MkAbs(args[0])
	if len(args) == 2 {
		file = filepath.Join(file, filepath.FromSlash(layout.BlobPath(digest.FromString(args[1]))))
	}
	b, err := os.ReadFile(file)
	ts.Check(err)
	b[len(b)/2] ^= 1
	ts.Check(os.WriteFile(file, b, 0o644))
}

// cmdBash runs one line of bash.
func cmdBash(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec("bash", "-c", strings.Join(args, " "))
	if (err != nil) != neg {
		ts.Fatalf("bash: %v", err)
	}
}

// Every command has a script of its name, so that none goes untested.
func TestScriptForEachCommand(t *testing.T) {
	app := newApp(&env{stdout: &output{w: t.Output()}, stderr: t.Output()})
	for _, c := range app.Commands {
		names := []string{c.Name}
		if len(c.Subcommands) > 0 {
			names = nil
			for _, sub := range c.Subcommands {
				names = append(names, c.Name+"_"+sub.Name)
			}
		}
		for _, name := range names {
			if c.Hidden {
				continue
			}
			file := filepath.Join("testdata/script", name+".txtar")
			if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
				t.Errorf("command %s has no script %s", name, file)
			}
		}
	}
}

// A script that never looks at a result tests nothing.
func TestScriptsCheck(t *testing.T) {
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	check := regexp.MustCompile(`(?m)^(\[[^\]]*\] )*(! )?(stdout|stderr|cmp|cmpenv|status|exists|grep|requests) `)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(check.FindAll(b, -1)); n < 3 {
			t.Errorf("%s checks only %d things", f, n)
		}
	}
}
