package xsk

import (
	"fmt"
	"sync"
	"sync/atomic"

	"culvert/dataplane/frame"

	"golang.org/x/sys/unix"
)

// State says whether a socket's device works.
type State uint32

// The states of a socket.
const (
	StateUp   State = iota
	StateDown       // the device is down, or has fewer queues now: sends fail until it is back
	StateGone       // the device was removed: the socket is dead and should be closed
)

// String is for logs.
func (s State) String() string { return [...]string{"up", "down", "gone"}[s] }

// Socket is an AF_XDP socket bound to one queue of one device: a frame.Device.
type Socket struct {
	// What the worker needs for every burst.
	rx       rxRing
	fill     fillRing
	tx       txRing
	comp     completionRing
	pool     *frame.Pool
	owner    frame.Owner
	limit    uint32 // the most chunks to have given for receiving
	most     uint32 // what limit may grow to
	posted   uint32 // chunks given for receiving that have not come back
	inflight uint32 // descriptors given for sending that have not come back

	fd          int
	class       class
	metadata    bool // transmit metadata is registered
	csumOffload bool // the kernel completes partial checksums

	state atomic.Uint32 // State; written by the worker
	count counters

	// The control plane's.
	umem    *Umem
	name    string
	ifindex int
	queue   int
	mu      sync.Mutex // closing against reading statistics
	closed  bool
	last    unix.XDPStatistics // when it was closed
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
	wakeups    atomic.Uint64
	_          [64]byte
}

// bump adds to a counter that only the caller writes.
func bump(c *atomic.Uint64, n uint64) { c.Store(c.Load() + n) }

// ZeroCopy reports whether the device reads and writes the chunks itself.
func (s *Socket) ZeroCopy() bool { return s.class.zeroCopy }

// Multibuffer reports whether frames may be chains.
func (s *Socket) Multibuffer() bool { return s.class.sg }

// TxChecksum reports whether the kernel completes partial checksums: always in
// copy mode on a kernel with transmit metadata. Where it does not, Send sums
// the frame itself.
func (s *Socket) TxChecksum() bool { return s.csumOffload }

// FD is the descriptor to wait on for input. A device that goes down or away
// does not make it ready (net/xdp/xsk.c, xsk_poll): rtnetlink tells.
func (s *Socket) FD() int { return s.fd }

// Limits implements frame.Device: chains where the kernel has multi-buffer, and
// no segmentation. Descriptors cannot say that a frame is to be cut.
func (s *Socket) Limits() frame.Limits {
	if s.class.sg {
		return frame.Limits{Chunks: frame.MaxSegments, Gather: s.class.zeroCopy}
	}
	return frame.Limits{Chunks: 1}
}

// State is what the last send found. Safe from any goroutine. A socket that
// only receives does not notice; rtnetlink tells.
func (s *Socket) State() State { return State(s.state.Load()) }

// Start hands the socket its owner tag and first chunks. It fails when the
// pool has no free chunk at all.
func (s *Socket) Start(owner frame.Owner, fill int) error {
	s.owner = owner
	s.SetFill(fill)
	s.limit = s.most
	s.refill()
	if s.posted == 0 && s.limit > 0 {
		return fmt.Errorf("xsk: %s queue %d: the worker has no free frame left to receive into: "+
			"raise xdp.ringSize, or the number of workers", s.name, s.queue)
	}
	return nil
}

// SetFill implements frame.Device: the most chunks that the socket may hold for
// receiving, at most the fill ring's size. Chunks above a lowered limit come back
// with traffic.
func (s *Socket) SetFill(most int) {
	s.most = uint32(min(max(most, 0), int(s.fill.size)))
	s.limit = min(s.limit, s.most)
}

// grow doubles what the socket holds for receiving when more than a quarter of
// it was waiting to be received: a peer's worker sends a 64 KB packet as 46 frames,
// and a burst of such packets at once.
func (s *Socket) grow(waiting uint32) {
	if waiting > s.limit/4 && s.limit < s.most {
		s.limit = min(2*s.limit, s.most)
	}
}

// Sending implements frame.Device: the kernel refused frames for now (EAGAIN:
// the budget of a call, or the receiver's socket buffer, is used up).
func (s *Socket) Sending() bool { return s.tx.pending() > 0 && s.State() == StateUp }

// Recv implements frame.Device. Chains longer than frame.MaxSegments are
// dropped whole and counted.
func (s *Socket) Recv(b *frame.Burst) int {
	if s.inflight > 0 {
		s.reap()
		if s.tx.pending() > 0 && s.State() == StateUp {
			s.kick() // a send was cut short: the receiver may have room now
		}
	}
	ready := s.rx.ready()
	n := s.receive(b, ready)
	s.grow(ready)
	s.refill()
	return n
}

