package encap_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"culvert/encap"
	"culvert/internal/packet"
	"culvert/internal/pkttest"
)

// inner4 and inner6 are inner packets with n bytes of payload.
func inner4(t testing.TB, tos uint8, n int) []byte {
	return pkttest.IP(t, pkttest.IP4("10.1.0.2", "10.1.1.3", pkttest.TOS(tos), pkttest.TTL(63), pkttest.DF()), pkttest.UDP(4711, 53), pkttest.Payload(n))
}

func inner6(t testing.TB, tc uint8, n int) []byte {
	return pkttest.IP(t, pkttest.IP6("fd00::2", "fd00::3", pkttest.TrafficClass(tc), pkttest.HopLimit(63)), pkttest.TCP(4711, 80), pkttest.Payload(n))
}

// outerTOS is what an inner TOS makes of the outer one: INET_ECN_encapsulate of include/net/inet_ecn.h.
func outerTOS(inner uint8) uint8 { return [4]uint8{0, 1, 2, 2}[inner&3] }

func TestPushVXLAN(t *testing.T) {
	for _, name := range []string{"vxlan4", "vxlan4-sum", "vxlan6"} {
		tmpl := templates(t)[name]
		src, dst := "192.0.2.1", "192.0.2.2"
		if name == "vxlan6" {
			src, dst = "2001:db8::1", "2001:db8::2"
		}
		for _, inner := range [][]byte{inner4(t, 0, 0), inner4(t, 1, 1), inner4(t, 0xfe, 22), inner4(t, 0xff, 1372), inner6(t, 0xb8, 5), inner6(t, 3, 1300)} {
			v6 := inner[0]>>4 == 6
			tos := packet.IPv4(inner).TOS()
			if v6 {
				tos = packet.IPv6(inner).TrafficClass()
			}
			t.Run(fmt.Sprintf("%s/v6=%v/tos=%#x/%d", name, v6, tos, len(inner)), func(t *testing.T) {
				f := pushed(&tmpl, inner, encap.Inner{SrcPort: 40000, ID: 0x1234})
				wants := []pkttest.Want{
					pkttest.OuterSrcMAC(ourMAC), pkttest.OuterDstMAC(hopMAC), pkttest.OuterSrc(src), pkttest.OuterDst(dst),
					pkttest.OuterTTL(64), pkttest.OuterTOS(outerTOS(tos)), pkttest.OuterPorts(40000, 4789), pkttest.VNI(0x123456),
					pkttest.SrcMAC(ourVTEP), pkttest.DstMAC(peerVTEP),
				}
				if name != "vxlan6" {
					wants = append(wants, pkttest.OuterDF(false), pkttest.Outer(pkttest.WithID(0x1234)))
				}
				got := pkttest.CheckVXLAN(t, f, wants...)
				if !bytes.Equal(got[14:], inner) {
					t.Error("the inner packet changed")
				}
				if want := uint16(0x0800); !v6 && packet.Ethernet(got).EtherType() != want {
					t.Error("inner EtherType")
				}
				off := 14 + 20 + 6
				if name == "vxlan6" {
					off = 14 + 40 + 6
				}
				if none := f[off] == 0 && f[off+1] == 0; none != (name == "vxlan4") {
					t.Errorf("outer UDP checksum % x", f[off:off+2])
				}
				if tmpl.Overhead() != len(f)-14-len(inner) {
					t.Errorf("Overhead %d", tmpl.Overhead())
				}
				checkAgainstGopacket(t, f, name, inner, tos)
			})
		}
	}
}

// checkAgainstGopacket builds the same frame with gopacket, byte for byte.
func checkAgainstGopacket(t *testing.T, f []byte, name string, inner []byte, tos uint8) {
	t.Helper()
	var l3 pkttest.Layer = pkttest.IP4("192.0.2.1", "192.0.2.2", pkttest.ID(0x1234), pkttest.TOS(outerTOS(tos)))
	if name == "vxlan6" {
		l3 = pkttest.IP6("2001:db8::1", "2001:db8::2", pkttest.TrafficClass(outerTOS(tos)))
	}
	et := uint16(packet.EtherTypeIPv4)
	if inner[0]>>4 == 6 {
		et = packet.EtherTypeIPv6
	}
	want := pkttest.Frame(t, pkttest.Eth(ourMAC, hopMAC), l3, pkttest.UDP(40000, 4789), pkttest.VXLANHeader(0x123456),
		pkttest.EthType(ourVTEP, peerVTEP, et), pkttest.Bytes(inner...))
	if name == "vxlan4" {
		pkttest.ZeroL4Checksum(want)
	}
	if !bytes.Equal(f, want) {
		t.Errorf("differs from gopacket's frame:\n%swant\n%s", pkttest.Dump(f), pkttest.Dump(want))
	}
}

