package encap

import (
	"encoding/binary"

	"culvert/internal/drop"
	"culvert/internal/packet"
)

// Outer is what Classify and Pop found in the outer headers of a tunnel packet.
// Offsets are in bytes from the frame's first byte.
type Outer struct {
	Src, Dst         packet.Addr
	VNI              uint32
	SrcPort, DstPort uint16 // of UDP; 0 for IPIP
	// Payload is the offset behind the outer IP header, or behind the UDP
	// header; End is the offset behind the payload's last byte. What follows
	// is padding.
	Payload uint16
	End     uint32
	// InnerOffset is where the inner Ethernet header starts (VXLAN), or the
	// inner IP header (IPIP); InnerLen is the number of bytes from there to End.
	InnerOffset        uint16
	InnerLen           uint32
	TOS                uint8
	Proto              uint8 // of the outer IP header: UDP or IPIP
	InnerDst, InnerSrc packet.MAC
}

// maxTags is how many VLAN tags, 802.1Q or 802.1ad, an outer frame may have. The
// steering program (dataplane/xsk/bpf/steer.bpf.c) must not take more: what it
// takes from the kernel and Classify refuses reaches nobody.
const maxTags = 2

// Classify validates the outer headers of a frame from the underlay, up to the
// UDP header, and fills out. b is the first chunk, from the Ethernet header on
// (maxTags VLAN tags are accepted); total is the number of bytes in all chunks. A
// frame that is neither UDP nor IPIP is TunnelNotOurs. The outer UDP checksum is
// not verified: the inner packet has its own, and kernels are known to send
// wrong ones behind NAT.
func Classify(b []byte, total int, out *Outer) drop.Reason {
	*out = Outer{}
	if len(b) < packet.EthernetLen {
		return drop.FrameTooShort
	}
	et := binary.BigEndian.Uint16(b[12:])
	l3 := packet.EthernetLen
	for (et == packet.EtherTypeVLAN || et == packet.EtherTypeQinQ) && l3 < packet.EthernetLen+maxTags*packet.VLANLen {
		l3 += packet.VLANLen
		if len(b) < l3 {
			return drop.FrameTooShort
		}
		et = binary.BigEndian.Uint16(b[l3-2:])
	}
	total = max(total, len(b))
	switch et {
	case packet.EtherTypeIPv4:
		return classify4(b, l3, total, out)
	case packet.EtherTypeIPv6:
		return classify6(b, l3, total, out)
	}
	return drop.EthertypeUnsupported
}

func classify4(b []byte, l3, total int, out *Outer) drop.Reason {
	if len(b) < l3+packet.IPv4Len {
		return drop.TunnelTruncated
	}
	h := packet.IPv4(b[l3:])
	if h.Version() != 4 {
		return drop.IPVersion
	}
	n := h.HeaderLen()
	if n < packet.IPv4Len || n > len(h) {
		return drop.IPv4HeaderInvalid
	}
	if !h.CheckOK() {
		return drop.IPv4Checksum
	}
	out.Src.SetV4(binary.BigEndian.Uint32(h[12:]))
	out.Dst.SetV4(binary.BigEndian.Uint32(h[16:]))
	out.TOS = h.TOS()
	out.Proto = h.Proto()
	size := h.TotalLen()
	if size < n || size > total-l3 {
		return drop.IPLength
	}
	if h.Frag()&(packet.IPv4MF|packet.IPv4OffsetMask) != 0 {
		return drop.OuterFragment
	}
	out.Payload = uint16(l3 + n)
	out.End = uint32(l3 + size)
	if out.Proto == packet.ProtoUDP {
		return classifyUDP(b, out)
	}
	if out.Proto != packet.ProtoIPIP {
		return drop.TunnelNotOurs
	}
	return drop.None
}

// classify6 accepts UDP directly behind the IPv6 header only: Linux sends
// nothing else, and a fragment header is a fragment.
func classify6(b []byte, l3, total int, out *Outer) drop.Reason {
	if len(b) < l3+packet.IPv6Len {
		return drop.TunnelTruncated
	}
	h := packet.IPv6(b[l3:])
	if h.Version() != 6 {
		return drop.IPVersion
	}
	out.Src, out.Dst = h.Src(), h.Dst()
	out.TOS = h.TrafficClass()
	out.Proto = h.NextHeader()
	size := packet.IPv6Len + h.PayloadLen()
	if size > total-l3 {
		return drop.IPLength
	}
	out.Payload = uint16(l3 + packet.IPv6Len)
	out.End = uint32(l3 + size)
	switch out.Proto {
	case packet.ProtoUDP:
		return classifyUDP(b, out)
	case packet.ProtoFragment:
		return drop.OuterFragment
	}
	return drop.TunnelNotOurs
}

// classifyUDP reads the outer UDP header and moves Payload behind it. The
// datagram may be shorter than the IP packet, not longer.
func classifyUDP(b []byte, out *Outer) drop.Reason {
	l4 := int(out.Payload)
	if len(b) < l4+packet.UDPLen || int(out.End) < l4+packet.UDPLen {
		return drop.TunnelTruncated
	}
	h := packet.UDP(b[l4 : l4+packet.UDPLen])
	out.SrcPort, out.DstPort = h.SrcPort(), h.DstPort()
	n := h.Len()
	if n < packet.UDPLen || l4+n > int(out.End) {
		return drop.L4Invalid
	}
	out.Payload += packet.UDPLen
	out.End = uint32(l4 + n)
	return drop.None
}

