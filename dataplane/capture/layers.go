package capture

import (
	"encoding/binary"

	"culvert/internal/packet"
)

// ProtoARP stands for ARP where the others are numbers of IP protocols.
const ProtoARP = packet.EtherTypeARP

// layer is an IP packet, or an ARP packet, somewhere in a frame. Unlike the parser it
// takes what is broken, too, as far as it goes: who captures wants to see that.
type layer struct {
	src, dst     packet.Addr
	l3, l4       int // offsets from the frame's first byte; l4 is 0 where there is none
	end          int // of the IP packet by its header; beyond the frame if that is cut short
	sport, dport uint16
	proto        uint16
	ports        bool // sport and dport are there
	whole        bool // no fragment
	v6           bool
}

// maxLayers is the number of packets in a frame that are looked at: that of a tunnel
// and the one inside.
const maxLayers = 2

// walk finds the packets in the frame at b, of which the tunnels' UDP ports are vxlan.
// It returns their number.
func walk(b []byte, vxlan []uint16, out *[maxLayers]layer) int {
	at, etherType := link(b, 0)
	for n := range out {
		l := &out[n]
		if !l.read(b, at, etherType) {
			return n
		}
		if at, etherType = l.inside(b, vxlan); at == 0 {
			return n + 1
		}
	}
	return len(out)
}

// link is where the packet behind the Ethernet header at an offset is, 0 if nowhere,
// and what it is. Tags are passed over.
func link(b []byte, at int) (l3 int, etherType uint16) {
	l3 = at + packet.EthernetLen
	for tags := 0; tags <= 2; tags++ {
		if len(b) < l3 {
			return 0, 0
		}
		etherType = binary.BigEndian.Uint16(b[l3-2:])
		if etherType != packet.EtherTypeVLAN && etherType != packet.EtherTypeQinQ {
			return l3, etherType
		}
		l3 += packet.VLANLen
	}
	return 0, 0
}

// read fills l with the packet at an offset. It reports false if there is none.
func (l *layer) read(b []byte, at int, etherType uint16) bool {
	*l = layer{l3: at}
	switch etherType {
	case packet.EtherTypeIPv4:
		return l.read4(b)
	case packet.EtherTypeIPv6:
		return l.read6(b)
	case packet.EtherTypeARP:
		if len(b) < at+packet.ARPLen {
			return false
		}
		h := packet.ARP(b[at:])
		l.proto, l.src, l.dst, l.end = ProtoARP, h.SenderIP(), h.TargetIP(), at+packet.ARPLen
		return true
	}
	return false
}

func (l *layer) read4(b []byte) bool {
	if len(b) < l.l3+packet.IPv4Len {
		return false
	}
	h := b[l.l3:]
	l.proto = uint16(h[9])
	l.src.SetV4(binary.BigEndian.Uint32(h[12:]))
	l.dst.SetV4(binary.BigEndian.Uint32(h[16:]))
	l.end = l.l3 + int(binary.BigEndian.Uint16(h[2:]))
	fragment := binary.BigEndian.Uint16(h[6:]) & 0x3fff // offset and MF
	l.whole = fragment == 0
	if fragment&0x1fff == 0 {
		l.transport(b, l.l3+int(h[0]&0xf)*4)
	}
	return true
}

// maxExtensions is far beyond what real packets have.
const maxExtensions = 8

func (l *layer) read6(b []byte) bool {
	if len(b) < l.l3+packet.IPv6Len {
		return false
	}
	h := b[l.l3:]
	l.v6, l.whole = true, true
	l.src, l.dst = packet.Addr(h[8:24]), packet.Addr(h[24:40])
	l.end = l.l3 + packet.IPv6Len + int(binary.BigEndian.Uint16(h[4:]))
	l.proto = uint16(h[6])
	at := l.l3 + packet.IPv6Len
	for range maxExtensions {
		size := 0
		switch {
		case len(b) < at+8:
			return true
		case l.proto == packet.ProtoFragment:
			l.proto, size, l.whole = uint16(b[at]), 8, false
			if binary.BigEndian.Uint16(b[at+2:])&^7 != 0 {
				return true // not the first: no transport header
			}
		case l.proto == packet.ProtoHopByHop, l.proto == packet.ProtoRouting, l.proto == packet.ProtoDestOpts:
			l.proto, size = uint16(b[at]), 8+8*int(b[at+1])
		case l.proto == packet.ProtoAH:
			l.proto, size = uint16(b[at]), 8+4*int(b[at+1])
		default:
			l.transport(b, at)
			return true
		}
		at += size
	}
	return true
}

// transport notes where the transport header is, and its ports if it has some.
func (l *layer) transport(b []byte, at int) {
	if at < l.l3+packet.IPv4Len || len(b) < at+4 {
		return
	}
	l.l4 = at
	if l.proto == packet.ProtoTCP || l.proto == packet.ProtoUDP || l.proto == packet.ProtoSCTP {
		l.sport, l.dport, l.ports = binary.BigEndian.Uint16(b[at:]), binary.BigEndian.Uint16(b[at+2:]), true
	}
}

// inside is where the packet in the tunnel l is, 0 if that is none, and what it is.
func (l *layer) inside(b []byte, vxlan []uint16) (l3 int, etherType uint16) {
	if l.l4 == 0 {
		return 0, 0
	}
	switch l.proto {
	case packet.ProtoIPIP:
		return l.l4, packet.EtherTypeIPv4
	case packet.ProtoIPv6:
		return l.l4, packet.EtherTypeIPv6
	case packet.ProtoUDP:
		for _, port := range vxlan {
			if port == l.dport {
				return link(b, l.l4+packet.UDPLen+packet.VXLANLen)
			}
		}
	}
	return 0, 0
}
