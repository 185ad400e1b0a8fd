package packet_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"culvert/internal/drop"
	"culvert/internal/packet"
	"culvert/internal/pkttest"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// exact is a copy whose capacity ends with it: reading past it panics.
func exact(b []byte) []byte { return append(make([]byte, 0, len(b)), b...)[:len(b):len(b)] }

// checkInfo verifies what every later stage takes for granted.
func checkInfo(t *testing.T, b []byte, total int, info *packet.Info) {
	t.Helper()
	end := int(info.L3) + int(info.L3Len)
	switch {
	case int(info.L2Len) != int(info.L3), end > max(total, len(b)):
		t.Fatalf("L2Len %d, L3 %d, IP packet ends at %d of %d", info.L2Len, info.L3, end, total)
	case info.EtherType == packet.EtherTypeARP:
		return
	case int(info.Payload) > min(end, len(b)), info.Payload < info.L3+packet.IPv4Len:
		t.Fatalf("payload at %d of %d bytes", info.Payload, len(b))
	case info.L4 != 0 && (info.L4 > info.Payload || info.L4 <= info.L3):
		t.Fatalf("L4 %d, payload %d", info.L4, info.Payload)
	case info.Has(packet.V4) == info.Has(packet.V6):
		t.Fatalf("flags %#x", info.Flags)
	case info.Flags&packet.Fragment == 0 && info.L4 == 0:
		t.Fatal("no transport header, but no fragment")
	case info.Flags&packet.Fragment != 0:
		p := packet.PieceOf(b, info)
		if p.Offset+p.Len > 65535 || p.Len > info.L3Len || p.More && p.Len%8 != 0 || (p.Offset == 0) != info.Has(packet.FirstFragment) {
			t.Fatalf("fragment %+v of a packet of %d bytes, flags %#x", p, info.L3Len, info.Flags)
		}
	}
}

// againstGopacket compares addresses and ports with gopacket's.
func againstGopacket(t *testing.T, b []byte, info *packet.Info) {
	t.Helper()
	p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default)
	switch h := p.NetworkLayer().(type) {
	case *layers.IPv4:
		if src, dst := packet.AddrFrom4(binary.BigEndian.Uint32(h.SrcIP)), packet.AddrFrom4(binary.BigEndian.Uint32(h.DstIP)); src != info.Key.Src || dst != info.Key.Dst || h.TTL != info.TTL || h.TOS != info.TOS {
			t.Fatalf("gopacket says %+v, Parse %+v", h, info)
		}
	case *layers.IPv6:
		if src, dst := packet.Addr(h.SrcIP), packet.Addr(h.DstIP); src != info.Key.Src || dst != info.Key.Dst || h.HopLimit != info.TTL || h.TrafficClass != info.TOS {
			t.Fatalf("gopacket says %+v, Parse %+v", h, info)
		}
	}
	if info.Flags&packet.Fragment != 0 {
		return
	}
	var src, dst uint16
	switch h := p.TransportLayer().(type) {
	case *layers.TCP:
		src, dst = uint16(h.SrcPort), uint16(h.DstPort)
	case *layers.UDP:
		src, dst = uint16(h.SrcPort), uint16(h.DstPort)
	default:
		return
	}
	if src != info.Key.SrcPort || dst != info.Key.DstPort {
		t.Fatalf("gopacket says ports %d > %d, Parse %s", src, dst, info.Key)
	}
}

// seeds are one frame of each kind.
func seeds(f *testing.F) [][]byte {
	eth := pkttest.Eth(podMAC, gwMAC)
	all := [][]byte{
		pkttest.Frame(f, eth, pkttest.VLAN(1), pkttest.IP4("10.1.0.2", "10.1.1.3", pkttest.Option(7, 4, 0, 0)), pkttest.TCP(1, 2, pkttest.MSS(1400)), pkttest.Payload(9)),
		pkttest.Frame(f, eth, pkttest.IP4("10.1.0.2", "10.1.1.3", pkttest.Fragment(0, true), pkttest.Proto(17)), pkttest.Payload(16)),
		pkttest.Frame(f, eth, pkttest.IP4("10.1.0.2", "10.1.1.3"), pkttest.SCTP(1, 2), pkttest.Payload(4)),
		pkttest.Frame(f, eth, pkttest.IP6("fd00::2", "fd00::3"), pkttest.Ext(0, 0, 0, 1, 4, 0, 0, 0, 0), pkttest.Ext(44, 0, 0, 0, 1, 0, 0, 0, 9), pkttest.UDP(1, 2), pkttest.Payload(8)),
		pkttest.Frame(f, eth, pkttest.ARPRequest(podMAC, "10.1.0.2", "169.254.1.1")),
		solicit(f, "fe80::2", "ff02::1:ff00:1", 255, 1, 1, 2, 0, 0, 0, 0, 2),
	}
	for _, name := range []string{"udp4-64", "tcp4-partial", "icmp4-98", "udp6-84", "tcp6-1514"} {
		all = append(all, benchFrames(f)[name])
	}
	return all
}

func FuzzParse(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s, uint16(0))
	}
	f.Fuzz(func(t *testing.T, data []byte, more uint16) {
		b := exact(data)
		total := len(b) + int(more)
		var info packet.Info
		if r := packet.Parse(b, total, &info); r >= drop.Count {
			t.Fatalf("reason %d", r)
		} else if r != drop.None {
			return
		}
		if !bytes.Equal(b, data) {
			t.Fatal("Parse writes")
		}
		checkInfo(t, b, total, &info)
		againstGopacket(t, b, &info)
	})
}

