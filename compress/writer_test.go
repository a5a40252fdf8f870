package compress_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/gardenlinux/gloci-layout/compress"
)

// sample returns n bytes that neither repeat exactly nor look random: words
// drawn by a fixed linear congruential generator, with some noise between.
func sample(n int) []byte {
	words := []string{"garden", "linux", "index.json", "blobs/", "sha256:", "\x00\x00\x00\x00\x00\x00", "layer", "\n"}
	b := make([]byte, 0, n+16)
	for x := uint64(1); len(b) < n; {
		x = x*6364136223846793005 + 1442695040888963407
		if x>>60 == 0 {
			b = append(b, byte(x>>32), byte(x>>40))
			continue
		}
		b = append(b, words[x>>61]...)
	}
	return b[:n]
}

// pack compresses in in writes of chunk bytes.
func pack(t testing.TB, in []byte, f compress.Format, level, chunk int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := compress.NewWriter(&out, f, level)
	if err != nil {
		t.Fatal(err)
	}
	for rest := in; len(rest) > 0; {
		n := min(chunk, len(rest))
		if _, err := w.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func unpack(t testing.TB, in []byte, f compress.Format) []byte {
	t.Helper()
	r, err := compress.NewReader(bytes.NewReader(in), f)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// golden pins the bytes that are written. When a row moves after an upgrade of
// the compression library, layers and tarballs that users rebuild get new
// digests: that is a change for the CHANGELOG, not a figure to refresh silently.
var golden = []struct {
	size   int
	format compress.Format
	level  int
	want   string // sha256 of the output
}{
	{0, compress.Gzip, 0, "18cc39fce6d400d61490af9d0ee22138f8e8b0050ae6ef1ba78dc6ca38d611ca"},
	{0, compress.Zstd, 0, "6fb8543883dafcc2ed0934866b8b3f775231f5b0933add08bf502e9e84944cbd"},
	{1, compress.Gzip, 0, "e001e149e20f8d339c59b9c98a2089ed6f91c4ee1d1d675037c5ae2d1ebed964"},
	{1, compress.Zstd, 0, "ea67e7b43df2d2f189c63e65483ae53b44f8590fd8d48139b83855797128f4b0"},
	{1 << 20, compress.Gzip, 0, "aceb58fa680f061f7c8dddf6e6a59589d958f81bcc002d8adaaa501615100719"},
	{2<<20 + 17, compress.Gzip, 0, "fa03554747d1edfacd13664301ee9ebd62556bf88d467bfa47d606d01ea6eb85"},
	{2<<20 + 17, compress.Gzip, 1, "cffcaa21103c14695af8ce8b04f79858fe1b3e32201138fab1dc039fab4f7005"},
	{2<<20 + 17, compress.Gzip, 9, "04ee455be45b7f98e05defa853fe2ac96700acfababa3223213a3aa3af84bc8f"},
	{2<<20 + 17, compress.Zstd, 0, "e8be5686ddf6ade505526746f843333829c06d092b3e147d2855a318403f2c56"},
	{2<<20 + 17, compress.Zstd, 1, "54557c816e8c647ac3a28942d48354b8c94c70a9bcc8718e33a652138d18c10f"},
	{2<<20 + 17, compress.Zstd, 7, "e069ca91b407c148af70c8214081f12b73787e146989b99454c59db7b77284c5"},
	{compress.ZstdFrame, compress.Zstd, 0, "45ccffbd9c276f94d1bfe19249f0fbba7d8490e2fc112cf4dbacd65b8037b9eb"},
	{compress.ZstdFrame + 1, compress.Zstd, 0, "b45674caae65a1734db4f614f83ee8c0b2b88e1cf478acdceb0b78cefef0e9a7"},
	{2<<20 + 17, compress.Zstd, 19, "e16dbf70f44dcba4d4451e3c5cadcaf3f3fe33a9f6697c82fcae1775f4917bf1"},
}

func TestWriterGolden(t *testing.T) {
	in := sample(compress.ZstdFrame + 17)
	for _, tt := range golden {
		t.Run(fmt.Sprintf("%s-%d of %d", tt.format, tt.level, tt.size), func(t *testing.T) {
			if testing.Short() && tt.size > 1<<20 {
				t.Skip("seconds with the race detector, for which TestWriterSameBytes is enough")
			}
			out := pack(t, in[:tt.size], tt.format, tt.level, 1<<20)
			if got := fmt.Sprintf("%x", sha256.Sum256(out)); got != tt.want {
				t.Errorf("sha256 of the %d bytes written = %s, want %s", len(out), got, tt.want)
			}
			if got := compress.Detect(out); got != tt.format {
				t.Errorf("Detect = %v, want %v", got, tt.format)
			}
			if got := unpack(t, out, tt.format); !bytes.Equal(got, in[:tt.size]) {
				t.Errorf("read back %d bytes that differ from the %d written", len(got), tt.size)
			}
		})
	}
}

// The number of cores and the sizes of writes must not reach the bytes, nor
// what other writers do. Of zstd, the levels between have the bytes of these.
// With GLOCI_BIG=1 each level is tried in all ways.
func TestWriterSameBytes(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	big := os.Getenv("GLOCI_BIG") == "1"
	in := sample(compress.ZstdFrame + 123)
	for _, tt := range []struct {
		f      compress.Format
		size   int
		levels []int
	}{
		{compress.Gzip, 3<<20 + 123, []int{1, 2, 3, 4, 5, 6, 7, 8, 9}},
		{compress.Zstd, compress.ZstdFrame + 123, []int{1, 3, 6, 10}},
	} {
		for _, level := range tt.levels {
			if testing.Short() && level != 3 {
				continue
			}
			in := in[:tt.size]
			if level >= 6 && tt.f == compress.Zstd && !big {
				continue // seconds for each; the golden bytes are those of several machines
			}
			runtime.GOMAXPROCS(1)
			want := pack(t, in, tt.f, level, 1<<20)
			procs, chunks := []int{1, 2, 16}, []int{4093, 1<<20 + 1, len(in)}
			for i, n := range procs {
				runtime.GOMAXPROCS(n)
				for j, chunk := range chunks {
					if i != j && !big {
						continue
					}
					if got := pack(t, in, tt.f, level, chunk); !bytes.Equal(got, want) {
						t.Errorf("%v level %d: %d cores, writes of %d: other bytes", tt.f, level, n, chunk)
					}
				}
			}
			if level != 3 && !big {
				continue
			}
			var g errgroup.Group
			for range 3 {
				g.Go(func() error {
					if got := pack(t, in, tt.f, level, len(in)); !bytes.Equal(got, want) {
						t.Errorf("%v level %d: other bytes beside other writers", tt.f, level)
					}
					return nil
				})
			}
			_ = g.Wait() // it has no error
		}
	}
}

// The levels of zstd that are said to be the same, are.
func TestZstdLevels(t *testing.T) {
	in := sample(100 << 10)
	for _, levels := range [][]int{{1, 2}, {3, 0, 4, 5}, {6, 7, 8, 9}, {10, 11, 19, 22}} {
		want := pack(t, in, compress.Zstd, levels[0], len(in))
		for _, level := range levels[1:] {
			if got := pack(t, in, compress.Zstd, level, len(in)); !bytes.Equal(got, want) {
				t.Errorf("level %d writes other bytes than level %d", level, levels[0])
			}
		}
	}
}

// Many writers that get their input in turns share what memory there is for
// frames; none may wait for another that waits for input.
func TestZstdWritersShare(t *testing.T) {
	in := bytes.Repeat([]byte("0123456789abcdef"), compress.ZstdFrame/16)
	writers := make([]io.WriteCloser, 18) // 16 frames are shared
	outs := make([]bytes.Buffer, len(writers))
	for i := range writers {
		w, err := compress.NewWriter(&outs[i], compress.Zstd, 1)
		if err != nil {
			t.Fatal(err)
		}
		writers[i] = w
	}
	for _, w := range writers {
		if _, err := w.Write(in); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("x")); err != nil { // the next frame has begun
			t.Fatal(err)
		}
	}
	for i, w := range writers {
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(outs[i].Bytes(), outs[0].Bytes()) {
			t.Errorf("writer %d has written other bytes", i)
		}
	}
}

// Memory that is taken anew costs more than compressing, where the kernel has to
// find it page by page: what a writer needs is taken once, also for content that
// does not get smaller.
func TestZstdTakesMemoryOnce(t *testing.T) {
	in := make([]byte, 8*compress.ZstdFrame)
	_, _ = rand.NewChaCha8([32]byte{}).Read(in) // never fails
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w, err := compress.NewWriter(io.Discard, compress.Zstd, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(in)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	// Frames with their output, one for each processor and two to come and go; the
	// encoder has a history and tables for each.
	procs := uint64(runtime.GOMAXPROCS(0))
	got, most := after.TotalAlloc-before.TotalAlloc, (min(procs, 16)+2)*(17<<20)+min(procs, 16)*(20<<20)
	if got > most {
		t.Errorf("%d MiB were allocated, want at most %d", got>>20, most>>20)
	}
}

// What fixes the bytes is what is recorded.
func TestEncoderOf(t *testing.T) {
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for f, block := range map[compress.Format]int64{compress.Gzip: 1 << 20, compress.Zstd: 8 << 20} {
		e := compress.EncoderOf(f)
		if e.Format != f || e.Block != block {
			t.Errorf("EncoderOf(%v) = %+v", f, e)
		}
		for _, module := range strings.Split(e.Library, ", ") {
			if !strings.Contains(string(mod), "\t"+module+"\n") {
				t.Errorf("go.mod has not %q", module)
			}
		}
	}
	if e := compress.EncoderOf(compress.Xz); e.Library != "" {
		t.Errorf("EncoderOf(xz) = %+v", e)
	}
}

func TestGzipHeader(t *testing.T) {
	out := pack(t, []byte("x"), compress.Gzip, 0, 1)
	want := []byte{0x1f, 0x8b, 8, 0 /* no name */, 0, 0, 0, 0 /* no time */, 0, 255 /* unknown system */}
	if !bytes.HasPrefix(out, want) {
		t.Errorf("header % x, want % x", out[:10], want)
	}
}

func TestWriterRefuses(t *testing.T) {
	for _, tt := range []struct {
		f     compress.Format
		level int
	}{
		{compress.Gzip, -1},
		{compress.Gzip, 10},
		{compress.Zstd, -1},
		{compress.Zstd, 23},
		{compress.Xz, 0},
		{compress.Bzip2, 0},
		{99, 0},
	} {
		if _, err := compress.NewWriter(io.Discard, tt.f, tt.level); !errors.Is(err, compress.ErrUnsupported) {
			t.Errorf("NewWriter(%v, %d): error %v, want ErrUnsupported", tt.f, tt.level, err)
		}
	}
}

var errFull = errors.New("no space left")

// fullWriter fails after room bytes.
type fullWriter struct{ room int }

func (w *fullWriter) Write(p []byte) (int, error) {
	if len(p) > w.room {
		n := w.room
		w.room = 0
		return n, errFull
	}
	w.room -= len(p)
	return len(p), nil
}

// An error of the output reaches the caller from any point, and no goroutine
// stays behind.
func TestWriterOutputFails(t *testing.T) {
	in := sample(3 << 20)
	before := runtime.NumGoroutine()
	for _, f := range []compress.Format{compress.None, compress.Gzip, compress.Zstd} {
		whole := len(pack(t, in, f, 1, len(in)))
		for _, room := range []int{0, 5, 10, 4096, whole / 2, whole - 8, whole - 1} {
			w, err := compress.NewWriter(&fullWriter{room: room}, f, 1)
			if err != nil {
				t.Fatal(err)
			}
			_, err = w.Write(in)
			if closeErr := w.Close(); err == nil && f != compress.None {
				err = closeErr
			}
			if !errors.Is(err, errFull) {
				t.Errorf("%v with room for %d of %d bytes: error %v, want %v", f, room, whole, err, errFull)
			}
		}
	}
	for range 100 { // the last ones may still be on their way out
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines before, %d after", before, runtime.NumGoroutine())
}

func TestWriteAfterClose(t *testing.T) {
	for _, f := range []compress.Format{compress.Gzip, compress.Zstd} {
		w, err := compress.NewWriter(io.Discard, f, 0)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := w.Close(); err != nil {
				t.Errorf("%v: Close: %v", f, err)
			}
		}
		if _, err := w.Write([]byte("x")); err == nil {
			t.Errorf("%v: a write after Close is taken", f)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		in := rapid.SliceOf(rapid.Byte()).Draw(rt, "in")
		f := rapid.SampledFrom([]compress.Format{compress.None, compress.Gzip, compress.Zstd}).Draw(rt, "format")
		level := rapid.IntRange(0, 9).Draw(rt, "level")
		out := pack(t, in, f, level, rapid.IntRange(1, 100).Draw(rt, "chunk"))
		if got := unpack(t, out, f); !bytes.Equal(got, in) {
			rt.Fatalf("%v: wrote %q, read %q", f, in, got)
		}
	})
}
