package diff

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/diff/filediff"
)

// manifests compares two manifests, then their configs and layers.
func (c *comparer) manifests(ctx context.Context, a, b ocispec.Descriptor, at place) error {
	c.sum.Manifests++
	ch := c.change(LevelManifest, filediff.Changed, at, &a, &b)
	if c.opts.Level < LevelManifest {
		c.out.Say()
		return c.ended()
	}
	da, db, ok, err := c.documents(ctx, a, b)
	if !ok {
		if err == nil {
			c.sum.Changed++
		}
		return err
	}
	c.bytes.document(sideA, da)
	c.bytes.document(sideB, db)
	la, lb := documentList(da), documentList(db)
	if ch.Fields, err = c.documentFields(la, lb); err != nil {
		return err
	}
	m := matchLayers(da.Layers, db.Layers)
	if c.opts.Level < LevelLayer {
		ch.Fields = append(ch.Fields, c.digestFields(da, db, m)...)
	}
	c.out.Push(ch)
	if len(ch.Fields) > 0 {
		c.out.Say()
	}
	err = c.ended()
	if err == nil && c.opts.Level >= LevelConfig {
		err = c.configAndLayers(ctx, da, db, la, lb, m, at)
	}
	if c.out.Pop() {
		c.sum.Changed++
	}
	return err
}

// digestFields are the digests of what is not looked at at this level.
func (c *comparer) digestFields(a, b *layout.Document, m *matching) []Field {
	var fields []Field
	if c.opts.Level < LevelConfig && a.Config != nil && b.Config != nil && a.Config.Digest != b.Config.Digest {
		fields = append(fields, Field{Name: "/config/digest", A: digestOf(a.Config.Digest), B: digestOf(b.Config.Digest)})
	}
	for i, l := range a.Layers {
		f := Field{Name: "/layers/" + escapePointer(layerName(l, i)) + "/digest", A: digestOf(l.Digest)}
		if j := m.toB[i]; j >= 0 {
			if f.B = digestOf(b.Layers[j].Digest); *f.A == *f.B {
				continue
			}
		}
		fields = append(fields, f)
	}
	for j, l := range b.Layers {
		if m.toA[j] < 0 {
			fields = append(fields, Field{Name: "/layers/" + escapePointer(layerName(l, j)) + "/digest", B: digestOf(l.Digest)})
		}
	}
	return fields
}

// layerName is the title of a layer, or its number.
func layerName(desc ocispec.Descriptor, i int) string {
	return cmp.Or(desc.Annotations[ocispec.AnnotationTitle], fmt.Sprintf("layer %d", i+1))
}

func (c *comparer) configAndLayers(ctx context.Context, a, b *layout.Document, la, lb *list, m *matching, at place) error {
	differ := len(a.Layers) != len(b.Layers)
	for i, j := range m.toB {
		differ = differ || j < 0 || a.Layers[i].Digest != b.Layers[j].Digest
	}
	var ca, cb config
	var err error
	if a.Config != nil && b.Config != nil && (a.Config.Digest != b.Config.Digest || differ && a.IsImage()) {
		if ca, err = readConfig(ctx, c.a, a); err == nil {
			cb, err = readConfig(ctx, c.b, b)
		}
		if err != nil {
			return err
		}
	}
	if a.Config != nil && b.Config != nil && a.Config.Digest != b.Config.Digest {
		if err := c.configs(a, b, ca, cb, m, at); err != nil {
			return err
		}
	}
	if c.opts.Level < LevelLayer {
		return nil
	}
	return c.layers(ctx, a, b, la, lb, ca, cb, m, at)
}

// A config is what there is to know of one.
type config struct {
	raw     []byte
	value   any  // decoded; nil if it is no JSON
	absent  bool // the source lacks it, or it is too large to be read
	diffIDs []digest.Digest
}

