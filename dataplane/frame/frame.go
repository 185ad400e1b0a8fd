// Package frame holds the memory that frames live in, and the contract by
// which devices hand frames to a worker and take them back.
//
// It knows chunks, descriptors, frames, bursts and ownership. It knows no
// protocol header and no socket: those are internal/packet and dataplane/xsk.
package frame

// Desc is one descriptor of an AF_XDP ring: struct xdp_desc of
// include/uapi/linux/if_xdp.h, byte for byte.
type Desc struct {
	// Addr is the offset of the first byte in the pool's memory.
	Addr uint64
	// Len is the number of bytes from Addr, all inside one chunk.
	Len uint32
	// Options holds XDP_PKT_CONTD and XDP_TX_METADATA.
	Options uint32
}

// Flags of a Frame.
type Flags uint8

const (
	// CsumPartial marks a frame whose layer-4 checksum field holds only the
	// folded pseudo-header sum; CsumStart and CsumOffset say where. A device
	// either lets the kernel complete it or completes it itself on Send.
	CsumPartial Flags = 1 << iota
	// SegTCP4, SegTCP6 and SegUDP say what a frame with SegSize is cut into.
	// One of them is set exactly when SegSize is not 0.
	SegTCP4
	SegTCP6
	SegUDP
	// SegCWR: the first segment alone has the TCP flag CWR
	// (VIRTIO_NET_HDR_GSO_ECN of include/uapi/linux/virtio_net.h).
	SegCWR
	// SegOuterSum: the outer UDP checksum of a frame with OuterL4 holds the folded
	// pseudo-header sum, too. Without it there is none.
	SegOuterSum
)

// SegKinds are the flags that say what a big frame is cut into.
const SegKinds = SegTCP4 | SegTCP6 | SegUDP

// Frame is one received or built frame: a first chunk and, for a big frame,
// further chunks. A frame has one owner at any time: the free list, a worker,
// or one device. It is a value; copying it does not copy ownership.
type Frame struct {
	// Addr is the offset of the first byte in the pool's memory. It moves
	// down when a header is pushed and up when one is popped, always inside
	// the first chunk.
	Addr uint64
	// Rest are the continuation descriptors of a big frame, nil otherwise.
	// They are borrowed from the burst the frame arrived in and end with it.
	Rest []Desc
	// Len is the number of bytes in the first chunk.
	Len uint32
	// Total is the number of bytes in all chunks.
	Total uint32
	// CsumStart is the offset from the frame's first byte to the layer-4
	// header whose checksum is partial.
	CsumStart uint16
	// CsumOffset is the offset of the checksum field in that header.
	CsumOffset uint16
	// SegSize marks a big frame that stands for many on the wire: it is the
	// payload in bytes of each segment it is to be cut into, the last one's
	// excepted. Such a frame is CsumPartial. 0 is a frame that leaves as it is.
	SegSize uint16
	// HeaderLen is the number of bytes in front of the payload of a frame with
	// SegSize, all in the first chunk: the headers that each segment repeats.
	HeaderLen uint16
	// OuterL4 is the offset of the outer UDP header of a frame with SegSize that
	// is in VXLAN, 0 of one that is in no tunnel.
	OuterL4 uint8
	Flags   Flags
}

// Segments is the number of frames that f is on a wire.
func (f *Frame) Segments() uint32 {
	if f.SegSize == 0 {
		return 1
	}
	payload, size := f.Total-uint32(f.HeaderLen), uint32(f.SegSize)
	return max((payload+size-1)/size, 1)
}

// OnWire is the number of frames that f is on a wire, and of their bytes.
func (f *Frame) OnWire() (packets, bytes uint64) {
	if f.SegSize == 0 {
		return 1, uint64(f.Total)
	}
	return f.bigOnWire()
}

func (f *Frame) bigOnWire() (packets, bytes uint64) {
	n := f.Segments()
	return uint64(n), uint64(f.Total) + uint64(n-1)*uint64(f.HeaderLen)
}

// BurstSize is the largest number of frames a worker takes at once.
const BurstSize = 64

// MaxSegments is the largest number of chunks in one frame of an AF_XDP socket:
// MAX_SKB_FRAGS + 1 of a kernel built with 17 (net/xdp/xsk.c, xsk_build_skb).
const MaxSegments = 18

// MaxBytes is the largest frame of any device: a pod's GSO frame beyond 64 KB (BIG
// TCP), its Ethernet header included.
const MaxBytes = 256<<10 + 14

// MaxChunks is the largest number of chunks in one frame of any device, of 4 KiB
// each and filled behind the headroom.
const MaxChunks = (MaxBytes + 4096 - Headroom - 1) / (4096 - Headroom)

// Burst collects received frames. Its memory is allocated once; frames and
// their Rest are valid until Reset. One goroutine uses it.
type Burst struct {
	Frames [BurstSize]Frame
	N      int

	arena [burstChain]Desc
	used  int
}

// burstChain is the number of continuation chunks in a burst: enough for the
// largest frames of an AF_XDP socket.
const burstChain = BurstSize * (MaxSegments - 1)

// Reset empties the burst. Frames that were in it must have been freed or
// given away before.
func (b *Burst) Reset() { b.N, b.used = 0, 0 }

