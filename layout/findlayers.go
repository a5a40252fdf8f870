package layout

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A LayerMatch is a manifest, and the layers of it that were chosen.
type LayerMatch struct {
	Match
	Layers []Layer
}

// A LayerSearch is what [FindLayers] has found.
type LayerSearch struct {
	Matches []LayerMatch // depth first in listed order

	what string // what was asked for
	seen survey
	miss error // of the one manifest that was chosen and whose layers were not
}

// FindLayers searches the manifests below roots that sel chooses for layers that
// layers chooses. A manifest without such a layer is no match, and neither is
// one whose layer with the Number that was asked for does not fit the rest.
// Each manifest comes once, its layers in order, equal ones too: two layers may
// share their bytes and differ in type.
//
// Nothing found is no error here; see [LayerSearch.All] and [LayerSearch.One].
func FindLayers(ctx context.Context, src Source, roots []ocispec.Descriptor, sel Selector, layers LayerSelector) (*LayerSearch, error) {
	if err := layers.check(); err != nil {
		return nil, err
	}
	s := &LayerSearch{what: layers.String()}
	if text := sel.String(); text != "manifest" {
		s.what += " in a " + text
	}
	s.what = src.String() + ": " + s.what
	chosen := 0
	err := sel.search(ctx, src, roots, &s.seen, func(m Match) error {
		chosen++
		found, err := layers.Layers(m.Document)
		switch {
		case errors.Is(err, ErrNotFound):
			s.miss = err
		case err != nil:
			return err
		}
		for _, desc := range m.Document.Layers {
			s.seen.layers.add(desc.MediaType)
		}
		if len(found) > 0 {
			s.Matches = append(s.Matches, LayerMatch{m, found})
		}
		return nil
	})
	if chosen > 1 {
		s.miss = nil
	}
	return s, err
}

// All returns every match; none is [ErrNotFound], and the error says what there
// is.
func (s *LayerSearch) All() ([]LayerMatch, error) {
	if len(s.Matches) > 0 {
		return s.Matches, nil
	}
	err := s.miss
	if err == nil {
		err = fmt.Errorf("%s: %w%s", s.what, ErrNotFound, s.seen.lines())
	}
	if len(s.seen.attestations) > 0 {
		err = WithHint(err, "--attestations include searches attestations, too")
	}
	return nil, err
}

// One returns the match where exactly one is wanted; more are an
// [AmbiguousError], whose candidates are named as parts of ref.
func (s *LayerSearch) One(ctx context.Context, src Source, ref Reference) (LayerMatch, error) {
	all, err := s.All()
	if err != nil {
		return LayerMatch{}, err
	}
	if len(all) == 1 {
		return all[0], nil
	}
	e := &AmbiguousError{What: s.what, Source: &ref}
	for _, m := range all {
		if m.Desc.Platform == nil {
			// Only a name for people: what cannot be read is not told.
			m.Desc.Platform, _ = ImagePlatform(ctx, src, m.Desc, m.Document)
		}
		e.Candidates = append(e.Candidates, m.Match)
	}
	return LayerMatch{}, WithHint(e, "give one of these in place of the source, or say more about it")
}

// One returns the chosen layer where exactly one is wanted; more are an
// [AmbiguousLayersError]. Descriptors that are the same in all parts count once.
func (m LayerMatch) One() (Layer, error) {
	var distinct []Layer
	for _, l := range m.Layers {
		if !slices.ContainsFunc(distinct, func(have Layer) bool { return reflect.DeepEqual(have.Desc, l.Desc) }) {
			distinct = append(distinct, l)
		}
	}
	if len(distinct) == 1 {
		return distinct[0], nil
	}
	return Layer{}, &AmbiguousLayersError{Manifest: m.Desc, Candidates: distinct}
}

// An AmbiguousLayersError lists the layers of a manifest of which one is wanted.
// It is an [ErrAmbiguous].
type AmbiguousLayersError struct {
	Manifest   ocispec.Descriptor
	Candidates []Layer
}

func (e *AmbiguousLayersError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "manifest %s: %v: %d layers", e.Manifest.Digest, ErrAmbiguous, len(e.Candidates))
	for _, l := range e.Candidates {
		fmt.Fprintf(&b, "\n  --%s", l)
	}
	return b.String()
}

// Is tells errors.Is that e is an [ErrAmbiguous].
func (e *AmbiguousLayersError) Is(target error) bool { return target == ErrAmbiguous }
