// Package memport is a frame.Device in memory: tests put frames in at one end
// and see what the dataplane sent at the other, with no kernel and no root.
//
// It keeps the contract that a real device keeps (who owns which chunk when),
// so that a pool in checked mode proves the dataplane's handling of frames.
package memport

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"culvert/dataplane/frame"
)

// Sent is one frame that the dataplane sent: its bytes, and what it asked of
// the device.
type Sent struct {
	Data       []byte
	Flags      frame.Flags
	CsumStart  int
	CsumOffset int
	SegSize    int // of a big frame that the device took whole
	HeaderLen  int
	OuterL4    int
	Chunks     int // that it came in
}

// Device is an in-memory device. Inject and Sent are safe from any goroutine;
// the rest is the worker's.
type Device struct {
	// Complete makes Send complete partial checksums, as a kernel would for a
	// receiver that verifies them.
	Complete bool
	// Takes are the limits that the device states; the zero value is any chain
	// and no big frames. Set it before the port is added.
	Takes frame.Limits
	// Limit, if not 0, is the number of frames that Send takes before it says
	// that its ring is full; Drain empties the ring.
	Limit atomic.Int64

	pool  *frame.Pool
	owner frame.Owner
	fill  int

	mu   sync.Mutex
	in   []injected
	sent []Sent
	hold bool
	held []uint64 // chunks that Send took while hold was set

	refused atomic.Uint64
	started atomic.Bool
	closed  atomic.Bool
}

// injected is a frame to receive, with what a virtio_net_hdr says of it.
type injected struct {
	data    []byte
	segSize uint16
	flags   frame.Flags
	start   uint16 // of the checksum, and its offset; 0 is the packet's own
	offset  uint16
}

// New makes a device on a worker's pool.
func New(pool *frame.Pool) *Device { return &Device{pool: pool} }

// Inject queues a frame for the dataplane to receive, as a chain of chunks when
// it is larger than one.
func (d *Device) Inject(data ...[]byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range data {
		d.in = append(d.in, injected{data: b})
	}
}

// InjectBig queues a frame with a known segment size, its checksum partial: what
// a packet socket or a TAP device receives. kind is one of frame.SegKinds.
func (d *Device) InjectBig(data []byte, segSize int, kind frame.Flags) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.in = append(d.in, injected{data: data, segSize: uint16(segSize), flags: kind | frame.CsumPartial})
}

// InjectPartial queues a frame of which the device says that the checksum at start
// and offset is partial.
func (d *Device) InjectPartial(data []byte, start, offset uint16) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.in = append(d.in, injected{data: data, flags: frame.CsumPartial, start: start, offset: offset})
}

// Hold makes the device keep the chunks of sent frames, as a kernel does that has
// not completed them; Hold(false) gives them back. For the worker's goroutine.
func (d *Device) Hold(hold bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hold = hold
	if !hold {
		for _, addr := range d.held {
			d.complete(addr)
		}
		d.held = nil
	}
}

// complete gives a sent chunk back to the pool.
func (d *Device) complete(addr uint64) {
	if d.hold {
		d.held = append(d.held, addr)
		return
	}
	d.pool.Take(addr, d.owner)
	d.pool.Free(addr)
}

// Pending is the number of injected frames not yet received.
func (d *Device) Pending() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.in)
}

// TakeSent returns and forgets the frames sent so far.
func (d *Device) TakeSent() []Sent {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.sent
	d.sent = nil
	return s
}

// Start implements frame.Device.
func (d *Device) Start(owner frame.Owner, fill int) error {
	d.owner, d.fill = owner, fill
	d.started.Store(true)
	return nil
}

// SetFill implements frame.Device.
func (d *Device) SetFill(fill int) { d.fill = fill }

// Recv implements frame.Device.
func (d *Device) Recv(b *frame.Burst) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for len(d.in) > 0 && b.Room() > 0 {
		if !d.receive(b, d.in[0]) {
			break
		}
		d.in = d.in[1:]
		n++
	}
	return n
}

