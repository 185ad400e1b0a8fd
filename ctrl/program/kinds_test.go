package program

import (
	"net/netip"
	"slices"
	"testing"

	"culvert/ctrl/flavour"
	"culvert/fib"
	"culvert/internal/packet"
)

// reached is desired with one peer that is reached that way.
func reached(encap, by string, cidrs ...string) *flavour.Desired {
	d := desired(peer("n2", "192.168.0.2", "10.244.2.0/24"))
	d.Encap, d.Peers[0].Encap = encap, by
	for _, c := range cidrs {
		d.Peers[0].PodCIDRs = append(d.Peers[0].PodCIDRs, prefix(c))
	}
	return d
}

// The rows of each way to reach a peer: a route, and only with VXLAN an FDB entry and a
// neighbour; what the node takes from the wire; and how it changes in place.
func TestKindsOfPeers(t *testing.T) {
	gateway := resolved("192.168.0.254")
	gateway[0].MTU = 1400
	p, _ := newTest(network{addr("192.168.0.2"): gateway})
	own := []string{
		"route 10.244.1.0/24 blackhole via invalid IP ready true proto culvert",
		"route 10.244.1.0/32 local via invalid IP ready true proto kernel",
	}
	host := "route 192.168.0.1/32 local via invalid IP ready true proto kernel"
	mac := flavour.VTEPMAC("n2").String()
	overlay := []string{"fdb " + mac + " dst 192.168.0.2 self permanent", "neigh 10.244.2.0 lladdr " + mac + " PERMANENT"}
	self := packet.AddrFrom(addr("192.168.0.1"))
	for _, c := range []struct {
		name      string
		d         *flavour.Desired
		route     string
		mtu       uint16
		header    uint8
		overlay   []string
		node      fib.Node
		direct    bool
		vteps     int
		unlabeled bool
	}{
		{"vxlan", reached("vxlan", "vxlan"), "vxlan via 192.168.0.2", 1350, 64, overlay, fib.Node{}, false, 1, false},
		{"ipip", reached("ipip", "ipip"), "ipip via 192.168.0.2", 1380, 34, nil, fib.Node{IPIP: self}, false, 0, true},
		{"none", reached("none", "none"), "direct via 192.168.0.254", 1400, 14, nil, fib.Node{Routed: true}, true, 0, true},
		{"vxlan, near", reached("vxlan", "none"), "direct via 192.168.0.254", 1400, 14, nil, fib.Node{Routed: true}, true, 1, true},
		{"ipip, near", reached("ipip", "none"), "direct via 192.168.0.254", 1400, 14, nil, fib.Node{IPIP: self, Routed: true}, true, 0, true},
		{"vxlan again", reached("vxlan", "vxlan"), "vxlan via 192.168.0.2", 1350, 64, overlay, fib.Node{}, false, 1, false},
	} {
		p.SetDesired(c.d)
		s := p.Snapshot()
		want(t, s, slices.Concat(own, []string{"route 10.244.2.0/24 " + c.route + " ready true proto culvert", host}, c.overlay)...)
		_, adj, _ := s.Lookup(packet.AddrFrom(addr("10.244.2.9")))
		if adj.MTU != c.mtu || adj.Rewrite.Len != c.header || adj.MAC.IsZero() != c.unlabeled || (adj.VNI == 0) != c.unlabeled || adj.Port != 3 || adj.Dev != "eth0" {
			t.Errorf("%s: mtu %d, %d bytes of headers: %+v", c.name, adj.MTU, adj.Rewrite.Len, adj)
		}
		if dst := packet.Ethernet(adj.Rewrite.Bytes[:]).Dst(); dst != gateway[0].MAC {
			t.Errorf("%s: frames go to %s, want the next hop", c.name, dst)
		}
		if n := s.Node(); n.IPIP != c.node.IPIP || n.Routed != c.node.Routed || len(n.VTEPs) != c.vteps {
			t.Errorf("%s: the node takes %+v", c.name, n)
		}
		remote, pod := packet.AddrFrom(addr("192.168.0.2")), packet.AddrFrom(addr("10.244.2.9"))
		if !s.IsPeer(remote) || s.IsDirectPeer(remote) != c.direct || s.ViaDirect(&pod) != c.direct || !s.ViaPeer(&pod, remote.Fold()) {
			t.Errorf("%s: the peer is not taken for what it is", c.name)
		}
	}
}

// Without a tunnel the frames of both families go to the one next hop.
func TestDirectOfBothFamilies(t *testing.T) {
	p, _ := newTest(network{addr("192.168.0.2"): resolved("192.168.0.2")})
	p.SetDesired(reached("none", "none", "fd44:0:0:2::/64"))
	for _, a := range []netip.Addr{addr("10.244.2.9"), addr("fd44:0:0:2::9")} {
		if _, adj, ok := p.Snapshot().Lookup(packet.AddrFrom(a)); !ok || adj.Kind != fib.KindDirect || !adj.Ready || adj.MTU != 1500 {
			t.Errorf("%s is reached by %+v", a, adj)
		}
	}
}

// A routed peer that the underlay does not reach has its routes, not ready, with no
// next hop to name; several ways to it are a group.
func TestDirectWays(t *testing.T) {
	n := network{}
	p, _ := newTest(n)
	p.SetUplink(Uplink{Ifindex: 8, Name: "eth1", Port: 4})
	p.SetDesired(reached("none", "none"))
	pod := packet.AddrFrom(addr("10.244.2.9"))
	if _, adj, ok := p.Snapshot().Lookup(pod); !ok || adj.Ready || adj.Via.IsValid() || adj.Kind != fib.KindDirect {
		t.Errorf("out of reach: %+v", adj)
	}
	n[addr("192.168.0.2")] = append(n[addr("192.168.0.2")], over("eth0", "192.168.0.254", 1), over("eth1", "192.168.0.253", 1))
	p.UnderlayChanged()
	s := p.Snapshot()
	if got := shares(s, "10.244.2.9"); len(got) != 2 {
		t.Errorf("the ways %v", got)
	}
	if !s.ViaDirect(&pod) || !s.IsDirectPeer(packet.AddrFrom(addr("192.168.0.2"))) {
		t.Error("over several ways it is no routed peer")
	}
}
