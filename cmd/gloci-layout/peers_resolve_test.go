//go:build linux

package main_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/oci"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/consumer"
	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// A picker runs a tool. What it took is told by the digest of the manifest, of
// the config, or by the chain ID of the layers; "" is a failure.
type picker struct {
	consumer consumer.Consumer
	by       func(o *consumer.Outcome, doc imageDocuments) string
	pick     func(h *peerHome, ref string, p ocispec.Platform) (got, stderr string)
}

// imageDocuments is what an answer names its image by.
type imageDocuments struct{ manifest, config, chain string }

// TestResolveAgrees compares what `resolve --as` says with what the real programs
// take, on all shapes.
func TestResolveAgrees(t *testing.T) {
	s := newShapes(t)
	var entries []ocispec.Descriptor
	for _, sh := range s.list {
		desc := sh.root
		desc.Annotations = map[string]string{ocispec.AnnotationRefName: sh.name}
		entries = append(entries, desc)
	}
	s.index(entries...)
	if len(s.list) < 30 {
		t.Fatalf("%d shapes, want 30 or more", len(s.list))
	}
	src, err := layout.Open(t.Context(), s.dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	reg := regtest.Start(t, nil)
	repo := reg.Host + "/shapes"
	s.push(repo)

	manifest := func(o *consumer.Outcome, d imageDocuments) string { return d.manifest }
	config := func(o *consumer.Outcome, d imageDocuments) string { return d.config }
	pickers := map[string]picker{
		"skopeo":     {consumer.Skopeo, manifest, skopeoPicks},
		"podman":     {consumer.Podman, config, podmanPicks},
		"buildah":    {consumer.Buildah, config, buildahPicks},
		"crane":      {consumer.Crane, manifest, cranePicks},
		"regctl":     {consumer.Regctl, manifest, regctlPicks},
		"oras-go":    {consumer.ORAS, manifest, orasPicks(s.dir)},
		"containerd": {consumer.Containerd, func(_ *consumer.Outcome, d imageDocuments) string { return d.chain }, nil},
	}
	t.Run("tools", func(t *testing.T) {
		for name, p := range pickers {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				h := newPeerHome(t)
				switch name {
				case "podman", "buildah":
					h.needEngine(name)
				case "containerd":
					p.pick = containerdPicks(startContainerd(t, h))
				}
				compared := 0
				for _, sh := range s.list {
					for _, platform := range sh.platforms {
						want, err := layout.ParsePlatform(platform)
						if err != nil {
							t.Fatal(err)
						}
						o, err := p.consumer.Take(t.Context(), src, sh.root, consumer.Ask{Platform: want, Host: *want})
						if err != nil {
							t.Fatal(err)
						}
						says, how := "", ""
						if o.Failure == nil {
							says = p.by(o, s.documents(o))
						} else {
							how = o.Failure.Message
						}
						got, stderr := p.pick(h, repo+":"+sh.name, *want)
						compared++
						if got != says {
							t.Errorf("%s for %s: took %q, resolve says %q %s (%s)\n%s", sh.name, platform, got, says, how, o.Why, strings.TrimSpace(stderr))
							continue
						}
						if got == "" && how != "" && o.Failure.Kind != consumer.FailSilent && !failsAlike(stderr, how) {
							t.Errorf("%s for %s: failed with\n%s\nresolve says %q", sh.name, platform, strings.TrimSpace(stderr), how)
						}
					}
				}
				t.Logf("%d choices on %d shapes compared", compared, len(s.list))
			})
		}
	})
}

// failsAlike tells whether a tool's message is the one that resolve names: a
// digest or platform in it may be written in another way.
func failsAlike(stderr, message string) bool {
	stderr = strings.ReplaceAll(strings.ReplaceAll(strings.ToLower(stderr), `\"`, ""), `"`, "")
	words := strings.Fields(strings.ReplaceAll(strings.ToLower(message), `"`, ""))
	n := min(3, len(words))
	return strings.Contains(stderr, strings.Join(words[:n], " "))
}

