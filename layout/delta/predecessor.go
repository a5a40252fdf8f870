package delta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/internal/tempfile"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/diff"
)

// A Predecessor is the blob of a base that another was most likely made from.
type Predecessor struct {
	Base layout.Source
	Desc ocispec.Descriptor
}

// Predecessors finds for the layers below roots of src what they were in bases.
// Manifests are a state of the same thing if key says so, which may be nil or
// return "" for what it does not know; else if [layout.EntryKey] does, else if
// platform and artifact type are the same. Of several in the bases, the one with
// the most equal layers counts, and the last of these. Layers of the two are
// matched as package diff does: by title, then by media type and position.
func Predecessors(ctx context.Context, src layout.Source, roots []ocispec.Descriptor, bases []layout.Source, key func(ocispec.Descriptor) string) (map[digest.Digest]Predecessor, error) {
	type state struct {
		base layout.Source
		doc  *layout.Document
	}
	known := map[string][]state{}
	for _, base := range bases {
		x, err := base.Index(ctx)
		if err != nil {
			return nil, err
		}
		err = manifests(ctx, base, x.Entries(), func(n layout.Node) {
			for _, k := range names(n.Desc, key) {
				known[k] = append(known[k], state{base, n.Document})
			}
		})
		if err != nil {
			return nil, err
		}
	}
	found := map[digest.Digest]Predecessor{}
	err := manifests(ctx, src, roots, func(n layout.Node) {
		for _, k := range names(n.Desc, key) {
			if len(known[k]) == 0 {
				continue
			}
			best, most := known[k][0], -1
			for _, s := range known[k] {
				if same := equalLayers(s.doc, n.Document); same >= most {
					best, most = s, same
				}
			}
			for i, j := range diff.MatchLayers(best.doc.Layers, n.Document.Layers) {
				if j < 0 {
					continue
				}
				if _, ok := found[n.Document.Layers[j].Digest]; !ok {
					found[n.Document.Layers[j].Digest] = Predecessor{best.base, best.doc.Layers[i]}
				}
			}
			return
		}
	})
	return found, err
}

func manifests(ctx context.Context, src layout.Source, roots []ocispec.Descriptor, fn func(n layout.Node)) error {
	for n, err := range layout.Walk(ctx, src, roots, &layout.WalkOptions{Sparse: true, DocumentsOnly: true}) {
		if err != nil {
			return err
		}
		if n.Document != nil && !n.Document.IsIndex {
			fn(n)
		}
	}
	return nil
}

// names are what a manifest may be known by, the closest first.
func names(desc ocispec.Descriptor, key func(ocispec.Descriptor) string) []string {
	var names []string
	if key != nil {
		if k := key(desc); k != "" {
			return []string{"key " + k} // a flavour is never another one
		}
	}
	names = append(names, "entry "+layout.EntryKey(desc))
	if ref := layout.RefName(desc); ref != "" {
		names = append(names, "ref "+ref)
	}
	platform := ""
	if desc.Platform != nil {
		platform = layout.FormatPlatform(*desc.Platform)
	}
	return append(names, "platform "+platform+" "+desc.ArtifactType)
}

func equalLayers(a, b *layout.Document) int {
	have := map[digest.Digest]bool{}
	for _, l := range a.Layers {
		have[l.Digest] = true
	}
	n := 0
	for _, l := range b.Layers {
		if have[l.Digest] {
			n++
		}
	}
	return n
}

// OpenAt opens the content of desc to be read anywhere. It is not verified where
// it lies in a file, and copied to a temporary file without a name elsewhere.
func OpenAt(ctx context.Context, src layout.Source, desc ocispec.Descriptor) (io.ReaderAt, io.Closer, error) {
	if sectioner, ok := src.(layout.Sectioner); ok {
		f, off, size, err := sectioner.Section(ctx, desc.Digest)
		if err == nil && size != desc.Size {
			err = errors.Join(&layout.BlobError{Op: "open", Desc: desc, Err: fmt.Errorf("%w: %d bytes, want %d", layout.ErrMismatch, size, desc.Size)}, f.Close())
			return nil, nil, err
		}
		if err == nil {
			return io.NewSectionReader(f, off, size), f, nil
		}
		if !errors.Is(err, errors.ErrUnsupported) {
			return nil, nil, err
		}
	}
	rc, err := src.Blob(ctx, desc)
	if err != nil {
		return nil, nil, err
	}
	defer rc.Close() //nolint:errcheck // only read
	f, err := spool(rc)
	return f, f, err
}

// spool copies r to a temporary file without a name.
func spool(r io.Reader) (*os.File, error) {
	f, err := tempfile.New("")
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(f, r); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
