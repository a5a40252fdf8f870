package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// noise gives bytes that nothing can compress, the same for the same number.
func noise(number uint64, size int64) io.Reader {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], number)
	return io.LimitReader(rand.NewChaCha8(seed), size)
}

// writeNoise makes a file of noise.
func writeNoise(file string, number uint64, size int64) error {
	return toFile(file, true, func(w io.Writer) error {
		_, err := io.CopyBuffer(struct{ io.Writer }{w}, noise(number, size), make([]byte, 256<<10))
		return err
	})
}

// A builder writes a layout with nothing but the standard library: what is
// measured does not make its own input. Nothing is synced; [settle] does that.
type builder struct {
	dir     string
	entries []ocispec.Descriptor
	temps   int
}

func newLayout(dir string) (*builder, error) {
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return nil, err
	}
	marker := []byte(`{"imageLayoutVersion":"1.0.0"}`)
	return &builder{dir: dir}, os.WriteFile(filepath.Join(dir, ocispec.ImageLayoutFile), marker, 0o644)
}

// blob writes what write gives.
func (l *builder) blob(mediaType string, write func(w io.Writer) error) (desc ocispec.Descriptor, err error) {
	l.temps++
	temp := filepath.Join(l.dir, fmt.Sprintf("temp-%d", l.temps))
	f, err := os.Create(temp)
	if err != nil {
		return desc, err
	}
	c := &counter{h: sha256.New()}
	buffer := bufio.NewWriterSize(io.MultiWriter(f, c), 256<<10)
	if err := errors.Join(write(buffer), buffer.Flush(), f.Close()); err != nil {
		return desc, err
	}
	desc = ocispec.Descriptor{MediaType: mediaType, Digest: digest.NewDigest(digest.SHA256, c.h), Size: c.n}
	return desc, os.Rename(temp, l.path(desc.Digest))
}

type counter struct {
	h hash.Hash
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return c.h.Write(p)
}

func (l *builder) path(d digest.Digest) string {
	return filepath.Join(l.dir, "blobs", string(d.Algorithm()), d.Encoded())
}

func (l *builder) json(mediaType string, v any) (ocispec.Descriptor, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return l.blob(mediaType, func(w io.Writer) error {
		_, err := w.Write(raw)
		return err
	})
}

// entry puts a manifest into index.json under a ref name.
func (l *builder) entry(desc ocispec.Descriptor, refName string) {
	desc.Annotations = map[string]string{ocispec.AnnotationRefName: refName}
	l.entries = append(l.entries, desc)
}

func (l *builder) finish() error {
	raw, err := json.Marshal(imageIndex(l.entries))
	if err != nil {
		return err
	}
	temp := filepath.Join(l.dir, "temp")
	return errors.Join(os.WriteFile(temp, raw, 0o644), os.Rename(temp, filepath.Join(l.dir, ocispec.ImageIndexFile)))
}

func imageIndex(entries []ocispec.Descriptor) ocispec.Index {
	return ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: entries}
}

func manifest(config ocispec.Descriptor, layers []ocispec.Descriptor) ocispec.Manifest {
	return ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: layers}
}

// artifact names layers that are there already by one manifest.
func (l *builder) artifact(refName string, layers []ocispec.Descriptor) error {
	empty, err := l.blob(ocispec.MediaTypeEmptyJSON, func(w io.Writer) error {
		_, err := io.WriteString(w, "{}")
		return err
	})
	if err != nil {
		return err
	}
	desc, err := l.json(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: "application/vnd.example.bench", Config: empty, Layers: layers,
	})
	if err != nil {
		return err
	}
	l.entry(desc, refName)
	return nil
}

// A layer is a gzipped tar with one file of noise; tools that look inside find
// what they expect.
type layer struct {
	desc   ocispec.Descriptor
	diffID digest.Digest
}

func (l *builder) layer(number uint64, size int64) (layer, error) {
	diff := sha256.New()
	desc, err := l.blob(ocispec.MediaTypeImageLayerGzip, func(w io.Writer) error {
		zw, err := gzip.NewWriterLevel(w, gzip.NoCompression) // it is noise
		if err != nil {
			return err
		}
		tw := tar.NewWriter(io.MultiWriter(zw, diff))
		header := &tar.Header{Name: fmt.Sprintf("file-%d", number), Mode: 0o644, Size: size, Typeflag: tar.TypeReg}
		if err := tw.WriteHeader(header); err != nil {
			return err
		}
		if _, err := io.Copy(tw, noise(number, size)); err != nil {
			return err
		}
		return errors.Join(tw.Close(), zw.Close())
	})
	return layer{desc, digest.NewDigest(digest.SHA256, diff)}, err
}

