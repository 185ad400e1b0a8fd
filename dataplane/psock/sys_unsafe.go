package psock

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is struct mmsghdr: a message, and how many bytes of it there were.
type mmsghdr struct {
	msg unix.Msghdr
	n   uint32
}

// sendmsg sends one frame, whole or not at all. Like recvmmsg it never blocks, and
// the Go scheduler is not told of it: told, it would give the rest of the Go
// program another thread meanwhile, and the worker would queue up behind that.
func sendmsg(fd int, msg *unix.Msghdr) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(msg)), unix.MSG_DONTWAIT)
	return errno
}

// recvmmsg receives up to len(msgs) frames and returns how many.
func recvmmsg(fd int, msgs []mmsghdr) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(msgs))),
		uintptr(len(msgs)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}
