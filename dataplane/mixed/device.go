package mixed

import (
	"errors"
	"sync/atomic"

	"culvert/dataplane/frame"
)

// Device is a frame.Device of a socket for small frames and a way for big ones.
//
// Both ways end in the same device of the kernel, and a frame that was sent later
// arrives later, whichever way it took. This rests on the socket being in copy
// mode: there, a frame that has left the transmit ring is in the hands of the
// device (net/xdp/xsk.c, __xsk_generic_xmit). A zero-copy driver reads its ring
// when it likes; New refuses such a socket.
type Device struct {
	small  Small
	big    Big
	pool   *frame.Pool
	limits frame.Limits
	chains int  // most chunks of a frame for the socket
	txOnly bool // frames of the port arrive by another device
	others func(*frame.DeviceStats)
	full   *frame.Burst // without room: the socket tends to its sends and receives nothing
	count  counters
}

// counters of the big way have one writer, the worker, and any number of readers.
// The socket counts for itself.
type counters struct {
	_        [64]byte
	ringFull atomic.Uint64
	linkDown atomic.Uint64
	refused  atomic.Uint64
	invalid  atomic.Uint64
	errors   atomic.Uint64
	_        [64]byte
}

// bump adds to a counter that only the caller writes.
func bump(c *atomic.Uint64, n uint64) { c.Store(c.Load() + n) }

// ErrZeroCopy says that a socket's device sends by itself: frames of the two ways
// would overtake each other.
var ErrZeroCopy = errors.New("mixed: the socket is in zero-copy mode: open it with zero-copy off")

// New makes a device of the two ways, which end with it, over the pool of both.
// With txOnly nothing is received. On an error the ways stay open.
func New(small Small, big Big, pool *frame.Pool, txOnly bool) (*Device, error) {
	if small.ZeroCopy() {
		return nil, ErrZeroCopy
	}
	s, b := small.Limits(), big.Limits()
	return &Device{
		small: small, big: big, pool: pool, txOnly: txOnly, chains: s.Chunks,
		full: &frame.Burst{N: frame.BurstSize},
		limits: frame.Limits{
			Offload: b.Offload,
			Chunks:  max(s.Chunks, b.Chunks),
			Bytes:   b.Bytes,
			Gather:  s.Gather,
			TxOnly:  txOnly,
		},
	}, nil
}

// CountAlso makes Stats add what others lost of the port's frames: on a port whose
// frames arrive by another device. Call it before the Device is used.
func (d *Device) CountAlso(others func(*frame.DeviceStats)) { d.others = others }

// Start implements frame.Device. A port that only sends is given no chunks.
func (d *Device) Start(owner frame.Owner, fill int) error {
	if d.txOnly {
		fill = 0
	}
	return d.small.Start(owner, fill)
}

// SetFill implements frame.Device.
func (d *Device) SetFill(most int) {
	if !d.txOnly {
		d.small.SetFill(most)
	}
}

// Recv implements frame.Device: what the socket receives. On a port that only
// sends it takes completed frames back.
func (d *Device) Recv(b *frame.Burst) int {
	if d.txOnly {
		return d.small.Recv(d.full)
	}
	return d.small.Recv(b)
}

// Sending implements frame.Device.
func (d *Device) Sending() bool { return d.small.Sending() }

// FD implements frame.Device: -1 on a port that only sends.
func (d *Device) FD() int {
	if d.txOnly {
		return -1
	}
	return d.small.FD()
}

// Limits implements frame.Device: big frames as the big way takes them, and
// chains as long as either way takes them.
func (d *Device) Limits() frame.Limits { return d.limits }

// Stats implements frame.Device.
func (d *Device) Stats(s *frame.DeviceStats) {
	d.small.Stats(s)
	if d.others != nil {
		d.others(s)
	}
	s.TxRingFull += d.count.ringFull.Load()
	s.TxLinkDown += d.count.linkDown.Load()
	s.TxRefused += d.count.refused.Load()
	s.TxInvalid += d.count.invalid.Load()
	s.TxErrors += d.count.errors.Load()
}

// Close closes both ways.
func (d *Device) Close() error { return closeBoth(d.small, d.big) }

var _ frame.Device = (*Device)(nil)
