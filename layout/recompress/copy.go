package recompress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/internal/durable"
)

// A Copy is a [layout.Source] that has what another one has, with its layers
// recompressed. What is new lies in a temporary directory until Close.
type Copy struct {
	Result *Result

	src  layout.Source
	temp *layout.Layout
	dir  string
	lock *durable.LockedDir
}

// tempPrefix begins the names of temporary directories. A killed process leaves
// one, which the next one removes.
const tempPrefix = "gloci-layout-recompress-"

// CopyOptions say what of a source a [Copy] has. Nil is the zero value.
type CopyOptions struct {
	// RefNames takes only the entries with these ref names, as
	// [layout.Index.FindRef] finds them; nil takes all.
	RefNames []string
	// NoReferrers leaves out what refers to the entries of RefNames, or to what
	// they reach, and what only the source itself lists; see
	// [layout.ReferrersBelow].
	NoReferrers bool
	// Sparse allows for members of indexes that the source lacks.
	Sparse bool
	// TempDir is where the new layers are kept; "" means [os.TempDir].
	TempDir string
}

// NewCopy recompresses all layers of src, or of a part of it, and changes
// nothing in src. Referrers go along and refer to what stands there then:
// opts.MoveReferrers counts as set. The errors are those of [Run]; a ref name
// that src lacks is [layout.ErrNotFound]. Close takes the temporary files away
// and does not close src.
func NewCopy(ctx context.Context, src layout.Source, what *CopyOptions, opts Options) (c *Copy, err error) {
	if what == nil {
		what = &CopyOptions{}
	}
	x, err := src.Index(ctx)
	if err != nil {
		return nil, err
	}
	if err := reduce(ctx, src, x, what); err != nil {
		return nil, err
	}
	c = &Copy{src: src}
	if err := c.makeDir(what.TempDir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
			c = nil
		}
	}()
	if c.temp, err = layout.Create(ctx, filepath.Join(c.dir, "layout"), nil); err != nil {
		return c, err
	}
	if err := os.WriteFile(filepath.Join(c.dir, "layout", ocispec.ImageIndexFile), x.Bytes(), 0o600); err != nil {
		return c, err
	}
	return c, c.fill(ctx, x, what, opts)
}

// makeDir makes the temporary directory in parent.
func (c *Copy) makeDir(parent string) error {
	if parent == "" {
		parent = os.TempDir()
	}
	root, err := os.OpenRoot(parent)
	if err != nil {
		return err
	}
	durable.SweepDirs(parent, tempPrefix, os.RemoveAll)
	if c.lock, err = durable.MkdirLocked(root, tempPrefix); err == nil {
		c.dir = filepath.Join(parent, c.lock.Name)
	}
	return errors.Join(err, root.Close())
}

// reduce takes the entries out of x that are not asked for, and puts in what
// refers to the others.
func reduce(ctx context.Context, src layout.Source, x *layout.Index, what *CopyOptions) error {
	keep := map[int]bool{}
	for _, name := range what.RefNames {
		found := x.FindRef(name)
		if len(found) == 0 {
			return fmt.Errorf("%s: ref name %q: %w", src, name, layout.ErrNotFound)
		}
		for _, i := range found {
			keep[i] = true
		}
	}
	var gone []int
	for i := range x.Len() {
		if what.RefNames != nil && !keep[i] {
			gone = append(gone, i)
		}
	}
	x.Remove(gone...)
	_, lists := src.(layout.ReferrerLister)
	if what.NoReferrers || what.RefNames == nil && !lists {
		return nil
	}
	referrers, err := layout.ReferrersBelow(ctx, src, x.Entries())
	if err != nil {
		return err
	}
	for _, r := range referrers {
		have := slices.ContainsFunc(x.Entries(), func(e ocispec.Descriptor) bool {
			return e.Digest == r.Desc.Digest && (layout.RefName(r.Desc) == "" || layout.RefName(r.Desc) == layout.RefName(e))
		})
		if !have {
			x.Add(r.Desc)
		}
	}
	x.Sort()
	return nil
}

