//go:build linux && (amd64 || arm64)

package main_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/gardenlinux/gloci-layout/cmd/gloci-layout/internal/killpoint"
)

const (
	hostileMemory = 256 << 20
	hostileTime   = 20 * time.Second // under load; all of them take well under 2 s alone
	hexA          = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
)

// runHostile runs the program on what an attacker made: it ends soon, with little
// memory, with the exit status wanted, and with one clear line if that is not 0.
// What it prints holds nothing that moves a terminal.
func runHostile(t *testing.T, dir string, want int, args ...string) {
	t.Helper()
	what := strings.Join(args, " ")
	res, err := killpoint.Run(t.Context(), killpoint.Command{
		Path: binary(t), Args: append(args, "--no-progress"), Dir: dir, Env: append(binaryEnv(dir), "TMPDIR="+dir),
		Under: filepath.Join(dir, "nothing"), Timeout: hostileTime,
	}, killpoint.Plan{})
	if errors.Is(err, killpoint.ErrUnsupported) {
		t.Skipf("SKIPPED, memory is not measured here: %v", err)
	}
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if res.Exit != want {
		t.Errorf("%s: exit %d, signal %v, want %d\n%.2000s%.2000s", what, res.Exit, res.Signal, want, res.Stdout, res.Stderr)
	}
	if res.Exit > 1 {
		checkMessage(t, what, string(res.Stderr))
	}
	if res.MaxRSS > hostileMemory {
		t.Errorf("%s: %d MiB of memory, want at most %d", what, res.MaxRSS>>20, hostileMemory>>20)
	}
	for name, b := range map[string][]byte{"stdout": res.Stdout, "stderr": res.Stderr} {
		if args[0] != "cat" && bytes.ContainsFunc(b, func(r rune) bool { return r != '\n' && r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x202e }) {
			t.Errorf("%s: control characters on %s: %q", what, name, b)
		}
	}
}

