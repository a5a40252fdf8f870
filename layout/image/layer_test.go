package image_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/image"
)

// A tar archive becomes a layer of any format, whatever it came in; a prepared
// layer stays what it is. The diffID is that of the archive in any case.
func TestStageTarAndLayer(t *testing.T) {
	s := stage(t)
	// More than one block of gzip, and something behind the end of the archive.
	raw := append(archiveOf(t, "f", strings.Repeat("content ", 400_000)), make([]byte, 10240)...)
	for in := range mediaTypes {
		path := write(t, compressed(t, raw, in))
		for out, mediaType := range mediaTypes {
			l, err := image.StageTar(t.Context(), s, path, out)
			must(t, err)
			checkLayer(t, s, l, mediaType, raw, compressed(t, raw, out))
		}
		l, err := image.StageLayer(t.Context(), s, path)
		must(t, err)
		checkLayer(t, s, l, mediaTypes[in], raw, compressed(t, raw, in))
	}
}

func checkLayer(t *testing.T, s *layout.Stage, l image.Layer, mediaType string, raw, want []byte) {
	t.Helper()
	got, err := layout.ReadAll(t.Context(), s, l.Desc, 1<<30)
	must(t, err)
	if l.DiffID != digest.FromBytes(raw) || l.Desc.MediaType != mediaType || !bytes.Equal(got, want) {
		t.Errorf("layer %+v: want diffID %s, media type %s and %d bytes", l, digest.FromBytes(raw), mediaType, len(want))
	}
}

func TestStageErrors(t *testing.T) {
	s := stage(t)
	raw := archiveOf(t, "f", strings.Repeat("x", 5000))
	gz := compressed(t, raw, compress.Gzip)
	for name, c := range map[string]struct {
		path string
		want error
	}{
		"absent":           {filepath.Join(t.TempDir(), "absent"), layout.ErrNotFound},
		"empty":            {write(t, nil), layout.ErrInvalid},
		"text":             {write(t, []byte(strings.Repeat("no tar\n", 1000))), layout.ErrInvalid},
		"short text":       {write(t, []byte("no tar\n")), layout.ErrInvalid},
		"cut":              {write(t, raw[:2000]), layout.ErrInvalid},
		"cut gzip":         {write(t, gz[:len(gz)-9]), compress.ErrCorrupt},
		"gzip of text":     {write(t, compressed(t, []byte(strings.Repeat("no tar\n", 1000)), compress.Gzip)), layout.ErrInvalid},
		"bytes after gzip": {write(t, append(bytes.Clone(gz), "more"...)), compress.ErrCorrupt},
		"xz":               {write(t, []byte("\xfd7zXZ\x00 and so on")), compress.ErrCorrupt},
		"bzip2":            {write(t, []byte("BZh91 and so on")), compress.ErrCorrupt},
		"device":           {os.DevNull, layout.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			for what, do := range map[string]func() (image.Layer, error){
				"StageTar":   func() (image.Layer, error) { return image.StageTar(t.Context(), s, c.path, compress.Gzip) },
				"StageLayer": func() (image.Layer, error) { return image.StageLayer(t.Context(), s, c.path) },
			} {
				if l, err := do(); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.path) || l.Desc.Digest != "" {
					t.Errorf("%s = %+v, %v, want %v", what, l, err, c.want)
				}
			}
		})
	}
	if _, err := image.StageTar(t.Context(), s, write(t, raw), compress.Xz); !errors.Is(err, compress.ErrUnsupported) {
		t.Errorf("StageTar to xz = %v, want ErrUnsupported", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "f"), nil, 0o644))
	for what, do := range map[string]func() (image.Layer, error){
		"StageTar":   func() (image.Layer, error) { return image.StageTar(ctx, s, write(t, raw), compress.Gzip) },
		"StageLayer": func() (image.Layer, error) { return image.StageLayer(ctx, s, write(t, raw)) },
		"StageTree":  func() (image.Layer, error) { return image.StageTree(ctx, s, dir, compress.Zstd, nil) },
	} {
		if _, err := do(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s, canceled = %v", what, err)
		}
	}
}

// A pipe that nobody writes to ends with the context.
func TestStageTarFromPipe(t *testing.T) {
	s := stage(t)
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close() //nolint:errcheck // of a test
	path := fmt.Sprintf("/proc/self/fd/%d", r.Fd())
	if runtime.GOOS != "linux" {
		t.Skip("there is no /proc")
	}
	raw := archiveOf(t, "f", "piped")
	go func() {
		_, _ = w.Write(raw)
		_ = w.Close()
	}()
	l, err := image.StageTar(t.Context(), s, path, compress.None)
	must(t, err)
	checkLayer(t, s, l, mediaTypes[compress.None], raw, raw)

	silent, keep, err := os.Pipe()
	must(t, err)
	defer silent.Close() //nolint:errcheck // of a test
	defer keep.Close()   //nolint:errcheck // of a test
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := image.StageTar(ctx, s, fmt.Sprintf("/proc/self/fd/%d", silent.Fd()), compress.None); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("StageTar of a silent pipe = %v, want the deadline", err)
	}
}

// BenchmarkStageTree compares a layer with its parts: reading, hashing twice and
// compressing 64 MiB.
func BenchmarkStageTree(b *testing.B) {
	dir := b.TempDir()
	content := make([]byte, 1<<20)
	for i := range content {
		sum := sha256.Sum256([]byte{byte(i), byte(i >> 8), byte(i >> 16)})
		content[i] = hex.EncodeToString(sum[:1])[0]
	}
	for i := range 64 {
		must(b, os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), content, 0o644))
	}
	for f := range mediaTypes {
		b.Run(f.String(), func(b *testing.B) {
			b.SetBytes(64 << 20)
			for b.Loop() {
				if _, err := image.StageTree(b.Context(), stage(b), dir, f, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