// image makes a container image of layers.
func (l *builder) image(refName string, layers ...layer) error {
	created := time.Unix(0, 0).UTC() // umoci stat needs one
	config := ocispec.Image{
		Created:  &created,
		Platform: ocispec.Platform{Architecture: "amd64", OS: "linux"},
		Config:   ocispec.ImageConfig{Labels: map[string]string{"name": refName}},
		RootFS:   ocispec.RootFS{Type: "layers"},
	}
	var descs []ocispec.Descriptor
	for _, y := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, y.diffID)
		config.History = append(config.History, ocispec.History{Created: &created, CreatedBy: "bench"})
		descs = append(descs, y.desc)
	}
	desc, err := l.json(ocispec.MediaTypeImageConfig, config)
	if err != nil {
		return err
	}
	desc, err = l.json(ocispec.MediaTypeImageManifest, manifest(desc, descs))
	if err != nil {
		return err
	}
	l.entry(desc, refName)
	return nil
}

// makeBlobs makes a layout of one artifact with blobs of noise.
func makeBlobs(dir string, blobs int, size int64) (files []string, err error) {
	l, err := newLayout(dir)
	if err != nil {
		return nil, err
	}
	var layers []ocispec.Descriptor
	for i := range blobs {
		desc, err := l.blob("application/octet-stream", func(w io.Writer) error {
			_, err := io.Copy(w, noise(uint64(i), size))
			return err
		})
		if err != nil {
			return nil, err
		}
		layers = append(layers, desc)
		files = append(files, l.path(desc.Digest))
	}
	return files, errors.Join(l.artifact("bench", layers), l.finish())
}

// makeImages makes a layout of small images: a manifest, a config and a layer
// each, and a ref name.
func makeImages(dir string, n int, layer int64) error {
	l, err := newLayout(dir)
	if err != nil {
		return err
	}
	for i := range n {
		y, err := l.layer(uint64(i), layer)
		if err != nil {
			return err
		}
		if err := l.image(fmt.Sprintf("image-%05d", i), y); err != nil {
			return err
		}
	}
	return l.finish()
}

// makeShared makes a layout of images with a layer that they share and one
// that each has alone.
func makeShared(dir string, s sizes) error {
	l, err := newLayout(dir)
	if err != nil {
		return err
	}
	base, err := l.layer(0, s.shared)
	if err != nil {
		return err
	}
	for i := range s.tags {
		own, err := l.layer(uint64(i+1), s.ownLayer)
		if err != nil {
			return err
		}
		if err := l.image(tagName(i), base, own); err != nil {
			return err
		}
	}
	return l.finish()
}

// makeFlavours makes a layout of one index under the ref name "all", of n small
// images. Another state gives the one in the middle other content.
func makeFlavours(dir string, n, state int) error {
	l, err := newLayout(dir)
	if err != nil {
		return err
	}
	for i := range n {
		number := uint64(i)
		if i == n/2 {
			number += uint64(n * state)
		}
		y, err := l.layer(number, 1000)
		if err != nil {
			return err
		}
		if err := l.image(fmt.Sprintf("flavour-%05d", i), y); err != nil {
			return err
		}
	}
	for i := range l.entries {
		// What tells one flavour from another, as in an index of Garden Linux.
		l.entries[i].Platform = &ocispec.Platform{Architecture: "amd64", OS: "linux", OSVersion: "1.0"}
		l.entries[i].Annotations = map[string]string{"cname": fmt.Sprintf("flavour-%05d-amd64-1.0", i), "architecture": "amd64"}
	}
	desc, err := l.json(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: l.entries,
	})
	if err != nil {
		return err
	}
	l.entries = nil
	l.entry(desc, "all")
	return l.finish()
}

func tagName(i int) string { return fmt.Sprintf("tag-%02d", i) }

// makeSparse makes a layout of one artifact with one blob of zeros that needs
// no room on the disk.
func makeSparse(dir string, size int64) error {
	l, err := newLayout(dir)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "zeros")
	if err := truncated(file, size); err != nil {
		return err
	}
	h := sha256.New()
	if err := fromFile(file, h, io.Discard); err != nil {
		return err
	}
	desc := ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.NewDigest(digest.SHA256, h), Size: size}
	return errors.Join(os.Rename(file, l.path(desc.Digest)), l.artifact("big", []ocispec.Descriptor{desc}), l.finish())
}

func truncated(file string, size int64) error {
	return errors.Join(os.WriteFile(file, nil, 0o644), os.Truncate(file, size))
}

// garbage puts n blobs that nothing names into the layout at dir.
func garbage(dir string, n int) error {
	l := &builder{dir: dir}
	for i := range n {
		_, err := l.blob("", func(w io.Writer) error {
			_, err := io.Copy(w, bytes.NewReader(fmt.Appendf(nil, "garbage %d", i)))
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
