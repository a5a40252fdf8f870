package firstheap

import (
	"runtime"
	"syscall"
	"unsafe"
)

// heap is here so that it is no part of a stack.
var heap []byte

func init() {
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
