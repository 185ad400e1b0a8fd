package encap_test

import (
	"bytes"
	"testing"

	"culvert/encap"
	"culvert/internal/drop"
	"culvert/internal/packet"
	"culvert/internal/pkttest"

	"github.com/google/gopacket/layers"
)

// tunnel is a VXLAN frame of any peer with a valid inner frame.
func tunnel(t testing.TB, l3 pkttest.Layer, more ...pkttest.Layer) []byte {
	ls := []pkttest.Layer{pkttest.Eth(hopMAC, ourMAC), l3, pkttest.UDP(50000, 4789), pkttest.VXLANHeader(42),
		pkttest.Eth(peerVTEP, ourVTEP), pkttest.IP4("10.1.1.3", "10.1.0.2"), pkttest.UDP(53, 4711), pkttest.Payload(33)}
	return pkttest.Frame(t, append(ls, more...)...)
}

func outer4(o ...func(*layers.IPv4)) pkttest.Layer {
	return pkttest.IP4("192.0.2.2", "192.0.2.1", append(o, pkttest.TOS(2))...)
}

func outer6() pkttest.Layer {
	return pkttest.IP6("2001:db8::2", "2001:db8::1", pkttest.TrafficClass(2))
}

// tagged puts an 802.1Q tag into a frame.
func tagged(f []byte) []byte { return pkttest.Join(f[:12], []byte{0x81, 0, 0, 7}, f[12:]) }

// tagged1ad puts an 802.1ad tag into a frame.
func tagged1ad(f []byte) []byte { return pkttest.Join(f[:12], []byte{0x88, 0xa8, 0, 9}, f[12:]) }

func TestPopVXLAN(t *testing.T) {
	v4, v6 := tunnel(t, outer4()), tunnel(t, outer6())
	opts := tunnel(t, outer4(pkttest.Option(7, 4, 0, 0)))
	want4 := encap.Outer{Src: mustAddr("192.0.2.2"), Dst: mustAddr("192.0.2.1"), SrcPort: 50000, DstPort: 4789, VNI: 42, TOS: 2, Proto: 17,
		Payload: 42, End: uint32(len(v4)), InnerOffset: 50, InnerLen: 14 + 20 + 8 + 33, InnerDst: mac(ourVTEP), InnerSrc: mac(peerVTEP)}
	want6 := want4
	want6.Src, want6.Dst = mustAddr("2001:db8::2"), mustAddr("2001:db8::1")
	shift := func(o encap.Outer, n uint16) encap.Outer {
		o.Payload, o.InnerOffset, o.End = o.Payload+n, o.InnerOffset+n, o.End+uint32(n)
		return o
	}
	tests := []struct {
		name  string
		frame []byte
		want  encap.Outer
	}{
		{"v4", v4, want4},
		{"v4, tagged", tagged(v4), shift(want4, 4)},
		{"v4, tagged by 802.1ad", tagged1ad(v4), shift(want4, 4)},
		{"v4, two tags", tagged1ad(tagged(v4)), shift(want4, 8)},
		{"v4, two 802.1Q tags", tagged(tagged(v4)), shift(want4, 8)},
		{"v4, two 802.1ad tags", tagged1ad(tagged1ad(v4)), shift(want4, 8)},
		{"v4, options, two tags", tagged1ad(tagged(opts)), shift(want4, 16)},
		{"v4, padded", pkttest.Pad(bytes.Clone(v4), 9), want4},
		{"v4, options", opts, shift(want4, 8)},
		{"v4, no checksum", pkttest.ZeroL4Checksum(bytes.Clone(v4)), want4},
		{"v4, wrong UDP checksum", pkttest.Corrupt(bytes.Clone(v4), 40, 1, 2), want4},
		{"v6", v6, shift(want6, 20)},
		{"v6, tagged", tagged(v6), shift(want6, 24)},
		{"v6, two tags", tagged1ad(tagged(v6)), shift(want6, 28)},
		{"v6, padded", pkttest.Pad(bytes.Clone(v6), 9), shift(want6, 20)},
	}
	for _, tt := range tests {
		out := encap.Outer{VNI: 99, End: 99} // stale
		if r := encap.PopVXLAN(tt.frame, len(tt.frame), &out); r != drop.None || out != tt.want {
			t.Errorf("%s: %s\ngot  %+v\nwant %+v", tt.name, r, out, tt.want)
		}
		inner := tt.frame[out.InnerOffset:][:out.InnerLen]
		pkttest.CheckPacket(t, inner, pkttest.Src("10.1.1.3"), pkttest.WithPayload(pkttest.Pattern(33)))
		// With all but the headers in other chunks.
		head := tt.frame[: out.InnerOffset+14 : out.InnerOffset+14]
		if r := encap.PopVXLAN(head, len(tt.frame), &out); r != drop.None || out != tt.want {
			t.Errorf("%s, in chunks: %s", tt.name, r)
		}
	}
}

