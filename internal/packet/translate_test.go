package packet_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"culvert/internal/drop"
	"culvert/internal/packet"
	"culvert/internal/pkttest"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// A translation is right if what comes out is what a sender with the other addresses and
// ports would have made, bit for bit: gopacket is that sender.

// sender makes packets of one kind.
type sender struct {
	name string
	v6   bool
	make func(t testing.TB, k packet.Key, payload []byte) []byte // an IP packet
}

func senders() (all []sender) {
	for _, v6 := range []bool{false, true} {
		network := func(k packet.Key) pkttest.Layer {
			if v6 {
				return pkttest.IP6(k.Src.String(), k.Dst.String())
			}
			return pkttest.IP4(k.Src.String(), k.Dst.String(), pkttest.ID(7))
		}
		add := func(name string, ls func(k packet.Key) []pkttest.Layer) {
			all = append(all, sender{fmt.Sprintf("%s v6 %t", name, v6), v6, func(t testing.TB, k packet.Key, payload []byte) []byte {
				return pkttest.IP(t, append(ls(k), gopacket.Payload(payload))...)
			}})
		}
		add("tcp", func(k packet.Key) []pkttest.Layer {
			return []pkttest.Layer{network(k), pkttest.TCP(k.SrcPort, k.DstPort, pkttest.Flags("A"), pkttest.Seq(1e9), pkttest.MSS(1400))}
		})
		add("udp", func(k packet.Key) []pkttest.Layer {
			return []pkttest.Layer{network(k), pkttest.UDP(k.SrcPort, k.DstPort)}
		})
		if v6 {
			for _, typ := range []uint8{128, 129} {
				add(fmt.Sprint("echo ", typ), func(k packet.Key) []pkttest.Layer {
					return []pkttest.Layer{network(k), pkttest.ICMP6(typ, 0), &layers.ICMPv6Echo{Identifier: k.SrcPort, SeqNumber: 5}}
				})
			}
			add("udp behind options", func(k packet.Key) []pkttest.Layer {
				return []pkttest.Layer{network(k), pkttest.Ext(60, 17, 0, 1, 4, 0, 0, 0, 0), pkttest.UDP(k.SrcPort, k.DstPort)}
			})
			continue
		}
		for _, typ := range []uint8{8, 0} {
			add(fmt.Sprint("echo ", typ), func(k packet.Key) []pkttest.Layer {
				return []pkttest.Layer{network(k), pkttest.ICMP4(typ, 0, k.SrcPort, 5)}
			})
		}
		add("tcp behind options", func(k packet.Key) []pkttest.Layer {
			return []pkttest.Layer{pkttest.IP4(k.Src.String(), k.Dst.String(), pkttest.Option(7, 4, 0, 0)), pkttest.TCP(k.SrcPort, k.DstPort)}
		})
		add("other", func(k packet.Key) []pkttest.Layer {
			return []pkttest.Layer{pkttest.IP4(k.Src.String(), k.Dst.String(), pkttest.Proto(47))}
		})
	}
	return all
}

// randomKey is one of any addresses and ports; those of an echo are one.
func randomKey(r *rand.Rand, v6 bool, proto uint8) packet.Key {
	k := packet.Key{Proto: proto, Family: 4, SrcPort: uint16(r.Uint32()), DstPort: uint16(r.Uint32())}
	for _, a := range []*packet.Addr{&k.Src, &k.Dst} {
		*a = packet.AddrFrom4(r.Uint32()&0x3fffffff | 1<<24)
		if v6 {
			k.Family = 6
			binary.BigEndian.PutUint64(a[:], r.Uint64()&0x0fffffffffffffff|0x2000000000000000)
			binary.BigEndian.PutUint64(a[8:], r.Uint64())
		}
	}
	if proto == packet.ProtoICMP || proto == packet.ProtoICMPv6 {
		k.DstPort = k.SrcPort
	}
	return k
}

// pairs calls f with random keys and what a sender makes of both with one payload.
func pairs(t *testing.T, f func(t *testing.T, r *rand.Rand, from, to packet.Key, before, after []byte)) {
	for _, s := range senders() {
		t.Run(s.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			proto := parsed(t, etherFrame(s.make(t, randomKey(r, s.v6, 0), nil))).Proto
			for i := range 300 {
				from, to := randomKey(r, s.v6, proto), randomKey(r, s.v6, proto)
				switch i % 4 { // as source translation does, as destination translation, and nothing at all
				case 0:
					to.Dst, to.DstPort = from.Dst, from.DstPort
				case 1:
					to.Src, to.SrcPort = from.Src, from.SrcPort
				case 2:
					to = from
				}
				if proto == packet.ProtoICMP || proto == packet.ProtoICMPv6 {
					to.DstPort = to.SrcPort
				}
				payload := make([]byte, r.IntN(200))
				for j := range payload {
					payload[j] = byte(r.Uint32())
				}
				f(t, r, from, to, etherFrame(s.make(t, from, payload)), etherFrame(s.make(t, to, payload)))
				if t.Failed() {
					return
				}
			}
		})
	}
}

