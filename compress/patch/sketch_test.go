package patch_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/gardenlinux/gloci-layout/compress/patch"
)

// Joined parts are read as one file, wherever a read begins and ends.
func TestJoin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var parts []patch.Part
		var all []byte
		for _, b := range rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 30), 1, 5).Draw(t, "parts") {
			parts = append(parts, patch.Part{ReaderAt: bytes.NewReader(b), Size: int64(len(b))})
			all = append(all, b...)
		}
		r, size := patch.Join(parts...)
		if size != int64(len(all)) {
			t.Fatalf("size %d, want %d", size, len(all))
		}
		if err := iotest.TestReader(io.NewSectionReader(r, 0, size), all); err != nil {
			t.Fatal(err)
		}
		n, err := r.ReadAt(make([]byte, len(all)+1), 0)
		if n != len(all) || !errors.Is(err, io.EOF) {
			t.Fatalf("past the end: %d, %v", n, err)
		}
	})
	short, _ := patch.Join(patch.Part{ReaderAt: bytes.NewReader([]byte("ab")), Size: 3}, patch.Part{ReaderAt: bytes.NewReader([]byte("c")), Size: 1})
	if n, err := short.ReadAt(make([]byte, 4), 0); n != 2 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a part that is too short: %d, %v, want ErrUnexpectedEOF", n, err)
	}
	if _, err := short.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("a negative offset is read")
	}
}

func sketchOf(b []byte) *patch.Sketch {
	s := patch.NewSketch(int64(len(b)))
	for len(b) > 0 { // the pieces in which it is written do not matter
		n := min(len(b), 1+len(b)/3)
		_, _ = s.Write(b[:n])
		b = b[n:]
	}
	return s
}

// The files that have most of what is new are chosen, however large they are.
func TestChoose(t *testing.T) {
	common, kernel, other := random(1, 2<<20), random(2, 300<<10), random(3, 100<<10)
	files := [][]byte{
		0: common,
		1: random(4, 300<<10), // has nothing in common
		2: kernel,
		3: slices.Concat(other, random(5, 100<<10)),
		4: slices.Concat(random(6, 4<<20), kernel[:50<<10]), // a little of it
		5: slices.Concat(common[:1<<20], kernel, common[1<<20:], other, random(7, 1000)),
		6: bytes.Repeat([]byte("a"), 1<<20),
		7: slices.Concat(kernel, bytes.Repeat([]byte("a"), 5<<20)),
		8: random(1, 5000),
		9: nil,
	}
	files = append(files, slices.Concat(random(8, 8<<20), files[5])) // 10: has fewer samples of it
	var sketches []*patch.Sketch
	for _, f := range files {
		sketches = append(sketches, sketchOf(f))
	}
	c := patch.NewChooser(sketches)
	for _, test := range []struct {
		file   int
		chosen []int
		n      int
		not    int
		want   []int
	}{
		{file: 5, chosen: []int{0}, n: 7, not: -1, want: []int{2, 3}},
		{file: 5, n: 7, not: -1, want: []int{0, 2, 3}},
		{file: 5, chosen: []int{10}, n: 7, not: -1, want: nil},
		{file: 5, chosen: []int{0}, n: 1, not: -1, want: []int{2}},
		{file: 5, chosen: []int{0}, n: 1, not: 2, want: []int{7}},
		{file: 2, n: 7, not: -1, want: []int{5}}, // 7 has it too
		{file: 0, n: 7, not: 5, want: nil},
		{file: 1, n: 7, not: -1, want: nil},
		{file: 6, n: 7, not: -1, want: nil},
		{file: 8, n: 7, not: -1, want: nil}, // too small a piece of the first
		{file: 9, n: 7, not: -1, want: nil},
	} {
		got := c.Choose(test.file, test.chosen, test.n, func(i int) bool { return i != test.not && i != 10 })
		if !slices.Equal(got, test.want) {
			t.Errorf("Choose(%d, %v, %d) = %v, want %v", test.file, test.chosen, test.n, got, test.want)
		}
	}
	// A file may be larger than it is said to be.
	sketches[2] = patch.NewSketch(1000)
	_, _ = sketches[2].Write(kernel)
	if got := patch.NewChooser(sketches).Choose(5, []int{0}, 1, func(i int) bool { return i != 7 && i != 10 }); !slices.Equal(got, []int{2}) {
		t.Errorf("Choose = %v, want the file that was said to be smaller", got)
	}
}
