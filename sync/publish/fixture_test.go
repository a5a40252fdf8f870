package publish_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/gardenlinux"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
	"github.com/gardenlinux/gloci-layout/sync/publish"
	"github.com/gardenlinux/gloci-layout/sync/pushtest"
	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

const (
	version  = "2150.1.0"
	repoName = "gardenlinux"
)

// TestMain keeps the machine out of the tests.
func TestMain(m *testing.M) { os.Exit(pushtest.Main(m)) }

// scheme is that of the command publish.
type scheme struct{}

func (scheme) Part(version string, desc ocispec.Descriptor, doc *layout.Document, platform *ocispec.Platform) (publish.Part, bool) {
	if n, entry, ok := gardenlinux.FlavorEntry(desc, doc); ok {
		return publish.Part{Tag: gardenlinux.FlavorTag(n), Entry: entry}, n.Version == version
	}
	if doc.IsImage() && platform != nil && platform.OS == "linux" {
		desc.Platform = platform
		return publish.Part{Tag: gardenlinux.RuntimeTag(platform.Architecture, version), Entry: desc, ByTag: true}, true
	}
	return publish.Part{}, false
}

func (scheme) Find(version, name string) (publish.Part, bool) {
	tag, entry, ok := gardenlinux.FindPart(version, name)
	return publish.Part{Tag: tag, Entry: entry}, ok
}

// build makes the artifact manifest of a Garden Linux flavor, as gl-oci does.
func build(m pushtest.Maker, base, content string) ocispec.Descriptor {
	m.T.Helper()
	n, err := gardenlinux.ParseName(base)
	if err != nil {
		m.T.Fatal(err)
	}
	config := m.Blob("{}", "application/vnd.unknown.config.v1+json")
	config.Annotations = map[string]string{"cname": base, "architecture": n.Arch}
	raw, err := layout.EncodeManifest(ocispec.Manifest{
		Config: config, Layers: []ocispec.Descriptor{m.Blob(content, "application/io.gardenlinux.kernel")},
		Annotations: map[string]string{"cname": base, "architecture": n.Arch, "version": n.Version, "commit": n.Commit, "feature_set": "base"},
	})
	desc := m.JSON(raw, err, ocispec.MediaTypeImageManifest)
	desc.Annotations = map[string]string{"cname": base, "architecture": n.Arch, "feature_set": "base"}
	desc.Platform = &ocispec.Platform{Architecture: n.Arch, OS: "gardenlinux", OSVersion: n.Version}
	return desc
}

// base is the artifact base name of flavor number i.
func base(i int) string { return fmt.Sprintf("flavor%d-amd64-%s-abc12345", i, version) }

func flavorTag(i int) string { return fmt.Sprintf("%s-flavor%d-amd64", version, i) }

// A kit is a layout with flavors and images to publish; they are its roots.
type kit struct {
	*layout.Layout
	roots []ocispec.Descriptor
}

// newKit makes one of what fill returns.
func newKit(t *testing.T, fill func(m pushtest.Maker) []ocispec.Descriptor) *kit {
	t.Helper()
	k := &kit{}
	k.Layout = pushtest.NewLayout(t, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		entries := fill(m)
		return map[string]ocispec.Descriptor{version: m.Index(entries...)}
	})
	x, err := k.Index(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	k.roots = x.Entries()
	return k
}

// flavorKit is a layout with flavors of these numbers.
func flavorKit(t *testing.T, numbers ...int) *kit {
	t.Helper()
	return newKit(t, func(m pushtest.Maker) []ocispec.Descriptor {
		var entries []ocispec.Descriptor
		for _, i := range numbers {
			entries = append(entries, build(m, base(i), fmt.Sprintf("kernel %d", i)))
		}
		return entries
	})
}

// memoryOptions reach m without anything of the machine.
func memoryOptions(t *testing.T, m *regtest.Memory) layoutsync.RegistryOptions {
	t.Helper()
	opts := pushtest.Options(t, nil)
	opts.Transport, opts.Jobs, opts.Tries = m.Transport(), 1, 1
	opts.NoCreds = true
	return opts
}

