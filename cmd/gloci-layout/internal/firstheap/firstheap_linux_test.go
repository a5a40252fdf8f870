//go:build !race

package firstheap

import (
	"syscall"
	"testing"
	"time"
)

// sink keeps what a test allocates on the heap.
var sink []byte

// TestReady takes half of the first heap and counts the pages that the kernel had
// to back only then.
func TestReady(t *testing.T) {
	if !populate(make([]byte, 1<<20)) {
		t.Skip("this kernel has no MADV_POPULATE_WRITE")
	}
	prepare()
	before := faults(t)
	sink = make([]byte, Size/2)
	for i := range sink {
		sink[i] = 1
	}
	if n, pages := faults(t)-before, int64(len(sink)/syscall.Getpagesize()); n > pages/4 {
		t.Errorf("%d page faults for %d pages", n, pages)
	}
}

// TestFirstTouch: it is timed at all, and not with what is not a first touch.
func TestFirstTouch(t *testing.T) {
	if d := firstTouch(); d <= 0 || d > time.Millisecond {
		t.Errorf("the first touch of a page takes %v", d)
	}
}

func faults(t *testing.T) int64 {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return usage.Minflt
}
