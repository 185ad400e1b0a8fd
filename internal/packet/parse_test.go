package packet_test

import (
	"testing"

	"github.com/google/gopacket/layers"

	"culvert/internal/drop"
	"culvert/internal/packet"
	"culvert/internal/pkttest"
)

// addr is the address in text form.
func addr(s string) packet.Addr { return packet.AddrFrom(netipOf(s)) }

func TestParseFields(t *testing.T) {
	eth := pkttest.Eth(podMAC, gwMAC)
	v4 := func(o ...pkttest.Layer) []byte {
		return pkttest.Frame(t, append([]pkttest.Layer{eth, pkttest.IP4("10.1.0.2", "10.1.1.3", pkttest.DF(), pkttest.TTL(9), pkttest.TOS(0x2a))}, o...)...)
	}
	v6 := func(o ...pkttest.Layer) []byte {
		return pkttest.Frame(t, append([]pkttest.Layer{eth, pkttest.IP6("fd00::2", "fd00::3", pkttest.HopLimit(9), pkttest.TrafficClass(0x2a))}, o...)...)
	}
	key4 := packet.Key{Src: addr("10.1.0.2"), Dst: addr("10.1.1.3"), Family: 4}
	key6 := packet.Key{Src: addr("fd00::2"), Dst: addr("fd00::3"), Family: 6}
	key := func(k packet.Key, proto uint8, src, dst uint16) packet.Key {
		k.Proto, k.SrcPort, k.DstPort = proto, src, dst
		return k
	}
	tests := []struct {
		name  string
		frame []byte
		want  packet.Info // TTL, TOS, L2Len, EtherType are filled in below
	}{
		{"tcp4", v4(pkttest.TCP(1000, 80, pkttest.Flags("SA"), pkttest.MSS(1400)), pkttest.Payload(3)),
			packet.Info{Key: key(key4, 6, 1000, 80), L3: 14, L4: 34, Payload: 58, L3Len: 47, TCPFlags: packet.TCPSyn | packet.TCPAck,
				Flags: packet.V4 | packet.DF | packet.Trackable}},
		{"tcp4 partial", pkttest.SetPartial(v4(pkttest.TCP(1000, 80), pkttest.Payload(3))),
			packet.Info{Key: key(key4, 6, 1000, 80), L3: 14, L4: 34, Payload: 54, L3Len: 43, TCPFlags: packet.TCPAck,
				Flags: packet.V4 | packet.DF | packet.Trackable | packet.Partial}},
		{"udp4 padded", pkttest.Pad(v4(pkttest.UDP(1000, 53), pkttest.Payload(3)), 15),
			packet.Info{Key: key(key4, 17, 1000, 53), L3: 14, L4: 34, Payload: 42, L3Len: 31,
				Flags: packet.V4 | packet.DF | packet.Trackable}},
		{"udp4 no checksum", pkttest.ZeroL4Checksum(v4(pkttest.UDP(1000, 53), pkttest.Payload(3))),
			packet.Info{Key: key(key4, 17, 1000, 53), L3: 14, L4: 34, Payload: 42, L3Len: 31,
				Flags: packet.V4 | packet.DF | packet.Trackable | packet.NoChecksum}},
		{"udp4 partial", pkttest.SetPartial(v4(pkttest.UDP(1000, 53), pkttest.Payload(3))),
			packet.Info{Key: key(key4, 17, 1000, 53), L3: 14, L4: 34, Payload: 42, L3Len: 31,
				Flags: packet.V4 | packet.DF | packet.Trackable | packet.Partial}},
		{"sctp4", v4(pkttest.SCTP(7, 8), pkttest.Payload(16)),
			packet.Info{Key: key(key4, 132, 7, 8), L3: 14, L4: 34, Payload: 46, L3Len: 48,
				Flags: packet.V4 | packet.DF | packet.Trackable}},
		{"echo4", v4(pkttest.ICMP4(8, 0, 77, 1), pkttest.Payload(8)),
			packet.Info{Key: key(key4, 1, 77, 77), L3: 14, L4: 34, Payload: 42, L3Len: 36, ICMPType: 8,
				Flags: packet.V4 | packet.DF | packet.Trackable | packet.ICMPEcho}},
		{"timestamp4", v4(pkttest.ICMP4(13, 0, 77, 1), pkttest.Payload(12)),
			packet.Info{Key: key(key4, 1, 0, 0), L3: 14, L4: 34, Payload: 42, L3Len: 40, ICMPType: 13,
				Flags: packet.V4 | packet.DF}},
		{"unreachable4", v4(pkttest.ICMP4(3, 4, 0, 1450), pkttest.Payload(28)),
			packet.Info{Key: key(key4, 1, 0, 0), L3: 14, L4: 34, Payload: 42, L3Len: 56, ICMPType: 3, ICMPCode: 4,
				Flags: packet.V4 | packet.DF | packet.ICMPError}},
		{"gre4", pkttest.Frame(t, eth, pkttest.IP4("10.1.0.2", "10.1.1.3", pkttest.DF(), pkttest.TTL(9), pkttest.TOS(0x2a), pkttest.Proto(47)), pkttest.Payload(4)),
			packet.Info{Key: key(key4, 47, 0, 0), L3: 14, L4: 34, Payload: 34, L3Len: 24,
				Flags: packet.V4 | packet.DF | packet.Trackable}},
		{"udp6", v6(pkttest.UDP(1000, 53), pkttest.Payload(3)),
			packet.Info{Key: key(key6, 17, 1000, 53), L3: 14, L4: 54, Payload: 62, L3Len: 51,
				Flags: packet.V6 | packet.DF | packet.Trackable}},
		{"tcp6 partial", pkttest.SetPartial(v6(pkttest.TCP(1000, 80), pkttest.Payload(3))),
			packet.Info{Key: key(key6, 6, 1000, 80), L3: 14, L4: 54, Payload: 74, L3Len: 63, TCPFlags: packet.TCPAck,
				Flags: packet.V6 | packet.DF | packet.Trackable | packet.Partial}},
		{"echo6", v6(pkttest.ICMP6(128, 0), pkttest.Bytes(0, 77, 0, 1)),
			packet.Info{Key: key(key6, 58, 77, 77), L3: 14, L4: 54, Payload: 62, L3Len: 48, ICMPType: 128,
				Flags: packet.V6 | packet.DF | packet.Trackable | packet.ICMPEcho}},
		{"too big 6", v6(pkttest.ICMP6(2, 0), pkttest.Bytes(0, 0, 5, 0)),
			packet.Info{Key: key(key6, 58, 0, 0), L3: 14, L4: 54, Payload: 62, L3Len: 48, ICMPType: 2,
				Flags: packet.V6 | packet.DF | packet.ICMPError}},
		{"extensions 6", v6(pkttest.Ext(0, 0, 0, 1, 4, 0, 0, 0, 0), pkttest.Ext(60, 0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), pkttest.UDP(1, 2)),
			packet.Info{Key: key(key6, 17, 1, 2), L3: 14, L4: 78, Payload: 86, L3Len: 72,
				Flags: packet.V6 | packet.DF | packet.Trackable | packet.Options}},
		{"fragment 6, first", v6(pkttest.Ext(44, 0, 0, 0, 1, 0, 0, 0, 9), pkttest.UDP(1, 2), pkttest.Payload(8)),
			packet.Info{Key: key(key6, 17, 1, 2), L3: 14, L4: 62, Payload: 70, L3Len: 64,
				Flags: packet.V6 | packet.DF | packet.Trackable | packet.Fragment | packet.FirstFragment}},
		{"fragment 6, other", v6(pkttest.Ext(44, 17, 0, 0, 8, 0, 0, 0, 9), pkttest.Payload(5)),
			packet.Info{Key: key(key6, 17, 0, 0), L3: 14, Payload: 62, L3Len: 53,
				Flags: packet.V6 | packet.DF | packet.Trackable | packet.Fragment}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := tt.want
			want.TTL, want.TOS, want.Proto, want.L2Len = 9, 0x2a, want.Key.Proto, 14
			want.EtherType = 0x0800
			if want.Key.Family == 6 {
				want.EtherType = 0x86dd
			}
			var got packet.Info
			if r := packet.Parse(tt.frame, len(tt.frame), &got); r != drop.None || got != want {
				t.Errorf("%s\ngot  %+v\nwant %+v\n%s", r, got, want, pkttest.Dump(tt.frame))
			}
			// The same behind a VLAN tag.
			tagged := pkttest.Join(tt.frame[:12], []byte{0x81, 0, 0, 7}, tt.frame[12:])
			want.L2Len, want.L3, want.Payload = 18, want.L3+4, want.Payload+4
			if want.L4 != 0 {
				want.L4 += 4
			}
			if r := packet.Parse(tagged, len(tagged), &got); r != drop.None || got != want {
				t.Errorf("tagged: %s\ngot  %+v\nwant %+v", r, got, want)
			}
		})
	}
}

