package xdpgen

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// liveFrames is BPF_F_TEST_XDP_LIVE_FRAMES (include/uapi/linux/bpf.h).
const liveFrames = 1 << 1

// testRun is the part of union bpf_attr that BPF_PROG_TEST_RUN reads.
type testRun struct {
	progFD, retval             uint32
	dataSizeIn, dataSizeOut    uint32
	dataIn, dataOut            uint64
	repeat, duration           uint32
	ctxSizeIn, ctxSizeOut      uint32
	ctxIn, ctxOut              uint64
	flags, cpu, batchSize, pad uint32
}

// runLive runs an XDP program so many times over frames that begin with data.
// Unlike ebpf.Program.Run it ends with EINTR at a signal.
func runLive(fd int, data []byte, times uint32) error {
	attr := testRun{
		progFD: uint32(fd), dataSizeIn: uint32(len(data)), dataIn: uint64(uintptr(unsafe.Pointer(&data[0]))),
		repeat: times, flags: liveFrames,
	}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_TEST_RUN, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(data) // the garbage collector does not see it in attr
	if errno != 0 {
		return errno
	}
	return nil
}
