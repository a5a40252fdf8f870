//go:build linux

package main_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// rawMembers returns the members of an object as they stand there.
func rawMembers(t testing.TB, raw string) map[string]string {
	t.Helper()
	members := map[string]string{}
	for name, value := range decode[map[string]json.RawMessage](t, raw) {
		members[name] = string(value)
	}
	return members
}

// rawEntries returns the members of each entry of an index, and those of the
// document itself.
func rawEntries(t testing.TB, raw string) (entries []map[string]string, members map[string]string) {
	t.Helper()
	members = rawMembers(t, raw)
	for _, entry := range decode[[]json.RawMessage](t, members["manifests"]) {
		entries = append(entries, rawMembers(t, string(entry)))
	}
	delete(members, "manifests")
	return entries, members
}

func editSkopeo(t *testing.T, v *peerView) {
	h := newPeerHome(t)
	dir := h.path("layout")
	h.run("skopeo", "copy", "oci:"+v.dir+":"+refApp, "oci:"+dir+":one")
	h.run("skopeo", "copy", "--all", "oci:"+v.dir+":"+refHalf, "oci:"+dir+":two")
	editTheirs(h, v, dir)
}

func editUmoci(t *testing.T, v *peerView) {
	h := newPeerHome(t)
	dir := h.path("layout")
	h.run("umoci", "init", "--layout", dir)
	h.run("umoci", "new", "--image", dir+":one")
	h.run("umoci", "config", "--image", dir+":one", "--tag", "two", "--config.cmd", "true")
	editTheirs(h, v, dir)
}

func editRegctl(t *testing.T, v *peerView) {
	h := newPeerHome(t)
	dir := h.path("layout")
	h.run("regctl", "image", "copy", "ocidir://"+v.dir+":"+refNested, "ocidir://"+dir+":one")
	h.run("regctl", "image", "copy", "ocidir://"+v.dir+":"+refRelease, "ocidir://"+dir+":two")
	editTheirs(h, v, dir)
}

// editTheirs edits a layout of another tool in which there are members that this
// program knows nothing of: those of the document and those of each entry keep
// their bytes through every command that edits.
func editTheirs(h *peerHome, v *peerView, dir string) {
	t := h.t
	t.Helper()
	index := filepath.Join(dir, "index.json")
	raw := readPeerFile(t, index)
	// As a later version of the tool might write it.
	raw = strings.TrimRight(raw, "\n")
	raw = raw[:len(raw)-1] + "," + richIndexFields + "}"
	raw = strings.ReplaceAll(raw, `"digest"`, `"x-entry":{"n":1.0e+2,"t":"\u003c\/"},"digest"`)
	writePeerFile(t, index, raw)
	first, members := rawEntries(t, raw)

	file := h.path("file")
	writePeerFile(t, file, "file\n")
	for _, args := range [][]string{
		{"tag", dir, "one", "three", "example.org/three:v3"},
		{"add", "image", dir, "oci:" + v.dir + ":" + refFull},
		{"add", "artifact", dir, "--ref", "artifact", "--artifact-type", typeNotes, file},
		{"add", "artifact", dir, "--into", "index", "--artifact-type", typeNotes, file},
		{"untag", dir, "three"},
		{"rm", dir, "artifact"},
		{"gc", dir},
	} {
		mustRun(t, h.dir, args...)
		after := readPeerFile(t, index)
		entries, got := rawEntries(t, after)
		if diff := cmp.Diff(members, withoutNew(members, got)); diff != "" {
			t.Errorf("%q changed index.json (-before +after):\n%s", args, diff)
		}
		for _, entry := range first {
			if !slices.ContainsFunc(entries, func(e map[string]string) bool { return maps.Equal(e, entry) }) {
				t.Errorf("%q changed the entry %q:\n%s", args, entry, after)
			}
		}
	}

	// An entry that loses its name keeps the rest; one that goes takes nothing
	// of the others with it.
	two := slices.IndexFunc(first, func(e map[string]string) bool {
		return annotationsOf(t, e)["org.opencontainers.image.ref.name"] == "two"
	})
	want := annotationsOf(t, first[two])
	delete(want, "org.opencontainers.image.ref.name")
	mustRun(t, h.dir, "untag", dir, "two")
	mustRun(t, h.dir, "rm", dir, "one")
	entries, got := rawEntries(t, readPeerFile(t, index))
	if diff := cmp.Diff(members, withoutNew(members, got)); diff != "" {
		t.Errorf("rm changed index.json (-before +after):\n%s", diff)
	}
	i := slices.IndexFunc(entries, func(e map[string]string) bool { return e["digest"] == first[two]["digest"] })
	if i < 0 {
		t.Fatalf("untag two: its entry is gone: %q", entries)
	}
	if diff := cmp.Diff(want, annotationsOf(t, entries[i])); diff != "" {
		t.Errorf("untag two changed other annotations (-before +after):\n%s", diff)
	}
	for _, e := range []map[string]string{first[two], entries[i]} {
		delete(e, "annotations")
	}
	if diff := cmp.Diff(first[two], entries[i]); diff != "" {
		t.Errorf("untag two changed its entry (-before +after):\n%s", diff)
	}
	if _, ok := refsOf(t, dir)["one"]; ok {
		t.Error("rm one: it is still there")
	}
	mustRun(t, h.dir, "verify", dir)
}

