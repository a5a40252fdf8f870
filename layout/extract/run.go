package extract

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/internal/layertar"
)

// An extraction is one call of [Extract].
type extraction struct {
	src     layout.Source
	layers  []Layer
	opts    Options
	result  *Result
	diffIDs []digest.Digest // of a Rootfs
}

const (
	rootfsDir  = "rootfs"
	configFile = "config.json"
	bufferSize = 256 << 10 // 256 KiB
)

// check looks at what the caller has said.
func (x *extraction) check() error {
	o := &x.opts
	if o.Mode == "" {
		o.Mode = Single
	}
	if o.OnConflict == "" {
		o.OnConflict = ConflictIdenticalOK
	}
	if o.Symlinks == "" {
		o.Symlinks = SymlinksError
		if o.Mode == Rootfs {
			o.Symlinks = SymlinksKeep
		}
	}
	if o.Special == "" {
		o.Special = SpecialError
	}
	switch {
	case !slices.Contains([]Mode{Single, MergeDir, LayerPerDir, ExtractAll, Rootfs}, o.Mode):
		return fmt.Errorf("%w mode %q", layout.ErrInvalid, o.Mode)
	case !slices.Contains([]OnConflict{ConflictIdenticalOK, ConflictError, ConflictFirst, ConflictLast}, o.OnConflict):
		return fmt.Errorf("%w policy for conflicts %q", layout.ErrInvalid, o.OnConflict)
	case !slices.Contains([]Symlinks{SymlinksError, SymlinksSkip, SymlinksKeep}, o.Symlinks):
		return fmt.Errorf("%w policy for symbolic links %q", layout.ErrInvalid, o.Symlinks)
	case !slices.Contains([]Special{SpecialError, SpecialSkip}, o.Special):
		return fmt.Errorf("%w policy for special files %q", layout.ErrInvalid, o.Special)
	case o.Mode == Single && len(x.layers) != 1:
		return fmt.Errorf("%w: %d layers where one is wanted", layout.ErrInvalid, len(x.layers))
	case o.Mode == Rootfs && o.Config == nil:
		return fmt.Errorf("%w: a root file system without the config of its image", layout.ErrInvalid)
	}
	if o.Mode != LayerPerDir {
		return nil
	}
	for _, l := range x.layers {
		if !isLocal(l.Dir) || l.Dir == "." {
			return fmt.Errorf("%w: directory %q for layer %s", layout.ErrUnsafe, l.Dir, l.Desc.Digest)
		}
		for _, other := range x.layers {
			if strings.HasPrefix(l.Dir, other.Dir+"/") {
				return fmt.Errorf("%w: directory %q for a layer is inside of %q for another", layout.ErrInvalid, l.Dir, other.Dir)
			}
		}
	}
	return nil
}

// isLocal tells whether p is a clean relative path that leads nowhere else.
func isLocal(p string) bool { return filepath.IsLocal(p) && path.Clean(p) == p }

func joinPath(dir, name string) string { return path.Join(dir, name) }

// groups returns the directories that the layers go to, in order.
func (x *extraction) groups() []*group {
	var all []*group
	named := map[string]*group{}
	for i, l := range x.layers {
		dir := "."
		switch x.opts.Mode {
		case LayerPerDir:
			dir = l.Dir
		case Rootfs:
			dir = rootfsDir
		}
		g := named[dir]
		if g == nil {
			g = &group{x: x, dir: dir, overlay: true}
			named[dir] = g
			all = append(all, g)
		}
		g.numbers = append(g.numbers, i)
		g.overlay = g.overlay && isImageLayer(l.Desc.MediaType)
	}
	for _, g := range all {
		switch x.opts.Mode {
		case LayerPerDir:
			g.overlay = false
		case Rootfs:
			g.overlay = true
		}
	}
	return all
}

