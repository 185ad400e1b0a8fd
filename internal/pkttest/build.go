package pkttest

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// Layer is one header or the payload of a frame to build.
type Layer = gopacket.SerializableLayer

// Frame builds a frame from its layers, outermost first. It sets EtherTypes and
// protocol numbers by the next layer, all lengths and all checksums. The frame
// is not padded to 60 bytes; see Pad.
func Frame(t testing.TB, ls ...Layer) []byte {
	t.Helper()
	ls = append([]Layer(nil), ls...)
	link(ls)
	for i, l := range ls {
		if e, ok := l.(*layers.Ethernet); ok {
			ls[i] = (*unpadded)(e)
		}
	}
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, ls...); err != nil {
		t.Fatalf("pkttest: building the frame: %v", err)
	}
	return append([]byte(nil), buf.Bytes()...)
}

// IP builds a packet without an Ethernet header: Frame for what a tunnel carries.
func IP(t testing.TB, ls ...Layer) []byte {
	t.Helper()
	return Frame(t, ls...)
}

// link makes every layer name the next one, and every transport layer know its
// network layer.
func link(ls []Layer) {
	var network gopacket.NetworkLayer
	for i, l := range ls {
		var next Layer
		if i+1 < len(ls) {
			next = ls[i+1]
		}
		switch l := l.(type) {
		case *layers.Ethernet:
			if et, ok := etherType(next); ok {
				l.EthernetType = et
			}
		case *layers.Dot1Q:
			if et, ok := etherType(next); ok {
				l.Type = et
			}
		case *layers.IPv4:
			if p, ok := protocol(next); ok {
				l.Protocol = p
			}
			network = l
		case *layers.IPv6:
			if p, ok := protocol(next); ok {
				l.NextHeader = p
			}
			network = l
		case *extension:
			if p, ok := protocol(next); ok {
				l.body[0] = byte(p)
			}
		case *layers.TCP:
			_ = l.SetNetworkLayerForChecksum(network)
		case *layers.UDP:
			_ = l.SetNetworkLayerForChecksum(network)
		case *layers.ICMPv6:
			_ = l.SetNetworkLayerForChecksum(network)
		}
	}
}

func etherType(l Layer) (layers.EthernetType, bool) {
	switch l.(type) {
	case *layers.IPv4:
		return layers.EthernetTypeIPv4, true
	case *layers.IPv6:
		return layers.EthernetTypeIPv6, true
	case *layers.ARP:
		return layers.EthernetTypeARP, true
	case *layers.Dot1Q:
		return layers.EthernetTypeDot1Q, true
	}
	return 0, false
}

func protocol(l Layer) (layers.IPProtocol, bool) {
	switch l := l.(type) {
	case *layers.TCP:
		return layers.IPProtocolTCP, true
	case *layers.UDP:
		return layers.IPProtocolUDP, true
	case *layers.SCTP:
		return layers.IPProtocolSCTP, true
	case *layers.ICMPv4:
		return layers.IPProtocolICMPv4, true
	case *layers.ICMPv6:
		return layers.IPProtocolICMPv6, true
	case *layers.IPv4:
		return layers.IPProtocolIPv4, true
	case *layers.IPv6:
		return layers.IPProtocolIPv6, true
	case *extension:
		return layers.IPProtocol(l.proto), true
	}
	return 0, false
}

// unpadded is an Ethernet header that leaves short frames short: gopacket's pads
// them to 60 bytes, also inside of a tunnel.
type unpadded layers.Ethernet

func (e *unpadded) SerializeTo(b gopacket.SerializeBuffer, _ gopacket.SerializeOptions) error {
	h, err := b.PrependBytes(14)
	if err != nil {
		return err
	}
	copy(h, e.DstMAC)
	copy(h[6:], e.SrcMAC)
	h[12], h[13] = byte(e.EthernetType>>8), byte(e.EthernetType)
	return nil
}

func (e *unpadded) LayerType() gopacket.LayerType { return layers.LayerTypeEthernet }

// Eth is an Ethernet header from src to dst.
func Eth(src, dst string) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: mac(src), DstMAC: mac(dst)}
}

