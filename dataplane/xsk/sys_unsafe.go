package xsk

import (
	"fmt"
	"unsafe"

	"culvert/dataplane/frame"

	"golang.org/x/sys/unix"
)

// registerUmem registers mem as socket fd's UMEM (net/xdp/xdp_umem.c). With
// metadata, room for struct xsk_tx_metadata is declared below every transmit
// descriptor.
func registerUmem(fd int, mem []byte, chunkSize int, metadata bool) error {
	reg := unix.XDPUmemReg{
		Addr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(mem)))),
		Len:  uint64(len(mem)),
		Size: uint32(chunkSize),
	}
	if metadata {
		reg.Flags = unix.XDP_UMEM_TX_METADATA_LEN
		reg.Tx_metadata_len = frame.TxMetadataLen
	}
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_XDP, unix.XDP_UMEM_REG,
		uintptr(unsafe.Pointer(&reg)), unsafe.Sizeof(reg), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// mmapOffsets asks where in each ring's mapping the indices and entries are.
func mmapOffsets(fd int) (unix.XDPMmapOffsets, error) {
	var offsets unix.XDPMmapOffsets
	size := uint32(unsafe.Sizeof(offsets))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_XDP, unix.XDP_MMAP_OFFSETS,
		uintptr(unsafe.Pointer(&offsets)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return offsets, errno
	}
	if size != uint32(unsafe.Sizeof(offsets)) {
		return offsets, fmt.Errorf("the kernel knows no flags word: %w", unix.EOPNOTSUPP) // before 5.4
	}
	return offsets, nil
}

// statistics reads the kernel's counters of socket fd.
func statistics(fd int) (unix.XDPStatistics, error) {
	var stats unix.XDPStatistics
	size := uint32(unsafe.Sizeof(stats))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_XDP, unix.XDP_STATISTICS,
		uintptr(unsafe.Pointer(&stats)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return stats, errno
	}
	return stats, nil
}
