//go:build linux

package killpoint

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

func init() {
	// The calls that only this architecture has.
	for nr, sh := range map[uint64]shape{
		unix.SYS_OPEN:    {name: "open", path: 1, open: 2},
		unix.SYS_CREAT:   {name: "creat", path: 1},
		unix.SYS_RENAME:  {name: "rename", path: 1, path2: 2},
		unix.SYS_LINK:    {name: "link", path: 1, path2: 2},
		unix.SYS_SYMLINK: {name: "symlink", path: 2},
		unix.SYS_UNLINK:  {name: "unlink", path: 1},
		unix.SYS_MKDIR:   {name: "mkdir", path: 1},
		unix.SYS_RMDIR:   {name: "rmdir", path: 1},
		unix.SYS_MKNOD:   {name: "mknod", path: 1},
		unix.SYS_CHMOD:   {name: "chmod", path: 1},
		unix.SYS_CHOWN:   {name: "chown", path: 1},
		unix.SYS_LCHOWN:  {name: "lchown", path: 1},
		unix.SYS_UTIME:   {name: "utime", path: 1},
		unix.SYS_UTIMES:  {name: "utimes", path: 1},
	} {
		shapes[nr] = sh
	}
}

// edit changes the registers of a stopped thread.
func edit(tid int, change func(r *unix.PtraceRegs)) error {
	var r unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &r); err != nil {
		return err
	}
	change(&r)
	return unix.PtraceSetRegs(tid, &r)
}

// canFilter tells that tracer.inject can make a child filter its calls.
const canFilter = true

// inject lets do make system calls in the name of tid, which has not begun its
// program; size bytes of its memory are free at the address that do is given.
// What tid does later, it does as if nothing had been.
func (t *tracer) inject(tid, size int, do func(at uint64, call func(nr uint64, args ...uint64) error) error) (err error) {
	var saved unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &saved); err != nil {
		return err
	}
	text := make([]byte, 2)
	if _, err := unix.PtracePeekText(tid, uintptr(saved.Rip), text); err != nil {
		return err
	}
	if _, err := unix.PtracePokeText(tid, uintptr(saved.Rip), []byte{0x0f, 0x05}); err != nil { // SYSCALL
		return err
	}
	defer func() {
		_, textErr := unix.PtracePokeText(tid, uintptr(saved.Rip), text)
		err = errors.Join(err, textErr, unix.PtraceSetRegs(tid, &saved))
	}()
	// Below the red zone of the stack.
	return do((saved.Rsp-4096-uint64(size))&^15, func(nr uint64, args ...uint64) error {
		r := saved
		r.Rax, r.Orig_rax = nr, ^uint64(0)
		for i, p := range []*uint64{&r.Rdi, &r.Rsi, &r.Rdx, &r.R10, &r.R8}[:len(args)] {
			*p = args[i]
		}
		if err := errors.Join(unix.PtraceSetRegs(tid, &r), t.await(tid), t.await(tid), unix.PtraceGetRegs(tid, &r)); err != nil {
			return err
		}
		if result := int64(r.Rax); result < 0 {
			return unix.Errno(-result)
		}
		return nil
	})
}

// setNumber puts another call in the place of the one that tid is about to make;
// -1 is none.
func setNumber(tid int, nr int64) error {
	return edit(tid, func(r *unix.PtraceRegs) { r.Orig_rax = uint64(nr) })
}

// setResult changes what the call that tid comes back from returns.
func setResult(tid int, v int64) error {
	return edit(tid, func(r *unix.PtraceRegs) { r.Rax = uint64(v) })
}

// setArg changes argument i, counted from 1, of the call that tid is about to make.
func setArg(tid, i int, v uint64) error {
	return edit(tid, func(r *unix.PtraceRegs) {
		p := [...]*uint64{&r.Rdi, &r.Rsi, &r.Rdx, &r.R10, &r.R8, &r.R9}
		if i < 1 || i > len(p) {
			panic(fmt.Sprintf("a system call has no argument %d", i))
		}
		*p[i-1] = v
	})
}
