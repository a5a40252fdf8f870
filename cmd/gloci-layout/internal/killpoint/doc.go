// Package killpoint stops a program at each of its file-changing system calls,
// to show what a crash or a failing disk at that point leaves behind. It is for
// tests only.
//
// [Run] starts a command under ptrace, follows all its threads and children, and
// counts the system calls that change files below one directory, over all
// threads together (a count per thread, as strace injects by, misses points of a
// Go program, whose goroutines move between threads). At the call that a [Plan]
// names it acts:
//
//   - [Record] does nothing and gives the list of calls.
//   - [Kill] sends SIGKILL to the process group before the call has any effect.
//   - [Torn] halves the length of a write and kills after the half was written.
//   - [Fail] skips the call and returns an error number in its place.
//   - [Interrupt] sends SIGINT, as Ctrl-C does, and lets the call go on.
//
// # What counts
//
// Calls that create, open for writing, write, resize, clone, rename, link,
// remove, chmod, chown, set times or attributes, or sync, where a path or the
// path behind a descriptor lies in or below the watched directory. Paths are
// compared as written, relative to the working directory or the directory
// descriptor: symbolic links inside them are not followed. Locks, reads, closes
// and writes through mmap do not count.
//
// # Limits
//
// Linux on amd64 and arm64, kernel 5.3 or newer (PTRACE_GET_SYSCALL_INFO). Where
// ptrace is forbidden, Run gives [ErrUnsupported]. On amd64 the command runs
// with no_new_privs and a seccomp filter, by which other calls cost nothing. A program with several threads
// need not make its calls in the same order twice, so that a call of one run may
// be absent in the next: [Result.Hit] tells if the plan was carried out.
package killpoint
