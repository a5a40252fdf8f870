//go:build linux

package main_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	testTypeGzip = "application/vnd.oci.image.layer.v1.tar+gzip"

	// What the rich layout names.
	refRelease   = "2150.1.0" // images and artifacts for both architectures
	refHalf      = "2151.0.0" // for the other architecture there are artifacts only
	refArtifacts = "2152.0.0" // artifacts only
	refApp       = "app"      // one image for this machine
	refFull      = "example.org/gardenlinux/app:v1"
	refNested    = "nested" // an index in an index
	refNotes     = "notes"  // an artifact

	typeNotes = "application/vnd.example.notes"
)

// otherArch is the architecture of the two that this machine is not.
func otherArch() string {
	if runtime.GOARCH == "amd64" {
		return "arm64"
	}
	return "amd64"
}

// A rich layout is one with everything that the program writes, made by it.
type rich struct {
	dir, archive string
	// images are the runtime images by architecture.
	images map[string]testImage
}

// A testImage is what the images are that the program was given.
type testImage struct {
	manifest, config ocispec.Descriptor
	layers           []ocispec.Descriptor
	diffIDs          []digest.Digest
	release          string // /etc/os-release
}

// member is one file of a root file system.
type member struct {
	name, content, link string
	mode                int64
}

func tarOf(t testing.TB, members []member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := tar.Header{Name: m.name, Mode: m.mode, Size: int64(len(m.content)), Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		switch {
		case m.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, m.link
		case strings.HasSuffix(m.name, "/"):
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(m.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipOf(t testing.TB, raw []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// busybox is a program that runs in an empty root file system; where there is
// none, the images hold a file in its place that does not run.
func busybox() []byte {
	for _, path := range []string{"/bin/busybox", "/usr/bin/busybox"} {
		if b, err := os.ReadFile(path); err == nil {
			return b
		}
	}
	return []byte("no busybox\n")
}

// osRelease is a file of an image; it tells the images apart.
func osRelease(arch, version string) string {
	return fmt.Sprintf("ID=gardenlinux\nNAME=\"Garden Linux\"\nGARDENLINUX_CNAME=container-%s-%s\nGARDENLINUX_VERSION=%s\n"+
		"GARDENLINUX_COMMIT_ID=abc12345\nGARDENLINUX_FEATURES=_slim,base,container\nGARDENLINUX_PLATFORM=container\n", arch, version, version)
}

// runnable stores an image with two gzip layers: the second takes a file of the
// first away. It runs where arch is that of this machine.
func (r *rawLayout) runnable(arch, version string) testImage {
	r.t.Helper()
	program := []byte("a program for " + arch + "\n")
	if arch == runtime.GOARCH {
		program = busybox()
	}
	im := testImage{release: osRelease(arch, version)}
	base := []member{
		{name: "bin/", mode: 0o755},
		{name: "bin/busybox", content: string(program), mode: 0o755},
		{name: "bin/cat", link: "busybox"},
		{name: "bin/sh", link: "busybox"},
		{name: "etc/", mode: 0o755},
		{name: "etc/gone", content: "the second layer takes this away\n", mode: 0o644},
		{name: "etc/os-release", content: im.release, mode: 0o644},
		{name: "proc/", mode: 0o755},
		{name: "sys/", mode: 0o755},
		{name: "dev/", mode: 0o755},
		{name: "tmp/", mode: 0o777},
	}
	top := []member{
		{name: "etc/", mode: 0o755},
		{name: "etc/.wh.gone", mode: 0o644},
		{name: "srv/", mode: 0o755},
		{name: "srv/" + strings.Repeat("a long name ", 12), content: strings.Repeat("x", 70000), mode: 0o644},
	}
	for _, members := range [][]member{base, top} {
		raw := tarOf(r.t, members)
		im.diffIDs = append(im.diffIDs, digest.FromBytes(raw))
		im.layers = append(im.layers, r.blob(testTypeGzip, string(gzipOf(r.t, raw))))
	}
	im.config = r.blob(testTypeConfig, fmt.Sprintf(`{"created":"1970-01-01T00:00:00Z","architecture":%q,"os":"linux",`+
		`"config":{"Env":["PATH=/bin"],"Cmd":["/bin/sh"],"Labels":{"org.opencontainers.image.version":%q}},`+
		`"rootfs":{"type":"layers","diff_ids":[%q,%q]},`+
		`"history":[{"created":"1970-01-01T00:00:00Z","created_by":"base"},{"created":"1970-01-01T00:00:00Z","created_by":"top"}]}`,
		arch, version, im.diffIDs[0], im.diffIDs[1]))
	im.manifest = r.manifest(im.config, im.layers...)
	return im
}

// tarFile writes the layout as one file, in the form of image-layout.md.
func (r *rawLayout) tarFile(path string) {
	r.t.Helper()
	members := []member{
		{name: "oci-layout", content: readPeerFile(r.t, r.path("oci-layout")), mode: 0o644},
		{name: "index.json", content: readPeerFile(r.t, r.path("index.json")), mode: 0o644},
	}
	entries, err := os.ReadDir(r.path("blobs/sha256"))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range entries {
		name := "blobs/sha256/" + e.Name()
		members = append(members, member{name: name, content: readPeerFile(r.t, r.path(name)), mode: 0o644})
	}
	writePeerFile(r.t, path, string(tarOf(r.t, members)))
}

// buildDir writes the output of builds: a small form of what Garden Linux's
// builder leaves, complete in its names. Of an image there is also the .oci file.
func buildDir(t testing.TB, dir, version string, cnames ...string) map[string]testImage {
	t.Helper()
	images := map[string]testImage{}
	for _, name := range cnames {
		cname, arch, _ := cutLast(name, "-")
		base := fmt.Sprintf("%s-%s-abc12345", name, version)
		files := map[string]string{
			"tar": "root file system of " + base, "manifest": "busybox 1.35\n", "sbom": `{"bomFormat":"CycloneDX"}`,
			"requirements": "arch=" + arch + "\n",
			"release": fmt.Sprintf("ID=gardenlinux\nGARDENLINUX_CNAME=%s-%s\nGARDENLINUX_PLATFORM=%s\nGARDENLINUX_FEATURES=_slim,base,%s\n"+
				"GARDENLINUX_VERSION=%s\nGARDENLINUX_COMMIT_ID=abc12345\n",
				name, version, strings.Split(cname, "_")[0], strings.ReplaceAll(cname, "_", ",_"), version),
		}
		if cname == "container" {
			raw := newRawLayout(t, t.TempDir())
			im := raw.runnable(arch, version)
			// As Garden Linux makes it: no mediaType, no platform, one entry.
			raw.file("index.json", fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d,`+
				`"annotations":{"org.opencontainers.image.ref.name":%q}}]}`, testTypeManifest, im.manifest.Digest, im.manifest.Size, name))
			raw.tarFile(filepath.Join(dir, base+".oci"))
			images[arch] = im
			files["oci.log"] = "[2026-01-01 00:00:00] oci\n"
		}
		if strings.Contains(cname, "_pxe") {
			var members []member
			for _, f := range []string{"vmlinuz", "initrd", "cmdline", "root.squashfs"} {
				members = append(members, member{name: f, content: f + " of " + base, mode: 0o644})
			}
			files["pxe.tar.gz"] = string(gzipOf(t, tarOf(t, members)))
		}
		for suffix, content := range files {
			writePeerFile(t, filepath.Join(dir, base+"."+suffix), content)
		}
	}
	return images
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// richIndexFields are members of index.json that no specification knows, in
// forms that a careless writer changes.
const richIndexFields = `"x-example":{"number":2.50,"big":12345678901234567890,"text":"\u00e4<&>","list":[null,true,{}]}`

// newRich makes the rich layout with the program, and packs it.
func newRich(t testing.TB) *rich {
	t.Helper()
	work := shortDir(t)
	r := &rich{dir: filepath.Join(work, "layout"), archive: filepath.Join(work, "layout.oci"), images: map[string]testImage{}}
	host, other := runtime.GOARCH, otherArch()
	if host != "amd64" && host != "arm64" {
		t.Skipf("Garden Linux is not built for %s", host)
	}
	mustRun(t, work, "init", r.dir)

	index := filepath.Join(r.dir, "index.json")
	raw := strings.TrimRight(readPeerFile(t, index), "\n")
	writePeerFile(t, index, raw[:len(raw)-1]+","+richIndexFields+`,"annotations":{"org.example.note":"kept"}}`)

	r.images = buildDir(t, filepath.Join(work, refRelease), refRelease,
		"container-amd64", "container-arm64", "baremetal_pxe-amd64", "baremetal_pxe-arm64")
	half := buildDir(t, filepath.Join(work, refHalf), refHalf, "container-"+host, "baremetal_pxe-"+other)
	r.images["half"] = half[host]
	buildDir(t, filepath.Join(work, refArtifacts), refArtifacts, "baremetal_pxe-amd64", "baremetal_pxe-arm64")
	for _, version := range []string{refRelease, refHalf, refArtifacts} {
		mustRun(t, work, "add", "flavor", r.dir, "--ref", version, filepath.Join(work, version))
	}
	mustRun(t, work, "tag", r.dir, "@"+string(r.images[host].manifest.Digest), refApp, refFull)

	// Nobody can make this by command yet: an index in an index, each with a
	// member that is not ours to lose.
	inner := newRawLayout(t, filepath.Join(work, "inner"))
	mine, theirs := inner.runnable(host, "nested"), inner.runnable(other, "nested")
	mine.manifest.Platform, theirs.manifest.Platform = platform("linux", host), platform("linux", other)
	list := inner.indexText([]ocispec.Descriptor{mine.manifest, theirs.manifest})
	nested := inner.blob(testTypeIndex, list[:len(list)-1]+`,"x-inner":[1,2.0]}`)
	top := inner.indexText([]ocispec.Descriptor{mine.manifest, nested})
	inner.index(named(inner.blob(testTypeIndex, top[:len(top)-1]+`,"x-outer":{}}`), refNested))
	mustRun(t, work, "add", "image", r.dir, "oci:"+inner.dir+":"+refNested)

	writePeerFile(t, filepath.Join(work, "notes.md"), "# Notes\n")
	writePeerFile(t, filepath.Join(work, "data.bin"), "\x00\x01\x02")
	mustRun(t, work, "add", "artifact", r.dir, "--ref", refNotes, "--artifact-type", typeNotes,
		"--annotation", "org.example.note=a, b", filepath.Join(work, "notes.md")+":text/markdown", filepath.Join(work, "data.bin"))
	for _, into := range []string{refRelease, refArtifacts} {
		mustRun(t, work, "add", "artifact", r.dir, "--into", into, "--artifact-type", typeNotes, filepath.Join(work, "notes.md"))
	}
	mustRun(t, work, "pack", r.dir, r.archive)
	return r
}

// refs returns what index.json names, by ref name.
func (r *rich) refs(t testing.TB) map[string]ocispec.Descriptor { return refsOf(t, r.dir) }

func refsOf(t testing.TB, dir string) map[string]ocispec.Descriptor {
	t.Helper()
	refs := map[string]ocispec.Descriptor{}
	for _, desc := range decode[ocispec.Index](t, readPeerFile(t, filepath.Join(dir, "index.json"))).Manifests {
		refs[desc.Annotations["org.opencontainers.image.ref.name"]] = desc
	}
	return refs
}

// blobOf reads a blob of a layout directory and checks its digest.
func blobOf(t testing.TB, dir string, d digest.Digest) string {
	t.Helper()
	raw := readPeerFile(t, filepath.Join(dir, "blobs", string(d.Algorithm()), d.Encoded()))
	if digest.FromString(raw) != d {
		t.Fatalf("%s of %s has other content", d, dir)
	}
	return raw
}

// reachable returns the digests of all blobs below d.
func reachable(t testing.TB, dir string, d digest.Digest) []digest.Digest {
	t.Helper()
	seen := map[digest.Digest]bool{}
	var visit func(desc ocispec.Descriptor)
	visit = func(desc ocispec.Descriptor) {
		if seen[desc.Digest] {
			return
		}
		seen[desc.Digest] = true
		if desc.MediaType != testTypeIndex && desc.MediaType != testTypeManifest {
			return
		}
		doc := decode[struct {
			Config            *ocispec.Descriptor
			Layers, Manifests []ocispec.Descriptor
		}](t, blobOf(t, dir, desc.Digest))
		if doc.Config != nil {
			visit(*doc.Config)
		}
		for _, child := range slices.Concat(doc.Layers, doc.Manifests) {
			visit(child)
		}
	}
	kind := testTypeManifest
	if strings.Contains(blobOf(t, dir, d), `"manifests"`) {
		kind = testTypeIndex
	}
	visit(ocispec.Descriptor{MediaType: kind, Digest: d})
	return slices.Sorted(maps.Keys(seen))
}
