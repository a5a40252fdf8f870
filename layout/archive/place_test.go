package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/archive"
	"github.com/gardenlinux/gloci-layout/layout/sourcetest"
)

// large returns a layout with blobs on both sides of the size from which they
// are written at their places, and the digests of all its blobs in the order of
// an archive.
func large(t *testing.T) (string, []digest.Digest) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "large")
	c := sourcetest.Write(t, dir)
	noise := rand.NewChaCha8([32]byte{1})
	digests := slices.Clone(c.Reachable)
	for i, size := range []int{1<<20 - 1, 1 << 20, 1<<20 + 1, 1<<20 + 511, 100, 2<<20 + 4096} {
		content := make([]byte, size)
		_, _ = noise.Read(content)
		for _, a := range []digest.Algorithm{digest.SHA256, digest.SHA512}[i%2:] {
			d := a.FromBytes(content)
			if err := os.MkdirAll(filepath.Join(dir, "blobs", string(a)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, layout.BlobPath(d)), content, 0o644); err != nil {
				t.Fatal(err)
			}
			digests = append(digests, d)
		}
	}
	slices.SortFunc(digests, func(a, b digest.Digest) int { return strings.Compare(layout.BlobPath(a), layout.BlobPath(b)) })
	return dir, digests
}

// procs runs f with as many processors.
func procs(t *testing.T, f func(t *testing.T)) {
	for _, n := range []int{1, 2, 16} {
		t.Run(fmt.Sprintf("GOMAXPROCS=%d", n), func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(n))
			f(t)
		})
	}
}

// A file whose blobs are written at once has the bytes of one that is written
// from the beginning on.
func TestPackPlaced(t *testing.T) {
	dir, digests := large(t)
	l := openDir(t, dir)
	want := packed(t, l, &archive.PackOptions{All: true})
	procs(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "x.oci")
		kinds, read := map[digest.Digest]string{}, map[digest.Digest]int64{}
		_, err := archive.PackFile(t.Context(), l, file, &archive.PackOptions{All: true, NoDigest: true, Progress: func(e layout.Event) {
			if e.Kind != "bytes" {
				kinds[e.Desc.Digest] += e.Kind + " "
			}
			read[e.Desc.Digest] += e.Bytes
		}})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, %v: not the %d of Pack", len(got), err, len(want))
		}
		for _, d := range digests {
			info, err := l.Stat(t.Context(), d)
			if err != nil || kinds[d] != "start done " || read[d] != info.Size {
				t.Errorf("%s: events %q, %d bytes of %d, %v", d, kinds[d], read[d], info.Size, err)
			}
		}
		// Packed again out of the archive.
		a, err := archive.Open(t.Context(), file, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		again := filepath.Join(t.TempDir(), "y.oci")
		if _, err := archive.PackFile(t.Context(), a, again, &archive.PackOptions{All: true, NoDigest: true}); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(again); err != nil || !bytes.Equal(got, want) {
			t.Errorf("out of the archive: %d bytes, %v: not the %d of Pack", len(got), err, len(want))
		}
	})
}

