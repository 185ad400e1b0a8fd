package outer

import (
	"encoding/binary"
	"net/netip"

	"culvert/internal/packet"
)

// minSourcePort is the least UDP source port of tunnel packets: encap.SourcePort.
const minSourcePort = 32768

// parse4 reads an ICMP error from its IPv4 header on. ok is false for what is no
// error about a tunnel packet that this node has sent, as far as the quote shows: an
// error is believed by what it quotes and by nothing else, since everybody may send
// one (RFC 5927 2, 4.1).
func (l *Local) parse4(b []byte, e *Error) (ok bool) {
	if len(b) < packet.IPv4Len {
		return false
	}
	h := packet.IPv4(b)
	n := h.HeaderLen()
	if n < packet.IPv4Len || len(b) < n+packet.ICMPLen || h.Proto() != packet.ProtoICMP {
		return false
	}
	m := b[n:]
	if packet.Checksum(m, 0) != 0 { // raw sockets are served before icmp_rcv looks
		return false
	}
	src := h.Src()
	*e = Error{Kind: kind4(m[0], m[1]), From: src.Netip(), MTU: int(binary.BigEndian.Uint16(m[6:]))}
	return isError4(m[0]) && l.quote4(m[packet.ICMPLen:], e)
}

// isError4 reports whether an ICMP type is that of an error.
func isError4(typ uint8) bool {
	const sourceQuench, parameterProblem = 4, 12
	return typ == packet.ICMPUnreachable || typ == sourceQuench || typ == packet.ICMPTimeExceeded || typ == parameterProblem
}

func (l *Local) quote4(q []byte, e *Error) bool {
	if len(q) < packet.IPv4Len {
		return false
	}
	h := packet.IPv4(q)
	src, dst := h.Src(), h.Dst()
	// Our outer headers have no options. The first of a packet's fragments, which a
	// router on the way made, is as good as the packet.
	if h.Version() != 4 || h.HeaderLen() != packet.IPv4Len || src.Netip() != l.Addr || h.Frag()&packet.IPv4OffsetMask != 0 {
		return false
	}
	e.Peer, e.Size = dst.Netip(), h.TotalLen()
	switch h.Proto() {
	case packet.ProtoIPIP:
		return l.IPIP
	case packet.ProtoUDP:
		return l.quoteUDP(q[packet.IPv4Len:], e)
	}
	return false
}

// parse6 reads an ICMPv6 error from its ICMPv6 header on, which the kernel has
// verified the checksum of.
func (l *Local) parse6(m []byte, from netip.Addr, e *Error) (ok bool) {
	if len(m) < packet.ICMPLen+packet.IPv6Len || m[0] >= 128 || m[0] == 0 { // RFC 4443 2.1: errors are below
		return false
	}
	q := m[packet.ICMPLen:]
	h := packet.IPv6(q)
	src, dst := h.Src(), h.Dst()
	if h.Version() != 6 || src.Netip() != l.Addr || h.NextHeader() != packet.ProtoUDP {
		return false
	}
	*e = Error{Kind: kind6(m[0], m[1]), From: from, Peer: dst.Netip(), Size: packet.IPv6Len + h.PayloadLen()}
	if e.Kind == TooBig {
		e.MTU = int(min(binary.BigEndian.Uint32(m[4:]), 1<<16))
	}
	return l.quoteUDP(q[packet.IPv6Len:], e)
}

// quoteUDP checks the UDP header, which every error quotes, and the VXLAN header, if
// it does.
func (l *Local) quoteUDP(q []byte, e *Error) bool {
	if len(q) < packet.UDPLen || l.Port == 0 {
		return false
	}
	h := packet.UDP(q)
	if h.DstPort() != l.Port || h.SrcPort() < minSourcePort {
		return false
	}
	q = q[packet.UDPLen:]
	if len(q) < packet.VXLANLen {
		return true
	}
	v := packet.VXLAN(q)
	if v.Flags() != packet.VXLANFlags || v.VNI() != l.VNI {
		return false
	}
	e.Inner = q[packet.VXLANLen:]
	return true
}

// kind4 sorts the types and codes of RFC 792 and RFC 1812 5.2.7.1.
func kind4(typ, code uint8) Kind {
	switch typ {
	case packet.ICMPTimeExceeded:
		return TimeExceeded
	case packet.ICMPUnreachable:
		switch code {
		case packet.ICMPFragNeeded:
			return TooBig
		case packet.ICMPPortUnreachable:
			return PortUnreachable
		case 2:
			return ProtocolUnreachable
		case 9, 10, 13:
			return Prohibited
		}
		return HostUnreachable
	}
	return Other
}

// kind6 sorts the types and codes of RFC 4443 3.
func kind6(typ, code uint8) Kind {
	switch typ {
	case packet.ICMP6PacketTooBig:
		return TooBig
	case packet.ICMP6TimeExceeded:
		return TimeExceeded
	case packet.ICMP6Unreachable:
		switch code {
		case packet.ICMP6PortUnreachable:
			return PortUnreachable
		case 1, 5, 6:
			return Prohibited
		}
		return HostUnreachable
	}
	return Other
}
