package layout_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

func gzipped(t testing.TB, content string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// runtimeImage stages an image of these layers whose config is in step.
func runtimeImage(t testing.TB, s *layout.Stage, layers ...string) ocispec.Descriptor {
	t.Helper()
	m := ocispec.Manifest{}
	var ids, history []string
	for _, content := range layers {
		m.Layers = append(m.Layers, putBlob(t, s, ocispec.MediaTypeImageLayerGzip, gzipped(t, content)))
		ids = append(ids, string(digest.FromString(content)))
		history = append(history, `{"created_by":"`+content+`"}`, `{"created_by":"ENV","empty_layer":true}`)
	}
	idsJSON, err := json.Marshal(ids)
	if err != nil {
		t.Fatal(err)
	}
	m.Config = putBlob(t, s, ocispec.MediaTypeImageConfig, `{"os":"linux","x-unknown":1.0,"architecture":"amd64","rootfs":{"type":"layers","diff_ids":`+string(idsJSON)+
		`},"history":[`+strings.Join(history, ",")+`],"config":{"Env":["a=b"]}}`)
	raw, err := layout.EncodeManifest(m)
	if err != nil {
		t.Fatal(err)
	}
	return putBlob(t, s, ocispec.MediaTypeImageManifest, string(raw))
}

// config returns the config of the image that ref names.
func configOf(t testing.TB, l *layout.Layout, ref string) string {
	t.Helper()
	doc, err := layout.ReadDocument(t.Context(), l, entriesOf(t, l, ref)[0])
	if err != nil {
		t.Fatal(err)
	}
	raw, err := layout.ReadAll(t.Context(), l, *doc.Config, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// editLayers edits the manifest that ref names.
func editLayers(t testing.TB, l *layout.Layout, ref string, fn func(s *layout.Stage, e *layout.LayerEdit) error) error {
	t.Helper()
	s, err := l.Stage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	return s.Update(t.Context(), func(tx *layout.Tx) error {
		_, err := tx.EditManifest(t.Context(), entriesOf(t, l, ref)[0].Digest, nil, func(m *layout.Manifest) error {
			e, err := s.EditLayers(t.Context(), m)
			if err != nil {
				return err
			}
			if err := fn(s, e); err != nil {
				return err
			}
			return e.Close()
		})
		return err
	})
}

func titled(desc ocispec.Descriptor, title string) ocispec.Descriptor {
	desc.Annotations = map[string]string{ocispec.AnnotationTitle: title}
	return desc
}

// The config of an image follows its layers, and edits that undo each other
// give the same bytes.
func TestEditLayersOfImage(t *testing.T) {
	l := newLayout(t)
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) { tx.SetRef("image", runtimeImage(t, s, "one", "two")) })
	before := entriesOf(t, l, "image")[0]
	config := configOf(t, l, "image")
	check := func(what string, diffIDs []string, want string) {
		t.Helper()
		got := configOf(t, l, "image")
		list := make([]string, len(diffIDs))
		for i, content := range diffIDs {
			list[i] = `"` + string(digest.FromString(content)) + `"`
		}
		old := config[strings.Index(config, `"diff_ids":`) : strings.Index(config, `,"config"`)+1]
		want = strings.Replace(config, old, `"diff_ids":[`+strings.Join(list, ",")+`]},"history":[`+want+`],`, 1)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	const h1, h2 = `{"created_by":"one"},{"created_by":"ENV","empty_layer":true}`, `{"created_by":"two"},{"created_by":"ENV","empty_layer":true}`
	add := func(s *layout.Stage, e *layout.LayerEdit) error {
		desc := titled(putBlob(t, s, ocispec.MediaTypeImageLayerGzip, gzipped(t, "three")), "three.tar.gz")
		return e.Add(layout.NewLayer{Desc: desc}, false)
	}
	for range 2 { // the second finds all done
		if err := editLayers(t, l, "image", add); err != nil {
			t.Fatal(err)
		}
		check("add", []string{"one", "two", "three"}, h1+","+h2+`,{"created_by":"gloci-layout attach layer three.tar.gz"}`)
	}
	if err := editLayers(t, l, "image", func(s *layout.Stage, e *layout.LayerEdit) error {
		return e.Replace(1, layout.NewLayer{Desc: putBlob(t, s, ocispec.MediaTypeImageLayer, "plain")})
	}); err != nil {
		t.Fatal(err)
	}
	check("replace", []string{"one", "plain", "three"}, h1+","+h2+`,{"created_by":"gloci-layout attach layer three.tar.gz"}`)
	if err := editLayers(t, l, "image", func(_ *layout.Stage, e *layout.LayerEdit) error { e.Remove(0); return nil }); err != nil {
		t.Fatal(err)
	}
	check("remove", []string{"plain", "three"}, `{"created_by":"ENV","empty_layer":true},`+h2+`,{"created_by":"gloci-layout attach layer three.tar.gz"}`)
	mustVerify(t, l)

	edit(t, l, func(s *layout.Stage, tx *layout.Tx) { tx.SetRef("image", runtimeImage(t, s, "one", "two")) })
	if err := editLayers(t, l, "image", add); err != nil {
		t.Fatal(err)
	}
	if err := editLayers(t, l, "image", func(_ *layout.Stage, e *layout.LayerEdit) error { e.Remove(2); return nil }); err != nil {
		t.Fatal(err)
	}
	if now := entriesOf(t, l, "image")[0]; now.Digest != before.Digest {
		t.Errorf("added and removed: %s, was %s", now.Digest, before.Digest)
	}
}

func TestLayerConflicts(t *testing.T) {
	l := newLayout(t)
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) {
		tx.SetRef("image", runtimeImage(t, s, "one"))
		tx.SetRef("artifact", artifact(t, s, "artifact", nil))
	})
	release := func(s *layout.Stage, content string) layout.NewLayer {
		return layout.NewLayer{Desc: titled(putBlob(t, s, "application/io.gardenlinux.release", content), "x.release")}
	}
	if err := editLayers(t, l, "artifact", func(s *layout.Stage, e *layout.LayerEdit) error { return e.Add(release(s, "1"), false) }); err != nil {
		t.Fatal(err)
	}
	before := files(t, l.Dir())
	for _, tt := range []struct {
		name, ref string
		fn        func(s *layout.Stage, e *layout.LayerEdit) error
		mixed     bool
		want      error
	}{
		{"mixed", "image", func(s *layout.Stage, e *layout.LayerEdit) error { return e.Add(release(s, "1"), true) }, true, layout.ErrConflict},
		{"mixed by replacing", "image", func(s *layout.Stage, e *layout.LayerEdit) error { return e.Replace(0, release(s, "1")) }, true, layout.ErrConflict},
		{"same title", "artifact", func(s *layout.Stage, e *layout.LayerEdit) error { return e.Add(release(s, "2"), false) }, false, layout.ErrConflict},
		{"same title by replacing", "artifact", func(s *layout.Stage, e *layout.LayerEdit) error { return e.Replace(0, release(s, "2")) }, false, layout.ErrConflict},
		{"no gzip", "image", func(s *layout.Stage, e *layout.LayerEdit) error {
			return e.Add(layout.NewLayer{Desc: putBlob(t, s, ocispec.MediaTypeImageLayerGzip, "plain")}, false)
		}, false, layout.ErrInvalid},
		{"config of no image", "image", func(s *layout.Stage, e *layout.LayerEdit) error {
			return e.SetConfig(putBlob(t, s, ocispec.MediaTypeEmptyJSON, "{}"))
		}, false, layout.ErrConflict},
		{"config of an image", "artifact", func(s *layout.Stage, e *layout.LayerEdit) error {
			return e.SetConfig(putBlob(t, s, ocispec.MediaTypeImageConfig, "{}"))
		}, false, layout.ErrConflict},
		{"config for fewer layers", "image", func(s *layout.Stage, e *layout.LayerEdit) error {
			return e.SetConfig(putBlob(t, s, ocispec.MediaTypeImageConfig, `{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":[]}}`))
		}, false, layout.ErrConflict},
		{"config of another platform", "image", func(s *layout.Stage, e *layout.LayerEdit) error {
			return e.SetConfig(putBlob(t, s, ocispec.MediaTypeImageConfig, `{"os":"linux","architecture":"arm64","rootfs":{"diff_ids":["`+string(digest.FromString("one"))+`"]}}`))
		}, false, layout.ErrConflict},
		{"config that is no JSON", "image", func(s *layout.Stage, e *layout.LayerEdit) error {
			return e.SetConfig(putBlob(t, s, ocispec.MediaTypeImageConfig, `{"os":`))
		}, false, layout.ErrInvalid},
	} {
		err := editLayers(t, l, tt.ref, tt.fn)
		var conflict *layout.LayerConflict
		if !errors.Is(err, tt.want) || tt.mixed && (!errors.As(err, &conflict) || !conflict.Mixed) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	if diff := cmp.Diff(before, files(t, l.Dir())); diff != "" {
		t.Errorf("the layout changed:\n%s", diff)
	}

	// With replace the new layer has the place and the further annotations of the old one.
	edit(t, l, func(_ *layout.Stage, tx *layout.Tx) {
		if _, err := tx.EditManifest(t.Context(), entriesOf(t, l, "artifact")[0].Digest, nil, func(m *layout.Manifest) error {
			desc := m.Layers()[1]
			desc.Annotations["k"] = "v"
			m.SetLayer(1, desc)
			m.AddLayer(m.Layers()[0])
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	})
	if err := editLayers(t, l, "artifact", func(s *layout.Stage, e *layout.LayerEdit) error { return e.Add(release(s, "2"), true) }); err != nil {
		t.Fatal(err)
	}
	doc, err := layout.ReadDocument(t.Context(), l, entriesOf(t, l, "artifact")[0])
	if err != nil {
		t.Fatal(err)
	}
	if len(doc.Layers) != 3 || doc.Layers[1].Digest != digest.FromString("2") || doc.Layers[1].Annotations["k"] != "v" {
		t.Errorf("layers %+v", doc.Layers)
	}
}

// An image whose config does not list its layers keeps that config.
func TestEditLayersOutOfStep(t *testing.T) {
	l := newLayout(t)
	edit(t, l, func(s *layout.Stage, tx *layout.Tx) { tx.SetRef("image", image(t, s, "image", "amd64")) })
	before := configOf(t, l, "image")
	if err := editLayers(t, l, "image", func(s *layout.Stage, e *layout.LayerEdit) error {
		if e.InStep() {
			t.Error("a config without diff IDs is in step")
		}
		return e.Add(layout.NewLayer{Desc: putBlob(t, s, ocispec.MediaTypeImageLayer, "more")}, false)
	}); err != nil {
		t.Fatal(err)
	}
	if got := configOf(t, l, "image"); got != before {
		t.Errorf("config %s", got)
	}
	for mediaType, want := range map[string]bool{
		"application/vnd.oci.image.layer.v1.tar+zstd": true, "application/vnd.docker.image.rootfs.diff.tar.gzip": true,
		"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": true, "application/vnd.oci.image.layer.nondistributable.v1.tar": true,
		"application/vnd.oci.image.layer.v1.tar+evil": false, "application/io.gardenlinux.image.archive.format.tar": false, "": false,
		"application/vnd.oci.image.layer.v1.tarx": false,
	} {
		if got := layout.IsImageLayer(mediaType); got != want {
			t.Errorf("IsImageLayer(%q) = %v", mediaType, got)
		}
	}
}
