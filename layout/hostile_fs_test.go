//go:build unix

package layout_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/gardenlinux/gloci-layout/layout"
)

// soundTree returns a sound layout, whose parts the cases replace, and its layer.
func soundTree(t *testing.T) (tr *tree, layer ocispec.Descriptor) {
	t.Helper()
	tr = newTree(t)
	layer = tr.blob(typeLayer, "layer")
	tr.roots(tr.manifest(tr.blob(typeConfig, "{}"), layer))
	return tr, layer
}

// away moves name out of the layout and puts a symbolic link in its place.
func (tr *tree) away(name string, target func(moved string) string) {
	tr.t.Helper()
	moved := tr.t.TempDir() + "/moved"
	if err := os.Rename(tr.path(name), moved); err != nil {
		tr.t.Fatal(err)
	}
	if err := os.Symlink(target(moved), tr.path(name)); err != nil {
		tr.t.Fatal(err)
	}
}

func itself(moved string) string { return moved }

// replace puts something that create makes in the place of name.
func (tr *tree) replace(name string, create func(path string) error) {
	tr.t.Helper()
	if err := errors.Join(os.RemoveAll(tr.path(name)), create(tr.path(name))); err != nil {
		tr.t.Fatal(err)
	}
}

func fifo(path string) error { return unix.Mkfifo(path, 0o644) }

func directory(path string) error { return os.Mkdir(path, 0o755) }

func socket(path string) error {
	// A name of at most 107 bytes: the socket is born elsewhere.
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/s", Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	return errors.Join(os.Rename(dir+"/s", path), l.Close())
}

func symlink(target string) func(string) error {
	return func(path string) error { return os.Symlink(target, path) }
}

// L1, L2: whatever stands in the place of a file or a directory of the layout, it
// is refused at once; no read waits for the other end of a FIFO.
func TestHostileFiles(t *testing.T) {
	hex := digest.FromString("layer").Encoded()
	blob := "blobs/sha256/" + hex
	for _, tt := range []struct {
		name   string
		change func(tr *tree)
		want   error
		follow error // what is wanted with FollowSymlinks
	}{
		{"symlinked oci-layout", func(tr *tree) { tr.away("oci-layout", itself) }, layout.ErrUnsafe, nil},
		{"symlinked index.json", func(tr *tree) { tr.away("index.json", itself) }, layout.ErrUnsafe, nil},
		{"symlinked blobs", func(tr *tree) { tr.away("blobs", itself) }, layout.ErrUnsafe, nil},
		{"symlinked blobs/sha256", func(tr *tree) { tr.away("blobs/sha256", itself) }, layout.ErrUnsafe, nil},
		{"symlinked blob", func(tr *tree) { tr.away(blob, itself) }, layout.ErrUnsafe, nil},
		{"blob linked to a blob beside it", func(tr *tree) {
			tr.file("blobs/sha256/"+hexA, "layer")
			tr.replace(blob, symlink(hexA))
		}, layout.ErrUnsafe, layout.ErrMismatch}, // hexA itself is not what its name says
		{"blob linked to itself", func(tr *tree) { tr.replace(blob, symlink(hex)) }, layout.ErrUnsafe, errAny},
		{"blob linked to nothing", func(tr *tree) { tr.replace(blob, symlink("nothing")) }, layout.ErrUnsafe, errAny},
		{"blob linked to an endless device", func(tr *tree) { tr.replace(blob, symlink("/dev/zero")) }, layout.ErrUnsafe, layout.ErrUnsafe},
		{"index.json linked to an endless device", func(tr *tree) { tr.replace("index.json", symlink("/dev/zero")) }, layout.ErrUnsafe, layout.ErrUnsafe},
		{"index.json linked to a secret", func(tr *tree) { tr.replace("index.json", symlink("/etc/passwd")) }, layout.ErrUnsafe, layout.ErrInvalid},
		{"FIFO as oci-layout", func(tr *tree) { tr.replace("oci-layout", fifo) }, layout.ErrUnsafe, layout.ErrUnsafe},
		{"FIFO as index.json", func(tr *tree) { tr.replace("index.json", fifo) }, layout.ErrUnsafe, layout.ErrUnsafe},
		{"FIFO as a blob", func(tr *tree) { tr.replace(blob, fifo) }, layout.ErrUnsafe, layout.ErrUnsafe},
		{"FIFO as blobs", func(tr *tree) { tr.replace("blobs", fifo) }, errAny, errAny},
		{"socket as a blob", func(tr *tree) { tr.replace(blob, socket) }, layout.ErrUnsafe, layout.ErrUnsafe},
		{"directory as oci-layout", func(tr *tree) { tr.replace("oci-layout", directory) }, errAny, errAny},
		{"directory as index.json", func(tr *tree) { tr.replace("index.json", directory) }, errAny, errAny},
		{"directory as a blob", func(tr *tree) { tr.replace(blob, directory) }, layout.ErrUnsafe, layout.ErrUnsafe},
		{"file as blobs", func(tr *tree) {
			tr.replace("blobs", func(p string) error { return os.WriteFile(p, nil, 0o644) })
		}, errAny, errAny},
		{"file as blobs/sha256", func(tr *tree) {
			tr.replace("blobs/sha256", func(p string) error { return os.WriteFile(p, nil, 0o644) })
		}, errAny, errAny},
	} {
		for _, follow := range []bool{false, true} {
			name, want := tt.name, tt.want
			if follow {
				name, want = name+", followed", tt.follow
			}
			t.Run(name, func(t *testing.T) {
				tr, _ := soundTree(t)
				tt.change(tr)
				bounded(t, func() {
					err := tr.verifyWith(t.Context(), &layout.Options{FollowSymlinks: follow})
					if errors.Is(want, errAny) {
						if err == nil {
							t.Error("accepted")
						}
						return
					}
					checkError(t, "Open and Verify", err, want)
				})
			})
		}
	}
}

