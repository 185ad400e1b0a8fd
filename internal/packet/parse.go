package packet

import (
	"encoding/binary"

	"culvert/internal/drop"
)

// Parse validates the frame whose first chunk is b, from the Ethernet header
// on, and fills info. total is the number of bytes of the whole frame, in all
// chunks. On a drop info holds what was found until then.
//
// All headers up to the payload must be in b. What Parse accepts, later stages
// read without checks: Ethernet with at most one 802.1Q tag; the IPv4 header and
// its checksum, or the IPv6 header and its extension headers; the IP length
// (bytes behind it are padding); the fixed and variable lengths of TCP, UDP,
// SCTP and ICMP headers; addresses that can be routed. It verifies no transport
// checksum: a forwarder passes those on (RFC 1812 has no such duty). ARP is
// recognised, not looked into.
//
// Parse never panics, allocates or reads past b.
func Parse(b []byte, total int, info *Info) drop.Reason {
	*info = Info{}
	if len(b) < EthernetLen {
		return drop.FrameTooShort
	}
	et := binary.BigEndian.Uint16(b[ethType:])
	l3 := EthernetLen
	if et == EtherTypeVLAN {
		if len(b) < EthernetLen+VLANLen {
			return drop.FrameTooShort
		}
		et = binary.BigEndian.Uint16(b[ethType+VLANLen:])
		l3 += VLANLen
	}
	info.EtherType = et
	info.L2Len = uint8(l3)
	info.L3 = uint16(l3)
	total = max(total, len(b))
	switch et {
	case EtherTypeIPv4:
		return parse4(b, l3, total, info)
	case EtherTypeIPv6:
		return parse6(b, l3, total, info)
	case EtherTypeARP:
		info.L3Len = uint32(total - l3)
		return drop.None
	}
	return drop.EthertypeUnsupported
}

// parse4 parses from the IPv4 header at l3 on.
func parse4(b []byte, l3, total int, info *Info) drop.Reason {
	if len(b) < l3+IPv4Len {
		return drop.IPv4HeaderInvalid
	}
	h := (*[IPv4Len]byte)(b[l3:])
	l4 := l3 + IPv4Len
	flags := V4
	if h[ip4VersionIHL] != 0x45 {
		n, r := checkHeader4(b[l3:])
		if r != drop.None {
			return r
		}
		l4 = l3 + n
		flags |= Options
	} else if !CheckOK20(h) {
		return drop.IPv4Checksum
	}
	src, dst := binary.LittleEndian.Uint32(h[ip4Src:]), binary.LittleEndian.Uint32(h[ip4Dst:])
	k := &info.Key
	k.Src.setV4(src)
	k.Dst.setV4(dst)
	k.Family = 4
	k.Proto = h[ip4Proto]
	info.Proto = h[ip4Proto]
	info.TTL = h[ip4TTL]
	info.TOS = h[ip4TOS]
	info.Payload = uint16(l4)
	n := int(binary.BigEndian.Uint16(h[ip4TotalLen:]))
	if n < l4-l3 || n > total-l3 {
		if n = bigLen4(h[:], total-l3); n == 0 {
			return drop.IPLength
		}
	}
	info.L3Len = uint32(n)
	if r := checkAddresses4(src, dst); r != drop.None {
		return r
	}
	frag := binary.BigEndian.Uint16(h[ip4Frag:])
	if frag&IPv4DF != 0 {
		flags |= DF
	}
	l4len := n - (l4 - l3)
	if frag&(IPv4MF|IPv4OffsetMask) != 0 {
		info.Flags = flags
		return fragment4(b, frag, l4, l4len, info)
	}
	info.L4 = uint16(l4)
	return parseL4(b, l4, l4len, uint64(src)+uint64(dst), flags, info)
}

// bigLen4 is the length in bytes of a TCP packet beyond 64 KB, whose total length
// field is 0 and which fills its frame: BIG TCP for IPv4 (iph_totlen of
// include/linux/ip.h). It is 0 for any other packet.
func bigLen4(h IPv4, room int) int {
	if h.TotalLen() == 0 && room > maxIPLen && h[ip4Proto] == ProtoTCP {
		return room
	}
	return 0
}

// checkHeader4 validates a header that has options, or is wrong, and returns its
// length in bytes. h has at least 20 bytes.
func checkHeader4(h IPv4) (n int, r drop.Reason) {
	if h.Version() != 4 {
		return 0, drop.IPVersion
	}
	n = h.HeaderLen()
	if n < IPv4Len || n > len(h) {
		return 0, drop.IPv4HeaderInvalid
	}
	if !h.CheckOK() {
		return 0, drop.IPv4Checksum
	}
	return n, checkOptions4(h[IPv4Len:n])
}

// IPv4 option kinds (RFC 791 3.1).
const (
	optEnd         = 0
	optNop         = 1
	optLooseSource = 131
	optStrictRoute = 137
	optCopied      = 0x80 // the bit of a kind that says: into every fragment
)

