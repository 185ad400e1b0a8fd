package xsk

import (
	"sync/atomic"

	"culvert/dataplane/frame"

	"golang.org/x/sys/unix"
)

// txRing takes frames to send: we produce, the kernel consumes.
type txRing struct {
	ring
	entries []frame.Desc
	next    uint32 // our producer index; entries before it may be unpublished
}

func mapTx(fd int, at *unix.XDPRingOffset, entries int) (txRing, error) {
	r, err := mapRing(fd, unix.XDP_PGOFF_TX_RING, at, entries, descSize)
	if err != nil {
		return txRing{}, err
	}
	return txRing{ring: r, entries: r.descs(at)}, nil
}

// pending is how many descriptors the kernel has not taken yet.
func (r *txRing) pending() uint32 { return r.next - atomic.LoadUint32(r.consumer) }

// room is how many descriptors can be put.
func (r *txRing) room() uint32 { return r.size - r.pending() }

// put adds a descriptor. There must be room.
func (r *txRing) put(addr uint64, n, options uint32) {
	r.entries[r.next&r.mask] = frame.Desc{Addr: addr, Len: n, Options: options}
	r.next++
}

// publish shows the kernel what was put. Only whole frames may be published.
func (r *txRing) publish() { atomic.StoreUint32(r.producer, r.next) }