func readConfig(ctx context.Context, src layout.Source, doc *layout.Document) (config, error) {
	raw, err := layout.ReadAll(ctx, src, *doc.Config, layout.MaxDocument)
	switch {
	case errors.Is(err, layout.ErrNotFound), errors.Is(err, layout.ErrInvalid):
		return config{absent: true}, nil
	case err != nil:
		return config{}, err
	}
	c := config{raw: raw}
	if c.value, err = decode(raw); err != nil {
		return c, nil //nolint:nilerr // any bytes may be a config
	}
	if doc.IsImage() {
		var image struct {
			RootFS struct {
				DiffIDs []digest.Digest `json:"diff_ids"`
			} `json:"rootfs"`
		}
		if json.Unmarshal(raw, &image) == nil && len(image.RootFS.DiffIDs) == len(doc.Layers) {
			c.diffIDs = image.RootFS.DiffIDs
		}
		c.value = withEnvironment(c.value)
	}
	return c, nil
}

// withEnvironment makes the list config.Env an object, so that one variable is
// one field.
func withEnvironment(v any) any {
	image, _ := v.(map[string]any)
	inner, _ := image["config"].(map[string]any)
	env, ok := inner["Env"].([]any)
	if !ok {
		return v
	}
	vars := map[string]any{}
	for _, e := range env {
		s, ok := e.(string)
		name, value, found := strings.Cut(s, "=")
		if _, twice := vars[name]; !ok || !found || twice {
			return v
		}
		vars[name] = value
	}
	inner["Env"] = vars
	return v
}

func (c *comparer) configs(a, b *layout.Document, ca, cb config, m *matching, at place) error {
	ch := c.change(LevelConfig, filediff.Changed, at, a.Config, b.Config)
	switch {
	case ca.absent || cb.absent || ca.value == nil || cb.value == nil:
		ch.Fields = []Field{{Name: "content", A: digestOf(a.Config.Digest), B: digestOf(b.Config.Digest)}}
	default:
		explained := explainedIDs(a, b, ca, cb, m)
		ch.Fields = c.valueFields(ca.value, cb.value, func(pointer string) bool {
			return explained && pointer == "/rootfs/diff_ids"
		})
		if len(ch.Fields) == 0 && !c.opts.Ignore.Encoding {
			if equal, err := equalJSON(ca.raw, cb.raw); err == nil && equal {
				ch.Fields = []Field{encodingChange()}
			}
		}
	}
	if len(ch.Fields) == 0 {
		return nil
	}
	return c.emit(ch)
}

// explainedIDs tells whether the diffIDs differ only where the layers do: then
// the layers say it.
func explainedIDs(a, b *layout.Document, ca, cb config, m *matching) bool {
	if len(ca.diffIDs) != len(a.Layers) || len(cb.diffIDs) != len(b.Layers) {
		return false
	}
	for i, j := range m.toB {
		if j >= 0 && a.Layers[i].Digest == b.Layers[j].Digest && ca.diffIDs[i] != cb.diffIDs[j] {
			return false
		}
	}
	return true
}

func (c *comparer) layers(ctx context.Context, a, b *layout.Document, la, lb *list, ca, cb config, m *matching, at place) error {
	for i, desc := range a.Layers {
		j := m.toB[i]
		if j < 0 {
			ch := c.change(LevelLayer, filediff.Removed, at, &desc, nil)
			ch.Layer = layerName(desc, i)
			if err := c.emit(ch); err != nil {
				return err
			}
			continue
		}
		p := layerPair{a: desc, b: b.Layers[j], at: at, name: layerName(desc, i)}
		var err error
		if p.fields, err = c.descriptorFields(la.item(i), lb.item(j)); err != nil {
			return err
		}
		if ca.diffIDs != nil && cb.diffIDs != nil {
			p.idA, p.idB = ca.diffIDs[i], cb.diffIDs[j]
		}
		if err := c.layer(ctx, p); err != nil {
			return err
		}
	}
	for j, desc := range b.Layers {
		if m.toA[j] < 0 {
			ch := c.change(LevelLayer, filediff.Added, at, nil, &desc)
			ch.Layer = layerName(desc, j)
			if err := c.emit(ch); err != nil {
				return err
			}
		}
	}
	// Of an image, the order of layers is content.
	if m.reordered() && (a.IsImage() || !c.opts.Ignore.Order) {
		return c.emit(c.change(LevelManifest, filediff.Reordered, at, nil, nil))
	}
	return nil
}

