//go:build linux

package killpoint

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Register sets of arm64, <linux/elf.h>.
const (
	ntPrstatus      = 1     // NT_PRSTATUS
	ntARMSystemCall = 0x404 // NT_ARM_SYSTEM_CALL
)

// canFilter tells that tracer.inject can make a child filter its calls. Here every
// call stops, which is the same but slower.
const canFilter = false

func (t *tracer) inject(int, int, func(uint64, func(uint64, ...uint64) error) error) error {
	return unix.ENOTSUP
}

// setNumber puts another call in the place of the one that tid is about to make;
// -1 is none. The number is in no register that NT_PRSTATUS can change.
func setNumber(tid int, nr int64) error {
	n := int32(nr)
	iov := unix.Iovec{Base: (*byte)(unsafe.Pointer(&n)), Len: 4}
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SETREGSET, uintptr(tid),
		ntARMSystemCall, uintptr(unsafe.Pointer(&iov)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// setResult changes what the call that tid comes back from returns.
func setResult(tid int, v int64) error { return setArg(tid, 1, uint64(v)) }

// setArg changes argument i, counted from 1, of the call that tid is about to make.
func setArg(tid, i int, v uint64) error {
	if i < 1 || i > 6 {
		panic(fmt.Sprintf("a system call has no argument %d", i))
	}
	var r unix.PtraceRegsArm64
	if err := unix.PtraceGetRegSetArm64(tid, ntPrstatus, &r); err != nil {
		return err
	}
	r.Regs[i-1] = v
	return unix.PtraceSetRegSetArm64(tid, ntPrstatus, &r)
}
