package packet

import "encoding/binary"

// Quote is the packet that an ICMP error speaks of, as far as the error has it.
type Quote struct {
	// Key is as Parse would have made it. The ports are those of the transport
	// header also for the first of several fragments, which has one.
	Key Key
	// Fragment: the packet is a fragment.
	Fragment bool
	// Seq is a TCP segment's sequence number; HasSeq says that it is known.
	Seq    uint32
	HasSeq bool
}

// quotedL4 is how much every error quotes of the transport header (RFC 792; RFC
// 1812 4.3.2.3 and RFC 4443 2.4 ask for more).
const quotedL4 = 8

// ParseQuote reads what the ICMP error in frame b quotes; info is what Parse
// found in b, ICMPError among it. ok is false where a flow could not be found by
// it: the quote ends before the ports, is of the other family, or is of ICMP
// other than echo. The quoted lengths and checksum are not looked at: most of the
// packet is missing.
func ParseQuote(b []byte, info *Info, q *Quote) (ok bool) {
	*q = Quote{}
	if info.L4 == 0 || int(info.Payload) > len(b) {
		return false
	}
	p := b[info.Payload:min(len(b), int(info.L3)+int(info.L3Len))]
	if info.Flags&V6 != 0 {
		return q.parse6(p)
	}
	return q.parse4(p)
}

func (q *Quote) parse4(p []byte) bool {
	if len(p) < IPv4Len {
		return false
	}
	h := IPv4(p)
	n := h.HeaderLen()
	if h.Version() != 4 || n < IPv4Len || n > len(p) {
		return false
	}
	q.Key = Key{Src: h.Src(), Dst: h.Dst(), Proto: h.Proto(), Family: 4}
	frag := h.Frag()
	q.Fragment = frag&(IPv4MF|IPv4OffsetMask) != 0
	return frag&IPv4OffsetMask != 0 || q.parseL4(p[n:])
}

func (q *Quote) parse6(p []byte) bool {
	if len(p) < IPv6Len || IPv6(p).Version() != 6 {
		return false
	}
	h := IPv6(p)
	info := Info{Proto: h.NextHeader()}
	l4, frag, r := extensions6(p, IPv6Len, &info)
	if r != 0 {
		return false
	}
	q.Key = Key{Src: h.Src(), Dst: h.Dst(), Proto: info.Proto, Family: 6}
	q.Fragment = frag != notFragment
	return q.Fragment && frag>>3 != 0 || q.parseL4(p[l4:])
}

// parseL4 reads the ports, or what stands for them.
func (q *Quote) parseL4(h []byte) bool {
	k := &q.Key
	switch proto := k.Proto; proto {
	case ProtoTCP, ProtoUDP, ProtoSCTP:
		if len(h) < quotedL4 {
			return false
		}
		k.SrcPort, k.DstPort = binary.BigEndian.Uint16(h), binary.BigEndian.Uint16(h[2:])
		if proto == ProtoTCP {
			q.Seq, q.HasSeq = binary.BigEndian.Uint32(h[tcpSeq:]), true
		}
	case ProtoICMP, ProtoICMPv6:
		if len(h) < quotedL4 || (proto == ProtoICMP) != (k.Family == 4) || !isICMPEcho(proto, h[0]) {
			return false
		}
		k.SrcPort = binary.BigEndian.Uint16(h[4:])
		k.DstPort = k.SrcPort
	}
	return true
}
