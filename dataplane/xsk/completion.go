package xsk

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// completionRing brings back the chunks of sent frames, one address for each
// descriptor, as it was when it was put: the kernel produces, we consume.
type completionRing struct {
	ring
	entries []uint64
	next    uint32 // our consumer index
}

func mapCompletion(fd int, at *unix.XDPRingOffset, entries int) (completionRing, error) {
	r, err := mapRing(fd, unix.XDP_UMEM_PGOFF_COMPLETION_RING, at, entries, addrSize)
	if err != nil {
		return completionRing{}, err
	}
	return completionRing{ring: r, entries: r.addrs(at)}, nil
}

// ready is how many addresses wait.
func (r *completionRing) ready() uint32 { return atomic.LoadUint32(r.producer) - r.next }

// at is the address i places behind the first that waits.
func (r *completionRing) at(i uint32) uint64 { return r.entries[(r.next+i)&r.mask] }

// release gives the entries of the first n addresses back to the kernel.
func (r *completionRing) release(n uint32) {
	r.next += n
	atomic.StoreUint32(r.consumer, r.next)
}