func TestTranslate(t *testing.T) {
	pairs(t, func(t *testing.T, _ *rand.Rand, from, to packet.Key, before, after []byte) {
		got := exact(before)
		packet.Translate(got, parsed(t, got), &to)
		if !bytes.Equal(got, after) {
			t.Errorf("%s to %s:\n%x, want\n%x", from, to, got, after)
		}
		if from.Proto != packet.ProtoTCP && from.Proto != packet.ProtoUDP || parsed(t, before).Flags&(packet.Options|packet.V6) == packet.Options|packet.V6 {
			return // SetPartial finds no transport header
		}
		got = pkttest.SetPartial(exact(before))
		info := parsed(t, got)
		info.Flags |= packet.Partial
		packet.Translate(got, info, &to)
		if want := pkttest.SetPartial(exact(after)); !bytes.Equal(got, want) {
			t.Errorf("%s to %s, partial:\n%x, want\n%x", from, to, got, want)
		}
		if from.Proto == packet.ProtoUDP && from.Family == 4 {
			got = pkttest.ZeroL4Checksum(exact(before))
			packet.Translate(got, parsed(t, got), &to)
			if want := pkttest.ZeroL4Checksum(exact(after)); !bytes.Equal(got, want) {
				t.Errorf("%s to %s, without a checksum:\n%x, want\n%x", from, to, got, want)
			}
		}
	})
}

// An error that quotes any part of a packet becomes one that quotes as much of the packet
// as another sender would have made it.
func TestTranslateError(t *testing.T) {
	pairs(t, func(t *testing.T, r *rand.Rand, from, to packet.Key, before, after []byte) {
		info := parsed(t, before)
		quoted := int(info.L4-info.L3) + 8 + r.IntN(max(len(before)-int(info.L4)-8, 0)+1)
		switch {
		case from.Proto == 47:
			quoted = len(before) - 14
		case from.Proto == packet.ProtoTCP && quoted == int(info.L4-info.L3)+17:
			quoted++ // of half a checksum nobody can make the right half
		}
		router, receiver := randomKey(r, from.Family == 6, 0), randomKey(r, from.Family == 6, 0)
		build := func(src, dst packet.Addr, quote []byte) []byte {
			if from.Family == 6 {
				return etherFrame(pkttest.IP(t, pkttest.IP6(src.String(), dst.String()), pkttest.ICMP6(2, 0), pkttest.Bytes(pkttest.Join([]byte{0, 0, 5, 0}, quote)...)))
			}
			return etherFrame(pkttest.IP(t, pkttest.IP4(src.String(), dst.String()), pkttest.ICMP4(3, 4, 0, 1300), pkttest.Bytes(quote...)))
		}
		got := exact(build(router.Src, router.Dst, before[14:14+quoted]))
		want := build(receiver.Src, receiver.Dst, after[14:14+quoted])
		info = parsed(t, got)
		var q packet.Quote
		if ok := packet.ParseQuote(got, info, &q); !ok || q.Key.Src != from.Src {
			t.Fatalf("quote of %s: %v %t", from, q.Key, ok)
		}
		packet.TranslateError(got, info, &receiver.Src, &receiver.Dst, &to)
		if !bytes.Equal(got, want) {
			t.Errorf("%s to %s, %d bytes quoted:\n%x, want\n%x", from, to, quoted, got, want)
		}
		if info.Key.Src != receiver.Src || info.Key.Dst != receiver.Dst {
			t.Errorf("the key is %s", info.Key)
		}
	})
}

// SCTP's ports are under a CRC, which is left to be made anew; quoted, nobody looks at it.
func TestTranslateSCTP(t *testing.T) {
	from := packet.Key{Src: packet.AddrFrom(netip.MustParseAddr("10.1.0.2")), Dst: packet.AddrFrom(netip.MustParseAddr("203.0.113.5")), SrcPort: 1, DstPort: 2, Proto: packet.ProtoSCTP, Family: 4}
	f := etherFrame(pkttest.IP(t, pkttest.IP4("10.1.0.2", "203.0.113.5"), pkttest.SCTP(1, 2), pkttest.Payload(20)))
	crc := bytes.Clone(f[14+20+8 : 14+20+12])
	moved := from
	moved.Src = packet.AddrFrom(netip.MustParseAddr("192.0.2.1"))
	info := parsed(t, f)
	if packet.Translate(f, info, &moved); info.Flags&packet.EmptyCRC != 0 || !bytes.Equal(f[14+20+8:14+20+12], crc) {
		t.Error("new addresses alone change the CRC")
	}
	moved.SrcPort = 61000
	if packet.Translate(f, info, &moved); info.Flags&packet.EmptyCRC == 0 || binary.LittleEndian.Uint32(f[14+20+8:]) != 0 {
		t.Error("with another port the CRC stays")
	}
	pkttest.CheckPacket(t, f, pkttest.Src("192.0.2.1"), pkttest.WithPorts(61000, 2))

	e := etherFrame(pkttest.IP(t, pkttest.IP4("192.0.2.9", "192.0.2.1"), pkttest.ICMP4(3, 1, 0, 0), pkttest.Bytes(f[14:14+28]...)))
	src := packet.AddrFrom(netip.MustParseAddr("192.0.2.9"))
	packet.TranslateError(e, parsed(t, e), &src, &from.Src, &from)
	if bad := pkttest.CheckSums(e); bad != "" {
		t.Errorf("the error has %s", bad)
	}
	var q packet.Quote
	if !packet.ParseQuote(e, parsed(t, e), &q) || q.Key != from {
		t.Errorf("it quotes %s", q.Key)
	}
}

