package layout_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// referrer stages an artifact that refers to subject.
func referrer(t testing.TB, s *layout.Stage, kind string, subject ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	subject = ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size}
	raw, err := layout.EncodeManifest(ocispec.Manifest{
		ArtifactType: "application/x." + kind,
		Config:       putBlob(t, s, ocispec.MediaTypeEmptyJSON, "{}"),
		Layers:       []ocispec.Descriptor{putBlob(t, s, "application/x.layer", kind)},
		Subject:      &subject,
	})
	if err != nil {
		t.Fatal(err)
	}
	return putBlob(t, s, ocispec.MediaTypeImageManifest, string(raw))
}

// signed is a layout in which everything refers to something in each way that
// there is.
type signed struct {
	*layout.Layout
	image, other, app                        ocispec.Descriptor // app is the index of both
	sbom, sbomSig, appSig, listed, nested    ocispec.Descriptor
	cosign, attestation, unrelated, onlyList ocispec.Descriptor
}

func dashed(d digest.Digest) string { return strings.Replace(string(d), ":", "-", 1) }

func newSigned(t testing.TB) *signed {
	t.Helper()
	l := &signed{Layout: newLayout(t)}
	edit(t, l.Layout, func(s *layout.Stage, tx *layout.Tx) {
		l.image, l.other = image(t, s, "image", "amd64"), image(t, s, "other", "arm64")
		l.attestation = artifact(t, s, "provenance", nil)
		l.attestation.Annotations = map[string]string{
			"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": string(l.image.Digest),
		}
		l.app = index(t, s, l.image, l.other, l.attestation)
		l.sbom = referrer(t, s, "sbom", l.image)
		l.sbomSig = referrer(t, s, "sbom-signature", l.sbom)
		l.appSig = referrer(t, s, "signature", l.app)
		l.nested = referrer(t, s, "nested", l.image)
		l.listed = referrer(t, s, "listed", l.image)
		l.onlyList = artifact(t, s, "only in the list", nil)
		l.cosign = artifact(t, s, "cosign", nil)
		l.unrelated = referrer(t, s, "unrelated", artifact(t, s, "elsewhere", nil))
		tx.SetRef("app", l.app)
		for _, desc := range []ocispec.Descriptor{l.sbom, l.sbomSig, l.appSig, l.unrelated} {
			tx.Index().Add(desc)
		}
		tx.SetRef("vault", index(t, s, l.nested, l.unrelated))
		tx.SetRef(dashed(l.image.Digest), index(t, s, l.listed, l.onlyList))
		tx.SetRef("example.org/app:"+dashed(l.image.Digest)+".sig", l.cosign)
		tx.SetRef(dashed(l.other.Digest)+".sbom", l.cosign)
	})
	return l
}

func names(l *signed, refs []layout.Referrer) []string {
	byDigest := map[digest.Digest]string{
		l.image.Digest: "image", l.other.Digest: "other", l.app.Digest: "app", l.sbom.Digest: "sbom", l.sbomSig.Digest: "sbomSig",
		l.appSig.Digest: "appSig", l.listed.Digest: "listed", l.nested.Digest: "nested", l.cosign.Digest: "cosign",
		l.attestation.Digest: "attestation", l.unrelated.Digest: "unrelated", l.onlyList.Digest: "onlyList",
	}
	var list []string
	for _, r := range refs {
		name := byDigest[r.Desc.Digest]
		if name == "" {
			name = "new"
		}
		list = append(list, fmt.Sprintf("%s by %s", name, r.By))
	}
	return list
}

func TestReferrers(t *testing.T) {
	l := newSigned(t)
	for _, tt := range []struct {
		of   ocispec.Descriptor
		want map[string]bool
	}{
		{l.image, map[string]bool{
			"sbom by subject": true, "nested by subject": true, "listed by subject": true, "onlyList by refName": true, "new by refName": true,
			"cosign by refName": true, "attestation by annotation": true,
		}},
		{l.other, map[string]bool{"cosign by refName": true}},
		{l.app, map[string]bool{"appSig by subject": true}},
		{l.sbom, map[string]bool{"sbomSig by subject": true}},
		{l.sbomSig, map[string]bool{}},
	} {
		found, err := layout.Referrers(t.Context(), l, tt.of.Digest)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]bool{}
		for i, name := range names(l, found) {
			if got[name] {
				t.Errorf("%s comes twice", name)
			}
			got[name] = true
			if found[i].Subject != tt.of.Digest {
				t.Errorf("%s refers to %s", name, found[i].Subject)
			}
			if found[i].By == layout.BySubject && found[i].Desc.ArtifactType == "" {
				t.Errorf("%s has no artifact type", name)
			}
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("referrers of %v (-want +got):\n%s", names(l, []layout.Referrer{{Desc: tt.of}}), diff)
		}
	}
	for name, want := range map[string]bool{
		dashed(l.image.Digest): true, "h:5000/a/b:" + dashed(l.image.Digest) + ".att": true, "sha256-aa.sig": false, "latest": false,
		dashed(l.image.Digest) + ".txt": false, "x" + dashed(l.image.Digest): false, "": false,
	} {
		if got := layout.IsReferrerRefName(name); got != want {
			t.Errorf("IsReferrerRefName(%q) = %v", name, got)
		}
	}
}

