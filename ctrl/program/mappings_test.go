package program

import (
	"net/netip"
	"testing"

	"culvert/ctrl/flavour"
	"culvert/internal/packet"
)

// Ports of the node lead to its pods, for the addresses and families that are asked for,
// as long as there are node, address and pod.
func TestMappings(t *testing.T) {
	p, _ := newTest(network{})
	pod := Pod{Dev: "cvaa", Port: 9, Addrs: []netip.Addr{addr("10.244.1.5"), addr("fd00::5")}, MTU: 1450, Ports: []PortMapping{
		{Proto: packet.ProtoTCP, Port: 8080, ToPort: 80},
		{Proto: packet.ProtoUDP, Port: 53, ToPort: 5353, Addr: addr("0.0.0.0")},
		{Proto: packet.ProtoUDP, Port: 53, ToPort: 5354, Addr: addr("::")},
		{Proto: packet.ProtoSCTP, Port: 7, ToPort: 7, Addr: addr("fd50::1")},
		{Proto: packet.ProtoTCP, Port: 9, ToPort: 9, Addr: addr("192.168.0.77")},
	}}
	if err := p.AddPod(pod); err != nil {
		t.Fatal(err)
	}
	if err := p.AddPod(Pod{Dev: "cvbb", Port: 10, Addrs: []netip.Addr{addr("10.244.1.6")}, MTU: 1450, Ports: []PortMapping{
		{Proto: packet.ProtoTCP, Port: 80, ToPort: 80}, {Proto: packet.ProtoTCP, Port: 65535, ToPort: 1},
	}}); err != nil {
		t.Fatal(err)
	}
	leads := func(proto uint8, to string) string {
		ap := netip.MustParseAddrPort(to)
		k := packet.Key{Proto: proto, Dst: packet.AddrFrom(ap.Addr()), DstPort: ap.Port()}
		m := p.Snapshot().Node().Mapping(&k)
		if m == nil {
			return "nowhere"
		}
		return netip.AddrPortFrom(m.To.Netip(), m.ToPort).String()
	}
	want := func(ways map[string]string) {
		t.Helper()
		for name, proto := range map[string]uint8{"tcp ": packet.ProtoTCP, "udp ": packet.ProtoUDP, "sctp ": packet.ProtoSCTP} {
			for _, to := range []string{"192.168.0.1:8080", "[fd50::1]:8080", "192.168.0.1:53", "[fd50::1]:53", "[fd50::1]:7", "192.168.0.1:7",
				"192.168.0.77:9", "192.168.0.1:9", "192.168.0.1:80", "[fd50::1]:80", "192.168.0.1:65535", "10.244.1.5:8080"} {
				expected := ways[name+to]
				if expected == "" {
					expected = "nowhere"
				}
				if got := leads(proto, to); got != expected {
					t.Errorf("%s%s leads to %s, want %s", name, to, got, expected)
				}
			}
		}
	}
	want(nil) // the node's address is not known yet
	d := desired()
	d.Local.V6 = &flavour.Endpoint{PublicIP: addr("fd50::1"), VTEPMAC: flavour.VTEPMAC("n1")}
	p.SetDesired(d)
	want(map[string]string{
		"tcp 192.168.0.1:8080": "10.244.1.5:80", "tcp [fd50::1]:8080": "[fd00::5]:80",
		"udp 192.168.0.1:53": "10.244.1.5:5353", "udp [fd50::1]:53": "[fd00::5]:5354",
		"sctp [fd50::1]:7":   "[fd00::5]:7",
		"tcp 192.168.0.1:80": "10.244.1.6:80", "tcp 192.168.0.1:65535": "10.244.1.6:1",
	})
	p.RemovePod("cvaa")
	want(map[string]string{"tcp 192.168.0.1:80": "10.244.1.6:80", "tcp 192.168.0.1:65535": "10.244.1.6:1"})
	p.RemovePod("cvbb")
	want(nil)
}
