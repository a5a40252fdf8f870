package compress_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

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
	{0, compress.Zstd, 0, "429ed24358dddc6eff5fcf1c9a514fb568dcba9e383d8c065353b0446064bc1f"},
	{1, compress.Gzip, 0, "e001e149e20f8d339c59b9c98a2089ed6f91c4ee1d1d675037c5ae2d1ebed964"},
	{1, compress.Zstd, 0, "ea67e7b43df2d2f189c63e65483ae53b44f8590fd8d48139b83855797128f4b0"},
	{1 << 20, compress.Gzip, 0, "aceb58fa680f061f7c8dddf6e6a59589d958f81bcc002d8adaaa501615100719"},
	{2<<20 + 17, compress.Gzip, 0, "fa03554747d1edfacd13664301ee9ebd62556bf88d467bfa47d606d01ea6eb85"},
	{2<<20 + 17, compress.Gzip, 1, "cffcaa21103c14695af8ce8b04f79858fe1b3e32201138fab1dc039fab4f7005"},
	{2<<20 + 17, compress.Gzip, 9, "04ee455be45b7f98e05defa853fe2ac96700acfababa3223213a3aa3af84bc8f"},
	{2<<20 + 17, compress.Zstd, 0, "6680c04acf584cda6eb205cc6a670cb475be41833e70bf520e510f831b86f9e2"},
	{2<<20 + 17, compress.Zstd, 1, "628e1d47ec8cfe36055bde19083ae86aa925bfc6636f918cff0dd1b95c5eeb8e"},
	{2<<20 + 17, compress.Zstd, 7, "252df85f07980ce14edcb46178f25c3b4830a95a0da9a53faa43a6a7c5a0fad7"},
	{2<<20 + 17, compress.Zstd, 19, "a460c394316a4b097ca33c41190b9c0a40d4c0a8570d31b0866e806ea06b1afe"},
}

func TestWriterGolden(t *testing.T) {
	in := sample(2<<20 + 17)
	for _, tt := range golden {
		t.Run(fmt.Sprintf("%s-%d of %d", tt.format, tt.level, tt.size), func(t *testing.T) {
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

// The number of cores and the sizes of writes must not reach the bytes.
func TestWriterSameBytes(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	in := sample(2<<20 + 123)
	for _, f := range []compress.Format{compress.Gzip, compress.Zstd} {
		for _, level := range []int{1, 0} {
			runtime.GOMAXPROCS(1)
			want := pack(t, in, f, level, 1<<20)
			for _, procs := range []int{1, 2, 16} {
				runtime.GOMAXPROCS(procs)
				for _, chunk := range []int{4093, 1<<20 + 1, len(in)} {
					if got := pack(t, in, f, level, chunk); !bytes.Equal(got, want) {
						t.Errorf("%v level %d: %d cores, writes of %d: other bytes", f, level, procs, chunk)
					}
				}
			}
		}
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