// What cannot be read could be a referrer; what is not there is none.
func TestReferrersOfDamaged(t *testing.T) {
	l := newSigned(t)
	if err := os.Remove(blobFile(l.Layout, l.unrelated)); err != nil {
		t.Fatal(err)
	}
	if found, err := layout.Referrers(t.Context(), l, l.app.Digest); err != nil || len(found) != 1 {
		t.Errorf("with a manifest missing: %v, %v", found, err)
	}
	writeFile(t, blobFile(l.Layout, l.unrelated), "{}")
	if _, err := layout.Referrers(t.Context(), l, l.app.Digest); !errors.Is(err, layout.ErrMismatch) {
		t.Errorf("with a manifest damaged: %v", err)
	}
}

func TestReferrersBelow(t *testing.T) {
	l := newSigned(t)
	for _, tt := range []struct {
		roots []ocispec.Descriptor
		want  []string // "new" is the list, which brings what it names
	}{
		{entriesOf(t, l, "app"), []string{"appSig", "sbom", "nested", "new", "cosign", "cosign", "sbomSig"}},
		{[]ocispec.Descriptor{l.other}, []string{"cosign"}},
		{[]ocispec.Descriptor{l.sbomSig}, []string{"cosign", "nested", "attestation", "new"}}, // it brings what it refers to
		{entriesOf(t, l, ""), nil},
	} {
		found, err := layout.ReferrersBelow(t.Context(), l, tt.roots)
		if err != nil {
			t.Fatal(err)
		}
		count := map[string]int{}
		for _, name := range tt.want {
			count[name]++
		}
		for _, name := range names(l, found) {
			name, _, _ = strings.Cut(name, " ")
			count[name]--
		}
		for name, n := range count {
			if n != 0 {
				t.Errorf("%s: %+d, got %v", name, -n, names(l, found))
			}
		}
	}
}

// TestReferrersBelowMissing: a referrer that is named and not there is an error; a
// member of an index may be missing, which is the index's matter.
// reads counts how often each blob is opened.
type reads struct {
	layout.Source
	mu sync.Mutex
	n  map[digest.Digest]int
}

func (r *reads) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	r.mu.Lock()
	r.n[desc.Digest]++
	r.mu.Unlock()
	return r.Source.Blob(ctx, desc)
}

// What roots reach and what may refer to it are mostly the same documents: each is
// read once, and nothing but documents is.
func TestReferrersBelowReadsOnce(t *testing.T) {
	l := newSigned(t)
	src := &reads{Source: l.Layout, n: map[digest.Digest]int{}}
	if _, err := layout.ReferrersBelow(t.Context(), src, []ocispec.Descriptor{l.app}); err != nil {
		t.Fatal(err)
	}
	for _, desc := range []ocispec.Descriptor{l.app, l.image, l.sbom, l.sbomSig, l.unrelated} {
		if n := src.n[desc.Digest]; n != 1 {
			t.Errorf("%s was read %d times", desc.Digest, n)
		}
	}
	for d, n := range src.n {
		if n > 1 {
			t.Errorf("%s was read %d times", d, n)
		}
	}
}

func TestReferrersBelowMissing(t *testing.T) {
	for _, tt := range []struct {
		gone func(l *signed) ocispec.Descriptor
		want error
	}{
		{func(l *signed) ocispec.Descriptor { return l.cosign }, layout.ErrNotFound},
		{func(l *signed) ocispec.Descriptor { return l.onlyList }, layout.ErrNotFound},
		{func(l *signed) ocispec.Descriptor { return l.attestation }, nil},
		{func(l *signed) ocispec.Descriptor { return l.unrelated }, nil},
	} {
		l := newSigned(t)
		gone := tt.gone(l)
		if err := os.Remove(blobFile(l.Layout, gone)); err != nil {
			t.Fatal(err)
		}
		image := ocispec.Descriptor{MediaType: l.image.MediaType, Digest: l.image.Digest, Size: l.image.Size}
		_, err := layout.ReferrersBelow(t.Context(), l, []ocispec.Descriptor{image})
		if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), string(gone.Digest)) {
			t.Errorf("without %s: %v, want %v", gone.Digest, err, tt.want)
		}
	}
}

