package packet

import (
	"encoding/binary"
	"math/bits"

	"culvert/internal/drop"
)

// maxExtensions bounds the extension headers of one packet. RFC 8200 4.1 lists
// seven places for them; Linux stops by default at as many as fit the header.
const maxExtensions = 8

// parse6 parses from the IPv6 header at l3 on.
func parse6(b []byte, l3, total int, info *Info) drop.Reason {
	if len(b) < l3+IPv6Len {
		return drop.IPv6HeaderInvalid
	}
	if b[l3]>>4 != 6 {
		return drop.IPVersion
	}
	h := IPv6(b[l3 : l3+IPv6Len])
	k := &info.Key
	k.Src, k.Dst = h.Src(), h.Dst()
	k.Family = 6
	info.TTL = h.HopLimit()
	info.TOS = h.TrafficClass()
	info.Proto = h.NextHeader()
	k.Proto = info.Proto
	n := IPv6Len + h.PayloadLen()
	info.L3Len = uint32(n)
	info.Payload = uint16(l3 + IPv6Len)
	if n > total-l3 {
		return drop.IPLength
	}
	l4, frag, r := extensions6(b[:min(len(b), l3+n)], l3+IPv6Len, info)
	k.Proto = info.Proto
	info.Payload = uint16(l4)
	if r != drop.None {
		return r
	}
	if r := checkAddresses6(b, l4, frag, info); r != drop.None {
		return r
	}
	flags := info.Flags | V6 | DF
	l4len := l3 + n - l4
	if frag != notFragment {
		info.Flags = flags
		return fragment6(b, frag, l4, l4len, info)
	}
	info.L4 = uint16(l4)
	return parseL4(b, l4, l4len, addrSum6(k), flags, info)
}

// addrSum6 is the sum of the addresses in little-endian words.
func addrSum6(k *Key) uint64 {
	s, c := bits.Add64(binary.LittleEndian.Uint64(k.Src[:8]), binary.LittleEndian.Uint64(k.Src[8:]), 0)
	s, c = bits.Add64(s, binary.LittleEndian.Uint64(k.Dst[:8]), c)
	s, c = bits.Add64(s, binary.LittleEndian.Uint64(k.Dst[8:]), c)
	// Folded to 33 bits, so that the rest of the pseudo-header fits on top.
	s += c
	return s>>32 + s&0xffff_ffff
}

// notFragment stands for the absence of a fragment header.
const notFragment = -1

// extensions6 walks the extension headers from off on, sets info.Proto to the
// protocol behind them and returns the offset of that. frag is the 16 bits of
// offset and M flag of a fragment header, or notFragment. b ends with the packet.
func extensions6(b []byte, off int, info *Info) (l4, frag int, r drop.Reason) {
	frag = notFragment
	for i := 0; ; i++ {
		n := 0 // length of this extension header
		switch info.Proto {
		case ProtoHopByHop:
			// Only directly behind the IPv6 header (RFC 8200 4.1).
			if i != 0 {
				return off, frag, drop.IPv6HeaderInvalid
			}
			n = 8
		case ProtoRouting, ProtoDestOpts, ProtoFragment, ProtoAH:
			n = 8
		default:
			return off, frag, drop.None
		}
		if i == maxExtensions {
			return off, frag, drop.IPv6HeaderInvalid
		}
		if len(b) < off+n {
			return off, frag, cutShort(frag)
		}
		switch info.Proto {
		case ProtoFragment:
			if frag != notFragment {
				return off, frag, drop.IPv6HeaderInvalid
			}
			frag = int(binary.BigEndian.Uint16(b[off+2:]))
			info.Proto = b[off]
			if frag>>3 != 0 { // what follows is no header
				return off + n, frag, drop.None
			}
			off += n
			continue
		case ProtoAH:
			n = (int(b[off+1]) + 2) * 4 // RFC 4302 2.2
		case ProtoRouting:
			// Type 0 with segments left is a source route (RFC 5095 3).
			if b[off+2] == 0 && b[off+3] != 0 {
				return off, frag, drop.IPv6SourceRoute
			}
			n = (int(b[off+1]) + 1) * 8
		default:
			n = (int(b[off+1]) + 1) * 8
		}
		if len(b) < off+n {
			return off, frag, cutShort(frag)
		}
		info.Flags |= Options
		info.Proto = b[off]
		off += n
	}
}

// cutShort is the reason for an extension header that runs past the packet. Behind
// a fragment header it may run on in another fragment, which RFC 7112 5 forbids.
func cutShort(frag int) drop.Reason {
	if frag == notFragment {
		return drop.IPv6HeaderInvalid
	}
	return drop.FragmentTiny
}

// fragment6 is fragment4's twin; frag is offset<<3 | M (RFC 8200 4.5). An atomic
// fragment (RFC 6946), offset 0 and no more, is a fragment here, too, which has
// ports as the unfragmented packet.
func fragment6(b []byte, frag, l4, l4len int, info *Info) drop.Reason {
	info.Flags |= Fragment | Trackable
	offset := frag &^ 7
	if r := checkFragment(offset, l4len, 0xffff, frag&1 != 0); r != drop.None {
		return r
	}
	if offset != 0 {
		if info.Proto == ProtoTCP && offset < TCPLen-4 {
			return drop.FragmentTiny
		}
		return drop.None
	}
	info.Flags |= FirstFragment
	return fragmentFirst(b, l4, l4len, info)
}

// checkAddresses6 refuses sources and destinations that are never routed: ::,
// ::1, IPv4-mapped, multicast (RFC 4291 2.5, 2.7; RFC 4038 4.2). Neighbour
// discovery alone may be sent to a multicast group, and from :: as duplicate
// address detection is (RFC 4862 5.4.2); not in fragments (RFC 6980 5).
func checkAddresses6(b []byte, l4, frag int, info *Info) drop.Reason {
	src, dst := &info.Key.Src, &info.Key.Dst
	nd := info.Proto == ProtoICMPv6 && frag == notFragment && len(b) > l4 && b[l4] >= ICMP6RouterSolicit && b[l4] <= ICMP6Redirect
	switch {
	case src[0] == 0xff, isLoopback6(src), src.Is4(), src.IsZero() && !nd && dst[0] != 0xff:
		return drop.MartianSource
	case dst[0] == 0xff && !nd:
		return drop.Multicast
	case dst.IsZero(), isLoopback6(dst), dst.Is4():
		return drop.MartianDestination
	}
	return drop.None
}

// isLoopback6 reports whether a is ::1.
func isLoopback6(a *Addr) bool { return *a == Addr{15: 1} }