// checkOptions4 walks the options. Source routes are refused (RFC 7126 4.3).
func checkOptions4(opts []byte) drop.Reason {
	for len(opts) > 0 {
		switch opts[0] {
		case optEnd:
			return drop.None
		case optNop:
			opts = opts[1:]
			continue
		case optLooseSource, optStrictRoute:
			return drop.IPv4Options
		}
		if len(opts) < 2 || opts[1] < 2 || int(opts[1]) > len(opts) {
			return drop.IPv4HeaderInvalid
		}
		opts = opts[opts[1]:]
	}
	return drop.None
}

// checkAddresses4 refuses addresses that are never routed; both are read
// little-endian. The common case is two comparisons each.
func checkAddresses4(src, dst uint32) drop.Reason {
	if r := checkSource4(uint8(src)); r != drop.None {
		return r
	}
	switch first := uint8(dst); {
	case first-1 < 223 && first != 127:
		return drop.None
	case first >= 224 && first < 240, dst == 0xffff_ffff:
		return drop.Multicast
	}
	return drop.MartianDestination
}

// checkSource4 refuses what can never be a source address: 0/8, 127/8, 224/4,
// 240/4 (RFC 1812 5.3.7, RFC 6890). first is the address's first byte.
func checkSource4(first byte) drop.Reason {
	if first-1 >= 223 || first == 127 {
		return drop.MartianSource
	}
	return drop.None
}

// fragment4 handles a fragment: for the first one ports and the transport header's
// offset, for the others neither.
func fragment4(b []byte, frag uint16, l4, l4len int, info *Info) drop.Reason {
	info.Flags |= Fragment | Trackable
	offset := int(frag&IPv4OffsetMask) * 8
	if r := checkFragment(offset, l4len, 0xffff-IPv4Len, frag&IPv4MF != 0); r != drop.None {
		return r
	}
	if offset != 0 {
		// Nothing but an attack puts a fragment inside the TCP header to
		// overwrite its flags (RFC 1858 4, RFC 3128).
		if info.Proto == ProtoTCP && offset < TCPLen-4 {
			return drop.FragmentTiny
		}
		return drop.None
	}
	info.Flags |= FirstFragment
	return fragmentFirst(b, l4, l4len, info)
}

// checkFragment checks a fragment's place in its datagram, in bytes. most is the
// length of the longest payload of a datagram: beyond it is the ping of death.
func checkFragment(offset, n, most int, more bool) drop.Reason {
	if offset+n > most {
		return drop.FragmentOversize
	}
	// Every fragment but the last holds a multiple of 8 bytes (RFC 791 3.2,
	// RFC 8200 4.5), and none is empty (ip_frag_queue of
	// net/ipv4/ip_fragment.c).
	if more && n%8 != 0 || n == 0 && (more || offset != 0) {
		return drop.FragmentLength
	}
	return drop.None
}

// fragmentFirst reads the transport header, which must be in the fragment as a
// whole: one that is cut short is the tiny fragment attack (RFC 1858 3.1, RFC 7112 5).
// Nothing is said of what needs the rest of the datagram: lengths, checksums.
func fragmentFirst(b []byte, l4, l4len int, info *Info) drop.Reason {
	h := b[min(l4, len(b)):min(l4+l4len, len(b))]
	n := headerLen(info.Proto, h)
	if len(h) < n {
		return drop.FragmentTiny
	}
	info.L4 = uint16(l4)
	info.Payload = uint16(l4 + n)
	switch info.Proto {
	case ProtoTCP:
		if n < TCPLen {
			return drop.L4Invalid
		}
		info.TCPFlags = h[tcpFlags]
	case ProtoUDP, ProtoSCTP:
	case ProtoICMP, ProtoICMPv6:
		firstICMP(h, info)
		return drop.None
	default:
		return drop.None
	}
	info.Key.SrcPort = binary.BigEndian.Uint16(h)
	info.Key.DstPort = binary.BigEndian.Uint16(h[2:])
	return drop.None
}

// headerLen is the length of the transport header h, which may be cut short: in
// bytes, 0 of protocols that Parse does not know.
func headerLen(proto uint8, h []byte) int {
	switch proto {
	case ProtoTCP:
		if len(h) < TCPLen {
			return TCPLen
		}
		return int(h[tcpOffset]>>4) * 4
	case ProtoUDP:
		return UDPLen
	case ProtoICMP, ProtoICMPv6:
		return ICMPLen
	case ProtoSCTP:
		return SCTPLen
	}
	return 0
}

// firstICMP is parseICMP for a first fragment.
func firstICMP(h []byte, info *Info) {
	info.ICMPType, info.ICMPCode = h[0], h[1]
	if info.Proto == ProtoICMP != (info.Flags&V4 != 0) {
		return // of the other family: a protocol like any other
	}
	info.Flags &^= Trackable
	switch {
	case isICMPEcho(info.Proto, h[0]):
		id := binary.BigEndian.Uint16(h[4:])
		info.Key.SrcPort, info.Key.DstPort = id, id
		info.Flags |= Trackable // ICMPEcho is for those that can be answered
	case isICMPError(info.Proto, h[0]):
		info.Flags |= ICMPError
	}
}
