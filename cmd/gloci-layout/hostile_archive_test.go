//go:build linux && (amd64 || arm64)

package main_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

// A tarball of a sound layout, to which the cases do something.
type tarMember struct {
	header tar.Header
	body   string
}

func soundMembers() []tarMember {
	config := `{"architecture":"amd64","os":"linux"}`
	layer := "layer"
	manifest := `{"schemaVersion":2,"mediaType":"` + testTypeManifest + `","config":{"mediaType":"` + testTypeConfig + `","digest":"` +
		string(digest.FromString(config)) + `","size":37},"layers":[{"mediaType":"` + testTypeLayer + `","digest":"` + string(digest.FromString(layer)) + `","size":5}]}`
	d := digest.FromString(manifest)
	blob := func(content string) tarMember {
		return regular("blobs/sha256/"+digest.FromString(content).Encoded(), content)
	}
	return []tarMember{
		regular("oci-layout", `{"imageLayoutVersion":"1.0.0"}`),
		regular("index.json", `{"schemaVersion":2,"manifests":[{"mediaType":"`+testTypeManifest+`","digest":"`+string(d)+`","size":`+strconv.Itoa(len(manifest))+`}]}`),
		blob(config), blob(layer), blob(manifest),
	}
}

func regular(name, body string) tarMember {
	return tarMember{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(body))}, body}
}

func tarball(t *testing.T, members []tarMember) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		if err := w.WriteHeader(&m.header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(m.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// T rows: what an .oci file must not hold, and wrappers that blow up. Each file
// is listed, verified and unpacked; nothing may appear outside of the target.
func TestHostileArchives(t *testing.T) {
	with := func(m ...tarMember) func(t *testing.T) []byte {
		return func(t *testing.T) []byte { return tarball(t, append(soundMembers(), m...)) }
	}
	link := func(typeflag byte, name, target string) tarMember {
		return tarMember{tar.Header{Typeflag: typeflag, Name: name, Linkname: target, Mode: 0o777}, ""}
	}
	for _, tt := range []struct {
		name string
		make func(t *testing.T) []byte
		want int // of unpack, and of ls unless that is given
		ls   []int
	}{
		{"sound", with(), 0, nil},
		{"sound, gzip", func(t *testing.T) []byte { return gzipped(t, tarball(t, soundMembers()), 0) }, 0, nil},
		{"sound, zstd", func(t *testing.T) []byte { return zstandard(t, tarball(t, soundMembers()), 0) }, 0, nil},
		{"path that climbs", with(regular("../evil", "x")), 6, nil},
		{"path that climbs inside", with(regular("blobs/../../evil", "x")), 6, nil},
		{"absolute path", with(regular("/tmp/evil", "x")), 6, nil},
		{"symlink", with(link(tar.TypeSymlink, "blobs/sha256/"+hexA, "/etc/passwd")), 6, nil},
		{"symlink as a directory", with(link(tar.TypeSymlink, "blobs/sha512", "/tmp"), regular("blobs/sha512/"+hexA+hexA, "x")), 6, nil},
		{"hard link", with(link(tar.TypeLink, "blobs/sha256/"+hexA, "/etc/passwd")), 6, nil},
		{"device", with(tarMember{tar.Header{Typeflag: tar.TypeChar, Name: "blobs/sha256/" + hexA, Devmajor: 1, Devminor: 5}, ""}), 6, nil},
		{"FIFO", with(tarMember{tar.Header{Typeflag: tar.TypeFifo, Name: "blobs/sha256/" + hexA}, ""}), 6, nil},
		{"member twice", with(soundMembers()[1]), 5, nil},
		{"blob of other bytes", with(regular("blobs/sha256/"+hexA, "x")), 5, []int{0}}, // ls does not look at it
		{"empty", func(*testing.T) []byte { return nil }, 2, nil},
		{"no archive", func(*testing.T) []byte { return []byte(strings.Repeat("no archive ", 1000)) }, 2, nil},
		{"only zeros", func(*testing.T) []byte { return make([]byte, 10240) }, 2, nil},
		{"cut off", func(t *testing.T) []byte { b := tarball(t, soundMembers()); return b[:len(b)/2] }, 5, nil},
		{"cut off, gzip", func(t *testing.T) []byte { b := gzipped(t, tarball(t, soundMembers()), 0); return b[:len(b)/2] }, 5, nil},
		{"size that lies", func(t *testing.T) []byte {
			b := tarball(t, soundMembers())
			return append(b[:len(b)-1024], header(t, "blobs/sha256/"+hexA, 1<<62)...)
		}, 5, nil},
		{"gzip bomb", func(t *testing.T) []byte { return gzipped(t, tarball(t, soundMembers()), 512<<20) }, 5, nil},
		{"zstd bomb", func(t *testing.T) []byte { return zstandard(t, tarball(t, soundMembers()), 512<<20) }, 5, nil},
		{"zstd window of 2 GiB", func(*testing.T) []byte {
			// Magic, a frame header with a window of 2^31 bytes, one block of zeros.
			b := []byte{0x28, 0xb5, 0x2f, 0xfd}
			b = append(b, 0x00, (31-10)<<3)
			return append(b, 0x03, 0x00, 0x04, 0x00)
		}, 5, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "x.oci"), tt.make(t), 0o644); err != nil {
				t.Fatal(err)
			}
			runHostile(t, dir, tt.want, "unpack", "x.oci", "sub")
			if tt.want != 0 {
				if names, _ := filepath.Glob(filepath.Join(dir, "*")); len(names) != 1 {
					t.Errorf("left over: %q", names)
				}
				if names, _ := filepath.Glob(filepath.Join(dir, ".*")); names != nil {
					t.Errorf("left over: %q", names)
				}
				want := tt.want
				if tt.ls != nil {
					want = tt.ls[0]
				}
				runHostile(t, dir, want, "ls", "x.oci")
				return
			}
			if err := verifyClean(t.Context(), filepath.Join(dir, "sub")); err != nil {
				t.Error(err)
			}
		})
	}
}

func header(t *testing.T, name string, size int64) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, Format: tar.FormatGNU}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// gzipped compresses b and zeros after it.
func gzipped(t *testing.T, b []byte, zeros int64) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if err := errors.Join(write(w, b, zeros), w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstandard(t *testing.T, b []byte, zeros int64) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(write(w, b, zeros), w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func write(w io.Writer, b []byte, zeros int64) error {
	_, err := w.Write(b)
	chunk := make([]byte, 1<<20)
	for ; err == nil && zeros > 0; zeros -= int64(len(chunk)) {
		_, err = w.Write(chunk)
	}
	return err
}