func annotationsOf(t testing.TB, entry map[string]string) map[string]string {
	t.Helper()
	if entry["annotations"] == "" {
		return map[string]string{}
	}
	return decode[map[string]string](t, entry["annotations"])
}

// withoutNew returns what got has of the members that there were. A mediaType is
// what this program adds where there is none.
func withoutNew(before, got map[string]string) map[string]string {
	got = maps.Clone(got)
	if _, ok := before["mediaType"]; !ok {
		delete(got, "mediaType")
	}
	return got
}

// An entry deep in an index in an index goes; the documents above it are written
// anew, with all that they had.
func editNested(t *testing.T, v *peerView) {
	h := newPeerHome(t)
	dir := h.path("layout")
	h.run("regctl", "image", "copy", "ocidir://"+v.dir+":"+refNested, "ocidir://"+dir+":"+refNested)

	before := decode[ocispec.Index](t, blobOf(t, dir, refsOf(t, dir)[refNested].Digest))
	mustRun(t, h.dir, "rm", dir, refNested, "--platform", "linux/"+otherArch())
	top := blobOf(t, dir, refsOf(t, dir)[refNested].Digest)
	entries, members := rawEntries(t, top)
	if members["x-outer"] != "{}" || len(entries) != 2 {
		t.Fatalf("the outer index lost a member: %s", top)
	}
	after := decode[ocispec.Index](t, top)
	if diff := cmp.Diff(before.Manifests[0], after.Manifests[0]); diff != "" {
		t.Errorf("the entry beside it changed (-before +after):\n%s", diff)
	}
	inner := blobOf(t, dir, after.Manifests[1].Digest)
	entries, members = rawEntries(t, inner)
	if members["x-inner"] != "[1,2.0]" || len(entries) != 1 {
		t.Errorf("the inner index is %s, want x-inner and one entry", inner)
	}
	if after.Manifests[1].Digest == before.Manifests[1].Digest {
		t.Error("the inner index has its old digest")
	}
	mustRun(t, h.dir, "verify", dir)
	// The tool that made the layout still reads it.
	got := strings.TrimSpace(h.run("regctl", "image", "digest", "--platform", "linux/"+runtime.GOARCH, "ocidir://"+dir+":"+refNested))
	if got != string(after.Manifests[0].Digest) {
		t.Errorf("regctl finds %s, want %s", got, after.Manifests[0].Digest)
	}
}

// The entries of another tool's index say nothing of platforms. As entries of
// ours they do: clients take an entry without platform for any.
func editInto(t *testing.T, v *peerView) {
	h := newPeerHome(t)
	dir := h.path("layout")
	raw := newRawLayout(t, h.path("theirs"))
	artifact := raw.manifest(raw.blob("application/vnd.oci.empty.v1+json", "{}"), raw.blob("text/plain", "a file\n"))
	artifact.ArtifactType = typeNotes
	image := raw.runnable(otherArch(), "theirs")
	raw.index(named(raw.nested(artifact), "artifacts"), named(raw.nested(image.manifest), "images"))

	mustRun(t, h.dir, "init", dir)
	mustRun(t, h.dir, "add", "image", dir, "oci:"+v.dir+":"+refHalf, "--ref", "release")
	mustRun(t, h.dir, "add", "image", dir, "oci:"+raw.dir+":artifacts", "--into", "release")
	copyOther := func(to string) []string {
		return []string{"--override-arch", otherArch(), "copy", "oci:" + dir + ":release", "dir:" + h.path(to)}
	}
	h.fails([]string{"no image found in image index"}, "skopeo", copyOther("artifact")...)
	mustRun(t, h.dir, "add", "image", dir, "oci:"+raw.dir+":images", "--into", "release")
	h.run("skopeo", copyOther("image")...)
	checkDirTransport(t, h.path("image"), &image)
	for _, desc := range decode[ocispec.Index](t, blobOf(t, dir, refsOf(t, dir)["release"].Digest)).Manifests {
		if desc.Platform == nil {
			t.Errorf("an entry has no platform: %+v", desc)
		}
	}
}

