package diff_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/diff"
	"github.com/gardenlinux/gloci-layout/layout/diff/filediff"
)

// A store is a source in memory that notes what is opened.
type store struct {
	layout.Source // nil: what the tests do not need
	blobs         map[digest.Digest][]byte
	entries       []ocispec.Descriptor
	mu            sync.Mutex
	opened        map[digest.Digest]int
}

func newStore() *store {
	return &store{blobs: map[digest.Digest][]byte{}, opened: map[digest.Digest]int{}}
}

func (s *store) String() string { return "store" }

func (s *store) Index(context.Context) (*layout.Index, error) {
	x := layout.NewIndex()
	for _, desc := range s.entries {
		x.Add(desc)
	}
	return layout.ParseIndex(x.Bytes())
}

func (s *store) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	return layout.OpenBlob(ctx, desc, func(d digest.Digest) (io.ReadCloser, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.opened[d]++
		data, ok := s.blobs[d]
		if !ok {
			return nil, &layout.BlobError{Op: "open", Desc: desc, Err: layout.ErrNotFound}
		}
		return io.NopCloser(bytes.NewReader(data)), nil
	})
}

func (s *store) put(mediaType string, data []byte) ocispec.Descriptor {
	d := digest.FromBytes(data)
	s.blobs[d] = data
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

func (s *store) putJSON(mediaType string, v any) ocispec.Descriptor {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return s.put(mediaType, data)
}

// tarOf makes an archive of NAME to CONTENT, sorted.
func tarOf(files map[string]string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(files[name])), Mode: 0o644}); err != nil {
			panic(err)
		}
		if _, err := io.WriteString(w, files[name]); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func squeeze(f compress.Format, data []byte) []byte {
	var b bytes.Buffer
	w, err := compress.NewWriter(&b, f, 0)
	if err == nil {
		_, err = w.Write(data)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		panic(err)
	}
	return b.Bytes()
}

var mediaTypes = map[compress.Format]string{
	compress.None: ocispec.MediaTypeImageLayer, compress.Gzip: ocispec.MediaTypeImageLayerGzip, compress.Zstd: ocispec.MediaTypeImageLayerZstd,
}

// image stores a container image of one layer.
func (s *store) image(arch string, config ocispec.ImageConfig, f compress.Format, files map[string]string) ocispec.Descriptor {
	plain := tarOf(files)
	layer := s.put(mediaTypes[f], squeeze(f, plain))
	conf := s.putJSON(ocispec.MediaTypeImageConfig, ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: arch}, Config: config,
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(plain)}},
	})
	desc := s.putJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: conf, Layers: []ocispec.Descriptor{layer},
	})
	desc.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
	return desc
}

// artifact stores a manifest over titled layers.
func (s *store) artifact(artifactType string, annotations map[string]string, layers map[string]string) ocispec.Descriptor {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifactType,
		Config: s.put(ocispec.MediaTypeEmptyJSON, []byte("{}")), Layers: []ocispec.Descriptor{}, Annotations: annotations,
	}
	for _, title := range slices.Sorted(maps.Keys(layers)) {
		l := s.put("application/x"+path.Ext(title), []byte(layers[title]))
		l.Annotations = map[string]string{ocispec.AnnotationTitle: title}
		m.Layers = append(m.Layers, l)
	}
	desc := s.putJSON(ocispec.MediaTypeImageManifest, m)
	desc.ArtifactType = artifactType
	return desc
}

func (s *store) index(entries ...ocispec.Descriptor) ocispec.Descriptor {
	return s.putJSON(ocispec.MediaTypeImageIndex, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: entries})
}

func named(desc ocispec.Descriptor, ref string) ocispec.Descriptor {
	desc.Annotations = maps.Clone(desc.Annotations)
	if desc.Annotations == nil {
		desc.Annotations = map[string]string{}
	}
	desc.Annotations[ocispec.AnnotationRefName] = ref
	return desc
}

func changes(t testing.TB, a, b diff.Side, opts *diff.Options, sum *diff.Summary) []diff.Change {
	t.Helper()
	var list []diff.Change
	for ch, err := range diff.Compare(t.Context(), a, b, opts, sum) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, ch)
	}
	return list
}

