package program

import (
	"net/netip"
	"testing"

	"culvert/ctrl/flavour"
	"culvert/ctrl/underlay"
	"culvert/encap"
	"culvert/internal/packet"
)

// Over an underlay of one family there are addresses of both: the node's own, which
// its errors come from, and the peers' tunnel addresses.
func TestBothFamiliesOverOne(t *testing.T) {
	for _, c := range []struct{ local, peer, addr4, addr6 string }{
		{"192.168.0.1", "192.168.0.2", "192.168.0.1", "fd44:0:0:1::"},
		{"fd50::1", "fd50::2", "10.244.1.0", "fd50::1"},
	} {
		hop := resolved(c.peer)
		p, _ := newTest(network{addr(c.peer): []underlay.NextHop{hop[0]}})
		d := desired(peer("n2", c.peer, "10.244.2.0/24"))
		d.Local.PublicIP = addr(c.local)
		d.Local.PodCIDRs = []netip.Prefix{prefix("10.244.1.0/24"), prefix("fd44:0:0:1::/64")}
		d.Peers[0].PodCIDRs = append(d.Peers[0].PodCIDRs, prefix("fd44:0:0:2::/64"))
		p.SetDesired(d)
		s := p.Snapshot()
		if n := s.Node(); n.Addr4.String() != c.addr4 || n.Addr6.String() != c.addr6 {
			t.Errorf("the node has %s and %s, want %s and %s", n.Addr4, n.Addr6, c.addr4, c.addr6)
		}
		for _, own := range []string{c.local, "10.244.1.0", "fd44:0:0:1::"} {
			if r, _, ok := s.Lookup(packet.AddrFrom(addr(own))); !ok || r.Protocol != protoKernel {
				t.Errorf("%s is reached by %+v", own, r)
			}
		}
		most := 1500 - encap.OverheadVXLAN4
		if addr(c.local).Is6() {
			most = 1500 - encap.OverheadVXLAN6
		}
		for _, far := range []string{"10.244.2.7", "fd44:0:0:2::7"} {
			if _, adj, ok := s.Lookup(packet.AddrFrom(addr(far))); !ok || !adj.Ready || adj.Via != addr(c.peer) || int(adj.MTU) != most {
				t.Errorf("%s is reached by %+v", far, adj)
			}
		}
		got := map[netip.Addr]packet.MAC{}
		for n := range s.Neighbours() {
			got[n.Addr] = n.MAC
		}
		if mac := flavour.VTEPMAC("n2"); len(got) != 2 || got[addr("10.244.2.0")] != mac || got[addr("fd44:0:0:2::")] != mac {
			t.Errorf("neighbours %v", got)
		}
	}
}
