package packet

import (
	"encoding/binary"
)

// maxQuote4 is the length of an ICMP error, IP header included: RFC 1812 4.3.2.3.
const maxQuote4 = 576

// replyTTL is Linux's default TTL and hop limit (net.ipv4.ip_default_ttl).
const replyTTL = 64

// BuildICMPError4 writes an ICMP error about the packet that starts at orig,
// from its IP header on, to dst and returns its length in bytes: an IPv4 packet
// of at most 576 bytes that quotes as much of orig as it has and fits. dst and
// orig must not overlap. info is orig's, src the node's address. mtu is the next
// hop's in a fragmentation needed message (RFC 1191 4) and 0 in all others.
//
// It returns 0 where no error may be sent (RFC 1812 4.3.2.7, icmp_send in
// net/ipv4/icmp.c): about an ICMP error, a fragment other than the first, a
// packet to a group or from no single host, a packet that Parse refused; or when
// dst has no room for the headers and 8 bytes behind orig's IP header.
//
// Quote the packet as it came in, before its TTL was decremented.
func BuildICMPError4(dst, orig []byte, info *Info, src Addr, typ, code uint8, mtu uint16) (n int) {
	if !mayReply4(info) || len(orig) < IPv4Len || len(dst) < IPv4Len+ICMPLen {
		return 0
	}
	room := min(len(dst), maxQuote4) - IPv4Len - ICMPLen
	quote := min(len(orig), int(info.L3Len), room)
	if quote < min(int(info.L3Len), IPv4(orig).HeaderLen()+8) {
		return 0
	}
	n = IPv4Len + ICMPLen + quote
	h := IPv4(dst[:IPv4Len])
	// RT_TOS(tos) | IPTOS_PREC_INTERNETCONTROL: __icmp_send, net/ipv4/icmp.c.
	binary.BigEndian.PutUint16(h, 0x4500|uint16(info.TOS&0x1e|0xc0))
	h.SetTotalLen(n)
	h.SetID(max(IPv4(orig).ID(), 1)) // no DF: the ID is to be non-zero
	h.SetFrag(0)
	h.SetTTL(replyTTL)
	h[ip4Proto] = ProtoICMP
	h.SetSrc(&src)
	copy(h[ip4Dst:], info.Key.Src[12:])
	h.SetCheck()

	m := dst[IPv4Len:n]
	m[0], m[1], m[2], m[3], m[4], m[5] = typ, code, 0, 0, 0, 0
	binary.BigEndian.PutUint16(m[6:], mtu)
	copy(m[ICMPLen:], orig[:quote])
	binary.BigEndian.PutUint16(m[2:], Checksum(m, 0))
	return n
}

// mayReply4 reports whether an ICMP error may be sent about a packet.
func mayReply4(info *Info) bool {
	if !info.Has(V4) || info.Has(ICMPError) || info.Flags&(Fragment|FirstFragment) == Fragment {
		return false
	}
	return checkSource4(info.Key.Src[12]) == 0 && info.Key.Dst[12] < 224
}

// maxQuote6 is the length of an ICMPv6 error, IPv6 header included: the least
// MTU of a link (RFC 4443 2.4 c).
const maxQuote6 = 1280

// BuildICMPError6 is BuildICMPError4's twin. mtu is the message's third word: in
// a packet too big message the next hop's MTU, at least 1280; in a parameter
// problem the pointer; in all others 0.
//
// It returns 0 where no error may be sent (RFC 4443 2.4 e, is_ineligible in
// net/ipv6/icmp.c): about an ICMPv6 error, or a fragment that may be of one; a
// packet from no single node; a packet to a group, unless the error is packet
// too big.
func BuildICMPError6(dst, orig []byte, info *Info, src Addr, typ, code uint8, mtu uint32) (n int) {
	if !mayReply6(info, typ) || len(orig) < IPv6Len || len(dst) < IPv6Len+ICMPLen {
		return 0
	}
	room := min(len(dst), maxQuote6) - IPv6Len - ICMPLen
	quote := min(len(orig), int(info.L3Len), room)
	if quote < min(int(info.L3Len), IPv6Len+8) {
		return 0
	}
	n = IPv6Len + ICMPLen + quote
	h := IPv6(dst[:IPv6Len])
	binary.BigEndian.PutUint32(h, 6<<28)
	h.SetPayloadLen(ICMPLen + quote)
	h[ip6NextHeader] = ProtoICMPv6
	h.SetHopLimit(replyTTL)
	h.SetSrc(&src)
	h.SetDst(&info.Key.Src)

	m := dst[IPv6Len:n]
	m[0], m[1], m[2], m[3] = typ, code, 0, 0
	binary.BigEndian.PutUint32(m[4:], mtu)
	copy(m[ICMPLen:], orig[:quote])
	binary.BigEndian.PutUint16(m[2:], Checksum(m, PseudoSum6(&src, &info.Key.Src, ProtoICMPv6, uint32(len(m)))))
	return n
}

// mayReply6 reports whether an ICMPv6 error of a type may be sent about a packet.
func mayReply6(info *Info, typ uint8) bool {
	if !info.Has(V6) || info.Has(ICMPError) {
		return false
	}
	if info.Proto == ProtoICMPv6 && info.Flags&(Fragment|FirstFragment) == Fragment {
		return false
	}
	src, dst := &info.Key.Src, &info.Key.Dst
	if src.IsZero() || src[0] == 0xff || isLoopback6(src) {
		return false
	}
	return dst[0] != 0xff || typ == ICMP6PacketTooBig
}
