package packet_test

import (
	"testing"

	"culvert/internal/packet"
	"culvert/internal/pkttest"

	"github.com/google/gopacket/layers"
)

// eq reports a field that differs.
func eq[T comparable](t *testing.T, name string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", name, got, want)
	}
}

// Every accessor against the header that gopacket wrote.
func TestViews(t *testing.T) {
	f := pkttest.Frame(t, pkttest.Eth(podMAC, gwMAC), pkttest.IP4("10.1.0.2", "10.1.1.3", pkttest.TTL(9), pkttest.TOS(0x2a), pkttest.ID(0x1234), pkttest.DF()),
		pkttest.TCP(1000, 80, pkttest.Seq(0x01020304), pkttest.Flags("SEC"), pkttest.MSS(1410)), pkttest.Payload(7))
	p := pkttest.CheckPacket(t, f)
	e := packet.Ethernet(f)
	eq(t, "Ethernet.Dst", e.Dst(), mac(gwMAC))
	eq(t, "Ethernet.Src", e.Src(), mac(podMAC))
	eq(t, "Ethernet.EtherType", e.EtherType(), packet.EtherTypeIPv4)
	h := packet.IPv4(f[14:])
	eq(t, "IPv4.Version", h.Version(), 4)
	eq(t, "IPv4.HeaderLen", h.HeaderLen(), 20)
	eq(t, "IPv4.TOS", h.TOS(), 0x2a)
	eq(t, "IPv4.TotalLen", h.TotalLen(), len(f)-14)
	eq(t, "IPv4.ID", h.ID(), 0x1234)
	eq(t, "IPv4.Frag", h.Frag(), packet.IPv4DF)
	eq(t, "IPv4.TTL", h.TTL(), 9)
	eq(t, "IPv4.Proto", h.Proto(), packet.ProtoTCP)
	eq(t, "IPv4.Src", h.Src(), addr("10.1.0.2"))
	eq(t, "IPv4.Dst", h.Dst(), addr("10.1.1.3"))
	tcp, want := packet.TCP(f[34:]), p.TransportLayer().(*layers.TCP)
	eq(t, "TCP.SrcPort", tcp.SrcPort(), 1000)
	eq(t, "TCP.DstPort", tcp.DstPort(), 80)
	eq(t, "TCP.Seq", tcp.Seq(), 0x01020304)
	eq(t, "TCP.Ack", tcp.Ack(), want.Ack)
	eq(t, "TCP.HeaderLen", tcp.HeaderLen(), 24)
	eq(t, "TCP.Flags", tcp.Flags(), packet.TCPSyn|packet.TCPEce|packet.TCPCwr)
	eq(t, "TCP.Window", tcp.Window(), want.Window)
	eq(t, "TCP.Check", tcp.Check(), want.Checksum)

	f = pkttest.Frame(t, pkttest.Eth(podMAC, gwMAC), pkttest.IP6("fd00::2", "fd00::3", pkttest.HopLimit(9), pkttest.TrafficClass(0x2a)), pkttest.UDP(1000, 53), pkttest.Payload(7))
	p = pkttest.CheckPacket(t, f)
	h6 := packet.IPv6(f[14:])
	eq(t, "IPv6.Version", h6.Version(), 6)
	eq(t, "IPv6.TrafficClass", h6.TrafficClass(), 0x2a)
	eq(t, "IPv6.PayloadLen", h6.PayloadLen(), 15)
	eq(t, "IPv6.NextHeader", h6.NextHeader(), packet.ProtoUDP)
	eq(t, "IPv6.HopLimit", h6.HopLimit(), 9)
	eq(t, "IPv6.Src", h6.Src(), addr("fd00::2"))
	eq(t, "IPv6.Dst", h6.Dst(), addr("fd00::3"))
	udp := packet.UDP(f[54:])
	eq(t, "UDP.SrcPort", udp.SrcPort(), 1000)
	eq(t, "UDP.DstPort", udp.DstPort(), 53)
	eq(t, "UDP.Len", udp.Len(), 15)
	eq(t, "UDP.Check", udp.Check(), p.TransportLayer().(*layers.UDP).Checksum)
	h6.SetTrafficClass(0xfe)
	h6.SetHopLimit(8)
	e.SetEtherType(packet.EtherTypeIPv6)
	pkttest.CheckPacket(t, f, pkttest.WithTOS(0xfe), pkttest.WithTTL(8))

	f = pkttest.Frame(t, pkttest.Eth(podMAC, gwMAC), pkttest.IP4("10.1.0.2", "10.1.1.3"), pkttest.ICMP4(3, 4, 0, 1450), pkttest.Payload(28))
	icmp := packet.ICMPv4(f[34:])
	eq(t, "ICMPv4.Type", icmp.Type(), packet.ICMPUnreachable)
	eq(t, "ICMPv4.Code", icmp.Code(), packet.ICMPFragNeeded)
	eq(t, "ICMPv4.Seq", icmp.Seq(), 1450)
	icmp6 := packet.ICMPv6([]byte{128, 1, 2, 3, 4, 5, 6, 7})
	eq(t, "ICMPv6.Type", icmp6.Type(), packet.ICMP6EchoRequest)
	eq(t, "ICMPv6.Code", icmp6.Code(), 1)
	eq(t, "ICMPv6.Check", icmp6.Check(), 0x0203)
	eq(t, "ICMPv6.ID", icmp6.ID(), 0x0405)
	eq(t, "ICMPv6.Seq", icmp6.Seq(), 0x0607)
	vx := packet.VXLAN([]byte{8, 0, 0, 0, 1, 2, 3, 0})
	eq(t, "VXLAN.Flags", vx.Flags(), packet.VXLANFlags)
	eq(t, "VXLAN.VNI", vx.VNI(), 0x010203)
	sctp := packet.SCTP([]byte{1, 2, 3, 4, 0, 0, 0, 0, 4, 3, 2, 1})
	eq(t, "SCTP.SrcPort", sctp.SrcPort(), 0x0102)
	eq(t, "SCTP.DstPort", sctp.DstPort(), 0x0304)
	eq(t, "SCTP.Check", sctp.Check(), 0x01020304)

	f = pkttest.Frame(t, pkttest.Eth(podMAC, gwMAC), pkttest.ARPReply(podMAC, "10.1.0.2", gwMAC, "169.254.1.1"))
	arp := packet.ARP(f[14:])
	eq(t, "ARP.Op", arp.Op(), packet.ARPAnswer)
	eq(t, "ARP.SenderMAC", arp.SenderMAC(), mac(podMAC))
	eq(t, "ARP.TargetMAC", arp.TargetMAC(), mac(gwMAC))
	eq(t, "ARP.SenderIP", arp.SenderIP(), addr("10.1.0.2"))
	eq(t, "ARP.TargetIP", arp.TargetIP(), addr("169.254.1.1"))
	eq(t, "ARP.Valid", arp.Valid(), true)
}

func TestMSSOption(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts []byte
		mss  uint16
		ok   bool
	}{
		{"none", nil, 0, false},
		{"first", []byte{2, 4, 5, 0xb4}, 1460, true},
		{"behind others", []byte{1, 3, 3, 7, 4, 2, 2, 4, 5, 0x82, 0, 0}, 1410, true},
		{"behind the end", []byte{0, 2, 4, 5, 0xb4, 0, 0, 0}, 0, false},
		{"wrong length", []byte{2, 3, 5, 1}, 0, false},
		{"length 0", []byte{8, 0, 2, 4}, 0, false},
		{"runs over", []byte{1, 1, 2, 4}, 0, false},
		{"no operations only", []byte{1, 1, 1, 1}, 0, false},
	} {
		h := make([]byte, 20+len(tt.opts))
		h[12] = byte(len(h) / 4 << 4)
		copy(h[20:], tt.opts)
		if mss, ok := packet.TCP(h).MSSOption(); mss != tt.mss || ok != tt.ok {
			t.Errorf("%s: %d, %v; want %d, %v", tt.name, mss, ok, tt.mss, tt.ok)
		}
	}
}
