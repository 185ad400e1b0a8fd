package encap_test

import (
	"testing"

	"culvert/encap"
	"culvert/internal/drop"
	"culvert/internal/packet"
	"culvert/internal/pkttest"
)

func mustAddr(s string) packet.Addr { return packet.AddrFrom(addrOf(s)) }

func BenchmarkPush(b *testing.B) {
	for name, t := range templates(b) {
		b.Run(name, func(b *testing.B) {
			hdr := make([]byte, t.Len)
			in := encap.Inner{Len: 1400, SrcPort: 40000, ID: 1, TTL: 63, TOS: 2}
			for b.Loop() {
				in.ID++
				t.Push(hdr, &in)
			}
		})
	}
}

// As a worker does it: what is no VXLAN is found to be IPIP.
func BenchmarkPop(b *testing.B) {
	for _, name := range []string{"vxlan4", "vxlan6", "ipip"} {
		b.Run(name, func(b *testing.B) {
			t := templates(b)[name]
			inner := pkttest.IP(b, pkttest.IP4("10.1.0.2", "10.1.1.3"), pkttest.UDP(1, 2), pkttest.Payload(100))
			f := pushed(&t, inner, encap.Inner{})
			var out encap.Outer
			for b.Loop() {
				r := encap.PopVXLAN(f, len(f), &out)
				if name == "ipip" && r == drop.TunnelNotOurs {
					r = encap.OpenIPIP(f, &out)
				}
				if r != drop.None {
					b.Fatal(r)
				}
			}
		})
	}
}