func TestParseFragments4(t *testing.T) {
	frag := func(proto uint8, off int, more bool, payload int) []byte {
		return pkttest.Frame(t, pkttest.Eth(podMAC, gwMAC),
			pkttest.IP4("10.1.0.2", "10.1.1.3", pkttest.Fragment(off, more), pkttest.Proto(proto)), pkttest.Payload(payload))
	}
	const base = packet.V4 | packet.Fragment | packet.Trackable
	const first = base | packet.FirstFragment
	icmp := func(typ byte) []byte { return pkttest.FixIP4(pkttest.Corrupt(frag(1, 0, true, 24), 34, typ, 0)) }
	tcp := func(offset byte, n int) []byte { return pkttest.Corrupt(frag(6, 0, true, n), 34+12, offset) }
	tests := []struct {
		name         string
		frame        []byte
		reason       drop.Reason
		flags        packet.Flags
		l4           uint16
		sport, dport uint16
	}{
		{"first, TCP", tcp(0x60, 24), drop.None, first, 34, 1, 0x0203},
		{"first, UDP", frag(17, 0, true, 8), drop.None, first, 34, 1, 0x0203},
		{"first, SCTP", frag(132, 0, true, 16), drop.None, first, 34, 1, 0x0203},
		{"first, GRE", frag(47, 0, true, 8), drop.None, first, 34, 0, 0},
		{"first of an echo", icmp(8), drop.None, first, 34, 0x0405, 0x0405},
		{"first of a timestamp", icmp(13), drop.None, first &^ packet.Trackable, 34, 0, 0},
		{"first of an ICMP error", icmp(3), drop.None, first&^packet.Trackable | packet.ICMPError, 34, 0, 0},
		{"first of ICMPv6 in IPv4", frag(58, 0, true, 8), drop.None, first, 34, 0, 0},
		{"middle", frag(17, 8, true, 16), drop.None, base, 0, 0, 0},
		{"last, odd length", frag(17, 800, false, 3), drop.None, base, 0, 0, 0},
		{"behind the TCP header's fixed part", frag(6, 24, false, 16), drop.None, base, 0, 0, 0},
		{"tiny: no whole TCP header", frag(6, 0, true, 16), drop.FragmentTiny, 0, 0, 0, 0},
		{"first, empty", frag(17, 0, true, 0), drop.FragmentLength, 0, 0, 0, 0},
		{"tiny: no whole SCTP header", frag(132, 0, true, 8), drop.FragmentTiny, 0, 0, 0, 0},
		{"tiny: TCP options cut", tcp(0x70, 24), drop.FragmentTiny, 0, 0, 0, 0},
		{"TCP data offset 4", tcp(0x40, 24), drop.L4Invalid, 0, 0, 0, 0},
		{"inside the TCP header", frag(6, 8, false, 16), drop.FragmentTiny, 0, 0, 0, 0},
		{"middle, not a multiple of 8", frag(17, 8, true, 15), drop.FragmentLength, 0, 0, 0, 0},
		{"middle, empty", frag(17, 8, true, 0), drop.FragmentLength, 0, 0, 0, 0},
		{"last, empty", frag(17, 8, false, 0), drop.FragmentLength, 0, 0, 0, 0},
		{"ping of death", frag(1, 65528, false, 100), drop.FragmentOversize, 0, 0, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var info packet.Info
			r := packet.Parse(tt.frame, len(tt.frame), &info)
			if r != tt.reason {
				t.Fatalf("reason %s, want %s", r, tt.reason)
			}
			if r != drop.None {
				return
			}
			if info.Flags != tt.flags || info.L4 != tt.l4 || info.Key.SrcPort != tt.sport || info.Key.DstPort != tt.dport {
				t.Errorf("flags %#x, L4 %d, ports %#x, %#x; want %#x, %d, %#x, %#x", info.Flags, info.L4, info.Key.SrcPort, info.Key.DstPort,
					tt.flags, tt.l4, tt.sport, tt.dport)
			}
		})
	}
}

