package testbed

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
)

// TestPlan checks that no two of the largest testbed share an address, and that
// the first pod and peer are what the constants say.
func TestPlan(t *testing.T) {
	all, err := peers(MaxPeers)
	if err != nil {
		t.Fatal(err)
	}
	macs, addrs, prefixes := make(map[string]bool), make(map[netip.Addr]bool), make(map[netip.Prefix]bool)
	prefixes[PodCIDR] = true
	addrs[NodeAddr], addrs[RouterAddr] = true, true
	for i, p := range all {
		onLink := netip.PrefixFrom(NodeAddr, UnderlayBits).Contains(p.Addr)
		switch {
		case macs[p.VTEP.String()] || addrs[p.Addr] || prefixes[p.CIDR]:
			t.Fatalf("peer %d shares something: %+v", i, p)
		case !ClusterCIDR.Contains(p.CIDR.Addr()) || p.CIDR != p.CIDR.Masked() || p.CIDR.Bits() != 24:
			t.Fatalf("peer %d has the pod CIDR %s", i, p.CIDR)
		case onLink != (i < peersOnLink) || !onLink && !farSubnet.Contains(p.Addr):
			t.Fatalf("peer %d has the address %s", i, p.Addr)
		}
		macs[p.VTEP.String()], addrs[p.Addr], prefixes[p.CIDR] = true, true, true
	}
	if p := all[0]; p.Addr != PeerAddr || p.CIDR != PeerCIDR || p.Pod() != PeerPod || p.Name != PeerName {
		t.Errorf("the first peer is %+v", p)
	}
	nodes, err := pods(MaxPods)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range nodes {
		if macs[p.MAC.String()] || addrs[p.Addr] || !PodCIDR.Contains(p.Addr) {
			t.Fatalf("pod %d: %+v", i, p)
		}
		macs[p.MAC.String()], addrs[p.Addr] = true, true
	}
	if p := nodes[0]; p.Addr != PodAddr || p.MAC.String() != PodMAC.String() || p.Device != PodDevice || p.Host != HostDevice {
		t.Errorf("the first pod is %+v", p)
	}
	for _, o := range []Options{{Pods: MaxPods + 1}, {Peers: MaxPeers + 1}} {
		if b, err := New(context.Background(), o); err == nil {
			t.Errorf("%+v: accepted: %v", o, b.Close())
		}
	}
}

// TestBedOfMany builds a testbed with pods and with peers behind the router.
func TestBedOfMany(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	b, err := New(context.Background(), Options{Pods: 3, Peers: peersOnLink + 2, Wire: MTUWire})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := b.ConnectPods(PodMTUIPIP); err != nil {
		t.Fatal(err)
	}
	seen := make(map[int]bool)
	for i, p := range b.Pods {
		host, err := b.Node.Link(p.Host)
		if err != nil || host.MTU != PodMTUIPIP || p.Ifindex == 0 || seen[p.Ifindex] {
			t.Errorf("pod %d is %+v, its host end has MTU %d: %v", i, p, host.MTU, err)
		}
		seen[p.Ifindex] = true
	}
	for _, p := range []Peer{b.Peers[0], b.Peers[peersOnLink], b.Peers[peersOnLink+1]} {
		if mac := b.nextHop(t, p.Addr); mac != WireMAC.String() {
			t.Errorf("peer %s is behind %q", p.Addr, mac)
		}
	}
}

// nextHop is the MAC that the node's kernel has for the way to an address.
func (b *Bed) nextHop(t *testing.T, addr netip.Addr) (mac string) {
	t.Helper()
	err := b.Node.Do(func() error {
		routes, err := netlink.RouteGet(addr.AsSlice())
		if err != nil {
			return err
		}
		via := net.IP(addr.AsSlice())
		if routes[0].Gw != nil {
			via = routes[0].Gw
		}
		neighbours, err := netlink.NeighList(routes[0].LinkIndex, netlink.FAMILY_V4)
		for _, n := range neighbours {
			if n.IP.Equal(via) {
				mac = n.HardwareAddr.String()
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return mac
}
