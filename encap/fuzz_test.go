package encap_test

import (
	"bytes"
	"testing"

	"culvert/encap"
	"culvert/internal/drop"
	"culvert/internal/packet"
	"culvert/internal/pkttest"
)

// FuzzPopVXLAN pops anything, with and without VLAN tags: a tagged frame takes
// the long way and must come to the same result.
func FuzzPopVXLAN(f *testing.F) {
	f.Add(tunnel(f, outer4()), uint16(0))
	f.Add(tunnel(f, outer6()), uint16(0))
	f.Add(tunnel(f, outer4(pkttest.Option(7, 4, 0, 0))), uint16(0))
	f.Add(tunnel(f, outer4())[:64], uint16(44))
	f.Add(tagged1ad(tunnel(f, outer4())), uint16(0))
	f.Add(tagged1ad(tagged(tunnel(f, outer6()))), uint16(0))
	f.Add(tagged1ad(tagged(tunnel(f, outer4())))[:20], uint16(90))
	f.Add(tagged(tagged(tagged(tunnel(f, outer4())))), uint16(0))
	f.Add(pkttest.Frame(f, pkttest.Eth(hopMAC, ourMAC), outer4(), pkttest.IP4("10.1.1.3", "10.1.0.2"), pkttest.UDP(1, 2)), uint16(0))
	f.Fuzz(func(t *testing.T, data []byte, more uint16) {
		b := append(make([]byte, 0, len(data)), data...)
		total := len(b) + int(more)
		var out, long encap.Outer
		r := encap.PopVXLAN(b[:len(b):len(b)], total, &out)
		if r >= drop.Count {
			t.Fatalf("reason %d", r)
		}
		if len(b) >= 14 && !(b[12] == 0x81 && b[13] == 0) && !(b[12] == 0x88 && b[13] == 0xa8) {
			for _, l := range [][]byte{tagged(b), tagged1ad(b), tagged1ad(tagged(b))} {
				n := len(l) - len(b)
				if rl := encap.PopVXLAN(l[:len(l):len(l)], total+n, &long); rl != r {
					t.Fatalf("%s, but with %d bytes of tags %s", r, n, rl)
				}
				if r == drop.None {
					long.Payload, long.InnerOffset, long.End = long.Payload-uint16(n), long.InnerOffset-uint16(n), long.End-uint32(n)
					if out != long {
						t.Fatalf("%+v, but with %d bytes of tags %+v", out, n, long)
					}
				}
			}
		}
		if ri := encap.PopIPIP(b[:len(b):len(b)], total, &long); ri == drop.None && (r == drop.None || int(long.End) > total || int(long.InnerOffset)+20 > len(b)) {
			t.Fatalf("IPIP: %+v", long)
		}
		if r != drop.None {
			return
		}
		if int(out.InnerOffset)+14 > len(b) || uint32(out.InnerOffset)+out.InnerLen != out.End || int(out.End) > total || out.VNI >= 1<<24 {
			t.Fatalf("%+v of %d bytes, %d in the first chunk", out, total, len(b))
		}
		if !bytes.Equal(b, data) {
			t.Fatal("PopVXLAN writes")
		}
	})
}

// FuzzPushPop sends any payload through each tunnel and expects it back.
func FuzzPushPop(f *testing.F) {
	f.Add([]byte("payload"), uint8(3), uint8(64), uint16(40000), uint16(0), uint32(1), true, false)
	f.Add([]byte{}, uint8(0xff), uint8(0), uint16(0), uint16(0xffff), uint32(0xffffff), false, true)
	f.Fuzz(func(t *testing.T, payload []byte, tos, ttl uint8, port, id uint16, vni uint32, df, v6 bool) {
		if len(payload) > 1400 {
			return
		}
		h := pkttest.IP4("10.1.0.2", "10.1.1.3", pkttest.TOS(tos), pkttest.TTL(ttl))
		if df {
			pkttest.DF()(h)
		}
		inner := pkttest.IP(t, h, pkttest.UDP(1, 2), pkttest.Bytes(payload...))
		if v6 {
			inner = pkttest.IP(t, pkttest.IP6("fd00::2", "fd00::3", pkttest.TrafficClass(tos), pkttest.HopLimit(ttl)), pkttest.UDP(1, 2), pkttest.Bytes(payload...))
		}
		in := encap.Inner{SrcPort: max(port, 1), ID: id}
		for i, p := range []encap.VXLANParams{vxlan4(), vxlan4(), vxlan6()} {
			p.VNI, p.TTL, p.UDPChecksum = vni&0xffffff, ttl, i == 1
			tmpl, err := encap.VXLAN(p)
			if err != nil {
				t.Fatal(err)
			}
			f := pushed(&tmpl, inner, in)
			if problem := pkttest.CheckSums(f); problem != "" {
				t.Fatal(problem)
			}
			var out encap.Outer
			if r := encap.PopVXLAN(f, len(f), &out); r != drop.None {
				t.Fatal(r)
			}
			if out.VNI != p.VNI || out.SrcPort != in.SrcPort || out.DstPort != p.DstPort || out.Src != p.Src || out.Dst != p.Dst ||
				out.InnerSrc != p.InnerSrc || out.InnerDst != p.InnerDst || out.TOS != outerTOS(tos) || int(out.InnerLen) != 14+len(inner) {
				t.Fatalf("%+v", out)
			}
			if !bytes.Equal(f[out.InnerOffset+14:], inner) {
				t.Fatal("the inner packet changed")
			}
			if back, r := encap.DecapECN(out.TOS, tos); r != drop.None || back != tos {
				t.Fatalf("TOS %#x came back as %#x, %s", tos, back, r)
			}
		}
		if v6 {
			return
		}
		tmpl := templates(t)["ipip"]
		g := pushed(&tmpl, inner, in)
		var out encap.Outer
		if r := encap.PopIPIP(g, len(g), &out); r != drop.None || !bytes.Equal(g[out.InnerOffset:], inner) {
			t.Fatalf("IPIP: %s", r)
		}
		if h := packet.IPv4(g[14:]); h.TTL() != ttl || h.ID() == 0 || (h.Frag() == packet.IPv4DF) != df || pkttest.CheckSums(g) != "" {
			t.Fatalf("IPIP header % x", g[14:34])
		}
	})
}
