package dataplane

import (
	"net/netip"
	"sync/atomic"
	"time"

	"culvert/dataplane/frame"
	"culvert/internal/drop"
	"culvert/internal/packet"
)

// PortKind says what is at the other end of a port.
type PortKind uint8

// The kinds of ports.
const (
	PortUplink PortKind = iota // a NIC: tunnel packets from and to other nodes
	PortVeth                   // a pod behind a veth
	PortTAP                    // a pod behind a TAP
	PortHost                   // the node's own network stack
	PortIntake                 // no port of its own: frames of many ports arrive by it, each with its port's tag
	numPortKinds
)

// String is the word of the JSON output and of the metrics' kind label.
func (k PortKind) String() string {
	return [...]string{"uplink", "veth", "tap", "host", "intake"}[k]
}

// PortSpec describes a port. It is immutable once the port is added.
type PortSpec struct {
	Name    string
	Kind    PortKind
	Ifindex int
	// MAC is our side's address: what the far side sends to.
	MAC packet.MAC
	// PeerMAC is the pod's address, the only one it may send from.
	PeerMAC packet.MAC
	// Addrs are the pod's addresses, the only ones it may send from.
	Addrs []netip.Addr
	// MTU is the largest IP packet that the far side sends unsegmented: the
	// pod's MTU, or for an uplink the underlay's. A larger TCP packet is a
	// GSO frame.
	MTU int
	// Queues is the number of queues. Worker w of n owns the queues w, w+n, …
	// and sends on the first of them: a port needs as many queues as there
	// are workers.
	Queues  int
	XDPMode string // native, generic, or empty where XDP is not used
}

// port is the engine's view of one port.
type port struct {
	index  uint16
	spec   PortSpec
	addrs  []packet.Addr // spec.Addrs as the parser sees addresses
	queues []*portQueue  // by number
	ready  bool          // all queues are open; under Engine.mu
}

// hasAddr reports whether a is one of the pod's own addresses. Pods have one
// address a family: a scan beats a map.
func (p *port) hasAddr(a *packet.Addr) bool {
	for i := range p.addrs {
		if p.addrs[i] == *a {
			return true
		}
	}
	return false
}

// isPod reports whether the far side is a pod.
func (p *port) isPod() bool { return p.spec.Kind == PortVeth || p.spec.Kind == PortTAP }

// portQueue is one worker's queue of a port. Everything in it but the
// counters belongs to that worker.
type portQueue struct {
	port   *port
	worker *worker
	dev    frame.Device
	limits frame.Limits // dev's
	owner  frame.Owner
	late   bool // it is in the worker's list of these

	askAt time.Duration // when it is to be asked next, of a device that Asks

	// ntx frames wait in tx for the next flush.
	ntx int
	tx  [frame.BurstSize]frame.Frame

	rxPackets, rxBytes uint64 // since the last publish
	txPackets, txBytes uint64

	counters counters
}

// counters are written by one worker and read by anyone: the trailing pad
// keeps them off the cache lines that the worker's neighbours write.
type counters struct {
	rxPackets, rxBytes atomic.Uint64
	txPackets, txBytes atomic.Uint64
	drops              [drop.Count]atomic.Uint64
	_                  [128]byte
}

// bump adds n to a counter that only the caller writes.
func bump(c *atomic.Uint64, n uint64) { c.Store(c.Load() + n) }

// publish makes the burst's counts visible to readers.
func (q *portQueue) publish() {
	if q.rxPackets != 0 {
		bump(&q.counters.rxPackets, q.rxPackets)
		bump(&q.counters.rxBytes, q.rxBytes)
		q.rxPackets, q.rxBytes = 0, 0
	}
	if q.txPackets != 0 {
		bump(&q.counters.txPackets, q.txPackets)
		bump(&q.counters.txBytes, q.txBytes)
		q.txPackets, q.txBytes = 0, 0
	}
}
