package gardenlinux

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/layout"
)

// files are the names and contents of a directory.
type files map[string]string

func (fs files) write(t testing.TB, dir string) string {
	t.Helper()
	for name, content := range fs {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// with returns a copy with more files; those with the content "-" are taken
// out.
func (fs files) with(more files) files {
	out := maps.Clone(fs)
	for name, content := range more {
		if content == "-" {
			delete(out, name)
			continue
		}
		out[name] = content
	}
	return out
}

func (fs files) and(more ...files) files {
	for _, m := range more {
		fs = fs.with(m)
	}
	return fs
}

func mustName(t testing.TB, s string) Name {
	t.Helper()
	n, err := ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// osRelease is what the builder writes.
func osRelease(n Name) string {
	features := append([]string{"_slim", "base"}, n.Features()...)
	return fmt.Sprintf("ID=gardenlinux\nVARIANT_ID=%s\nGARDENLINUX_CNAME=%s\nGARDENLINUX_PLATFORM=%s\nGARDENLINUX_FEATURES=%s\n"+
		"GARDENLINUX_VERSION=%s\nGARDENLINUX_COMMIT_ID=%s\n",
		strings.ToLower(n.Flavor()), n.VersionedFlavor(), n.Features()[0], strings.Join(features, ","), n.Version, n.Commit)
}

// builds returns the files that every build has, and those of more suffixes,
// each with its log.
func builds(t testing.TB, base string, suffixes ...string) files {
	t.Helper()
	n := mustName(t, base)
	out := files{}
	for _, suffix := range append([]string{"tar", "release", "manifest", "sbom", "requirements"}, suffixes...) {
		content := suffix + " of " + base
		switch suffix {
		case "release":
			content = osRelease(n)
		case "pxe.tar.gz":
			content = pxe(t, "vmlinuz", "initrd", "cmdline", "root.squashfs")
		case "oci":
			content = oci(t, image{arch: n.Arch, refName: n.RefName()})
		}
		out[base+"."+suffix] = content
		out[base+"."+suffix+".log"] = "[2026-01-01 00:00:00] " + suffix + "\n"
	}
	return out
}

// listed adds the list of the files that are there.
func (fs files) listed(base string) files {
	names := slices.Sorted(maps.Keys(fs))
	return fs.with(files{base + ".artifacts": strings.Join(names, "\n") + "\n"})
}

func tarball(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		content := h.Uname // where the tests keep it
		h.Uname = ""
		if h.Typeflag != tar.TypeXGlobalHeader {
			h.Mode = 0o644
		}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(content))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte(content)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gz(t testing.TB, raw []byte) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// pxe returns a PXE archive of files with the content "NAME in pxe".
func pxe(t testing.TB, names ...string) string {
	t.Helper()
	headers := make([]tar.Header, len(names))
	for i, name := range names {
		headers[i] = tar.Header{Name: name, Uname: name + " in pxe"}
	}
	return gz(t, tarball(t, headers...))
}

// An image is an entry of the index.json of a .oci file.
type image struct {
	arch, refName string
	platform      string // architecture in the entry, linux; "" for none
	config        string // "" for that of arch
}

// oci returns an OCI layout tarball as features/container/image.oci makes it:
// no mediaType in index.json, no platform in its entries.
func oci(t testing.TB, images ...image) string {
	t.Helper()
	return ociLayout(t, false, images...)
}

// ociLayout puts an index between index.json and the images if nested.
func ociLayout(t testing.TB, nested bool, images ...image) string {
	t.Helper()
	blobs := map[string]string{}
	put := func(content string) string {
		d := digest.FromString(content)
		blobs["blobs/sha256/"+d.Encoded()] = content
		return fmt.Sprintf(`"digest":"%s","size":%d`, d, len(content))
	}
	var entries []string
	for _, im := range images {
		config := im.config
		if config == "" {
			config = fmt.Sprintf(`{"architecture":"%s","os":"linux","config":{"Cmd":["/bin/bash"]},"rootfs":{"type":"layers","diff_ids":["%s"]},"history":[{}]}`,
				im.arch, digest.FromString("tar for "+im.arch))
		}
		manifest := put(fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",`+
			`"config":{"mediaType":"application/vnd.oci.image.config.v1+json",%s},`+
			`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip",%s}]}`, put(config), put("layer for "+im.arch)))
		annotations := ""
		if im.platform != "" {
			annotations = fmt.Sprintf(`,"platform":{"architecture":"%s","os":"linux"}`, im.platform)
		}
		if im.refName != "" {
			annotations += fmt.Sprintf(`,"annotations":{"org.opencontainers.image.ref.name":"%s"}`, im.refName)
		}
		entries = append(entries, fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.manifest.v1+json",%s%s}`, manifest, annotations))
	}
	if nested {
		index := put(fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[%s]}`, strings.Join(entries, ",")))
		entries = []string{fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.index.v1+json",%s}`, index)}
	}
	blobs["oci-layout"] = `{"imageLayoutVersion":"1.0.0"}`
	blobs["index.json"] = fmt.Sprintf(`{"schemaVersion":2,"manifests":[%s]}`, strings.Join(entries, ","))
	var headers []tar.Header
	for _, name := range slices.Sorted(maps.Keys(blobs)) {
		headers = append(headers, tar.Header{Name: name, Uname: blobs[name]})
	}
	return string(tarball(t, headers...))
}

// newStage opens a stage of a new layout.
func newStage(t testing.TB) *layout.Stage {
	t.Helper()
	l, err := layout.Create(context.Background(), filepath.Join(t.TempDir(), "layout"), nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Stage(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), l.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// warnings collects log lines, without time and level.
type warnings struct{ bytes.Buffer }

func (w *warnings) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(&w.Buffer, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
				return slog.Attr{}
			}
			return a
		},
	}))
}

// lines returns them without the directory.
func (w *warnings) lines(dir string) []string {
	text := strings.TrimSpace(strings.ReplaceAll(w.String(), dir+string(filepath.Separator), ""))
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}
