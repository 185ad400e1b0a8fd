package tap

import (
	"errors"
	"fmt"
	"sync/atomic"

	"culvert/dataplane/frame"
	"culvert/dataplane/vnet"

	"golang.org/x/sys/unix"
)

// maxBytes is the longest frame that a pod sends: an IP packet and its Ethernet
// header. The pod cannot raise gso_max_size above it: tun has the default
// tso_max_size (net/core/dev.h, netif_set_gso_max_size). A pod receives big frames
// of frame.MaxBytes, as from GRO with BIG TCP (net/ipv4/ip_input.c, ip_rcv_core).
const maxBytes = 65535 + 14

// maxRead is the longest that a read can be: the device may hand out a VLAN tag
// that Linux kept beside the frame.
const maxRead = maxBytes + 4

// Queue is one queue of a TAP device: a frame.Device. The device spreads what
// the pod sends over its queues by flow, and a flow to the queue that its answers
// come from (drivers/net/tun.c, tun_automq_select_queue).
type Queue struct {
	// What the worker needs for every frame. The stock are the chunks to read
	// into, of which the first have are there: chunk i is at addrs[i] and
	// behind rxIov[1+i].
	fd    int
	pool  *frame.Pool
	owner frame.Owner
	room  uint32 // bytes of a chunk to read into
	have  int
	addrs []uint64
	rxIov []unix.Iovec
	rxHdr [vnet.Len]byte
	tx    writer

	limits frame.Limits
	gone   atomic.Bool
	count  counters

	// The control plane's.
	name   string
	drops  *drops
	closed atomic.Bool
}

// counters have one writer, the worker, and any number of readers.
type counters struct {
	_          [64]byte
	rxTooLong  atomic.Uint64
	rxInvalid  atomic.Uint64
	txRingFull atomic.Uint64
	txRefused  atomic.Uint64
	txLinkDown atomic.Uint64
	txInvalid  atomic.Uint64
	txErrors   atomic.Uint64
	_          [64]byte
}

// bump adds to a counter that only the caller writes.
func bump(c *atomic.Uint64, n uint64) { c.Store(c.Load() + n) }

func (c *counters) addTo(s *frame.DeviceStats) {
	s.RxTooLong += c.rxTooLong.Load()
	s.RxInvalid += c.rxInvalid.Load()
	s.TxRingFull += c.txRingFull.Load()
	s.TxRefused += c.txRefused.Load()
	s.TxLinkDown += c.txLinkDown.Load()
	s.TxInvalid += c.txInvalid.Load()
	s.TxErrors += c.txErrors.Load()
}

// Open opens one more queue of the TAP device name, which Make has made, in the
// network namespace of the calling thread, to read into the chunks of pool. The
// first queue that is open counts for Stats what the device lost; pass first
// for one queue of a device.
func Open(name string, pool *frame.Pool, first bool) (*Queue, error) {
	fd, udp, err := join(name)
	if err != nil {
		return nil, fmt.Errorf("tap: opening a queue of %s: %w%s", name, err, advice(err))
	}
	q := &Queue{fd: fd, pool: pool, name: name, room: uint32(pool.ChunkSize() - frame.Headroom)}
	n := int((maxRead + q.room) / q.room) // one byte more than is ever read
	q.addrs = make([]uint64, n)
	q.rxIov = make([]unix.Iovec, 1+n)
	q.rxIov[0].Base, q.rxIov[0].Len = &q.rxHdr[0], vnet.Len
	q.tx.init(fd, q.tx.hdr[:vnet.Len])
	q.limits = frame.Limits{Offload: frame.OffloadTCP, Chunks: frame.MaxChunks, Bytes: frame.MaxBytes, Asks: true}
	if udp {
		q.limits.Offload |= frame.OffloadUDP
	}
	if first {
		if q.drops, err = openDrops(name); err != nil {
			return nil, errors.Join(fmt.Errorf("tap: opening a queue of %s: %w", name, err), unix.Close(fd))
		}
	}
	return q, nil
}

// FD is the descriptor to wait on for input. When the device goes away it
// becomes ready once.
func (q *Queue) FD() int { return q.fd }

// Limits implements frame.Device: big frames of TCP, and of UDP since Linux 6.2,
// whole. Frames without SegSize may be chains too.
func (q *Queue) Limits() frame.Limits { return q.limits }

// Gone reports whether the device was removed: the queue is dead and should be
// closed. Safe from any goroutine.
func (q *Queue) Gone() bool { return q.gone.Load() }

// Sending implements frame.Device: Send leaves nothing behind.
func (q *Queue) Sending() bool { return false }

// Start implements frame.Device. A queue holds the chunks of one frame of the
// largest size, whatever fill says: a longer stock would be no use, for one
// system call reads one frame.
func (q *Queue) Start(owner frame.Owner, _ int) error {
	q.owner = owner
	if !q.refill() && q.have == 0 {
		return fmt.Errorf("tap: %s: the worker has no free frame left to receive into: "+
			"raise xdp.ringSize, or the number of workers", q.name)
	}
	return nil
}

// SetFill implements frame.Device: see Start.
func (q *Queue) SetFill(int) {}

// Stats implements frame.Device. After Close the counters stay as they were.
func (q *Queue) Stats(s *frame.DeviceStats) {
	lost := q.drops.read()
	s.RxRingFull += lost.unread
	s.TxRefused += lost.refused
	q.count.addTo(s)
}

// Close gives the queue back. The device stays.
func (q *Queue) Close() error {
	if q.closed.Swap(true) {
		return nil
	}
	q.drops.close()
	if err := unix.Close(q.fd); err != nil {
		return fmt.Errorf("tap: closing a queue of %s: %w", q.name, err)
	}
	return nil
}

// lose notes that the device is gone. A descriptor of a device that is gone is
// ready forever (tun_chr_poll: EPOLLERR), which would keep the worker awake until
// the port is removed: one that is never ready takes its place.
func (q *Queue) lose() {
	if q.gone.Swap(true) {
		return
	}
	quiet, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return // a worker that is awake for nothing is no reason for more
	}
	_ = unix.Dup3(quiet, q.fd, unix.O_CLOEXEC)
	_ = unix.Close(quiet)
}

var _ frame.Device = (*Queue)(nil)
