package recompress

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
)

// Options say what is to become of layers.
type Options struct {
	// Format and Level are what layers get; see [compress.NewWriter]. With a
	// level of zero, a layer that has the format already is kept.
	Format compress.Format
	Level  int
	// Layers chooses layers of a manifest; the zero value takes all.
	Layers layout.LayerSelector
	// OCITypes makes manifests of Docker manifests of OCI, and lists of Docker
	// that name them indexes. Without it they keep their media types, and zstd is
	// refused for them, of which Docker's manifests know nothing.
	OCITypes bool
	// MoveReferrers is that of [layout.EditOptions].
	MoveReferrers bool
	// Jobs is how many layers are compressed at once; 0 means one for each core,
	// at least 2 and at most 8.
	Jobs int
	// Progress is told of each layer; nil is silent.
	Progress func(layout.Event)
}

// A Layer is what has become of a layer of a manifest.
type Layer struct {
	Manifest digest.Digest // before
	Number   int           // counted from zero
	Old, New ocispec.Descriptor
	From     compress.Format
	// Kept says why the layer stays as it is; then New is Old. Rule is the name
	// of the rule of [Rules] that says so, or "".
	Kept, Rule string
	// Dropped are annotations that described the compressed bytes.
	Dropped []string
	// Estimated tells that the size of New is an estimate, and that nothing else
	// of it is known.
	Estimated bool
}

// A Result tells what was done.
type Result struct {
	Layers []Layer // of all chosen manifests, in their order
	Edit   layout.Edit
}

// Changed tells how many layers are other than before.
func (r *Result) Changed() int {
	n := 0
	for _, l := range r.Layers {
		if l.Kept == "" {
			n++
		}
	}
	return n
}

// A Choose returns the manifests whose layers are meant, in src.
type Choose func(ctx context.Context, src layout.Source) ([]layout.Match, error)

// Run recompresses the layers of the manifests that choose returns, and
// re-links all that leads to them, in one transaction of the layout of s. done,
// if it is not nil, is called at the end of it, inside.
//
// A level that the format has not is [compress.ErrUnsupported]. Where the
// content of a layer is not what its media type says, the error is
// [layout.ErrInvalid]; where it is not that of its descriptor, or an image's
// config has another diffID for it, [layout.ErrMismatch].
func Run(ctx context.Context, s *layout.Stage, choose Choose, opts Options, done func(tx *layout.Tx, r *Result) error) (*Result, error) {
	return runFrom(ctx, s, s, choose, opts, done)
}

// runFrom is Run where blobs come from src, and documents from s.
func runFrom(ctx context.Context, s *layout.Stage, src layout.Source, choose Choose, opts Options, done func(tx *layout.Tx, r *Result) error) (*Result, error) {
	r, err := newRun(src, opts)
	if err != nil {
		return nil, err
	}
	// What takes long is done before the layout is locked.
	plan, err := r.plan(ctx, s, choose)
	if err != nil {
		return nil, err
	}
	if err := r.convertAll(ctx, s, plan); err != nil {
		return nil, err
	}
	var result *Result
	err = s.Update(ctx, func(tx *layout.Tx) error {
		// It may have changed meanwhile; what is new is compressed now.
		plan, err := r.plan(ctx, tx.Source(), choose)
		if err != nil {
			return err
		}
		if err := r.convertAll(ctx, s, plan); err != nil {
			return err
		}
		if result, err = r.edit(ctx, tx, plan); err != nil || done == nil {
			return err
		}
		return done(tx, result)
	})
	return result, err
}

// Estimate tells what [Run] would do, from samples of the layers.
func Estimate(ctx context.Context, src layout.Source, choose Choose, opts Options) (*Result, error) {
	r, err := newRun(src, opts)
	if err != nil {
		return nil, err
	}
	plan, err := r.plan(ctx, src, choose)
	if err != nil {
		return nil, err
	}
	sizes := map[digest.Digest]int64{}
	result := &Result{}
	for _, m := range plan {
		for _, l := range m.layers {
			if l.Kept == "" {
				n, ok := sizes[l.Old.Digest]
				if !ok {
					if n, err = r.estimate(ctx, l.Old, l.From); err != nil {
						return nil, err
					}
					sizes[l.Old.Digest] = n
				}
				l.New.Digest, l.New.Size, l.Estimated = "", n, true
			}
			result.Layers = append(result.Layers, l)
		}
	}
	return result, nil
}

// A run is one call of Run.
type run struct {
	src  layout.Source
	opts Options

	mu   sync.Mutex
	done map[digest.Digest]content
}

func newRun(src layout.Source, opts Options) (*run, error) {
	w, err := compress.NewWriter(new(size), opts.Format, opts.Level)
	if err == nil {
		err = w.Close()
	}
	if opts.Jobs == 0 {
		opts.Jobs = min(max(runtime.GOMAXPROCS(0), 2), 8)
	}
	return &run{src: src, opts: opts, done: map[digest.Digest]content{}}, err
}

func (r *run) event(kind string, desc ocispec.Descriptor, n int64) {
	if r.opts.Progress != nil {
		r.opts.Progress(layout.Event{Kind: kind, Desc: desc, Bytes: n})
	}
}

// A manifest is one whose layers were looked at.
type manifest struct {
	match  layout.Match
	layers []Layer
}

