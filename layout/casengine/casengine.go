// Package casengine lets umoci's packages casext, mutate and layer work on a
// [layout.Layout], with its locks and its durability, through umoci's
// cas.Engine interface.
//
// umoci's own engine for directories is not used: it locks nothing, and drops
// the fields of index.json that it does not know.
package casengine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/umoci/oci/cas"

	"github.com/gardenlinux/gloci-layout/layout"
)

// An Engine is a cas.Engine over a layout. Blobs that are put become part of
// the layout with the next PutIndex, or with Close. It may be used by several
// goroutines.
type Engine struct {
	l *layout.Layout

	mu    sync.Mutex
	stage *layout.Stage
	base  *ocispec.Index // what GetIndex gave last
}

var _ cas.Engine = (*Engine)(nil)

// New returns an engine over l, which stays the caller's to close, after the
// engine.
func New(l *layout.Layout) *Engine { return &Engine{l: l} }

// staging returns the open stage; reading alone never opens one.
func (e *Engine) staging(ctx context.Context) (*layout.Stage, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stage == nil {
		s, err := e.l.Stage(ctx)
		if err != nil {
			return nil, err
		}
		e.stage = s
	}
	return e.stage, nil
}

func (e *Engine) source() layout.Source {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stage != nil {
		return e.stage
	}
	return e.l
}

// PutBlob adds a blob, named by its sha256.
func (e *Engine) PutBlob(ctx context.Context, reader io.Reader) (digest.Digest, int64, error) {
	s, err := e.staging(ctx)
	if err != nil {
		return "", -1, err
	}
	desc, err := s.Add(ctx, reader, "application/octet-stream")
	if err != nil {
		return "", -1, err
	}
	return desc.Digest, desc.Size, nil
}

// GetBlob opens a blob. Its content is verified at its end; Close reads that
// far, as the interface demands.
func (e *Engine) GetBlob(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	src := e.source()
	info, err := src.Stat(ctx, d)
	if err != nil {
		return nil, notExist(err)
	}
	rc, err := src.Blob(ctx, ocispec.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: info.Size})
	if err != nil {
		return nil, notExist(err)
	}
	return &drained{rc}, nil
}

// drained verifies to the end before it closes.
type drained struct{ io.ReadCloser }

func (r *drained) Close() error {
	_, err := io.Copy(io.Discard, r.ReadCloser)
	return errors.Join(err, r.ReadCloser.Close())
}

func notExist(err error) error {
	if errors.Is(err, layout.ErrNotFound) {
		return fmt.Errorf("%w: %w", cas.ErrNotExist, err)
	}
	return err
}

// StatBlob tells whether a blob is there; one that is not is cas.ErrNotExist.
func (e *Engine) StatBlob(ctx context.Context, d digest.Digest) (bool, error) {
	if _, err := e.source().Stat(ctx, d); err != nil {
		return false, notExist(err)
	}
	return true, nil
}

// GetIndex returns index.json.
func (e *Engine) GetIndex(ctx context.Context) (ocispec.Index, error) {
	x, err := e.l.Index(ctx)
	if err != nil {
		return ocispec.Index{}, fmt.Errorf("%w: %w", cas.ErrInvalid, err)
	}
	base := spec(x)
	e.mu.Lock()
	e.base = &base
	e.mu.Unlock()
	return spec(x), nil
}

func spec(x *layout.Index) ocispec.Index {
	index := ocispec.Index{
		MediaType:    x.MediaType(),
		ArtifactType: x.ArtifactType(),
		Manifests:    x.Entries(),
		Subject:      x.Subject(),
		Annotations:  x.Annotations(),
	}
	index.SchemaVersion = 2
	return index
}

// PutIndex makes to index.json the changes that lead from what GetIndex gave
// last to index. So neither what another process did meanwhile nor what
// ocispec.Index cannot hold is lost. Without a GetIndex before, index replaces
// all entries.
func (e *Engine) PutIndex(ctx context.Context, index ocispec.Index) error {
	s, err := e.staging(ctx)
	if err != nil {
		return err
	}
	e.mu.Lock()
	base := e.base
	e.mu.Unlock()
	err = s.Update(ctx, func(tx *layout.Tx) error {
		from := base
		if from == nil {
			all := spec(tx.Index())
			from = &all
		}
		apply(tx.Index(), *from, index)
		return nil
	})
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.base = &index
	return nil
}

// apply edits x by the difference of from and to.
func apply(x *layout.Index, from, to ocispec.Index) {
	same := func(desc ocispec.Descriptor) func(ocispec.Descriptor) bool {
		return func(other ocispec.Descriptor) bool { return reflect.DeepEqual(desc, other) }
	}
	for _, old := range from.Manifests {
		if slices.ContainsFunc(to.Manifests, same(old)) {
			continue
		}
		if i := slices.IndexFunc(x.Entries(), same(old)); i >= 0 {
			x.Remove(i)
		}
	}
	for _, desc := range to.Manifests {
		if !slices.ContainsFunc(from.Manifests, same(desc)) && !slices.ContainsFunc(x.Entries(), same(desc)) {
			x.Add(desc)
		}
	}
	for key := range from.Annotations {
		if _, ok := to.Annotations[key]; !ok {
			x.DeleteAnnotation(key)
		}
	}
	for key, value := range to.Annotations {
		if old, ok := from.Annotations[key]; !ok || old != value {
			x.SetAnnotation(key, value)
		}
	}
	if from.ArtifactType != to.ArtifactType {
		x.SetArtifactType(to.ArtifactType)
	}
	x.Sort()
}

// DeleteBlob removes a blob, whether index.json names it or not. It is
// idempotent.
func (e *Engine) DeleteBlob(ctx context.Context, d digest.Digest) error {
	return e.l.RemoveBlob(ctx, d)
}

// ListBlobs lists every blob.
func (e *Engine) ListBlobs(ctx context.Context) ([]digest.Digest, error) {
	var digests []digest.Digest
	for info, err := range e.source().Blobs(ctx) {
		if err != nil {
			return nil, err
		}
		digests = append(digests, info.Digest)
	}
	return digests, nil
}

// Clean does nothing: the next edit removes what dead writers have left.
func (e *Engine) Clean(context.Context) error { return nil }

// Close commits blobs that no PutIndex has.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stage == nil {
		return nil
	}
	s := e.stage
	e.stage = nil
	err := s.Update(context.Background(), func(*layout.Tx) error { return nil })
	return errors.Join(err, s.Close())
}
