package main

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/compress"
)

// realFiles are the files of this machine that are compressed.
const realFiles = "/usr"

// writeReal writes a tar of size bytes or a little more, of the files below
// realFiles in the order of their names, as far as they can be read. In another
// variant one file in forty is another: its second half comes first.
func writeReal(w io.Writer, size int64, variant int) error {
	c := &lengthWriter{w: w}
	tw := tar.NewWriter(c)
	files := 0
	err := filepath.WalkDir(realFiles, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil // what cannot be read is left out
		}
		f, err := os.Open(path)
		if err != nil {
			return nil
		}
		defer f.Close() //nolint:errcheck // only read
		st, err := f.Stat()
		if err != nil || st.Size() > 128<<20 {
			return nil
		}
		half := int64(0)
		if files++; variant > 0 && files%40 == 20 {
			half = st.Size() / 2
		}
		header := &tar.Header{Name: strings.TrimPrefix(path, "/"), Mode: 0o644, Size: st.Size(), Typeflag: tar.TypeReg}
		if err := tw.WriteHeader(header); err != nil {
			return err
		}
		if _, err := io.Copy(tw, io.MultiReader(io.NewSectionReader(f, half, st.Size()-half), io.NewSectionReader(f, 0, half))); err != nil {
			return err
		}
		if c.n >= size {
			return fs.SkipAll
		}
		return nil
	})
	return errors.Join(err, tw.Close())
}

// compressFile is this program as a peer: a file becomes a compressed one.
func compressFile(format, from, to string) error {
	f, err := compress.ParseFormat(format)
	if err != nil {
		return err
	}
	return toFile(to, false, func(w io.Writer) error {
		z, err := compress.NewWriter(w, f, 0)
		if err != nil {
			return err
		}
		return errors.Join(fromFile(from, nil, z), z.Close())
	})
}

// benchCompress: a tar of real files is compressed by package compress, at the
// levels that it has without being told, and by the tools that people use.
func (b *bench) benchCompress(ctx context.Context, s sizes) error {
	file := filepath.Join(b.dir, "real.tar")
	if err := toFile(file, true, func(w io.Writer) error { return writeReal(w, s.file, 0) }); err != nil {
		return err
	}
	own := func(format string) *contender {
		out := filepath.Join(b.dir, "ours."+format)
		return b.peer(ours+" (package compress), "+format, remove(out), "compress", format, file, out)
	}
	tool := func(out string, args ...string) *contender {
		out = filepath.Join(b.dir, out)
		return &contender{name: strings.Join(args, " "), missing: missing(args[0]), prepare: remove(out), commands: func() [][]string {
			return [][]string{{"sh", "-c", fmt.Sprintf("%s <%s >%s", strings.Join(args, " "), file, out)}}
		}}
	}
	cores := fmt.Sprint(runtime.NumCPU())
	zstd, gzip := own("zstd"), own("gzip")
	zstdTool, pigz, igzip := tool("tool.zst", "zstd", "-3", "-T"+cores, "-c"), tool("tool.gz", "pigz", "-6", "-p"+cores, "-c"), tool("igzip.gz", "igzip", "-3", "-T"+cores, "-c")
	contenders := []*contender{zstd, zstdTool, gzip, pigz, igzip}
	if err := b.compete(ctx, b.dir, b.rounds, contenders...); err != nil {
		return err
	}
	b.table(fmt.Sprintf("compress: a tar of %s of real files, nothing is synced", bytesText(s.file)), contenders...)
	for i, name := range []string{"ours.zstd", "tool.zst", "ours.gzip", "tool.gz", "igzip.gz"} {
		if st, err := os.Stat(filepath.Join(b.dir, name)); err == nil {
			b.printf("  %s: %s (%d bytes)\n", contenders[i].name, bytesText(st.Size()), st.Size())
		}
	}
	b.goalRatio("compress to zstd / the zstd command", zstd, zstdTool, 1.15)
	b.goalRatio("compress to gzip / pigz", gzip, pigz, 1)
	return remove(file, filepath.Join(b.dir, "ours.zstd"), filepath.Join(b.dir, "tool.zst"), filepath.Join(b.dir, "ours.gzip"), filepath.Join(b.dir, "tool.gz"), filepath.Join(b.dir, "igzip.gz"))(ctx)
}

// realLayer is the archive of writeReal as a layer in gzip. Another process makes
// it: what this one needs of memory counts for all that it starts.
func (b *bench) realLayer(ctx context.Context, l *builder, size int64) (y layer, err error) {
	plain, packed := filepath.Join(b.dir, "plain"), filepath.Join(b.dir, "packed")
	hash := sha256.New()
	if err := toFile(plain, false, func(w io.Writer) error { return writeReal(io.MultiWriter(w, hash), size, 0) }); err != nil {
		return y, err
	}
	if _, err := b.output(ctx, b.self, "peer", "compress", "gzip", plain, packed); err != nil {
		return y, err
	}
	y.diffID = digest.NewDigest(digest.SHA256, hash)
	y.desc, err = l.blob(ocispec.MediaTypeImageLayerGzip, func(w io.Writer) error { return fromFile(packed, nil, w) })
	return y, errors.Join(err, remove(plain, packed)(ctx))
}

// benchRecompress: a layer in gzip becomes one in zstd.
func (b *bench) benchRecompress(ctx context.Context, s sizes) error {
	from, lay, out := filepath.Join(b.dir, "from"), filepath.Join(b.dir, "layout"), filepath.Join(b.dir, "layer.zst")
	l, err := newLayout(from)
	if err != nil {
		return err
	}
	y, err := b.realLayer(ctx, l, s.file)
	if err != nil {
		return err
	}
	if err := errors.Join(l.image("bench", y), l.finish()); err != nil {
		return err
	}
	own := &contender{name: ours + " recompress --to zstd", prepare: func(ctx context.Context) error {
		return errors.Join(remove(lay)(ctx), os.CopyFS(lay, os.DirFS(from)))
	}, commands: func() [][]string {
		return [][]string{{b.program, "recompress", "--quiet", lay, "--all", "--to", "zstd"}}
	}}
	pipe := func(name, end string) *contender {
		return &contender{name: name, missing: missing("pigz") + missing("zstd"), prepare: remove(out), commands: func() [][]string {
			return [][]string{{"sh", "-c", fmt.Sprintf("pigz -dc %s | zstd -3 -T%d -c %s", l.path(y.desc.Digest), runtime.NumCPU(), end)}}
		}}
	}
	plain := pipe("pigz -dc | zstd, no sha256, no fsync", ">"+out)
	hashed := pipe("the same | sha256 + write + fsync", fmt.Sprintf("| %s peer hash-stdin %s", b.self, out))
	if err := b.compete(ctx, b.dir, b.rounds, own, plain, hashed); err != nil {
		return err
	}
	b.table(fmt.Sprintf("recompress: a layer of %s in gzip, %s of real files", bytesText(y.desc.Size), bytesText(s.file)), own, plain, hashed)
	b.goalRatio("recompress gzip to zstd / pigz -dc | zstd", own, plain, 1.15)
	return remove(from, lay, out)(ctx)
}