// sameButSums compares frames of one length but for the two ways to write 0 in a checksum.
func sameButSums(a, b []byte) bool {
	for i := range a {
		if a[i] == b[i] {
			continue
		}
		zero := func(at int) bool {
			if at < 0 || at+2 > len(a) {
				return false
			}
			x, y := binary.BigEndian.Uint16(a[at:]), binary.BigEndian.Uint16(b[at:])
			return x == ^y && (x == 0 || y == 0)
		}
		if !zero(i) && !zero(i-1) {
			return false
		}
	}
	return true
}

// FuzzTranslate translates whatever Parse accepts, and back.
func FuzzTranslate(f *testing.F) {
	for i, s := range seeds(f) {
		f.Add(s, uint64(i))
	}
	for _, s := range senders() {
		k := randomKey(rand.New(rand.NewPCG(3, 4)), s.v6, 0)
		p := s.make(f, k, make([]byte, 30))
		f.Add(etherFrame(p), uint64(1))
		if !s.v6 {
			f.Add(etherFrame(pkttest.IP(f, pkttest.IP4("192.0.2.1", k.Src.String()), pkttest.ICMP4(3, 4, 0, 1300), pkttest.Bytes(p...))), uint64(2))
		} else {
			f.Add(etherFrame(pkttest.IP(f, pkttest.IP6("fd00::1", k.Src.String()), pkttest.ICMP6(2, 0), pkttest.Bytes(pkttest.Join(make([]byte, 4), p)...))), uint64(2))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		b := exact(data)
		var info packet.Info
		if packet.Parse(b, len(b), &info) != drop.None || info.Flags&(packet.V4|packet.V6) == 0 {
			return
		}
		r := rand.New(rand.NewPCG(seed, 0))
		to := randomKey(r, info.Flags&packet.V6 != 0, info.Proto)
		if info.Flags&packet.ICMPError != 0 {
			fuzzError(t, r, b, info)
			return
		}
		bad := pkttest.CheckSums(b)
		there := info
		packet.Translate(b, &there, &to)
		var now packet.Info
		if packet.Parse(b, len(b), &now) != drop.None || now.Key.Src != to.Src || now.Key.Dst != to.Dst {
			t.Fatalf("%s to %s becomes %s", info.Key, to, now.Key)
		}
		if info.L4 != 0 && info.Flags&packet.Trackable != 0 && info.Key.SrcPort != 0 && now.Key.SrcPort != to.SrcPort {
			t.Fatalf("%s to %s becomes %s", info.Key, to, now.Key)
		}
		if there.Flags&packet.EmptyCRC != 0 || info.Flags&packet.Partial != 0 {
			return
		}
		if after := pkttest.CheckSums(b); after != bad {
			t.Fatalf("the checksums were %q and are %q", bad, after)
		}
		packet.Translate(b, &there, &info.Key)
		if !sameButSums(b, data) {
			t.Fatalf("%s to %s and back:\n%x, was\n%x", info.Key, to, b, data)
		}
	})
}

// fuzzError does the same to an ICMP error.
func fuzzError(t *testing.T, r *rand.Rand, b []byte, info packet.Info) {
	var q, now packet.Quote
	if !packet.ParseQuote(b, &info, &q) || q.Key.Proto == packet.ProtoSCTP && info.Flags&packet.V6 != 0 {
		return
	}
	before, bad := bytes.Clone(b), pkttest.CheckSums(b)
	to, ends := randomKey(r, info.Flags&packet.V6 != 0, q.Key.Proto), randomKey(r, info.Flags&packet.V6 != 0, 0)
	there := info
	packet.TranslateError(b, &there, &ends.Src, &ends.Dst, &to)
	if !packet.ParseQuote(b, &there, &now) {
		t.Fatalf("nothing is quoted any more of %s", q.Key)
	}
	want := to
	if now.Key.SrcPort == 0 && q.Key.SrcPort == 0 {
		want.SrcPort, want.DstPort = 0, 0 // a fragment has no ports
	}
	switch q.Key.Proto {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP, packet.ProtoICMP, packet.ProtoICMPv6:
	default:
		want.SrcPort, want.DstPort = 0, 0
	}
	if now.Key != want {
		t.Fatalf("quoted %s becomes %s, want %s", q.Key, now.Key, want)
	}
	if after := pkttest.CheckSums(b); after != bad {
		t.Fatalf("the checksums were %q and are %q", bad, after)
	}
	packet.TranslateError(b, &there, &info.Key.Src, &info.Key.Dst, &q.Key)
	if !sameButSums(b, before) {
		t.Fatalf("quoted %s to %s and back:\n%x, was\n%x", q.Key, to, b, before)
	}
}
