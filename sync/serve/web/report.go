package web

import (
	"context"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/show"
)

// ReportOptions are those of [WriteReport].
type ReportOptions struct {
	Knowledge
	// Name is what the source is called.
	Name string
	// Roots are the entries of index.json that are wanted; nil means all.
	Roots []ocispec.Descriptor
}

type reportView struct {
	*overviewView
	Sections []*manifestView
}

// WriteReport writes the overview of src, and what its manifests have, as one file
// of HTML that needs no other, no server and no network. The same content gives
// the same bytes. What cannot be read stands in the report as such; an error
// means that src itself could not be read, or w not written.
func WriteReport(ctx context.Context, w io.Writer, src layout.Source, opts ReportOptions) error {
	s, err := opts.build(ctx, src, nil)
	if err != nil {
		return err
	}
	if opts.Roots != nil {
		s = s.only(opts.Roots)
	}
	f := frame{Title: show.Clean(opts.Name), Static: true, Repo: show.Clean(opts.Name)}
	f.links = links{static: true, has: func(d string) bool { return s.byDigest[digest.Digest(d)] != nil }}
	v := &reportView{overviewView: s.overview(f, query{Version: "*"})}
	for _, d := range s.documents {
		m, err := s.manifest(ctx, src, f, d)
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		for _, root := range s.roots {
			if root != d {
				continue
			}
			if m.Answers, err = s.answers(ctx, src, opts.Consumers, f.links, d); err != nil {
				return fmt.Errorf("%s: %w", d.desc.Digest, err)
			}
		}
		v.Sections = append(v.Sections, m)
	}
	return writeStatic(w, "report", v)
}

// only is s without what roots and what refers to it do not reach.
func (s *snapshot) only(roots []ocispec.Descriptor) *snapshot {
	keep := map[*document]bool{}
	var take func(d *document)
	take = func(d *document) {
		s.below(d, func(d *document) {
			if keep[d] {
				return
			}
			keep[d] = true
			for _, r := range d.referrers {
				take(r)
			}
		})
	}
	for _, desc := range roots {
		take(s.byDigest[desc.Digest])
	}
	o := &snapshot{id: s.id, byDigest: map[digest.Digest]*document{}, uses: map[digest.Digest]int32{}, truncated: s.truncated, byFinding: s.byFinding}
	for _, d := range s.documents {
		if keep[d] {
			d.size, d.own, d.parents = 0, 0, nil
			o.add(d)
		}
	}
	for _, d := range s.roots {
		if keep[d] {
			o.roots = append(o.roots, d)
		}
	}
	if len(o.roots) == 0 { // a document below the roots is the root of what is wanted
		for _, desc := range roots {
			if d := o.byDigest[desc.Digest]; d != nil {
				o.roots = append(o.roots, d)
			}
		}
	}
	for _, f := range s.findings {
		if len(f.Path) > 0 && o.byDigest[f.Path[len(f.Path)-1]] != nil {
			o.findings = append(o.findings, f)
		}
	}
	o.count()
	return o
}