// short is a change in one line.
func short(ch diff.Change) string {
	s := []string{ch.Level.String(), string(ch.Kind)}
	for _, name := range []string{ch.Ref, ch.Entry, ch.Layer, strings.Join(ch.Path, "!/")} {
		if name != "" {
			s = append(s, name)
		}
	}
	for _, f := range ch.Fields {
		switch f.Name {
		case "content", "encoding":
			s = append(s, f.Name)
		default:
			s = append(s, f.Name+"="+deref(f.A)+">"+deref(f.B))
		}
	}
	if p := ch.Package; p != nil {
		s = append(s, p.Name, p.A+">"+p.B)
	}
	return strings.Join(s, " ")
}

func deref(s *string) string {
	if s == nil {
		return "-"
	}
	return *s
}

func shorts(list []diff.Change) []string {
	var s []string
	for _, ch := range list {
		s = append(s, short(ch))
	}
	return s
}

func check(t *testing.T, a, b diff.Side, opts *diff.Options, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, shorts(changes(t, a, b, opts, nil))); diff != "" {
		t.Errorf("-want +have:\n%s", diff)
	}
}

func TestLevels(t *testing.T) {
	a, b := newStore(), newStore()
	files := map[string]string{"etc/os-release": "VERSION=1\n", "usr/bin/app": "app"}
	changed := map[string]string{"etc/os-release": "VERSION=2\n", "usr/bin/app": "app", "usr/bin/new": "n"}
	same := func(s *store) ocispec.Descriptor {
		return s.image("arm64", ocispec.ImageConfig{}, compress.Gzip, files)
	}
	a.entries = []ocispec.Descriptor{
		named(a.index(a.image("amd64", ocispec.ImageConfig{Env: []string{"A=1", "B=2"}}, compress.Gzip, files), same(a)), "app"),
		named(a.artifact("application/x-note", nil, map[string]string{"n": "1"}), "gone"),
		named(a.artifact("application/x-kept", nil, map[string]string{"k": "1"}), "kept"),
	}
	b.entries = []ocispec.Descriptor{
		named(b.index(b.image("amd64", ocispec.ImageConfig{Env: []string{"B=3", "A=1"}}, compress.Zstd, changed), same(b)), "app"),
		named(b.artifact("application/x-kept", nil, map[string]string{"k": "1"}), "renamed"),
		named(b.artifact("application/x-more", nil, map[string]string{"m": "1"}), "new"),
	}
	sa, sb := diff.Side{Source: a}, diff.Side{Source: b}
	layerA, layerB := squeeze(compress.Gzip, tarOf(files)), squeeze(compress.Zstd, tarOf(changed))
	all := []string{
		"refs moved app app",
		"index changed app linux/amd64",
		"manifest changed app linux/amd64",
		"config changed app linux/amd64 /config/Env/B=2>3",
		"layer changed app linux/amd64 layer 1",
		"file changed app linux/amd64 layer 1 etc/os-release content",
		"file added app linux/amd64 layer 1 usr/bin/new",
		"refs removed gone gone",
		"refs renamed kept kept refName=kept>renamed",
		"refs added new new",
	}
	var sum diff.Summary
	if diff := cmp.Diff(all, shorts(changes(t, sa, sb, &diff.Options{Total: "b"}, &sum))); diff != "" {
		t.Errorf("-want +have:\n%s", diff)
	}
	size := func(docs ...ocispec.Descriptor) (n int64) {
		for _, d := range docs {
			n += d.Size
		}
		return n
	}
	var configA, configB string
	onlyB := size(b.entries[0], b.entries[2]) + int64(len(layerB)) // the layer "1" and the config of the artifact that was added are known
	for _, ch := range changes(t, sa, sb, nil, nil) {
		if ch.Level == diff.LevelManifest || ch.Level == diff.LevelConfig {
			onlyB += ch.B.Size
		}
		if ch.Level == diff.LevelConfig {
			configA, configB = string(ch.A.Digest), string(ch.B.Digest)
		}
	}
	if sum.OnlyB != onlyB || !sum.Complete || sum.Manifests != 5 || sum.Changed != 3 || sum.Added != 1 || sum.Removed != 1 {
		t.Errorf("summary %+v, want %d bytes only in B", sum, onlyB)
	}
	layerDigest := digest.FromBytes(layerA) // amd64 has it in A alone, though arm64 has it in both
	for digest := range a.opened {
		if _, ok := b.blobs[digest]; ok && digest != layerDigest {
			t.Errorf("A: %s was opened, which both have: %.200q", digest, a.blobs[digest])
		}
	}
	for level, want := range map[diff.Level][]string{
		diff.LevelRefs:  {all[0], all[7], all[8], all[9]},
		diff.LevelIndex: {all[0], all[1], all[7], all[8], all[9]},
		diff.LevelManifest: {
			all[0], all[1],
			"manifest changed app linux/amd64 /config/digest=CA>CB /layers/layer 1/digest=LA>LB", all[7], all[8], all[9],
		},
		diff.LevelConfig: {all[0], all[1], "manifest changed app linux/amd64 /layers/layer 1/digest=LA>LB", all[3], all[7], all[8], all[9]},
		diff.LevelLayer:  {all[0], all[1], all[2], all[3], all[4], all[7], all[8], all[9]},
	} {
		clear(a.opened)
		have := shorts(changes(t, sa, sb, &diff.Options{Level: level}, nil))
		for i := range have {
			r := strings.NewReplacer(string(digest.FromBytes(layerA)), "LA", string(digest.FromBytes(layerB)), "LB", configA, "CA", configB, "CB")
			have[i] = r.Replace(have[i])
		}
		if diff := cmp.Diff(want, have); diff != "" {
			t.Errorf("%s (-want +have):\n%s", level, diff)
		}
		if level < diff.LevelLayer && a.opened[digest.FromBytes(layerA)] > 0 {
			t.Errorf("%s: a layer was opened", level)
		}
	}
	check(t, sa, sa, nil)
}

