package sync_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
	"github.com/gardenlinux/gloci-layout/sync/pushtest"
	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// flavor makes the entry of a Garden Linux flavour.
func flavor(m pushtest.Maker, cname, commit, content string) ocispec.Descriptor {
	m.T.Helper()
	desc := m.Artifact("", content, nil)
	desc.ArtifactType = ""
	desc.Annotations = map[string]string{"cname": cname + "-amd64-1.0-" + commit, "architecture": "amd64"}
	desc.Platform = &ocispec.Platform{OS: "gardenlinux", Architecture: "amd64", OSVersion: "1.0"}
	return desc
}

// remoteDocument returns what a tag names.
func remoteDocument(t *testing.T, reg *regtest.Registry, name, tag string) *layout.Document {
	t.Helper()
	src := openRemote(t, reg, name)
	desc, err := layout.ResolveOne(t.Context(), src, tag, "")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := layout.ReadDocument(t.Context(), src, desc)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestForeign: entries that only the registry has are refused, kept or dropped,
// as the caller says.
func TestForeign(t *testing.T) {
	// Somebody else's index, with fields of the future in the document and in
	// an entry.
	theirs := func(m pushtest.Maker) map[string]ocispec.Descriptor {
		runtime := m.Image("arm64", "their image")
		gone, same := flavor(m, "gone", "aaaaaaaa", "gone"), flavor(m, "same", "aaaaaaaa", "old")
		raw := m.Index(runtime, gone, same)
		b, err := layout.ReadAll(t.Context(), m.Stage, raw, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Replace(string(b), `{"mediaType"`, `{"x-entry":{"kept":[1.0]},"mediaType"`, 1)
		text = strings.Replace(text, `{"schemaVersion":2`, `{"x-document":"kept","annotations":{"both":"theirs","only":"theirs"},"schemaVersion":2`, 1)
		return map[string]ocispec.Descriptor{"1.0": m.Blob(text, ocispec.MediaTypeImageIndex)}
	}
	ours := func(m pushtest.Maker) map[string]ocispec.Descriptor {
		x := layout.NewIndex()
		x.SetAnnotation("both", "ours")
		for _, e := range []ocispec.Descriptor{m.Image("amd64", "our image"), flavor(m, "same", "bbbbbbbb", "new")} {
			x.Add(e)
		}
		return map[string]ocispec.Descriptor{"1.0": m.Blob(string(x.Bytes()), ocispec.MediaTypeImageIndex)}
	}
	reg := regtest.Start(t, nil)
	dest := pushtest.Repository(t, reg, "app")
	them, us := pushtest.NewLayout(t, theirs), pushtest.NewLayout(t, ours)
	push := func(src layout.Source, opts layoutsync.PushOptions) (*layoutsync.Report, error) {
		opts.Registry = pushtest.Options(t, reg)
		reg.Reset()
		return layoutsync.Push(t.Context(), src, dest, &opts)
	}
	if _, err := push(them, layoutsync.PushOptions{}); err != nil {
		t.Fatal(err)
	}

	report, err := push(us, layoutsync.PushOptions{})
	var foreign *layoutsync.ForeignError
	if !errors.As(err, &foreign) || !errors.Is(err, layout.ErrConflict) {
		t.Fatalf("Push = %v, want a ForeignError", err)
	}
	var keys []string
	for _, e := range foreign.Entries {
		keys = append(keys, e.Key)
		if !strings.Contains(err.Error(), string(e.Desc.Digest)) {
			t.Errorf("%q does not name %s", err, e.Desc.Digest)
		}
	}
	if diff := cmp.Diff([]string{"platform:linux/arm64///", "cname:gone|amd64|1.0"}, keys); diff != "" {
		t.Errorf("foreign entries (-want +got):\n%s", diff)
	}
	for request, n := range counts(reg) {
		if strings.HasPrefix(request, "P") {
			t.Errorf("%d times %s in spite of the conflict", n, request)
		}
	}
	if report == nil || report.Changed() {
		t.Errorf("report %+v", report)
	}

	for i := range 2 { // the second merge finds nothing to do
		report, err = push(us, layoutsync.PushOptions{Merge: true})
		if err != nil {
			t.Fatal(err)
		}
		// Our two entries and the index of both sides; ours is not sent.
		if n := counts(reg)["PUT manifest"]; i == 0 && n != 3 {
			t.Errorf("%d manifests were sent for the merge", n)
		}
		if i == 1 && (report.Changed() || report.Tags[0].State != layoutsync.TagUnchanged) {
			t.Errorf("the second merge changed something: %+v", report)
		}
	}
	doc := remoteDocument(t, reg, "app", "1.0")
	got := map[string]bool{}
	for _, e := range doc.Manifests {
		got[fmt.Sprint(layout.EntryKey(e), e.Annotations["cname"])] = true
	}
	want := map[string]bool{
		"platform:linux/arm64///": true, "platform:linux/amd64///": true,
		"cname:gone|amd64|1.0gone-amd64-1.0-aaaaaaaa": true, "cname:same|amd64|1.0same-amd64-1.0-bbbbbbbb": true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries after the merge (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"both": "ours", "only": "theirs"}, doc.Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
	for _, text := range []string{`"x-entry":{"kept":[1.0]}`, `"x-document":"kept"`} {
		if !bytes.Contains(doc.Raw, []byte(text)) {
			t.Errorf("%s was lost: %s", text, doc.Raw)
		}
	}

	x, err := layout.ParseIndex(doc.Raw)
	if err != nil {
		t.Fatal(err)
	}
	if x.Sort(); !bytes.Equal(x.Bytes(), doc.Raw) {
		t.Error("the merged index is not in the order in which we write")
	}

	if report, err = push(us, layoutsync.PushOptions{Replace: true}); err != nil {
		t.Fatal(err)
	}
	if doc = remoteDocument(t, reg, "app", "1.0"); doc.Descriptor.Digest != digestOf(t, us, "1.0") || report.Tags[0].State != layoutsync.TagMoved {
		t.Errorf("after a replacement the tag names %s; %+v", doc.Descriptor.Digest, report)
	}
}

// TestForeignKinds covers tags that name a single manifest on one side.
func TestForeignKinds(t *testing.T) {
	image := func(content string) func(m pushtest.Maker) ocispec.Descriptor {
		return func(m pushtest.Maker) ocispec.Descriptor { return m.Image("amd64", content) }
	}
	kernel := func(content string) func(m pushtest.Maker) ocispec.Descriptor {
		return func(m pushtest.Maker) ocispec.Descriptor {
			return m.Artifact("application/vnd.example.kernel", content, nil)
		}
	}
	index := func(of ...func(m pushtest.Maker) ocispec.Descriptor) func(m pushtest.Maker) ocispec.Descriptor {
		return func(m pushtest.Maker) ocispec.Descriptor {
			var all []ocispec.Descriptor
			for _, f := range of {
				all = append(all, f(m))
			}
			return m.Index(all...)
		}
	}
	arm64 := func(m pushtest.Maker) ocispec.Descriptor { return m.Image("arm64", "arm64") }
	reg := regtest.Start(t, nil)
	for i, tt := range []struct {
		name         string
		theirs, ours func(m pushtest.Maker) ocispec.Descriptor
		foreign      int
		merged       int // entries after a merge; 0 if that is refused, too
	}{
		{"a new state of an image", image("1"), image("2"), 0, 0},
		{"a new state of an artifact", kernel("1"), kernel("2"), 0, 0},
		{"an artifact over an image", image("1"), kernel("1"), 1, 0},
		{"an index that has the image", image("1"), index(image("1"), arm64), 0, 0},
		{"an index with a new state of the image", image("1"), index(image("2"), arm64), 0, 0},
		{"an index without the image", image("1"), index(arm64), 1, 2},
		{"an index without the artifact", kernel("1"), index(arm64), 1, 2},
		{"an image over an index", index(image("1"), arm64), image("2"), 1, 2},
		{"an index with more", index(image("1")), index(image("2"), arm64), 0, 0},
		{"an index with less", index(image("1"), arm64), index(image("2")), 1, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			name := fmt.Sprintf("kinds%d", i)
			push := func(f func(m pushtest.Maker) ocispec.Descriptor, opts layoutsync.PushOptions) error {
				l := pushtest.NewLayout(t, func(m pushtest.Maker) map[string]ocispec.Descriptor {
					return map[string]ocispec.Descriptor{"tag": f(m)}
				})
				opts.Registry = pushtest.Options(t, reg)
				_, err := layoutsync.Push(t.Context(), l, pushtest.Repository(t, reg, name), &opts)
				return err
			}
			if err := push(tt.theirs, layoutsync.PushOptions{}); err != nil {
				t.Fatal(err)
			}
			err := push(tt.ours, layoutsync.PushOptions{})
			var foreign *layoutsync.ForeignError
			switch {
			case tt.foreign == 0:
				if err != nil {
					t.Errorf("Push = %v", err)
				}
				return
			case !errors.As(err, &foreign):
				t.Fatalf("Push = %v, want a ForeignError", err)
			case len(foreign.Entries) != tt.foreign:
				t.Errorf("%d foreign entries, want %d: %v", len(foreign.Entries), tt.foreign, err)
			}
			err = push(tt.ours, layoutsync.PushOptions{Merge: true})
			if tt.merged == 0 {
				if !errors.Is(err, layout.ErrConflict) {
					t.Errorf("merge = %v, want a conflict", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if doc := remoteDocument(t, reg, name, "tag"); len(doc.Manifests) != tt.merged {
				t.Errorf("%d entries after the merge, want %d: %s", len(doc.Manifests), tt.merged, doc.Raw)
			}
		})
	}
}

// TestForeignOfAll: the entries that would be lost are named for all tags, be it
// an index that moves a tag or a manifest.
func TestForeignOfAll(t *testing.T) {
	reg := regtest.Start(t, nil)
	dest := pushtest.Repository(t, reg, "app")
	push := func(l *layout.Layout) error {
		_, err := layoutsync.Push(t.Context(), l, dest, &layoutsync.PushOptions{Registry: pushtest.Options(t, reg)})
		return err
	}
	err := push(pushtest.NewLayout(t, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		return map[string]ocispec.Descriptor{
			"index":    m.Index(m.Image("amd64", "a"), m.Image("arm64", "b")),
			"manifest": m.Index(m.Image("amd64", "c"), m.Image("s390x", "d")),
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	err = push(pushtest.NewLayout(t, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		return map[string]ocispec.Descriptor{"index": m.Index(m.Image("amd64", "new")), "manifest": m.Image("amd64", "new")}
	}))
	var foreign *layoutsync.ForeignError
	if !errors.As(err, &foreign) {
		t.Fatalf("Push = %v, want a ForeignError", err)
	}
	got := map[string]string{}
	for _, e := range foreign.Entries {
		got[e.Tag] = e.Key
	}
	if diff := cmp.Diff(map[string]string{"index": "platform:linux/arm64///", "manifest": "platform:linux/s390x///"}, got); diff != "" {
		t.Errorf("foreign entries (-want +got):\n%s", diff)
	}
}
