package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/bugtest"
)

// buildBinary builds the program as it is shipped: static, with the tags of this
// test run, without the race detector and without coverage. GLOCI_BINARY names
// another one, which is tested in its place.
var buildBinary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("GLOCI_BINARY"); path != "" {
		return filepath.Abs(path)
	}
	// go test removes the directory of the test binary, and ours with it.
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	out := filepath.Join(filepath.Dir(self), "gloci-layout.real")
	args := []string{"build", "-o", out}
	if tags := bugtest.BuildTags(); tags != "" {
		args = append(args, "-tags="+tags)
	}
	cmd := exec.CommandContext(context.Background(), "go", append(args, ".")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		return "", errors.New("go build: " + err.Error() + "\n" + string(b))
	}
	return out, nil
})

func binary(t testing.TB) string {
	t.Helper()
	path, err := buildBinary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// binaryEnv is the environment of the program in tests: nothing of the person
// who runs them.
func binaryEnv(home string) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + os.TempDir(), "LC_ALL=C", "GOMAXPROCS=2"}
	if bug, ok := os.LookupEnv(bugtest.Variable); ok {
		env = append(env, bugtest.Variable+"="+bug)
	}
	return env
}

// fastDir is t.TempDir in memory where that can be had: tests with thousands of
// fsyncs need not wait for a disk, which makes no difference to what they show.
func fastDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "gloci-layout-test")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// A ran is one finished run of the program.
type ran struct {
	exit           int
	stdout, stderr string
}

// runBinary runs the program in dir, a minute at most.
func runBinary(t testing.TB, dir string, args ...string) ran {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return runCommand(t, binaryCommand(ctx, t, dir, args...))
}

func binaryCommand(ctx context.Context, t testing.TB, dir string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(ctx, binary(t), args...)
	cmd.Dir, cmd.Env = dir, binaryEnv(dir)
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

func runCommand(t testing.TB, cmd *exec.Cmd) ran {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	r := ran{stdout: stdout.String(), stderr: stderr.String()}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", strings.Join(cmd.Args[1:], " "), err)
	}
	r.exit = cmd.ProcessState.ExitCode()
	return r
}

// mustRun is runBinary for the steps that are not what is tested.
func mustRun(t testing.TB, dir string, args ...string) ran {
	t.Helper()
	r := runBinary(t, dir, args...)
	if r.exit != 0 {
		t.Fatalf("gloci-layout %s: exit %d\n%s", strings.Join(args, " "), r.exit, r.stderr)
	}
	return r
}

// checkMessage fails unless stderr is one line of error, with further lines only
// as continuations, warnings and hints, and nothing that a person cannot read.
func checkMessage(t testing.TB, what, stderr string) {
	t.Helper()
	lines := 0
	for line := range strings.Lines(stderr) {
		switch {
		case strings.HasPrefix(line, "gloci-layout: "):
			lines++
		case strings.HasPrefix(line, "hint: "), strings.HasPrefix(line, "warning: "), strings.HasPrefix(line, "  "):
		default:
			t.Errorf("%s: unexpected line on stderr: %q", what, line)
		}
	}
	if lines != 1 || strings.Contains(stderr, "panic") || strings.Contains(stderr, "goroutine ") {
		t.Errorf("%s: stderr is not one clear line:\n%s", what, stderr)
	}
}

// verifyClean opens the layout in dir with the library and returns all damage.
func verifyClean(ctx context.Context, dir string) error {
	l, err := layout.Open(ctx, dir, nil)
	if err != nil {
		return err
	}
	defer l.Close()
	res, err := layout.Verify(ctx, l, &layout.VerifyOptions{Jobs: 1})
	if err != nil {
		return err
	}
	for _, f := range res.Findings {
		err = errors.Join(err, errors.New(f.Path+": "+f.Kind+": "+f.Detail))
	}
	return err
}

const (
	testTypeIndex    = "application/vnd.oci.image.index.v1+json"
	testTypeManifest = "application/vnd.oci.image.manifest.v1+json"
	testTypeConfig   = "application/vnd.oci.image.config.v1+json"
	testTypeLayer    = "application/vnd.oci.image.layer.v1.tar"
)

// A rawLayout is a layout made by hand, so that it can be a bad one.
type rawLayout struct {
	t   testing.TB
	dir string
}

func newRawLayout(t testing.TB, dir string) *rawLayout {
	t.Helper()
	r := &rawLayout{t, dir}
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.file("oci-layout", `{"imageLayoutVersion":"1.0.0"}`)
	r.index()
	return r
}

func (r *rawLayout) path(name string) string { return filepath.Join(r.dir, filepath.FromSlash(name)) }

func (r *rawLayout) file(name, content string) {
	r.t.Helper()
	if err := os.WriteFile(r.path(name), []byte(content), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rawLayout) blob(mediaType, content string) ocispec.Descriptor {
	r.t.Helper()
	d := digest.FromString(content)
	r.file("blobs/sha256/"+d.Encoded(), content)
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}
}

// image stores an image for linux/amd64 whose layer is content.
func (r *rawLayout) image(content string) ocispec.Descriptor {
	r.t.Helper()
	layer := r.blob(testTypeLayer, content)
	config := r.blob(testTypeConfig, `{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["`+string(layer.Digest)+`"]}}`)
	return r.manifest(config, layer)
}

func (r *rawLayout) manifest(config ocispec.Descriptor, layers ...ocispec.Descriptor) ocispec.Descriptor {
	r.t.Helper()
	m := ocispec.Manifest{MediaType: testTypeManifest, Config: config, Layers: layers}
	m.SchemaVersion = 2
	return r.blob(testTypeManifest, r.encode(m))
}

// files stores an artifact, whose files hold their names, and which may refer to
// something.
func (r *rawLayout) files(artifactType string, subject *ocispec.Descriptor, titles ...string) ocispec.Descriptor {
	r.t.Helper()
	m := ocispec.Manifest{MediaType: testTypeManifest, ArtifactType: artifactType, Config: r.blob(ocispec.MediaTypeEmptyJSON, "{}"), Subject: subject}
	m.SchemaVersion = 2
	for _, title := range titles {
		layer := r.blob("text/plain", title)
		layer.Annotations = map[string]string{ocispec.AnnotationTitle: title}
		m.Layers = append(m.Layers, layer)
	}
	return r.blob(testTypeManifest, r.encode(m))
}

func (r *rawLayout) nested(entries ...ocispec.Descriptor) ocispec.Descriptor {
	r.t.Helper()
	return r.blob(testTypeIndex, r.indexText(entries))
}

// index writes index.json.
func (r *rawLayout) index(entries ...ocispec.Descriptor) {
	r.t.Helper()
	r.file("index.json", r.indexText(entries))
}

func (r *rawLayout) indexText(entries []ocispec.Descriptor) string {
	r.t.Helper()
	x := ocispec.Index{MediaType: testTypeIndex, Manifests: append([]ocispec.Descriptor{}, entries...)}
	x.SchemaVersion = 2
	return r.encode(x)
}

func (r *rawLayout) encode(v any) string {
	r.t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

// named returns desc with a ref name.
func named(desc ocispec.Descriptor, refName string) ocispec.Descriptor {
	desc.Annotations = map[string]string{"org.opencontainers.image.ref.name": refName}
	return desc
}

func platform(os, arch string) *ocispec.Platform {
	return &ocispec.Platform{OS: os, Architecture: arch}
}