func memoryRepository(t *testing.T) layoutsync.Repository {
	t.Helper()
	r, err := layoutsync.ParseRepository(regtest.MemoryHost + "/" + repoName)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// noWait lets no time pass.
func noWait(ctx context.Context, _ time.Duration) error { return context.Cause(ctx) }

// publishing returns options for publishing k to what opts reach.
func publishing(opts layoutsync.RegistryOptions, k *kit) *publish.Options {
	p := &publish.Options{Registry: opts, Version: version, Scheme: scheme{}}
	if k != nil {
		p.Roots = k.roots
	}
	publish.SetSleep(p, noWait)
	return p
}

// source keeps a nil *kit from becoming a Source that is not nil.
func (k *kit) source() layout.Source {
	if k == nil {
		return nil
	}
	return k.Layout
}

// mustPublish publishes k and wants the index to converge.
func mustPublish(t *testing.T, dest layoutsync.Repository, k *kit, opts *publish.Options) *publish.Report {
	t.Helper()
	report, err := publish.Run(t.Context(), k.source(), dest, opts)
	if err != nil {
		t.Fatal(err)
	}
	if !report.Converged {
		t.Error("no error, and not converged")
	}
	return report
}

// published returns the entries of the index of the version in m, by cname or
// platform.
func published(t testing.TB, m *regtest.Memory, tag string) map[string]digest.Digest {
	t.Helper()
	return entriesByName(t, m.Manifest(repoName, m.Tags(repoName)[tag]))
}

func entriesByName(t testing.TB, raw []byte) map[string]digest.Digest {
	t.Helper()
	found := map[string]digest.Digest{}
	if raw == nil {
		return found
	}
	var x ocispec.Index
	if err := json.Unmarshal(raw, &x); err != nil {
		t.Fatal(err)
	}
	for _, e := range x.Manifests {
		name := e.Annotations["cname"]
		if name == "" && e.Platform != nil {
			name = e.Platform.OS + "/" + e.Platform.Architecture
		}
		if found[name] != "" {
			name += " " + string(e.Digest)
		}
		found[name] = e.Digest
	}
	return found
}

// wantFlavors checks that the index has exactly these flavors, and that each
// is what its tag names.
func wantFlavors(t testing.TB, m *regtest.Memory, numbers ...int) error {
	t.Helper()
	entries, tags := published(t, m, version), m.Tags(repoName)
	var faults []error
	for _, i := range numbers {
		if d := entries[base(i)]; d == "" || d != tags[flavorTag(i)] {
			faults = append(faults, fmt.Errorf("flavor %d: the index has %q, the tag names %q", i, d, tags[flavorTag(i)]))
		}
	}
	if len(entries) != len(numbers) {
		faults = append(faults, fmt.Errorf("%d entries, want %d: %v", len(entries), len(numbers), entries))
	}
	return errors.Join(faults...)
}

// watch reports every tag that names something incomplete, at any time.
func watch(t testing.TB, m *regtest.Memory) {
	m.AfterEach(func(mu regtest.Mutation) {
		if mu.Kind != "tag" {
			return
		}
		if err := m.Complete(mu.Repo, mu.Digest); err != nil {
			t.Errorf("request %d: tag %s: %v", mu.Request, mu.Tag, err)
		}
	})
}

// putForeign does what a program does that knows nothing of the protocol: it
// pushes images by digest, tags them if asked, and puts an index of them under
// the version's tag.
func putForeign(t *testing.T, m *regtest.Memory, l *layout.Layout, tag string) {
	t.Helper()
	dest := memoryRepository(t)
	x, err := l.Index(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var targets []layoutsync.Target
	for _, e := range x.Entries() {
		target := layoutsync.Target{Desc: e}
		if name := layout.RefName(e); name == "index" {
			target.Tag = tag
		} else if strings.HasSuffix(name, "-"+version) {
			target.Tag = name
		}
		targets = append(targets, target)
	}
	if _, err := layoutsync.Push(t.Context(), l, dest, &layoutsync.PushOptions{Registry: memoryOptions(t, m), Targets: targets, Replace: true}); err != nil {
		t.Fatal(err)
	}
}

// tagsLike returns the tags that contain part, sorted.
func tagsLike(m *regtest.Memory, part string) []string {
	var list []string
	for tag := range m.Tags(repoName) {
		if strings.Contains(tag, part) {
			list = append(list, tag)
		}
	}
	slices.Sort(list)
	return list
}

// rebuild makes flavor 0 from another commit.
func rebuild(m pushtest.Maker) []ocispec.Descriptor {
	return []ocispec.Descriptor{build(m, strings.Replace(base(0), "abc12345", "def67890", 1), "kernel 0, rebuilt")}
}

// newForeign makes what podman pushes: an index of one image, without a tag for
// the image.
func newForeign(t *testing.T) *layout.Layout {
	t.Helper()
	return pushtest.NewLayout(t, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		return map[string]ocispec.Descriptor{"index": m.Index(m.Image("amd64", "podman's"))}
	})
}

// indexOf reads an index of a layout.
func indexOf(t *testing.T, src layout.Source, desc ocispec.Descriptor) *layout.Index {
	t.Helper()
	raw, err := layout.ReadAll(t.Context(), src, desc, layout.MaxDocument)
	if err != nil {
		t.Fatal(err)
	}
	x, err := layout.ParseIndex(raw)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// reference names a tag of a repository.
func reference(reg *regtest.Registry, name, tag string) layout.Reference {
	return layout.Reference{Transport: "docker", Location: reg.Host + "/" + name, RefName: tag}
}