// FuzzICMPError builds errors about, and answers to, whatever Parse accepts.
func FuzzICMPError(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s, uint8(3), uint8(4), uint16(1450), uint16(1500))
	}
	f.Fuzz(func(t *testing.T, data []byte, typ, code uint8, mtu, room uint16) {
		b := exact(data)
		var info packet.Info
		if packet.Parse(b, len(b), &info) != drop.None {
			return
		}
		dst := make([]byte, room%2048)
		limit := 576
		n := packet.BuildICMPError4(dst, b[info.L3:], &info, addr("10.1.0.1"), 11, code, mtu)
		if info.Has(packet.V6) {
			limit = 1280
			n = packet.BuildICMPError6(dst, b[info.L3:], &info, addr("fd00::1"), 2, code, uint32(mtu))
		}
		if n > min(limit, len(dst)) {
			t.Fatalf("%d bytes, room for %d", n, len(dst))
		}
		if n > 0 {
			e := etherFrame(dst[:n])
			if problem := pkttest.CheckSums(e); problem != "" {
				t.Fatal(problem)
			}
			if i := parsed(t, e); !i.Has(packet.ICMPError) || i.Key.Dst != info.Key.Src {
				t.Fatalf("%+v", i)
			}
		}
		// The replies in place, over a copy each.
		if c := exact(b); packet.EchoReply4(c, &info) == drop.None && pkttest.CheckSums(c) != "" {
			t.Fatalf("echo reply: %s", pkttest.CheckSums(c))
		}
		if c := exact(b); packet.EchoReply6(c, &info) == drop.None {
			parsed(t, c)
		}
		if c := exact(b); packet.ARPReply(c, packet.MAC{2}) == drop.None {
			parsed(t, c)
		}
		c := exact(b)
		if n, r := packet.NDReply(c, &info, packet.MAC{2}); r == drop.None {
			if problem := pkttest.CheckSums(c[:n]); problem != "" {
				t.Fatal(problem)
			}
		}
	})
}

// FuzzSegmenter cuts whatever TCP or UDP packet Parse accepts, its payload as
// long as asked, and whatever IPv4 packet: the pieces make the whole again.
func FuzzSegmenter(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s, uint16(1400), uint16(4000))
	}
	f.Fuzz(func(t *testing.T, data []byte, size, more uint16) {
		b := exact(data)
		var info packet.Info
		if packet.Parse(b, len(b), &info) != drop.None {
			return
		}
		fragmentAll(t, b, &info, int(size))
		// Longer than it was: payload is the caller's affair.
		info.L3Len = min(info.L3Len+uint32(more), 0xffff)
		seq := uint32(0)
		switch {
		case info.L4 == 0:
		case info.Proto == packet.ProtoUDP:
			n := packet.UDPLen + info.PayloadLen()
			pkttest.Corrupt(b, int(info.L4)+4, byte(n>>8), byte(n))
		case info.Proto == packet.ProtoTCP:
			seq = packet.TCP(b[info.L4:]).Seq()
		}
		var s packet.Segmenter
		if s.Init(b[info.L3:], &info, int(size)) != drop.None {
			return
		}
		left, next := s.Segments(), 0
		for more := true; more; left-- {
			h := make([]byte, s.HeaderLen(), s.HeaderLen()+int(size))
			var off, n int
			off, n, more = s.Next(h)
			if off != next || n > int(size) || left <= 0 || more && n == 0 {
				t.Fatalf("payload %d+%d after %d, %d segments left", off, n, next, left)
			}
			next += n
			seg := append(h, make([]byte, n)...)
			s.Complete(seg)
			e := etherFrame(seg)
			var got packet.Info
			if r := packet.Parse(e, len(e), &got); r != drop.None {
				t.Fatalf("segment refused: %s\n%s", r, pkttest.Dump(e))
			}
			if got.PayloadLen() != n || got.Flags&packet.NoChecksum != info.Flags&packet.NoChecksum {
				t.Fatalf("segment at %d: %+v", off, got)
			}
			if info.Flags&(packet.Options|packet.NoChecksum) == 0 && pkttest.CheckSums(e) != "" {
				t.Fatal(pkttest.CheckSums(e))
			}
			if info.Proto == packet.ProtoUDP {
				continue
			}
			if packet.TCP(e[got.L4:]).Seq() != seq+uint32(off) {
				t.Fatalf("segment at %d: %s", off, pkttest.Dump(e))
			}
			if more && got.TCPFlags&(packet.TCPFin|packet.TCPPsh) != 0 || off > 0 && got.TCPFlags&packet.TCPCwr != 0 {
				t.Fatalf("segment at %d has flags %#x", off, got.TCPFlags)
			}
		}
		if next != info.PayloadLen() || left != 0 {
			t.Fatalf("%d of %d bytes sent", next, info.PayloadLen())
		}
	})
}

func fragmentAll(t *testing.T, b []byte, info *packet.Info, mtu int) {
	t.Helper()
	var f packet.Fragmenter
	if f.Init(b[info.L3:], info, mtu) != drop.None {
		return
	}
	next := 0
	for more := true; more; {
		var h [60]byte
		var hdrLen, off, n int
		hdrLen, off, n, more = f.Next(h[:])
		if off != next || hdrLen+n > max(mtu, hdrLen) || more && n%8 != 0 {
			t.Fatalf("fragment %d+%d after %d with MTU %d", off, n, next, mtu)
		}
		if !packet.IPv4(h[:]).CheckOK() {
			t.Fatalf("wrong checksum in % x", h[:hdrLen])
		}
		next += n
	}
	if next+packet.IPv4(b[info.L3:]).HeaderLen() != int(info.L3Len) {
		t.Fatalf("%d bytes of payload in fragments of a packet of %d", next, info.L3Len)
	}
}
