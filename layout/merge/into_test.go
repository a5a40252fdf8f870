package merge_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/merge"
)

func newLayout(t *testing.T) *layout.Layout {
	t.Helper()
	l, err := layout.Create(t.Context(), filepath.Join(t.TempDir(), "l"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// An editor stages content in one transaction.
type editor struct {
	t  *testing.T
	s  *layout.Stage
	tx *layout.Tx
}

func edit(t *testing.T, l *layout.Layout, fn func(e editor)) *layout.Layout {
	t.Helper()
	s, err := l.Stage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Update(t.Context(), func(tx *layout.Tx) error { fn(editor{t, s, tx}); return nil }); err != nil {
		t.Fatal(err)
	}
	return l
}

func (e editor) blob(mediaType, data string) ocispec.Descriptor {
	e.t.Helper()
	desc, err := e.s.AddBytes(e.t.Context(), []byte(data), mediaType)
	if err != nil {
		e.t.Fatal(err)
	}
	return desc
}

func (e editor) artifact(name string, subject *ocispec.Descriptor) ocispec.Descriptor {
	e.t.Helper()
	raw, err := layout.EncodeManifest(ocispec.Manifest{
		ArtifactType: "application/x.test", Config: e.blob(ocispec.MediaTypeEmptyJSON, "{}"), Subject: subject,
		Layers: []ocispec.Descriptor{e.blob("application/x.layer", "layer of "+name)},
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return e.blob(ocispec.MediaTypeImageManifest, string(raw))
}

func (e editor) index(entries ...ocispec.Descriptor) ocispec.Descriptor {
	e.t.Helper()
	x := layout.NewIndex()
	for _, d := range entries {
		x.Add(d)
	}
	x.Sort()
	return e.blob(ocispec.MediaTypeImageIndex, string(x.Bytes()))
}

// source is a directory that is opened anew each time.
func source(l *layout.Layout, refName string) merge.Source {
	return merge.Source{Name: filepath.Base(l.Dir()), RefName: refName, Open: func(ctx context.Context) (layout.Source, error) {
		opened, err := layout.Open(ctx, l.Dir(), nil)
		if err != nil {
			return nil, err
		}
		return opened, nil
	}}
}

func names(t *testing.T, l *layout.Layout) []string {
	t.Helper()
	x, err := l.Index(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, desc := range x.Entries() {
		all = append(all, merge.RootKey(desc))
	}
	slices.Sort(all)
	return all
}

func sound(t *testing.T, l *layout.Layout) *layout.VerifyResult {
	t.Helper()
	r, err := layout.Verify(t.Context(), l, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Findings {
		t.Errorf("verify: %s %s: %s", f.Kind, f.Path, f.Detail)
	}
	return r
}

// What refers to something comes along with it, whichever way it does, and
// nothing else does.
func TestReferrersTravel(t *testing.T) {
	var want []string
	src := edit(t, newLayout(t), func(e editor) {
		one, two := e.artifact("one", nil), e.artifact("two", nil)
		e.tx.SetRef("1", e.index(one))
		e.tx.SetRef("2", e.index(two))
		sbom := e.artifact("sbom of one", &one)
		signature := e.artifact("signature of the sbom", &sbom)
		for _, d := range []ocispec.Descriptor{sbom, signature, e.artifact("sbom of two", &two)} {
			e.tx.Index().Add(d)
		}
		cosign := "sha256-" + one.Digest.Encoded() + ".sig"
		fallback := "sha256-" + sbom.Digest.Encoded()
		e.tx.SetRef(cosign, e.artifact("cosign", nil))
		e.tx.SetRef(fallback, e.index(signature))
		e.tx.SetRef("sha256-"+two.Digest.Encoded()+".att", e.artifact("another", nil))
		// The list is left out: all that it names comes by its subject.
		want = []string{"1", cosign, "@" + string(sbom.Digest), "@" + string(signature.Digest)}
	})
	slices.Sort(want)
	for name, fn := range map[string]func(l *layout.Layout) (*merge.Result, error){
		"ref name": func(l *layout.Layout) (*merge.Result, error) {
			return merge.Into(t.Context(), l, nil, []merge.Source{source(src, "1")}, nil)
		},
		"pattern": func(l *layout.Layout) (*merge.Result, error) {
			return merge.Into(t.Context(), l, nil, []merge.Source{source(src, "")}, &merge.IntoOptions{Refs: []string{"[1]"}})
		},
	} {
		l := newLayout(t)
		if _, err := fn(l); err != nil {
			t.Fatal(err)
		}
		if got := names(t, l); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		sound(t, l)
	}
}

// A signature of an index is not one of the index that it becomes: that is told.
func TestStale(t *testing.T) {
	var index, signature ocispec.Descriptor
	ours := edit(t, newLayout(t), func(e editor) {
		index = e.index(e.artifact("one", nil))
		signature = e.artifact("signature", &index)
		e.tx.SetRef("1", index)
		e.tx.Index().Add(signature)
		e.tx.SetRef("sha256-"+index.Digest.Encoded()+".sig", e.artifact("cosign", nil))
	})
	theirs := edit(t, newLayout(t), func(e editor) { e.tx.SetRef("1", e.index(e.artifact("two", nil))) })
	r, err := merge.Into(t.Context(), ours, nil, []merge.Source{source(theirs, "")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	now, err := layout.ResolveOne(t.Context(), ours, "1", "")
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Stale) != 2 {
		t.Fatalf("%d stale referrers, want 2: %+v", len(r.Stale), r.Stale)
	}
	for _, s := range r.Stale {
		if s.Subject != index.Digest || s.Now.Digest != now.Digest {
			t.Errorf("stale %s: %s became %s, want %s and %s", s.Referrer.Digest, s.Subject, s.Now.Digest, index.Digest, now.Digest)
		}
	}
	if r, err = merge.Into(t.Context(), ours, nil, []merge.Source{source(theirs, "")}, nil); err != nil || len(r.Stale)+len(r.Changes) > 0 {
		t.Errorf("the second time: %+v, %v", r, err)
	}
	// The old index is kept by its signature: nothing that refers is lost.
	if _, err := ours.Stat(t.Context(), index.Digest); err != nil {
		t.Error(err)
	}
	sound(t, ours)
}

// Only what the result needs is copied.
func TestCopiesWhatIsNeeded(t *testing.T) {
	ours := edit(t, newLayout(t), func(e editor) { e.tx.SetRef("1", e.artifact("ours", nil)) })
	theirs := edit(t, newLayout(t), func(e editor) {
		e.tx.SetRef("1", e.artifact("theirs", nil))
		e.tx.SetRef("2", e.artifact("new", nil))
	})
	opts := &merge.IntoOptions{Options: merge.Options{OnConflict: merge.Ours}}
	if _, err := merge.Into(t.Context(), ours, nil, []merge.Source{source(theirs, "")}, opts); err != nil {
		t.Fatal(err)
	}
	if r := sound(t, ours); r.Unreferenced > 0 {
		t.Errorf("%d blobs that nothing names", r.Unreferenced)
	}
}

// Many sources, merged by many at once: nothing is lost, and no file of a
// source stays open.
func TestManyAtOnce(t *testing.T) {
	const writers, each = 6, 40
	l := newLayout(t)
	sources := make([][]merge.Source, writers)
	for w := range sources {
		for i := range each {
			job := edit(t, newLayout(t), func(e editor) {
				d := e.artifact(fmt.Sprintf("%d-%d", w, i), nil)
				d.Annotations = map[string]string{"cname": fmt.Sprintf("f%d-%d-amd64-1.0", w, i), "architecture": "amd64"}
				d.Platform = &ocispec.Platform{OS: "gardenlinux", Architecture: "amd64", OSVersion: "1.0"}
				e.tx.SetRef("1.0", e.index(d))
			})
			_ = job.Close()
			sources[w] = append(sources[w], source(job, ""))
		}
	}
	open := openFiles(t)
	var group sync.WaitGroup
	for _, s := range sources {
		group.Go(func() {
			if _, err := merge.Into(t.Context(), l, nil, s, nil); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if now := openFiles(t); now > open+4 { // l may have opened its directories
		t.Errorf("%d open files, were %d", now, open)
	}
	desc, err := layout.ResolveOne(t.Context(), l, "1.0", "")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := layout.ReadDocument(t.Context(), l, desc)
	if err != nil || len(doc.Manifests) != writers*each {
		t.Fatalf("%d entries, %v, want %d", len(doc.Manifests), err, writers*each)
	}
	sound(t, l)
}

func openFiles(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(files)
}

// A source that cannot be opened, or is damaged, leaves all as it was.
func TestIntoErrors(t *testing.T) {
	l := edit(t, newLayout(t), func(e editor) { e.tx.SetRef("1", e.artifact("ours", nil)) })
	before := names(t, l)
	good := edit(t, newLayout(t), func(e editor) { e.tx.SetRef("2", e.artifact("good", nil)) })
	var layer ocispec.Descriptor
	bad := edit(t, newLayout(t), func(e editor) {
		layer = e.blob("application/x.layer", "layer of bad")
		e.tx.SetRef("3", e.artifact("bad", nil))
	})
	file := filepath.Join(bad.Dir(), filepath.FromSlash(layout.BlobPath(layer.Digest)))
	if err := os.WriteFile(file, []byte(strings.ToUpper("layer of bad")), 0o644); err != nil {
		t.Fatal(err)
	}
	failing := merge.Source{Name: "failing", Open: func(context.Context) (layout.Source, error) { return nil, os.ErrPermission }}
	for want, s := range map[error]merge.Source{layout.ErrMismatch: source(bad, ""), os.ErrPermission: failing, layout.ErrNotFound: source(good, "absent")} {
		if _, err := merge.Into(t.Context(), l, nil, []merge.Source{source(good, ""), s}, nil); !errors.Is(err, want) {
			t.Errorf("Into = %v, want %v", err, want)
		}
	}
	for _, link := range []bool{false, true} {
		opts := &merge.IntoOptions{Copy: layout.CopyOptions{Link: link}}
		if _, err := merge.Into(t.Context(), l, nil, []merge.Source{source(bad, "")}, opts); !errors.Is(err, layout.ErrMismatch) {
			t.Errorf("Into, link %v = %v, want ErrMismatch", link, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := merge.Into(ctx, l, nil, []merge.Source{source(good, "")}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Into = %v, want Canceled", err)
	}
	if got := names(t, l); !slices.Equal(got, before) {
		t.Errorf("%q, was %q", got, before)
	}
	sound(t, l)
}
