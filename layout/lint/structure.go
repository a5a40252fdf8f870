package lint

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/consumer"
)

// documents calls fn for each document of the tree that can be read, and each
// digest once.
func (t *Tree) documents(fn func(n *Node)) {
	seen := map[digest.Digest]bool{}
	for _, r := range t.Roots {
		for _, n := range r.Nodes {
			if n.Document != nil && !seen[n.Desc.Digest] {
				seen[n.Desc.Digest] = true
				fn(n)
			}
		}
	}
}

func mixedLayers(_ context.Context, t *Tree, report func(Finding)) error {
	t.documents(func(n *Node) {
		doc := n.Document
		// An attestation is an image manifest by its config.
		if doc.IsIndex || layout.IsAttestation(n.Desc) {
			return
		}
		var image, other []string
		for _, l := range doc.Layers {
			list := &other
			if consumer.IsImageLayer(l.MediaType) {
				list = &image
			}
			if !slices.Contains(*list, l.MediaType) {
				*list = append(*list, l.MediaType)
			}
		}
		f := n.Finding()
		switch {
		case doc.IsImage() && len(other) > 0:
			f.Why = "a container image with layers that are none of one: " + someOf(other) + "; podman and docker cannot pull it"
			f.Cure = "gloci-layout detach layer LAYOUT REF --digest " + string(n.Desc.Digest) + " --media-type '" + other[0] + "'; gloci-layout add artifact makes a manifest of its own of such files"
		case !doc.IsImage() && len(image) > 0 && len(other) > 0:
			f.Severity = Warning
			f.Why = "an artifact with layers of a root file system (" + someOf(image) + ") among others"
			f.Cure = "give them a media type that says what they are"
		default:
			return
		}
		report(f)
	})
	return nil
}

func emptyManifest(_ context.Context, t *Tree, report func(Finding)) error {
	t.documents(func(n *Node) {
		doc := n.Document
		if doc.IsIndex && len(n.Path) == 1 && len(n.Entries) == 0 {
			f := n.Finding()
			f.Severity = Warning
			f.Why = "an index without entries: there is nothing to take"
			f.Cure = n.Root.RemoveCommand(n.Desc.Digest)
			report(f)
		}
		if doc.IsIndex || len(doc.Layers) > 0 {
			return
		}
		f := n.Finding()
		f.Cure = n.Root.RemoveCommand(n.Desc.Digest)
		switch {
		case doc.IsImage():
			f.Severity = Info
			f.Why = "a container image without layers: it holds no files"
		case doc.Subject != nil || doc.Config == nil || doc.ArtifactType != doc.Config.MediaType && doc.ArtifactType != "":
			f.Severity = Info
			f.Why = "an artifact without layers: all that it says is in its annotations"
		default:
			f.Why = fmt.Sprintf("an artifact of type %s without layers, as tools write it that take an index for a manifest", doc.ArtifactType)
			if len(n.Path) == 1 {
				f.Why += "; what the tag named before is lost to its readers"
			}
		}
		report(f)
	})
	return nil
}

func platformMismatch(ctx context.Context, t *Tree, report func(Finding)) error {
	for _, r := range t.Roots {
		for _, n := range r.Nodes {
			doc := n.Document
			if doc == nil || !doc.IsImage() || n.Desc.Platform == nil || layout.IsAttestation(n.Desc) {
				continue
			}
			bare := n.Desc
			bare.Platform = nil
			p, err := layout.ImagePlatform(ctx, t.Source, bare, doc)
			switch {
			case errors.Is(err, layout.ErrNotFound), errors.Is(err, layout.ErrInvalid), errors.Is(err, layout.ErrMismatch):
				f := n.Finding()
				f.Why = fmt.Sprintf("the config of the image cannot be read: %v", err)
				f.Cure = "gloci-layout verify LAYOUT says what is damaged"
				report(f)
				continue
			case err != nil:
				return err
			}
			have := *n.Desc.Platform
			if p == nil || p.OS == have.OS && p.Architecture == have.Architecture {
				continue
			}
			f := n.Finding()
			f.Why = fmt.Sprintf("the entry is for %s, the image for %s", layout.FormatPlatform(have), layout.FormatPlatform(*p))
			f.Cure = "add it again, with the platform of the image: gloci-layout add image LAYOUT SOURCE --into " + r.name()
			report(f)
		}
	}
	return nil
}

func duplicateKey(_ context.Context, t *Tree, report func(Finding)) error {
	t.documents(func(n *Node) {
		var keys []string
		count := map[string][]ocispec.Descriptor{}
		for _, e := range n.Entries {
			key := layout.EntryKey(e)
			if layout.IsAttestation(e) || e.Platform != nil && e.Platform.OS == "unknown" {
				continue
			}
			if count[key] == nil {
				keys = append(keys, key)
			}
			count[key] = append(count[key], e)
		}
		for _, key := range keys {
			same := count[key]
			if len(same) < 2 {
				continue
			}
			var all []string
			for _, e := range same {
				all = append(all, string(e.Digest))
			}
			f := n.Finding(same[1].Digest)
			f.Why = fmt.Sprintf("%d entries for %s: %s; most readers take the first", len(same), keyName(key), someOf(all))
			if same[0].Digest == same[1].Digest {
				f.Severity = Info
			} else {
				f.Cure = n.Root.RemoveCommand(same[0].Digest) + " takes out the first"
			}
			report(f)
		}
	})
	return nil
}

