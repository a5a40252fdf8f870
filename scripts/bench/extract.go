package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/file"
	"oras.land/oras-go/v2/content/oci"
)

const (
	rootRef   = "root"
	orasTitle = "tree" // the directory that oras unpacks to
)

// rootLayer makes the layer of something like a root file system: directories
// of small files, some large ones, links, and content that gzip halves.
func (l *builder) rootLayer(files int) (y layer, err error) {
	diff := sha256.New()
	y.desc, err = l.blob(ocispec.MediaTypeImageLayerGzip, func(w io.Writer) error {
		zw := gzip.NewWriter(w)
		tw := tar.NewWriter(io.MultiWriter(zw, diff))
		err := writeRoot(tw, files)
		return errors.Join(err, tw.Close(), zw.Close())
	})
	y.diffID = digest.NewDigest(digest.SHA256, diff)
	// What "oras push" says of a directory, so that oras unpacks it.
	y.desc.Annotations = map[string]string{
		ocispec.AnnotationTitle: orasTitle, file.AnnotationUnpack: "true", file.AnnotationDigest: string(y.diffID),
	}
	return y, err
}

// filesPerDir and sizeOf are like those of /usr of Debian: half of the files
// have less than 4 KiB, and one in a hundred has most of the bytes.
const filesPerDir = 20

func sizeOf(r *rand.Rand) int64 {
	switch n := r.IntN(100); {
	case n < 50:
		return r.Int64N(4 << 10)
	case n < 99:
		return r.Int64N(32 << 10)
	default:
		return r.Int64N(2 << 20)
	}
}

func writeRoot(tw *tar.Writer, files int) error {
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same layer every time
	text := make([]byte, 4<<20)
	for i := 0; i < len(text); { // half noise, half words that come again
		n := copy(text[i:], fmt.Sprintf("the %d-th word of %d ", r.IntN(1000), r.IntN(50)))
		for range n {
			if i += 2; i <= len(text) {
				text[i-1] = byte(r.Uint32())
			}
		}
	}
	when := time.Unix(1_700_000_000, 0)
	for i := range files {
		dir := fmt.Sprintf("%s/usr/%03d/%03d/", orasTitle, i/filesPerDir/100, i/filesPerDir%100)
		if i%filesPerDir == 0 {
			if err := tw.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755, ModTime: when}); err != nil {
				return err
			}
			link := &tar.Header{Name: dir + "link", Linkname: "file-0", Typeflag: tar.TypeSymlink, Mode: 0o777, ModTime: when}
			if err := tw.WriteHeader(link); err != nil {
				return err
			}
		}
		size := sizeOf(r)
		if err := tw.WriteHeader(&tar.Header{Name: fmt.Sprintf("%sfile-%d", dir, i%filesPerDir), Mode: 0o644, Size: size, Typeflag: tar.TypeReg, ModTime: when}); err != nil {
			return err
		}
		off := r.Int64N(int64(len(text)) - size)
		if _, err := tw.Write(text[off : off+size]); err != nil {
			return err
		}
	}
	return nil
}

// makeRoot makes a layout with one image of one such layer.
func makeRoot(dir string, files int) (desc ocispec.Descriptor, err error) {
	l, err := newLayout(dir)
	if err != nil {
		return desc, err
	}
	y, err := l.rootLayer(files)
	if err != nil {
		return desc, err
	}
	return y.desc, errors.Join(l.image(rootRef, y), l.finish())
}

// benchExtract: a layer becomes files.
func (b *bench) benchExtract(ctx context.Context, s sizes) error {
	for _, at := range b.places() {
		if err := b.extractAt(ctx, at, s); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) extractAt(ctx context.Context, at place, s sizes) error {
	lay, out := filepath.Join(at.dir, "layout"), filepath.Join(at.dir, "out")
	desc, err := makeRoot(lay, s.rootFiles)
	if err != nil {
		return err
	}
	blob := filepath.Join(lay, "blobs", "sha256", desc.Digest.Encoded())
	absent := remove(out)
	empty := func(ctx context.Context) error { return errors.Join(absent(ctx), os.Mkdir(out, 0o755)) }
	one := func(args ...string) func() [][]string { return func() [][]string { return [][]string{args} } }
	unpack := []string{"umoci", "unpack", "--image", lay + ":" + rootRef, out}
	if os.Geteuid() != 0 {
		unpack = append([]string{"umoci", "unpack", "--rootless"}, unpack[2:]...)
	}
	extract := &contender{name: ours + " extract", prepare: absent, commands: one(b.program, "extract", "--quiet", lay+":"+rootRef, "-o", out)}
	peers := []*contender{
		{name: "tar -xzf, no sha256", missing: missing("tar"), prepare: empty, commands: one("tar", "-xzf", blob, "-C", out)},
		{name: "umoci unpack", missing: missing("umoci"), prepare: absent, commands: one(unpack...)},
		b.peer("oras-go, as oras pull", empty, "oras-pull", lay, rootRef, out),
	}
	all := append([]*contender{
		extract,
		{name: ours + " extract --rootfs", prepare: absent, commands: one(b.program, "extract", "--quiet", "--rootfs", lay+":"+rootRef, "-o", out)},
	}, peers...)

	r, err := b.startRegistry(ctx, "")
	if err != nil {
		return err
	}
	defer r.stop()
	name := r.address + "/bench"
	remote := &contender{name: ours + " extract, from a registry", missing: r.missing, prepare: absent, commands: one(b.program, "extract", "--quiet", "--tls-verify=false", "docker://"+name+":"+rootRef, "-o", out)}
	crane := &contender{
		name: "crane export | tar -x, from it", missing: r.missing + missing("crane"), prepare: empty,
		commands: one("sh", "-c", fmt.Sprintf("crane export --insecure %s:%s - | tar -x -C %s", name, rootRef, out)),
	}
	if r.missing == "" {
		if _, err := b.output(ctx, b.program, "sync", "--quiet", "--tls-verify=false", lay, "docker://"+name); err != nil {
			return err
		}
	}
	all = append(all, remote, crane)
	if err := b.compete(ctx, at.dir, b.rounds, all...); err != nil {
		return err
	}
	b.table(fmt.Sprintf("extract: a layer of %d files, %s compressed, %s", s.rootFiles, bytesText(desc.Size), at.name), all...)
	for _, peer := range peers {
		b.goalRatio(fmt.Sprintf("extract / %s, %s", peer.name, at.name), extract, peer, 1)
	}
	b.goalRatio("extract from a registry / crane export, "+at.name, remote, crane, 1)
	return remove(lay, out)(ctx)
}

// orasPull is what "oras pull" does with a layout: it copies the artifact to a
// directory and unpacks the layers that say that they are directories.
func orasPull(ctx context.Context, lay, ref, dir string) (err error) {
	from, err := oci.NewFromFS(ctx, os.DirFS(lay))
	if err != nil {
		return err
	}
	to, err := file.New(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	_, err = oras.Copy(ctx, from, ref, to, ref, oras.DefaultCopyOptions)
	return err
}
