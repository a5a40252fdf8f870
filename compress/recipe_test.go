package compress

import (
	"bytes"
	stdgzip "compress/gzip"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
)

// words returns n bytes of text that compress to about a third.
func words(n int) []byte {
	var b bytes.Buffer
	b.Grow(n + 64)
	for i := uint64(1); b.Len() < n; i++ {
		x := i * 0x9E3779B97F4A7C15
		fmt.Fprintf(&b, "%x %d of the same\n", x>>40, x>>59)
	}
	return b.Bytes()[:n]
}

// again compresses plain as r says.
func again(t *testing.T, r *Recipe, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := r.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	for len(plain) > 0 {
		n := min(len(plain), 100_001)
		if _, err := w.Write(plain[:n]); err != nil {
			t.Fatal(err)
		}
		plain = plain[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func find(t *testing.T, stream []byte) *Recipe {
	t.Helper()
	r, err := FindRecipe(bytes.NewReader(stream), int64(len(stream)))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Whatever a writer of this program makes is made again.
func TestRecipes(t *testing.T) {
	var recipes []Recipe
	named := []byte("\x1f\x8b\x08\x18\x01\x02\x03\x04\x02\x03layer.tar\x00a comment\x00")
	plain := []byte("\x1f\x8b\x08\x00\x00\x09\x6e\x88\x00\xff")
	for level := 1; level <= 9; level++ {
		recipes = append(recipes,
			Recipe{Format: Gzip, Writer: RecipeBlocks, Level: level, Block: 1 << 20, Header: plain},
			Recipe{Format: Gzip, Writer: RecipeBlocks, Level: level, Block: 256 << 10, Header: plain},
			Recipe{Format: Gzip, Writer: RecipeStream, Level: level, Header: named},
			Recipe{Format: Gzip, Writer: RecipeGo, Level: level, Header: named})
	}
	for _, level := range zstdLevels {
		recipes = append(recipes,
			Recipe{Format: Zstd, Writer: RecipeBlocks, Level: level, Block: 8 << 20},
			Recipe{Format: Zstd, Writer: RecipeStream, Level: level})
	}
	text := words(9 << 20)
	for _, want := range recipes {
		t.Run(fmt.Sprint(want.Format, want.Writer, want.Level, want.Block), func(t *testing.T) {
			t.Parallel()
			sizes := []int{20_000}
			switch { // more than a piece
			case testing.Short():
			case want.Format == Gzip && want.Level == 6:
				sizes = append(sizes, 1<<20+300_000)
			case want.Format == Zstd && want.Level == 3:
				sizes = append(sizes, 9<<20)
			}
			for _, n := range sizes {
				stream := again(t, &want, text[:n])
				got := find(t, stream)
				if got == nil {
					t.Fatalf("%d bytes: no recipe", n)
				}
				if !bytes.Equal(again(t, got, text[:n]), stream) {
					t.Errorf("%d bytes: made by level %d, and not again by %s level %d", n, want.Level, got.Writer, got.Level)
				}
				if got.Library == "" || got.Library != want.Own().Library && got.Writer == want.Writer {
					t.Errorf("library %q", got.Library)
				}
			}
		})
	}
}

// What [NewWriter] writes, and what others write with the same libraries, has a
// recipe.
func TestRecipesOfOthers(t *testing.T) {
	text := words(300_000)
	for name, writer := range map[string]func(w io.Writer) (io.WriteCloser, error){
		"ours, gzip":    func(w io.Writer) (io.WriteCloser, error) { return NewWriter(w, Gzip, 0) },
		"ours, zstd":    func(w io.Writer) (io.WriteCloser, error) { return NewWriter(w, Zstd, 0) },
		"ours, zstd 22": func(w io.Writer) (io.WriteCloser, error) { return NewWriter(w, Zstd, 22) },
		"pgzip":         func(w io.Writer) (io.WriteCloser, error) { return pgzip.NewWriter(w), nil },
		"Go":            func(w io.Writer) (io.WriteCloser, error) { return stdgzip.NewWriter(w), nil },
		"Go, with a time": func(w io.Writer) (io.WriteCloser, error) {
			z := stdgzip.NewWriter(w)
			z.ModTime, z.Name = time.Unix(1700000000, 0), "layer"
			return z, nil
		},
		"zstd": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
		"zstd, many cores": func(w io.Writer) (io.WriteCloser, error) {
			return zstd.NewWriter(w, zstd.WithEncoderConcurrency(8))
		},
	} {
		var b bytes.Buffer
		w, err := writer(&b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(text); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		r := find(t, b.Bytes())
		if r == nil {
			t.Errorf("%s: no recipe", name)
			continue
		}
		if !bytes.Equal(again(t, r, text), b.Bytes()) {
			t.Errorf("%s: other bytes by %+v", name, r)
		}
	}
}

// Other streams have no recipe: those of other writers, damaged ones, several
// members, and what is no stream.
func TestNoRecipe(t *testing.T) {
	text := words(200_000)
	own := again(t, &Recipe{Format: Gzip, Writer: RecipeBlocks, Level: 6, Block: gzipBlock, Header: []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff")}, text)
	ownZstd := again(t, &Recipe{Format: Zstd, Writer: RecipeStream, Level: 3}, text)
	var huffman bytes.Buffer
	w, err := stdgzip.NewWriterLevel(&huffman, stdgzip.HuffmanOnly)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write(text)
	_ = w.Close()
	flipped := bytes.Clone(own)
	flipped[len(flipped)/2] ^= 1
	for name, stream := range map[string][]byte{
		"Huffman codes only":   huffman.Bytes(),
		"two members":          append(bytes.Clone(own), own...),
		"a flipped bit":        flipped,
		"cut short":            own[:len(own)-1],
		"one byte more":        append(bytes.Clone(own), 0),
		"a header alone":       own[:10],
		"half a header":        append([]byte("\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\xff"), bytes.Repeat([]byte{'x'}, 5000)...),
		"a frame and a header": append(bytes.Clone(ownZstd), ownZstd[:6]...),
		"two frames":           append(bytes.Clone(ownZstd), ownZstd...),
		"text":                 text,
		"nothing":              nil,
	} {
		if r := find(t, stream); r != nil {
			t.Errorf("%s: recipe %+v", name, r)
		}
	}
}

// A recipe that nothing here follows is refused.
func TestRecipeCheck(t *testing.T) {
	header := []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff")
	for name, r := range map[string]Recipe{
		"no format":             {Writer: RecipeStream, Level: 3},
		"xz":                    {Format: Xz, Writer: RecipeStream, Level: 3},
		"no writer":             {Format: Zstd, Level: 3},
		"gzip without a header": {Format: Gzip, Writer: RecipeGo, Level: 6},
		"more than a header":    {Format: Gzip, Writer: RecipeGo, Level: 6, Header: append(bytes.Clone(header), 0)},
		"a header that is none": {Format: Gzip, Writer: RecipeGo, Level: 6, Header: []byte("0123456789")},
		"reserved flags":        {Format: Gzip, Writer: RecipeGo, Level: 6, Header: []byte("\x1f\x8b\x08\x20\x00\x00\x00\x00\x00\xff")},
		"a large header":        {Format: Gzip, Writer: RecipeGo, Level: 6, Header: append([]byte("\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\xff"), append(bytes.Repeat([]byte{'x'}, 2000), 0)...)},
		"level 10":              {Format: Gzip, Writer: RecipeGo, Level: 10, Header: header},
		"level 0":               {Format: Gzip, Writer: RecipeBlocks, Block: 1 << 20, Header: header},
		"pieces of 2 MiB":       {Format: Gzip, Writer: RecipeBlocks, Level: 6, Block: 2 << 20, Header: header},
		"a stream in pieces":    {Format: Gzip, Writer: RecipeStream, Level: 6, Block: 1 << 20, Header: header},
		"zstd with a header":    {Format: Zstd, Writer: RecipeStream, Level: 3, Header: header},
		"zstd level 2":          {Format: Zstd, Writer: RecipeStream, Level: 2},
		"zstd of Go":            {Format: Zstd, Writer: RecipeGo, Level: 3},
		"frames of 1 MiB":       {Format: Zstd, Writer: RecipeBlocks, Level: 3, Block: 1 << 20},
	} {
		if err := r.Check(); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: Check: %v, want ErrUnsupported", name, err)
		}
		if _, err := r.NewWriter(io.Discard); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: NewWriter: %v, want ErrUnsupported", name, err)
		}
	}
}

// The number of processors reaches neither what is found nor what is written.
func TestRecipeCores(t *testing.T) {
	if testing.Short() {
		t.Skip("seconds with the race detector, for which TestWriterSameBytes is enough")
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	text := words(1<<20 + 300_000)
	header := []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff")
	for _, r := range []Recipe{
		{Format: Gzip, Writer: RecipeBlocks, Level: 5, Block: 256 << 10, Header: header},
		{Format: Gzip, Writer: RecipeGo, Level: 1, Header: header},
		{Format: Zstd, Writer: RecipeBlocks, Level: 3, Block: 8 << 20},
		{Format: Zstd, Writer: RecipeStream, Level: 3},
	} {
		var streams [][]byte
		var found []string
		for _, n := range []int{1, 2, 16} {
			runtime.GOMAXPROCS(n)
			s := again(t, &r, text)
			streams = append(streams, s)
			found = append(found, fmt.Sprintf("%+v", *find(t, s)))
		}
		if !bytes.Equal(streams[0], streams[1]) || !bytes.Equal(streams[0], streams[2]) {
			t.Errorf("%+v: other bytes with other numbers of processors", r)
		}
		if len(slices.Compact(found)) != 1 {
			t.Errorf("%+v: found %q", r, found)
		}
	}
}

// A comparer sees any difference, in whatever pieces it is given the bytes.
func TestComparer(t *testing.T) {
	want := words(200_000)
	for name, test := range map[string]struct {
		got            []byte
		same, complete bool
	}{
		"the same":      {want, true, true},
		"the beginning": {want[:199_999], true, false},
		"more":          {append(bytes.Clone(want), 'x'), false, false},
		"another byte":  {append(append(bytes.Clone(want[:150_000]), want[150_000]^1), want[150_001:]...), false, false},
		"nothing":       {nil, true, false},
	} {
		for _, piece := range []int{1 << 20, 70_001, 4096} {
			c := NewComparer(bytes.NewReader(want), int64(len(want)))
			for part := range slices.Chunk(test.got, piece) {
				if n, err := c.Write(part); n != len(part) || err != nil {
					t.Fatalf("Write: %d, %v", n, err)
				}
			}
			if c.Same() != test.same || c.Complete() != test.complete || c.Err() != nil {
				t.Errorf("%s, by %d: same %v, complete %v, %v", name, piece, c.Same(), c.Complete(), c.Err())
			}
		}
	}
	c := NewComparer(bytes.NewReader(want[:100]), 200) // a file that became shorter
	if _, err := c.Write(want[:150]); err != nil || c.Same() || !errors.Is(c.Err(), io.ErrUnexpectedEOF) {
		t.Errorf("a short file: %v, %v", err, c.Err())
	}
}

// A recipe is found, or none, for whatever bytes; and what is found can be
// followed.
func FuzzFindRecipe(f *testing.F) {
	text := words(3000)
	for _, r := range []Recipe{
		{Format: Gzip, Writer: RecipeGo, Level: 6, Header: []byte("\x1f\x8b\x08\x1c\x00\x00\x00\x00\x00\xff\x03\x00abcname\x00comment\x00")},
		{Format: Zstd, Writer: RecipeStream, Level: 3},
		{Format: Zstd, Writer: RecipeBlocks, Level: 3, Block: zstdFrame},
	} {
		var b bytes.Buffer
		w, err := r.NewWriter(&b)
		if err != nil {
			f.Fatal(err)
		}
		_, _ = w.Write(text)
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := find(t, stream)
		if r == nil {
			return
		}
		if err := r.Check(); err != nil {
			t.Fatal(err)
		}
		dec, err := NewReader(bytes.NewReader(stream), r.Format)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := io.ReadAll(io.LimitReader(dec, 1<<20))
		if err != nil {
			t.Fatal(err)
		}
		if len(plain) < 1<<20 && !bytes.Equal(again(t, r, plain), stream) {
			t.Errorf("a whole stream, and other bytes by %+v", r)
		}
	})
}