// EthType is an Ethernet header whose next layer does not say its EtherType.
func EthType(src, dst string, etherType uint16) *layers.Ethernet {
	e := Eth(src, dst)
	e.EthernetType = layers.EthernetType(etherType)
	return e
}

// VLAN is an 802.1Q tag.
func VLAN(id uint16) *layers.Dot1Q { return &layers.Dot1Q{VLANIdentifier: id} }

// ARPRequest asks who has target, for sender at senderMAC.
func ARPRequest(senderMAC, sender, target string) *layers.ARP {
	return arp(layers.ARPRequest, senderMAC, sender, "00:00:00:00:00:00", target)
}

// ARPReply tells target at targetMAC that sender is at senderMAC.
func ARPReply(senderMAC, sender, targetMAC, target string) *layers.ARP {
	return arp(layers.ARPReply, senderMAC, sender, targetMAC, target)
}

func arp(op uint16, senderMAC, sender, targetMAC, target string) *layers.ARP {
	return &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4,
		HwAddressSize: 6, ProtAddressSize: 4, Operation: op,
		SourceHwAddress: mac(senderMAC), SourceProtAddress: addr(sender).AsSlice(),
		DstHwAddress: mac(targetMAC), DstProtAddress: addr(target).AsSlice(),
	}
}

// IP4 is an IPv4 header: TTL 64, ID 1 unless an option says otherwise.
func IP4(src, dst string, opts ...func(*layers.IPv4)) *layers.IPv4 {
	h := &layers.IPv4{Version: 4, TTL: 64, Id: 1, SrcIP: addr(src).AsSlice(), DstIP: addr(dst).AsSlice()}
	for _, o := range opts {
		o(h)
	}
	return h
}

// TTL sets the time to live.
func TTL(n uint8) func(*layers.IPv4) { return func(h *layers.IPv4) { h.TTL = n } }

// TOS sets DSCP and ECN.
func TOS(n uint8) func(*layers.IPv4) { return func(h *layers.IPv4) { h.TOS = n } }

// ID sets the identification.
func ID(n uint16) func(*layers.IPv4) { return func(h *layers.IPv4) { h.Id = n } }

// DF sets the don't-fragment bit.
func DF() func(*layers.IPv4) { return func(h *layers.IPv4) { h.Flags |= layers.IPv4DontFragment } }

// Fragment makes the packet a fragment: offset in bytes, more says whether
// others follow.
func Fragment(offset int, more bool) func(*layers.IPv4) {
	return func(h *layers.IPv4) {
		h.FragOffset = uint16(offset / 8)
		if more {
			h.Flags |= layers.IPv4MoreFragments
		}
	}
}

// Proto sets the protocol, for payloads that do not say theirs.
func Proto(n uint8) func(*layers.IPv4) {
	return func(h *layers.IPv4) { h.Protocol = layers.IPProtocol(n) }
}

// Option appends an option of 2 bytes and data; kinds 0 and 1 are one byte.
func Option(kind uint8, data ...byte) func(*layers.IPv4) {
	return func(h *layers.IPv4) {
		h.Options = append(h.Options, layers.IPv4Option{OptionType: kind, OptionLength: uint8(len(data) + 2), OptionData: data})
	}
}

// IP6 is an IPv6 header: hop limit 64 unless an option says otherwise.
func IP6(src, dst string, opts ...func(*layers.IPv6)) *layers.IPv6 {
	h := &layers.IPv6{Version: 6, HopLimit: 64, SrcIP: addr(src).AsSlice(), DstIP: addr(dst).AsSlice()}
	for _, o := range opts {
		o(h)
	}
	return h
}

// HopLimit sets the hop limit.
func HopLimit(n uint8) func(*layers.IPv6) { return func(h *layers.IPv6) { h.HopLimit = n } }

// TrafficClass sets DSCP and ECN.
func TrafficClass(n uint8) func(*layers.IPv6) { return func(h *layers.IPv6) { h.TrafficClass = n } }