func TestHostileLayouts(t *testing.T) {
	entry := `{"mediaType":"` + testTypeManifest + `","digest":"sha256:` + hexA + `","size":7}`
	index := func(entries string) string { return `{"schemaVersion":2,"manifests":[` + entries + `]}` }
	raw := func(text string) func(l *rawLayout) {
		return func(l *rawLayout) { l.file("index.json", text) }
	}
	for _, tt := range []struct {
		name string
		make func(l *rawLayout)
		args []string // L is the layout
		want int
	}{
		{"empty index.json", raw(""), []string{"ls", "L"}, 5},
		{"torn index.json", raw(index(entry)[:50]), []string{"ls", "L"}, 5},
		{"zeros", raw(strings.Repeat("\x00", 4096)), []string{"verify", "L"}, 5},
		{"name twice", raw(`{"manifests":[],` + index(entry)[1:]), []string{"tree", "L"}, 5},
		{"name in another case", raw(strings.Replace(index(entry), `"size"`, `"Size":1,"size"`, 1)), []string{"ls", "L"}, 5},
		{"bytes after the end", raw(index(entry) + "{}"), []string{"verify", "L"}, 5},
		{"byte order mark", raw("\ufeff" + index(entry)), []string{"ls", "L"}, 5},
		{"deep", raw(strings.Repeat(`{"a":`, 700_000)), []string{"ls", "L"}, 5},
		{"a million entries", raw(index(strings.Repeat("{},", 1<<20) + "{}")), []string{"ls", "L"}, 5},
		{"negative size", raw(index(strings.Replace(entry, ":7", ":-7", 1))), []string{"verify", "L"}, 5},
		{"digest with a path", raw(index(strings.Replace(entry, hexA, "../../../../etc/passwd", 1))), []string{"cat", "L"}, 64},
		{"digest with a path, listed", raw(index(strings.Replace(entry, hexA, "../../../../etc/passwd", 1))), []string{"inspect", "L"}, 5},
		{"data that lies", raw(index(strings.Replace(entry, ":7", `:7,"data":"aGVsbG8="`, 1))), []string{"ls", "L"}, 5},
		{"layers beside manifests", raw(`{"layers":[],` + index(entry)[1:]), []string{"ls", "L"}, 5},
		{"edit of a bad index.json", raw(`{"layers":[],` + index(entry)[1:]), []string{"tag", "L", "a", "b"}, 5},
		{"gc of a bad index.json", raw(`{"layers":[],` + index(entry)[1:]), []string{"gc", "L", "--grace", "0"}, 5},
		{"index.json of 8 GiB", func(l *rawLayout) { l.sparse("index.json", 8<<30) }, []string{"ls", "L"}, 5},
		{"oci-layout of 8 GiB", func(l *rawLayout) { l.sparse("oci-layout", 8<<30) }, []string{"ls", "L"}, 5},
		{"no oci-layout", func(l *rawLayout) { l.remove("oci-layout") }, []string{"ls", "L"}, 2},
		{"no index.json", func(l *rawLayout) { l.remove("index.json") }, []string{"ls", "L"}, 5},
		{"no directory", func(*rawLayout) {}, []string{"ls", "./nothing"}, 3},
		{"version 2", func(l *rawLayout) { l.file("oci-layout", `{"imageLayoutVersion":"2.0.0"}`) }, []string{"ls", "L"}, 2},

		{"manifest that is missing", raw(index(entry)), []string{"tree", "L"}, 3},
		{"manifest that is missing, verified", raw(index(entry)), []string{"verify", "L"}, 1},
		{"manifest that is missing, gc", raw(index(entry)), []string{"gc", "L", "--grace", "0"}, 3},
		{"manifest that is missing, packed", raw(index(entry)), []string{"pack", "L", "out.oci"}, 3},
		{"an index called a manifest", func(l *rawLayout) {
			d := l.nested(l.image("x"))
			d.MediaType = testTypeManifest
			l.index(d)
		}, []string{"tree", "L"}, 5},
		{"an index called a manifest, verified", func(l *rawLayout) {
			d := l.nested(l.image("x"))
			d.MediaType = testTypeManifest
			l.index(d)
		}, []string{"verify", "L"}, 1},
		{"both at once", func(l *rawLayout) {
			c := l.encode(l.blob(testTypeConfig, "{}"))
			l.index(l.blob(testTypeManifest, `{"schemaVersion":2,"config":`+c+`,"layers":[],"manifests":[]}`))
		}, []string{"tree", "L"}, 5},
		{"manifest of 8 GiB", func(l *rawLayout) {
			l.sparse("blobs/sha256/"+hexA, 8<<30)
			l.index(ocispec.Descriptor{MediaType: testTypeManifest, Digest: "sha256:" + hexA, Size: 8 << 30})
		}, []string{"tree", "L"}, 5},
		{"flipped bit in a manifest", func(l *rawLayout) {
			d := l.image("x")
			l.flip(d)
			l.index(d)
		}, []string{"tree", "L"}, 5},
		{"flipped bit in a layer, verified", func(l *rawLayout) {
			layer := l.blob(testTypeLayer, "layer")
			l.index(l.manifest(l.blob(testTypeConfig, "{}"), layer))
			l.flip(layer)
		}, []string{"verify", "L"}, 1},
		{"flipped bit in a layer, packed", func(l *rawLayout) {
			layer := l.blob(testTypeLayer, "layer")
			l.index(l.manifest(l.blob(testTypeConfig, "{}"), layer))
			l.flip(layer)
		}, []string{"pack", "L", "out.oci"}, 5},
		{"layer that claims 2^62 bytes", func(l *rawLayout) {
			layer := l.blob(testTypeLayer, "layer")
			layer.Size = 1 << 62
			l.index(l.manifest(l.blob(testTypeConfig, "{}"), layer))
		}, []string{"pack", "L", "out.oci"}, 5},
		{"layer that claims 2^62 bytes, added", func(l *rawLayout) {
			layer := l.blob(testTypeLayer, "layer")
			layer.Size = 1 << 62
			l.index(l.manifest(l.blob(testTypeConfig, "{}"), layer))
		}, []string{"add", "image", "D", "oci:L", "--ref", "x"}, 5},
		{"200 levels", func(l *rawLayout) { l.index(deep(l, 200)) }, []string{"tree", "L"}, 5},
		{"200 levels, verified", func(l *rawLayout) { l.index(deep(l, 200)) }, []string{"verify", "L"}, 1},
		{"2^15 paths", func(l *rawLayout) {
			a, b := l.image("a"), l.image("b")
			for range 14 {
				a, b = l.nested(a, b), l.nested(b, a)
			}
			l.index(a, b)
		}, []string{"verify", "L"}, 0},
		{"2^15 paths, drawn", func(l *rawLayout) {
			a, b := l.image("a"), l.image("b")
			for range 14 {
				a, b = l.nested(a, b), l.nested(b, a)
			}
			l.index(a, b)
		}, []string{"tree", "L"}, 0},

		{"symlinked index.json", func(l *rawLayout) { l.away("index.json") }, []string{"ls", "L"}, 6},
		{"symlinked index.json, followed", func(l *rawLayout) { l.away("index.json") }, []string{"ls", "L", "--follow"}, 0},
		{"symlinked index.json, edited", func(l *rawLayout) { l.away("index.json") }, []string{"tag", "L", "a", "b"}, 6},
		{"symlinked blobs", func(l *rawLayout) { l.index(l.image("x")); l.away("blobs") }, []string{"tree", "L"}, 6},
		{"symlinked blobs, written to", func(l *rawLayout) { l.away("blobs") }, []string{"add", "image", "L", "oci:good:app", "--ref", "x"}, 6},
		{"symlinked .gloci", func(l *rawLayout) {
			l.must(os.Mkdir(l.dir+".away", 0o755))
			l.must(os.Symlink(l.dir+".away", l.path(".gloci")))
		}, []string{"add", "image", "L", "oci:good:app", "--ref", "x"}, 6},
		{"FIFO as index.json", func(l *rawLayout) { l.remove("index.json"); l.must(unix.Mkfifo(l.path("index.json"), 0o644)) }, []string{"ls", "L"}, 6},
		{"FIFO as oci-layout", func(l *rawLayout) { l.remove("oci-layout"); l.must(unix.Mkfifo(l.path("oci-layout"), 0o644)) }, []string{"ls", "L"}, 6},
		{"FIFO as a blob", func(l *rawLayout) {
			d := l.image("x")
			l.index(d)
			l.remove("blobs/sha256/" + d.Digest.Encoded())
			l.must(unix.Mkfifo(l.path("blobs/sha256/"+d.Digest.Encoded()), 0o644))
		}, []string{"tree", "L"}, 6},
		{"FIFO as a blob, verified", func(l *rawLayout) {
			d := l.image("x")
			l.index(d)
			l.remove("blobs/sha256/" + d.Digest.Encoded())
			l.must(unix.Mkfifo(l.path("blobs/sha256/"+d.Digest.Encoded()), 0o644))
		}, []string{"verify", "L"}, 1},
		{"FIFO as the lock", func(l *rawLayout) {
			l.must(os.Mkdir(l.path(".gloci"), 0o755))
			l.must(unix.Mkfifo(l.path(".gloci/lock"), 0o644))
		}, []string{"add", "image", "L", "oci:good:app", "--ref", "x"}, 6},
		{"blob linked to a secret", func(l *rawLayout) {
			secret := "the secret"
			d := digest.FromString(secret)
			l.must(os.WriteFile(l.dir+".secret", []byte(secret), 0o644))
			l.must(os.Symlink(l.dir+".secret", l.path("blobs/sha256/"+d.Encoded())))
			l.index(l.manifest(l.blob(testTypeConfig, "{}"), ocispec.Descriptor{MediaType: testTypeLayer, Digest: d, Size: int64(len(secret))}))
		}, []string{"pack", "L", "out.oci"}, 6},

		{"escapes in names", func(l *rawLayout) {
			l.index(named(l.image("x"), "\x1b[2Jx\u202e\x07\n\rforged"))
		}, []string{"ls", "L"}, 0},
		{"escapes in names, drawn", func(l *rawLayout) {
			d := named(l.image("x"), "\x1b[2Jx\u202e\x9b\n\rforged")
			d.ArtifactType = "a/b\x1b]0;x\x07"
			l.index(d)
		}, []string{"tree", "L"}, 0},
		{"escapes in a message", func(l *rawLayout) {
			l.index(named(l.image("x"), "\x1b[2Jx"), named(l.image("y"), "\x1b[2Jy"))
		}, []string{"add", "image", "D", "oci:L", "--ref", "x"}, 4},
		{"escapes in a media type", func(l *rawLayout) {
			d := l.image("x")
			d.MediaType = "a/b\x1b[2J"
			l.index(d)
		}, []string{"tree", "L"}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			tt.make(newRawLayout(t, filepath.Join(dir, "L")))
			newRawLayout(t, filepath.Join(dir, "D"))
			good := newRawLayout(t, filepath.Join(dir, "good"))
			good.index(named(good.image("good"), "app"))
			runHostile(t, dir, tt.want, tt.args...)
			if names, _ := filepath.Glob(filepath.Join(dir, "*out.oci*")); names != nil && tt.want != 0 {
				t.Errorf("left over: %q", names)
			}
			if names, _ := filepath.Glob(filepath.Join(dir, "L.away", "*")); names != nil {
				t.Errorf("written outside the layout: %q", names)
			}
		})
	}
}

