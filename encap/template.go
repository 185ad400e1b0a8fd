package encap

import (
	"encoding/binary"
	"errors"
	"fmt"

	"culvert/internal/packet"
)

// MaxHeader is the room for a template in bytes. The longest, VXLAN over IPv6,
// takes 84.
const MaxHeader = 96

// Overhead of the tunnels in bytes: how much smaller than the underlay's MTU the
// inner packet must be (vxlan_core.c: VXLAN_HEADROOM, VXLAN6_HEADROOM).
const (
	OverheadVXLAN4 = packet.IPv4Len + packet.UDPLen + packet.VXLANLen + packet.EthernetLen // 50
	OverheadVXLAN6 = packet.IPv6Len + packet.UDPLen + packet.VXLANLen + packet.EthernetLen // 70
	OverheadIPIP   = packet.IPv4Len                                                        // 20
)

const (
	lenVXLAN4 = packet.EthernetLen + OverheadVXLAN4 // 64
	lenVXLAN6 = packet.EthernetLen + OverheadVXLAN6 // 84
	lenIPIP   = packet.EthernetLen + OverheadIPIP   // 34
)

type kind uint8

const (
	kindNone kind = iota
	kindEthernet
	kindEthernetAny // EtherType by the inner version
	kindVXLAN4
	kindVXLAN6
	kindIPIP
)

// Template is everything written in front of the inner IP packet. It is a value,
// immutable once made, and safe for any number of readers. The zero Template
// writes nothing.
type Template struct {
	// Bytes holds the headers in Bytes[:Len]; lengths, identification,
	// checksums, source port and what else is the packet's own are 0.
	Bytes [MaxHeader]byte
	// Len is the number of bytes that Push writes.
	Len      uint8
	kind     kind
	checksum bool   // outer UDP checksum is to be computed
	inherit  bool   // outer TTL is the inner one
	sum      uint32 // of the outer IPv4 header as it stands in Bytes
	pseudo   uint32 // of the UDP pseudo-header, without the length
	udpSum   uint32 // of the UDP pseudo-header and of all constant bytes from the UDP header on
}

// Overhead is the number of bytes of outer headers from the outer IP header on:
// an inner packet of n bytes leaves as an outer packet of n + Overhead bytes.
func (t *Template) Overhead() int { return max(int(t.Len)-packet.EthernetLen, 0) }

// OuterL4 is the offset of the outer UDP header in the frame, 0 of a template
// that is no VXLAN.
func (t *Template) OuterL4() int {
	switch t.kind {
	case kindVXLAN4:
		return packet.EthernetLen + packet.IPv4Len
	case kindVXLAN6:
		return packet.EthernetLen + packet.IPv6Len
	}
	return 0
}

// NeedsSum reports whether Push reads Inner.Sum: for tunnels with an outer UDP
// checksum.
func (t *Template) NeedsSum() bool { return t.checksum }

// Ethernet is the template of a packet that leaves without a tunnel. With
// etherType 0 Push writes the one of the packet's IP version.
func Ethernet(dst, src packet.MAC, etherType uint16) Template {
	t := Template{Len: packet.EthernetLen, kind: kindEthernet}
	if etherType == 0 {
		t.kind = kindEthernetAny
	}
	putEthernet(t.Bytes[:], dst, src, etherType)
	return t
}

// VXLANParams describe one tunnel to one peer.
type VXLANParams struct {
	// SrcMAC and DstMAC are the underlay's: our NIC's and the next hop's.
	SrcMAC, DstMAC packet.MAC
	// Src and Dst are the tunnel's ends in the underlay, of one family.
	Src, Dst packet.Addr
	// DstPort is the UDP port: 4789, or 8472 by Flannel's habit.
	DstPort uint16
	// VNI is the network identifier, 24 bits.
	VNI uint32
	// InnerSrc and InnerDst are the VTEPs' own addresses: ours and the peer's.
	InnerSrc, InnerDst packet.MAC
	// TTL of the outer header; 0 stands for 64.
	TTL uint8
	// UDPChecksum asks for an outer UDP checksum over IPv4. Over IPv6 there
	// always is one: kernels drop packets without (net/ipv6/udp.c).
	UDPChecksum bool
}

