package main

import (
	"context"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
)

func newReferrersCommand(e *env) *cli.Command {
	var from sourceFlags
	var sel selectFlags
	return &cli.Command{
		Name: "referrers", Usage: "list signatures, attestations and SBOMs", ArgsUsage: "SOURCE [REF]",
		Description: "Shows what refers to what REF, @DIGEST or REF@DIGEST names, which SOURCE may name too, and to the manifests and indexes below it, " +
			"or to the one manifest that the flags select: a tree, for referrers have referrers.\n\n" +
			"Those are documents with it as their subject, anywhere in SOURCE; what cosign stores under ref names like sha256-HEX.sig; " +
			"entries of the list sha256-HEX of a registry that keeps no other; attestations of BuildKit.\n\n" + sourceHelp,
		Flags:  append(sel.flags(), from.flags()...),
		Action: func(c *cli.Context) error { return runReferrers(c, e, &from, &sel) },
	}
}

type referrerResult struct {
	Depth        int               `json:"depth" doc:"0 for what is referred to"`
	Kind         string            `json:"kind" doc:"index, image or artifact of depth 0; else referrer"`
	RefName      string            `json:"refName,omitempty" doc:"the ref name of its entry"`
	Digest       digest.Digest     `json:"digest" doc:"its digest"`
	MediaType    string            `json:"mediaType" doc:"its media type"`
	ArtifactType string            `json:"artifactType,omitempty" doc:"its artifact type"`
	Platform     string            `json:"platform,omitempty" doc:"its platform, as the entry says"`
	Size         int64             `json:"size" doc:"its size in bytes, without what it names"`
	Annotations  map[string]string `json:"annotations,omitempty" doc:"the annotations of the descriptor"`
	Subject      digest.Digest     `json:"subject,omitempty" doc:"what it refers to"`
	By           string            `json:"by,omitempty" doc:"how it does so: by its subject, refName or annotation"`
	Repeated     bool              `json:"repeated,omitempty" doc:"it was shown before; what refers to it is not shown again"`
}

func runReferrers(c *cli.Context, e *env, from *sourceFlags, flags *selectFlags) error {
	ctx := c.Context
	t, err := flags.target(c, c.Args().Get(1))
	if err != nil {
		return err
	}
	return from.with(c, e, c.Args().First(), func(src layout.Source, ref layout.Reference) error {
		if t.refName == "" && t.digest == "" {
			t.refName, t.digest = ref.RefName, ref.Digest
		} else if ref.RefName != "" || ref.Digest != "" {
			return usagef(c, "SOURCE and REF both name something in it")
		}
		roots, err := layout.Resolve(ctx, src, t.refName, t.digest)
		if err == nil && t.given {
			var m layout.Match
			m, err = layout.SelectOne(ctx, src, roots, t.sel)
			roots = []ocispec.Descriptor{m.Desc}
		}
		if err != nil {
			return err
		}
		tree := referrerTree{env: e, set: layout.NewReferrerSet(src), shown: map[digest.Digest]bool{}}
		return tree.below(ctx, src, roots)
	})
}

type referrerTree struct {
	env   *env
	set   *layout.ReferrerSet
	shown map[digest.Digest]bool // referrers
}

// below shows every document that roots reach and something refers to; a
// referrer only below what it refers to, if that is shown.
func (t *referrerTree) below(ctx context.Context, src layout.Source, roots []ocispec.Descriptor) error {
	var nodes []layout.Node
	reached := map[digest.Digest]bool{}
	for n, err := range layout.Walk(ctx, src, roots, &layout.WalkOptions{NoSubjects: true, DocumentsOnly: true, Sparse: true}) {
		if err != nil {
			return err
		}
		if n.Document != nil {
			nodes = append(nodes, n)
			reached[n.Desc.Digest] = true
		}
	}
	for _, n := range nodes {
		if subject := n.Document.Subject; subject != nil && reached[subject.Digest] {
			continue
		}
		found, err := t.set.Of(ctx, n.Desc.Digest)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			continue
		}
		r := newReferrerResult(n.Desc)
		r.Kind = kind(n.Document)
		if err := t.env.emit(r, "%s", r.line()); err != nil {
			return err
		}
		if err := t.show(ctx, found, "", 1); err != nil {
			return err
		}
	}
	return nil
}

func (t *referrerTree) show(ctx context.Context, found []layout.Referrer, indent string, depth int) error {
	for i, ref := range found {
		branch, below := "├── ", "│   "
		if i == len(found)-1 {
			branch, below = "└── ", "    "
		}
		r := newReferrerResult(ref.Desc)
		r.Depth, r.Kind, r.Subject, r.By = depth, "referrer", ref.Subject, string(ref.By)
		next, err := t.set.Of(ctx, ref.Desc.Digest)
		if err != nil {
			return err
		}
		r.Repeated = t.shown[ref.Desc.Digest]
		t.shown[ref.Desc.Digest] = true
		if err := t.env.emit(r, "%s%s%s", indent, branch, r.line()); err != nil {
			return err
		}
		if r.Repeated {
			continue
		}
		if err := t.show(ctx, next, indent+below, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func newReferrerResult(desc ocispec.Descriptor) referrerResult {
	r := referrerResult{
		RefName: layout.RefName(desc), Digest: desc.Digest, MediaType: desc.MediaType,
		ArtifactType: desc.ArtifactType, Size: desc.Size, Annotations: desc.Annotations,
	}
	if desc.Platform != nil {
		r.Platform = layout.FormatPlatform(*desc.Platform)
	}
	return r
}

// line is the result for people, as tree shows it.
func (r referrerResult) line() string {
	tree := treeResult{
		Kind: r.Kind, RefName: r.RefName, Digest: r.Digest, MediaType: r.MediaType, ArtifactType: r.ArtifactType,
		Platform: r.Platform, Size: r.Size, Annotations: r.Annotations, Repeated: r.Repeated,
	}
	if r.Depth > 0 && r.ArtifactType == "" {
		tree.ArtifactType = r.MediaType
	}
	return tree.line()
}