// The cost grows with the difference: of 300 images, those that are equal are
// not opened, and to sum up what is equal, their manifests on one side.
func TestCost(t *testing.T) {
	const n = 300
	a, b := newStore(), newStore()
	for i := range n {
		for _, s := range []*store{a, b} {
			content := fmt.Sprint(i)
			if s == b && i == 100 {
				content = "another"
			}
			s.entries = append(s.entries, named(s.image("amd64", ocispec.ImageConfig{}, compress.None, map[string]string{"f": content}), fmt.Sprint("image-", i)))
		}
	}
	for total, want := range map[string][2]int{"": {3, 3}, "a": {3 + n - 1, 3}, "b": {3, 3 + n - 1}} {
		clear(a.opened)
		clear(b.opened)
		var sum diff.Summary
		if have := len(changes(t, diff.Side{Source: a}, diff.Side{Source: b}, &diff.Options{Total: total}, &sum)); have != 4 {
			t.Errorf("%d changes, want 4", have)
		}
		if have := [2]int{len(a.opened), len(b.opened)}; have != want {
			t.Errorf("total %q: %v blobs opened, want %v", total, have, want)
		}
		if sum.Complete != (total != "") || sum.Complete && sum.Manifests != n || sum.Changed != 1 {
			t.Errorf("total %q: %+v", total, sum)
		}
		layers := 0
		for _, s := range []*store{a, b} {
			for d := range s.opened {
				if bytes.Contains(s.blobs[d], []byte("ustar")) {
					layers++
				}
			}
		}
		if layers != 2 {
			t.Errorf("total %q: %d layers opened, want 2", total, layers)
		}
	}
}

func TestSemantic(t *testing.T) {
	a, b := newStore(), newStore()
	files := map[string]string{"x": "1", "y": "2"}
	a.entries = []ocispec.Descriptor{named(a.image("amd64", ocispec.ImageConfig{}, compress.Gzip, files), "app")}
	b.entries = []ocispec.Descriptor{named(b.image("amd64", ocispec.ImageConfig{}, compress.Zstd, files), "app")}
	sa, sb := diff.Side{Source: a}, diff.Side{Source: b}
	check(t, sa, sb, nil,
		"refs moved app app", "manifest changed app app", "layer recompressed app app layer 1")
	if len(a.opened) != 2 { // the manifest and the config, which has the diffID
		t.Errorf("%d blobs opened, want 2: diffIDs tell that the layers are the same", len(a.opened))
	}
	var opts diff.Options
	if err := opts.Ignore.ParseIgnore(diff.Semantic...); err != nil {
		t.Fatal(err)
	}
	check(t, sa, sb, &opts)
	// Without diffIDs the content has to be looked at.
	for _, s := range []*store{a, b} {
		f := map[*store]compress.Format{a: compress.Gzip, b: compress.Zstd}[s]
		s.entries = []ocispec.Descriptor{named(s.artifact("application/x", nil, map[string]string{"t.tar": string(squeeze(f, tarOf(files)))}), "app")}
	}
	for _, level := range []diff.Level{diff.LevelLayer, diff.LevelFile} {
		opts.Level = level
		check(t, sa, sb, &diff.Options{Level: level}, "refs moved app app", "manifest changed app app", "layer recompressed app app t.tar")
		check(t, sa, sb, &opts)
	}
}

