package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// benchDelta: what is sent to somebody who has an older version, of a layer that
// is stored as it is, or compressed.
func (b *bench) benchDelta(ctx context.Context, s sizes) error {
	for _, format := range []string{"", "gzip", "zstd"} {
		if err := b.benchDeltaOf(ctx, format, s.file/4); err != nil {
			return err
		}
	}
	return nil
}

// A changed is one thing in two versions.
type changed struct {
	layouts, contents, blobs [2]string // directories; files
}

// changed makes layouts with a tar of real files as their layer, in two variants.
func (b *bench) changed(ctx context.Context, format string, size int64) (c changed, err error) {
	for i, name := range []string{"old", "new"} {
		c.layouts[i], c.contents[i] = filepath.Join(b.dir, name), filepath.Join(b.dir, name+".tar")
		if err := toFile(c.contents[i], false, func(w io.Writer) error { return writeReal(w, size, i) }); err != nil {
			return c, err
		}
		from, mediaType := c.contents[i], "application/vnd.example.tar"
		if format != "" {
			// Another process compresses: what this one needs of memory counts for all
			// that it starts.
			from, mediaType = filepath.Join(b.dir, "packed"), mediaType+"+"+format
			if _, err := b.output(ctx, b.self, "peer", "compress", format, c.contents[i], from); err != nil {
				return c, err
			}
		}
		l, err := newLayout(c.layouts[i])
		if err != nil {
			return c, err
		}
		desc, err := l.blob(mediaType, func(w io.Writer) error { return fromFile(from, nil, w) })
		if err != nil {
			return c, err
		}
		c.blobs[i] = l.path(desc.Digest)
		err = errors.Join(l.artifact("bench", []ocispec.Descriptor{desc}), l.finish(), remove(filepath.Join(b.dir, "packed"))(ctx))
		if err != nil {
			return c, err
		}
	}
	return c, nil
}

// benchDeltaOf compares with zstd, which of compressed layers may have the blobs;
// or the contents, of which it cannot make the blobs again: what it needs for that
// is near the least that could do.
func (b *bench) benchDeltaOf(ctx context.Context, format string, size int64) error {
	c, err := b.changed(ctx, format, size)
	if err != nil {
		return err
	}
	inside, whole, out := filepath.Join(b.dir, "inside.oci"), filepath.Join(b.dir, "blobs.oci"), filepath.Join(b.dir, "out")
	if _, err := b.output(ctx, b.program, "pack", "--quiet", c.layouts[1], whole, "--base", c.layouts[0]); err != nil {
		return err
	}
	command := func(name string, prepare func(context.Context) error, args ...string) *contender {
		return &contender{name: name, missing: missing(args[0]), prepare: prepare, commands: func() [][]string { return [][]string{args} }}
	}
	packs := []*contender{command(ours+" pack --delta-blobs", remove(inside), b.program, "pack", "--quiet", c.layouts[1], inside, "--base", c.layouts[0], "--delta-blobs")}
	unpacks := []*contender{command(ours+" unpack of that delta", remove(out), b.program, "unpack", "--quiet", inside, out, "--base", c.layouts[0])}
	files := []string{whole, inside}
	patchFrom := func(name, file string, versions [2]string) {
		by := filepath.Join(b.dir, file)
		packs = append(packs, command("zstd --patch-from"+name, remove(by), "zstd", "-q", "-3", fmt.Sprintf("-T%d", runtime.NumCPU()), "--long=31", "--patch-from="+versions[0], versions[1], "-o", by))
		unpacks = append(unpacks, command("zstd -d --patch-from"+name, remove(out), "zstd", "-q", "-d", "--long=31", "--patch-from="+versions[0], by, "-o", out))
		files = append(files, by)
	}
	what := "a tar"
	if format == "" {
		patchFrom("", "patch.zst", c.blobs)
	} else {
		what = "a layer in " + format + ", a tar"
		patchFrom(" of the blobs", "blobs.zst", c.blobs)
		patchFrom(" of the contents, which does not make the blobs", "contents.zst", c.contents)
	}
	for _, contenders := range [][]*contender{packs, unpacks} {
		if err := b.compete(ctx, b.dir, b.rounds, contenders...); err != nil {
			return err
		}
	}
	b.table(fmt.Sprintf("delta: %s of %s of real files, of which one in forty changed", what, bytesText(size)), packs...)
	b.table("delta: the same is put together again", unpacks...)
	var sizes []int64
	for _, file := range files {
		st, err := os.Stat(file)
		if err != nil {
			continue // of a tool that is missing
		}
		sizes = append(sizes, st.Size())
		b.printf("  %s: %s (%d bytes)\n", filepath.Base(file), bytesText(st.Size()), st.Size())
	}
	b.goal("a delta inside of blobs / one of blobs, of "+what+", at most a fifth of the size", float64(sizes[1])/float64(sizes[0]), 0.2, fmt.Sprintf("%.3g", float64(sizes[1])/float64(sizes[0])))
	for i := range 2 {
		files = append(files, c.layouts[i], c.contents[i])
	}
	return remove(append(files, out)...)(ctx)
}