// fill puts the documents into the temporary layout and recompresses there.
func (c *Copy) fill(ctx context.Context, x *layout.Index, what *CopyOptions, opts Options) (err error) {
	s, err := c.temp.Stage(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := s.Close(); err == nil {
			err = closeErr
		}
	}()
	for n, err := range layout.Walk(ctx, c.src, x.Entries(), &layout.WalkOptions{DocumentsOnly: true, Sparse: what.Sparse}) {
		if err != nil {
			return err
		}
		if n.Document == nil {
			continue
		}
		if err := s.AddExpect(ctx, strings.NewReader(string(n.Document.Raw)), n.Desc); err != nil {
			return err
		}
	}
	opts.MoveReferrers = true
	// As layout.Select does, but members may be missing.
	all := func(ctx context.Context, src layout.Source) (matches []layout.Match, err error) {
		x, err := src.Index(ctx)
		if err != nil {
			return nil, err
		}
		for n, err := range layout.Walk(ctx, src, x.Entries(), &layout.WalkOptions{DocumentsOnly: true, NoSubjects: true, Sparse: what.Sparse}) {
			if err != nil {
				return nil, err
			}
			if n.Document != nil && !n.Document.IsIndex {
				matches = append(matches, layout.Match{Desc: n.Desc, Document: n.Document, Parents: n.Parents})
			}
		}
		return matches, nil
	}
	c.Result, err = runFrom(ctx, s, c, all, opts, nil)
	return err
}

// Index implements [layout.Source].
func (c *Copy) Index(ctx context.Context) (*layout.Index, error) { return c.temp.Index(ctx) }

// holder returns the source that has d.
func (c *Copy) holder(ctx context.Context, d digest.Digest) (layout.Source, error) {
	_, err := c.temp.Stat(ctx, d)
	if errors.Is(err, layout.ErrNotFound) {
		return c.src, nil
	}
	return c.temp, err
}

// Blob implements [layout.Source].
func (c *Copy) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	src, err := c.holder(ctx, desc.Digest)
	if err != nil {
		return nil, err
	}
	return src.Blob(ctx, desc)
}

// Stat implements [layout.Source].
func (c *Copy) Stat(ctx context.Context, d digest.Digest) (layout.BlobInfo, error) {
	src, err := c.holder(ctx, d)
	if err != nil {
		return layout.BlobInfo{}, err
	}
	return src.Stat(ctx, d)
}

// Section implements [layout.Sectioner] where what has d does.
func (c *Copy) Section(ctx context.Context, d digest.Digest) (f *os.File, off, size int64, err error) {
	src, err := c.holder(ctx, d)
	if err != nil {
		return nil, 0, 0, err
	}
	sectioner, ok := src.(layout.Sectioner)
	if !ok {
		return nil, 0, 0, errors.ErrUnsupported
	}
	return sectioner.Section(ctx, d)
}

// Blobs implements [layout.Source]. What was recompressed is there too.
func (c *Copy) Blobs(ctx context.Context) iter.Seq2[layout.BlobInfo, error] {
	return func(yield func(layout.BlobInfo, error) bool) {
		all := map[digest.Digest]layout.BlobInfo{}
		for _, src := range []layout.Source{c.src, c.temp} {
			for info, err := range src.Blobs(ctx) {
				if err != nil {
					yield(info, err)
					return
				}
				all[info.Digest] = info
			}
		}
		digests := make([]digest.Digest, 0, len(all))
		for d := range all {
			digests = append(digests, d)
		}
		slices.Sort(digests)
		for _, d := range digests {
			if !yield(all[d], nil) {
				return
			}
		}
	}
}

// String names the source.
func (c *Copy) String() string { return c.src.String() }

// Close removes what was made.
func (c *Copy) Close() error {
	var err error
	if c.temp != nil {
		err = c.temp.Close()
	}
	return errors.Join(err, os.RemoveAll(c.dir), c.lock.Close())
}
