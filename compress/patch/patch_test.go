package patch_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/compress/patch"
)

func encode(t rapid.TB, base, file []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := patch.Encode(&out, bytes.NewReader(base), int64(len(base)), bytes.NewReader(file), int64(len(file))); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func apply(p, base []byte, size int) ([]byte, error) {
	r, err := patch.NewReader(bytes.NewReader(p), bytes.NewReader(base), int64(len(base)), int64(size))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, seed))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// A patch is as small as what is new, whatever was moved.
func TestSize(t *testing.T) {
	base := random(1, 3<<20)
	for name, test := range map[string]struct {
		file []byte
		most int
	}{
		"the same":    {base, 100},
		"empty":       {nil, 50},
		"of nothing":  {random(2, 1000), 1100},
		"moved":       {append(bytes.Clone(base[2<<20:]), base[:2<<20]...), 150},
		"inserted":    {append(append(bytes.Clone(base[:1<<20]), random(3, 1000)...), base[1<<20:]...), 1200},
		"removed":     {append(bytes.Clone(base[:1<<20]), base[1<<20+5000:]...), 100},
		"zeros":       {append(bytes.Clone(base), make([]byte, 9<<20)...), 2000},
		"replaced":    {replaced(base, 3000), 40_000},
		"a new part":  {append(bytes.Clone(base), random(4, 7<<20)...), 7<<20 + 2000},
		"beginning":   {base[:1000], 100},
		"a short one": {[]byte("short"), 60},
	} {
		p := encode(t, base, test.file)
		if len(p) > test.most {
			t.Errorf("%s: the patch has %d bytes, want at most %d", name, len(p), test.most)
		}
		got, err := apply(p, base, len(test.file))
		if err != nil || !bytes.Equal(got, test.file) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if again := encode(t, base, test.file); !bytes.Equal(again, p) {
			t.Errorf("%s: another patch the second time", name)
		}
	}
	got, err := apply(encode(t, nil, base), nil, len(base))
	if err != nil || !bytes.Equal(got, base) {
		t.Errorf("of an empty base: %d bytes, %v", len(got), err)
	}
}

// replaced changes every n-th byte.
func replaced(base []byte, n int) []byte {
	b := bytes.Clone(base)
	for i := n / 2; i < len(b); i += n {
		b[i] ^= 0xff
	}
	return b
}

func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := random(rapid.Uint64Range(0, 3).Draw(t, "seed"), rapid.IntRange(0, 20_000).Draw(t, "size"))
		var file []byte
		for range rapid.IntRange(0, 8).Draw(t, "parts") {
			from := rapid.IntRange(0, len(base)).Draw(t, "from")
			to := rapid.IntRange(from, len(base)).Draw(t, "to")
			file = append(file, base[from:to]...)
			file = append(file, rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(t, "new")...)
		}
		p := encode(t, base, file)
		got, err := apply(p, base, len(file))
		if err != nil || !bytes.Equal(got, file) {
			t.Fatalf("%d bytes became %d, %v", len(file), len(got), err)
		}
		var out bytes.Buffer
		err = patch.Encode(&out, bytes.NewReader(base), int64(len(base)), iotest.OneByteReader(bytes.NewReader(file)), int64(len(file)))
		if err != nil || !bytes.Equal(out.Bytes(), p) {
			t.Fatalf("read byte by byte, the patch is another: %v", err)
		}
	})
}

// Whatever is done to a patch, it is refused, or makes what it made; it never
// makes more than it may.
func TestDamage(t *testing.T) {
	base := random(1, 5000)
	file := append(append(bytes.Clone(base[3000:]), []byte("something new")...), base[:2000]...)
	p := encode(t, base, file)
	check := func(what string, damaged []byte) {
		got, err := apply(damaged, base, len(file))
		if len(got) > len(file) {
			t.Errorf("%s: %d bytes of %d", what, len(got), len(file))
		}
		if err == nil && !bytes.Equal(got, file) {
			t.Errorf("%s: made something else", what)
		}
		if err != nil && !errors.Is(err, patch.ErrCorrupt) && !errors.Is(err, compress.ErrCorrupt) && !errors.Is(err, compress.ErrLimit) {
			t.Errorf("%s: %v, want ErrCorrupt", what, err)
		}
	}
	for i := range p {
		for bit := range 8 {
			damaged := bytes.Clone(p)
			damaged[i] ^= 1 << bit
			check(fmt.Sprintf("bit %d of byte %d", bit, i), damaged)
		}
	}
	for n := range p {
		if got, err := apply(p[:n], base, len(file)); err == nil {
			t.Errorf("the first %d of %d bytes make %d bytes", n, len(p), len(got))
		}
	}
	if _, err := apply(p, base[1:], len(file)); !errors.Is(err, patch.ErrCorrupt) {
		t.Errorf("a base of another size: %v, want ErrCorrupt", err)
	}
	if _, err := apply(p, base, len(file)+1); !errors.Is(err, patch.ErrCorrupt) {
		t.Errorf("another size: %v, want ErrCorrupt", err)
	}
	if err := patch.Encode(io.Discard, bytes.NewReader(base), 5000, bytes.NewReader(file), 1); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a file of another size: %v, want ErrUnexpectedEOF", err)
	}
}

