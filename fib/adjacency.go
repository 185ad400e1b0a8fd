package fib

import (
	"net/netip"

	"culvert/encap"
	"culvert/internal/packet"
)

// Kind says what becomes of a packet that a route matches.
type Kind uint8

// The kinds. KindNone is that of no adjacency.
const (
	KindNone      Kind = iota
	KindPod            // to a pod of this node
	KindVXLAN          // to another node, in VXLAN
	KindIPIP           // to another node, in IPIP
	KindDirect         // to a next hop, as it is
	KindLocal          // to the node itself
	KindBlackhole      // dropped in silence
	KindReject         // refused with an ICMP error
)

var kindNames = [...]string{"none", "pod", "vxlan", "ipip", "direct", "local", "blackhole", "reject"}

// String is the kind as the operator's command prints it.
func (k Kind) String() string {
	if int(k) >= len(kindNames) {
		return "unknown"
	}
	return kindNames[k]
}

// Tunnel reports whether k puts packets into a tunnel to a peer.
func (k Kind) Tunnel() bool { return k == KindVXLAN || k == KindIPIP }

// AdjID names an adjacency or a group of them. It is never given to another
// one. 0 names none.
type AdjID uint32

// Adjacency is how a packet leaves: everything that routes with the same next
// hop share. Readers get a pointer to one that never changes.
type Adjacency struct {
	Kind Kind
	// Ready says that Rewrite is complete: the next hop's MAC is known.
	Ready bool
	// Port is the index of the egress port.
	Port uint16
	// MTU is the largest IP packet in bytes, tunnel headers excluded.
	MTU uint16
	// Hop, unless 0, is the underlay next hop that Port, Dev, Gateway, the outer
	// MACs of Rewrite, and part of Ready and MTU come from: see NextHop.
	Hop HopID
	// Outside: it leads out of the cluster, to whom its pods' addresses mean nothing.
	Outside bool
	// Rewrite is what is written in front of the IP header. A local adjacency without
	// one is answered by the dataplane itself: there is no port to the node's stack.
	Rewrite encap.Template
	// Via is the peer's underlay address for a tunnel, else the next hop;
	// invalid where there is none.
	Via netip.Addr
	// Remote is the underlay address of the peer that a direct adjacency leads to,
	// invalid where there is none; a tunnel's is Via.
	Remote netip.Addr
	// Peer is packet.Addr.Fold of the peer's underlay address, 0 if there is none.
	Peer uint32
	// VNI is 24 bits, 0 without VXLAN.
	VNI uint32
	// MAC is the peer's VTEP, the pod's, or the next hop's.
	MAC packet.MAC
	// Dev is the name of the egress device.
	Dev string
	// Gateway is Hop's address.
	Gateway netip.Addr
}

// An AdjID is a slot and how often the slot has been used: a slot is used
// again, an identifier is not.
const (
	slotBits = 20
	maxSlots = 1 << slotBits
	maxUses  = 1<<(32-slotBits) - 2 // not the last one: see deep
)

func (id AdjID) slot() uint32 { return uint32(id) & (maxSlots - 1) }

func makeAdjID(slot, use uint32) AdjID { return AdjID(use<<slotBits | slot) }