// Every reason that popping can give, with a frame that provokes it.
func TestPopReasons(t *testing.T) {
	v4 := func() []byte { return tunnel(t, outer4()) }
	v6 := func() []byte { return tunnel(t, outer6()) }
	fix := func(f []byte, off int, b ...byte) []byte { return pkttest.FixIP4(pkttest.Corrupt(f, off, b...)) }
	// short is a tunnel packet whose UDP payload has n bytes, VXLAN header first.
	short := func(n int) []byte {
		head := []byte{8, 0, 0, 0, 0, 0, 42, 0}
		return pkttest.Frame(t, pkttest.Eth(hopMAC, ourMAC), outer4(), pkttest.UDP(50000, 4789), pkttest.Bytes(append(head, make([]byte, 20)...)[:n]...))
	}
	ipip := pkttest.Frame(t, pkttest.Eth(hopMAC, ourMAC), outer4(), pkttest.IP4("10.1.1.3", "10.1.0.2"), pkttest.UDP(1, 2))
	tcp := pkttest.Frame(t, pkttest.Eth(hopMAC, ourMAC), outer4(), pkttest.TCP(1, 2), pkttest.Payload(60))
	tests := []struct {
		name        string
		frame       []byte
		vxlan, ipip drop.Reason
	}{
		{"VXLAN", v4(), drop.None, drop.TunnelNotOurs},
		{"VXLAN over IPv6", v6(), drop.None, drop.TunnelNotOurs},
		{"IPIP", ipip, drop.TunnelNotOurs, drop.None},
		{"TCP", tcp, drop.TunnelNotOurs, drop.TunnelNotOurs},
		{"TCP over IPv6", pkttest.Frame(t, pkttest.Eth(hopMAC, ourMAC), outer6(), pkttest.TCP(1, 2)), drop.TunnelNotOurs, drop.TunnelNotOurs},
		{"empty", nil, drop.FrameTooShort, drop.FrameTooShort},
		{"tag cut short", tagged(v4())[:17], drop.FrameTooShort, drop.FrameTooShort},
		{"ARP", pkttest.Corrupt(v4(), 12, 8, 6), drop.EthertypeUnsupported, drop.EthertypeUnsupported},
		{"IPv6 called IPv4", pkttest.Corrupt(v6(), 12, 8, 0), drop.IPVersion, drop.IPVersion},
		{"IPv4 called IPv6", pkttest.Corrupt(v4(), 12, 0x86, 0xdd), drop.IPVersion, drop.IPVersion},
		{"IHL 4", fix(v4(), 14, 0x44), drop.IPv4HeaderInvalid, drop.IPv4HeaderInvalid},
		{"IHL beyond the frame", fix(v4()[:60], 14, 0x4f), drop.IPv4HeaderInvalid, drop.IPv4HeaderInvalid},
		{"wrong header checksum", pkttest.Corrupt(v4(), 22, 63), drop.IPv4Checksum, drop.IPv4Checksum},
		{"total length beyond the frame", fix(v4(), 16, 9, 9), drop.IPLength, drop.IPLength},
		{"total length below the header", fix(v4(), 16, 0, 19), drop.IPLength, drop.IPLength},
		{"IPv6 length beyond the frame", pkttest.Corrupt(v6(), 18, 9, 9), drop.IPLength, drop.IPLength},
		{"first fragment", fix(v4(), 20, 0x20, 0), drop.OuterFragment, drop.OuterFragment},
		{"other fragment", fix(v4(), 20, 0, 9), drop.OuterFragment, drop.OuterFragment},
		{"IPv6 fragment", pkttest.Corrupt(v6(), 20, 44), drop.OuterFragment, drop.OuterFragment},
		{"UDP header cut short", fix(v4(), 16, 0, 27), drop.TunnelTruncated, drop.TunnelTruncated},
		{"UDP length 7", pkttest.Corrupt(v4(), 38, 0, 7), drop.L4Invalid, drop.L4Invalid},
		{"UDP length beyond the packet", pkttest.Corrupt(v4(), 38, 1, 0), drop.L4Invalid, drop.L4Invalid},
		{"UDP length within its padding", pkttest.Corrupt(pkttest.Pad(v4(), 9), 38, 0, 8+8+14+20+8+33+1), drop.L4Invalid, drop.L4Invalid},
		{"no VXLAN header", short(0), drop.TunnelTruncated, drop.TunnelNotOurs},
		{"VXLAN header cut short", short(7), drop.TunnelTruncated, drop.TunnelNotOurs},
		{"no inner Ethernet header", short(8), drop.TunnelTruncated, drop.TunnelNotOurs},
		{"inner Ethernet header cut short", short(21), drop.TunnelTruncated, drop.TunnelNotOurs},
		{"inner Ethernet header only", short(22), drop.None, drop.TunnelNotOurs},
		{"no I flag", pkttest.Corrupt(v4(), 42, 0), drop.VXLANFlags, drop.TunnelNotOurs},
		{"GBP", pkttest.Corrupt(v4(), 42, 0x88), drop.VXLANFlags, drop.TunnelNotOurs},
		{"GPE", pkttest.Corrupt(v4(), 42, 0x0c), drop.VXLANFlags, drop.TunnelNotOurs},
		{"reserved bits", pkttest.Corrupt(v4(), 45, 1), drop.VXLANFlags, drop.TunnelNotOurs},
		{"low byte of the VNI word", pkttest.Corrupt(v4(), 49, 1), drop.VXLANFlags, drop.TunnelNotOurs},
		{"no I flag over IPv6", pkttest.Corrupt(v6(), 62, 0), drop.VXLANFlags, drop.TunnelNotOurs},
		{"IPIP cut short", fix(bytes.Clone(ipip), 16, 0, 39), drop.TunnelNotOurs, drop.TunnelTruncated},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			frames := [][]byte{tt.frame}
			if len(tt.frame) >= 18 { // tags must not change the reason
				frames = append(frames, tagged(tt.frame), tagged1ad(tagged(tt.frame)))
			}
			for _, f := range frames {
				f = f[:len(f):len(f)]
				var out encap.Outer
				if r := encap.PopVXLAN(f, len(f), &out); r != tt.vxlan {
					t.Errorf("PopVXLAN: %s, want %s", r, tt.vxlan)
				}
				if r := encap.PopIPIP(f, len(f), &out); r != tt.ipip {
					t.Errorf("PopIPIP: %s, want %s", r, tt.ipip)
				}
			}
		})
	}
	for name, f := range map[string][]byte{"tag": tagged(v4())[:17], "802.1ad tag": tagged1ad(v4())[:17], "second tag": tagged1ad(tagged(v4()))[:21]} {
		var out encap.Outer
		if r := encap.PopVXLAN(f[:len(f):len(f)], len(v4()), &out); r != drop.FrameTooShort {
			t.Errorf("%s cut short: %s", name, r)
		}
	}
	for name, f := range map[string][]byte{"three tags": tagged(tagged(tagged(v4()))), "three 802.1ad tags": tagged1ad(tagged1ad(tagged1ad(v6())))} {
		var out encap.Outer
		if r := encap.PopVXLAN(f, len(f), &out); r != drop.EthertypeUnsupported {
			t.Errorf("%s: %s", name, r)
		}
	}
	var out encap.Outer
	wrong := pkttest.Corrupt(v4(), 42, 0x88)
	if encap.PopVXLAN(wrong, len(wrong), &out); out.DstPort != 4789 || out.Src != mustAddr("192.0.2.2") {
		t.Errorf("after a drop: %+v", out)
	}
}

