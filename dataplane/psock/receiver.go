package psock

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"culvert/dataplane/frame"
	"culvert/dataplane/vnet"

	"golang.org/x/sys/unix"
)

// receiveBuffer is the limit of bytes that wait to be received. The kernel doubles
// it, and counts for each frame the memory that it occupies: some 400 of 64 KB.
const receiveBuffer = 16 << 20

// perCall is the most frames that one system call receives, which saves 3 of 4
// calls where frames come fast. For each there is a stock of chunks, 276 KB; of a
// small pool, stocks get one chunk in stockShare, but one stock there must be.
const (
	perCall    = 4
	stockShare = 8
)

// Receiver receives the frames that arrive at one device. It must not be copied
// once it is open.
type Receiver struct {
	fd     int
	pool   *frame.Pool
	name   string
	per    int // stocks in use
	stocks [perCall]stock
	msgs   [perCall]mmsghdr
	count  counters

	mu     sync.Mutex // closing against reading statistics
	closed bool
	lost   uint64 // frames the kernel dropped; reading resets its counter
}

// counters have one writer, the worker, and any number of readers.
type counters struct {
	_       [64]byte
	tooLong atomic.Uint64
	noChunk atomic.Uint64
	invalid atomic.Uint64
	_       [64]byte
}

// bump adds to a counter that only the caller writes.
func bump(c *atomic.Uint64, n uint64) { c.Store(c.Load() + n) }

// OpenReceiver opens a socket for what arrives at a device of the calling thread's
// network namespace. It gets a copy of every frame, into pool's chunks; whoever
// else gets the frame still does.
func OpenReceiver(name string, ifindex int, pool *frame.Pool) (*Receiver, error) {
	fd, err := openSocket(setting{"ignoring what the device sends", unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1})
	if err != nil {
		return nil, fmt.Errorf("psock: receiving from %s: %w", name, err)
	}
	raiseBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, receiveBuffer)
	if err := bind(fd, ifindex, unix.ETH_P_ALL); err != nil {
		return nil, errors.Join(fmt.Errorf("psock: receiving from %s: %w", name, err), unix.Close(fd))
	}
	r := &Receiver{fd: fd, pool: pool, name: name}
	r.per = min(max(pool.Chunks()/stockShare/frame.MaxChunks, 1), perCall)
	for i := range r.per {
		r.stocks[i].init(pool)
	}
	return r, nil
}

// JoinFanout shares the device's frames with the other members of a group, which
// receive from the same device in the same namespace: a frame of which the queue
// mapping is q goes to member q modulo their number, in the order in which they
// joined (net/packet/af_packet.c, fanout_demux_qm). Before Join, each of several
// receivers sees every frame.
func (r *Receiver) JoinFanout(group uint16) error {
	if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_FANOUT, int(group)|unix.PACKET_FANOUT_QM<<16); err != nil {
		return fmt.Errorf("psock: sharing the frames of %s: %w", r.name, err)
	}
	return nil
}

// Start gives the receiver its owner tag and its first chunks.
func (r *Receiver) Start(owner frame.Owner) {
	for i := range r.per {
		r.stocks[i].owner = owner
		r.stocks[i].refill()
	}
}

// FD is the descriptor to wait on for input.
func (r *Receiver) FD() int { return r.fd }

// Recv adds the next few frames to b, as far as it is sure to have room: the
// largest frame is frame.MaxChunks long. It returns how many it added, and whether
// it found that no more waited. It never blocks.
//
// When the pool has no chunks to spare, a frame that does not fit into what the
// receiver has is dropped, as the kernel would drop one for an AF_XDP socket: a
// full socket buffer would cost other ports' frames later.
func (r *Receiver) Recv(b *frame.Burst) (n int, empty bool) {
	most := min(r.per, b.Room(), b.ChainRoom()/(frame.MaxChunks-1))
	if most == 0 {
		return 0, false
	}
	msgs := r.msgs[:most]
	for i := range msgs {
		s := &r.stocks[i]
		s.refill()
		s.offer(&msgs[i].msg)
	}
	got, errno := recvmmsg(r.fd, msgs)
	switch errno {
	case 0:
	case unix.EINVAL:
		// A frame that no virtio_net_hdr can describe, freed (packet_rcv_vnet).
		// Behind other frames it ends the call, and the next one says so.
		bump(&r.count.invalid, 1)
		return 0, false
	case unix.EINTR:
		return 0, false
	default: // EAGAIN; ENETDOWN, once, when the device goes down
		return 0, true
	}
	for i := range got {
		if r.accept(b, &r.stocks[i], &msgs[i]) {
			n++
		}
	}
	return n, false // it ends early for a frame that it refuses, too: only the next call knows
}

// accept makes a frame of what was received into s. It reports false when it
// dropped it: then the chunks are received into again.
func (r *Receiver) accept(b *frame.Burst, s *stock, m *mmsghdr) bool {
	if m.msg.Flags&unix.MSG_TRUNC != 0 {
		if s.full() {
			bump(&r.count.tooLong, 1)
		} else {
			bump(&r.count.noChunk, 1)
		}
		return false
	}
	var meta frame.Frame
	bytes := m.n - vnet.Len
	if m.n < vnet.Len || !vnet.Accept(s.header[:], bytes, min(bytes, s.room), &meta) {
		bump(&r.count.invalid, 1)
		return false
	}
	f := b.Add(frame.Desc{Addr: s.take(), Len: min(bytes, s.room)})
	f.Flags, f.SegSize = meta.Flags, meta.SegSize
	f.CsumStart, f.CsumOffset = meta.CsumStart, meta.CsumOffset
	for at := s.room; at < bytes; at += s.room {
		b.Chain(frame.Desc{Addr: s.take(), Len: min(bytes-at, s.room)}) // Recv has seen to the room
	}
	return true
}

// Stats adds what was lost to s. Safe from any goroutine.
func (r *Receiver) Stats(s *frame.DeviceStats) {
	s.RxRingFull += r.kernelDrops()
	s.RxFillEmpty += r.count.noChunk.Load()
	s.RxTooLong += r.count.tooLong.Load()
	s.RxInvalid += r.count.invalid.Load()
}

// kernelDrops is how many frames found the socket's buffer full.
func (r *Receiver) kernelDrops() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.readDrops()
	}
	return r.lost
}

// readDrops adds up the kernel's counter. r.mu is held.
func (r *Receiver) readDrops() {
	if st, err := unix.GetsockoptTpacketStats(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		r.lost += uint64(st.Drops)
	}
}

// Close ends receiving. The chunks in stock are the pool's to Reclaim afterwards.
func (r *Receiver) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.readDrops()
	r.closed = true
	if err := unix.Close(r.fd); err != nil {
		return fmt.Errorf("psock: closing the receiver of %s: %w", r.name, err)
	}
	return nil
}
