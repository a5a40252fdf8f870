package main

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/show"
)

func newLsCommand(e *env) *cli.Command {
	var from sourceFlags
	return &cli.Command{
		Name: "ls", Usage: "list what a source names", ArgsUsage: "SOURCE",
		Description: "One line for each entry of index.json: its ref name, what it is, its platforms, " +
			"the size of all its content together, and its digest. With a ref name or digest, only that.\n\n" + sourceHelp,
		Flags: from.flags(),
		Action: func(c *cli.Context) error {
			return from.with(c, e, c.Args().First(), func(src layout.Source, ref layout.Reference) error {
				return runLs(c.Context, e, src, ref)
			})
		},
	}
}

type lsResult struct {
	RefName      string        `json:"refName,omitempty" doc:"the ref name"`
	Digest       digest.Digest `json:"digest" doc:"the digest of the index or manifest"`
	MediaType    string        `json:"mediaType" doc:"its media type"`
	Kind         string        `json:"kind" doc:"index, image, artifact, blob (of no known type), missing or damaged"`
	ArtifactType string        `json:"artifactType,omitempty" doc:"its artifact type"`
	Platforms    []string      `json:"platforms,omitempty" doc:"the platforms of it, or of its manifests, in listed order"`
	Manifests    int           `json:"manifests" doc:"how many manifests it is or has"`
	Size         int64         `json:"size" doc:"bytes of all its content together, each blob counted once"`
}

func (r lsResult) columns() []string {
	return []string{r.RefName, r.Kind, joinSome(r.Platforms, 3), size(r.Size), string(r.Digest)}
}

// joinSome joins at most n of the names.
func joinSome(names []string, n int) string {
	if len(names) > n {
		return strings.Join(names[:n], ",") + ",..."
	}
	return strings.Join(names, ",")
}

func runLs(ctx context.Context, e *env, src layout.Source, ref layout.Reference) error {
	descs, err := layout.Resolve(ctx, src, ref.RefName, ref.Digest)
	if err != nil {
		return err
	}
	rows := make([]lsResult, len(descs))
	errs := make([]error, len(descs))
	var next atomic.Int64
	var g sync.WaitGroup
	for range min(2*runtime.GOMAXPROCS(0), len(descs)) {
		g.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(descs)); i = next.Add(1) - 1 {
				// A damaged entry must not hide the others.
				rows[i], errs[i] = lsEntry(ctx, src, descs[i])
			}
		})
	}
	g.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := table(e, []string{"REF NAME", "KIND", "PLATFORMS", "SIZE", "DIGEST"}, rows); err != nil {
		return err
	}
	return errors.Join(errs...)
}

func lsEntry(ctx context.Context, src layout.Source, desc ocispec.Descriptor) (lsResult, error) {
	r := lsResult{
		RefName: layout.RefName(desc), Digest: desc.Digest, MediaType: desc.MediaType,
		Kind: "blob", ArtifactType: desc.ArtifactType,
	}
	seen := map[digest.Digest]bool{}
	for n, err := range layout.Walk(ctx, src, []ocispec.Descriptor{desc}, &layout.WalkOptions{Sparse: true, NoSubjects: true}) {
		if err != nil {
			r.Kind = "damaged"
			if errors.Is(err, layout.ErrNotFound) {
				r.Kind = "missing"
			}
			return r, err
		}
		if !seen[n.Desc.Digest] && !n.Absent {
			seen[n.Desc.Digest] = true
			r.Size += n.Desc.Size
		}
		if n.Document == nil {
			continue
		}
		if len(n.Parents) == 0 {
			r.Kind = kind(n.Document)
			if r.ArtifactType == "" {
				r.ArtifactType = n.Document.ArtifactType
			}
		}
		if n.Document.IsIndex {
			continue
		}
		r.Manifests++
		if layout.IsAttestation(n.Desc) {
			continue
		}
		p, err := layout.ImagePlatform(ctx, src, n.Desc, n.Document)
		if err != nil {
			return r, err
		}
		if p != nil {
			if s := layout.FormatPlatform(*p); !slices.Contains(r.Platforms, s) {
				r.Platforms = append(r.Platforms, s)
			}
		}
	}
	return r, nil
}

// kind is [show.Kind].
func kind(doc *layout.Document) string { return show.Kind(doc) }