func TestIgnoreFields(t *testing.T) {
	manifest := func(s *store, annotations map[string]string) {
		s.entries = []ocispec.Descriptor{named(s.artifact("application/x", annotations, nil), "app")}
	}
	a, b := newStore(), newStore()
	manifest(a, map[string]string{"org.opencontainers.image.created": "2024-01-01T00:00:00Z", "x.example/commit": "1", "kept": "k"})
	manifest(b, map[string]string{"org.opencontainers.image.created": "2025-01-01T00:00:00Z", "x.example/commit": "2"})
	sa, sb := diff.Side{Source: a}, diff.Side{Source: b}
	created := "/annotations/org.opencontainers.image.created=2024-01-01T00:00:00Z>2025-01-01T00:00:00Z"
	for _, test := range []struct{ words, want string }{
		{"", "/annotations/kept=k>- " + created + " /annotations/x.example~1commit=1>2"},
		{"times", "/annotations/kept=k>- /annotations/x.example~1commit=1>2"},
		{"times,annotations:x.*", "/annotations/kept=k>-"},
		{"annotations:x.example/commit,annotations:kept", created},
		{"annotations", ""},
	} {
		var opts diff.Options
		if test.words != "" {
			if err := opts.Ignore.ParseIgnore(strings.Split(test.words, ",")...); err != nil {
				t.Fatal(err)
			}
		}
		if test.want == "" {
			check(t, sa, sb, &opts)
			continue
		}
		check(t, sa, sb, &opts, "refs moved app app", "manifest changed app app "+test.want)
	}
	for _, bad := range []string{"", "time", "times:x", "annotations:", "labels:[", "refs"} {
		var ign diff.Ignore
		if err := ign.ParseIgnore(bad); !errors.Is(err, layout.ErrInvalid) {
			t.Errorf("ParseIgnore(%q) = %v, want ErrInvalid", bad, err)
		}
	}
	if _, err := diff.ParseLevel("package"); !errors.Is(err, layout.ErrInvalid) {
		t.Errorf("ParseLevel: %v, want ErrInvalid", err)
	}
}

// Every difference of bytes is told, also one that has no meaning.
func TestEncoding(t *testing.T) {
	a, b := newStore(), newStore()
	m := a.artifact("application/x", nil, map[string]string{"l": "1"})
	a.entries = []ocispec.Descriptor{named(m, "app")}
	for d, data := range a.blobs {
		b.blobs[d] = data
	}
	loose := b.put(m.MediaType, append(bytes.Clone(a.blobs[m.Digest]), " \n"...))
	loose.ArtifactType = m.ArtifactType
	b.entries = []ocispec.Descriptor{named(loose, "app")}
	sa, sb := diff.Side{Source: a}, diff.Side{Source: b}
	check(t, sa, sb, nil, "refs moved app app", "manifest changed app app encoding")
	check(t, sa, sb, &diff.Options{Ignore: diff.Ignore{Ignore: filediff.Ignore{Encoding: true}}})
}

