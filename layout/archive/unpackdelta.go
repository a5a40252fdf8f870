package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/delta"
	"github.com/gardenlinux/gloci-layout/layout/internal/durable"
)

// unpackDelta unpacks a delta. src is one with its base, or an archive whose
// base is the layout in dir.
func unpackDelta(ctx context.Context, src layout.Source, x *layout.Index, dir string, absent bool, o *UnpackOptions) error {
	if absent {
		if d := delta.Lacks(src); d != nil {
			return delta.NoBase(src, d)
		}
		return unpackBeside(ctx, src, x, dir, o)
	}
	l, err := layout.Open(ctx, dir, nil)
	switch {
	case err == nil:
		if err := errors.Join(unpackOver(ctx, src, x, l, o), l.Close()); err != nil {
			return err
		}
		return syncName(dir)
	case delta.Lacks(src) != nil:
		return delta.NoBase(src, delta.Lacks(src))
	}
	return unpackInto(ctx, src, x, dir, o)
}

// syncName makes sure that dir is found after a power cut: what made it may have
// been killed before it could.
func syncName(dir string) error {
	err := durable.SyncDir(filepath.Dir(dir))
	if errors.Is(err, fs.ErrPermission) {
		return nil // who may not read it has not made it
	}
	return err
}

// unpackOver makes the layout l what src is.
func unpackOver(ctx context.Context, src layout.Source, x *layout.Index, l *layout.Layout, o *UnpackOptions) error {
	may := func(have *layout.Index) error { return mayReplace(l, have, x, delta.Of(src)) }
	have, err := l.Index(ctx)
	if err != nil {
		return err
	}
	if err := may(have); err != nil { // before anything is read or written
		return err
	}
	if c, ok := src.(delta.Carrier); ok && c.Delta() != nil {
		both, err := delta.Open(ctx, c, l)
		if err != nil {
			return err
		}
		defer both.Release() //nolint:errcheck // only read; c is the caller's to close
		src = both
	}
	return copyInto(ctx, src, x, l, may, o)
}

// mayReplace tells whether x, the index of a delta, may take the place of have:
// if have is that of a base, or nothing that it names is lost.
func mayReplace(l *layout.Layout, have, x *layout.Index, d *delta.Description) error {
	was := layout.BlobInfo{Digest: digest.FromBytes(have.Bytes()), Size: int64(len(have.Bytes()))}
	if was == d.Index || slices.Contains(d.Bases, was) {
		return nil
	}
	type entry struct {
		refName string
		digest  digest.Digest
	}
	kept := map[entry]bool{}
	for _, e := range x.Entries() {
		kept[entry{layout.RefName(e), e.Digest}] = true
	}
	lost := slices.DeleteFunc(have.Entries(), func(e ocispec.Descriptor) bool { return kept[entry{layout.RefName(e), e.Digest}] })
	if len(lost) == 0 {
		return nil
	}
	err := fmt.Errorf("%s was changed since the base of the delta: %w: entries would be lost", l, layout.ErrConflict)
	for _, e := range lost {
		err = fmt.Errorf("%w\n%s %s", err, layout.RefName(e), e.Digest)
	}
	return layout.WithHint(err, fmt.Sprintf("gloci-layout merge %s DELTA keeps them", l))
}