func TestPushIPIP(t *testing.T) {
	tmpl := templates(t)["ipip"]
	for tos := range 256 {
		for _, df := range []bool{false, true} {
			for _, ttl := range []uint8{1, 63, 255} {
				inner := inner4(t, uint8(tos), tos)
				h := packet.IPv4(inner)
				h.SetTTL(ttl)
				if !df {
					h.SetFrag(0)
				}
				h.SetCheck()
				f := pushed(&tmpl, inner, encap.Inner{ID: uint16(tos * 7)})
				got := pkttest.CheckIPIP(t, f, pkttest.OuterSrcMAC(ourMAC), pkttest.OuterDstMAC(hopMAC), pkttest.OuterSrc("192.0.2.1"), pkttest.OuterDst("192.0.2.2"),
					pkttest.OuterTTL(ttl), pkttest.OuterTOS(outerTOS(uint8(tos))), pkttest.OuterDF(df), pkttest.Outer(pkttest.WithID(uint16(max(tos*7, 1)))))
				if !bytes.Equal(got, inner) {
					t.Fatal("the inner packet changed")
				}
			}
		}
	}
	p := ipip()
	p.TTL = 7
	fixed, err := encap.IPIP(p)
	if err != nil {
		t.Fatal(err)
	}
	pkttest.CheckIPIP(t, pushed(&fixed, inner4(t, 0, 9), encap.Inner{}), pkttest.OuterTTL(7))
}

func TestPushEthernet(t *testing.T) {
	auto := encap.Ethernet(mac(hopMAC), mac(ourMAC), 0)
	fixed := encap.Ethernet(mac(hopMAC), mac(ourMAC), packet.EtherTypeIPv4)
	for _, tt := range []struct {
		tmpl  encap.Template
		inner []byte
		want  uint16
	}{
		{auto, inner4(t, 0, 9), packet.EtherTypeIPv4},
		{auto, inner6(t, 0, 9), packet.EtherTypeIPv6},
		{fixed, inner4(t, 0, 9), packet.EtherTypeIPv4},
	} {
		f := pushed(&tt.tmpl, tt.inner, encap.Inner{})
		pkttest.CheckPacket(t, f, pkttest.SrcMAC(ourMAC), pkttest.DstMAC(hopMAC))
		if et := packet.Ethernet(f).EtherType(); et != tt.want || !bytes.Equal(f[14:], tt.inner) {
			t.Errorf("EtherType %#x, want %#x", et, tt.want)
		}
		if tt.tmpl.Overhead() != 0 {
			t.Errorf("Overhead %d", tt.tmpl.Overhead())
		}
	}
}

// The zero template is what an unresolved adjacency has: it writes nothing.
func TestPushZeroTemplate(t *testing.T) {
	var tmpl encap.Template
	tmpl.Push(nil, &encap.Inner{Len: 100})
	if tmpl.Overhead() != 0 || tmpl.NeedsSum() {
		t.Error("the zero template has an overhead or needs a sum")
	}
}

// Headers of every length of inner packet have a right checksum, id 0 included.
func TestPushChecksums(t *testing.T) {
	for name, tmpl := range templates(t) {
		if name == "ethernet" {
			continue
		}
		hdr := make([]byte, tmpl.Len)
		for n := 20; n < 65400; n += 13 {
			in := encap.Inner{Len: n, ID: uint16(n * 31), SrcPort: uint16(n * 17), TOS: uint8(n), TTL: uint8(n), DF: n%2 == 0}
			tmpl.Push(hdr, &in)
			if name != "vxlan6" && pkttest.Sum16(hdr[14:34], 0) != 0xffff {
				t.Fatalf("%s, %d bytes: wrong header checksum", name, n)
			}
		}
	}
}

