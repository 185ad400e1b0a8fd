package ethtool

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Commands of SIOCETHTOOL and the string set of features
// (include/uapi/linux/ethtool.h).
const (
	cmdGetStrings = 0x1b // ETHTOOL_GSTRINGS
	cmdGetSetInfo = 0x37 // ETHTOOL_GSSET_INFO
	cmdGetFeature = 0x3a // ETHTOOL_GFEATURES
	cmdSetFeature = 0x3b // ETHTOOL_SFEATURES
	stringSet     = 4    // ETH_SS_FEATURES
)

// ifreq is struct ifreq with a pointer in its union (include/uapi/linux/if.h).
type ifreq struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [16]byte
}

// device is a socket in the namespace it was opened in, and a device there.
type device struct {
	fd  int
	dev string
}

func open(dev string) (*device, error) {
	if len(dev) >= unix.IFNAMSIZ {
		return nil, fmt.Errorf("device name %q is too long", dev)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	return &device{fd: fd, dev: dev}, nil
}

func (e *device) close() { _ = unix.Close(e.fd) }

// call hands buf, an ethtool structure, to the kernel, which may write to it.
func (e *device) call(buf []byte) (int, error) {
	req := &ifreq{data: unsafe.Pointer(&buf[0])}
	copy(req.name[:], e.dev)
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(e.fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(req)))
	runtime.KeepAlive(buf)
	if errno != 0 {
		return 0, errno
	}
	return int(r), nil
}

// featureCount reads struct ethtool_sset_info {u32 cmd, reserved; u64 mask; u32 data[]}.
func (e *device) featureCount() (int, error) {
	buf := make([]byte, 20)
	binary.NativeEndian.PutUint32(buf, cmdGetSetInfo)
	binary.NativeEndian.PutUint64(buf[8:], 1<<stringSet)
	if _, err := e.call(buf); err != nil {
		return 0, fmt.Errorf("ETHTOOL_GSSET_INFO: %w", err)
	}
	return int(binary.NativeEndian.Uint32(buf[16:])), nil
}

// featureStrings reads struct ethtool_gstrings {u32 cmd, string_set, len; u8 data[]}.
func (e *device) featureStrings(n int) ([]byte, error) {
	buf := make([]byte, 12+n*gstringLen)
	binary.NativeEndian.PutUint32(buf, cmdGetStrings)
	binary.NativeEndian.PutUint32(buf[4:], stringSet)
	binary.NativeEndian.PutUint32(buf[8:], uint32(n))
	if _, err := e.call(buf); err != nil {
		return nil, fmt.Errorf("ETHTOOL_GSTRINGS: %w", err)
	}
	return buf[12:], nil
}

// set writes struct ethtool_sfeatures {u32 cmd, size; {u32 valid, requested}[]}.
func (e *device) set(n int, bits []int, on bool) error {
	blocks := (n + 31) / 32
	buf := make([]byte, 8+8*blocks)
	binary.NativeEndian.PutUint32(buf, cmdSetFeature)
	binary.NativeEndian.PutUint32(buf[4:], uint32(blocks))
	for _, bit := range bits {
		block := buf[8+8*(bit/32):]
		valid := binary.NativeEndian.Uint32(block) | 1<<(bit%32)
		binary.NativeEndian.PutUint32(block, valid)
		if on {
			binary.NativeEndian.PutUint32(block[4:], valid)
		}
	}
	if _, err := e.call(buf); err != nil {
		return fmt.Errorf("ETHTOOL_SFEATURES: %w", err)
	}
	return nil
}

// active reads struct ethtool_gfeatures {u32 cmd, size; {u32 available,
// requested, active, never_changed}[]} and returns the active column.
func (e *device) active(n int) ([]bool, error) {
	blocks := (n + 31) / 32
	buf := make([]byte, 8+16*blocks)
	binary.NativeEndian.PutUint32(buf, cmdGetFeature)
	binary.NativeEndian.PutUint32(buf[4:], uint32(blocks))
	if _, err := e.call(buf); err != nil {
		return nil, fmt.Errorf("ETHTOOL_GFEATURES: %w", err)
	}
	on := make([]bool, n)
	for bit := range on {
		word := binary.NativeEndian.Uint32(buf[8+16*(bit/32)+8:])
		on[bit] = word&(1<<(bit%32)) != 0
	}
	return on, nil
}