// receive adds frames of the ready descriptors to b.
func (s *Socket) receive(b *frame.Burst, ready uint32) int {
	n, used := 0, uint32(0)
	for used < ready && b.Room() > 0 {
		d := s.rx.at(used)
		segments := uint32(1)
		if d.Options&unix.XDP_PKT_CONTD != 0 {
			if segments = s.rx.chain(used, ready); segments == 0 {
				segments = s.unfinished(used, ready)
				used += segments
				break
			}
		}
		if s.accept(b, d, used, segments) {
			n++
		}
		used += segments
	}
	if used > 0 {
		s.rx.release(used)
		s.posted -= used
	}
	return n
}

// unfinished handles a chain whose end is not there. The kernel publishes whole
// frames, so the end must be coming; only when the ring is full of this one
// frame can it not, and then the frame is dropped. It returns the number of
// descriptors dropped.
func (s *Socket) unfinished(at, ready uint32) uint32 {
	if ready < s.rx.size || at > 0 {
		return 0
	}
	s.discard(at, ready)
	bump(&s.count.rxTooLong, 1)
	return ready
}

// accept makes a frame of the descriptors from at on, of which d is the first.
// It reports false when it dropped them instead.
func (s *Socket) accept(b *frame.Burst, d frame.Desc, at, segments uint32) bool {
	if segments > frame.MaxSegments {
		s.discard(at, segments)
		bump(&s.count.rxTooLong, 1)
		return false
	}
	for i := range segments {
		if s.pool.Take(s.rx.at(at+i).Addr, s.owner) {
			continue
		}
		for j := range i {
			s.pool.Free(s.rx.at(at + j).Addr)
		}
		s.discard(at+i+1, segments-i-1)
		bump(&s.count.rxInvalid, 1)
		return false
	}
	b.Add(d)
	for i := uint32(1); i < segments; i++ {
		b.Chain(s.rx.at(at + i)) // cannot fail: segments is at most MaxSegments
	}
	return true
}

// discard frees the chunks of n descriptors from at on.
func (s *Socket) discard(at, n uint32) {
	for i := range n {
		if addr := s.rx.at(at + i).Addr; s.pool.Take(addr, s.owner) {
			s.pool.Free(addr)
		}
	}
}

// refill gives the kernel free chunks up to the limit, as far as there are any.
func (s *Socket) refill() {
	if s.posted < s.limit {
		s.post(s.fill.room(s.limit - s.posted))
	}
	if s.class.zeroCopy && s.fill.needWakeup() {
		_, _, _ = unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
		bump(&s.count.wakeups, 1)
	}
}

// post gives the kernel up to n free chunks.
func (s *Socket) post(n uint32) {
	given := uint32(0)
	for ; given < n; given++ {
		addr, ok := s.pool.AllocSpare()
		if !ok {
			break
		}
		s.pool.Give(addr, s.owner)
		s.fill.put(s.pool.Base(addr))
	}
	if given > 0 {
		s.fill.publish()
		s.posted += given
	}
}

// Stats implements frame.Device. After Close the counters stay as they were.
func (s *Socket) Stats(d *frame.DeviceStats) {
	k := s.kernelStats()
	d.RxRingFull += k.Rx_ring_full
	d.RxFillEmpty += s.fillEmpty(&k)
	d.RxDropped += s.otherDrops(&k)
	d.RxTooLong += s.count.rxTooLong.Load()
	d.RxInvalid += s.count.rxInvalid.Load() + k.Rx_invalid_descs
	d.TxRingFull += s.count.txRingFull.Load()
	d.TxRefused += s.count.txRefused.Load()
	d.TxLinkDown += s.count.txLinkDown.Load()
	d.TxInvalid += s.count.txInvalid.Load() + k.Tx_invalid_descs
	d.TxErrors += s.count.txErrors.Load()
	d.Wakeups += s.count.wakeups.Load()
}

// fillEmpty is how many frames were lost for want of a free chunk. A zero-copy
// driver counts every time that it finds the fill ring empty, also while it
// has chunks in stock, and no frame (net/xdp/xsk_buff_pool.c, xp_alloc_batch).
func (s *Socket) fillEmpty(k *unix.XDPStatistics) uint64 {
	if s.class.zeroCopy {
		return 0
	}
	return k.Rx_fill_ring_empty_descs
}

// otherDrops is rx_dropped less what fillEmpty has: in copy mode a frame that
// finds the fill ring empty adds to both (net/xdp/xsk.c, __xsk_rcv).
func (s *Socket) otherDrops(k *unix.XDPStatistics) uint64 {
	return k.Rx_dropped - min(k.Rx_dropped, s.fillEmpty(k))
}

func (s *Socket) kernelStats() unix.XDPStatistics {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		if k, err := statistics(s.fd); err == nil {
			s.last = k
		}
	}
	return s.last
}

// Close releases the queue and the socket's hold on the memory.
func (s *Socket) Close() error {
	s.umem.leave(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	if k, err := statistics(s.fd); err == nil {
		s.last = k
	}
	s.closed = true
	if err := s.release(); err != nil {
		return fmt.Errorf("xsk: closing %s queue %d: %w", s.name, s.queue, err)
	}
	return nil
}