// VXLAN makes the template of a VXLAN tunnel.
func VXLAN(p VXLANParams) (Template, error) {
	if err := checkEnds(p.Src, p.Dst); err != nil {
		return Template{}, fmt.Errorf("VXLAN: %w", err)
	}
	if p.VNI >= 1<<24 {
		return Template{}, fmt.Errorf("VXLAN: VNI %d: must be below %d", p.VNI, 1<<24)
	}
	if p.DstPort == 0 {
		return Template{}, errors.New("VXLAN: destination port 0: must be 1 to 65535")
	}
	if p.InnerDst.IsGroup() || p.InnerDst.IsZero() {
		return Template{}, fmt.Errorf("VXLAN: inner destination MAC %s: must be the peer's VTEP address", p.InnerDst)
	}
	t := Template{kind: kindVXLAN4, Len: lenVXLAN4, checksum: p.UDPChecksum}
	udp := t.Bytes[packet.EthernetLen+packet.IPv4Len : lenVXLAN4]
	if p.Src.Is4() {
		putEthernet(t.Bytes[:], p.DstMAC, p.SrcMAC, packet.EtherTypeIPv4)
		putIPv4(&t, p.Src, p.Dst, p.TTL, packet.ProtoUDP)
		t.pseudo = packet.PseudoSum4(p.Src.V4(), p.Dst.V4(), packet.ProtoUDP, 0)
	} else {
		t.kind, t.Len, t.checksum = kindVXLAN6, lenVXLAN6, true
		putEthernet(t.Bytes[:], p.DstMAC, p.SrcMAC, packet.EtherTypeIPv6)
		putIPv6(&t, p.Src, p.Dst, p.TTL)
		udp = t.Bytes[packet.EthernetLen+packet.IPv6Len : lenVXLAN6]
		t.pseudo = packet.PseudoSum6(&p.Src, &p.Dst, packet.ProtoUDP, 0)
	}
	binary.BigEndian.PutUint16(udp[2:], p.DstPort)
	binary.BigEndian.PutUint32(udp[packet.UDPLen:], packet.VXLANFlags)
	binary.BigEndian.PutUint32(udp[packet.UDPLen+4:], p.VNI<<8)
	putEthernet(udp[packet.UDPLen+packet.VXLANLen:], p.InnerDst, p.InnerSrc, 0)
	t.udpSum = packet.Sum(udp, t.pseudo)
	return t, nil
}

// IPIPParams describe one IPIP tunnel to one peer, IPv4 in IPv4.
type IPIPParams struct {
	SrcMAC, DstMAC packet.MAC  // the underlay's
	Src, Dst       packet.Addr // the tunnel's ends
	TTL            uint8       // of the outer header; 0 inherits the inner TTL, as tunl0 does
}

// IPIP makes the template of an IPIP tunnel.
func IPIP(p IPIPParams) (Template, error) {
	if err := checkEnds(p.Src, p.Dst); err != nil {
		return Template{}, fmt.Errorf("IPIP: %w", err)
	}
	if !p.Src.Is4() {
		return Template{}, fmt.Errorf("IPIP: tunnel from %s to %s: only IPv4 carries IPIP", p.Src, p.Dst)
	}
	t := Template{kind: kindIPIP, Len: lenIPIP, inherit: p.TTL == 0}
	putEthernet(t.Bytes[:], p.DstMAC, p.SrcMAC, packet.EtherTypeIPv4)
	putIPv4(&t, p.Src, p.Dst, p.TTL, packet.ProtoIPIP)
	if t.inherit {
		packet.IPv4(t.Bytes[packet.EthernetLen:]).SetTTL(0)
		t.sum = packet.Sum(t.Bytes[packet.EthernetLen:lenIPIP], 0)
	}
	return t, nil
}

// checkEnds verifies that a and b can be the ends of a tunnel.
func checkEnds(a, b packet.Addr) error {
	for _, end := range []packet.Addr{a, b} {
		if ip := end.Netip(); ip.IsUnspecified() || ip.IsMulticast() || ip.IsLoopback() {
			return fmt.Errorf("tunnel from %s to %s: %s is no unicast address", a, b, ip)
		}
	}
	if a.Is4() != b.Is4() {
		return fmt.Errorf("tunnel from %s to %s: the ends are of different families", a, b)
	}
	return nil
}

const defaultTTL = 64 // net.ipv4.ip_default_ttl, net.ipv6.conf.*.hop_limit

func putEthernet(b []byte, dst, src packet.MAC, etherType uint16) {
	e := packet.Ethernet(b)
	e.SetDst(dst)
	e.SetSrc(src)
	e.SetEtherType(etherType)
}

// putIPv4 writes the outer IPv4 header and its sum.
func putIPv4(t *Template, src, dst packet.Addr, ttl, proto uint8) {
	h := packet.IPv4(t.Bytes[packet.EthernetLen : packet.EthernetLen+packet.IPv4Len])
	h[0] = 0x45
	if ttl == 0 {
		ttl = defaultTTL
	}
	h.SetTTL(ttl)
	h[9] = proto
	h.SetSrc(&src)
	h.SetDst(&dst)
	t.sum = packet.Sum(h, 0)
}

// putIPv6 writes the outer IPv6 header.
func putIPv6(t *Template, src, dst packet.Addr, ttl uint8) {
	h := packet.IPv6(t.Bytes[packet.EthernetLen : packet.EthernetLen+packet.IPv6Len])
	h[0] = 0x60
	h[6] = packet.ProtoUDP
	if ttl == 0 {
		ttl = defaultTTL
	}
	h.SetHopLimit(ttl)
	h.SetSrc(&src)
	h.SetDst(&dst)
}
