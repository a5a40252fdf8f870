package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
)

// collect finds the parts that are to be published, and the tags that are to get
// tombstones.
func (p *publisher) collect(ctx context.Context) ([]*ownTag, []layoutsync.Target, error) {
	byTag := map[string]*ownTag{}
	targets := []layoutsync.Target{} // not nil: that would be all of the source
	var faults []string
	for _, root := range p.opts.Roots {
		err := p.leaves(ctx, root, 0, func(entry ocispec.Descriptor, doc *layout.Document) error {
			part, ok, err := p.part(ctx, p.src, entry, doc)
			switch {
			case err != nil:
				return err
			case !ok:
				faults = append(faults, fmt.Sprintf("%s %s", entry.Digest, describe(entry)))
				return nil
			}
			if have := byTag[part.Tag]; have != nil {
				if have.desc.Digest == entry.Digest {
					return nil
				}
				return &layout.AmbiguousError{
					What:       fmt.Sprintf("publish %s: %s", p.src, part.Tag),
					Candidates: []layout.Match{{Desc: have.desc}, {Desc: entry}},
				}
			}
			p.warnLost(entry, part)
			byTag[part.Tag] = &ownTag{tag: part.Tag, key: layout.EntryKey(part.Entry), desc: plain(entry), state: layoutsync.TagPending}
			targets = append(targets, layoutsync.Target{Desc: plain(entry)})
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
	}
	if len(faults) > 0 {
		return nil, nil, layout.WithHint(
			fmt.Errorf("publish %s: %w: no parts of version %s:\n%s", p.src, layout.ErrInvalid, p.opts.Version, strings.Join(faults, "\n")),
			"publish takes flavours of that version and container images; sync takes anything")
	}
	for _, name := range p.opts.Remove {
		part, ok := p.opts.Scheme.Find(p.opts.Version, name)
		switch {
		case ok:
		case p.candidate(name):
			part = Part{Tag: name} // a tag that was adopted, or named by other rules
		default:
			return nil, nil, fmt.Errorf("publish: %w: %q is no name of a part of %s", layout.ErrInvalid, name, p.opts.Version)
		}
		if have := byTag[part.Tag]; have != nil && !have.tombstone {
			return nil, nil, fmt.Errorf("publish: %w: %s is to be published and removed", layout.ErrConflict, name)
		}
		o := &ownTag{tag: part.Tag, tombstone: true, state: layoutsync.TagPending}
		if ok {
			o.key = layout.EntryKey(part.Entry)
		}
		o.raw = p.tombstone(o.key)
		o.desc = describeManifest(o.raw)
		byTag[part.Tag] = o
	}
	own := make([]*ownTag, 0, len(byTag))
	for _, o := range byTag {
		own = append(own, o)
	}
	slices.SortFunc(own, func(a, b *ownTag) int { return strings.Compare(a.tag, b.tag) })
	return own, targets, nil
}

// leaves calls fn for the manifests that root leads to through indexes.
func (p *publisher) leaves(ctx context.Context, root ocispec.Descriptor, depth int, fn func(ocispec.Descriptor, *layout.Document) error) error {
	if depth > layout.DefaultMaxDepth {
		return fmt.Errorf("%s: %w: %s is nested too deep", p.src, layout.ErrInvalid, root.Digest)
	}
	doc, err := layout.ReadDocument(ctx, p.src, root)
	if err != nil {
		return fmt.Errorf("%s: %w", p.src, err)
	}
	if !doc.IsIndex {
		return fn(root, doc)
	}
	for _, entry := range doc.Manifests {
		if err := p.leaves(ctx, entry, depth+1, fn); err != nil {
			return err
		}
	}
	return nil
}

// part asks the scheme about a manifest, of which nothing counts but its content.
func (p *publisher) part(ctx context.Context, src layout.Source, desc ocispec.Descriptor, doc *layout.Document) (Part, bool, error) {
	desc = plain(desc)
	platform, err := layout.ImagePlatform(ctx, src, desc, doc)
	if err != nil {
		if !errors.Is(err, layout.ErrInvalid) {
			return Part{}, false, err
		}
		platform = nil // a config that cannot be read says nothing
	}
	part, ok := p.opts.Scheme.Part(p.opts.Version, desc, doc, platform)
	return part, ok, nil
}

// warnLost tells of annotations that only the entry of the source has: the index
// is made of manifests alone.
func (p *publisher) warnLost(entry ocispec.Descriptor, part Part) {
	var lost []string
	for name, value := range entry.Annotations {
		if name != ocispec.AnnotationRefName && part.Entry.Annotations[name] != value {
			lost = append(lost, name)
		}
	}
	if len(lost) > 0 {
		slices.Sort(lost)
		p.log().Warn("the index will not have these annotations of the entry, which the manifest lacks",
			"tag", part.Tag, "annotations", strings.Join(lost, ","))
	}
}

// plain returns the descriptor without what the index above says of it.
func plain(desc ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}
}

// describe tells a person what an entry is.
func describe(desc ocispec.Descriptor) string {
	switch {
	case desc.Annotations["cname"] != "":
		return fmt.Sprintf("cname=%q", desc.Annotations["cname"])
	case desc.Platform != nil:
		return layout.FormatPlatform(*desc.Platform)
	case desc.ArtifactType != "":
		return desc.ArtifactType
	}
	return desc.MediaType
}

// candidate tells whether a tag may be that of a part, by its name alone.
func (p *publisher) candidate(tag string) bool {
	return strings.HasPrefix(tag, p.opts.Version+"-") || strings.HasSuffix(tag, "-"+p.opts.Version)
}