// TestStaleAndMoved: referrers of everything that an edit replaces are told, or
// copies take their places.
func TestStaleAndMoved(t *testing.T) {
	want := map[string]bool{
		"sbom by subject": true, "nested by subject": true, "listed by subject": true, "cosign by refName": true, "new by refName": true,
		"attestation by annotation": true, "appSig by subject": true,
	}
	set := func(list []string) map[string]bool {
		m := map[string]bool{}
		for _, name := range list {
			m[name] = true
		}
		return m
	}
	l := newSigned(t)
	before := files(t, l.Dir())
	edit(t, l.Layout, func(s *layout.Stage, tx *layout.Tx) {
		got, err := tx.EditManifest(t.Context(), l.image.Digest, nil, addLayer(t, s, "x"))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, set(names(l, got.Stale))); diff != "" || got.Moved != nil {
			t.Errorf("stale (-want +got):\n%s\nmoved %v", diff, got.Moved)
		}
		if len(got.Changes) != 2 {
			t.Errorf("%d documents changed, want the image and the index", len(got.Changes))
		}
	})
	for name, data := range before {
		if name != "index.json" && files(t, l.Dir())[name] != data {
			t.Errorf("%s changed", name)
		}
	}
	mustVerify(t, l)

	l = newSigned(t)
	var got *layout.Edit
	edit(t, l.Layout, func(s *layout.Stage, tx *layout.Tx) {
		var err error
		if got, err = tx.EditManifest(t.Context(), l.image.Digest, &layout.EditOptions{MoveReferrers: true}, addLayer(t, s, "x")); err != nil {
			t.Fatal(err)
		}
	})
	mustVerify(t, l)
	now := map[digest.Digest]ocispec.Descriptor{}
	for _, c := range got.Changes {
		now[c.Old.Digest] = c.New
	}
	for old, want := range map[digest.Digest][]string{
		l.image.Digest: {"application/x.sbom", "application/x.nested", "application/x.listed", "", "", "", ""},
		l.app.Digest:   {"application/x.signature"},
		l.sbom.Digest:  {"application/x.sbom-signature"},
	} {
		left, err := layout.Referrers(t.Context(), l, old)
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
		moved, err := layout.Referrers(t.Context(), l, now[old].Digest)
		if err != nil || len(moved) != len(want) {
			t.Errorf("%s: %d referrers %v, %v, want %d", old, len(moved), moved, err, len(want))
		}
		for _, r := range moved {
			doc, err := layout.ReadDocument(t.Context(), l, r.Desc)
			if err != nil {
				t.Fatal(err)
			}
			if r.By == layout.BySubject && (doc.Subject.Digest != now[old].Digest || doc.Subject.Size != now[old].Size) {
				t.Errorf("subject %v", doc.Subject)
			}
		}
	}
	x, err := l.Index(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{
		"example.org/app:" + dashed(now[l.image.Digest].Digest) + ".sig", dashed(now[l.image.Digest].Digest), dashed(l.other.Digest) + ".sbom",
	} {
		if len(x.FindRef(ref)) != 1 {
			t.Errorf("no ref name %s", ref)
		}
	}
	if len(got.Stale) > 0 || len(got.Moved) != 8 {
		t.Errorf("stale %v, moved %v", got.Stale, names(l, got.Moved))
	}
}

// A ref name that a moved signature would get and that is taken is a conflict.
func TestMoveConflict(t *testing.T) {
	l := newSigned(t)
	add := func(s *layout.Stage) func(m *layout.Manifest) error { return addLayer(t, s, "x") }
	var now digest.Digest
	failed := errors.New("only to see the digest")
	s, err := l.Stage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	err = s.Update(t.Context(), func(tx *layout.Tx) error {
		e, err := tx.EditManifest(t.Context(), l.image.Digest, nil, add(s))
		if err != nil {
			return err
		}
		now = e.Changes[0].New.Digest
		return failed
	})
	if !errors.Is(err, failed) {
		t.Fatal(err)
	}
	edit(t, l.Layout, func(_ *layout.Stage, tx *layout.Tx) { tx.SetRef("example.org/app:"+dashed(now)+".sig", l.sbom) })
	before := indexJSON(t, l.Layout)
	err = s.Update(t.Context(), func(tx *layout.Tx) error {
		_, err := tx.EditManifest(t.Context(), l.image.Digest, &layout.EditOptions{MoveReferrers: true}, add(s))
		return err
	})
	if !errors.Is(err, layout.ErrConflict) || indexJSON(t, l.Layout) != before {
		t.Errorf("%v, want ErrConflict", err)
	}
}
