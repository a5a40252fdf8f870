//go:build linux

package main_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// theirs is one thing in a file or directory that another tool wrote.
type theirs struct {
	refName string // "" if it has none
	// digest is that of what the tool was given, where it keeps digests, else ""
	digest digest.Digest
	// image is what it must be, whatever its digest; nil where it is no image.
	image *testImage
}

type listed struct {
	RefName string        `json:"refName"`
	Digest  digest.Digest `json:"digest"`
	Kind    string        `json:"kind"`
}

// readTheirs runs all of this program on source, which must hold want.
func (h *peerHome) readTheirs(v *peerView, source string, want ...theirs) {
	t := h.t
	t.Helper()
	rows := decodeLines[listed](t, mustRun(t, h.dir, "ls", "--json", source).stdout)
	if len(rows) != len(want) {
		t.Errorf("ls %s = %+v, want %d lines", source, rows, len(want))
		return
	}
	mustRun(t, h.dir, "verify", source)
	ours, err := os.MkdirTemp(h.dir, "ours-")
	if err != nil {
		t.Fatal(err)
	}
	mustRun(t, h.dir, "init", ours)
	mustRun(t, h.dir, "add", "image", "--all", ours, source)
	added := decodeLines[listed](t, mustRun(t, h.dir, "ls", "--json", ours).stdout)

	for _, w := range want {
		i := slices.IndexFunc(rows, func(l listed) bool {
			return l.RefName == w.refName && (w.digest == "" || l.Digest == w.digest)
		})
		if i < 0 {
			t.Errorf("ls %s = %+v, want %q with digest %q", source, rows, w.refName, w.digest)
			continue
		}
		row := rows[i]
		if !slices.Contains(added, row) {
			t.Errorf("add image %s = %+v, want %+v among them", source, added, row)
		}
		blobOf(t, ours, row.Digest)
		if w.image == nil {
			continue
		}
		if row.Kind != "image" {
			t.Errorf("ls %s: %q is a %s", source, w.refName, row.Kind)
		}
		named := source
		if w.refName != "" {
			named += ":" + w.refName
		}
		config := mustRun(t, h.dir, "inspect", "--raw", "--config", named).stdout
		checkTheirImage(t, ours, row.Digest, config, w.image)
	}

	packed := ours + ".oci"
	mustRun(t, h.dir, "pack", ours, packed)
	mustRun(t, h.dir, "verify", packed)
	repo := strings.TrimSuffix(v.repo, "test") + strings.ToLower(filepath.Base(h.dir)+filepath.Base(ours))
	mustRun(t, h.dir, "sync", "--tls-verify=false", packed, "docker://"+repo)
	for _, row := range added {
		at := string(row.Digest)
		if row.RefName != "" {
			at = row.RefName[strings.LastIndexByte(row.RefName, ':')+1:]
		}
		if got := registryDigest(t, repo, at); got != row.Digest {
			t.Errorf("sync of %s: %s of %s = %s, want %s", source, at, repo, got, row.Digest)
		}
	}
}

// checkTheirImage checks manifest d of a layout: its config is the given one, and
// its layers are those of want, compressed or not.
func checkTheirImage(t testing.TB, dir string, d digest.Digest, config string, want *testImage) {
	t.Helper()
	m := decode[ocispec.Manifest](t, blobOf(t, dir, d))
	if got := digest.FromString(config); got != m.Config.Digest {
		t.Errorf("%s: inspect --config shows %s, want %s", d, got, m.Config.Digest)
	}
	image := decode[ocispec.Image](t, config)
	if !slices.Equal(image.RootFS.DiffIDs, want.diffIDs) {
		t.Errorf("%s: diffIDs = %q, want %q", d, image.RootFS.DiffIDs, want.diffIDs)
	}
	if wanted := archOf(t, want); image.Architecture != wanted || image.OS != "linux" {
		t.Errorf("%s is for %s/%s, want linux/%s", d, image.OS, image.Architecture, wanted)
	}
	if len(m.Layers) != len(want.diffIDs) {
		t.Fatalf("%s has %d layers, want %d", d, len(m.Layers), len(want.diffIDs))
	}
	for i, layer := range m.Layers {
		if got := uncompressed(t, blobOf(t, dir, layer.Digest)); got != want.diffIDs[i] {
			t.Errorf("%s: layer %d has diffID %s, want %s", d, i, got, want.diffIDs[i])
		}
	}
}

// archOf returns the architecture for which an image was made.
func archOf(t testing.TB, im *testImage) string {
	t.Helper()
	for _, arch := range []string{"amd64", "arm64"} {
		if strings.Contains(im.release, "container-"+arch) {
			return arch
		}
	}
	t.Fatalf("no architecture in %q", im.release)
	return ""
}

func uncompressed(t testing.TB, raw string) digest.Digest {
	t.Helper()
	if !strings.HasPrefix(raw, "\x1f\x8b") {
		return digest.FromString(raw)
	}
	r, err := gzip.NewReader(strings.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	d, err := digest.FromReader(r)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// registryDigest asks a registry for a manifest and hashes what comes.
func registryDigest(t testing.TB, repo, at string) digest.Digest {
	t.Helper()
	host, name, _ := strings.Cut(repo, "/")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+"/v2/"+name+"/manifests/"+at, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, mediaType := range []string{
		testTypeIndex, testTypeManifest,
		"application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v2+json",
	} {
		req.Header.Add("Accept", mediaType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("GET %s:%s: %s, %v: %.200s", repo, at, resp.Status, err, body)
	}
	return digest.FromBytes(body)
}
