package packet

import (
	"encoding/binary"
	"math/bits"

	"culvert/internal/drop"
)

// parseL4 parses the transport header at l4, of a packet that is no fragment.
// l4len is the number of bytes from there to the packet's end, which may be
// beyond b. addrs is the sum of source and destination address in little-endian
// words, not folded. flags are info's so far.
func parseL4(b []byte, l4, l4len int, addrs uint64, flags Flags, info *Info) drop.Reason {
	flags |= Trackable
	info.Flags = flags
	if l4 > len(b) {
		return drop.L4Truncated
	}
	h := b[l4:min(len(b), l4+l4len)]
	switch {
	case info.Proto == ProtoTCP:
		if len(h) < TCPLen {
			return drop.L4Truncated
		}
		n := int(h[tcpOffset]>>4) * 4
		if n < TCPLen || n > l4len {
			return drop.L4Invalid
		}
		if n > len(h) {
			return drop.L4Truncated
		}
		info.Payload = uint16(l4 + n)
		info.TCPFlags = h[tcpFlags]
		if partial(binary.LittleEndian.Uint16(h[tcpCheck:]), addrs, ProtoTCP, l4len) {
			info.Flags = flags | Partial
		}
	case info.Proto == ProtoUDP:
		if len(h) < UDPLen {
			return drop.L4Truncated
		}
		// The datagram may be shorter than the packet (udp_rcv trims), not longer.
		n := int(binary.BigEndian.Uint16(h[4:]))
		if n < UDPLen || n > l4len {
			return drop.L4Invalid
		}
		info.Payload = uint16(l4 + UDPLen)
		if check := binary.LittleEndian.Uint16(h[6:]); check == 0 {
			info.Flags = flags | NoChecksum
		} else if n == l4len && partial(check, addrs, ProtoUDP, n) {
			info.Flags = flags | Partial
		}
	case info.Proto == ProtoICMP && flags&V4 != 0, info.Proto == ProtoICMPv6 && flags&V6 != 0:
		return parseICMP(h, l4, info)
	case info.Proto == ProtoSCTP:
		return parseSCTP(h, l4, info)
	default:
		return drop.None
	}
	info.Key.SrcPort = binary.BigEndian.Uint16(h)
	info.Key.DstPort = binary.BigEndian.Uint16(h[2:])
	return drop.None
}

func parseSCTP(h []byte, l4 int, info *Info) drop.Reason {
	if len(h) < SCTPLen {
		return drop.L4Truncated
	}
	info.Payload = uint16(l4 + SCTPLen)
	info.Key.SrcPort = binary.BigEndian.Uint16(h)
	info.Key.DstPort = binary.BigEndian.Uint16(h[2:])
	if binary.LittleEndian.Uint32(h[8:]) == 0 {
		info.Flags |= EmptyCRC
	}
	return drop.None
}

// parseICMP parses ICMP and ICMPv6, which agree in the first 8 bytes.
func parseICMP(h []byte, l4 int, info *Info) drop.Reason {
	info.Flags &^= Trackable
	if len(h) < ICMPLen {
		return drop.L4Truncated
	}
	info.Payload = uint16(l4 + ICMPLen)
	info.ICMPType, info.ICMPCode = h[0], h[1]
	switch {
	case isICMPEcho(info.Proto, h[0]):
		id := binary.BigEndian.Uint16(h[4:])
		info.Key.SrcPort, info.Key.DstPort = id, id
		info.Flags |= ICMPEcho | Trackable
	case isICMPError(info.Proto, h[0]):
		info.Flags |= ICMPError
	}
	return drop.None
}

func isICMPEcho(proto, typ uint8) bool {
	if proto == ProtoICMP {
		return typ == ICMPEchoRequest || typ == ICMPEchoReply
	}
	return typ == ICMP6EchoRequest || typ == ICMP6EchoReply
}

// isICMPError follows RFC 1122 3.2.2 and RFC 4443 2.1.
func isICMPError(proto, typ uint8) bool {
	if proto == ProtoICMP {
		switch typ {
		case ICMPUnreachable, ICMPSourceQuench, ICMPRedirect, ICMPTimeExceeded, ICMPParamProblem:
			return true
		}
		return false
	}
	return typ < 128 || typ == ICMP6Redirect
}

// partial reports whether a checksum field, read little-endian, holds the folded
// pseudo-header sum, not inverted: what Linux leaves there when a device is to
// finish the work (CHECKSUM_PARTIAL). addrs is the addresses' sum in the same
// byte order; l4len is in host order.
//
// The length in the pseudo-header is that of the whole packet, also of a GSO
// frame of 64 KB: __tcp_v4_send_check (net/ipv4/tcp_ipv4.c) and
// __tcp_v6_send_check (include/net/ip6_checksum.h) take skb->len, and
// udp_send_skb (net/ipv4/udp.c) the datagram's len, before anything is cut;
// tcp_gso_segment (net/ipv4/tcp_offload.c) later adds the difference of the
// lengths. Measured on Linux 6.18 with an AF_PACKET capture at the far end of a
// veth: TCP frames of 7 to 35 KB over IPv4 and IPv6, UDP GSO frames of 5.5 KB,
// and small ones all hold fold(pseudo-header with the whole length).
//
// A complete checksum equals this by chance once in 65536; completing it again
// then gives the same value, so nothing is lost.
func partial(field uint16, addrs uint64, proto uint8, l4len int) bool {
	rest := bits.ReverseBytes16(uint16(l4len))
	// Congruent modulo 65535, and the field is not the zero that Linux never
	// writes there. The sum is below 2^36.
	return field != 0 && congruent0(addrs+uint64(rest)+uint64(proto)<<8+uint64(^field))
}
