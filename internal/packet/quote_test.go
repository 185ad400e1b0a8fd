package packet_test

import (
	"net/netip"
	"testing"

	"culvert/internal/drop"
	"culvert/internal/packet"
	kit "culvert/internal/pkttest"
)

// errorAbout is the frame of an ICMP error about f.
func errorAbout(t *testing.T, f []byte) []byte {
	t.Helper()
	var info packet.Info
	if r := packet.Parse(f, len(f), &info); r != drop.None {
		t.Fatalf("parsing: %s", r)
	}
	room := make([]byte, 2000)
	n := 0
	if info.Flags&packet.V4 != 0 {
		src := packet.AddrFrom(netip.MustParseAddr("10.9.9.9"))
		n = packet.BuildICMPError4(room[14:], f[14:], &info, src, packet.ICMPUnreachable, packet.ICMPFragNeeded, 1400)
	} else {
		src := packet.AddrFrom(netip.MustParseAddr("fd00::9"))
		n = packet.BuildICMPError6(room[14:], f[14:], &info, src, packet.ICMP6PacketTooBig, 0, 1400)
	}
	packet.Ethernet(room).SetEtherType(info.EtherType)
	return room[:14+n]
}

// What an error quotes is found under the key that Parse gave the packet.
func TestQuoteIsWhatWasSent(t *testing.T) {
	eth, eth6 := kit.Eth("02:00:00:00:00:01", "02:00:00:00:00:02"), kit.Eth("02:00:00:00:00:01", "02:00:00:00:00:02")
	v4, v6 := kit.IP4("10.1.0.2", "10.1.1.3"), kit.IP6("fd00::2", "fd00::3")
	for name, f := range map[string][]byte{
		"tcp":    kit.Frame(t, eth, v4, kit.TCP(4711, 80, kit.Seq(123456)), kit.Payload(1000)),
		"udp":    kit.Frame(t, eth, v4, kit.UDP(5, 6), kit.Payload(3)),
		"sctp":   kit.Frame(t, eth, v4, kit.SCTP(5, 6), kit.Payload(16)),
		"echo":   kit.Frame(t, eth, v4, kit.ICMP4(8, 0, 77, 1), kit.Payload(56)),
		"tcp 6":  kit.Frame(t, eth6, v6, kit.TCP(4711, 80, kit.Seq(123456)), kit.Payload(1300)),
		"udp 6":  kit.Frame(t, eth6, v6, kit.UDP(5, 6), kit.Payload(30)),
		"echo 6": kit.Frame(t, eth6, v6, kit.ICMP6(128, 0), kit.Bytes(0, 77, 0, 1, 9, 9)),
	} {
		t.Run(name, func(t *testing.T) {
			var sent, info packet.Info
			packet.Parse(f, len(f), &sent)
			e := errorAbout(t, f)
			if r := packet.Parse(e, len(e), &info); r != drop.None || info.Flags&packet.ICMPError == 0 {
				t.Fatalf("the error: %s, flags %b", r, info.Flags)
			}
			var q packet.Quote
			if !packet.ParseQuote(e, &info, &q) || q.Key != sent.Key || q.Fragment {
				t.Errorf("quoted %+v, sent %v", q, sent.Key)
			}
			if q.HasSeq != (sent.Proto == packet.ProtoTCP) || q.HasSeq && q.Seq != 123456 {
				t.Errorf("sequence number %d, %v", q.Seq, q.HasSeq)
			}
			// Cut before the ports nothing is found, and nothing is read beyond.
			for n := range int(info.Payload) + 48 {
				short := exact(e[:min(n, len(e))])
				cut := info
				cut.L3Len = uint32(max(len(short)-14, 0))
				if ok := packet.ParseQuote(short, &cut, &q); ok && n < int(info.Payload)+28 {
					t.Errorf("%d bytes quote %+v", n, q)
				}
			}
		})
	}
}

func TestQuoteRefuses(t *testing.T) {
	eth := kit.Eth("02:00:00:00:00:01", "02:00:00:00:00:02")
	for name, quote := range map[string][]byte{
		"an error":     kit.Frame(t, eth, kit.IP4("10.1.0.2", "10.1.1.3"), kit.ICMP4(3, 3, 0, 0), kit.Payload(28))[14:],
		"of IPv6":      kit.Frame(t, eth, kit.IP6("fd00::2", "fd00::3"), kit.UDP(5, 6))[14:],
		"a bad IHL":    append([]byte{0x44}, make([]byte, 60)...),
		"an IHL of 60": append([]byte{0x4f}, make([]byte, 40)...),
	} {
		f := kit.Frame(t, eth, kit.IP4("10.1.1.3", "10.1.0.2"), kit.ICMP4(3, 3, 0, 0), kit.Bytes(quote...))
		var info packet.Info
		if r := packet.Parse(f, len(f), &info); r != drop.None {
			t.Fatalf("%s: %s", name, r)
		}
		var q packet.Quote
		if packet.ParseQuote(f, &info, &q) {
			t.Errorf("%s: %+v", name, q)
		}
	}
}

// A quoted fragment has ports only if it is the first.
func TestQuotedFragments(t *testing.T) {
	eth := kit.Eth("02:00:00:00:00:01", "02:00:00:00:00:02")
	for _, c := range []struct {
		offset int
		port   uint16
	}{{0, 5}, {1480, 0}} {
		quote := kit.Frame(t, eth, kit.IP4("10.1.0.2", "10.1.1.3", kit.Fragment(c.offset, true), kit.Proto(17)), kit.UDP(5, 6), kit.Payload(24))[14:]
		f := kit.Frame(t, eth, kit.IP4("10.1.1.3", "10.1.0.2"), kit.ICMP4(11, 1, 0, 0), kit.Bytes(quote...))
		var info packet.Info
		if r := packet.Parse(f, len(f), &info); r != drop.None {
			t.Fatal(r)
		}
		var q packet.Quote
		if !packet.ParseQuote(f, &info, &q) || !q.Fragment || q.Key.SrcPort != c.port {
			t.Errorf("offset %d: %+v", c.offset, q)
		}
	}
}

func FuzzQuote(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		b = exact(b)
		var info packet.Info
		if packet.Parse(b, len(b), &info) != drop.None || info.Flags&packet.ICMPError == 0 {
			return
		}
		var q packet.Quote
		if packet.ParseQuote(b, &info, &q) && (int(q.Key.Family) != 4) != info.Has(packet.V6) {
			t.Errorf("an error of the other family: %+v", q)
		}
	})
}
