// Package outer hears what the host's kernel gets about the outer packets of
// Culvert's tunnels: ICMP errors that quote one, and packets that came in fragments
// and that the kernel has put together.
//
// The steering programs leave both to the kernel, so that it costs the packet path
// nothing to have them. Raw sockets with a filter get a copy here; what arrives
// faster than it is read is lost at the socket. What is believed of an error is
// decided here (quote.go), and what is known of the path to each peer is kept
// (paths.go). Nothing here writes a table or knows a Kubernetes object.
package outer

import (
	"net/netip"

	"culvert/encap"
	"culvert/internal/drop"
)

// Local is this node's end of the tunnels.
type Local struct {
	// Addr is what tunnel packets are sent from, and to.
	Addr netip.Addr
	// Port is VXLAN's UDP port, and VNI its network; Port is 0 without VXLAN.
	Port uint16
	VNI  uint32
	// IPIP says that there are IPIP tunnels.
	IPIP bool
}

// Kind says what an ICMP error tells.
type Kind uint8

// The kinds of errors.
const (
	TooBig Kind = iota
	HostUnreachable
	PortUnreachable
	ProtocolUnreachable
	Prohibited
	TimeExceeded
	Other
	NumKinds
)

var kindNames = [NumKinds]string{
	"too_big", "host_unreachable", "port_unreachable", "protocol_unreachable", "prohibited", "time_exceeded", "other",
}

// String is the kind's name in metrics and JSON.
func (k Kind) String() string { return kindNames[min(k, Other)] }

// Error is an ICMP error about an outer packet of ours.
type Error struct {
	Kind Kind
	// Peer is where the packet was to go, From who could not send it on.
	Peer, From netip.Addr
	// Size is the length of the packet, MTU what would have fit, of TooBig; both in
	// bytes, from the outer IP header on.
	Size, MTU int
	// Inner is what the error quotes of the inner Ethernet frame; nil if it does not
	// get so far, or there is none. It is valid until the handler returns.
	Inner []byte
}

// Datagram is a tunnel packet that came in fragments.
type Datagram struct {
	Peer netip.Addr
	// Frame is the packet behind an Ethernet header of zeroes. It is valid until the
	// handler returns.
	Frame []byte
	// Fragment is the length of the longest of its fragments.
	Fragment int
}

// Hash is the same for all of a flow's packets: of a VXLAN packet the UDP source port.
func (d *Datagram) Hash() uint32 {
	var o encap.Outer
	if encap.Classify(d.Frame, len(d.Frame), &o) != drop.None {
		return 0
	}
	return uint32(o.SrcPort)
}

// Handler takes what was heard. Its methods are called from several goroutines.
type Handler interface {
	Error(*Error)
	Datagram(*Datagram)
	// Lost is told how many datagrams were lost because they came faster than they
	// were taken.
	Lost(n uint64)
}