// Versions are compared flavour by flavour, and layers by what their titles
// have of their own.
func TestVersions(t *testing.T) {
	flavour := func(s *store, cname, version string, raw string) ocispec.Descriptor {
		base := cname + "-amd64-" + version + "-abcd1234."
		desc := s.artifact("", map[string]string{"version": version}, map[string]string{base + "raw": raw, base + "manifest": "apt " + version + "\n", base + "release": "same"})
		desc.ArtifactType = ""
		desc.Annotations = map[string]string{"cname": cname + "-amd64-" + version + "-abcd1234", "architecture": "amd64"}
		desc.Platform = &ocispec.Platform{OS: "gardenlinux", Architecture: "amd64", OSVersion: version}
		return desc
	}
	a, b := newStore(), newStore()
	a.entries = []ocispec.Descriptor{named(a.index(flavour(a, "aws", "1.0", "old"), flavour(a, "gcp", "1.0", "old")), "1.0")}
	b.entries = []ocispec.Descriptor{named(b.index(flavour(b, "gcp", "1.1", "old"), flavour(b, "kvm", "1.1", "new"), flavour(b, "aws", "1.1", "new")), "1.1")}
	opts := &diff.Options{Key: func(desc ocispec.Descriptor) string {
		cname, _, _ := strings.Cut(desc.Annotations["cname"], "-")
		return cname
	}}
	opts.Name = opts.Key
	have := shorts(changes(t, diff.Side{Source: a, Roots: a.entries}, diff.Side{Source: b, Roots: b.entries}, opts, nil))
	for i, s := range have {
		s, _, _ = strings.Cut(s, " /")
		have[i] = s
	}
	want := []string{
		"index changed 1.0",
		"index changed aws", "manifest changed aws",
		"layer changed aws aws-amd64-1.0-abcd1234.manifest",
		"package upgraded aws aws-amd64-1.0-abcd1234.manifest apt 1.0>1.1",
		"layer changed aws aws-amd64-1.0-abcd1234.raw",
		"layer changed aws aws-amd64-1.0-abcd1234.release",
		"index changed gcp", "manifest changed gcp",
		"layer changed gcp gcp-amd64-1.0-abcd1234.manifest",
		"package upgraded gcp gcp-amd64-1.0-abcd1234.manifest apt 1.0>1.1",
		"layer changed gcp gcp-amd64-1.0-abcd1234.raw",
		"layer changed gcp gcp-amd64-1.0-abcd1234.release",
		"index added kvm",
		"index reordered 1.0",
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("-want +have:\n%s", diff)
	}
}

// Without a key, a flavour of another version is another thing, as is one for
// another platform.
func TestNoKey(t *testing.T) {
	a, b := newStore(), newStore()
	for _, s := range []*store{a, b} {
		v := map[*store]string{a: "1.0", b: "1.1"}[s]
		flavour := s.artifact("", nil, map[string]string{"raw": v})
		flavour.Annotations = map[string]string{"cname": "aws-amd64-" + v + "-abcd1234", "architecture": "amd64"}
		flavour.Platform = &ocispec.Platform{OS: "gardenlinux", Architecture: "amd64", OSVersion: v}
		arch := map[*store]string{a: "amd64", b: "arm64"}[s]
		s.entries = []ocispec.Descriptor{named(s.index(flavour, s.image(arch, ocispec.ImageConfig{}, compress.None, nil)), "x")}
	}
	check(t, diff.Side{Source: a}, diff.Side{Source: b}, nil, "refs moved x x",
		"index removed x gardenlinux/amd64", "index removed x linux/amd64", "index added x gardenlinux/amd64", "index added x linux/arm64")
}

// Titles of two versions differ in front; behind that, they tell layers of one
// media type apart.
func TestTitles(t *testing.T) {
	a, b := newStore(), newStore()
	a.entries = []ocispec.Descriptor{named(a.artifact("application/x", nil, map[string]string{"app-1.0.a.bin": "a1", "app-1.0.b.bin": "b1"}), "x")}
	b.entries = []ocispec.Descriptor{named(b.artifact("application/x", nil, map[string]string{"app-1.1.0.bin": "01", "app-1.1.a.bin": "a2", "app-1.1.b.bin": "b2"}), "x")}
	opts := &diff.Options{Ignore: diff.Ignore{Annotations: []string{ocispec.AnnotationTitle}}}
	var have []string
	for _, ch := range changes(t, diff.Side{Source: a}, diff.Side{Source: b}, opts, nil) {
		if ch.Level == diff.LevelLayer {
			s := string(ch.Kind)
			for _, desc := range []*ocispec.Descriptor{ch.A, ch.B} {
				if desc != nil {
					s += " " + desc.Annotations[ocispec.AnnotationTitle]
				}
			}
			have = append(have, s)
		}
	}
	want := []string{"changed app-1.0.a.bin app-1.1.a.bin", "changed app-1.0.b.bin app-1.1.b.bin", "added app-1.1.0.bin"}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("-want +have:\n%s", diff)
	}
}

