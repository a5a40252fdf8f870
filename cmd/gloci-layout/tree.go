package main

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
)

func newTreeCommand(e *env) *cli.Command {
	var from sourceFlags
	return &cli.Command{
		Name: "tree", Usage: "show how the content of a source hangs together", ArgsUsage: "SOURCE",
		Description: "Indexes, manifests, configs and layers, each below what names it. " +
			"What was shown already is not shown again with all that it has.\n\n" + sourceHelp,
		Flags: from.flags(),
		Action: func(c *cli.Context) error {
			return from.with(c, e, c.Args().First(), func(src layout.Source, ref layout.Reference) error {
				return runTree(c.Context, e, src, ref)
			})
		},
	}
}

type treeResult struct {
	Depth        int               `json:"depth" doc:"0 for an entry of index.json"`
	Parent       digest.Digest     `json:"parent,omitempty" doc:"the digest of what names it"`
	Kind         string            `json:"kind" doc:"index, image, artifact, config, layer, subject or blob"`
	RefName      string            `json:"refName,omitempty" doc:"the ref name"`
	Digest       digest.Digest     `json:"digest" doc:"its digest"`
	MediaType    string            `json:"mediaType" doc:"its media type"`
	ArtifactType string            `json:"artifactType,omitempty" doc:"its artifact type"`
	Platform     string            `json:"platform,omitempty" doc:"its platform, as the entry says"`
	Size         int64             `json:"size" doc:"its size in bytes, without what it names"`
	Annotations  map[string]string `json:"annotations,omitempty" doc:"the annotations of the descriptor"`
	Absent       bool              `json:"absent,omitempty" doc:"the source lacks it, which is allowed for a subject and in a sparse index"`
	Repeated     bool              `json:"repeated,omitempty" doc:"it was shown before; what it names is not shown again"`
}

func runTree(ctx context.Context, e *env, src layout.Source, ref layout.Reference) error {
	roots, err := layout.Resolve(ctx, src, ref.RefName, ref.Digest)
	if err != nil {
		return err
	}
	t := tree{env: e, docs: map[digest.Digest]*layout.Document{}, absent: map[digest.Digest]bool{}, shown: map[digest.Digest]bool{}}
	var errs []error
	for n, err := range layout.Walk(ctx, src, roots, &layout.WalkOptions{KeepGoing: true, Sparse: true}) {
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			errs = append(errs, err)
		}
		if n.Document != nil {
			t.docs[n.Desc.Digest] = n.Document
		}
		if n.Absent {
			t.absent[n.Desc.Digest] = true
		}
	}
	if !e.json {
		if err := e.emit(nil, "%s", src); err != nil {
			return err
		}
	}
	for i, desc := range roots {
		if err := t.node("", i == len(roots)-1, desc, layout.RoleEntry, "", 0); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}

type tree struct {
	env    *env
	docs   map[digest.Digest]*layout.Document
	absent map[digest.Digest]bool
	shown  map[digest.Digest]bool
}

type child struct {
	desc ocispec.Descriptor
	role layout.Role
}

func (t *tree) node(indent string, last bool, desc ocispec.Descriptor, role layout.Role, parent digest.Digest, depth int) error {
	doc := t.docs[desc.Digest]
	if role == layout.RoleConfig || role == layout.RoleLayer {
		doc = nil // a leaf here, though the same bytes may be a document elsewhere
	}
	r := newTreeResult(desc, role, doc)
	r.Depth, r.Parent, r.Absent = depth, parent, t.absent[desc.Digest]
	var children []child
	if doc != nil {
		r.Repeated = t.shown[desc.Digest]
		t.shown[desc.Digest] = true
		if !r.Repeated {
			children = childrenOf(doc)
		}
	}
	branch, below := "├── ", "│   "
	if last {
		branch, below = "└── ", "    "
	}
	if err := t.env.emit(r, "%s%s%s", indent, branch, r.line()); err != nil {
		return err
	}
	for i, c := range children {
		if err := t.node(indent+below, i == len(children)-1, c.desc, c.role, desc.Digest, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func childrenOf(doc *layout.Document) []child {
	var children []child
	if doc.Subject != nil {
		children = append(children, child{*doc.Subject, layout.RoleSubject})
	}
	if doc.Config != nil {
		children = append(children, child{*doc.Config, layout.RoleConfig})
	}
	for _, l := range doc.Layers {
		children = append(children, child{l, layout.RoleLayer})
	}
	for _, m := range doc.Manifests {
		children = append(children, child{m, layout.RoleEntry})
	}
	return children
}

func newTreeResult(desc ocispec.Descriptor, role layout.Role, doc *layout.Document) treeResult {
	r := treeResult{
		Kind: "blob", RefName: layout.RefName(desc), Digest: desc.Digest, MediaType: desc.MediaType,
		ArtifactType: desc.ArtifactType, Size: desc.Size, Annotations: desc.Annotations,
	}
	if desc.Platform != nil {
		r.Platform = layout.FormatPlatform(*desc.Platform)
	}
	if doc != nil {
		r.Kind = kind(doc)
		r.ArtifactType = cmp.Or(r.ArtifactType, doc.ArtifactType)
	}
	switch role {
	case layout.RoleConfig:
		r.Kind = "config"
	case layout.RoleLayer:
		r.Kind = "layer"
	case layout.RoleSubject:
		r.Kind = "subject"
	case layout.RoleEntry:
	}
	return r
}

// line is the result for people: what tells it from its neighbours, then the
// digest, ready to be pasted.
func (r treeResult) line() string {
	parts := []string{r.Kind}
	name := cmp.Or(r.Annotations["cname"], r.Annotations[ocispec.AnnotationTitle])
	for _, s := range []string{r.RefName, r.Platform, name, r.ArtifactType} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	if len(parts) == 1 && (r.Kind == "config" || r.Kind == "layer" || r.Kind == "blob") {
		parts = append(parts, r.MediaType)
	}
	parts = append(parts, string(r.Digest), size(r.Size))
	if r.Absent {
		parts = append(parts, "(absent)")
	}
	if r.Repeated {
		parts = append(parts, "(shown above)")
	}
	return strings.Join(parts, "  ")
}