// Whichever blobs are damaged, and whoever finds that first, the error is that of
// the first in the archive, and that of Pack. Nothing is left behind.
func TestPackPlacedDamage(t *testing.T) {
	dir, digests := large(t)
	l := openDir(t, dir)
	packs := func(t *testing.T, want digest.Digest, damaged []digest.Digest) {
		t.Helper()
		opts := &archive.PackOptions{All: true, NoDigest: true}
		streamed := archive.Pack(t.Context(), l, new(bytes.Buffer), opts)
		before := runtime.NumGoroutine()
		out := t.TempDir()
		_, err := archive.PackFile(t.Context(), l, filepath.Join(out, "x.oci"), opts)
		var blob *layout.BlobError
		if !errors.As(err, &blob) || blob.Desc.Digest != want || !errors.Is(err, layout.ErrMismatch) {
			t.Errorf("damaged %v: error %v, want ErrMismatch of %s", damaged, err, want)
		}
		if streamed == nil || err == nil || streamed.Error() != err.Error() {
			t.Errorf("damaged %v: %v, and Pack says %v", damaged, err, streamed)
		}
		if got := files(t, out); len(got) > 0 {
			t.Errorf("damaged %v: %d files are left", damaged, len(got))
		}
		// One that is done may still be on its way out.
		for wait := time.Millisecond; runtime.NumGoroutine() > before; wait *= 2 {
			if wait > time.Second {
				t.Errorf("damaged %v: %d goroutines, %d before", damaged, runtime.NumGoroutine(), before)
				break
			}
			time.Sleep(wait)
		}
	}
	change := func(t *testing.T, damaged []digest.Digest) {
		for _, d := range damaged {
			if err := flip(filepath.Join(dir, layout.BlobPath(d))); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Documents are read before, and their damage is found then.
	var blobs []digest.Digest
	for _, d := range digests {
		if info, err := l.Stat(t.Context(), d); err == nil && info.Size >= 100 && !isDocument(t, dir, d) {
			blobs = append(blobs, d)
		}
	}
	procs(t, func(t *testing.T) {
		for i, d := range blobs {
			damaged := []digest.Digest{d}
			for k := i + 1; k < len(blobs); k += 3 {
				damaged = append(damaged, blobs[k])
			}
			change(t, damaged)
			packs(t, d, damaged)
			change(t, damaged)
		}
	})
}

func isDocument(t *testing.T, dir string, d digest.Digest) bool {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, layout.BlobPath(d)))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(content, []byte("schemaVersion"))
}

// A file gets shorter while it is packed.
func TestPackPlacedCut(t *testing.T) {
	dir, digests := large(t)
	l := openDir(t, dir)
	var victim digest.Digest
	for _, d := range digests {
		if info, err := l.Stat(t.Context(), d); err == nil && info.Size > 2<<20 {
			victim = d
			break
		}
	}
	file := filepath.Join(t.TempDir(), "x.oci")
	_, err := archive.PackFile(t.Context(), l, file, &archive.PackOptions{All: true, NoDigest: true, Progress: func(e layout.Event) {
		if e.Kind == "start" && e.Desc.Digest == victim {
			if err := os.Truncate(filepath.Join(dir, layout.BlobPath(victim)), 1<<20); err != nil {
				t.Error(err)
			}
		}
	}})
	if !errors.Is(err, layout.ErrMismatch) || !strings.Contains(err.Error(), string(victim)) {
		t.Errorf("a file that was cut: error %v, want ErrMismatch of %s", err, victim)
	}
	if got := files(t, filepath.Dir(file)); len(got) > 0 {
		t.Errorf("%d files are left", len(got))
	}
}

func TestPackPlacedCanceled(t *testing.T) {
	dir, _ := large(t)
	l := openDir(t, dir)
	procs(t, func(t *testing.T) {
		for _, stop := range []int{1, 10, 40} {
			ctx, cancel := context.WithCancel(t.Context())
			n := 0
			out := t.TempDir()
			_, err := archive.PackFile(ctx, l, filepath.Join(out, "x.oci"), &archive.PackOptions{All: true, NoDigest: true, Progress: func(layout.Event) {
				if n++; n == stop {
					cancel()
				}
			}})
			cancel()
			if !errors.Is(err, context.Canceled) || len(files(t, out)) > 0 {
				t.Errorf("canceled after %d events: error %v, %d files", stop, err, len(files(t, out)))
			}
		}
	})
}

// A file that may not become as large as the archive.
func TestPackPlacedNoRoom(t *testing.T) {
	dir, _ := large(t)
	l := openDir(t, dir)
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	limit := old
	limit.Cur = 4 << 20
	out := t.TempDir()
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	_, err := archive.PackFile(t.Context(), l, filepath.Join(out, "x.oci"), &archive.PackOptions{All: true, NoDigest: true})
	if rerr := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); rerr != nil {
		t.Fatal(rerr)
	}
	if !errors.Is(err, syscall.EFBIG) || len(files(t, out)) > 0 {
		t.Errorf("error %v, %d files; want EFBIG, and none", err, len(files(t, out)))
	}
}

// The size of a blob does not reach the memory that it takes.
func TestPackPlacedMemory(t *testing.T) {
	l := largeBlob(t, 64<<20)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := archive.PackFile(t.Context(), l, filepath.Join(t.TempDir(), "x.oci"), &archive.PackOptions{All: true, NoDigest: true})
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; err != nil || got > 16<<20 {
		t.Errorf("PackFile allocated %d bytes in all, %v", got, err)
	}
}
