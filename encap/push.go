package encap

import (
	"encoding/binary"

	"culvert/internal/packet"
)

// Inner is what Push has to know about the inner IP packet.
type Inner struct {
	// Len is the packet's length in bytes, IP header included.
	Len int
	// SrcPort is the outer UDP source port: SourcePort of the flow's hash.
	SrcPort uint16
	// ID is the outer IPv4 identification; 0 becomes 1. A counter will do: it
	// must differ for packets that may be fragmented on the way (RFC 6864 4.2).
	ID uint16
	// PartialSum leaves the outer UDP checksum, if there is one, to the device that
	// cuts the packet: the field gets the pseudo-header's sum, as the kernel has it of
	// a GSO packet (udp6_set_csum of net/ipv6/ip6_checksum.c). Sum is not read.
	PartialSum bool
	// Sum is the folded sum of all the packet's bytes, its own checksums
	// complete. It is read only if the template says NeedsSum.
	Sum uint16
	// TOS and TTL are the packet's, the TTL as it leaves (decremented).
	TOS, TTL uint8
	// DF is the packet's don't-fragment bit; VXLAN does not look at it.
	DF bool
	// V6 says that the packet is IPv6.
	V6 bool
}

// InnerOf fills an Inner from what Parse found. The TTL is the one that arrived:
// the caller has yet to take off what forwarding took.
func InnerOf(info *packet.Info, srcPort, id uint16) Inner {
	return Inner{
		Len: int(info.L3Len), SrcPort: srcPort, ID: id,
		TOS: info.TOS, TTL: info.TTL,
		DF: info.Flags&packet.DF != 0, V6: info.Flags&packet.V6 != 0,
	}
}

// Push writes the headers for one packet to hdr, the t.Len bytes directly in
// front of the inner IP header. It does what Linux does for the devices that
// Flannel and Calico make:
//
//   - VXLAN (vxlan_xmit_one, drivers/net/vxlan/vxlan_core.c): outer TTL 64, DSCP
//     0, DF 0 always, UDP checksum 0 over IPv4 unless asked for, and computed
//     over IPv6.
//   - IPIP (ip_tunnel_xmit, net/ipv4/ip_tunnel.c): outer TTL and DF from the
//     inner header, DSCP 0.
//   - both: ECN of the inner header, CE becoming ECT(0) (INET_ECN_encapsulate,
//     include/net/inet_ecn.h: RFC 3168 9.1.1 full functionality).
//
// The inner packet and its headers must fit an IP packet: the caller has checked
// it against the path's MTU.
func (t *Template) Push(hdr []byte, in *Inner) {
	switch t.kind {
	case kindVXLAN4:
		t.pushVXLAN4((*[lenVXLAN4]byte)(hdr), in)
	case kindVXLAN6:
		t.pushVXLAN6((*[lenVXLAN6]byte)(hdr), in)
	case kindIPIP:
		t.pushIPIP((*[lenIPIP]byte)(hdr), in)
	case kindEthernet, kindEthernetAny:
		h, b, le := (*[packet.EthernetLen]byte)(hdr), &t.Bytes, binary.LittleEndian
		le.PutUint64(h[0:], le.Uint64(b[0:]))
		le.PutUint32(h[8:], le.Uint32(b[8:]))
		if t.kind == kindEthernet {
			le.PutUint16(h[12:], le.Uint16(b[12:]))
		} else {
			binary.BigEndian.PutUint16(h[12:], innerType(in.V6))
		}
	}
}

// innerType is the EtherType of the inner packet.
func innerType(v6 bool) uint16 {
	if v6 {
		return packet.EtherTypeIPv6
	}
	return packet.EtherTypeIPv4
}

// outerECN is the outer TOS for an inner one: DSCP 0 and the ECN field.
func outerECN(inner uint8) uint32 {
	ecn := uint32(inner & 3)
	// CE (3) becomes ECT(0) (2): clear bit 0 if both are set.
	return ecn &^ (ecn >> 1)
}

// Offsets in the outer headers, from the Ethernet header on.
const (
	offIP  = packet.EthernetLen
	offUDP = offIP + packet.IPv4Len
)

// The headers are copied in words of eight bytes, as one expression each: Go's
// copy would call memmove, which costs more than all the rest.

