package pkttest

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"

	"github.com/google/gopacket/layers"
)

// Wants about the frame itself, the inner one in a tunnel.

// SrcMAC wants an Ethernet source.
func SrcMAC(s string) Want {
	return func(p *Packet) string { return wantMAC(p, "source MAC", s, true) }
}

// DstMAC wants an Ethernet destination.
func DstMAC(s string) Want {
	return func(p *Packet) string { return wantMAC(p, "destination MAC", s, false) }
}

// Src wants an IP source.
func Src(s string) Want { return func(p *Packet) string { return wantIP(p, "source", s, true) } }

// Dst wants an IP destination.
func Dst(s string) Want { return func(p *Packet) string { return wantIP(p, "destination", s, false) } }

// WithTTL wants a TTL or hop limit.
func WithTTL(n uint8) Want { return field("TTL", n, func(f ipFields) uint8 { return f.ttl }) }

// WithTOS wants a TOS or traffic class.
func WithTOS(n uint8) Want { return field("TOS", n, func(f ipFields) uint8 { return f.tos }) }

// WithDF wants the don't-fragment bit set or clear.
func WithDF(df bool) Want { return field("DF", df, func(f ipFields) bool { return f.df }) }

// WithID wants an IPv4 identification.
func WithID(id uint16) Want { return field("ID", id, func(f ipFields) uint16 { return f.id }) }

// WithProto wants a protocol number.
func WithProto(n uint8) Want { return field("protocol", n, func(f ipFields) uint8 { return f.proto }) }

// WithFragment wants a fragment of an offset in bytes, and whether more follow.
func WithFragment(offset int, more bool) Want {
	return func(p *Packet) string {
		f, _ := fieldsOf(p)
		if f.offset != offset || f.more != more {
			return fmt.Sprintf("fragment at %d, more %v; want %d, %v", f.offset, f.more, offset, more)
		}
		return ""
	}
}

// WithPorts wants TCP, UDP or SCTP ports.
func WithPorts(src, dst uint16) Want {
	return func(p *Packet) string {
		t := p.TransportLayer()
		if t == nil {
			return fmt.Sprintf("no transport header, want ports %d > %d", src, dst)
		}
		b := t.LayerContents()
		s, d := uint16(b[0])<<8|uint16(b[1]), uint16(b[2])<<8|uint16(b[3])
		if s != src || d != dst {
			return fmt.Sprintf("ports %d > %d, want %d > %d", s, d, src, dst)
		}
		return ""
	}
}

// WithICMP wants an ICMP or ICMPv6 type and code.
func WithICMP(typ, code uint8) Want {
	return func(p *Packet) string {
		var b []byte
		if l := p.Layer(layers.LayerTypeICMPv4); l != nil {
			b = l.LayerContents()
		} else if l := p.Layer(layers.LayerTypeICMPv6); l != nil {
			b = l.LayerContents()
		}
		if len(b) < 2 {
			return fmt.Sprintf("no ICMP header, want type %d code %d", typ, code)
		}
		if b[0] != typ || b[1] != code {
			return fmt.Sprintf("ICMP type %d code %d, want %d, %d", b[0], b[1], typ, code)
		}
		return ""
	}
}

// WithPayload wants the bytes behind the transport header.
func WithPayload(want []byte) Want {
	return func(p *Packet) string {
		var got []byte
		if t := p.TransportLayer(); t != nil {
			got = t.LayerPayload()
		} else if n := p.NetworkLayer(); n != nil {
			got = n.LayerPayload()
		}
		if !bytes.Equal(got, want) {
			return fmt.Sprintf("payload of %d bytes differs from the %d wanted", len(got), len(want))
		}
		return ""
	}
}

// Outer makes a want speak of the tunnel's outer headers.
func Outer(w Want) Want {
	return func(p *Packet) string {
		if p.Outer == nil {
			return "no tunnel"
		}
		if problem := w(p.Outer); problem != "" {
			return "outer " + problem
		}
		return ""
	}
}