// Where a fragment belongs, whatever headers are in front.
func TestPieceOf(t *testing.T) {
	v4 := func(off int, more bool, n int, opts ...func(*layers.IPv4)) []byte {
		opts = append(opts, pkttest.ID(0xabcd), pkttest.Fragment(off, more), pkttest.Proto(17))
		return pkttest.Frame(t, pkttest.Eth(podMAC, gwMAC), pkttest.IP4("10.1.0.2", "10.1.1.3", opts...), pkttest.Payload(n))
	}
	v6 := func(ls ...pkttest.Layer) []byte {
		return pkttest.Frame(t, append([]pkttest.Layer{pkttest.Eth(podMAC, gwMAC), pkttest.IP6("fd00::2", "fd00::3")}, ls...)...)
	}
	frag := func(next uint8, off uint16) pkttest.Layer {
		return pkttest.Ext(44, next, 0, byte(off>>8), byte(off), 0xde, 0xad, 0xbe, 0xef)
	}
	hop := pkttest.Ext(0, 60, 0, 1, 4, 0, 0, 0, 0)
	dst := func(next uint8) pkttest.Layer {
		return pkttest.Ext(60, next, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	}
	for name, tt := range map[string]struct {
		frame []byte
		want  packet.Piece
	}{
		"IPv4, first":                   {v4(0, true, 24), packet.Piece{ID: 0xabcd, Len: 24, More: true}},
		"IPv4, last":                    {v4(65000, false, 3), packet.Piece{ID: 0xabcd, Offset: 65000, Len: 3}},
		"IPv4, padded":                  {pkttest.Pad(v4(8, false, 3), 23), packet.Piece{ID: 0xabcd, Offset: 8, Len: 3}},
		"IPv4, options":                 {v4(16, true, 8, pkttest.Option(7, 4, 0, 0)), packet.Piece{ID: 0xabcd, Offset: 16, Len: 8, More: true}},
		"IPv6, first":                   {v6(frag(17, 1), pkttest.UDP(1, 2), pkttest.Payload(8)), packet.Piece{ID: 0xdeadbeef, Len: 16, More: true}},
		"IPv6, last":                    {v6(frag(17, 1448), pkttest.Payload(5)), packet.Piece{ID: 0xdeadbeef, Offset: 1448, Len: 5}},
		"IPv6, atomic":                  {v6(frag(17, 0), pkttest.UDP(1, 2), pkttest.Payload(5)), packet.Piece{ID: 0xdeadbeef, Len: 13}},
		"IPv6, extensions in front":     {v6(hop, dst(44), frag(17, 9), pkttest.Payload(8)), packet.Piece{ID: 0xdeadbeef, Offset: 8, Len: 8, More: true}},
		"IPv6, extensions in the first": {v6(frag(60, 1), dst(17), pkttest.UDP(1, 2)), packet.Piece{ID: 0xdeadbeef, Len: 24, More: true}},
		"IPv6, AH in front":             {v6(pkttest.Ext(51, 44, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1), frag(17, 8), pkttest.Payload(3)), packet.Piece{ID: 0xdeadbeef, Offset: 8, Len: 3}},
	} {
		var info packet.Info
		if r := packet.Parse(tt.frame, len(tt.frame), &info); r != drop.None || info.Flags&packet.Fragment == 0 {
			t.Errorf("%s: %s, flags %#x", name, r, info.Flags)
			continue
		}
		if got := packet.PieceOf(tt.frame, &info); got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

func TestParseARP(t *testing.T) {
	f := pkttest.Frame(t, pkttest.Eth(podMAC, "ff:ff:ff:ff:ff:ff"), pkttest.ARPRequest(podMAC, "10.1.0.2", "169.254.1.1"))
	var info packet.Info
	if r := packet.Parse(f, len(f), &info); r != drop.None || info.EtherType != packet.EtherTypeARP || info.L3 != 14 {
		t.Fatalf("%s %+v", r, info)
	}
	if (info.Key != packet.Key{}) || info.Flags != 0 {
		t.Errorf("ARP has a key or flags: %+v", info)
	}
}

// Every reason that the parser can give, with a frame that provokes it.
func TestParseReasons(t *testing.T) {
	eth := pkttest.Eth(podMAC, gwMAC)
	const src4, dst4, src6, dst6 = "10.1.0.2", "10.1.1.3", "fd00::2", "fd00::3"
	tcp := func() []byte {
		return pkttest.Frame(t, eth, pkttest.IP4(src4, dst4), pkttest.TCP(1, 2), pkttest.Payload(9))
	}
	udp := func() []byte {
		return pkttest.Frame(t, eth, pkttest.IP4(src4, dst4), pkttest.UDP(1, 2), pkttest.Payload(9))
	}
	udp6 := func() []byte {
		return pkttest.Frame(t, eth, pkttest.IP6(src6, dst6), pkttest.UDP(1, 2), pkttest.Payload(9))
	}
	from := func(src, dst string) []byte {
		if addr(src).Netip().Is4() {
			return pkttest.Frame(t, eth, pkttest.IP4(src, dst), pkttest.UDP(1, 2))
		}
		return pkttest.Frame(t, eth, pkttest.IP6(src, dst), pkttest.UDP(1, 2))
	}
	ext := func(ls ...pkttest.Layer) []byte {
		return pkttest.Frame(t, append([]pkttest.Layer{eth, pkttest.IP6(src6, dst6)}, ls...)...)
	}
	opt := func(kind uint8, data ...byte) []byte {
		return pkttest.Frame(t, eth, pkttest.IP4(src4, dst4, pkttest.Option(kind, data...)), pkttest.UDP(1, 2))
	}
	fix := func(f []byte, off int, b ...byte) []byte { return pkttest.FixIP4(pkttest.Corrupt(f, off, b...)) }
	mapped := pkttest.Corrupt(udp6(), 14+8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 0, 2)
	mappedDst := pkttest.Corrupt(udp6(), 14+24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 0, 2)
	nine := []pkttest.Layer{}
	for range 9 {
		nine = append(nine, pkttest.Ext(60, 0, 0, 1, 4, 0, 0, 0, 0))
	}
	tests := []struct {
		name   string
		frame  []byte
		reason drop.Reason
	}{
		{"valid TCP", tcp(), drop.None},
		{"valid UDP", udp(), drop.None},
		{"valid UDP over IPv6", udp6(), drop.None},
		{"record route", opt(7, 4, 0, 0, 0, 0), drop.None},
		{"empty", nil, drop.FrameTooShort},
		{"13 bytes", tcp()[:13], drop.FrameTooShort},
		{"tag cut short", pkttest.Corrupt(tcp()[:17], 12, 0x81, 0), drop.FrameTooShort},
		{"LLDP", pkttest.Frame(t, pkttest.EthType(podMAC, gwMAC, 0x88cc), pkttest.Payload(46)), drop.EthertypeUnsupported},
		{"802.3 length", pkttest.Frame(t, pkttest.EthType(podMAC, gwMAC, 46), pkttest.Payload(46)), drop.EthertypeUnsupported},
		{"two tags", pkttest.Frame(t, eth, pkttest.VLAN(1), pkttest.VLAN(2), pkttest.IP4(src4, dst4), pkttest.UDP(1, 2)), drop.EthertypeUnsupported},
		{"IPv6 called IPv4", pkttest.Corrupt(udp6(), 12, 8, 0), drop.IPVersion},
		{"IPv4 called IPv6", pkttest.Corrupt(pkttest.Pad(tcp(), 40), 12, 0x86, 0xdd), drop.IPVersion},
		{"IHL 4", fix(tcp(), 14, 0x44), drop.IPv4HeaderInvalid},
		{"IHL beyond the frame", fix(udp()[:40], 14, 0x4f), drop.IPv4HeaderInvalid},
		{"header cut short", tcp()[:33], drop.IPv4HeaderInvalid},
		{"option runs over", fix(opt(7, 4, 0), 14+21, 9), drop.IPv4HeaderInvalid},
		{"option of 1 byte", fix(opt(7, 4, 0), 14+21, 1), drop.IPv4HeaderInvalid},
		{"wrong checksum", pkttest.Corrupt(tcp(), 14+8, 63), drop.IPv4Checksum},
		{"wrong checksum with options", pkttest.Corrupt(opt(7, 4, 0), 14+8, 63), drop.IPv4Checksum},
		{"loose source route", opt(131, 4, 1, 2, 3, 4), drop.IPv4Options},
		{"strict source route", opt(137, 4, 1, 2, 3, 4), drop.IPv4Options},
		{"total length beyond the frame", fix(tcp(), 16, 0, 200), drop.IPLength},
		{"total length below the header", fix(tcp(), 16, 0, 19), drop.IPLength},
		{"total length 0 (BIG TCP)", fix(tcp(), 16, 0, 0), drop.IPLength},
		{"IPv6 length beyond the frame", pkttest.Corrupt(udp6(), 18, 1, 0), drop.IPLength},
		{"IPv6 header cut short", udp6()[:53], drop.IPv6HeaderInvalid},
		{"hop-by-hop not first", ext(pkttest.Ext(60, 0, 0, 1, 4, 0, 0, 0, 0), pkttest.Ext(0, 17, 0, 1, 4, 0, 0, 0, 0), pkttest.UDP(1, 2)), drop.IPv6HeaderInvalid},
		{"extension runs over", ext(pkttest.Ext(60, 0, 9, 1, 4, 0, 0, 0, 0), pkttest.UDP(1, 2)), drop.IPv6HeaderInvalid},
		{"extension cut short", ext(pkttest.Ext(60, 17, 0, 1, 4)), drop.IPv6HeaderInvalid},
		{"nine extensions", ext(append(nine, pkttest.UDP(1, 2))...), drop.IPv6HeaderInvalid},
		{"two fragment headers", ext(pkttest.Ext(44, 0, 0, 0, 1, 0, 0, 0, 1), pkttest.Ext(44, 17, 0, 0, 1, 0, 0, 0, 1), pkttest.Payload(8)), drop.IPv6HeaderInvalid},
		{"routing header type 0", ext(pkttest.Ext(43, append([]byte{0, 2, 0, 1}, make([]byte, 20)...)...), pkttest.UDP(1, 2)), drop.IPv6SourceRoute},
		{"IPv6 fragment, odd length", ext(pkttest.Ext(44, 17, 0, 0, 9, 0, 0, 0, 1), pkttest.Payload(7)), drop.FragmentLength},
		{"IPv6 fragment, empty", ext(pkttest.Ext(44, 17, 0, 0, 8, 0, 0, 0, 1)), drop.FragmentLength},
		{"IPv6 fragment, too long", ext(pkttest.Ext(44, 17, 0, 0xff, 0xf8, 0, 0, 0, 1), pkttest.Payload(8)), drop.FragmentOversize},
		{"IPv6 fragment in the TCP header", ext(pkttest.Ext(44, 6, 0, 0, 8, 0, 0, 0, 1), pkttest.Payload(8)), drop.FragmentTiny},
		{"IPv6 fragment without the header chain", ext(pkttest.Ext(44, 60, 0, 0, 1, 0, 0, 0, 1), pkttest.Ext(60, 17, 1, 1, 4, 0, 0, 0, 0)), drop.FragmentTiny},
		{"IPv6 fragment that ends in its UDP header", ext(pkttest.Ext(44, 17, 0, 0, 0, 0, 0, 0, 1), pkttest.Payload(7)), drop.FragmentTiny},
		{"TCP header cut short", fix(tcp(), 16, 0, 39), drop.L4Truncated},
		{"UDP header cut short", fix(udp(), 16, 0, 27), drop.L4Truncated},
		{"SCTP header cut short", pkttest.Frame(t, eth, pkttest.IP4(src4, dst4, pkttest.Proto(132)), pkttest.Payload(11)), drop.L4Truncated},
		{"ICMP header cut short", pkttest.Frame(t, eth, pkttest.IP4(src4, dst4, pkttest.Proto(1)), pkttest.Payload(7)), drop.L4Truncated},
		{"ICMPv6 header cut short", ext(pkttest.ICMP6(128, 0), pkttest.Payload(3)), drop.L4Truncated},
		{"TCP data offset 4", pkttest.Corrupt(tcp(), 34+12, 0x40), drop.L4Invalid},
		{"TCP data offset beyond the packet", pkttest.Corrupt(tcp(), 34+12, 0xf0), drop.L4Invalid},
		{"UDP length 7", pkttest.Corrupt(udp(), 34+4, 0, 7), drop.L4Invalid},
		{"UDP length beyond the packet", pkttest.Corrupt(udp(), 34+4, 0, 18), drop.L4Invalid},
		{"source 0.0.0.0", from("0.0.0.0", dst4), drop.MartianSource},
		{"source 127.0.0.1", from("127.0.0.1", dst4), drop.MartianSource},
		{"source 224.0.0.1", from("224.0.0.1", dst4), drop.MartianSource},
		{"source 255.255.255.255", from("255.255.255.255", dst4), drop.MartianSource},
		{"source ::", from("::", dst6), drop.MartianSource},
		{"source ::1", from("::1", dst6), drop.MartianSource},
		{"source ff02::1", from("ff02::1", dst6), drop.MartianSource},
		{"source IPv4-mapped", mapped, drop.MartianSource},
		{"destination 0.0.0.1", from(src4, "0.0.0.1"), drop.MartianDestination},
		{"destination 127.0.0.1", from(src4, "127.0.0.1"), drop.MartianDestination},
		{"destination 240.0.0.1", from(src4, "240.0.0.1"), drop.MartianDestination},
		{"destination ::", from(src6, "::"), drop.MartianDestination},
		{"destination ::1", from(src6, "::1"), drop.MartianDestination},
		{"destination IPv4-mapped", mappedDst, drop.MartianDestination},
		{"mDNS", from(src4, "224.0.0.251"), drop.Multicast},
		{"broadcast", from(src4, "255.255.255.255"), drop.Multicast},
		{"IPv6 multicast", from(src6, "ff02::fb"), drop.Multicast},
		{"MLD report", pkttest.Frame(t, eth, pkttest.IP6(src6, "ff02::16"), pkttest.ICMP6(143, 0), pkttest.Payload(4)), drop.Multicast},
		{"neighbour solicitation", pkttest.Frame(t, eth, pkttest.IP6(src6, "ff02::1:ff00:1", pkttest.HopLimit(255)), pkttest.ICMP6(135, 0), pkttest.Payload(20)), drop.None},
		{"duplicate address detection", pkttest.Frame(t, eth, pkttest.IP6("::", "ff02::1:ff00:1", pkttest.HopLimit(255)), pkttest.ICMP6(135, 0), pkttest.Payload(20)), drop.None},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var info packet.Info
			f := tt.frame[:len(tt.frame):len(tt.frame)]
			if r := packet.Parse(f, len(f), &info); r != tt.reason {
				t.Errorf("reason %s, want %s\n%s", r, tt.reason, pkttest.Dump(f))
			}
		})
	}
}

// A frame cut anywhere is refused, and reading stays inside of it; with the
// missing bytes in other chunks it is accepted once its headers are there.
func TestParseTruncated(t *testing.T) {
	frames := benchFrames(t)
	frames["options"] = pkttest.Frame(t, pkttest.Eth(podMAC, gwMAC),
		pkttest.IP4("10.1.0.2", "10.1.1.3", pkttest.Option(7, 4, 0, 0)), pkttest.TCP(1, 2, pkttest.MSS(1)), pkttest.Payload(5))
	frames["extensions"] = pkttest.Frame(t, pkttest.Eth(podMAC, gwMAC), pkttest.IP6("fd00::2", "fd00::3"),
		pkttest.Ext(0, 0, 0, 1, 4, 0, 0, 0, 0), pkttest.Ext(44, 0, 0, 0, 1, 0, 0, 0, 9), pkttest.UDP(1, 2), pkttest.Payload(8))
	frames["sctp"] = pkttest.Frame(t, pkttest.Eth(podMAC, gwMAC), pkttest.IP4("10.1.0.2", "10.1.1.3"), pkttest.SCTP(1, 2), pkttest.Payload(5))
	for name, f := range frames {
		var whole, info packet.Info
		if r := packet.Parse(f, len(f), &whole); r != drop.None {
			t.Fatalf("%s: %s", name, r)
		}
		for n := range f {
			cut := append(make([]byte, 0, n), f[:n]...)
			if r := packet.Parse(cut, n, &info); r == drop.None {
				t.Errorf("%s cut at %d of %d is accepted", name, n, len(f))
			}
			r := packet.Parse(cut, len(f), &info)
			if n >= int(whole.Payload) && (r != drop.None || info != whole) {
				t.Errorf("%s with %d of %d bytes in the first chunk: %s", name, n, len(f), r)
			}
			if n < int(whole.Payload) && r == drop.None {
				t.Errorf("%s with headers cut at %d is accepted", name, n)
			}
		}
	}
}
