package main

import (
	"context"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
)

// An editResult is what an edit deep inside a layout did to one document.
type editResult struct {
	Action       string        `json:"action" doc:"changed; annotated (an entry, or index.json); attached (a new referrer); moved (a referrer, to what stands there now) or stale (a referrer of what was replaced)"`
	Kind         string        `json:"kind" doc:"index, manifest or index.json"`
	Old          digest.Digest `json:"old,omitempty" doc:"the digest of what was replaced"`
	Digest       digest.Digest `json:"digest,omitempty" doc:"the digest of the document"`
	MediaType    string        `json:"mediaType,omitempty" doc:"its media type"`
	ArtifactType string        `json:"artifactType,omitempty" doc:"its artifact type"`
	Size         int64         `json:"size,omitempty" doc:"its size in bytes, without what it names"`
	RefNames     []string      `json:"refNames,omitempty" doc:"the ref names that name it"`
	Subject      digest.Digest `json:"subject,omitempty" doc:"what a referrer refers to"`
	By           string        `json:"by,omitempty" doc:"how a referrer does so: by its subject, refName or annotation"`
}

// newEditResults tells what edit has done, once tx has no more to do.
func newEditResults(tx *layout.Tx, edit *layout.Edit) []editResult {
	var results []editResult
	for _, c := range edit.Changes {
		r := newEditResult("changed", c.New)
		r.Old = c.Old.Digest
		for _, entry := range tx.Index().Entries() {
			if name := layout.RefName(entry); entry.Digest == c.New.Digest && name != "" {
				r.RefNames = append(r.RefNames, name)
			}
		}
		slices.Sort(r.RefNames)
		results = append(results, r)
	}
	for _, ref := range edit.Moved {
		results = append(results, newReferrerEdit("moved", ref))
	}
	for _, ref := range edit.Stale {
		results = append(results, newReferrerEdit("stale", ref))
	}
	return results
}

func newEditResult(action string, desc ocispec.Descriptor) editResult {
	r := editResult{
		Action: action, Kind: "manifest", Digest: desc.Digest, MediaType: desc.MediaType, ArtifactType: desc.ArtifactType, Size: desc.Size,
	}
	if layout.IsIndex(desc.MediaType) {
		r.Kind = "index"
	}
	return r
}

func newReferrerEdit(action string, ref layout.Referrer) editResult {
	r := newEditResult(action, ref.Desc)
	r.Subject, r.By = ref.Subject, string(ref.By)
	if name := layout.RefName(ref.Desc); name != "" {
		r.RefNames = []string{name}
	}
	return r
}

// confirmEdit prints what an edit has done, and warns of referrers that say
// nothing of what now stands there.
func (e *env) confirmEdit(results []editResult) error {
	stale, moved := 0, 0
	for _, r := range results {
		line := r.Action + " " + r.Kind
		if r.ArtifactType != "" && r.Subject != "" {
			line = r.Action + " " + r.ArtifactType
		}
		if r.Old != "" {
			line += " " + string(r.Old) + " ->"
		}
		if r.Digest != "" {
			line += " " + string(r.Digest)
		}
		for _, name := range r.RefNames {
			line += " " + name
		}
		if r.Subject != "" {
			line += " subject " + string(r.Subject)
		}
		switch r.Action {
		case "stale":
			stale++
		case "moved":
			moved++
		}
		if err := e.confirm(r, "%s", line); err != nil {
			return err
		}
	}
	switch {
	case stale > 0:
		e.log.Warn("what was replaced is still the subject of "+plural(stale, "referrer")+
			"; signatures over it do not hold for what stands there now, and --move-referrers makes copies of the others", "stale", stale)
	case moved > 0:
		e.log.Warn("signatures over what was replaced do not hold for what stands there now, also those that were moved: sign anew", "moved", moved)
	}
	return nil
}

func moveReferrersFlag(to *bool) cli.Flag {
	return &cli.BoolFlag{Name: "move-referrers", Usage: "put copies of what refers to a replaced document in its place, which refer to the new one", Destination: to}
}

const editHelp = "The digest of the manifest changes with that. Every index that leads to it, at any depth, and every ref name " +
	"follow in the same transaction; all else keeps its bytes. Printed are the old and the new digest of every document that changed.\n\n" +
	"A referrer whose subject was replaced is reported as stale. With --move-referrers a copy that refers to the new digest " +
	"takes its place, and ref names as cosign writes them get the new digest. A signature over the old digest is no longer valid in either case."

// A manifestTarget is how a user names one manifest of a layout: by REF, and
// flags that select below it.
type manifestTarget struct {
	target
	sel   layout.Selector
	given bool // any of the flags
}

func (s *selectFlags) target(c *cli.Context, operand string) (t manifestTarget, err error) {
	if operand != "" {
		if t.refName, t.digest, err = parseTarget(c, operand); err != nil {
			return t, err
		}
	}
	t.sel, err = s.selector(c)
	t.given = s.given(c)
	return t, err
}

// manifest returns the one manifest.
func (t manifestTarget) manifest(ctx context.Context, src layout.Source) (layout.Match, error) {
	roots, err := layout.Resolve(ctx, src, t.refName, t.digest)
	if err != nil {
		return layout.Match{}, err
	}
	return layout.SelectOne(ctx, src, roots, t.sel)
}

// document returns what REF itself names, which may be an index, unless flags
// select a manifest below it.
func (t manifestTarget) document(ctx context.Context, src layout.Source) (ocispec.Descriptor, error) {
	if t.given {
		m, err := t.manifest(ctx, src)
		return m.Desc, err
	}
	return layout.ResolveOne(ctx, src, t.refName, t.digest)
}

// editManifest runs one transaction that edits the manifest which t names.
func (t manifestTarget) editManifest(ctx context.Context, s *layout.Stage, move bool, fn func(m layout.Match, x *layout.Manifest) error) (results []editResult, err error) {
	err = s.Update(ctx, func(tx *layout.Tx) error {
		m, err := t.manifest(ctx, tx.Source())
		if err != nil {
			return err
		}
		edit, err := tx.EditManifest(ctx, m.Desc.Digest, &layout.EditOptions{MoveReferrers: move}, func(x *layout.Manifest) error { return fn(m, x) })
		if err != nil {
			return err
		}
		results = newEditResults(tx, edit)
		return nil
	})
	return results, err
}