// errAny stands for "refused, with whatever fits".
var errAny = errors.New("any error")

// A FIFO or a link in the place of a blob does not stop those who read that blob
// alone, either.
func TestHostileFilesBlob(t *testing.T) {
	for name, make := range map[string]func(string) error{
		"fifo": fifo, "directory": directory, "link": symlink("/etc/passwd"), "device": symlink("/dev/zero"),
	} {
		t.Run(name, func(t *testing.T) {
			tr, layer := soundTree(t)
			tr.replace("blobs/sha256/"+layer.Digest.Encoded(), make)
			bounded(t, func() {
				l, err := tr.open(nil)
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				_, err = layout.ReadAll(t.Context(), l, layer, 1<<20)
				checkError(t, "ReadAll", err, layout.ErrUnsafe)
			})
		})
	}
}

// What is no layout, and what is one of another version.
func TestHostileMarker(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(tr *tree)
		want   error
	}{
		{"sound", func(*tree) {}, nil},
		{"sound, newline", func(tr *tree) { tr.file("oci-layout", `{"imageLayoutVersion": "1.0.0"}`+"\n") }, nil},
		{"sound, unknown field", func(tr *tree) { tr.file("oci-layout", `{"imageLayoutVersion":"1.0.0","x":[1]}`) }, nil},
		{"no marker", func(tr *tree) { tr.replace("oci-layout", func(string) error { return nil }) }, layout.ErrNotLayout},
		{"empty marker", func(tr *tree) { tr.file("oci-layout", "") }, errAny},
		{"marker is no JSON", func(tr *tree) { tr.file("oci-layout", "layout") }, errAny},
		{"marker without version", func(tr *tree) { tr.file("oci-layout", "{}") }, errAny},
		{"version twice", func(tr *tree) {
			tr.file("oci-layout", `{"imageLayoutVersion":"1.0.0","imageLayoutVersion":"2.0.0"}`)
		}, errAny},
		{"version in another case", func(tr *tree) { tr.file("oci-layout", `{"ImageLayoutVersion":"1.0.0"}`) }, errAny},
		{"version 2", func(tr *tree) { tr.file("oci-layout", `{"imageLayoutVersion":"2.0.0"}`) }, errAny},
		{"marker of 64 MiB", func(tr *tree) {
			tr.file("oci-layout", "{")
			if err := os.Truncate(tr.path("oci-layout"), 64<<20); err != nil {
				t.Fatal(err)
			}
		}, errAny},
		{"no index.json", func(tr *tree) { tr.replace("index.json", func(string) error { return nil }) }, errAny},
		{"empty index.json", func(tr *tree) { tr.file("index.json", "") }, layout.ErrInvalid},
		{"index.json of 8 GiB", func(tr *tree) {
			if err := os.Truncate(tr.path("index.json"), 8<<30); err != nil { // sparse
				t.Fatal(err)
			}
		}, layout.ErrInvalid},
		{"no blobs", func(tr *tree) { tr.replace("blobs", func(string) error { return nil }) }, errAny},
		{"no directory", func(tr *tree) { tr.dir += "/nothing" }, layout.ErrNotFound},
		{"a file", func(tr *tree) { tr.dir = tr.path("index.json") }, errAny},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr, _ := soundTree(t)
			tt.change(tr)
			bounded(t, func() {
				err := tr.verify(t.Context())
				if errors.Is(tt.want, errAny) {
					if err == nil {
						t.Error("accepted")
					}
					return
				}
				checkError(t, "Open and Verify", err, tt.want)
			})
		})
	}
}

