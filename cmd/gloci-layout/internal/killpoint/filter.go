//go:build linux && (amd64 || arm64)

package killpoint

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data, <linux/seccomp.h>. Both architectures have the
// low half of an argument first.
const (
	dataNumber = 0
	dataArgs   = 16
)

// Places to jump to, until the program is whole and their distance known.
const (
	toNext  = 0
	toAllow = math.MaxUint8 - 1
	toTrace = math.MaxUint8
)

// filter returns the program of seccomp(2) that stops at the calls of shapes, and
// lets all others pass without waking the tracer: of the 800 calls of a short
// run, some 30 stop. Calls whose flags are behind a pointer stop always.
func filter() []unix.SockFilter {
	load := func(at int) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: uint32(at)}
	}
	jump := func(test uint16, k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | test | unix.BPF_K, K: k, Jt: yes, Jf: no}
	}
	prog := []unix.SockFilter{load(dataNumber)}
	for _, nr := range slices.Sorted(maps.Keys(shapes)) {
		sh := shapes[nr]
		switch {
		case sh.open > 0:
			prog = append(prog, jump(unix.BPF_JEQ, uint32(nr), toNext, 2), load(dataArgs+8*(sh.open-1)),
				jump(unix.BPF_JSET, unix.O_ACCMODE|unix.O_CREAT|unix.O_TRUNC, toTrace, toAllow))
		case sh.clone > 0:
			prog = append(prog, jump(unix.BPF_JEQ, uint32(nr), toNext, 3), load(dataArgs+8*(sh.clone-1)),
				jump(unix.BPF_JEQ, unix.FICLONE, toTrace, toNext), jump(unix.BPF_JEQ, unix.FICLONERANGE, toTrace, toAllow))
		default:
			prog = append(prog, jump(unix.BPF_JEQ, uint32(nr), toTrace, toNext))
		}
	}
	ret := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	allow, trace := len(prog), len(prog)+1
	prog = append(prog, ret(unix.SECCOMP_RET_ALLOW), ret(unix.SECCOMP_RET_TRACE))
	for i := range prog[:allow] {
		for _, p := range []*uint8{&prog[i].Jt, &prog[i].Jf} {
			switch *p {
			case toAllow:
				*p = uint8(allow - i - 1)
			case toTrace:
				*p = uint8(trace - i - 1)
			}
		}
	}
	return prog
}

// install makes tid, which has just executed a program and not begun it, give
// itself the filter. Its threads and children inherit it.
func (t *tracer) install(tid int) error {
	prog := filter()
	head := unix.SockFprog{Len: uint16(len(prog))}
	size := unsafe.Sizeof(head) + uintptr(len(prog))*unsafe.Sizeof(prog[0])
	return t.inject(tid, int(size), func(at uint64, call func(nr uint64, args ...uint64) error) error {
		behind := uintptr(at) + unsafe.Sizeof(head)
		memory := append(slices.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&head)), unsafe.Sizeof(head))),
			unsafe.Slice((*byte)(unsafe.Pointer(&prog[0])), len(prog)*int(unsafe.Sizeof(prog[0])))...)
		*(*uintptr)(unsafe.Pointer(&memory[unsafe.Offsetof(head.Filter)])) = behind
		_, err := unix.ProcessVMWritev(tid, []unix.Iovec{{Base: &memory[0], Len: uint64(len(memory))}},
			[]unix.RemoteIovec{{Base: uintptr(at), Len: len(memory)}}, 0)
		if err != nil {
			return fmt.Errorf("process_vm_writev: %w", err)
		}
		// Without it, only root may filter.
		if err := call(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("prctl: %w", err)
		}
		if err := call(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, at); err != nil {
			return fmt.Errorf("seccomp: %w", err)
		}
		return nil
	})
}

// await resumes tid up to its next system-call stop.
func (t *tracer) await(tid int) error {
	if err := unix.PtraceSyscall(tid, 0); err != nil {
		return err
	}
	for {
		var ws unix.WaitStatus
		_, err := unix.Wait4(tid, &ws, unix.WALL|unix.WNOTHREAD, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case !ws.Stopped() || ws.StopSignal() != unix.SIGTRAP|0x80:
			return fmt.Errorf("wait status %#x in place of a stop at a system call", uint32(ws))
		}
		return nil
	}
}
