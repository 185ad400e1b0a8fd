package agent

import (
	"net/netip"
	"testing"

	"culvert/ctrl/flavour"
	"culvert/ctrl/outer"
)

// What is about tunnel packets is heard at each address that they have.
func TestEveryTunnelAddressIsHeard(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	one := func(a netip.Addr, ipip bool) outer.Local { return outer.Local{Addr: a, Port: 4789, VNI: 7, IPIP: ipip} }
	ipip := []flavour.Peer{{Name: "a", Encap: flavour.VXLAN}, {Name: "b", Encap: flavour.IPIP}}
	for _, c := range []struct {
		name  string
		local *flavour.Node
		peers []flavour.Peer
		want  [2]outer.Local
	}{
		{"nobody yet", nil, nil, [2]outer.Local{}},
		{"no address", &flavour.Node{}, nil, [2]outer.Local{}},
		{"IPv4", &flavour.Node{PublicIP: v4}, nil, [2]outer.Local{one(v4, false)}},
		{"IPv6", &flavour.Node{PublicIP: v6}, nil, [2]outer.Local{1: one(v6, false)}},
		{"both", &flavour.Node{PublicIP: v4, V6: &flavour.Endpoint{PublicIP: v6}}, nil, [2]outer.Local{one(v4, false), one(v6, false)}},
		{"both, with IPIP", &flavour.Node{PublicIP: v4, V6: &flavour.Endpoint{PublicIP: v6}}, ipip, [2]outer.Local{one(v4, true), one(v6, false)}},
	} {
		if got := audible(&flavour.Desired{Port: 4789, VNI: 7, Local: c.local, Peers: c.peers}); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}
