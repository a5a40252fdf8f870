package lint_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/lint"
	"github.com/gardenlinux/gloci-layout/layout/sourcetest"
)

const (
	typeRelease = "application/io.gardenlinux.release"
	amd, arm    = "linux/amd64", "linux/arm64"
)

// run lints all that m names and returns one line for each finding: severity,
// rule, the last digest of the path, and why.
func run(t *testing.T, m *sourcetest.Memory, rules []lint.Rule) []lint.Finding {
	t.Helper()
	tree, err := lint.Load(t.Context(), m, "", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	findings, err := lint.Run(t.Context(), tree, rules)
	if err != nil {
		t.Fatal(err)
	}
	return findings
}

// A want is a finding that there must be, and no other but those of severity info.
type want struct {
	rule     string
	severity lint.Severity
	at       digest.Digest
	why      string // part of it
}

func TestRules(t *testing.T) {
	files := func(m *sourcetest.Memory, content string) ocispec.Descriptor {
		return m.Artifact(sourcetest.With(m.Put(typeRelease, content), ocispec.AnnotationTitle, "release"))
	}
	for _, test := range []struct {
		name string
		make func(m *sourcetest.Memory) []want
	}{
		{"a sound index", func(m *sourcetest.Memory) []want {
			m.Name("1.0", m.ImageIndex(m.On(m.Image("a", amd), amd), m.On(m.Image("b", arm), arm),
				m.On(files(m, "x"), "gardenlinux/amd64"), m.On(files(m, "y"), "gardenlinux/arm64")))
			m.Name("example.org/app_x:v1", m.Image("a", amd))
			m.Name("", files(m, "z"))
			return nil
		}},
		{"an artifact as the only entry for linux", func(m *sourcetest.Memory) []want {
			a := files(m, "x")
			m.Name("1.0", m.ImageIndex(m.On(a, amd)))
			return []want{{"artifact-for-image", lint.Error, a.Digest, "podman, buildah, skopeo, docker, containerd, crane, regctl, asked for linux/amd64: no image but an artifact: unsupported image-specific operation"}}
		}},
		{"an artifact without platform takes all other platforms", func(m *sourcetest.Memory) []want {
			a := files(m, "x")
			m.Name("1.0", m.ImageIndex(m.On(m.Image("a", amd), amd), m.On(m.Image("b", arm), arm), m.On(files(m, "z"), "gardenlinux/arm"), a))
			return []want{
				{"artifact-for-image", lint.Error, a.Digest, "podman, buildah, skopeo, docker, asked for linux/arm:"},
				{"no-runtime", lint.Warning, "", "artifacts for arm,"},
			}
		}},
		{"no image for one architecture", func(m *sourcetest.Memory) []want {
			x := m.ImageIndex(m.On(m.Image("a", amd), amd), m.On(files(m, "x"), "gardenlinux/amd64"), m.On(files(m, "y"), "gardenlinux/arm64"))
			m.Name("1.0", x)
			return []want{{"no-runtime", lint.Warning, x.Digest, "artifacts for arm64, but no container image"}}
		}},
		{"artifacts only", func(m *sourcetest.Memory) []want {
			x := m.ImageIndex(m.On(files(m, "y"), "gardenlinux/arm64"))
			m.Name("1.0", x)
			return []want{{"no-runtime", lint.Info, x.Digest, "no container image at all"}}
		}},
		{"an index in an index", func(m *sourcetest.Memory) []want {
			x := m.ImageIndex(m.On(m.ImageIndex(m.On(m.Image("a", amd), amd)), amd))
			m.Name("1.0", x)
			return []want{{"clients-disagree", lint.Warning, x.Digest, "for linux/amd64: podman, buildah, skopeo would fail (nested); docker, containerd, crane, regctl would take"}}
		}},
		{"an image with a layer of another kind", func(m *sourcetest.Memory) []want {
			a := m.Image("a", amd, m.Put(typeRelease, "x"))
			m.Name("1.0", a)
			return []want{{"mixed-layers", lint.Error, a.Digest, "none of one: " + typeRelease}}
		}},
		{"an artifact with a layer of an image", func(m *sourcetest.Memory) []want {
			a := m.Artifact(m.Put(typeRelease, "x"), m.Put(sourcetest.TypeLayer, "y"))
			m.Name("1.0", a)
			return []want{{"mixed-layers", lint.Warning, a.Digest, sourcetest.TypeLayer}}
		}},
		{"an attestation is no mixture", func(m *sourcetest.Memory) []want {
			att := m.Manifest(m.Put(sourcetest.TypeConfig, `{"os":"unknown","architecture":"unknown"}`), m.Put("application/vnd.in-toto+json", "{}"))
			att = sourcetest.With(m.On(att, "unknown/unknown"), "vnd.docker.reference.type", "attestation-manifest")
			m.Name("1.0", m.ImageIndex(m.On(m.Image("a", amd), amd), att))
			return nil
		}},
		{"an empty manifest under a tag", func(m *sourcetest.Memory) []want {
			a := m.Artifact()
			m.Name("1592", a)
			return []want{{"empty-manifest", lint.Error, a.Digest, "what the tag named before is lost"}}
		}},
		{"artifacts that mean to be empty", func(m *sourcetest.Memory) []want {
			a := m.JSON(sourcetest.TypeManifest, map[string]any{
				"schemaVersion": 2, "mediaType": sourcetest.TypeManifest, "artifactType": "application/x", "layers": []int{},
				"config": m.Put("application/vnd.oci.empty.v1+json", "{}"), "annotations": map[string]string{"a": "b"},
			})
			m.Name("1.0", a)
			return []want{{"empty-manifest", lint.Info, a.Digest, "in its annotations"}}
		}},
		{"an empty index", func(m *sourcetest.Memory) []want {
			x := m.ImageIndex()
			m.Name("1.0", x)
			return []want{{"empty-manifest", lint.Warning, x.Digest, "an index without entries"}}
		}},
		{"an entry that says another platform", func(m *sourcetest.Memory) []want {
			a := m.Image("a", arm)
			m.Name("1.0", m.ImageIndex(m.On(a, amd)))
			return []want{{"platform-mismatch", lint.Warning, a.Digest, "the entry is for linux/amd64, the image for linux/arm64"}}
		}},
		{"a config that is not there", func(m *sourcetest.Memory) []want {
			a := m.Image("a", amd)
			m.Delete(digest.FromString(`{"architecture":"amd64","os":"linux","rootfs":{"diff_ids":["` + string(digest.FromString("a")) + `"],"type":"layers"},"variant":""}`))
			x := m.ImageIndex(m.On(a, amd))
			m.Name("1.0", x)
			return []want{
				{"clients-disagree", lint.Warning, x.Digest, "podman, buildah, docker, containerd would fail (document); skopeo, crane, regctl would take"},
				{"platform-mismatch", lint.Warning, a.Digest, "cannot be read"},
			}
		}},
		{"two entries for one platform", func(m *sourcetest.Memory) []want {
			a, b := m.Image("a", amd), m.Image("b", amd)
			m.Name("1.0", m.ImageIndex(m.On(a, amd), m.On(b, amd)))
			return []want{{"duplicate-key", lint.Warning, b.Digest, "2 entries for linux/amd64: " + string(a.Digest)}}
		}},
		{"two entries for one cname", func(m *sourcetest.Memory) []want {
			a, b := m.On(files(m, "a"), "gardenlinux/amd64"), m.On(files(m, "b"), "gardenlinux/amd64")
			a, b = sourcetest.With(a, "cname", "kvm-amd64"), sourcetest.With(b, "cname", "kvm-amd64")
			m.Name("1.0", m.ImageIndex(a, b))
			return []want{
				{"duplicate-key", lint.Warning, b.Digest, "2 entries for kvm-amd64 amd64:"},
				{"no-runtime", lint.Info, "", ""},
			}
		}},
		{"an index without mediaType", func(m *sourcetest.Memory) []want {
			x := m.JSON(sourcetest.TypeIndex, map[string]any{"schemaVersion": 2, "manifests": []any{m.On(m.Image("a", amd), amd)}})
			m.Name("1.0", x)
			return []want{{"no-media-type", lint.Error, x.Digest, "an index without mediaType"}}
		}},
		{"a manifest without mediaType", func(m *sourcetest.Memory) []want {
			a := m.JSON(sourcetest.TypeManifest, map[string]any{"schemaVersion": 2, "config": m.Put("a/b", "{}"), "layers": []any{m.Put("a/c", "x")}})
			m.Name("1.0", a)
			return []want{{"no-media-type", lint.Warning, a.Digest, "a manifest without mediaType"}}
		}},
		{"annotations that are null or None", func(m *sourcetest.Memory) []want {
			a := m.JSON(sourcetest.TypeManifest, map[string]any{
				"schemaVersion": 2, "mediaType": sourcetest.TypeManifest, "annotations": map[string]any{"commit": nil, "version": "None", "good": ""},
				"config": m.Put("a/b", "{}"), "layers": []any{sourcetest.With(m.Put("a/c", "x"), "cname", "null")},
			})
			m.Name("1.0", a)
			return []want{
				{"null-value", lint.Error, a.Digest, "annotation commit is null:"},
				{"null-value", lint.Error, a.Digest, "annotation version is None:"},
				{"null-value", lint.Error, a.Digest, "annotation cname is null (layers[0]):"},
			}
		}},
		{"None behind an escape", func(m *sourcetest.Memory) []want {
			config, layer := m.Put("a/b", "{}"), m.Put("a/c", "x")
			a := m.Put(sourcetest.TypeManifest, fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"annotations":{"version":"\u004eone"},`+
				`"config":{"mediaType":"a/b","digest":%q,"size":2},"layers":[{"mediaType":"a/c","digest":%q,"size":1}]}`, sourcetest.TypeManifest, config.Digest, layer.Digest))
			m.Name("1.0", a)
			return []want{{"null-value", lint.Error, a.Digest, "annotation version is None:"}}
		}},
		{"an empty mediaType", func(m *sourcetest.Memory) []want {
			config, layer := m.Put("a/b", "{}"), m.Put("a/c", "x")
			a := m.Put(sourcetest.TypeManifest, fmt.Sprintf(`{"schemaVersion":2,"mediaType":"",`+
				`"config":{"mediaType":"a/b","digest":%q,"size":2},"layers":[{"mediaType":"a/c","digest":%q,"size":1}]}`, config.Digest, layer.Digest))
			m.Name("1.0", a)
			return []want{{"no-media-type", lint.Warning, a.Digest, "a manifest without mediaType"}}
		}},
		{"a tag None", func(m *sourcetest.Memory) []want {
			a := files(m, "x")
			m.Name("None", a)
			return []want{{"null-value", lint.Error, a.Digest, `the ref name is "None"`}}
		}},
		{"a manifest that is too large", func(m *sourcetest.Memory) []want {
			near := m.JSON(sourcetest.TypeIndex, map[string]any{
				"schemaVersion": 2, "mediaType": sourcetest.TypeIndex, "manifests": []any{m.On(m.Image("a", amd), amd)},
				"annotations": map[string]string{"a": strings.Repeat("x", 3<<20)},
			})
			over := m.JSON(sourcetest.TypeIndex, map[string]any{
				"schemaVersion": 2, "mediaType": sourcetest.TypeIndex, "manifests": []any{}, "annotations": map[string]string{"a": strings.Repeat("x", 4<<20)},
			})
			m.Name("near", near)
			m.Name("over", over)
			return []want{
				{"manifest-size", lint.Error, over.Digest, "registries and clients take 4194304"},
				{"manifest-size", lint.Warning, near.Digest, "registries and clients take 4194304"},
			}
		}},
		{"a manifest that is missing, and one that is damaged", func(m *sourcetest.Memory) []want {
			gone, bad := m.Image("gone", arm), m.Put(sourcetest.TypeManifest, "{}")
			x := m.ImageIndex(m.On(m.Image("a", amd), amd), m.On(gone, arm), m.On(bad, "linux/s390x"))
			m.Name("1.0", x)
			m.Delete(gone.Digest)
			return []want{
				{"unreadable", lint.Error, gone.Digest, "not found"},
				{"unreadable", lint.Error, bad.Digest, "invalid"},
			}
		}},
		{"names that no registry takes", func(m *sourcetest.Memory) []want {
			a := m.Image("a", amd)
			var wants []want
			for _, bad := range []string{"a+b", "-x", "example.org/App:v1", "example.org:port/app:v1", "app/x", "app:v/1", "ghcr.io/a__b---c..d:v1", strings.Repeat("t", 129), strings.Repeat("r", 256) + ":v1"} {
				m.Name(bad, a)
				wants = append(wants, want{"ref-name", lint.Error, a.Digest, fmt.Sprintf("ref name %q: ", bad)})
			}
			for _, good := range []string{"v1", "_x", "2150.1.0", "app:v1", "LOCALHOST:5000/app:v1", "Host/app:v1", "ghcr.io/a__b---c.d/e:V_1", "[::1]:5000/app:v1", strings.Repeat("t", 128)} {
				m.Name(good, a)
			}
			return wants
		}},
		{"referrers of what is gone", func(m *sourcetest.Memory) []want {
			a := m.Image("a", amd)
			gone := m.Image("gone", amd)
			m.Name("1.0", a)
			sig := m.Artifact(m.Put("application/vnd.dev.cosign.simplesigning.v1+json", "{}"))
			m.Name("sha256-"+a.Digest.Encoded()+".sig", sig)
			old := m.Artifact(m.Put("application/vnd.dev.cosign.simplesigning.v1+json", "{ }"))
			m.Name("sha256-"+gone.Digest.Encoded()+".sig", old)
			sbom := m.JSON(sourcetest.TypeManifest, map[string]any{
				"schemaVersion": 2, "mediaType": sourcetest.TypeManifest, "config": m.Put("a/b", "{}"), "layers": []any{m.Put("a/c", "x")}, "subject": gone,
			})
			m.Name("", sbom)
			m.Delete(gone.Digest)
			return []want{
				{"stale-referrer", lint.Warning, old.Digest, "belongs to " + string(gone.Digest)},
				{"stale-referrer", lint.Warning, sbom.Digest, "its subject " + string(gone.Digest) + " is not there"},
			}
		}},
		{"signed and unsigned tags", func(m *sourcetest.Memory) []want {
			a, b := m.Image("a", amd), m.Image("b", arm)
			x := m.ImageIndex(m.On(a, amd), m.On(b, arm))
			m.Name("1.0", x)
			m.Name("app", a)
			sign := func(d digest.Digest) {
				m.Name("sha256-"+d.Encoded()+".sig", m.Artifact(m.Put("application/vnd.dev.cosign.simplesigning.v1+json", string(d))))
			}
			sign(a.Digest)
			half := m.ImageIndex(m.On(a, amd))
			m.Name("half", half)
			signedIndex := m.ImageIndex(m.On(b, arm))
			m.Name("whole", signedIndex)
			m.Name("", m.JSON(sourcetest.TypeManifest, map[string]any{
				"schemaVersion": 2, "mediaType": sourcetest.TypeManifest, "artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json",
				"config": m.Put("application/vnd.oci.empty.v1+json", "{}"), "layers": []any{m.Put("a/c", "x")}, "subject": signedIndex,
			}))
			return []want{
				{"unsigned", lint.Info, x.Digest, "neither the index nor 1 of its 2 manifests"},
				{"unsigned", lint.Info, half.Digest, "the index has no signature, though all its manifests have"},
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := sourcetest.NewMemory(t)
			wants := test.make(m)
			byRule := func(name string) bool { return slices.ContainsFunc(wants, func(w want) bool { return w.rule == name }) }
			var got []lint.Finding
			for _, f := range run(t, m, lint.Rules()) {
				if f.Severity != lint.Info || byRule(f.Rule) {
					got = append(got, f)
				}
				if f.Cure == "" && f.Rule != "duplicate-key" {
					t.Errorf("no cure: %+v", f)
				}
			}
			for i, w := range wants {
				if i >= len(got) {
					t.Errorf("missing: %+v", w)
					continue
				}
				f := got[i]
				if f.Rule != w.rule || f.Severity != w.severity || w.at != "" && f.Path[len(f.Path)-1] != w.at || !strings.Contains(f.Why, w.why) {
					t.Errorf("finding %d = %+v\nwant %+v", i, f, w)
				}
			}
			for _, f := range got[min(len(wants), len(got)):] {
				t.Errorf("unexpected: %+v", f)
			}
		})
	}
}

// Two ref names of one digest are one root; a tree is what a name reaches.
func TestLoad(t *testing.T) {
	m := sourcetest.NewMemory(t)
	inner := m.ImageIndex(m.On(m.Image("a", amd), amd))
	x := m.ImageIndex(m.On(inner, amd), m.On(m.Image("a", amd), amd))
	other := m.Image("b", arm)
	m.Name("1.0", x)
	m.Name("latest", x)
	m.Name("other", other)
	tree, err := lint.Load(t.Context(), m, "", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.Roots) != 2 || !slices.Equal(tree.Roots[0].RefNames, []string{"1.0", "latest"}) || len(tree.Roots[0].Nodes) != 3 {
		t.Errorf("roots = %+v", tree.Roots)
	}
	tree, err = lint.Load(t.Context(), m, "other", "", nil)
	if err != nil || len(tree.Roots) != 1 || tree.Roots[0].Desc.Digest != other.Digest || len(tree.RefNames) != 3 {
		t.Errorf("other = %+v, %v", tree, err)
	}
	if _, err := lint.Load(t.Context(), m, "absent", "", nil); !errors.Is(err, layout.ErrNotFound) {
		t.Errorf("absent: %v", err)
	}
	// A member that was left out is no finding where that is said.
	m.Delete(other.Digest)
	m.Name("sparse", m.ImageIndex(m.On(m.Image("a", amd), amd), m.On(other, arm)))
	for sparse, want := range map[bool]int{false: 1, true: 0} {
		tree, err = lint.Load(t.Context(), m, "sparse", "", &lint.LoadOptions{Sparse: sparse})
		if err != nil {
			t.Fatal(err)
		}
		findings, err := lint.Run(t.Context(), tree, slices.DeleteFunc(lint.Rules(), func(r lint.Rule) bool { return r.Severity() == lint.Info }))
		if err != nil || len(findings) != want {
			t.Errorf("sparse %v: %d findings, %v, want %d: %+v", sparse, len(findings), err, want, findings)
		}
	}
	m.Err = io.ErrClosedPipe
	if _, err := lint.Load(t.Context(), m, "", "", nil); !errors.Is(err, m.Err) {
		t.Errorf("a source that cannot be read: %v", err)
	}
}

// The order is that of severity, then of the tree, and does not vary.
func TestOrder(t *testing.T) {
	m := sourcetest.NewMemory(t)
	m.Name("b", m.Artifact())
	m.Name("a+", m.Image("x", amd))
	m.Name("c", m.ImageIndex())
	first := run(t, m, lint.Rules())
	var got []string
	for _, f := range first {
		got = append(got, string(f.Severity)+" "+f.Rule)
	}
	want := []string{"error empty-manifest", "error ref-name", "warning empty-manifest", "info unsigned", "info unsigned", "info unsigned"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(first, run(t, m, lint.Rules())); diff != "" {
		t.Errorf("second run (-first +second):\n%s", diff)
	}
}
