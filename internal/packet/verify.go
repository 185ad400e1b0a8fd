package packet

import "encoding/binary"

// PseudoSum is the pseudo-header sum of the TCP or UDP packet whose IP header
// starts at ip[0], and the number of bytes that its checksum covers from the
// transport header on: all of a TCP segment, a datagram's own length. info is
// the packet's; ip must hold the headers. With a Summer it verifies a packet that
// lies in several chunks:
//
//	pseudo, n := PseudoSum(ip, info)
//	s.Reset(pseudo)
//	s.Add the n bytes from the transport header on, chunk by chunk
//	ok := s.Sum() == 0xffff
func PseudoSum(ip []byte, info *Info) (sum uint32, n int) {
	n = int(info.L3) + int(info.L3Len) - int(info.L4)
	if info.Proto == ProtoUDP {
		n = UDP(ip[info.L4-info.L3:]).Len()
	}
	if info.Has(V4) {
		src, dst := binary.BigEndian.Uint32(ip[ip4Src:]), binary.BigEndian.Uint32(ip[ip4Dst:])
		return PseudoSum4(src, dst, info.Proto, uint32(n)), n
	}
	src, dst := IPv6(ip).Src(), IPv6(ip).Dst()
	return PseudoSum6(&src, &dst, info.Proto, uint32(n)), n
}

// VerifyTransport reports whether the checksum of a TCP or UDP packet is right.
// ip is all of the packet, from its IP header on; info is the packet's, which is
// no fragment. A UDP checksum of 0 is good over IPv4 (RFC 768) and bad over IPv6
// (RFC 8200 8.1). A partial checksum is none yet and mostly bad: see info.
func VerifyTransport(ip []byte, info *Info) bool {
	if info.Proto != ProtoTCP && info.Proto != ProtoUDP || info.L4 == 0 || info.Has(Fragment) {
		return false
	}
	if info.Has(NoChecksum) {
		return info.Has(V4)
	}
	l4 := int(info.L4) - int(info.L3)
	pseudo, n := PseudoSum(ip, info)
	return len(ip) >= l4+n && Sum(ip[l4:l4+n], pseudo) == 0xffff
}