func TestInnerOf(t *testing.T) {
	f := append(make([]byte, 12), append([]byte{8, 0}, inner4(t, 9, 10)...)...)
	var info packet.Info
	packet.Parse(f, len(f), &info)
	got := encap.InnerOf(&info, 5, 6)
	if want := (encap.Inner{Len: 38, SrcPort: 5, ID: 6, TOS: 9, TTL: 63, DF: true}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestTemplateErrors(t *testing.T) {
	change := func(f func(*encap.VXLANParams)) encap.VXLANParams {
		p := vxlan4()
		f(&p)
		return p
	}
	for _, tt := range []struct {
		name string
		p    encap.VXLANParams
		want string
	}{
		{"VNI", change(func(p *encap.VXLANParams) { p.VNI = 1 << 24 }), "VNI 16777216"},
		{"port", change(func(p *encap.VXLANParams) { p.DstPort = 0 }), "port 0"},
		{"families", change(func(p *encap.VXLANParams) { p.Dst = mustAddr("2001:db8::1") }), "different families"},
		{"no source", change(func(p *encap.VXLANParams) { p.Src = packet.Addr{} }), "no unicast address"},
		{"multicast", change(func(p *encap.VXLANParams) { p.Dst = mustAddr("239.1.1.1") }), "no unicast address"},
		{"loopback", change(func(p *encap.VXLANParams) { p.Dst = mustAddr("127.0.0.1") }), "no unicast address"},
		{"no inner MAC", change(func(p *encap.VXLANParams) { p.InnerDst = packet.MAC{} }), "VTEP"},
		{"group inner MAC", change(func(p *encap.VXLANParams) { p.InnerDst = packet.Broadcast }), "VTEP"},
	} {
		if tmpl, err := encap.VXLAN(tt.p); err == nil || !strings.Contains(err.Error(), tt.want) || tmpl != (encap.Template{}) {
			t.Errorf("%s: %v, want an error with %q", tt.name, err, tt.want)
		}
	}
	p := ipip()
	p.Src, p.Dst = mustAddr("2001:db8::1"), mustAddr("2001:db8::2")
	if _, err := encap.IPIP(p); err == nil {
		t.Error("IPIP over IPv6 is accepted")
	}
	p = ipip()
	p.Dst = packet.Addr{}
	if _, err := encap.IPIP(p); err == nil {
		t.Error("IPIP without destination is accepted")
	}
}

// The port stays in Linux's range, uses all of it, and follows the formula of
// udp_flow_src_port.
func TestSourcePort(t *testing.T) {
	seen := map[uint16]bool{}
	for i := range uint64(1 << 20) {
		p := encap.SourcePort(i * 0x9e3779b97f4a7c15)
		if p < 32768 || p > 60998 {
			t.Fatalf("port %d", p)
		}
		seen[p] = true
	}
	if len(seen) < 28000 {
		t.Errorf("only %d of 28231 ports used", len(seen))
	}
	for _, tt := range []struct {
		hash uint64
		want uint16
	}{{0, 32768}, {0xffff_0000, 32768 + 28230}, {0xffff_ffff, 32768}, {1, 32768}, {0x8000_0000, 32768 + 14115}, {0xffff_0000_0000_0000, 32768 + 28230}} {
		if got := encap.SourcePort(tt.hash); got != tt.want {
			t.Errorf("SourcePort(%#x) = %d, want %d", tt.hash, got, tt.want)
		}
	}
}

func TestDecapECN(t *testing.T) {
	const not, ect1, ect0, ce, lost = 0, 1, 2, 3, 0xff
	want := map[uint8][4]uint8{ // inner: by outer Not-ECT, ECT(1), ECT(0), CE
		not:  {not, not, not, lost},
		ect1: {ect1, ect1, ect1, ce},
		ect0: {ect0, ect1, ect0, ce},
		ce:   {ce, ce, ce, ce},
	}
	for outer := range 256 {
		for inner := range 256 {
			got, r := encap.DecapECN(uint8(outer), uint8(inner))
			w := want[uint8(inner&3)][outer&3]
			if w == lost {
				if r.String() != "tunnel_ecn" || got != uint8(inner) {
					t.Fatalf("outer %#x inner %#x: %s, %#x", outer, inner, r, got)
				}
			} else if r != 0 || got != uint8(inner)&^3|w {
				t.Fatalf("outer %#x inner %#x: %s, %#x, want ECN %d", outer, inner, r, got, w)
			}
		}
	}
}

func TestAllocs(t *testing.T) {
	for name, tmpl := range templates(t) {
		hdr, in := make([]byte, tmpl.Len), encap.Inner{Len: 100}
		if n := testing.AllocsPerRun(100, func() { tmpl.Push(hdr, &in) }); n != 0 {
			t.Errorf("Push of %s: %v allocations", name, n)
		}
		if name == "ethernet" {
			continue
		}
		f := pushed(&tmpl, inner4(t, 0, 50), encap.Inner{})
		var out encap.Outer
		if n := testing.AllocsPerRun(100, func() { encap.PopVXLAN(f, len(f), &out); encap.PopIPIP(f, len(f), &out) }); n != 0 {
			t.Errorf("Pop of %s: %v allocations", name, n)
		}
	}
}