// The registry that Debian has, two major releases older than the reference
// registry of the other tests, takes everything too.
func takenByOldRegistry(t *testing.T, r *rich) {
	t.Setenv("GLOCI_REGISTRY", peerTool(t, "docker-registry"))
	reg := regtest.Start(t, nil)
	repo := reg.Host + "/old/registry"
	for _, source := range []string{r.archive, r.dir} { // the second finds all there
		mustRun(t, t.TempDir(), "sync", "--tls-verify=false", source, "docker://"+repo)
	}
	back := filepath.Join(shortDir(t), "back")
	mustRun(t, t.TempDir(), "init", back)
	mustRun(t, t.TempDir(), "add", "image", "--all", "--tls-verify=false", back, "docker://"+repo)
	for tag, desc := range (&peerView{rich: r}).tags(t) {
		if got := registryDigest(t, repo, tag); got != desc.Digest {
			t.Errorf("%s = %s, want %s", tag, got, desc.Digest)
		}
		for _, d := range reachable(t, r.dir, desc.Digest) {
			blobOf(t, back, d)
		}
	}
	mustRun(t, t.TempDir(), "verify", back)
	// Not more either.
	entries, err := os.ReadDir(filepath.Join(back, "blobs", string(digest.SHA256)))
	if err != nil {
		t.Fatal(err)
	}
	all := map[digest.Digest]bool{}
	for _, desc := range r.refs(t) {
		for _, d := range reachable(t, r.dir, desc.Digest) {
			all[d] = true
		}
	}
	if len(entries) != len(all) {
		t.Errorf("the copy has %d blobs, want %d", len(entries), len(all))
	}
}

// A repository is a source as any other is: pack and unpack make of it what they
// make of the layout that it came from, whether or not they look into a blob.
func registryAsSource(t *testing.T, v *peerView) {
	source, work := "docker://"+v.repo, shortDir(t)
	want := map[digest.Digest]bool{}
	for _, desc := range v.refs(t) {
		for _, d := range reachable(t, v.dir, desc.Digest) {
			want[d] = true
		}
	}
	unpacked := filepath.Join(work, "unpacked")
	for _, args := range [][]string{
		{"unpack", source, unpacked},
		{"pack", source, filepath.Join(work, "reachable.oci")},
		{"pack", "--all", source, filepath.Join(work, "all.oci")},
	} {
		if ran := runBinary(t, work, append(args, "--tls-verify=false")...); ran.exit != 0 {
			t.Errorf("%q: exit %d\n%s", args, ran.exit, ran.stderr)
			continue
		}
		dir := args[len(args)-1]
		if dir != unpacked {
			mustRun(t, work, "unpack", dir, dir+".d")
			dir += ".d"
		}
		for d := range want {
			blobOf(t, dir, d)
		}
		got := refsOf(t, dir)
		for tag, desc := range v.tags(t) {
			if got[tag].Digest != desc.Digest {
				t.Errorf("%q: %s = %s, want %s", args, tag, got[tag].Digest, desc.Digest)
			}
		}
	}
	// A manifest of it, as a blob.
	d := v.images[runtime.GOARCH].manifest.Digest
	ran := runBinary(t, work, "cat", "--tls-verify=false", source+"@"+string(d))
	if digest.FromString(ran.stdout) != d {
		t.Errorf("cat %s@%s: exit %d\n%s", source, d, ran.exit, ran.stderr)
	}
	mustRun(t, work, "verify", "--tls-verify=false", source)
}