// NextHeader sets the protocol, for payloads that do not say theirs.
func NextHeader(n uint8) func(*layers.IPv6) {
	return func(h *layers.IPv6) { h.NextHeader = layers.IPProtocol(n) }
}

// TCP is a TCP header: ACK set, sequence number 1000, unless an option says
// otherwise.
func TCP(src, dst uint16, opts ...func(*layers.TCP)) *layers.TCP {
	h := &layers.TCP{SrcPort: layers.TCPPort(src), DstPort: layers.TCPPort(dst), Seq: 1000, Ack: 2000, ACK: true, Window: 500}
	for _, o := range opts {
		o(h)
	}
	return h
}

// Flags sets exactly the flags named by the letters of FSRPAUEC.
func Flags(letters string) func(*layers.TCP) {
	return func(h *layers.TCP) {
		has := func(c string) bool { return strings.Contains(letters, c) }
		h.FIN, h.SYN, h.RST, h.PSH = has("F"), has("S"), has("R"), has("P")
		h.ACK, h.URG, h.ECE, h.CWR = has("A"), has("U"), has("E"), has("C")
	}
}

// Seq sets the sequence number.
func Seq(n uint32) func(*layers.TCP) { return func(h *layers.TCP) { h.Seq = n } }

// Ack sets the acknowledgment number.
func Ack(n uint32) func(*layers.TCP) { return func(h *layers.TCP) { h.Ack = n } }

// MSS appends the maximum segment size option.
func MSS(n uint16) func(*layers.TCP) {
	return TCPOption(layers.TCPOptionKindMSS, byte(n>>8), byte(n))
}

// TCPOption appends an option; kinds 0 and 1 are one byte.
func TCPOption(kind layers.TCPOptionKind, data ...byte) func(*layers.TCP) {
	return func(h *layers.TCP) {
		h.Options = append(h.Options, layers.TCPOption{OptionType: kind, OptionLength: uint8(len(data) + 2), OptionData: data})
	}
}

// UDP is a UDP header.
func UDP(src, dst uint16) *layers.UDP {
	return &layers.UDP{SrcPort: layers.UDPPort(src), DstPort: layers.UDPPort(dst)}
}

// SCTP is an SCTP common header.
func SCTP(src, dst uint16) *layers.SCTP {
	return &layers.SCTP{SrcPort: layers.SCTPPort(src), DstPort: layers.SCTPPort(dst), VerificationTag: 0xdecafbad}
}

// ICMP4 is an ICMP header; id and seq are its third and fourth 16-bit words.
func ICMP4(typ, code uint8, id, seq uint16) *layers.ICMPv4 {
	return &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(typ, code), Id: id, Seq: seq}
}

// ICMP6 is the first four bytes of an ICMPv6 message; the rest is payload.
func ICMP6(typ, code uint8) *layers.ICMPv6 {
	return &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(typ, code)}
}

// VXLANHeader is a VXLAN header.
func VXLANHeader(vni uint32) *layers.VXLAN { return &layers.VXLAN{ValidIDFlag: true, VNI: vni} }

// Payload is n bytes that differ from each other.
func Payload(n int) gopacket.Payload { return gopacket.Payload(Pattern(n)) }

// Bytes is a payload of the given bytes.
func Bytes(b ...byte) gopacket.Payload { return gopacket.Payload(b) }

// Pattern is n bytes with a period of 251, so that a shifted copy shows.
func Pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}

func mac(s string) net.HardwareAddr {
	m, err := net.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// extension is an IPv6 extension header, byte for byte.
type extension struct {
	proto uint8
	body  []byte
}

// Ext is an IPv6 extension header of protocol proto. body is the whole header;
// its first byte becomes the next layer's protocol, if that says one.
func Ext(proto uint8, body ...byte) Layer {
	return &extension{proto: proto, body: append([]byte(nil), body...)}
}

func (e *extension) SerializeTo(b gopacket.SerializeBuffer, _ gopacket.SerializeOptions) error {
	dst, err := b.PrependBytes(len(e.body))
	copy(dst, e.body)
	return err
}

func (e *extension) LayerType() gopacket.LayerType { return gopacket.LayerTypePayload }
