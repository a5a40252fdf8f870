// Package firstheap has memory ready for the first 16 MiB of the heap of the
// program that imports it, where that pays.
//
// Else each page of 4 KiB costs an exception when it is touched first. On some
// virtual machines an exception takes 10 to 20 µs, longer than what the program
// does with the page: of a diff of two layouts of 2,000 manifests it was a third
// of the time. There the kernel is asked for all of them at once, in large pages
// where it has them. Where it takes 2 µs, that would cost a short command 3 ms and
// gain a long one nothing: so the first touch of a few pages is timed.
//
// It happens while the packages of the program are initialized, early, for most
// of what a short command takes of the heap is taken by them. Hence nothing is
// imported that is initialized late. Systems other than Linux, and kernels that
// lack the call, go on as ever.
package firstheap

// Size is how much of the heap is ready, in bytes.
const Size = 16 << 20