// receive copies data into chunks and adds them to b as one frame.
func (d *Device) receive(b *frame.Burst, in injected) bool {
	per, data := d.pool.ChunkSize()-frame.Headroom, in.data
	if d.pool.FreeChunks() < len(data)/per+1 || b.ChainRoom() < len(data)/per {
		return false
	}
	first := true
	for first || len(data) > 0 {
		addr, _ := d.pool.Alloc()
		n := copy(d.pool.Bytes(addr, uint32(per)), data)
		data = data[n:]
		desc := frame.Desc{Addr: addr, Len: uint32(n)}
		if first {
			f := b.Add(desc)
			f.SegSize, f.Flags = in.segSize, in.flags
			if in.flags&frame.CsumPartial != 0 {
				f.CsumStart, f.CsumOffset = in.start, in.offset
				if in.offset == 0 {
					f.CsumStart, f.CsumOffset = checksumAt(in.data, in.flags)
				}
			}
		} else {
			b.Chain(desc)
		}
		first = false
	}
	return true
}

// checksumAt is where the checksum of a big IPv4 packet is, without options, in
// VXLAN or not.
func checksumAt(data []byte, kind frame.Flags) (start, offset uint16) {
	const udp, vxlan = 17, 50
	start, offset = 34, 16
	if kind&frame.SegUDP != 0 {
		offset = 6
	} else if data[23] == udp {
		start += vxlan
	}
	return start, offset
}

// Send implements frame.Device.
func (d *Device) Send(frames []frame.Frame) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range frames {
		if l := d.Limit.Load(); l != 0 && int64(len(d.sent)) >= l {
			d.refused.Add(1)
			return i
		}
		d.send(&frames[i])
	}
	return len(frames)
}

func (d *Device) send(f *frame.Frame) {
	s := Sent{Flags: f.Flags, CsumStart: int(f.CsumStart), CsumOffset: int(f.CsumOffset), SegSize: int(f.SegSize),
		HeaderLen: int(f.HeaderLen), OuterL4: int(f.OuterL4), Chunks: 1 + len(f.Rest)}
	if limits := d.Limits(); f.SegSize != 0 && !limits.Takes(f) || s.Chunks > limits.Chunks {
		panic("memport: a frame is beyond the device's limits")
	}
	s.Data = append(s.Data, d.pool.Bytes(f.Addr, f.Len)...)
	d.pool.Give(f.Addr, d.owner)
	for _, r := range f.Rest {
		s.Data = append(s.Data, d.pool.Bytes(r.Addr, r.Len)...)
		d.pool.Give(r.Addr, d.owner)
	}
	if uint32(len(s.Data)) != f.Total {
		panic("memport: a frame's Total is not the sum of its chunks")
	}
	if d.Complete && f.Flags&frame.CsumPartial != 0 {
		completeChecksum(s.Data, int(f.CsumStart), int(f.CsumOffset))
	}
	d.sent = append(d.sent, s)
	d.complete(f.Addr)
	for _, r := range f.Rest {
		d.complete(r.Addr)
	}
}

// completeChecksum does what skb_checksum_help of the kernel does.
func completeChecksum(b []byte, start, offset int) {
	var sum uint32
	for i := start; i < len(b); i += 2 {
		if i+1 < len(b) {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		} else {
			sum += uint32(b[i]) << 8
		}
		sum = sum&0xffff + sum>>16
	}
	sum = sum&0xffff + sum>>16
	c := ^uint16(sum)
	if c == 0 {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(b[start+offset:], c)
}

// Sending implements frame.Device: Send is done when it returns.
func (d *Device) Sending() bool { return false }

// FD implements frame.Device: there is nothing to wait on.
func (d *Device) FD() int { return -1 }

// Limits implements frame.Device.
func (d *Device) Limits() frame.Limits {
	if d.Takes.Chunks == 0 {
		return frame.Limits{Chunks: frame.MaxChunks}
	}
	return d.Takes
}

// Stats implements frame.Device.
func (d *Device) Stats(s *frame.DeviceStats) { s.TxRingFull += d.refused.Load() }

// Close implements frame.Device.
func (d *Device) Close() error {
	d.closed.Store(true)
	return nil
}

// Closed reports whether Close was called.
func (d *Device) Closed() bool { return d.closed.Load() }
