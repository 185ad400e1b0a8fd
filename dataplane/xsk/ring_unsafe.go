package xsk

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"culvert/dataplane/frame"

	"golang.org/x/sys/unix"
)

// ring is the part that the four rings have in common: memory shared with the
// kernel, with a free-running 32-bit index for each end (net/xdp/xsk_queue.h).
//
// An end reads the other's index with an acquiring load before it touches the
// entries that the index covers, and publishes its own with a releasing store
// after it is done with them. Go's atomics are both and more. Our own index is
// kept in a field of the specific ring as well, and read from there.
type ring struct {
	mem      []byte
	producer *uint32
	consumer *uint32
	flags    *uint32
	size     uint32 // entries: a power of two
	mask     uint32 // size - 1
}

// mapRing maps the ring that the kernel made for socket fd at offset pgoff.
func mapRing(fd int, pgoff int64, at *unix.XDPRingOffset, entries int, entrySize uintptr) (ring, error) {
	mem, err := unix.Mmap(fd, pgoff, int(at.Desc)+entries*int(entrySize),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return ring{}, fmt.Errorf("mapping a ring of %d: %w", entries, err)
	}
	base := unsafe.Pointer(unsafe.SliceData(mem))
	return ring{
		mem:      mem,
		producer: (*uint32)(unsafe.Add(base, at.Producer)),
		consumer: (*uint32)(unsafe.Add(base, at.Consumer)),
		flags:    (*uint32)(unsafe.Add(base, at.Flags)),
		size:     uint32(entries),
		mask:     uint32(entries - 1),
	}, nil
}

// unmap releases the memory. The mapping holds a reference on the socket: as
// long as one is left, closing the descriptor does not free the queue.
func (r *ring) unmap() error {
	mem := r.mem
	*r = ring{}
	if mem == nil {
		return nil
	}
	return unix.Munmap(mem)
}

// needWakeup reports whether the kernel waits for a system call before it looks
// at the ring. It must be asked after the producer index was published.
func (r *ring) needWakeup() bool {
	return atomic.LoadUint32(r.flags)&unix.XDP_RING_NEED_WAKEUP != 0
}

// descs is the ring's array of descriptors: the receive and transmit rings.
func (r *ring) descs(at *unix.XDPRingOffset) []frame.Desc {
	base := unsafe.Pointer(unsafe.SliceData(r.mem))
	return unsafe.Slice((*frame.Desc)(unsafe.Add(base, at.Desc)), r.size)
}

// addrs is the ring's array of addresses: the fill and completion rings.
func (r *ring) addrs(at *unix.XDPRingOffset) []uint64 {
	base := unsafe.Pointer(unsafe.SliceData(r.mem))
	return unsafe.Slice((*uint64)(unsafe.Add(base, at.Desc)), r.size)
}

const (
	descSize = unsafe.Sizeof(frame.Desc{})
	addrSize = unsafe.Sizeof(uint64(0))
)
