package xsk

import (
	"sync/atomic"

	"culvert/dataplane/frame"

	"golang.org/x/sys/unix"
)

// rxRing brings received frames: the kernel produces, we consume. A frame of
// several chunks is several descriptors, all but the last with XDP_PKT_CONTD.
type rxRing struct {
	ring
	entries []frame.Desc
	next    uint32 // our consumer index
}

func mapRx(fd int, at *unix.XDPRingOffset, entries int) (rxRing, error) {
	r, err := mapRing(fd, unix.XDP_PGOFF_RX_RING, at, entries, descSize)
	if err != nil {
		return rxRing{}, err
	}
	return rxRing{ring: r, entries: r.descs(at)}, nil
}

// ready is how many descriptors wait.
func (r *rxRing) ready() uint32 { return atomic.LoadUint32(r.producer) - r.next }

// at is the descriptor i places behind the first that waits.
func (r *rxRing) at(i uint32) frame.Desc { return r.entries[(r.next+i)&r.mask] }

// chain is the number of descriptors of the frame that begins i places behind
// the first, or 0 when its last one is not among the ready ones.
func (r *rxRing) chain(i, ready uint32) uint32 {
	for n := uint32(1); i+n <= ready; n++ {
		if r.at(i+n-1).Options&unix.XDP_PKT_CONTD == 0 {
			return n
		}
	}
	return 0
}

// release gives the entries of the first n descriptors back to the kernel.
func (r *rxRing) release(n uint32) {
	r.next += n
	atomic.StoreUint32(r.consumer, r.next)
}