// A frame cut anywhere is refused, and reading stays inside of it.
func TestPopTruncated(t *testing.T) {
	ipip := pkttest.Frame(t, pkttest.Eth(hopMAC, ourMAC), outer4(), pkttest.IP4("10.1.1.3", "10.1.0.2"), pkttest.UDP(1, 2))
	for name, f := range map[string][]byte{
		"v4": tunnel(t, outer4()), "v6": tunnel(t, outer6()), "options": tunnel(t, outer4(pkttest.Option(7, 4, 0, 0))), "ipip": ipip, "tagged": tagged(tunnel(t, outer4())),
		"two tags": tagged1ad(tagged(tunnel(t, outer4()))), "two tags, v6": tagged1ad(tagged1ad(tunnel(t, outer6()))),
	} {
		pop := encap.PopVXLAN
		if name == "ipip" {
			pop = encap.PopIPIP
		}
		var whole, out encap.Outer
		if r := pop(f, len(f), &whole); r != drop.None {
			t.Fatal(r)
		}
		headers := int(whole.InnerOffset) + 14
		if name == "ipip" {
			headers = int(whole.InnerOffset) + packet.IPv4Len
		}
		for n := range f {
			cut := append(make([]byte, 0, n), f[:n]...)
			if r := pop(cut, n, &out); r == drop.None {
				t.Errorf("%s cut at %d of %d is accepted", name, n, len(f))
			}
			if r := pop(cut, len(f), &out); (r == drop.None) != (n >= headers) {
				t.Errorf("%s with %d of %d bytes in the first chunk: %s", name, n, len(f), r)
			}
		}
	}
}

func TestPopIPIP(t *testing.T) {
	f := pkttest.Pad(pkttest.Frame(t, pkttest.Eth(hopMAC, ourMAC), outer4(), pkttest.IP4("10.1.1.3", "10.1.0.2"), pkttest.UDP(1, 2), pkttest.Payload(5)), 3)
	var out encap.Outer
	if r := encap.PopIPIP(f, len(f), &out); r != drop.None {
		t.Fatal(r)
	}
	want := encap.Outer{Src: mustAddr("192.0.2.2"), Dst: mustAddr("192.0.2.1"), TOS: 2, Proto: 4, Payload: 34, End: uint32(len(f) - 3), InnerOffset: 34, InnerLen: 33}
	if out != want {
		t.Errorf("got  %+v\nwant %+v", out, want)
	}
}
