package layout

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Role is what a descriptor is to the document that holds it.
type Role int

// The roles of descriptors.
const (
	RoleEntry   Role = iota // a root, or an entry of an index
	RoleConfig              // the config of a manifest
	RoleLayer               // a layer of a manifest
	RoleSubject             // what a manifest or index refers to
)

func (r Role) String() string {
	return [...]string{"entry", "config", "layer", "subject"}[r]
}

// A Node is one step of [Walk].
type Node struct {
	Desc     ocispec.Descriptor
	Role     Role
	Parents  []ocispec.Descriptor // from the root down; nil for a root; shared: for reading only
	Document *Document            // nil for leaves and for what could not be read
	Absent   bool                 // the source lacks it, which is legal here: a subject, or a member of a sparse index
}

// Limits of a [Walk] whose options name none.
const (
	DefaultMaxDepth     = 16
	DefaultMaxDocuments = 100_000
	// maxNodes bounds what a walk remembers, in digests.
	maxNodes = 2_000_000
)

// WalkOptions changes what [Walk] does. Nil is the zero value.
type WalkOptions struct {
	ChildrenFirst bool // a document comes after all that it names
	KeepGoing     bool // an error is yielded with its node, and the walk goes on beside it
	NoSubjects    bool // subjects are not followed
	Sparse        bool // entries of indexes that the source lacks are Absent, no errors
	DocumentsOnly bool // configs, layers and other leaves are not yielded
	MaxDepth      int  // documents above one another; 0 means DefaultMaxDepth
	MaxDocuments  int  // 0 means DefaultMaxDocuments
	// Read takes the place of [ReadDocument], several times at once: for who reads
	// the same documents for more than one end.
	Read func(ctx context.Context, desc ocispec.Descriptor) (*Document, error)

	indexesOnly bool // manifests are not read either
	ahead       int  // documents read at once; 0 means four times the processors
	// pass is asked for each manifest that is an entry, as often as it is one;
	// false means that this entry is not there. Nil passes all.
	pass func(ocispec.Descriptor) bool
}

// Walk yields roots and all that they name, depth first in listed order,
// parents first unless asked otherwise. Manifests and indexes are read,
// verified and followed; everything else, also of unknown media types, is a
// leaf, which is neither opened nor looked for. Each digest comes once; one
// that is named as a document and as a leaf comes once as each.
//
// An error comes with its node and ends the walk, unless opts.KeepGoing. What
// passes a limit is [ErrInvalid], a missing document [ErrNotFound].
func Walk(ctx context.Context, src Source, roots []ocispec.Descriptor, opts *WalkOptions) iter.Seq2[Node, error] {
	return func(yield func(Node, error) bool) {
		w := walker{ctx: ctx, src: src, yield: yield, seen: map[visit]struct{}{}}
		if opts != nil {
			w.opts = *opts
		}
		if w.opts.MaxDepth == 0 {
			w.opts.MaxDepth = DefaultMaxDepth
		}
		if w.opts.MaxDocuments == 0 {
			w.opts.MaxDocuments = DefaultMaxDocuments
		}
		if w.opts.Read == nil {
			w.opts.Read = func(ctx context.Context, desc ocispec.Descriptor) (*Document, error) {
				return ReadDocument(ctx, src, desc)
			}
		}
		w.children(nil, roots, RoleEntry)
	}
}

// A visit is what makes a node another one: a digest under a document type is
// not the same as under a leaf's.
type visit struct {
	digest   digest.Digest
	document string
}

func visitOf(desc ocispec.Descriptor) (v visit, document bool) {
	v.digest = desc.Digest
	if document = IsIndex(desc.MediaType) || IsManifest(desc.MediaType); document {
		// A config or layer may be called a manifest (OCI artifacts do that);
		// it is followed all the same.
		v.document = desc.MediaType
	}
	return v, document
}

type walker struct {
	ctx       context.Context //nolint:containedctx // lives as long as the range loop over Walk
	src       Source
	opts      WalkOptions
	yield     func(Node, error) bool
	seen      map[visit]struct{}
	documents int
}