func (t *Template) pushVXLAN4(h *[lenVXLAN4]byte, in *Inner) {
	le := binary.LittleEndian
	b := &t.Bytes
	le.PutUint64(h[0:], le.Uint64(b[0:]))
	le.PutUint64(h[8:], le.Uint64(b[8:]))
	le.PutUint64(h[16:], le.Uint64(b[16:]))
	le.PutUint64(h[24:], le.Uint64(b[24:]))
	le.PutUint64(h[32:], le.Uint64(b[32:]))
	le.PutUint64(h[40:], le.Uint64(b[40:]))
	le.PutUint64(h[48:], le.Uint64(b[48:]))
	le.PutUint64(h[56:], le.Uint64(b[56:]))

	n := uint32(in.Len) + OverheadVXLAN4
	id := uint32(max(in.ID, 1))
	tos := outerECN(in.TOS)
	sum := t.sum + n + id + tos
	be := binary.BigEndian
	h[offIP+1] = uint8(tos)
	be.PutUint32(h[offIP+2:], n<<16|id)
	be.PutUint16(h[offIP+10:], ^packet.Fold(sum))
	be.PutUint16(h[offUDP:], in.SrcPort)
	be.PutUint16(h[offUDP+4:], uint16(n-packet.IPv4Len))
	et := innerType(in.V6)
	be.PutUint16(h[lenVXLAN4-2:], et)
	if t.checksum {
		t.putUDPSum(h[offUDP+6:], n-packet.IPv4Len, et, in)
	}
}

func (t *Template) pushVXLAN6(h *[lenVXLAN6]byte, in *Inner) {
	const offUDP = offIP + packet.IPv6Len
	le := binary.LittleEndian
	b := &t.Bytes
	le.PutUint64(h[0:], le.Uint64(b[0:]))
	le.PutUint64(h[8:], le.Uint64(b[8:]))
	le.PutUint64(h[16:], le.Uint64(b[16:]))
	le.PutUint64(h[24:], le.Uint64(b[24:]))
	le.PutUint64(h[32:], le.Uint64(b[32:]))
	le.PutUint64(h[40:], le.Uint64(b[40:]))
	le.PutUint64(h[48:], le.Uint64(b[48:]))
	le.PutUint64(h[56:], le.Uint64(b[56:]))
	le.PutUint64(h[64:], le.Uint64(b[64:]))
	le.PutUint64(h[72:], le.Uint64(b[72:]))
	le.PutUint32(h[80:], le.Uint32(b[80:]))

	n := uint32(in.Len) + OverheadVXLAN6 - packet.IPv6Len
	be := binary.BigEndian
	h[offIP+1] = uint8(outerECN(in.TOS)) << 4
	be.PutUint16(h[offIP+4:], uint16(n))
	be.PutUint16(h[offUDP:], in.SrcPort)
	be.PutUint16(h[offUDP+4:], uint16(n))
	et := innerType(in.V6)
	be.PutUint16(h[lenVXLAN6-2:], et)
	t.putUDPSum(h[offUDP+6:], n, et, in)
}

// putUDPSum writes the outer UDP checksum: the sum of pseudo-header, UDP header and
// everything behind it. n is the UDP length; it counts twice, in the pseudo-header
// and in the header.
func (t *Template) putUDPSum(field []byte, n uint32, etherType uint16, in *Inner) {
	if in.PartialSum {
		binary.BigEndian.PutUint16(field, packet.Fold(t.pseudo+n))
		return
	}
	packet.StoreChecksum(field, t.udpSum+2*n+uint32(etherType)+uint32(in.SrcPort)+uint32(in.Sum))
}

func (t *Template) pushIPIP(h *[lenIPIP]byte, in *Inner) {
	le := binary.LittleEndian
	b := &t.Bytes
	le.PutUint64(h[0:], le.Uint64(b[0:]))
	le.PutUint64(h[8:], le.Uint64(b[8:]))
	le.PutUint64(h[16:], le.Uint64(b[16:]))
	le.PutUint64(h[24:], le.Uint64(b[24:]))
	le.PutUint16(h[32:], le.Uint16(b[32:]))

	n := uint32(in.Len) + OverheadIPIP
	id := uint32(max(in.ID, 1))
	tos := outerECN(in.TOS)
	frag, ttl := uint32(0), uint32(0)
	if in.DF {
		frag = packet.IPv4DF
	}
	if t.inherit {
		ttl = uint32(in.TTL)
	}
	sum := t.sum + n + id + tos + frag + ttl<<8
	be := binary.BigEndian
	h[offIP+1] = uint8(tos)
	be.PutUint32(h[offIP+2:], n<<16|id)
	be.PutUint16(h[offIP+6:], uint16(frag))
	h[offIP+8] = b[offIP+8] + uint8(ttl)
	be.PutUint16(h[offIP+10:], ^packet.Fold(sum))
}

// Range of SourcePort: Linux's default net.ipv4.ip_local_port_range, which
// vxlan devices use when they are given no port range.
const (
	minSourcePort = 32768
	maxSourcePort = 60999
)

// SourcePort is the outer UDP source port of a flow, from the inner key's hash:
// udp_flow_src_port of include/net/udp.h. It lies from 32768 to 60998, since the
// formula never yields the upper end.
func SourcePort(hash uint64) uint16 {
	h := uint32(hash>>32) ^ uint32(hash)
	h ^= h << 16
	return uint16(uint64(h)*(maxSourcePort-minSourcePort)>>32) + minSourcePort
}
