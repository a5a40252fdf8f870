package compress_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"runtime"
	"testing"
	"testing/iotest"

	"github.com/gardenlinux/gloci-layout/compress"
)

// read reads in to its end or error.
func read(in io.Reader, f compress.Format, opts *compress.ReaderOptions) ([]byte, error) {
	r, err := compress.NewReaderOptions(in, f, opts)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// fixture returns sample(20000) as another program has compressed it.
func fixture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// zstdFrame returns a frame with blocks of 128 KiB of zeros as run-length
// blocks (4 bytes each), and the window 2^windowLog.
func zstdFrame(windowLog, blocks int) []byte {
	b := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, byte(windowLog-10) << 3}
	for i := range blocks {
		h := uint32(128<<10)<<3 | 1<<1
		if i == blocks-1 {
			h |= 1
		}
		b = append(b, byte(h), byte(h>>8), byte(h>>16), 0)
	}
	return b
}

func TestReaderRefuses(t *testing.T) {
	in := sample(300 << 10)
	gz := pack(t, in, compress.Gzip, 0, len(in))
	zs := pack(t, in, compress.Zstd, 0, len(in))
	flip := func(b []byte, at int) []byte {
		b = bytes.Clone(b)
		b[at] ^= 1
		return b
	}
	cat := func(bs ...[]byte) []byte { return bytes.Join(bs, nil) }
	x, bz := fixture(t, "sample.xz"), fixture(t, "sample.bz2")
	one := &compress.ReaderOptions{OneMember: true}
	for _, tt := range []struct {
		name string
		in   []byte
		f    compress.Format
		opts *compress.ReaderOptions
		want error
	}{
		{"gzip empty", nil, compress.Gzip, nil, compress.ErrCorrupt},
		{"gzip not", []byte("hello, hello, hello"), compress.Gzip, nil, compress.ErrCorrupt},
		{"gzip cut in the header", gz[:9], compress.Gzip, nil, compress.ErrCorrupt},
		{"gzip cut in the data", gz[:len(gz)/2], compress.Gzip, nil, compress.ErrCorrupt},
		{"gzip without trailer", gz[:len(gz)-8], compress.Gzip, nil, compress.ErrCorrupt},
		{"gzip cut in the trailer", gz[:len(gz)-1], compress.Gzip, nil, compress.ErrCorrupt},
		{"gzip with a wrong checksum", flip(gz, len(gz)-8), compress.Gzip, nil, compress.ErrCorrupt},
		{"gzip with a wrong length", flip(gz, len(gz)-1), compress.Gzip, nil, compress.ErrCorrupt},
		{"gzip with junk behind", cat(gz, []byte("junk")), compress.Gzip, nil, compress.ErrCorrupt},
		{"gzip with zeros behind", cat(gz, make([]byte, 512)), compress.Gzip, nil, compress.ErrCorrupt},
		{"gzip with a second member", cat(gz, gz), compress.Gzip, one, compress.ErrCorrupt},
		{"gzip with one byte behind", cat(gz, []byte{0}), compress.Gzip, one, compress.ErrCorrupt},
		{"gzip over the limit", gz, compress.Gzip, &compress.ReaderOptions{MaxBytes: int64(len(in)) - 1}, compress.ErrLimit},
		{"zstd empty", nil, compress.Zstd, nil, compress.ErrCorrupt},
		{"zstd not", []byte("hello, hello, hello"), compress.Zstd, nil, compress.ErrCorrupt},
		{"zstd cut in the header", zs[:5], compress.Zstd, nil, compress.ErrCorrupt},
		{"zstd cut in the data", zs[:len(zs)/2], compress.Zstd, nil, compress.ErrCorrupt},
		{"zstd cut in the checksum", zs[:len(zs)-1], compress.Zstd, nil, compress.ErrCorrupt},
		{"zstd with a wrong checksum", flip(zs, len(zs)-1), compress.Zstd, nil, compress.ErrCorrupt},
		{"zstd with junk behind", cat(zs, []byte("junk")), compress.Zstd, nil, compress.ErrCorrupt},
		{"zstd over the limit", zs, compress.Zstd, &compress.ReaderOptions{MaxBytes: int64(len(in)) - 1}, compress.ErrLimit},
		{"zstd window of 256 MiB", zstdFrame(28, 1), compress.Zstd, nil, compress.ErrLimit},
		{"zstd window of 2 TiB", zstdFrame(41, 1), compress.Zstd, nil, compress.ErrLimit},
		{"plain over the limit", in, compress.None, &compress.ReaderOptions{MaxBytes: 10}, compress.ErrLimit},
		{"xz empty", nil, compress.Xz, nil, compress.ErrCorrupt},
		{"xz cut in the header", x[:6], compress.Xz, nil, compress.ErrCorrupt},
		{"xz cut in the data", x[:len(x)/2], compress.Xz, nil, compress.ErrCorrupt},
		{"xz without its end", x[:len(x)-1], compress.Xz, nil, compress.ErrCorrupt},
		{"xz with a wrong check", flip(x, len(x)-40), compress.Xz, nil, compress.ErrCorrupt},
		{"xz with junk behind", cat(x, []byte("junk")), compress.Xz, nil, compress.ErrCorrupt},
		{"xz over the limit", x, compress.Xz, &compress.ReaderOptions{MaxBytes: 19999}, compress.ErrLimit},
		{"xz dictionary of 192 MiB", fixture(t, "dict192.xz"), compress.Xz, nil, compress.ErrLimit},
		{"bzip2 empty", nil, compress.Bzip2, nil, compress.ErrCorrupt},
		{"bzip2 cut in the header", bz[:3], compress.Bzip2, nil, compress.ErrCorrupt},
		{"bzip2 cut in the data", bz[:len(bz)/2], compress.Bzip2, nil, compress.ErrCorrupt},
		{"bzip2 without its end", bz[:len(bz)-1], compress.Bzip2, nil, compress.ErrCorrupt},
		{"bzip2 with a wrong checksum", flip(bz, len(bz)-3), compress.Bzip2, nil, compress.ErrCorrupt},
		{"bzip2 with junk behind", cat(bz, []byte("junk")), compress.Bzip2, nil, compress.ErrCorrupt},
		{"bzip2 over the limit", bz, compress.Bzip2, &compress.ReaderOptions{MaxBytes: 19999}, compress.ErrLimit},
		{"unknown", in, 99, nil, compress.ErrUnsupported},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := read(bytes.NewReader(tt.in), tt.f, tt.opts)
			if !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if tt.opts != nil && tt.opts.MaxBytes > 0 && int64(len(got)) != tt.opts.MaxBytes {
				t.Errorf("gave %d bytes under a limit of %d", len(got), tt.opts.MaxBytes)
			}
		})
	}
}

