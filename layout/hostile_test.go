package layout_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// The tests in hostile_*_test.go give the package what an attacker would: each
// case has to end in the right error, soon, without much memory.

const (
	hexA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	hexE = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" // of nothing

	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar"

	hostileTime   = 5 * time.Second // under load; all cases take well under 1 s alone
	hostileMemory = 64 << 20        // 64 MiB
)

// bounded runs f and fails the test if it takes too long, allocates too much or
// panics. What f still runs when time is up ends with the test binary.
func bounded(t *testing.T, f func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	done := make(chan any, 1)
	go func() {
		defer func() { done <- recover() }()
		f()
	}()
	select {
	case p := <-done:
		if p != nil {
			t.Fatalf("panic: %v", p)
		}
	case <-time.After(hostileTime):
		t.Fatalf("not done after %v", hostileTime)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > hostileMemory {
		t.Errorf("allocated %d MiB, want at most %d", n>>20, hostileMemory>>20)
	}
}

// checkError fails unless err is want (nil is success) and reads like a message.
func checkError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s = %v, want %v", what, err, want)
		return
	}
	if err == nil {
		return
	}
	text := err.Error()
	if strings.ContainsFunc(text, func(r rune) bool { return r < 0x20 && r != '\n' || r == 0x7f || r == 0x1b }) {
		t.Errorf("%s: control characters in the message %q", what, text)
	}
	if len(text) > 4096 {
		t.Errorf("%s: a message of %d bytes", what, len(text))
	}
}

// A tree is a layout directory made by hand, so that it can hold anything.
type tree struct {
	t   *testing.T
	dir string
}

func newTree(t *testing.T) *tree {
	t.Helper()
	tr := &tree{t: t, dir: t.TempDir()}
	tr.file("oci-layout", `{"imageLayoutVersion":"1.0.0"}`)
	tr.mkdir("blobs/sha256")
	return tr
}

func (tr *tree) path(name string) string { return filepath.Join(tr.dir, filepath.FromSlash(name)) }

func (tr *tree) mkdir(name string) {
	tr.t.Helper()
	if err := os.MkdirAll(tr.path(name), 0o755); err != nil {
		tr.t.Fatal(err)
	}
}

func (tr *tree) file(name, content string) {
	tr.t.Helper()
	if err := os.WriteFile(tr.path(name), []byte(content), 0o644); err != nil {
		tr.t.Fatal(err)
	}
}

// blob stores content and returns its descriptor.
func (tr *tree) blob(mediaType, content string) ocispec.Descriptor {
	tr.t.Helper()
	d := digest.FromString(content)
	tr.file("blobs/sha256/"+d.Encoded(), content)
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}
}

// image stores a manifest with a config and one layer that holds text.
func (tr *tree) image(text string) ocispec.Descriptor {
	tr.t.Helper()
	return tr.manifest(tr.blob(typeConfig, `{"architecture":"amd64","os":"linux","config":{"User":`+encode(text)+`}}`),
		tr.blob(typeLayer, text))
}

func (tr *tree) manifest(config ocispec.Descriptor, layers ...ocispec.Descriptor) ocispec.Descriptor {
	tr.t.Helper()
	m := ocispec.Manifest{MediaType: typeManifest, Config: config, Layers: layers}
	m.SchemaVersion = 2
	return tr.blob(typeManifest, encode(m))
}

// index stores an image index.
func (tr *tree) index(members ...ocispec.Descriptor) ocispec.Descriptor {
	tr.t.Helper()
	return tr.blob(typeIndex, indexText(members...))
}

// roots writes index.json.
func (tr *tree) roots(members ...ocispec.Descriptor) {
	tr.t.Helper()
	tr.file("index.json", indexText(members...))
}

func (tr *tree) open(opts *layout.Options) (*layout.Layout, error) {
	return layout.Open(tr.t.Context(), tr.dir, opts)
}

// verify opens the layout and verifies all of it; findings are errors.
func (tr *tree) verify(ctx context.Context) error { return tr.verifyWith(ctx, nil) }

func (tr *tree) verifyWith(ctx context.Context, opts *layout.Options) error {
	l, err := tr.open(opts)
	if err != nil {
		return err
	}
	defer l.Close()
	res, err := layout.Verify(ctx, l, nil)
	if err != nil {
		return err
	}
	for _, f := range res.Findings {
		cause := f.Err
		if cause == nil {
			cause = errStray
		}
		err = errors.Join(err, fmt.Errorf("%s: %s: %s: %w", f.Path, f.Kind, f.Detail, cause))
	}
	return err
}

// errStray stands for a finding that has no cause but itself.
var errStray = errors.New("finding")

// walk opens the layout and walks all of it, to the first error.
func (tr *tree) walk(ctx context.Context) (nodes int, err error) {
	l, err := tr.open(nil)
	if err != nil {
		return 0, err
	}
	defer l.Close()
	x, err := l.Index(ctx)
	if err != nil {
		return 0, err
	}
	for _, err := range layout.Walk(ctx, l, x.Entries(), nil) {
		if err != nil {
			return nodes, err
		}
		nodes++
	}
	return nodes, nil
}

func indexText(members ...ocispec.Descriptor) string {
	x := ocispec.Index{MediaType: typeIndex, Manifests: members}
	x.SchemaVersion = 2
	if members == nil {
		x.Manifests = []ocispec.Descriptor{}
	}
	return encode(x)
}

// encode returns v as encoding/json writes it.
func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // only values of tests
	}
	return string(b)
}
