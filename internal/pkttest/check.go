package pkttest

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// Want is one assertion about a packet. It returns what is wrong, or "".
type Want func(p *Packet) string

// Packet is a decoded frame as assertions see it.
type Packet struct {
	gopacket.Packet
	// Outer is the outermost IP layer's packet of a tunnel; nil otherwise.
	Outer *Packet
	// Tunnel is the VXLAN header of a tunnel, nil for none.
	Tunnel *layers.VXLAN
}

// CheckPacket asserts that f is a well-formed frame (lengths right, every
// checksum right) and that all wants hold. It returns the decoded frame.
func CheckPacket(t testing.TB, f []byte, wants ...Want) *Packet {
	t.Helper()
	p := decode(t, f, layers.LayerTypeEthernet)
	if problem := CheckSums(f); problem != "" {
		t.Errorf("%s\n%s", problem, Dump(f))
	}
	p.check(t, f, wants)
	return p
}

// CheckVXLAN asserts that f is a VXLAN frame that Linux would accept and that all
// wants hold, and returns the inner frame. Wants named Outer... speak of the
// outer headers, the others of the inner frame.
func CheckVXLAN(t testing.TB, f []byte, wants ...Want) []byte {
	t.Helper()
	outer := decode(t, f, layers.LayerTypeEthernet)
	if problem := CheckSums(f); problem != "" {
		t.Errorf("outer headers: %s\n%s", problem, Dump(f))
	}
	udp, _ := outer.Layer(layers.LayerTypeUDP).(*layers.UDP)
	if udp == nil {
		t.Fatalf("VXLAN: no outer UDP header\n%s", Dump(f))
	}
	if len(udp.Payload) < 8+14 {
		t.Fatalf("VXLAN: %d bytes behind the UDP header\n%s", len(udp.Payload), Dump(f))
	}
	head := udp.Payload[:8]
	if head[0] != 0x08 || !bytes.Equal(head[1:4], []byte{0, 0, 0}) || head[7] != 0 {
		t.Errorf("VXLAN header % x: flags other than I, or reserved bits, are set", head)
	}
	if udp.SrcPort < 32768 || udp.SrcPort > 60999 {
		t.Errorf("outer source port %d is not in 32768-60999", udp.SrcPort)
	}
	inner := udp.Payload[8:]
	if problem := CheckSums(inner); problem != "" {
		t.Errorf("inner frame: %s\n%s", problem, Dump(f))
	}
	p := decode(t, inner, layers.LayerTypeEthernet)
	p.Outer = outer
	p.Tunnel = &layers.VXLAN{VNI: uint32(head[4])<<16 | uint32(head[5])<<8 | uint32(head[6])}
	p.check(t, f, wants)
	return inner
}

// CheckIPIP asserts that f is an IPIP frame and that all wants hold, and returns
// the inner IP packet.
func CheckIPIP(t testing.TB, f []byte, wants ...Want) []byte {
	t.Helper()
	if problem := CheckSums(f); problem != "" {
		t.Errorf("outer headers: %s\n%s", problem, Dump(f))
	}
	w, ok := locate(f)
	if !ok || w.proto != 4 {
		t.Fatalf("IPIP: outer protocol is %d\n%s", w.proto, Dump(f))
	}
	inner := f[w.l4:w.end]
	asFrame := Join(f[:12], []byte{8, 0}, inner)
	if problem := CheckSums(asFrame); problem != "" {
		t.Errorf("inner packet: %s\n%s", problem, Dump(f))
	}
	p := decode(t, inner, layers.LayerTypeIPv4)
	p.Outer = decode(t, f, layers.LayerTypeEthernet)
	p.check(t, f, wants)
	return inner
}

func (p *Packet) check(t testing.TB, f []byte, wants []Want) {
	t.Helper()
	failed := false
	for _, w := range wants {
		if problem := w(p); problem != "" {
			t.Error(problem)
			failed = true
		}
	}
	if failed {
		t.Log("\n" + Dump(f))
	}
}

func decode(t testing.TB, f []byte, first gopacket.LayerType) *Packet {
	t.Helper()
	p := gopacket.NewPacket(f, first, gopacket.Default)
	if e := p.ErrorLayer(); e != nil {
		// What gopacket cannot decode behind UDP is none of our headers.
		if p.TransportLayer() == nil {
			t.Errorf("gopacket: %v\n%s", e.Error(), Dump(f))
		}
	}
	return &Packet{Packet: p}
}

// CheckSums verifies lengths and checksums of a frame, from its Ethernet header
// on, and returns what is wrong or "". Fragments' transport checksums, SCTP's and
// a UDP checksum of 0 over IPv4 pass.
func CheckSums(f []byte) string {
	if len(f) < 14 {
		return "shorter than an Ethernet header"
	}
	w, ok := locate(f)
	if !ok {
		return ""
	}
	if w.end > len(f) || w.l4 > w.end {
		return fmt.Sprintf("IP packet ends at byte %d of %d", w.end, len(f))
	}
	v4 := f[w.l3]>>4 == 4
	if v4 {
		if Sum16(f[w.l3:w.l4], 0) != 0xffff {
			return "wrong IPv4 header checksum"
		}
		if f[w.l3+6]&0x3f != 0 || f[w.l3+7] != 0 {
			return ""
		}
	}
	end := w.end
	if w.udp {
		n := int(f[w.l4+4])<<8 | int(f[w.l4+5])
		if n < 8 || w.l4+n > w.end {
			return fmt.Sprintf("UDP length %d in %d bytes", n, w.end-w.l4)
		}
		if f[w.check] == 0 && f[w.check+1] == 0 {
			if !v4 {
				return "no UDP checksum over IPv6"
			}
			return ""
		}
	}
	if w.check != 0 && Sum16(f[w.l4:end], w.pseudo) != 0xffff {
		return fmt.Sprintf("wrong transport checksum of protocol %d", w.proto)
	}
	return ""
}

// Dump is a frame as gopacket decodes it, and its first bytes.
func Dump(f []byte) string {
	const limit = 160
	p := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.Default)
	var b strings.Builder
	fmt.Fprintf(&b, "%d bytes\n", len(f))
	for _, l := range p.Layers() {
		if text := gopacket.LayerString(l); len(text) < 600 {
			fmt.Fprintln(&b, text)
		}
	}
	b.WriteString(hex.Dump(f[:min(len(f), limit)]))
	if len(f) > limit {
		b.WriteString("...\n")
	}
	return b.String()
}
