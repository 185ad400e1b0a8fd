package load

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// TestFramesAreWhatGopacketMakes compares whole frames with those of an
// independent encoder, checksums included.
func TestFramesAreWhatGopacketMakes(t *testing.T) {
	for _, kind := range []Kind{"", VXLAN, IPIP} {
		c := valid(3, 5, kind)
		c.Sizes = []Size{{64, 1}, {65, 1}, {570, 1}, {1514, 1}}
		c.Flows = 40
		c.NewEvery = 3
		p := plan(t, c)
		s := p.Stream()
		for range 200 {
			flow, n := s.Next()
			want := reference(t, p, flow, n)
			if got := p.Frame(flow, n); !bytes.Equal(got, want) {
				t.Fatalf("%q: flow %d, %d bytes:\n% x, want\n% x", kind, flow, n, got, want)
			}
		}
	}
}

// TestChecksumIsNeverZero looks for flows whose checksum comes out as zero,
// which UDP would take for none (RFC 768).
func TestChecksumIsNeverZero(t *testing.T) {
	p := plan(t, valid(1, 1<<16, ""))
	b := make([]byte, 64)
	ones := 0
	for flow := range uint32(1 << 20) {
		p.Put(b, flow, 64)
		switch binary.BigEndian.Uint16(b[p.UDP+6:]) {
		case 0:
			t.Fatalf("flow %d has none", flow)
		case 0xffff:
			ones++
		}
	}
	if ones == 0 {
		t.Error("no flow's checksum comes out as zero: the test looks in the wrong place")
	}
}

// reference is the frame as gopacket makes it.
func reference(t *testing.T, p *Plan, flow uint32, n int) []byte {
	t.Helper()
	out, dst := p.Outs[p.Out(flow)], p.Destinations[p.Destination(flow)]
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: out.Addr.AsSlice(), DstIP: dst.AsSlice()}
	src, port := Ports(flow)
	udp := &layers.UDP{SrcPort: layers.UDPPort(src), DstPort: layers.UDPPort(port)}
	if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	data := make(gopacket.Payload, n-p.UDP-lenUDP)
	copy(data, payload)
	fill := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	b := gopacket.NewSerializeBuffer()
	put := func(opts gopacket.SerializeOptions, all ...gopacket.SerializableLayer) {
		for i := len(all) - 1; i >= 0; i-- {
			if err := all[i].SerializeTo(b, opts); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(fill, ip, udp, data)
	eth := &layers.Ethernet{SrcMAC: out.MAC, DstMAC: p.NextHop, EthernetType: layers.EthernetTypeIPv4}
	if p.Tunnel == nil {
		put(fill, eth)
		return b.Bytes()
	}
	outer := &layers.IPv4{
		Version: 4, TTL: 64, Protocol: layers.IPProtocolIPv4, SrcIP: out.Peer.AsSlice(), DstIP: p.Tunnel.Dst.AsSlice(),
	}
	if p.Tunnel.Kind == VXLAN {
		outer.Protocol = layers.IPProtocolUDP
		put(fill, eth)
		put(gopacket.SerializeOptions{FixLengths: true}, // RFC 7348: the checksum should be zero
			&layers.UDP{SrcPort: layers.UDPPort(TunnelPort + flow%TunnelPorts), DstPort: layers.UDPPort(p.Tunnel.Port)},
			&layers.VXLAN{ValidIDFlag: true, VNI: p.Tunnel.VNI})
	}
	put(fill, &layers.Ethernet{SrcMAC: p.Tunnel.SrcMAC, DstMAC: p.Tunnel.DstMAC, EthernetType: layers.EthernetTypeIPv4}, outer)
	return b.Bytes()
}