func (r *rawLayout) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rawLayout) remove(name string) { r.t.Helper(); r.must(os.Remove(r.path(name))) }

func (r *rawLayout) sparse(name string, size int64) {
	r.t.Helper()
	r.file(name, "{")
	r.must(os.Truncate(r.path(name), size))
}

// flip changes one bit of a blob.
func (r *rawLayout) flip(desc ocispec.Descriptor) {
	r.t.Helper()
	name := r.path("blobs/sha256/" + desc.Digest.Encoded())
	b, err := os.ReadFile(name)
	r.must(err)
	b[len(b)/2] ^= 1
	r.must(os.WriteFile(name, b, 0o644))
}

// away moves name out of the layout and links to it.
func (r *rawLayout) away(name string) {
	r.t.Helper()
	moved := r.dir + "." + name
	r.must(os.Rename(r.path(name), moved))
	r.must(os.Symlink(moved, r.path(name)))
}

func deep(l *rawLayout, levels int) ocispec.Descriptor {
	d := l.image("deep")
	for range levels {
		d = l.nested(d)
	}
	return d
}

// What a crash of another tool has left at the place of a blob, of the right
// length, is not trusted for its name: adding the content heals it.
func TestAddHealsDamagedBlobs(t *testing.T) {
	content := "the content\n"
	for name, damaged := range map[string]string{
		"zeros": strings.Repeat("\x00", len(content)), "cut off": content[:4], "empty": "", "flipped": "tHe content\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			good := newRawLayout(t, filepath.Join(dir, "good"))
			good.index(named(good.image(content), "app"))
			l := newRawLayout(t, filepath.Join(dir, "L"))
			l.file("blobs/sha256/"+digest.FromString(content).Encoded(), damaged)
			if err := os.WriteFile(filepath.Join(dir, "file"), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
			l2 := newRawLayout(t, filepath.Join(dir, "L2"))
			l2.file("blobs/sha256/"+digest.FromString(content).Encoded(), damaged)
			mustRun(t, dir, "add", "image", "L", "oci:good:app", "--ref", "app", "--quiet")
			mustRun(t, dir, "add", "artifact", "L2", "file", "--ref", "x", "--artifact-type", "a/b", "--quiet")
			for _, dir := range []string{l.dir, l2.dir} {
				if err := verifyClean(t.Context(), dir); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