// isImageLayer tells whether a media type is that of a layer of a container
// image, of OCI or Docker.
func isImageLayer(mediaType string) bool {
	for _, prefix := range []string{
		"application/vnd.oci.image.layer.v1.tar",
		"application/vnd.oci.image.layer.nondistributable.v1.tar",
		"application/vnd.docker.image.rootfs.diff.tar",
		"application/vnd.docker.image.rootfs.foreign.diff.tar",
	} {
		if strings.HasPrefix(strings.ToLower(mediaType), prefix) {
			return true
		}
	}
	return false
}

func (x *extraction) run(ctx context.Context, out string) (err error) {
	p, err := openPlace(out, x.opts.Force, x.opts.Protect)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	if x.opts.Mode == Rootfs {
		if err := x.config(ctx, p); err != nil {
			return err
		}
	}
	written := make([]Written, len(x.layers))
	groups := x.groups()
	if x.opts.Mode == Rootfs && len(groups) == 0 { // an image without layers
		groups = append(groups, &group{x: x, dir: rootfsDir, overlay: true})
	}
	for _, g := range groups {
		if err := g.run(ctx, p, written); err != nil {
			return err
		}
	}
	if x.opts.Mode == MergeDir && len(written) > 0 && !slices.ContainsFunc(written, func(w Written) bool { return w.Archive }) {
		err := fmt.Errorf("%w: none of the layers is a tar archive that can be unpacked", layout.ErrInvalid)
		return layout.WithHint(err, "gloci-layout copy writes layers as they are, and so does --mode ExtractAll")
	}
	x.result.Written = append(x.result.Written, written...)
	for _, g := range groups {
		if err := p.finishParents(g.dir); err != nil {
			return err
		}
	}
	slices.SortFunc(x.result.Files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return p.commit()
}

// config copies the config of the image, and remembers its diffIDs.
func (x *extraction) config(ctx context.Context, p *place) error {
	desc := *x.opts.Config
	x.event("start", desc, 0)
	raw, err := layout.ReadAll(ctx, x.src, desc, layout.MaxDocument)
	if err != nil {
		return err
	}
	var config struct {
		RootFS ocispec.RootFS `json:"rootfs"`
	}
	if err := json.Unmarshal(raw, &config); err != nil {
		return &layout.BlobError{Op: "read", Desc: desc, Err: fmt.Errorf("%w config: %w", layout.ErrInvalid, err)}
	}
	x.diffIDs = config.RootFS.DiffIDs
	if len(x.diffIDs) != len(x.layers) {
		return &layout.BlobError{Op: "read", Desc: desc, Err: fmt.Errorf("%w config: %d diffIDs for %d layers", layout.ErrInvalid, len(x.diffIDs), len(x.layers))}
	}
	for _, d := range x.diffIDs {
		if _, err := layout.ParseDigest(string(d)); err != nil {
			return &layout.BlobError{Op: "read", Desc: desc, Err: err}
		}
	}
	f, err := p.root.OpenFile(configFile, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err := errors.Join(err, f.Chmod(0o644), f.Close(), p.root.Chtimes(configFile, time.Time{}, time.Unix(0, 0))); err != nil {
		return err
	}
	x.event("done", desc, 0)
	w := Written{Path: configFile, Bytes: int64(len(raw)), Source: desc}
	if len(x.layers) > 0 {
		w.Manifest = x.layers[0].Manifest
	}
	x.result.Written = append(x.result.Written, w)
	if x.opts.Files {
		x.result.Files = append(x.result.Files, File{Path: configFile, Mode: 0o644, Size: w.Bytes, Digest: digest.FromBytes(raw), Layer: -1})
	}
	return nil
}

func (x *extraction) event(kind string, desc ocispec.Descriptor, n int64) {
	if x.opts.Progress != nil {
		x.opts.Progress(layout.Event{Kind: kind, Desc: desc, Bytes: n})
	}
}

// run unpacks the layers of the group and finishes its directory.
func (g *group) run(ctx context.Context, p *place, written []Written) (err error) {
	root, err := p.mkdirAll(g.dir)
	if err != nil {
		return err
	}
	g.disk = &disk{root: root}
	defer func() { err = errors.Join(err, g.disk.close()) }()
	o := &g.x.opts
	g.tree = newTree(limits{
		entries: orDefault(o.MaxEntries, layertar.DefaultMaxEntries),
		name:    orDefault(o.MaxName, layertar.DefaultMaxName),
		depth:   orDefault(o.MaxDepth, layertar.DefaultMaxDepth),
	}, o.Mode == Rootfs)
	g.tree.mkdir = g.disk.mkdir
	g.buf, g.skip = make([]byte, bufferSize), map[string]bool{}
	if o.Files {
		g.infos = map[*node]info{}
	}
	for _, i := range g.numbers {
		g.layer, g.entries, g.written = int32(i), 0, 0 //nolint:gosec // far fewer layers
		w, err := g.open(ctx, i)
		if err != nil {
			return err
		}
		w.Entries, w.Bytes = g.entries, g.written
		w.Source, w.Manifest = g.x.layers[i].Desc, g.x.layers[i].Manifest
		written[i] = w
	}
	return g.finish()
}

func orDefault[T int | int64](n, def T) T {
	if n == 0 {
		return def
	}
	return n
}

// open reads layer number i and unpacks or copies it.
func (g *group) open(ctx context.Context, i int) (w Written, err error) {
	l, o := &g.x.layers[i], &g.x.opts
	g.x.event("start", l.Desc, 0)
	limits := layertar.Options{
		MaxBytes: o.MaxBytes, MaxRatio: o.MaxRatio, MaxEntries: o.MaxEntries, MaxName: o.MaxName, MaxDepth: o.MaxDepth,
	}
	diffID := g.diffID(i)
	if diffID != "" {
		limits.DiffID = diffID.Algorithm()
	}
	if o.Progress != nil {
		limits.Count = func(n int64) { g.x.event("bytes", l.Desc, n) }
	}
	r, err := layertar.Open(ctx, g.x.src, l.Desc, &limits)
	if err != nil {
		return w, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	switch {
	case r.IsArchive():
		w.Path, w.Archive = g.dir, true
		err = g.apply(ctx, r)
	case o.Mode == ExtractAll || o.Mode == LayerPerDir:
		w.Path = joinPath(g.dir, l.Name)
		err = g.copy(l, r.Content())
	case o.Mode == MergeDir:
		g.x.event("skip", l.Desc, 0)
		return w, nil
	default:
		err = layout.WithHint(&layout.BlobError{Op: "read", Desc: l.Desc, Err: fmt.Errorf("%w: it is no tar archive that can be unpacked (media type %q)", layout.ErrInvalid, l.Desc.MediaType)},
			"copy writes a layer as it is")
	}
	if err != nil {
		return w, err
	}
	if diffID != "" && r.DiffID() != diffID {
		return w, &layout.BlobError{Op: "read", Desc: l.Desc, Err: fmt.Errorf("%w: uncompressed it hashes to %s, and the config says %s", layout.ErrMismatch, r.DiffID(), diffID)}
	}
	g.x.event("done", l.Desc, 0)
	return w, nil
}

// copy writes a layer that is no archive, as if it were the one file in one.
func (g *group) copy(l *Layer, content io.Reader) error {
	if !isLocal(l.Name) || l.Name == "." {
		return fmt.Errorf("%w: name %q for layer %s", layout.ErrUnsafe, l.Name, l.Desc.Digest)
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: l.Name, Mode: 0o644, Size: l.Desc.Size, ModTime: time.Unix(0, 0), Uid: g.implied.uid, Gid: g.implied.gid}
	if err := g.entry(h, content); err != nil {
		var blob *layout.BlobError
		if errors.As(err, &blob) {
			return err
		}
		return fmt.Errorf("layer %s as %s: %w", l.Desc.Digest, l.Name, err)
	}
	_, err := io.Copy(io.Discard, content) // what is left out has to be sound too
	return err
}