// A layerPair is two layers that were matched.
type layerPair struct {
	a, b     ocispec.Descriptor
	at       place
	name     string
	fields   []Field
	idA, idB digest.Digest // diffIDs, where both are known
}

// plainType is a media type without the compression that it names.
func plainType(mediaType string) string {
	if mediaType == "application/vnd.docker.image.rootfs.diff.tar.gzip" {
		return ocispec.MediaTypeImageLayer
	}
	for _, suffix := range []string{"+gzip", "+zstd", ".gzip", ".gz", ".zst"} {
		if plain, ok := strings.CutSuffix(mediaType, suffix); ok {
			return plain
		}
	}
	return mediaType
}

func (c *comparer) layer(ctx context.Context, p layerPair) error {
	ch := c.change(LevelLayer, filediff.Changed, p.at, &p.a, &p.b)
	ch.Layer = p.name
	if p.a.Digest == p.b.Digest {
		if ch.Fields = p.fields; len(ch.Fields) == 0 {
			return nil
		}
		return c.emit(ch)
	}
	if plainType(p.a.MediaType) == plainType(p.b.MediaType) { // what differs is the compression
		p.fields = slices.DeleteFunc(p.fields, func(f Field) bool { return f.Name == "/mediaType" })
	}
	ch.Fields = p.fields
	if p.idA != "" && p.idA == p.idB {
		return c.recompressed(ch)
	}
	if c.opts.Level == LevelLayer {
		same, err := filediff.Same(ctx, c.content(sideA, p.a), c.content(sideB, p.b))
		if err == nil && same {
			return c.recompressed(ch)
		}
		if err != nil {
			if err = c.absent(ch, err); err != nil {
				return err
			}
		}
		return c.emit(ch)
	}
	return c.files(ctx, p, ch)
}

// recompressed reports content that is the same when decompressed.
func (c *comparer) recompressed(ch *Change) error {
	if !c.opts.Ignore.Compression {
		ch.Kind = filediff.Recompressed
	} else if len(ch.Fields) == 0 {
		return nil
	}
	return c.emit(ch)
}

// absent notes in ch that a source lacks the blob: a layer may be kept
// elsewhere. Any other error it returns.
func (c *comparer) absent(ch *Change, err error) error {
	if !errors.Is(err, layout.ErrNotFound) {
		return err
	}
	reason := err.Error()
	ch.Fields = append(ch.Fields, Field{Name: "absent", A: &reason, B: &reason})
	return nil
}

func (c *comparer) content(on side, desc ocispec.Descriptor) filediff.Content {
	return filediff.Content{
		Name: desc.Annotations[ocispec.AnnotationTitle],
		Open: func(ctx context.Context) (io.ReadCloser, error) { return c.source(on).Blob(ctx, desc) },
	}
}

// files compares what is in two layers.
func (c *comparer) files(ctx context.Context, p layerPair, heading *Change) error {
	said := false
	var outcome filediff.Outcome
	for f, err := range filediff.Compare(ctx, c.content(sideA, p.a), c.content(sideB, p.b), &c.opts.Files, &outcome) {
		if err != nil {
			if err := c.absent(heading, err); err != nil {
				return err
			}
			break
		}
		ch := heading
		switch {
		case f.Package != nil:
			ch = c.change(LevelPackage, f.Kind, p.at, nil, nil)
		case len(f.Path) > 0:
			ch = c.change(LevelFile, f.Kind, p.at, nil, nil)
		}
		ch.Layer, ch.Kind, ch.Path, ch.FileA, ch.FileB = p.name, f.Kind, f.Path, f.A, f.B
		ch.Fields = append(slices.Clone(ch.Fields), f.Fields...)
		ch.Ranges, ch.Differing, ch.Text, ch.Package = f.Ranges, f.Differing, f.Text, f.Package
		said = said || ch == heading
		if err := c.emit(ch); err != nil {
			return err
		}
	}
	if !said && len(heading.Fields) > 0 {
		return c.emit(heading)
	}
	return nil
}
