package merge

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/gardenlinux/gloci-layout/layout"
)

// sourceJobs is how many sources are open at once.
const sourceJobs = 8

// A Source is what is merged into a layout.
type Source struct {
	Name string // in messages
	// Open opens it. It is called twice at most, and each time what it returns
	// is given back before Into returns.
	Open func(ctx context.Context) (layout.Source, error)
	// Done is called with what Open has returned; nil means that it is closed.
	Done func(src layout.Source) error
	// RefName and Digest choose what is merged of it; without both, all is.
	RefName string
	Digest  digest.Digest
}

func (s Source) done(src layout.Source) error {
	if s.Done != nil {
		return s.Done(src)
	}
	return src.Close()
}

// IntoOptions changes what [Into] does. Nil is the zero value.
type IntoOptions struct {
	Options
	// Refs are patterns, as path.Match has them; only entries whose ref names
	// match one are merged, and what refers to them.
	Refs        []string
	NoReferrers bool // of a part of a source, or of a repository, what refers to it is left out
	DryRun      bool // nothing is written
	Copy        layout.CopyOptions
}

// Into merges sources into the layout l, in one transaction: all or nothing.
// See [Merge] for the rules, and for base, which may be nil. Blobs are read once, verified
// on their way, and those that l holds are not copied. A merge that changes
// nothing leaves index.json alone.
func Into(ctx context.Context, l *layout.Layout, base *Source, sources []Source, opts *IntoOptions) (*Result, error) {
	in := into{docs: map[digest.Digest]*layout.Document{}, subjects: map[digest.Digest]digest.Digest{}, sources: sources}
	if opts != nil {
		in.opts = *opts
	}
	if err := in.load(ctx, base); err != nil {
		return nil, err
	}
	raw, err := l.Index(ctx)
	if err != nil {
		return nil, err
	}
	planned := raw.Bytes()
	// Conflicts are found before anything is copied.
	result, err := in.plan(ctx, l, raw)
	if err != nil || in.opts.DryRun {
		return result, err
	}
	s, err := l.Stage(ctx)
	if err != nil {
		return nil, err
	}
	err = in.copy(ctx, s, result.Needed)
	if err == nil {
		err = s.Update(ctx, func(tx *layout.Tx) error {
			if !bytes.Equal(tx.Index().Bytes(), planned) { // somebody was faster
				if result, err = in.plan(ctx, tx.Source(), tx.Index()); err != nil {
					return err
				}
				if err := in.copy(ctx, s, result.Needed); err != nil {
					return err
				}
			}
			return apply(tx, result)
		})
	}
	if err := errors.Join(err, s.Close()); err != nil {
		return nil, err
	}
	return result, nil
}

// apply makes result the state of tx.
func apply(tx *layout.Tx, result *Result) error {
	if result.Index == nil {
		return nil
	}
	for _, doc := range result.Documents {
		if _, err := tx.PutDocument(doc.Raw, doc.MediaType); err != nil {
			return err
		}
	}
	x, err := layout.ParseIndex(result.Index.Bytes())
	if err != nil {
		return err
	}
	*tx.Index() = *x
	return nil
}

type into struct {
	opts    IntoOptions
	sources []Source
	base    *Side
	sides   []Side

	mu       sync.Mutex
	docs     map[digest.Digest]*layout.Document // indexes of all sources
	subjects map[digest.Digest]digest.Digest    // of entries without ref name
}

// load reads the indexes of all sources.
func (in *into) load(ctx context.Context, base *Source) error {
	in.sides = make([]Side, len(in.sources))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(sourceJobs)
	for i := range in.sources {
		g.Go(func() (err error) {
			in.sides[i], err = in.side(gctx, in.sources[i])
			return err
		})
	}
	if base != nil {
		g.Go(func() error {
			side, err := in.side(gctx, *base)
			in.base = &side
			return err
		})
	}
	return g.Wait()
}

// side reads index.json of a source and all indexes below it, so that the
// source need not stay open.
func (in *into) side(ctx context.Context, s Source) (side Side, err error) {
	src, err := s.Open(ctx)
	if err != nil {
		return side, err
	}
	defer func() { err = errors.Join(err, s.done(src)) }()
	side = Side{Name: s.Name, Read: in.read}
	if side.Index, side.Scope, err = limited(ctx, src, s, in.opts); err != nil {
		return side, err
	}
	roots := side.Index.Entries()
	if side.Scope != nil {
		roots = slices.DeleteFunc(roots, func(desc ocispec.Descriptor) bool { return !side.Scope(desc) })
	}
	for _, desc := range roots {
		of, err := subject(desc, func(desc ocispec.Descriptor) (*layout.Document, error) { return layout.ReadDocument(ctx, src, desc) })
		if err != nil {
			return side, err
		}
		if layout.RefName(desc) == "" {
			in.mu.Lock()
			in.subjects[desc.Digest] = of
			in.mu.Unlock()
		}
	}
	return side, in.readIndexes(ctx, src, roots, 1)
}

func (in *into) readIndexes(ctx context.Context, src layout.Source, descs []ocispec.Descriptor, depth int) error {
	for _, desc := range descs {
		if !layout.IsIndex(desc.MediaType) {
			continue
		}
		if depth > layout.DefaultMaxDepth {
			return fmt.Errorf("%s: %s: %w: nested more than %d deep", src, desc.Digest, layout.ErrInvalid, layout.DefaultMaxDepth)
		}
		in.mu.Lock()
		have := in.docs[desc.Digest] != nil
		in.mu.Unlock()
		if have {
			continue
		}
		doc, err := layout.ReadDocument(ctx, src, desc)
		if errors.Is(err, layout.ErrNotFound) {
			continue // of a sparse index; an error if it turns out to be needed
		}
		if err != nil {
			return fmt.Errorf("%s: %w", src, err)
		}
		if err := in.readIndexes(ctx, src, doc.Manifests, depth+1); err != nil {
			return err
		}
		in.mu.Lock()
		in.docs[desc.Digest] = doc
		in.mu.Unlock()
	}
	return nil
}

func (in *into) read(_ context.Context, desc ocispec.Descriptor) (*layout.Document, error) {
	if doc := in.docs[desc.Digest]; doc != nil {
		return doc, nil
	}
	return nil, fmt.Errorf("index %s: %w", desc.Digest, layout.ErrNotFound)
}

// plan merges into the state that src and x have.
func (in *into) plan(ctx context.Context, src layout.Source, x *layout.Index) (*Result, error) {
	ours, err := layout.ParseIndex(x.Bytes())
	if err != nil {
		return nil, err
	}
	result, err := Merge(ctx, in.base, Side{
		Name: src.String(), Index: ours,
		Read: func(ctx context.Context, desc ocispec.Descriptor) (*layout.Document, error) {
			return layout.ReadDocument(ctx, src, desc)
		},
	}, in.sides, &in.opts.Options)
	if err != nil {
		return nil, err
	}
	return result, result.stale(ctx, src, in.subjects)
}

// copy stages what is needed of each source, several sources at once.
func (in *into) copy(ctx context.Context, s *layout.Stage, needed [][]ocispec.Descriptor) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(cmp.Or(in.opts.Copy.Jobs, sourceJobs))
	for i, descs := range needed {
		if len(descs) == 0 {
			continue
		}
		g.Go(func() (err error) {
			src, err := in.sources[i].Open(gctx)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, in.sources[i].done(src)) }()
			return s.CopyTree(gctx, src, descs, &in.opts.Copy)
		})
	}
	return g.Wait()
}
