package testbed

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// cmdSetGRO is ETHTOOL_SGRO (include/uapi/linux/ethtool.h).
const cmdSetGRO = 0x2c

// SetGRO switches generic receive offload of a device of the calling thread's
// namespace: the ioctl behind "ethtool -K DEVICE gro on".
func SetGRO(device string, on bool) error {
	value := &struct{ cmd, data uint32 }{cmd: cmdSetGRO}
	if on {
		value.data = 1
	}
	req := &struct { // struct ifreq
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(value)}
	if copy(req.name[:unix.IFNAMSIZ-1], device) < len(device) {
		return fmt.Errorf("device name %q is too long", device)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("making a socket: %w", err)
	}
	defer unix.Close(fd)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(req)))
	runtime.KeepAlive(value)
	if errno != 0 {
		return fmt.Errorf("switching GRO of %s: %w", device, errno)
	}
	return nil
}
