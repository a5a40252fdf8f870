package readahead_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"pgregory.net/rapid"

	"github.com/gardenlinux/gloci-layout/layout/internal/readahead"
)

// TestSameBytes: whatever the sizes, what comes out is what went in, and the error
// that came after it.
func TestSameBytes(t *testing.T) {
	all := make([]byte, 2<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(all)
	fault := errors.New("fault")
	rapid.Check(t, func(t *rapid.T) {
		want := all[:rapid.OneOf(rapid.IntRange(0, 3), rapid.IntRange(256<<10-2, 256<<10+2), rapid.IntRange(0, len(all))).Draw(t, "size")]
		var src io.Reader = bytes.NewReader(want)
		end := io.EOF
		if rapid.Bool().Draw(t, "fails") {
			end = fault
			src = io.MultiReader(src, iotest.ErrReader(end))
		}
		if rapid.Bool().Draw(t, "short reads") {
			src = iotest.HalfReader(src)
		}
		r := readahead.New(src, rapid.IntRange(1, 8).Draw(t, "chunks"))
		defer r.Close()
		var got bytes.Buffer
		var err error
		for n := rapid.IntRange(0, 5).Draw(t, "reads"); n > 0 && err == nil; n-- {
			p := make([]byte, rapid.IntRange(0, 300<<10).Draw(t, "length"))
			var k int
			k, err = r.Read(p)
			got.Write(p[:k])
		}
		if err == nil {
			if _, err = r.WriteTo(&got); err == nil {
				_, err = r.Read(make([]byte, 1))
			}
		}
		if err != end { //nolint:errorlint // it has to be that error itself
			t.Errorf("the end is %v, want %v", err, end)
		}
		if !bytes.Equal(got.Bytes(), want) || r.Taken() != int64(len(want)) {
			t.Errorf("%d bytes of %d, of which %d are said to be taken", got.Len(), len(want), r.Taken())
		}
	})
}

// endless counts the chunks that it was asked for.
type endless struct{ n chan int }

func (e endless) Read(p []byte) (int, error) {
	e.n <- len(p)
	return len(p), nil
}

// TestClose ends a reader that nobody reads from: no more chunks are made than
// there may be, and the goroutine ends.
func TestClose(t *testing.T) {
	const chunks = 3
	synctest.Test(t, func(t *testing.T) {
		e := endless{make(chan int, 100)}
		r := readahead.New(e, chunks)
		if _, err := r.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(e.n) != chunks {
			t.Errorf("%d chunks were made, want %d", len(e.n), chunks)
		}
		r.Close()
		r.Close()
	})
}