// keyName is a key of [layout.EntryKey] for people.
func keyName(key string) string {
	if name, ok := strings.CutPrefix(key, "cname:"); ok {
		return strings.TrimRight(strings.ReplaceAll(name, "|", " "), " ")
	}
	if name, ok := strings.CutPrefix(key, "platform:"); ok {
		return strings.TrimRight(name, "/")
	}
	return "one digest"
}

func noMediaType(_ context.Context, t *Tree, report func(Finding)) error {
	t.documents(func(n *Node) {
		if n.Err == nil && saysMediaType(n.Document.Raw) {
			return
		}
		var body struct {
			MediaType string `json:"mediaType"`
		}
		if json.Unmarshal(n.Document.Raw, &body) != nil || body.MediaType != "" {
			return
		}
		f := n.Finding()
		f.Why = "an index without mediaType: readers take it for something else, or refuse it"
		if !n.Document.IsIndex {
			f.Severity = Warning
			f.Why = "a manifest without mediaType: readers have to guess what it is"
		}
		f.Cure = "write it anew with the field; its digest changes, and signatures of it are void"
		report(f)
	})
	return nil
}

// saysMediaType tells whether a document that was read strictly has a field
// mediaType that says something. It looks at the top level alone: to decode
// thousands of documents takes longer than all other rules.
func saysMediaType(raw []byte) bool {
	depth := 0
	for i := 0; i < len(raw); i++ {
		switch raw[i] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case '"':
			from := i
			for i++; i < len(raw) && raw[i] != '"'; i++ {
				if raw[i] == '\\' {
					i++
				}
			}
			if depth != 1 || i >= len(raw) || string(raw[from:i+1]) != `"mediaType"` {
				continue
			}
			if value, ok := bytes.CutPrefix(bytes.TrimLeft(raw[i+1:], " \t\r\n"), []byte(":")); ok {
				value = bytes.TrimLeft(value, " \t\r\n")
				return len(value) > 1 && value[0] == '"' && value[1] != '"'
			}
		}
	}
	return false
}

// mayBeNull tells whether raw could have a null or None: an escape could hide one.
// Few documents need be decoded for that.
func mayBeNull(raw []byte) bool {
	for _, sign := range []string{"null", "None", `\u`} {
		if bytes.Contains(raw, []byte(sign)) {
			return true
		}
	}
	return false
}

// nullValue finds what programs write that have no value and do not notice.
func nullValue(_ context.Context, t *Tree, report func(Finding)) error {
	t.documents(func(n *Node) {
		var v any
		if !mayBeNull(n.Document.Raw) || json.Unmarshal(n.Document.Raw, &v) != nil {
			return
		}
		for _, what := range nulls(v, "") {
			f := n.Finding()
			f.Why = "annotation " + what + ": strict readers refuse the document"
			f.Cure = n.Root.RemoveCommand(n.Desc.Digest) + " and publish it anew"
			report(f)
		}
	})
	for _, r := range t.Roots {
		for _, name := range r.RefNames {
			if i := strings.LastIndexByte(name, ':'); strings.EqualFold(name[i+1:], "none") || strings.EqualFold(name[i+1:], "null") {
				f := r.Finding()
				f.Why = fmt.Sprintf("the ref name is %q: a tool had no value and did not notice", name)
				f.Cure = "gloci-layout tag LAYOUT " + name + " NAME && gloci-layout untag LAYOUT " + name
				report(f)
			}
		}
	}
	return nil
}

// nulls lists the annotations below v that are null or say so.
func nulls(v any, at string) []string {
	var found []string
	switch v := v.(type) {
	case []any:
		for i, x := range v {
			found = append(found, nulls(x, fmt.Sprintf("%s[%d]", at, i))...)
		}
	case map[string]any:
		for _, name := range sortedNames(v) {
			a, ok := v[name].(map[string]any)
			if name != "annotations" || !ok {
				found = append(found, nulls(v[name], strings.TrimPrefix(at+"."+name, "."))...)
				continue
			}
			for _, key := range sortedNames(a) {
				if a[key] == nil || a[key] == "None" || a[key] == "null" {
					what := fmt.Sprintf("%s is %v", key, a[key])
					if a[key] == nil {
						what = key + " is null"
					}
					if at != "" {
						what += " (" + at + ")"
					}
					found = append(found, what)
				}
			}
		}
	}
	return found
}

func sortedNames(m map[string]any) []string {
	var list []string
	for name := range m {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

const nearlyFull = layout.MaxDocument / 4 * 3

func manifestSize(_ context.Context, t *Tree, report func(Finding)) error {
	seen := map[digest.Digest]bool{}
	for _, r := range t.Roots {
		for _, n := range r.Nodes {
			if n.Desc.Size < nearlyFull || seen[n.Desc.Digest] {
				continue
			}
			seen[n.Desc.Digest] = true
			f := n.Finding()
			f.Why = fmt.Sprintf("%d bytes: registries and clients take %d", n.Desc.Size, layout.MaxDocument)
			if n.Desc.Size <= layout.MaxDocument {
				f.Severity = Warning
			}
			f.Cure = "split it: an index can name others"
			report(f)
		}
	}
	return nil
}

func unreadable(_ context.Context, t *Tree, report func(Finding)) error {
	for _, r := range t.Roots {
		for _, n := range r.Nodes {
			if n.Document != nil || n.Desc.Size > layout.MaxDocument || n.Err == nil {
				continue
			}
			f := n.Finding()
			f.Why = n.Err.Error()
			f.Cure = "gloci-layout verify LAYOUT says all that is damaged; " + r.RemoveCommand(n.Desc.Digest) + " takes it out"
			report(f)
		}
	}
	return nil
}