// stream is a patch of these bytes.
func stream(t rapid.TB, body string) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := compress.NewWriter(&out, compress.Zstd, 0)
	if err == nil {
		_, err = io.WriteString(w, body)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// The base has 9 bytes, "0123456789" without its end, and 4 are to be made.
func TestHostile(t *testing.T) {
	const head = "glocidp1\x09\x04"
	for body, want := range map[string]string{
		head + "\x01\x00\x04\x04":                             "2345",
		head + "\x02\x01\x01\x02x\x01":                        "", // literals stand behind all operations
		head + "\x02\x01\x01\x00\x01\x01\x00xy":               "x1y3",
		head + "\x01\x04\x00abcd":                             "abcd",
		head + "\x01\x02\x00ab\x01\x02\x00cd":                 "abcd",
		head + "\x01\x04\x00abcde":                            "", // more than its end
		head + "\x01\x04\x00abc":                              "",
		head + "\x01\x05\x00abcde":                            "", // more than there is to make
		head + "\x01\x00\x05\x00":                             "",
		head + "\x01\x00\x04\x0c":                             "", // past the base
		head + "\x01\x00\x04\x01":                             "", // before it
		head + "\x01\x00\x04\xfe\xff\xff\xff\xff\xff\xff\x7f": "",
		head + "\x01\x00\x00":                                 "", // of nothing
		head + "\x00":                                         "",
		head + "\x81\x00\x00\x04\x04":                         "", // not the shortest form
		head + "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01":     "",
		head + "\x81\x80\x01\x00\x04\x04":                     "", // too many operations
		"glocidp1\x09\x05\x01\x00\x04\x04":                    "",
		"glocidp2\x09\x04\x01\x00\x04\x04":                    "",
		"gloci":                                               "",
		"":                                                    "",
	} {
		got, err := apply(stream(t, body), []byte("012345678"), 4)
		if want == "" {
			if !errors.Is(err, patch.ErrCorrupt) {
				t.Errorf("%q: %q, %v, want ErrCorrupt", body, got, err)
			}
		} else if err != nil || string(got) != want {
			t.Errorf("%q: %q, %v, want %q", body, got, err, want)
		}
	}
}

// FuzzReader: any bytes give at most what they may, or an error.
func FuzzReader(f *testing.F) {
	base := random(1, 300)
	for _, file := range [][]byte{nil, base, append(bytes.Clone(base[100:]), base[:100]...), random(2, 300)} {
		f.Add(encode(f, base, file), len(file))
	}
	f.Add(stream(f, "glocidp1\xac\x02\x04\x01\x00\x04\x04"), 4)
	f.Fuzz(func(t *testing.T, p []byte, size int) {
		if size < 0 || size > 1<<20 {
			return
		}
		got, err := apply(p, base, size)
		if len(got) > size || err == nil && len(got) != size {
			t.Errorf("%d bytes of %d, %v", len(got), size, err)
		}
	})
}

func ExampleEncode() {
	base, file := []byte("what was there before"), []byte("now there is what was there before")
	var p bytes.Buffer
	err := patch.Encode(&p, bytes.NewReader(base), int64(len(base)), bytes.NewReader(file), int64(len(file)))
	if err != nil {
		panic(err)
	}
	r, err := patch.NewReader(&p, bytes.NewReader(base), int64(len(base)), int64(len(file)))
	if err != nil {
		panic(err)
	}
	made, err := io.ReadAll(r)
	fmt.Println(string(made), err)
	// Output: now there is what was there before <nil>
}
