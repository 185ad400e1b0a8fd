package tap

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// readv reads one frame. Like writev it never blocks: the Go scheduler, which
// would look for another thread to run Go code meanwhile, is not told.
func readv(fd int, iov []unix.Iovec) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READV, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(iov))), uintptr(len(iov)))
	return int(n), errno
}

// writev writes one frame, whole or not at all.
func writev(fd int, iov []unix.Iovec) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(iov))), uintptr(len(iov)))
	return errno
}