// Room is the number of frames that can still be added.
func (b *Burst) Room() int { return BurstSize - b.N }

// Add appends a frame of a single chunk and returns it for chaining.
// The burst must have room.
func (b *Burst) Add(d Desc) *Frame {
	f := &b.Frames[b.N]
	b.N++
	*f = Frame{Addr: d.Addr, Len: d.Len, Total: d.Len}
	return f
}

// ChainRoom is the number of continuation chunks that can still be added.
func (b *Burst) ChainRoom() int { return burstChain - b.used }

// Chain appends a continuation chunk to the frame added last. It reports false
// when there is no room: then the caller keeps the chunk.
func (b *Burst) Chain(d Desc) bool {
	f := &b.Frames[b.N-1]
	if b.used == burstChain {
		return false
	}
	if f.Rest == nil {
		f.Rest = b.arena[b.used:b.used]
	}
	b.arena[b.used] = d
	b.used++
	f.Rest = f.Rest[:len(f.Rest)+1]
	f.Total += d.Len
	return true
}

// DeviceStats are counters of one device since it was opened.
type DeviceStats struct {
	RxDropped   uint64 // frames the kernel dropped before the receive ring, for other reasons than the next two
	RxRingFull  uint64 // ... because the receive ring was full
	RxFillEmpty uint64 // ... because the fill ring was empty
	RxTooLong   uint64 // frames of more than MaxSegments chunks, dropped whole
	RxInvalid   uint64 // frames with a chunk that was not the device's: a defect of the kernel or of ours
	RxShare     uint64 // frames of a port that had its share of a queue that ports share
	RxFailed    uint64 // frames that a steering program could not hand on
	TxRingFull  uint64 // frames that Send found no room for and left to its caller
	TxRefused   uint64 // frames the kernel took and dropped (NET_XMIT_DROP)
	TxLinkDown  uint64 // frames given up because the device was down or gone
	TxInvalid   uint64 // frames that break the device's rules, and descriptors the kernel called invalid: a defect of ours
	TxErrors    uint64 // system calls for sending that failed in a way nobody expects
	Wakeups     uint64 // system calls to make the kernel look at a ring
}

// Offload is a set of big frames that a device takes whole, to be cut by the
// kernel, by the NIC, or not at all.
type Offload uint8

const (
	// OffloadTCP and OffloadUDP are frames with SegTCP4 or SegTCP6, and with
	// SegUDP, that are in no tunnel.
	OffloadTCP Offload = 1 << iota
	OffloadUDP
	// OffloadTunnelTCP and OffloadTunnelUDP are such frames in VXLAN: OuterL4 is set.
	OffloadTunnelTCP
	OffloadTunnelUDP
	// OffloadOuterSum is that those in VXLAN may have SegOuterSum.
	OffloadOuterSum
)

// tunnelShift makes the Offload in VXLAN of one in no tunnel.
const tunnelShift = 2

// Limits say which frames Send accepts. Others it counts as invalid and drops.
type Limits struct {
	Offload Offload
	Chunks  int // most chunks of a frame: 1 is no chains
	Bytes   int // most bytes of a frame with SegSize; 0 without Offload
	// Gather: a frame of several chunks costs little more to send than one of a
	// single chunk, because the hardware gathers them.
	Gather bool
	// TxOnly: frames of this port arrive by another device, and Recv adds none.
	TxOnly bool
	// Asks: Recv is a system call, also when there is nothing to receive.
	Asks bool
}

// Takes reports whether the device accepts f, which has SegSize, whole.
func (l *Limits) Takes(f *Frame) bool {
	need := OffloadTCP
	if f.Flags&SegUDP != 0 {
		need = OffloadUDP
	}
	if f.OuterL4 != 0 {
		need <<= tunnelShift
		if f.Flags&SegOuterSum != 0 {
			need |= OffloadOuterSum
		}
	}
	return l.Offload&need == need && int(f.Total) <= l.Bytes && 1+len(f.Rest) <= l.Chunks
}

// Device is one queue of one port as the worker that owns it sees it. After
// Start, every method but Stats belongs to that worker's goroutine.
type Device interface {
	// Start gives the device its owner tag and its first fill free frames to
	// receive into. A device that runs out of them faster than it gets them
	// back takes more, up to what SetFill allows.
	Start(owner Owner, fill int) error
	SetFill(most int)

	// Recv adds received frames to b as long as it has room, refills the
	// device with free frames and takes completed ones back. It never blocks.
	// The caller owns the added frames. It returns how many were added.
	Recv(b *Burst) int

	// Send takes frames in order and wakes the kernel once. It returns how
	// many it took; the caller keeps the rest (and drops them). It never
	// blocks. A frame's Rest is read before Send returns.
	Send(frames []Frame) int

	// Sending reports whether frames that Send took still wait for the kernel
	// to take them. Recv makes it try again; who sleeps leaves them waiting.
	Sending() bool

	// FD is the descriptor to wait on for input, or -1.
	FD() int

	// Limits do not change once the device is open.
	Limits() Limits

	// Stats adds the device's counters to s. Safe from any goroutine.
	Stats(s *DeviceStats)

	// Close releases the device. The worker must have let go of it; frames it
	// held are the pool's to Reclaim afterwards, not before.
	Close() error
}