// plan looks at the layers of the chosen manifests.
func (r *run) plan(ctx context.Context, src layout.Source, choose Choose) ([]manifest, error) {
	matches, err := choose(ctx, src)
	if err != nil {
		return nil, err
	}
	var plan []manifest
	for _, m := range matches {
		chosen, err := r.opts.Layers.Layers(m.Document)
		if errors.Is(err, layout.ErrNotFound) && len(matches) > 1 {
			continue // a number that only others have
		}
		if err != nil {
			return nil, err
		}
		p := manifest{match: m}
		for _, l := range chosen {
			if layer, ok := r.look(m, l); ok {
				p.layers = append(p.layers, layer)
			}
		}
		if err := r.checkDocker(m, p.layers); err != nil {
			return nil, err
		}
		plan = append(plan, p)
	}
	return plan, nil
}

// checkDocker refuses what a manifest of Docker cannot say.
func (r *run) checkDocker(m layout.Match, layers []Layer) error {
	if r.opts.OCITypes || r.opts.Format != compress.Zstd || !layout.IsDocker(m.Desc.MediaType) ||
		!slices.ContainsFunc(layers, func(l Layer) bool { return l.Kept == "" }) {
		return nil
	}
	err := fmt.Errorf("%s: a manifest of Docker has no zstd layers: %w", m.Desc.Digest, layout.ErrConflict)
	return layout.WithHint(err, "--oci-types makes it a manifest of OCI")
}

// look tells what a layer is to become; ok is false for what is no archive.
func (r *run) look(m layout.Match, l layout.Layer) (layer Layer, ok bool) {
	base, join, from, ok := parseType(l.Desc.MediaType)
	if !ok {
		return layer, false
	}
	layer = Layer{Manifest: m.Desc.Digest, Number: l.Number, Old: l.Desc, New: l.Desc, From: from}
	why := rule(l.Desc, r.opts.Format)
	switch {
	case why != nil:
		layer.Kept, layer.Rule = why.Reason, why.Name
	case from == r.opts.Format && r.opts.Level == 0:
		layer.Kept = "it is " + from.String() + " already"
		if from == compress.None {
			layer.Kept = "it is not compressed"
		}
	default:
		layer.New.MediaType = typeOf(base, join, r.opts.Format)
		if r.opts.OCITypes {
			layer.New.MediaType = layout.OCIType(layer.New.MediaType)
		}
		layer.New.Annotations = map[string]string{}
		for k, v := range layer.Old.Annotations {
			layer.New.Annotations[k] = v
		}
		layer.Dropped = dropStale(&layer.New)
		layer.New.Data = nil
	}
	return layer, true
}

// convertAll compresses what is not yet compressed, each digest once.
func (r *run) convertAll(ctx context.Context, s *layout.Stage, plan []manifest) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(r.opts.Jobs)
	begun := map[digest.Digest]bool{}
	for d := range r.done { // by an earlier call: those that this one begins write to it
		begun[d] = true
	}
	for _, m := range plan {
		for _, l := range m.layers {
			if l.Kept != "" || begun[l.Old.Digest] {
				continue
			}
			begun[l.Old.Digest] = true
			g.Go(func() error {
				r.event("start", l.Old, 0)
				c, err := r.convert(ctx, s, l.Old, l.From)
				if err != nil {
					return err
				}
				r.event("done", l.Old, 0)
				r.mu.Lock()
				defer r.mu.Unlock()
				r.done[l.Old.Digest] = c
				return nil
			})
		}
	}
	return g.Wait()
}

// edit changes the manifests.
func (r *run) edit(ctx context.Context, tx *layout.Tx, plan []manifest) (*Result, error) {
	result := &Result{}
	byDigest := map[digest.Digest][]Layer{}
	var digests []digest.Digest
	for _, m := range plan {
		changed := false
		for i := range m.layers {
			l := &m.layers[i]
			if l.Kept == "" {
				c := r.done[l.Old.Digest]
				l.New.Digest, l.New.Size = c.desc.Digest, c.desc.Size
				changed = true
			}
		}
		result.Layers = append(result.Layers, m.layers...)
		if !changed {
			continue
		}
		if err := r.checkDiffIDs(ctx, m); err != nil {
			return nil, err
		}
		byDigest[m.match.Desc.Digest] = m.layers
		digests = append(digests, m.match.Desc.Digest)
	}
	if len(digests) == 0 {
		return result, nil
	}
	opts := &layout.EditOptions{MoveReferrers: r.opts.MoveReferrers, Entry: markEntry}
	edit, err := tx.EditManifests(ctx, digests, opts, func(d digest.Digest, m *layout.Manifest) error {
		if r.opts.OCITypes {
			m.UseOCITypes()
		}
		for _, l := range byDigest[d] {
			if l.Kept == "" {
				m.SetLayer(l.Number, l.New)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	result.Edit = *edit
	return result, nil
}

// checkDiffIDs holds what came out of the layers of an image against its
// config.
func (r *run) checkDiffIDs(ctx context.Context, m manifest) error {
	doc := m.match.Document
	if !doc.IsImage() {
		return nil
	}
	want, err := layout.DiffIDs(ctx, r.src, doc)
	if err != nil {
		return err
	}
	if len(want) != len(doc.Layers) {
		return nil // it does not list its layers one by one, and says nothing of this one
	}
	for _, l := range m.layers {
		if l.Kept != "" {
			continue
		}
		w := want[l.Number]
		if got := r.done[l.Old.Digest].diffID; got != w && strings.HasPrefix(string(w), "sha256:") {
			return &layout.BlobError{Op: "read", Desc: l.Old, Err: fmt.Errorf("%w: its content hashes to %s, and the config of the image has the diffID %s", layout.ErrMismatch, got, w)}
		}
	}
	return nil
}
