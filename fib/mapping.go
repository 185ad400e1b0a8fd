package fib

import (
	"cmp"
	"slices"

	"culvert/internal/packet"
)

// PortMapping leads a port of one of the node's own addresses to a pod's.
type PortMapping struct {
	Proto  uint8 // packet.ProtoTCP, ProtoUDP or ProtoSCTP
	Port   uint16
	Addr   packet.Addr // the node's
	To     packet.Addr // the pod's, of the same family
	ToPort uint16
}

func (m *PortMapping) compare(proto uint8, port uint16, addr *packet.Addr) int {
	return cmp.Or(cmp.Compare(m.Proto, proto), cmp.Compare(m.Port, port), slices.Compare(m.Addr[:], addr[:]))
}

// SortMappings brings mappings into the order that Node.Mappings has.
func SortMappings(all []PortMapping) {
	slices.SortFunc(all, func(a, b PortMapping) int { return a.compare(b.Proto, b.Port, &b.Addr) })
}

// Mapping is the one that a packet of key k is for, or nil.
func (n *Node) Mapping(k *packet.Key) *PortMapping {
	low, high := 0, len(n.Mappings)
	for low < high {
		mid := (low + high) / 2
		m := &n.Mappings[mid]
		switch c := m.compare(k.Proto, k.DstPort, &k.Dst); {
		case c == 0:
			return m
		case c < 0:
			low = mid + 1
		default:
			high = mid
		}
	}
	return nil
}

// Translates reports whether packets for the node's own addresses may be for its pods.
func (n *Node) Translates() bool { return n.NAT.High != 0 || len(n.Mappings) != 0 }
