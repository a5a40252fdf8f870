package lint

import (
	"context"
	"errors"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/consumer"
)

// A Tree is what rules look at: entries of index.json and all documents below
// them. It is for reading only.
type Tree struct {
	Source layout.Source
	Roots  []*Root // each digest once, in the order of index.json
	// RefNames are all of index.json, also those that Roots leaves out.
	RefNames map[string]digest.Digest
}

// A Root is an entry of index.json, or several with the same digest.
type Root struct {
	Desc     ocispec.Descriptor // the first of them
	RefNames []string
	Nodes    []*Node // depth first, parents first, each digest once; the root itself first
	byDigest map[digest.Digest]*Node
}

// A Node is a document.
type Node struct {
	Root     *Root
	Desc     ocispec.Descriptor   // as the document above gives it
	Path     []digest.Digest      // from the root down, its own digest last
	Document *layout.Document     // nil where it cannot be read by anybody
	Err      error                // what the strict reader says against it
	Entries  []ocispec.Descriptor // of an index
}

// LoadOptions changes what Load does. Nil is the zero value.
type LoadOptions struct {
	Sparse bool // members of indexes that the source lacks are left out
	// Read is as in [layout.WalkOptions].
	Read func(ctx context.Context, desc ocispec.Descriptor) (*layout.Document, error)
}

// Load reads the tree below what refName and d name; see [layout.Resolve].
func Load(ctx context.Context, src layout.Source, refName string, d digest.Digest, opts *LoadOptions) (*Tree, error) {
	if opts == nil {
		opts = &LoadOptions{}
	}
	x, err := src.Index(ctx)
	if err != nil {
		return nil, err
	}
	t := &Tree{Source: src, RefNames: map[string]digest.Digest{}}
	for _, desc := range x.Entries() {
		if name := layout.RefName(desc); name != "" {
			t.RefNames[name] = desc.Digest
		}
	}
	descs, err := layout.Resolve(ctx, src, refName, d)
	if err != nil {
		return nil, err
	}
	for _, desc := range descs {
		i := slices.IndexFunc(t.Roots, func(r *Root) bool { return r.Desc.Digest == desc.Digest })
		if i < 0 {
			r := &Root{Desc: desc, byDigest: map[digest.Digest]*Node{}}
			if err := r.load(ctx, src, opts); err != nil {
				return nil, err
			}
			i = len(t.Roots)
			t.Roots = append(t.Roots, r)
		}
		if name := layout.RefName(desc); name != "" && !slices.Contains(t.Roots[i].RefNames, name) {
			t.Roots[i].RefNames = append(t.Roots[i].RefNames, name)
		}
	}
	return t, nil
}

func (r *Root) load(ctx context.Context, src layout.Source, o *LoadOptions) error {
	opts := &layout.WalkOptions{Sparse: o.Sparse, Read: o.Read, KeepGoing: true, NoSubjects: true, DocumentsOnly: true}
	for n, err := range layout.Walk(ctx, src, []ocispec.Descriptor{r.Desc}, opts) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil && !errors.Is(err, layout.ErrNotFound) && !errors.Is(err, layout.ErrInvalid) && !errors.Is(err, layout.ErrMismatch) {
			return err
		}
		if err == nil && n.Document == nil {
			continue // of no known type, or left out
		}
		node := &Node{Root: r, Desc: n.Desc, Document: n.Document, Err: err}
		for _, p := range n.Parents {
			node.Path = append(node.Path, p.Digest)
		}
		node.Path = append(node.Path, n.Desc.Digest)
		if n.Document == nil && errors.Is(err, layout.ErrInvalid) {
			// Others may read it all the same.
			if node.Document, err = consumer.ReadDocument(ctx, src, n.Desc); err != nil {
				node.Document = nil
			}
		}
		if node.Document != nil && node.Document.IsIndex {
			node.Entries = node.Document.Manifests
		}
		r.Nodes = append(r.Nodes, node)
		r.byDigest[n.Desc.Digest] = node
	}
	return nil
}

// top is the document of the root, or nil.
func (r *Root) top() *layout.Document {
	if len(r.Nodes) == 0 {
		return nil
	}
	return r.Nodes[0].Document
}

// Document returns the document with this digest below r, or nil.
func (r *Root) Document(d digest.Digest) *layout.Document {
	if n := r.byDigest[d]; n != nil {
		return n.Document
	}
	return nil
}

// Finding begins a finding about r itself.
func (r *Root) Finding() Finding {
	return Finding{RefNames: r.RefNames, Path: []digest.Digest{r.Desc.Digest}}
}

// Finding begins a finding about n, or about an entry below it.
func (n *Node) Finding(below ...digest.Digest) Finding {
	return Finding{RefNames: n.Root.RefNames, Path: append(slices.Clone(n.Path), below...)}
}

// name is how a command names the root: its ref name, or @DIGEST.
func (r *Root) name() string {
	if len(r.RefNames) > 0 {
		return r.RefNames[0]
	}
	return "@" + string(r.Desc.Digest)
}

// RemoveCommand is the command that takes an entry out of the indexes below r.
func (r *Root) RemoveCommand(d digest.Digest) string {
	if len(r.RefNames) > 0 && d != r.Desc.Digest {
		return "gloci-layout rm LAYOUT '" + r.RefNames[0] + "@" + string(d) + "'"
	}
	return "gloci-layout rm LAYOUT @" + string(d)
}
