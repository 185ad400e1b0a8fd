package program

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"culvert/ctrl/flavour"
	"culvert/ctrl/underlay"
	"culvert/fib"
	"culvert/internal/packet"
)

// A node that is reached in several ways, over both families: each prefix goes its
// own, and the VTEPs of both are known.
func TestNodeThatIsReachedInSeveralWays(t *testing.T) {
	six := []underlay.NextHop{{Dev: "eth0", Ifindex: 7, Via: addr("fe80::2"), MTU: 1500, Resolved: true, SrcMAC: packet.MAC{2, 0, 0, 0, 0, 1}, MAC: packet.MAC{2, 0, 0, 0, 0, 6}, Weight: 1}}
	p, _ := newTest(network{addr("192.168.0.2"): resolved("192.168.0.2"), addr("2001:db8::2"): six})
	mac4, mac6 := flavour.VTEPMAC("n2"), flavour.VTEPMAC("n2-v6")
	way := func(way, ip, encap string, tunnel string, mac packet.MAC, cidrs ...string) flavour.Peer {
		q := flavour.Peer{Name: "n2", Way: way, PublicIP: addr(ip), Encap: encap, VTEPMAC: mac}
		if tunnel != "" {
			q.TunnelIP = addr(tunnel)
		}
		for _, c := range cidrs {
			q.PodCIDRs = append(q.PodCIDRs, prefix(c))
		}
		return q
	}
	d := &flavour.Desired{Mode: "calico", Encap: flavour.VXLAN, VNI: 4096, Port: 4789, Also: []string{flavour.IPIP}, Peers: []flavour.Peer{
		way("", "192.168.0.2", flavour.VXLAN, "10.244.2.0", mac4, "10.244.2.0/26", "10.244.1.7/32"),
		way("direct", "192.168.0.2", flavour.None, "", packet.MAC{}, "10.99.2.0/26"),
		way("ipip", "192.168.0.2", flavour.IPIP, "", packet.MAC{}, "10.98.2.0/26"),
		way("ipv6", "2001:db8::2", flavour.VXLAN, "fd00::2:0", mac6, "fd00::2:0/122"),
	}, Local: &flavour.Node{
		Name: "n1", PublicIP: addr("192.168.0.1"), TunnelIP: addr("10.244.1.3"), VTEPMAC: flavour.VTEPMAC("n1"), Blocks: true,
		PodCIDRs: []netip.Prefix{prefix("10.244.1.0/26"), prefix("fd00::1:0/122")},
		V6:       &flavour.Endpoint{PublicIP: addr("2001:db8::1"), TunnelIP: addr("fd00::1:5"), VTEPMAC: flavour.VTEPMAC("n1-v6")},
		HostIPs:  []netip.Addr{addr("10.98.1.1")},
	}}
	p.SetDesired(d)
	s := p.Snapshot()
	for dst, want := range map[string]string{
		"10.244.2.9":  "10.244.2.0/26 vxlan via 192.168.0.2 mac " + mac4.String() + " ready true",
		"10.244.1.7":  "10.244.1.7/32 vxlan via 192.168.0.2 mac " + mac4.String() + " ready true", // lent to it
		"10.244.1.8":  "10.244.1.0/26 blackhole via invalid IP mac 00:00:00:00:00:00 ready true",
		"10.99.2.9":   "10.99.2.0/26 direct via 192.168.0.2 mac 00:00:00:00:00:00 ready true",
		"10.98.2.9":   "10.98.2.0/26 ipip via 192.168.0.2 mac 00:00:00:00:00:00 ready true",
		"fd00::2:9":   "fd00::2:0/122 vxlan via 2001:db8::2 mac " + mac6.String() + " ready true",
		"10.244.1.3":  "10.244.1.3/32 local via invalid IP mac 00:00:00:00:00:00 ready true",
		"fd00::1:5":   "fd00::1:5/128 local via invalid IP mac 00:00:00:00:00:00 ready true",
		"10.98.1.1":   "10.98.1.1/32 local via invalid IP mac 00:00:00:00:00:00 ready true",
		"2001:db8::1": "2001:db8::1/128 local via invalid IP mac 00:00:00:00:00:00 ready true",
		"fd00::1:9":   "fd00::1:0/122 blackhole via invalid IP mac 00:00:00:00:00:00 ready true",
	} {
		r, adj, _ := s.Lookup(packet.AddrFrom(addr(dst)))
		if got := fmt.Sprintf("%s %s via %v mac %v ready %t", r.Prefix, adj.Kind, adj.Via, adj.MAC, adj.Ready); got != want {
			t.Errorf("%s: %s, want %s", dst, got, want)
		}
	}
	var fdb, neigh []string
	for e := range s.FDB() {
		fdb = append(fdb, fmt.Sprintf("%s dst %s", e.MAC, e.Dst))
	}
	for n := range s.Neighbours() {
		neigh = append(neigh, fmt.Sprintf("%s lladdr %s", n.Addr, n.MAC))
	}
	slices.Sort(fdb)
	slices.Sort(neigh)
	wantFDB := []string{mac4.String() + " dst 192.168.0.2", mac6.String() + " dst 2001:db8::2"}
	slices.Sort(wantFDB)
	if !slices.Equal(fdb, wantFDB) || !slices.Equal(neigh, []string{"10.244.2.0 lladdr " + mac4.String(), "fd00::2:0 lladdr " + mac6.String()}) {
		t.Errorf("FDB %q, neighbours %q", fdb, neigh)
	}
	node := s.Node()
	want := fib.Node{
		Addr4: packet.AddrFrom(addr("192.168.0.1")), Addr6: packet.AddrFrom(addr("2001:db8::1")),
		Tunnel4: packet.AddrFrom(addr("10.244.1.3")), Tunnel6: packet.AddrFrom(addr("fd00::1:5")),
		VTEPs: []fib.LocalVTEP{
			{Addr: packet.AddrFrom(addr("192.168.0.1")), Port: 4789, VNI: 4096, MAC: flavour.VTEPMAC("n1")},
			{Addr: packet.AddrFrom(addr("2001:db8::1")), Port: 4789, VNI: 4096, MAC: flavour.VTEPMAC("n1-v6")},
		},
		IPIP: packet.AddrFrom(addr("192.168.0.1")), Routed: true,
	}
	if fmt.Sprint(*node) != fmt.Sprint(want) {
		t.Errorf("the node is\n%+v, want\n%+v", *node, want)
	}

	// One way goes, the others stay.
	fewer := *d
	fewer.Peers = slices.Clone(d.Peers[:1])
	p.SetDesired(&fewer)
	if _, _, ok := p.Snapshot().Lookup(packet.AddrFrom(addr("10.99.2.9"))); ok {
		t.Error("a prefix of a way that is gone is left behind")
	}
	if _, adj, _ := p.Snapshot().Lookup(packet.AddrFrom(addr("10.244.2.9"))); adj.Kind != fib.KindVXLAN || !adj.Ready {
		t.Errorf("what stays is %+v", adj)
	}
}
