package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// benchDiff: two layouts that differ in little, and two layers that do.
func (b *bench) benchDiff(ctx context.Context, s sizes) error {
	if err := b.diffMany(ctx, s); err != nil {
		return err
	}
	return b.diffLayer(ctx, s)
}

// differ is a contender that has to find differences: with status 1.
func (b *bench) differ(name string, args ...string) *contender {
	return &contender{name: name, status: 1, commands: func() [][]string {
		return [][]string{append([]string{b.program, "diff"}, args...)}
	}}
}

// diffMany: one image of many has another layer.
func (b *bench) diffMany(ctx context.Context, s sizes) error {
	a, z := filepath.Join(b.dir, "a"), filepath.Join(b.dir, "z")
	n := s.images[1]
	for _, dir := range []string{a, z} {
		if err := makeImages(dir, n, 1000); err != nil {
			return err
		}
	}
	if err := replaceImage(z, n/2, n); err != nil {
		return err
	}
	same := &contender{name: ours + " diff of a layout with itself", commands: func() [][]string {
		return [][]string{{b.program, "diff", "--quiet", a, a}}
	}}
	own := b.differ(ours+" diff", a, z)
	files := &contender{name: "diff --recursive --brief", status: 1, commands: func() [][]string {
		return [][]string{{"diff", "--recursive", "--brief", a, z}}
	}}
	if err := b.compete(ctx, b.dir, 3*b.rounds, own, same, files); err != nil {
		return err
	}
	b.table(fmt.Sprintf("diff: two layouts of %d images, of which one differs", n), own, same, files)
	b.goalTime(fmt.Sprintf("diff of two layouts of %d manifests, of which one differs", n), own, 100*time.Millisecond)
	return remove(a, z)(ctx)
}

// replaceImage gives image i of the layout at dir another layer.
func replaceImage(dir string, i, n int) error {
	l, err := newLayout(dir)
	if err != nil {
		return err
	}
	for k := range n {
		number := uint64(k)
		if k == i {
			number = uint64(n)
		}
		y, err := l.layer(number, 1000)
		if err != nil {
			return err
		}
		if err := l.image(fmt.Sprintf("image-%05d", k), y); err != nil {
			return err
		}
	}
	return l.finish()
}

// diffLayer: a layer in which some files changed, against decompressing and
// listing both sides at the same time.
func (b *bench) diffLayer(ctx context.Context, s sizes) error {
	dirs := []string{filepath.Join(b.dir, "a"), filepath.Join(b.dir, "z")}
	blobs := make([]ocispec.Descriptor, len(dirs))
	paths := make([]string, len(dirs))
	var g errgroup.Group
	for i, dir := range dirs {
		g.Go(func() error {
			l, err := newLayout(dir)
			if err != nil {
				return err
			}
			blobs[i], err = l.blob(ocispec.MediaTypeImageLayerGzip, func(w io.Writer) error { return writeFiles(w, s.layer, i) })
			if err != nil {
				return err
			}
			paths[i] = l.path(blobs[i].Digest)
			return errors.Join(l.artifact("bench", blobs[i:i+1]), l.finish())
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	own := b.differ(ours+" diff", dirs[0], dirs[1])
	script := func(list string) *contender {
		return &contender{missing: missing("bash"), commands: func() [][]string {
			return [][]string{{"bash", "-c", `diff <(gzip -dc "$0" | ` + list + `) <(gzip -dc "$1" | ` + list + `) >/dev/null; true`, paths[0], paths[1]}}
		}}
	}
	pass := script("tar --list --verbose")
	pass.name = "gunzip of both at once, their tar --list compared"
	if err := b.compete(ctx, b.dir, b.rounds, own, pass); err != nil {
		return err
	}
	b.table(fmt.Sprintf("diff: two layers of %s, gzip, some files changed", bytesText(blobs[0].Size)), own, pass)
	b.goalRatio(fmt.Sprintf("diff of layers of %s / gunzip and tar --list of both at once", bytesText(blobs[0].Size)), own, pass, 1.2)
	b.goal(fmt.Sprintf("memory of diff, layers of %s, under 64 MiB", bytesText(blobs[0].Size)), float64(own.rss()), 64<<20, bytesText(own.rss()))
	return remove(dirs...)(ctx)
}

// writeFiles writes a gzipped tar of about size bytes, of files of some 100 KiB
// that shrink to two fifths. One in a thousand is another for another variant.
func writeFiles(w io.Writer, size int64, variant int) error {
	c := &lengthWriter{w: w}
	zw, err := gzip.NewWriterLevel(c, gzip.BestSpeed)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(zw)
	for i := uint64(0); c.n < size; i++ {
		number, length := i, int64(1000+i*7919%200_000)
		if i%1000 == 500 {
			number += uint64(variant) << 32
		}
		header := &tar.Header{Name: fmt.Sprintf("usr/share/%03d/file-%07d", i/100, i), Mode: 0o644, Size: length, Typeflag: tar.TypeReg}
		if err := tw.WriteHeader(header); err != nil {
			return err
		}
		if _, err := io.Copy(tw, io.LimitReader(&text{noise: noise(number, length)}, length)); err != nil {
			return err
		}
	}
	return errors.Join(tw.Close(), zw.Close())
}

// text is noise that can be compressed: three bytes of five are from a small
// alphabet in runs.
type text struct{ noise io.Reader }

func (t *text) Read(p []byte) (int, error) {
	n, err := t.noise.Read(p)
	for i := range p[:n] {
		if i%32 >= 12 {
			p[i] = "the quick brown fox jumps over the dog "[i%32]
		}
	}
	return n, err
}

type lengthWriter struct {
	w io.Writer
	n int64
}

func (c *lengthWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
