package load

import (
	"net"
	"net/netip"
	"time"
)

// Lengths of frames before a tunnel's headers, without the frame check sequence.
const (
	MinFrame = 64
	MaxFrame = 1514
)

// MaxFlows is how many flows can be sent at the same time.
const MaxFlows = 1 << 20

// Config says what a generator sends, where, and how much of it at most.
type Config struct {
	// Outs are the ends that send: flow f leaves by Outs[f % len(Outs)].
	Outs []Out
	// NextHop is the destination MAC of all frames, in a VXLAN tunnel of the
	// inner ones.
	NextHop net.HardwareAddr
	// Destinations are where packets go: flow f goes to
	// Destinations[f / len(Outs) % len(Destinations)].
	Destinations []netip.Addr
	// Tunnel is around every frame, if not nil.
	Tunnel *Tunnel

	// Sizes are the lengths of frames: see Fixed and IMIX.
	Sizes []Size
	// Flows is the number of flows at the same time, 1 to MaxFlows.
	Flows int
	// Zipf is the exponent s of the flows' popularity: the k-th is sent in
	// proportion to 1/k^s. 0 sends all of them in turn.
	Zipf float64
	// Draws is how many times a flow is drawn by Zipf, before the same draws
	// come again: 1 to 1<<20; 0 means the latter. Seed is where they start.
	Draws int
	Seed  uint64
	// NewEvery makes every n-th frame the first of a flow that was never sent
	// before. It takes the place of the one that was there for longest. 0: none.
	NewEvery int
	// NewFlows says the same in flows a second, for a generator with a Rate.
	NewFlows float64

	// Rate is in frames a second, 1 to 1e8; 0 is as fast as it goes. What was not
	// sent in time, because something else ran, is not made up for: see Generated.
	Rate float64
	// MaxFrames and MaxTime end the generator; both must be positive, the time
	// at most an hour.
	MaxFrames uint64
	MaxTime   time.Duration
	// CPU is the processor to run on, -1 for any.
	CPU int
	// Enter puts the calling thread into the devices' network namespace. The
	// thread ends with the generator.
	Enter func() error
}

// Out is an end that sends: a pod, or a node beyond the wire.
type Out struct {
	// Device is the index of the device that its frames are put into.
	Device int
	// MAC and Addr are the source of its frames; in a tunnel, of the inner ones.
	// IPIP has no inner MACs.
	MAC  net.HardwareAddr
	Addr netip.Addr
	// Peer is the tunnel's source address; invalid without one.
	Peer netip.Addr
}

// Kind is how a tunnel encapsulates.
type Kind string

// The kinds of tunnels.
const (
	VXLAN Kind = "vxlan"
	IPIP  Kind = "ipip" // RFC 2003, IPv4 in IPv4
)

// Tunnel is what is around every frame but for its source, which is Out.Peer.
type Tunnel struct {
	Kind           Kind
	SrcMAC, DstMAC net.HardwareAddr
	Dst            netip.Addr
	// Port and VNI are those of VXLAN.
	Port uint16
	VNI  uint32
}

// Size is a length of frames and how often it comes.
type Size struct {
	// Len is in bytes from MinFrame to MaxFrame, before a tunnel's headers.
	Len int
	// Weight of all sizes together is at most MaxWeight.
	Weight int
}

// MaxWeight is the largest sum of weights.
const MaxWeight = 64

// Fixed is one length for all frames.
func Fixed(n int) []Size { return []Size{{Len: n, Weight: 1}} }

// IMIX is the simple Internet mix of 7 short, 4 medium and 1 long frames. The
// long ones have 1514 bytes, or the largest that the device's MTU lets through.
func IMIX(largest int) []Size { return []Size{{64, 7}, {570, 4}, {min(largest, MaxFrame), 1}} }
