package sync

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/sync/internal/registry"
)

// ReferrerTargets returns what has to be pushed with targets so that nothing
// that refers to them stays behind, to what they name, or to one of the
// referrers: see [layout.ReferrersBelow]. Referrers are pushed by digest, to
// where the targets go; those which a ref name made of the digest names, as
// cosign writes them, get that tag, and [Push] moves such tags before all
// others.
func ReferrerTargets(ctx context.Context, src layout.Source, targets []Target) ([]Target, error) {
	type place struct {
		path, tag string
		digest    digest.Digest
	}
	have := map[place]bool{}
	roots := map[string][]ocispec.Descriptor{} // by path
	for _, t := range targets {
		roots[t.Path] = append(roots[t.Path], t.Desc)
		have[place{t.Path, t.Tag, t.Desc.Digest}] = true
	}
	var more []Target
	for _, path := range slices.Sorted(maps.Keys(roots)) {
		found, err := layout.ReferrersBelow(ctx, src, roots[path])
		if err != nil {
			return nil, err
		}
		for _, r := range found {
			t := Target{Desc: r.Desc, RefName: layout.RefName(r.Desc), Path: path}
			if t.RefName != "" {
				t.Tag = tagOf(t.RefName)
			}
			if !have[place{path, t.Tag, t.Desc.Digest}] {
				more = append(more, t)
			}
		}
	}
	return more, checkTargets(src, slices.Concat(targets, more))
}

// Excludes tells whether the choice leaves out what has this ref name.
func (c *Choice) Excludes(refName string) bool {
	return c != nil && slices.ContainsFunc(c.Exclude, func(g string) bool { return fitsRefName(g, refName) })
}

// Referrers implements [layout.ReferrerLister]: the registry's own list, or
// that under the tag ALGORITHM-HEX where it keeps none (distribution-spec,
// "Referrers Tag Schema"), and the tags of cosign. An entry of such a list may
// be of something that is gone.
func (r *Remote) Referrers(ctx context.Context, d digest.Digest) ([]layout.Referrer, error) {
	if _, err := layout.ParseDigest(string(d)); err != nil {
		return nil, err
	}
	tags, err := r.knownTags(ctx)
	if err != nil {
		return nil, err
	}
	var list []ocispec.Descriptor
	err = errors.ErrUnsupported
	if !r.unlisted.Load() {
		list, err = r.client.Referrers(ctx, d)
	}
	if errors.Is(err, errors.ErrUnsupported) {
		r.unlisted.Store(true)
		list, err = r.listed(ctx, tags, d)
	}
	if err != nil {
		return nil, err
	}
	var found []layout.Referrer
	for _, desc := range list {
		if !registry.IsDocument(desc) {
			return nil, fmt.Errorf("%w list of referrers of %s: %s is a %.100q", layout.ErrInvalid, d, desc.Digest, desc.MediaType)
		}
		delete(desc.Annotations, ocispec.AnnotationRefName)
		if !slices.ContainsFunc(found, func(r layout.Referrer) bool { return r.Desc.Digest == desc.Digest }) {
			found = append(found, layout.Referrer{Desc: desc, Subject: d, By: layout.BySubject})
		}
	}
	for _, suffix := range []string{"sig", "att", "sbom"} {
		tag := strings.Replace(string(d), ":", "-", 1) + "." + suffix
		desc, ok, err := tags.resolve(ctx, tag)
		if err != nil {
			return nil, err
		}
		if ok {
			found = append(found, layout.Referrer{Desc: named(desc, tag), Subject: d, By: layout.ByRefName})
		}
	}
	return found, nil
}

// listed reads the list of referrers that clients keep under a tag.
func (r *Remote) listed(ctx context.Context, tags *tagSet, d digest.Digest) ([]ocispec.Descriptor, error) {
	tag := referrersTag(d)
	desc, ok, err := tags.resolve(ctx, tag)
	if err != nil || !ok {
		return nil, err
	}
	if !layout.IsIndex(desc.MediaType) {
		return nil, fmt.Errorf("%s:%s: %w list of referrers: a %.100q", r, tag, layout.ErrInvalid, desc.MediaType)
	}
	doc, err := layout.ReadDocument(ctx, r, desc)
	if err != nil {
		return nil, err
	}
	return doc.Manifests, nil
}

// knownTags asks for the tags of the repository, once.
func (r *Remote) knownTags(ctx context.Context) (*tagSet, error) {
	r.mu.Lock()
	tags := r.tags
	r.mu.Unlock()
	if tags != nil {
		return tags, nil
	}
	tags, err := r.tagSet(ctx)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tags = tags
	return tags, nil
}