func TestReaderAccepts(t *testing.T) {
	in := sample(300 << 10)
	gz := pack(t, in, compress.Gzip, 0, len(in))
	zs := pack(t, in, compress.Zstd, 0, len(in))
	cat := func(bs ...[]byte) []byte { return bytes.Join(bs, nil) }
	skippable := []byte{0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 'a', 'b', 'c'}
	x, bz, small := fixture(t, "sample.xz"), fixture(t, "sample.bz2"), sample(20000)
	exact := &compress.ReaderOptions{MaxBytes: int64(len(in))}
	for _, tt := range []struct {
		name string
		in   []byte
		f    compress.Format
		opts *compress.ReaderOptions
		want []byte
	}{
		{"plain", in, compress.None, nil, in},
		{"plain, empty", nil, compress.None, nil, nil},
		{"plain, exactly the limit", in, compress.None, exact, in},
		{"gzip of one member", gz, compress.Gzip, &compress.ReaderOptions{OneMember: true}, in},
		{"gzip of two members", cat(gz, gz), compress.Gzip, nil, cat(in, in)},
		{"gzip, exactly the limit", gz, compress.Gzip, exact, in},
		{"zstd of two frames", cat(zs, zs), compress.Zstd, nil, cat(in, in)},
		{"zstd with skippable frames", cat(skippable, zs, skippable), compress.Zstd, nil, in},
		{"zstd, exactly the limit", zs, compress.Zstd, exact, in},
		{"zstd window of 128 MiB", zstdFrame(27, 1), compress.Zstd, nil, make([]byte, 128<<10)},
		{"xz", x, compress.Xz, &compress.ReaderOptions{MaxBytes: 20000}, small},
		{"xz of blocks, with sha256", fixture(t, "blocks.xz"), compress.Xz, nil, small},
		{"xz with filters", fixture(t, "filters.xz"), compress.Xz, nil, small},
		{"xz of two streams and padding", cat(x, make([]byte, 8), x, make([]byte, 4)), compress.Xz, nil, cat(small, small)},
		{"bzip2", bz, compress.Bzip2, &compress.ReaderOptions{MaxBytes: 20000}, small},
		{"bzip2 of two streams", cat(bz, bz), compress.Bzip2, nil, cat(small, small)},
		{"no limits", gz, compress.Gzip, &compress.ReaderOptions{MaxBytes: -1, MaxRatio: -1}, in},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, r := range []io.Reader{
				bytes.NewReader(tt.in),
				bytes.NewBuffer(bytes.Clone(tt.in)), // the zstd library treats it apart
				iotest.OneByteReader(bytes.NewReader(tt.in)),
				iotest.DataErrReader(bytes.NewReader(tt.in)),
			} {
				got, err := read(r, tt.f, tt.opts)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, tt.want) {
					t.Errorf("read %d bytes that differ from the %d wanted", len(got), len(tt.want))
				}
			}
		})
	}
}