// children walks descs below the documents parents; false ends the walk.
func (w *walker) children(parents, descs []ocispec.Descriptor, role Role) bool {
	if w.opts.pass != nil && role == RoleEntry {
		descs = slices.DeleteFunc(slices.Clone(descs), func(desc ocispec.Descriptor) bool {
			return IsManifest(desc.MediaType) && !w.opts.pass(desc)
		})
	}
	read, end := w.readAhead(parents, descs)
	defer end()
	for i, desc := range descs {
		if !w.node(Node{Desc: desc, Role: role, Parents: parents}, func() (*Document, error) { return read(i) }) {
			return false
		}
	}
	return true
}

func (w *walker) node(n Node, read func() (*Document, error)) bool {
	v, document := visitOf(n.Desc)
	if _, ok := w.seen[v]; ok {
		return true
	}
	if len(w.seen) == maxNodes {
		w.yield(n, w.fail(n, fmt.Errorf("%w: more than %d blobs", ErrInvalid, maxNodes)))
		return false
	}
	w.seen[v] = struct{}{}
	if err := w.ctx.Err(); err != nil {
		w.yield(n, context.Cause(w.ctx))
		return false
	}
	if !document || w.opts.indexesOnly && !IsIndex(n.Desc.MediaType) {
		return w.opts.DocumentsOnly && !document || w.yield(n, nil)
	}
	return w.document(n, read)
}

func (w *walker) document(n Node, read func() (*Document, error)) bool {
	if len(n.Parents) >= w.opts.MaxDepth {
		return w.yield(n, w.fail(n, fmt.Errorf("%w: nested more than %d deep", ErrInvalid, w.opts.MaxDepth))) && w.opts.KeepGoing
	}
	if w.documents == w.opts.MaxDocuments {
		w.yield(n, w.fail(n, fmt.Errorf("%w: more than %d manifests", ErrInvalid, w.opts.MaxDocuments)))
		return false
	}
	w.documents++
	doc, err := read()
	if err != nil {
		if errors.Is(err, ErrNotFound) && (n.Role == RoleSubject || w.opts.Sparse && n.Role == RoleEntry && n.Parents != nil) {
			n.Absent = true
			return w.yield(n, nil)
		}
		return w.yield(n, w.fail(n, err)) && w.opts.KeepGoing
	}
	n.Document = doc
	if !w.opts.ChildrenFirst && !w.yield(n, nil) {
		return false
	}
	if w.below(n) {
		return !w.opts.ChildrenFirst || w.yield(n, nil)
	}
	return false
}

func (w *walker) below(n Node) bool {
	doc := n.Document
	parents := append(slices.Clip(n.Parents), n.Desc)
	if doc.Config != nil && !w.children(parents, []ocispec.Descriptor{*doc.Config}, RoleConfig) {
		return false
	}
	if !w.children(parents, doc.Layers, RoleLayer) || !w.children(parents, doc.Manifests, RoleEntry) {
		return false
	}
	if doc.Subject != nil && !w.opts.NoSubjects {
		return w.children(parents, []ocispec.Descriptor{*doc.Subject}, RoleSubject)
	}
	return true
}

// fail names the node and, for one below the roots, the way to it.
func (w *walker) fail(n Node, err error) error {
	if err == nil {
		return nil
	}
	if len(n.Parents) == 0 {
		return fmt.Errorf("%s: %s %s: %w", w.src, n.Role, n.Desc.Digest, err)
	}
	var chain strings.Builder
	for i, p := range n.Parents {
		if i > 0 {
			chain.WriteString(" > ")
		}
		chain.WriteString(short(p.Digest))
		if i == 3 && len(n.Parents) > 5 {
			fmt.Fprintf(&chain, " > (%d more)", len(n.Parents)-4)
			break
		}
	}
	return fmt.Errorf("%s: %s %s (in %s): %w", w.src, n.Role, n.Desc.Digest, chain.String(), err)
}

// short cuts a digest to what [Selector] takes as a prefix.
func short(d digest.Digest) string {
	s := string(d)
	if i := strings.IndexByte(s, ':'); i >= 0 && len(s) > i+13 {
		return s[:i+13]
	}
	return s
}