// PopVXLAN validates a VXLAN packet from its outer Ethernet header to its inner
// Ethernet header, which must be in b, and fills out. The caller checks
// destination, port, VNI and MACs, and parses the inner frame,
// b[out.InnerOffset:] of out.InnerLen bytes in all chunks. On a drop behind the
// UDP header out.DstPort says whether the port was a VXLAN port at all.
//
// The header is taken as vxlan_rcv (drivers/net/vxlan/vxlan_core.c) takes it
// without GBP, GPE and remote checksum offload: the I flag set, any other bit of
// the flags, the reserved bits or the low byte of the VNI word clear.
func PopVXLAN(b []byte, total int, out *Outer) drop.Reason {
	if len(b) >= lenVXLAN4 && b[12] == packet.EtherTypeIPv4>>8 && b[13] == 0 && b[14] == 0x45 {
		if h := (*[lenVXLAN4]byte)(b); plainVXLAN4(h, max(total, len(b))) {
			popPlain4(h, out)
			return drop.None
		}
	}
	if r := Classify(b, total, out); r != drop.None {
		return r
	}
	if out.Proto != packet.ProtoUDP {
		return drop.TunnelNotOurs
	}
	const headers = packet.VXLANLen + packet.EthernetLen
	off := int(out.Payload)
	if int(out.End) < off+headers || len(b) < off+headers {
		return drop.TunnelTruncated
	}
	h := (*[headers]byte)(b[off:])
	v := binary.BigEndian.Uint64(h[:])
	if v>>32 != packet.VXLANFlags || v&0xff != 0 {
		return drop.VXLANFlags
	}
	out.VNI = uint32(v) >> 8
	out.InnerDst = packet.MAC(h[packet.VXLANLen:])
	out.InnerSrc = packet.MAC(h[packet.VXLANLen+6:])
	out.InnerOffset = uint16(off + packet.VXLANLen)
	out.InnerLen = out.End - uint32(out.InnerOffset)
	return drop.None
}

// plainVXLAN4 reports whether the headers of an untagged frame, whose IPv4 header
// has no options, hold no reason to drop it: the frame that nearly every frame
// is. All others take the long way, which finds the reason.
func plainVXLAN4(h *[lenVXLAN4]byte, total int) bool {
	be := binary.BigEndian
	v := be.Uint64(h[offUDP+packet.UDPLen:])
	size, n := int(be.Uint16(h[offIP+2:])), int(be.Uint16(h[offUDP+4:]))
	return h[offIP+9] == packet.ProtoUDP &&
		be.Uint16(h[offIP+6:])&(packet.IPv4MF|packet.IPv4OffsetMask) == 0 &&
		size <= total-offIP && n <= size-packet.IPv4Len &&
		n >= packet.UDPLen+packet.VXLANLen+packet.EthernetLen &&
		v>>32 == packet.VXLANFlags && v&0xff == 0 &&
		packet.CheckOK20((*[packet.IPv4Len]byte)(h[offIP:]))
}

// popPlain4 fills all of out for what plainVXLAN4 accepts.
func popPlain4(h *[lenVXLAN4]byte, out *Outer) {
	const inner = lenVXLAN4 - packet.EthernetLen
	be := binary.BigEndian
	n := uint32(be.Uint16(h[offUDP+4:]))
	out.Src.SetV4(be.Uint32(h[offIP+12:]))
	out.Dst.SetV4(be.Uint32(h[offIP+16:]))
	out.VNI = be.Uint32(h[offUDP+packet.UDPLen+4:]) >> 8
	out.SrcPort = be.Uint16(h[offUDP:])
	out.DstPort = be.Uint16(h[offUDP+2:])
	out.Payload = offUDP + packet.UDPLen
	out.End = offUDP + n
	out.InnerOffset = inner
	out.InnerLen = n - packet.UDPLen - packet.VXLANLen
	out.TOS = h[offIP+1]
	out.Proto = packet.ProtoUDP
	out.InnerDst = packet.MAC(h[inner:])
	out.InnerSrc = packet.MAC(h[inner+6:])
}

// PopIPIP validates an IPIP packet from its outer Ethernet header to the first
// byte of its inner IPv4 header and fills out. The caller checks the addresses.
// To parse the inner packet, write an Ethernet header in front of it: the outer
// header's place is free.
func PopIPIP(b []byte, total int, out *Outer) drop.Reason {
	if r := Classify(b, total, out); r != drop.None {
		return r
	}
	if out.Proto != packet.ProtoIPIP {
		return drop.TunnelNotOurs
	}
	return OpenIPIP(b, out)
}

// OpenIPIP is the rest of PopIPIP behind Classify, or behind a PopVXLAN that found
// out.Proto to be IPIP.
func OpenIPIP(b []byte, out *Outer) drop.Reason {
	off := int(out.Payload)
	if int(out.End) < off+packet.IPv4Len || len(b) < off+packet.IPv4Len {
		return drop.TunnelTruncated
	}
	out.InnerOffset = out.Payload
	out.InnerLen = out.End - uint32(out.InnerOffset)
	return drop.None
}