// documents returns what names the image that o is.
func (s *shapes) documents(o *consumer.Outcome) imageDocuments {
	d := imageDocuments{manifest: string(o.Desc.Digest)}
	if o.Document == nil || o.Document.Config == nil {
		return d
	}
	d.config = string(o.Document.Config.Digest)
	conf := decode[ocispec.Image](s.t, readPeerFile(s.t, s.path("blobs/sha256/"+o.Document.Config.Digest.Encoded())))
	if len(conf.RootFS.DiffIDs) > 0 {
		d.chain = chainID(&testImage{diffIDs: conf.RootFS.DiffIDs})
	}
	return d
}

func skopeoPicks(h *peerHome, ref string, p ocispec.Platform) (got, stderr string) {
	out := h.path("skopeo")
	args := []string{"--override-os", p.OS, "--override-arch", p.Architecture}
	if p.Variant != "" {
		args = append(args, "--override-variant", p.Variant)
	}
	r := h.try("skopeo", append(args, "copy", "--quiet", "--src-tls-verify=false", "docker://"+ref, "dir:"+out)...)
	if r.exit != 0 {
		return "", r.stderr
	}
	return string(digest.FromString(readPeerFile(h.t, filepath.Join(out, "manifest.json")))), ""
}

func podmanPicks(h *peerHome, ref string, p ocispec.Platform) (got, stderr string) {
	return enginePicks(h, "podman", ref, p)
}

func buildahPicks(h *peerHome, ref string, p ocispec.Platform) (got, stderr string) {
	return enginePicks(h, "buildah", ref, p)
}

// enginePicks names images by their configs, as these tools do.
func enginePicks(h *peerHome, tool, ref string, p ocispec.Platform) (got, stderr string) {
	args := append(h.storage(tool), "pull", "--quiet", "--tls-verify=false", "--platform", layout.FormatPlatform(p))
	if tool == "buildah" { // else it takes what it has, for whatever platform that is
		args = append(args, "--policy", "always")
	}
	r := h.try(tool, append(args, "docker://"+ref)...)
	if r.exit != 0 {
		return "", r.stderr
	}
	return "sha256:" + strings.TrimPrefix(strings.TrimSpace(r.stdout), "sha256:"), ""
}

func cranePicks(h *peerHome, ref string, p ocispec.Platform) (got, stderr string) {
	r := h.try("crane", "digest", "--insecure", "--platform", layout.FormatPlatform(p), ref)
	return strings.TrimSpace(r.stdout), r.stderr
}

func regctlPicks(h *peerHome, ref string, p ocispec.Platform) (got, stderr string) {
	host, _, _ := strings.Cut(ref, "/")
	r := h.try("regctl", "--host", "reg="+host+",tls=disabled", "image", "digest", "--platform", layout.FormatPlatform(p), ref)
	return strings.TrimSpace(r.stdout), r.stderr
}

// orasPicks asks oras-go, of which the oras program is made.
func orasPicks(dir string) func(*peerHome, string, ocispec.Platform) (string, string) {
	return func(h *peerHome, ref string, p ocispec.Platform) (got, stderr string) {
		store, err := oci.NewFromFS(context.Background(), os.DirFS(dir))
		if err != nil {
			h.t.Fatal(err)
		}
		_, tag, _ := cutLast(ref, ":")
		desc, err := oras.Resolve(h.t.Context(), store, tag, oras.ResolveOptions{TargetPlatform: &p})
		if err != nil {
			return "", err.Error()
		}
		return string(desc.Digest), ""
	}
}

// containerdPicks names images by the chain IDs of their layers, as containerd
// names what it unpacks.
func containerdPicks(ctr func(args ...string) ran) func(*peerHome, string, ocispec.Platform) (string, string) {
	return func(h *peerHome, ref string, p ocispec.Platform) (got, stderr string) {
		r := ctr("images", "pull", "--plain-http", "--snapshotter", "native", "--print-chainid", "--platform", layout.FormatPlatform(p), ref)
		if r.exit != 0 {
			return "", r.stderr
		}
		for line := range strings.Lines(r.stdout) {
			if id, ok := strings.CutPrefix(strings.TrimSpace(line), "image chain ID: "); ok {
				return id, ""
			}
		}
		return "", r.stdout
	}
}
