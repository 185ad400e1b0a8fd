package xsk

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// fillRing gives free chunks to the kernel to receive into: we produce, the
// kernel consumes.
type fillRing struct {
	ring
	entries  []uint64
	next     uint32 // our producer index; entries before it may be unpublished
	consumed uint32 // the kernel's consumer index when last looked at
}

func mapFill(fd int, at *unix.XDPRingOffset, entries int) (fillRing, error) {
	r, err := mapRing(fd, unix.XDP_UMEM_PGOFF_FILL_RING, at, entries, addrSize)
	if err != nil {
		return fillRing{}, err
	}
	return fillRing{ring: r, entries: r.addrs(at)}, nil
}

// room is how many of want addresses can be put.
func (r *fillRing) room(want uint32) uint32 {
	if r.size-(r.next-r.consumed) < want {
		r.consumed = atomic.LoadUint32(r.consumer)
	}
	return min(want, r.size-(r.next-r.consumed))
}

// put adds the address of a chunk. There must be room.
func (r *fillRing) put(addr uint64) {
	r.entries[r.next&r.mask] = addr
	r.next++
}

// publish shows the kernel what was put.
func (r *fillRing) publish() { atomic.StoreUint32(r.producer, r.next) }
