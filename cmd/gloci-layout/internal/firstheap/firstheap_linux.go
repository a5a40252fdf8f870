package firstheap

import (
	"runtime"
	"syscall"
	"time"
	"unsafe"
)

// dear is how long a first touch of a page of 4 KiB takes where it pays to do it
// for all pages at once. Of the 4,096 pages a short command touches some 500, and
// their memory is cleared in some 3 ms. Larger pages take longer to clear.
const dear = 6 * time.Microsecond

// heap is here so that it is no part of a stack.
var heap []byte

func init() {
	if firstTouch() >= dear*time.Duration(syscall.Getpagesize()/4096) {
		prepare()
	}
}

// prepare has memory ready for what is allocated next.
func prepare() {
	heap = make([]byte, Size)
	ready := populate(heap)
	heap = nil
	if ready {
		runtime.GC() // gives it, ready, to what is allocated next
	}
}

// populate has the kernel back b with memory, and tells whether it did
// (madvise(2)).
func populate(b []byte) bool {
	const hugepage, populateWrite = 14, 23 // MADV_HUGEPAGE, MADV_POPULATE_WRITE; the second since Linux 5.14
	at, n := uintptr(unsafe.Pointer(&b[0])), uintptr(len(b))
	_, _, _ = syscall.RawSyscall(syscall.SYS_MADVISE, at, n, hugepage) // if there are none, small pages will do
	_, _, errno := syscall.RawSyscall(syscall.SYS_MADVISE, at, n, populateWrite)
	return errno == 0
}

// firstTouch returns how long the first touch of a page takes here: of a few, the
// fastest.
func firstTouch() time.Duration {
	const pages = 8
	size := syscall.Getpagesize()
	memory, err := syscall.Mmap(-1, 0, pages*size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANONYMOUS)
	if err != nil {
		return 0
	}
	fastest := time.Hour
	for i := range pages {
		start := time.Now() //nolint:forbidigo // it is not written
		memory[i*size] = 1
		fastest = min(fastest, time.Since(start))
	}
	_ = syscall.Munmap(memory)
	return fastest
}
