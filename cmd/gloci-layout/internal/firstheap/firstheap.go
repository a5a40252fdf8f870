// Package firstheap has memory ready for the first 16 MiB of the heap of the
// program that imports it.
//
// Else each page of 4 KiB costs an exception when it is touched first. On a
// virtual machine an exception can take 10 to 20 µs, longer than what the program
// does with the page: of a diff of two layouts of 2,000 manifests it was a third
// of the time. So the kernel is asked for all of them at once, in large pages
// where it has them.
//
// It happens while the packages of the program are initialized, early, for most
// of what a short command takes of the heap is taken by them. Hence nothing is
// imported that is initialized late. Systems other than Linux, and kernels that
// lack the call, go on as ever.
package firstheap

// Size is how much of the heap is ready, in bytes.
const Size = 16 << 20