// A bomb of 4 kB that would give 128 MiB stops a little above the floor, in
// little memory.
func TestReaderBomb(t *testing.T) {
	const floor = 8 << 20
	bomb := zstdFrame(17, 1024)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r, err := compress.NewReaderFloor(bytes.NewReader(bomb), compress.Zstd, nil, floor)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, make([]byte, 1<<20))
	if !errors.Is(err, compress.ErrLimit) {
		t.Errorf("error %v, want ErrLimit", err)
	}
	if n < floor || n > floor+1<<20 {
		t.Errorf("stopped after %d bytes, want about %d", n, floor)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 16<<20 {
		t.Errorf("allocated %d bytes", got)
	}

	if testing.Short() {
		return // the rest takes seconds with the race detector
	}
	// Without the limit it is just a stream.
	got, err := read(bytes.NewReader(bomb), compress.Zstd, &compress.ReaderOptions{MaxRatio: -1})
	if err != nil || len(got) != 128<<20 {
		t.Errorf("without a limit: %d bytes, %v", len(got), err)
	}
	if compress.RatioFloor != 1<<30 {
		t.Errorf("RatioFloor = %d", compress.RatioFloor)
	}
}

var errSource = errors.New("the source failed")

// An error below is not taken for damage of the stream: callers tell a wrong
// digest from a bad archive by it.
func TestReaderSourceFails(t *testing.T) {
	in := sample(300 << 10)
	for _, f := range []compress.Format{compress.None, compress.Gzip, compress.Zstd, compress.Xz, compress.Bzip2} {
		var z []byte
		switch f {
		case compress.Xz:
			z = fixture(t, "sample.xz")
		case compress.Bzip2:
			z = fixture(t, "sample.bz2")
		default:
			z = pack(t, in, f, 0, len(in))
		}
		for _, at := range []int{0, 3, len(z) / 2, len(z) - 1, len(z)} {
			for _, opts := range []*compress.ReaderOptions{nil, {OneMember: true}} {
				src := io.MultiReader(bytes.NewReader(z[:at]), iotest.ErrReader(errSource))
				_, err := read(src, f, opts)
				if !errors.Is(err, errSource) || errors.Is(err, compress.ErrCorrupt) {
					t.Errorf("%v, failing at %d of %d: error %v, want %v alone", f, at, len(z), err, errSource)
				}
			}
		}
	}
}

func TestReaderClosed(t *testing.T) {
	for _, f := range []compress.Format{compress.None, compress.Gzip, compress.Zstd} {
		r, err := compress.NewReader(bytes.NewReader(pack(t, []byte("hello"), f, 0, 5)), f)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := r.Close(); err != nil {
				t.Errorf("%v: Close: %v", f, err)
			}
		}
		if n, err := r.Read(make([]byte, 9)); n != 0 || err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%v: read after Close gives %d, %v", f, n, err)
		}
	}
}

// FuzzReader: any bytes give data or an error of this package, within the limits.
func FuzzReader(f *testing.F) {
	in := sample(5000)
	gz, zs := pack(f, in, compress.Gzip, 0, 5000), pack(f, in, compress.Zstd, 0, 5000)
	for _, seed := range [][]byte{
		nil, gz, zs, gz[:40], zs[:40], append(bytes.Clone(gz), gz...), append(bytes.Clone(zs), zs...),
		fixture(f, "sample.xz"), fixture(f, "blocks.xz"), fixture(f, "filters.xz"), fixture(f, "sample.bz2"),
		zstdFrame(28, 1), zstdFrame(17, 50), binary.LittleEndian.AppendUint32(nil, 0x184d2a50),
	} {
		f.Add(seed, false)
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, data []byte, one bool) {
		const limit = 1 << 20
		for _, format := range []compress.Format{compress.Gzip, compress.Zstd, compress.Xz, compress.Bzip2} {
			got, err := read(bytes.NewReader(data), format, &compress.ReaderOptions{MaxBytes: limit, OneMember: one})
			if len(got) > limit {
				t.Errorf("%v gives %d bytes over a limit of %d", format, len(got), limit)
			}
			if err != nil && !errors.Is(err, compress.ErrCorrupt) && !errors.Is(err, compress.ErrLimit) {
				t.Errorf("%v: error %v is neither ErrCorrupt nor ErrLimit", format, err)
			}
		}
	})
}