func TestSelect(t *testing.T) {
	a, b := newStore(), newStore()
	for _, s := range []*store{a, b} {
		v := map[*store]string{a: "1", b: "2"}[s]
		s.entries = []ocispec.Descriptor{named(s.index(
			s.image("amd64", ocispec.ImageConfig{}, compress.None, map[string]string{"f": v}),
			s.image("arm64", ocispec.ImageConfig{}, compress.None, map[string]string{"f": v}),
			s.image("riscv64", ocispec.ImageConfig{}, compress.None, map[string]string{"f": "same"}),
		), "app")}
	}
	sa, sb := diff.Side{Source: a}, diff.Side{Source: b}
	selected := func(arch string) *diff.Options {
		return &diff.Options{Select: &layout.Selector{Platform: &ocispec.Platform{OS: "linux", Architecture: arch}}}
	}
	check(t, sa, sb, selected("arm64"), "refs moved app app", "index changed app linux/arm64", "manifest changed app linux/arm64",
		"layer changed app linux/arm64 layer 1", "file changed app linux/arm64 layer 1 f content")
	check(t, sa, sb, selected("riscv64"))
	var last error
	for _, err := range diff.Compare(t.Context(), sa, sb, selected("ppc64le"), nil) {
		last = err
	}
	if !errors.Is(last, layout.ErrNotFound) {
		t.Errorf("nothing fits: error %v, want ErrNotFound", last)
	}
}

// A mirror may lack members of an index, and a layer may be kept elsewhere.
func TestSparse(t *testing.T) {
	a, b := newStore(), newStore()
	for _, s := range []*store{a, b} {
		v := map[*store]string{a: "1", b: "2"}[s]
		s.entries = []ocispec.Descriptor{named(s.index(s.image("amd64", ocispec.ImageConfig{}, compress.None, map[string]string{"f": v})), "app")}
	}
	sa, sb := diff.Side{Source: a}, diff.Side{Source: b}
	whole := maps.Clone(b.blobs)
	for _, test := range []struct {
		part string // of the content that B loses
		want []string
	}{
		{`"layers"`, []string{"refs moved app app", "index changed app linux/amd64"}},
		{"ustar", []string{"refs moved app app", "index changed app linux/amd64", "manifest changed app linux/amd64", "layer changed app linux/amd64 layer 1 absent"}},
		{"diff_ids", []string{
			"refs moved app app", "index changed app linux/amd64", "manifest changed app linux/amd64", "config changed app linux/amd64 content",
			"layer changed app linux/amd64 layer 1", "file changed app linux/amd64 layer 1 f content",
		}},
	} {
		b.blobs = maps.Clone(whole)
		maps.DeleteFunc(b.blobs, func(_ digest.Digest, data []byte) bool {
			return bytes.Contains(data, []byte(test.part)) && !bytes.Contains(data, []byte(`"manifests"`))
		})
		have := shorts(changes(t, sa, sb, nil, nil))
		for i, s := range have {
			s, _, _ = strings.Cut(s, "=")
			have[i] = s
		}
		if diff := cmp.Diff(test.want, have); diff != "" {
			t.Errorf("without %s (-want +have):\n%s", test.part, diff)
		}
	}
	// Damage is no difference.
	b.blobs = maps.Clone(whole)
	for d, data := range whole {
		if bytes.Contains(data, []byte("ustar")) {
			b.blobs[d] = append(bytes.Clone(data[:len(data)-1]), 1)
		}
	}
	var last error
	for _, err := range diff.Compare(t.Context(), sa, sb, nil, nil) {
		last = err
	}
	if !errors.Is(last, layout.ErrMismatch) {
		t.Errorf("damage: error %v, want ErrMismatch", last)
	}
}

func ExampleCompare() {
	a, b := newStore(), newStore()
	a.entries = []ocispec.Descriptor{named(a.image("amd64", ocispec.ImageConfig{}, compress.Gzip, map[string]string{"etc/motd": "hello"}), "app")}
	b.entries = []ocispec.Descriptor{named(b.image("amd64", ocispec.ImageConfig{}, compress.Gzip, map[string]string{"etc/motd": "hi"}), "app")}
	var sum diff.Summary
	for ch, err := range diff.Compare(context.Background(), diff.Side{Source: a}, diff.Side{Source: b}, nil, &sum) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s %s %q\n", ch.Level, ch.Kind, ch.Path)
	}
	fmt.Println(sum.Changed, "of", sum.Manifests, "manifests")
	// Output:
	// refs moved []
	// manifest changed []
	// layer changed []
	// file changed ["etc/motd"]
	// 1 of 1 manifests
}