// OuterSrc wants a tunnel's source.
func OuterSrc(s string) Want { return Outer(Src(s)) }

// OuterDst wants a tunnel's destination.
func OuterDst(s string) Want { return Outer(Dst(s)) }

// OuterTTL wants a tunnel's TTL or hop limit.
func OuterTTL(n uint8) Want { return Outer(WithTTL(n)) }

// OuterTOS wants a tunnel's TOS or traffic class.
func OuterTOS(n uint8) Want { return Outer(WithTOS(n)) }

// OuterDF wants a tunnel's don't-fragment bit set or clear.
func OuterDF(df bool) Want { return Outer(WithDF(df)) }

// OuterSrcMAC wants a tunnel's Ethernet source.
func OuterSrcMAC(s string) Want { return Outer(SrcMAC(s)) }

// OuterDstMAC wants a tunnel's Ethernet destination.
func OuterDstMAC(s string) Want { return Outer(DstMAC(s)) }

// OuterPorts wants a tunnel's UDP ports.
func OuterPorts(src, dst uint16) Want { return Outer(WithPorts(src, dst)) }

// OuterDstPort wants a tunnel's UDP destination port.
func OuterDstPort(port uint16) Want {
	return func(p *Packet) string {
		if p.Outer == nil || p.Outer.Layer(layers.LayerTypeUDP) == nil {
			return "no tunnel over UDP"
		}
		if got := uint16(p.Outer.Layer(layers.LayerTypeUDP).(*layers.UDP).DstPort); got != port {
			return fmt.Sprintf("outer destination port %d, want %d", got, port)
		}
		return ""
	}
}

// VNI wants a VXLAN network identifier.
func VNI(n uint32) Want {
	return func(p *Packet) string {
		if p.Tunnel == nil {
			return "no VXLAN header"
		}
		if p.Tunnel.VNI != n {
			return fmt.Sprintf("VNI %d, want %d", p.Tunnel.VNI, n)
		}
		return ""
	}
}

func wantMAC(p *Packet, what, want string, src bool) string {
	e, _ := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	if e == nil {
		return "no Ethernet header"
	}
	got := e.DstMAC
	if src {
		got = e.SrcMAC
	}
	if !bytes.Equal(got, mac(want)) {
		return fmt.Sprintf("%s %s, want %s", what, got, want)
	}
	return ""
}

func wantIP(p *Packet, what, want string, src bool) string {
	f, ok := fieldsOf(p)
	if !ok {
		return "no IP header"
	}
	got := f.dst
	if src {
		got = f.src
	}
	if a, _ := netip.AddrFromSlice(got); a.Unmap() != addr(want) {
		return fmt.Sprintf("%s %s, want %s", what, got, want)
	}
	return ""
}

// ipFields are what IPv4 and IPv6 headers have in common.
type ipFields struct {
	src, dst        net.IP
	ttl, tos, proto uint8
	id              uint16
	df, more        bool
	offset          int
}

func fieldsOf(p *Packet) (ipFields, bool) {
	switch h := p.NetworkLayer().(type) {
	case *layers.IPv4:
		return ipFields{src: h.SrcIP, dst: h.DstIP, ttl: h.TTL, tos: h.TOS, proto: uint8(h.Protocol), id: h.Id,
			df: h.Flags&layers.IPv4DontFragment != 0, more: h.Flags&layers.IPv4MoreFragments != 0,
			offset: int(h.FragOffset) * 8}, true
	case *layers.IPv6:
		return ipFields{src: h.SrcIP, dst: h.DstIP, ttl: h.HopLimit, tos: h.TrafficClass, proto: uint8(h.NextHeader), df: true}, true
	}
	return ipFields{}, false
}

func field[T comparable](name string, want T, get func(ipFields) T) Want {
	return func(p *Packet) string {
		f, ok := fieldsOf(p)
		if !ok {
			return "no IP header"
		}
		if got := get(f); got != want {
			return fmt.Sprintf("%s %v, want %v", name, got, want)
		}
		return ""
	}
}
