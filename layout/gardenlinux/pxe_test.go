package gardenlinux

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
)

func TestStagePXE(t *testing.T) {
	s := newStage(t)
	fs := builds(t, pxeAMD, "pxe.tar.gz").with(files{
		pxeAMD + ".tar.gz":         gz(t, tarball(t, tar.Header{Name: "not-unpacked"})),
		pxeAMD + ".pxe.tar.gz.log": "-", pxeAMD + ".sbom": "-", pxeAMD + ".sbom.log": "-",
	})
	dir := fs.write(t, t.TempDir())
	before := stamps(t, dir)
	staged, err := stageDir(t, s, dir, BuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	doc := document(t, s, staged[0].Entry)
	want := []string{
		"root.squashfs", pxeAMD + ".requirements", pxeAMD + ".pxe.tar.gz", pxeAMD + ".manifest", "vmlinuz", "cmdline", pxeAMD + ".release", "initrd",
		pxeAMD + ".tar.gz", pxeAMD + ".tar", pxeAMD + ".manifest.log", pxeAMD + ".release.log", pxeAMD + ".requirements.log", pxeAMD + ".tar.log",
	}
	if diff := cmp.Diff(want, layerTitles(doc)); diff != "" {
		t.Errorf("layers (-want +got):\n%s", diff)
	}
	types := map[string]string{
		"vmlinuz": "application/io.gardenlinux.kernel", "initrd": "application/io.gardenlinux.initrd",
		"cmdline": "application/io.gardenlinux.cmdline", "root.squashfs": "application/io.gardenlinux.squashfs",
	}
	for _, l := range doc.Layers {
		title := l.Annotations["org.opencontainers.image.title"]
		if mediaType, ok := types[title]; ok && (l.MediaType != mediaType || content(t, s, l) != title+" in pxe") {
			t.Errorf("layer %s: %s, %q", title, l.MediaType, content(t, s, l))
		}
	}
	if diff := cmp.Diff(before, stamps(t, dir)); diff != "" {
		t.Errorf("the build directory has changed (-before +after):\n%s", diff)
	}
}

// stamps tells whether anything in a directory was touched.
func stamps(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil {
			out[path] = fmt.Sprint(info.Mode(), info.Size(), info.ModTime().UnixNano())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestStagePXERefuses(t *testing.T) {
	boot := []tar.Header{{Name: "vmlinuz", Uname: "1"}, {Name: "initrd", Uname: "2"}, {Name: "root.squashfs", Uname: "3"}}
	with := func(more ...tar.Header) string { return gz(t, tarball(t, append(slices.Clone(boot), more...)...)) }
	many := make([]tar.Header, 20)
	for i := range many {
		many[i] = tar.Header{Name: fmt.Sprintf("efi%02d.efi", i)}
	}
	oldSparse, paxSparse := sparse("x.efi")
	whole := with()
	var flipped []byte
	flipped = append(flipped, whole...)
	flipped[len(flipped)-6] ^= 1 // in the checksum
	for _, c := range []struct {
		name, archive string
		is            error // nil: it is staged
		want          string
	}{
		{"good", with(), nil, ""},
		{"dot names", gz(t, tarball(t, tar.Header{Name: "./", Typeflag: tar.TypeDir}, tar.Header{Name: "./vmlinuz"}, tar.Header{Name: "./initrd"}, tar.Header{Name: "./squashfs"})), nil, ""},
		{"global header", with(tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}}), nil, ""},
		{"zero padding", gz(t, append(tarball(t, boot...), make([]byte, 10<<10)...)), nil, ""},
		{"up", with(tar.Header{Name: "../vmlinuz2"}), layout.ErrUnsafe, `"../vmlinuz2"`},
		{"up, deep", with(tar.Header{Name: "a/../../b"}), layout.ErrUnsafe, ""},
		{"absolute", with(tar.Header{Name: "/vmlinuz2"}), layout.ErrUnsafe, `"/vmlinuz2"`},
		{"deep", with(tar.Header{Name: "boot/vmlinuz2"}), layout.ErrUnsafe, ""},
		{"backslash", with(tar.Header{Name: `..\vmlinuz2`}), layout.ErrUnsafe, ""},
		{"dot", with(tar.Header{Name: "."}), layout.ErrUnsafe, ""},
		{"dots", with(tar.Header{Name: ".."}), layout.ErrUnsafe, ""},
		{"control character", with(tar.Header{Name: "a\x1b[2J.efi"}), layout.ErrUnsafe, ""},
		{"long name", with(tar.Header{Name: strings.Repeat("a", 300) + ".efi"}), layout.ErrUnsafe, ""},
		{"directory", with(tar.Header{Name: "boot/", Typeflag: tar.TypeDir}), layout.ErrUnsafe, ""},
		{"symbolic link", with(tar.Header{Name: "x.efi", Typeflag: tar.TypeSymlink, Linkname: "/etc/shadow"}), layout.ErrUnsafe, `"x.efi"`},
		{"hard link", with(tar.Header{Name: "x.efi", Typeflag: tar.TypeLink, Linkname: "vmlinuz"}), layout.ErrUnsafe, ""},
		{"device", with(tar.Header{Name: "x.efi", Typeflag: tar.TypeBlock, Devmajor: 8}), layout.ErrUnsafe, ""},
		{"fifo", with(tar.Header{Name: "x.efi", Typeflag: tar.TypeFifo}), layout.ErrUnsafe, ""},
		{"sparse, old", gz(t, oldSparse), layout.ErrUnsafe, "want a regular file"},
		{"sparse", gz(t, paxSparse), layout.ErrUnsafe, "a sparse file"},
		{"twice", with(tar.Header{Name: "vmlinuz", Uname: "other"}), layout.ErrConflict, `two layers "vmlinuz"`},
		{"twice, with a dot", with(tar.Header{Name: "./vmlinuz"}), layout.ErrConflict, ""},
		{"many", with(many...), layout.ErrInvalid, "more than 16 members"},
		{"no gzip", string(tarball(t, boot...)), layout.ErrInvalid, ""},
		{"no tar", gz(t, bytes.Repeat([]byte("x"), 2000)), layout.ErrInvalid, ""},
		{"empty file", "", layout.ErrInvalid, ""},
		{"cut off", whole[:len(whole)-20], layout.ErrInvalid, ""},
		{"tar cut off", gz(t, tarball(t, tar.Header{Name: "vmlinuz", Uname: strings.Repeat("x", 4096)})[:2000]), layout.ErrInvalid, ""},
		{"damaged", string(flipped), layout.ErrInvalid, ""},
		{"data behind", gz(t, append(tarball(t, boot...), tarball(t, boot...)...)), layout.ErrInvalid, "data behind the end"},
		{"bytes behind", whole + "x", layout.ErrInvalid, ""},
		{"bomb in the padding", gz(t, append(tarball(t, boot...), make([]byte, 2<<20)...)), layout.ErrInvalid, ""},
		{"bomb", with(tar.Header{Name: "x.efi", Uname: strings.Repeat("\x00", 5<<20)}), compress.ErrLimit, ""},
		{"kernel of another name", gz(t, tarball(t, tar.Header{Name: "vmlinux"}, boot[1], boot[2])), ErrMissing, "missing layers: vmlinuz"},
		{"nothing", gz(t, tarball(t)), ErrMissing, "missing layers: initrd, squashfs, vmlinuz"},
		{"several faults", with(tar.Header{Name: "../a"}, tar.Header{Name: "/b"}), layout.ErrUnsafe, `"/b"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t)
			dir := builds(t, pxeAMD).with(files{pxeAMD + ".pxe.tar.gz": c.archive}).write(t, t.TempDir())
			flavors, err := ReadBuild(dir, BuildOptions{})
			if err != nil {
				t.Fatal(err)
			}
			flavors[0].limits = &compress.ReaderOptions{MaxBytes: 4 << 20}
			staged, err := StageAll(context.Background(), s, flavors)
			if c.is == nil {
				if err != nil {
					t.Fatal(err)
				}
				if n := len(document(t, s, staged[0].Entry).Layers); n != 14 {
					t.Errorf("%d layers, want 14", n)
				}
				return
			}
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("StageAll: %v, want %v with %q", err, c.is, c.want)
			}
			if !errors.Is(c.is, ErrMissing) && !strings.Contains(err.Error(), pxeAMD) {
				t.Errorf("error %q does not name the archive", err)
			}
		})
	}
}

// sparse makes archives with a file of 64 MiB, nothing of which is there: as old
// GNU tar did, and with PAX records.
func sparse(name string) (old, pax []byte) {
	header := func(name string, typeflag byte, size int) []byte {
		var h [512]byte
		copy(h[:], name)
		copy(h[100:], "0000644\x000000000\x000000000\x00")
		copy(h[124:], fmt.Sprintf("%011o\x0000000000000\x00        ", size))
		h[156] = typeflag
		copy(h[257:], "ustar\x0000")
		if typeflag == 'S' {
			copy(h[257:], "ustar  \x00")
			copy(h[386:], "000400000000"+"000000000000") // data, of no length, at 64 MiB
			copy(h[483:], "000400000000")                // and so the size
		}
		var sum int
		for _, c := range h {
			sum += int(c)
		}
		copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
		return h[:]
	}
	padded := func(s string) []byte { return append([]byte(s), make([]byte, 512-len(s))...) }
	end := make([]byte, 1024)
	old = append(header(name, 'S', 0), end...)
	const records = "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n32 GNU.sparse.realsize=67108864\n"
	pax = slices.Concat(header("pax", 'x', len(records)), padded(records), header(name, '0', 512), padded("1\n67108864\n0\n"), end)
	return old, pax
}

// A member under the policy for unknown suffixes.
func TestStagePXEUnknown(t *testing.T) {
	dir := builds(t, pxeAMD).with(files{pxeAMD + ".pxe.tar.gz": pxe(t, "vmlinuz", "initrd", "root.squashfs", "boot.efi", "odd")}).write(t, t.TempDir())
	for policy, want := range map[UnknownPolicy]bool{UnknownOctetStream: true, UnknownSkip: false} {
		s := newStage(t)
		var log warnings
		staged, err := stageDir(t, s, dir, BuildOptions{Unknown: policy, Logger: log.logger()})
		if err != nil {
			t.Fatal(err)
		}
		got := layerTitles(document(t, s, staged[0].Entry))
		if slices.Contains(got, "odd") != want || !slices.Contains(got, "boot.efi") {
			t.Errorf("%v: layers %q", policy, got)
		}
		if lines := log.lines(dir); len(lines) != 1 || !strings.Contains(lines[0], pxeAMD+".pxe.tar.gz: odd") {
			t.Errorf("%v: warnings %q, want one about odd", policy, lines)
		}
	}
	if _, err := stageDir(t, newStage(t), dir, BuildOptions{Unknown: UnknownError}); !errors.Is(err, ErrSuffix) {
		t.Errorf("error: %v, want ErrSuffix", err)
	}
}

// FuzzPXE: any bytes are an error or plain files; no panic, nothing unbounded.
func FuzzPXE(f *testing.F) {
	f.Add([]byte(pxe(f, "vmlinuz", "initrd", "root.squashfs")))
	oldSparse, paxSparse := sparse("x")
	f.Add([]byte(gz(f, oldSparse)))
	f.Add([]byte(gz(f, paxSparse)))
	f.Add([]byte(gz(f, tarball(f, tar.Header{Name: "../x"}))))
	s := newStage(f)
	path := filepath.Join(f.TempDir(), "x.pxe.tar.gz")
	f.Fuzz(func(t *testing.T, raw []byte) {
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		fl := Flavor{Name: mustName(t, pxeAMD), limits: &compress.ReaderOptions{MaxBytes: 1 << 20}}
		layers, err := fl.unpack(context.Background(), s, File{Path: path})
		if err != nil {
			if !isInput(err) {
				t.Fatal(err)
			}
			return
		}
		for _, l := range layers {
			if l.Title == "" || strings.ContainsAny(l.Title, "/\\\x00\n") || l.Title == ".." {
				t.Fatalf("title %q", l.Title)
			}
			rc, err := s.Blob(context.Background(), l.desc)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, rc); err != nil {
				t.Fatal(err)
			}
			if err := rc.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
