package diff

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/internal/strictjson"
)

// Names of fields that are no JSON pointers.
const (
	refField      = "refName"
	encodingField = "encoding" // the same JSON in other bytes, or the same files in another archive
)

func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func escapePointer(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "~", "~0"), "/", "~1")
}

func unescapePointer(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "~1", "/"), "~0", "~")
}

// descriptorFields compares two descriptors as they stand, but for what follows
// from their content.
func (c *comparer) descriptorFields(a, b strictjson.Value) ([]Field, error) {
	if bytes.Equal(a, b) {
		return nil, nil
	}
	return c.jsonFields(a, b, func(pointer string) bool {
		return pointer == "/digest" || pointer == "/size" || pointer == "/data"
	})
}

// documentFields compares two indexes or manifests but for the descriptors in
// them that are compared on their own.
func (c *comparer) documentFields(a, b *list) ([]Field, error) {
	if bytes.Equal(a.raw, b.raw) {
		return nil, nil
	}
	fields, err := c.jsonFields(a.rest(), b.rest(), func(pointer string) bool {
		return pointer == "/config/digest" || pointer == "/config/size" || pointer == "/config/data"
	})
	if err != nil || len(fields) > 0 || c.opts.Ignore.Encoding || !slices.EqualFunc(a.descs, b.descs, sameDigest) {
		return fields, err
	}
	if equal, err := equalJSON(a.raw, b.raw); err != nil || !equal {
		return nil, err
	}
	return []Field{encodingChange()}, nil
}

func sameDigest(a, b ocispec.Descriptor) bool { return a.Digest == b.Digest }

func encodingChange() Field {
	s := "other bytes of the same JSON"
	return Field{Name: encodingField, A: &s, B: &s}
}

func equalJSON(a, b []byte) (bool, error) {
	va, errA := decode(a)
	vb, errB := decode(b)
	return reflect.DeepEqual(va, vb), errors.Join(errA, errB)
}

func decode(raw []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("%w: %w", layout.ErrInvalid, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: data after the JSON value", layout.ErrInvalid)
	}
	return v, nil
}

// jsonFields compares two JSON texts and returns what counts.
func (c *comparer) jsonFields(a, b []byte, skip func(pointer string) bool) ([]Field, error) {
	va, err := decode(a)
	if err != nil {
		return nil, err
	}
	vb, err := decode(b)
	if err != nil {
		return nil, err
	}
	return c.valueFields(va, vb, skip), nil
}

func (c *comparer) valueFields(a, b any, skip func(pointer string) bool) []Field {
	w := fieldWalk{skip: func(p string) bool { return skip(p) || c.opts.Ignore.skips(p) }}
	w.value("", a, b, true, true)
	return w.fields
}

type fieldWalk struct {
	skip   func(pointer string) bool
	fields []Field
}

func (w *fieldWalk) value(pointer string, a, b any, hasA, hasB bool) {
	if pointer != "" && w.skip(pointer) {
		return
	}
	objA, isA := a.(map[string]any)
	objB, isB := b.(map[string]any)
	if isA && isB || isA && !hasB || isB && !hasA {
		names := slices.Sorted(maps.Keys(objA))
		for name := range objB {
			if _, both := objA[name]; !both {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		for _, name := range names {
			va, okA := objA[name]
			vb, okB := objB[name]
			w.value(pointer+"/"+escapePointer(name), va, vb, okA, okB)
		}
		if len(names) > 0 || hasA && hasB {
			return
		}
	}
	listA, isA := a.([]any)
	listB, isB := b.([]any)
	if (isA && isB || isA && !hasB || isB && !hasA) && (compound(listA) || compound(listB)) {
		for i := range max(len(listA), len(listB)) {
			var va, vb any
			if i < len(listA) {
				va = listA[i]
			}
			if i < len(listB) {
				vb = listB[i]
			}
			w.value(pointer+"/"+strconv.Itoa(i), va, vb, i < len(listA), i < len(listB))
		}
		return
	}
	if hasA == hasB && reflect.DeepEqual(a, b) {
		return
	}
	f := Field{Name: pointer}
	if hasA {
		f.A = textOf(a)
	}
	if hasB {
		f.B = textOf(b)
	}
	w.fields = append(w.fields, f)
}

// compound tells whether a list has objects in it: others are shown whole.
func compound(items []any) bool {
	return slices.ContainsFunc(items, func(v any) bool {
		_, ok := v.(map[string]any)
		return ok
	})
}

func textOf(v any) *string {
	if s, ok := v.(string); ok {
		return &s
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		s := err.Error()
		return &s
	}
	s := strings.TrimSuffix(b.String(), "\n")
	return &s
}

// skips tells whether a field of a document does not count.
func (g *Ignore) skips(pointer string) bool {
	if key, ok := lastMember(pointer, "annotations"); ok {
		if g.Compression && key == annotationZstd {
			return true
		}
		if g.Times && key == ocispec.AnnotationCreated || anyGlob(g.Annotations, key) {
			return true
		}
	}
	if key, ok := strings.CutPrefix(pointer, "/config/Labels/"); ok {
		key = unescapePointer(key)
		if g.Times && key == ocispec.AnnotationCreated || anyGlob(g.Labels, key) {
			return true
		}
	}
	switch {
	case g.History && (pointer == "/history" || strings.HasPrefix(pointer, "/history/")):
		return true
	case g.Times && (pointer == "/created" || strings.HasPrefix(pointer, "/history/") && strings.HasSuffix(pointer, "/created")):
		return true
	}
	return false
}

// lastMember returns the key of a pointer that ends in /NAME/KEY.
func lastMember(pointer, name string) (key string, ok bool) {
	i := strings.LastIndexByte(pointer, '/')
	if i < 0 || pointer[:i] != "/"+name && !strings.HasSuffix(pointer[:i], "/"+name) {
		return "", false
	}
	return unescapePointer(pointer[i+1:]), true
}

func anyGlob(globs []string, key string) bool {
	return slices.ContainsFunc(globs, func(g string) bool {
		// A key has slashes, which a * of path.Match stops at.
		ok, err := path.Match(strings.ReplaceAll(g, "/", "\x01"), strings.ReplaceAll(key, "/", "\x01"))
		return err == nil && ok
	})
}

// annotationZstd tells in the entry of an image that its layers are zstd, and so
// belongs to how they are compressed. containers/image
// internal/manifest/oci_index.go, OCI1InstanceAnnotationCompressionZSTD.
const annotationZstd = "io.github.containers.compression.zstd"
