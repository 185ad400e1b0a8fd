package encap_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"culvert/encap"
	"culvert/internal/packet"
	"culvert/internal/pkttest"
)

const (
	ourMAC   = "52:54:00:00:00:01"
	hopMAC   = "52:54:00:00:00:02"
	ourVTEP  = "0a:00:00:00:00:01"
	peerVTEP = "0a:00:00:00:00:02"
)

func addrOf(s string) netip.Addr { return netip.MustParseAddr(s) }

func mac(s string) packet.MAC {
	m, err := packet.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

func vxlan4() encap.VXLANParams {
	return encap.VXLANParams{
		SrcMAC: mac(ourMAC), DstMAC: mac(hopMAC), Src: mustAddr("192.0.2.1"), Dst: mustAddr("192.0.2.2"),
		DstPort: 4789, VNI: 0x123456, InnerSrc: mac(ourVTEP), InnerDst: mac(peerVTEP),
	}
}

func vxlan6() encap.VXLANParams {
	p := vxlan4()
	p.Src, p.Dst = mustAddr("2001:db8::1"), mustAddr("2001:db8::2")
	return p
}

func ipip() encap.IPIPParams {
	p := vxlan4()
	return encap.IPIPParams{SrcMAC: p.SrcMAC, DstMAC: p.DstMAC, Src: p.Src, Dst: p.Dst}
}

// templates is one template of each kind.
func templates(t testing.TB) map[string]encap.Template {
	must := func(tp encap.Template, err error) encap.Template {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return tp
	}
	sum := vxlan4()
	sum.UDPChecksum = true
	return map[string]encap.Template{
		"ethernet":   encap.Ethernet(mac(hopMAC), mac(ourMAC), 0),
		"vxlan4":     must(encap.VXLAN(vxlan4())),
		"vxlan4-sum": must(encap.VXLAN(sum)),
		"vxlan6":     must(encap.VXLAN(vxlan6())),
		"ipip":       must(encap.IPIP(ipip())),
	}
}

// pushed is inner, an IP packet, with t's headers in front. It fills the fields
// of in that follow from inner.
func pushed(t *encap.Template, inner []byte, in encap.Inner) []byte {
	f := append(make([]byte, t.Len), inner...)
	in.Len = len(inner)
	if inner[0]>>4 == 6 {
		in.V6, in.DF = true, true
		h := packet.IPv6(inner)
		in.TOS, in.TTL = h.TrafficClass(), h.HopLimit()
	} else {
		h := packet.IPv4(inner)
		in.TOS, in.TTL, in.DF = h.TOS(), h.TTL(), h.Frag()&packet.IPv4DF != 0
	}
	if in.SrcPort == 0 {
		in.SrcPort = encap.SourcePort(uint64(binary.BigEndian.Uint32(inner)) * 0x9e3779b97f4a7c15)
	}
	if t.NeedsSum() {
		in.Sum = pkttest.Sum16(inner, 0)
	}
	t.Push(f[:t.Len], &in)
	return f
}
