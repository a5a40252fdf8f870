package layout_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"
)

// A view is what a layout says, with documents in the place of their digests: two
// layouts that say the same have the same view. It knows nothing of package
// layout.
type view struct {
	t      rapid.TB
	dir    string
	edit   map[string]func(doc object) // applied to the documents with these digests
	entry  map[string]func(desc object) object
	follow bool // subjects are edited too
}

// layout returns index.json with its entries in an order of their own.
func (v *view) layout() string {
	raw, err := os.ReadFile(filepath.Join(v.dir, "index.json"))
	must(v.t, err)
	x := v.document(raw, true)
	entries := as[[]any](x["manifests"])
	slices.SortFunc(entries, func(a, b any) int { return strings.Compare(text(v.t, a), text(v.t, b)) })
	return text(v.t, x)
}

func text(t rapid.TB, o any) string {
	b, err := json.MarshalIndent(o, "", " ")
	must(t, err)
	return string(b)
}

func (v *view) document(raw []byte, edits bool) object {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var o object
	must(v.t, d.Decode(&o))
	if fn := v.edit[string(digest.FromBytes(raw))]; fn != nil && edits {
		fn(o)
	}
	for _, list := range []string{"manifests", "layers"} {
		descs, _ := o[list].([]any)
		var kept []any
		for _, e := range descs {
			if e := v.expand(as[object](e), edits, list == "manifests"); e != nil {
				kept = append(kept, e)
			}
		}
		if descs != nil && kept == nil {
			kept = []any{}
		}
		if o[list] != nil {
			o[list] = kept
		}
	}
	if subject, ok := o["subject"].(object); ok {
		o["subject"] = v.expand(subject, edits && v.follow, false)
	}
	return o
}

// expand puts the content in the place of digest, size and data.
func (v *view) expand(desc object, edits, entry bool) any {
	if content, ok := desc["new"]; ok { // put there by an edit
		return content
	}
	d := as[string](desc["digest"])
	content, err := os.ReadFile(filepath.Join(v.dir, "blobs", "sha256", strings.TrimPrefix(d, "sha256:")))
	must(v.t, err)
	if fmt.Sprint(desc["size"]) != fmt.Sprint(len(content)) || string(digest.FromBytes(content)) != d {
		v.t.Fatalf("descriptor %v of %d bytes", desc, len(content))
	}
	if data, ok := desc["data"]; ok {
		b, err := json.Marshal(content)
		must(v.t, err)
		if string(b) != text(v.t, data) {
			v.t.Fatalf("embedded data of %s is other than its content", d)
		}
	}
	desc = maps.Clone(desc)
	if fn := v.entry[d]; fn != nil && edits && entry {
		if desc = fn(desc); desc == nil {
			return nil
		}
	}
	delete(desc, "digest")
	delete(desc, "size")
	if _, ok := desc["data"]; ok {
		desc["data"] = true
	}
	if strings.HasPrefix(as[string](desc["mediaType"]), "application/vnd.oci.image.") {
		desc["content"] = v.document(content, edits)
	} else {
		desc["content"] = string(content)
	}
	return desc
}