// Names in blobs/ that are no blobs are shown, and harm nothing.
func TestHostileStray(t *testing.T) {
	for _, name := range []string{
		"blobs/sha256/readme.txt", "blobs/sha256/" + strings.ToUpper(hexA), "blobs/sha256/" + hexA + ".tmp",
		"blobs/sha384/" + hexA + hexA[:32], "blobs/sha256/x\x1b[31m\n", "blobs/sha512/" + hexA, "blobs/file",
	} {
		t.Run(encode(name), func(t *testing.T) {
			tr, _ := soundTree(t)
			tr.mkdir("blobs/sha384")
			tr.mkdir("blobs/sha512")
			tr.file(name, "x")
			bounded(t, func() {
				l, err := tr.open(nil)
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				n := 0
				for b, err := range l.Blobs(t.Context()) {
					if err != nil {
						t.Errorf("Blobs: %v", err)
						break
					}
					if _, err := layout.ParseDigest(string(b.Digest)); err != nil {
						t.Errorf("Blobs gives %q", b.Digest)
					}
					n++
				}
				if n != 3 {
					t.Errorf("%d blobs, want 3", n)
				}
				if _, err := layout.Verify(t.Context(), l, nil); err != nil {
					t.Errorf("Verify: %v", err)
				}
			})
		})
	}
}

// L4: the layout changes while it is read. A blob that somebody swaps, cuts and
// puts back gives its bytes or an error, never other bytes.
func TestHostileChangeWhileRead(t *testing.T) {
	tr := newTree(t)
	content := strings.Repeat("layer ", 50_000)
	layer := tr.blob(typeLayer, content)
	tr.roots(tr.manifest(tr.blob(typeConfig, "{}"), layer))
	l, err := tr.open(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	path := tr.path("blobs/sha256/" + layer.Digest.Encoded())
	ctx, cancel := context.WithCancel(t.Context())
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			switch i % 4 {
			case 0:
				_ = os.Truncate(path, 1000)
			case 1:
				_ = os.WriteFile(path, []byte(strings.Repeat("other ", 50_000)), 0o644)
			case 2:
				_ = os.Remove(path)
			case 3:
				_ = os.WriteFile(path, []byte(content), 0o644)
				time.Sleep(2 * time.Millisecond)
			}
		}
	})
	good, bad := 0, 0
	// Both must be met, or the test shows nothing.
	for end := time.Now().Add(20 * time.Second); (good < 30 || bad < 100) && time.Now().Before(end); {
		rc, err := l.Blob(t.Context(), layer)
		var got []byte
		if err == nil {
			got, err = io.ReadAll(rc)
			rc.Close()
		}
		switch {
		case err == nil && string(got) == content:
			good++
		case err == nil:
			t.Fatal("other bytes were read without an error")
		case errors.Is(err, layout.ErrMismatch), errors.Is(err, layout.ErrNotFound):
			bad++
		default:
			t.Fatalf("read: %v", err)
		}
	}
	cancel()
	writer.Wait()
	t.Logf("%d reads whole, %d refused", good, bad)
	if good == 0 || bad == 0 {
		t.Error("the test shows nothing")
	}
}
