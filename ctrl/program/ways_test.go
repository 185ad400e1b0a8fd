package program

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"culvert/ctrl/flavour"
	"culvert/ctrl/underlay"
	"culvert/fib"
	"culvert/internal/packet"
)

// over is the way to a peer over an uplink, eth0 with index 7 or eth1 with 8.
func over(dev string, via string, weight int) underlay.NextHop {
	nh := resolved(via)[0]
	nh.Dev, nh.Weight = dev, weight
	if dev == "eth1" {
		nh.Ifindex, nh.SrcMAC = 8, packet.MAC{2, 0, 0, 0, 1, 1}
	}
	nh.MAC[5] = netip.MustParseAddr(via).As4()[3]
	return nh
}

// shares are the ways of the group that holds an address: "port N buckets B".
func shares(s *fib.Snapshot, a string) (out []string) {
	r, _, _ := s.Lookup(packet.AddrFrom(addr(a)))
	for _, m := range s.Members(r.Adj) {
		out = append(out, fmt.Sprintf("port %d dev %s mtu %d to %s: %d", m.Port, m.Dev, m.MTU, packet.Ethernet(m.Rewrite.Bytes[:]).Dst(), m.Buckets))
	}
	return out
}

func TestSeveralWaysToAPeer(t *testing.T) {
	n := network{}
	p, r := newTest(n)
	p.SetUplink(Uplink{Ifindex: 8, Name: "eth1", Port: 4})
	peerA := addr("192.168.0.2")
	n[peerA] = []underlay.NextHop{over("eth0", "10.77.0.2", 3), over("eth1", "10.78.0.3", 1)}
	p.SetDesired(desired(peer("n2", "192.168.0.2", "10.244.2.0/24")))
	both := []string{"port 3 dev eth0 mtu 1450 to 02:00:00:00:00:02: 192", "port 4 dev eth1 mtu 1450 to 02:00:00:00:00:03: 64"}
	if got := shares(p.Snapshot(), "10.244.2.1"); !slices.Equal(got, both) {
		t.Errorf("ways %q, want %q", got, both)
	}
	_, adj, _ := p.Snapshot().Lookup(packet.AddrFrom(addr("10.244.2.1")))
	if adj.Kind != fib.KindVXLAN || !adj.Ready || adj.Via != peerA || !p.Snapshot().IsPeer(packet.AddrFrom(peerA)) {
		t.Errorf("the first way is %+v", adj)
	}

	// One next hop does not answer: the other one takes all.
	n[peerA][0].Resolved = false
	p.UnderlayChanged()
	s := p.Snapshot()
	if _, adj, _ = s.Lookup(packet.AddrFrom(addr("10.244.2.1"))); adj.Port != 4 || !adj.Ready || shares(s, "10.244.2.1") != nil {
		t.Errorf("the way left is %+v", adj)
	}
	// Nor does the other: the peer is not ready.
	n[peerA][1].Resolved = false
	p.UnderlayChanged()
	if _, adj, _ = p.Snapshot().Lookup(packet.AddrFrom(addr("10.244.2.1"))); adj.Ready || p.peers["n2"] == "" {
		t.Errorf("without a next hop that answers: %+v, %q", adj, p.peers["n2"])
	}
	n[peerA][0].Resolved, n[peerA][1].Resolved = true, true
	p.UnderlayChanged()
	if got := shares(p.Snapshot(), "10.244.2.1"); !slices.Equal(got, both) || p.peers["n2"] != "" {
		t.Errorf("ways %q again, want %q", got, both)
	}

	// Another weight moves what it must and no more.
	before := bucketsOf(p.Snapshot())
	n[peerA][1].Weight = 3
	p.UnderlayChanged()
	moved := 0
	for b, id := range bucketsOf(p.Snapshot()) {
		if before[b] != id {
			moved++
		}
	}
	if moved < 180 || moved > 330 { // 64 of 256 buckets
		t.Errorf("%d of 1000 flows moved, want a quarter", moved)
	}

	p.SetDesired(desired())
	s = p.Snapshot()
	if _, _, ok := s.Lookup(packet.AddrFrom(addr("10.244.2.1"))); ok || len(p.hopIDs) != 0 || len(p.adjIDs) != 2 || s.IsPeer(packet.AddrFrom(peerA)) {
		t.Errorf("left behind: next hops %v, adjacencies %v", p.hopIDs, p.adjIDs)
	}
	count := len(r.snaps)
	p.UnderlayChanged()
	if len(r.snaps) != count {
		t.Error("a snapshot was published for no change")
	}
}

// bucketsOf are the members that a thousand flows are sent to.
func bucketsOf(s *fib.Snapshot) (all []fib.AdjID) {
	k := packet.Key{Dst: packet.AddrFrom(addr("10.244.2.1")), Family: 4, Proto: packet.ProtoUDP}
	for range 1000 {
		k.SrcPort++
		id, _ := s.FindFlow(&k)
		all = append(all, id)
	}
	return all
}

// fabric is a network of many peers behind a few gateways.
func fabric(n int, gateways ...underlay.NextHop) (network, *flavour.Desired) {
	net := network{}
	peers := make([]flavour.Peer, n)
	for i := range peers {
		ip := netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)})
		peers[i] = peer(fmt.Sprintf("n%d", i), ip.String(), fmt.Sprintf("10.%d.%d.0/24", 64+i>>8, i&255))
		net[ip] = gateways
	}
	return net, desired(peers...)
}

// A gateway's new MAC, and another gateway in its place, reach all peers behind
// it by one update: no adjacency is made and no route is touched.
func TestManyPeersBehindOneGateway(t *testing.T) {
	const n = 2000
	gw := over("eth0", "10.77.0.2", 1)
	net, d := fabric(n, gw)
	p, r := newTest(net)
	p.SetDesired(d)
	if len(p.hopIDs) != 1 {
		t.Fatalf("%d next hops for one gateway", len(p.hopIDs))
	}
	routes := slices.Collect(p.Snapshot().Routes())
	check := func(what string, mac packet.MAC, mtu uint16) {
		t.Helper()
		count := len(r.snaps)
		p.UnderlayChanged()
		s := p.Snapshot()
		if got := slices.Collect(s.Routes()); !slices.Equal(got, routes) {
			t.Errorf("%s: routes changed", what)
		}
		if len(p.hopIDs) != 1 || len(r.snaps) != count+1 {
			t.Errorf("%s: %d next hops, %d snapshots", what, len(p.hopIDs), len(r.snaps)-count)
		}
		for _, route := range routes {
			if adj := s.Adjacency(route.Adj); adj.Kind == fib.KindVXLAN && (packet.Ethernet(adj.Rewrite.Bytes[:]).Dst() != mac || !adj.Ready || adj.MTU != mtu) {
				t.Fatalf("%s: %s is %+v", what, route.Prefix, adj)
			}
		}
	}
	set := func(nh underlay.NextHop) {
		for ip := range net {
			net[ip] = []underlay.NextHop{nh}
		}
	}
	gw.MAC = packet.MAC{2, 0, 0, 0, 0, 77}
	set(gw)
	check("another MAC", gw.MAC, 1450)
	gw = over("eth0", "10.77.0.3", 1)
	set(gw)
	check("another gateway", gw.MAC, 1450)
	gw.MTU = 1400
	set(gw)
	check("another MTU", gw.MAC, 1350)
}

// Half of the peers go another way: they get a next hop of their own.
func TestNextHopIsSplitAndMerged(t *testing.T) {
	gw, other := over("eth0", "10.77.0.2", 1), over("eth0", "10.77.0.9", 1)
	net, d := fabric(10, gw)
	p, _ := newTest(net)
	p.SetDesired(d)
	to := func(a string) packet.MAC {
		_, adj, _ := p.Snapshot().Lookup(packet.AddrFrom(addr(a)))
		return packet.Ethernet(adj.Rewrite.Bytes[:]).Dst()
	}
	net[addr("172.16.0.3")] = []underlay.NextHop{other}
	p.UnderlayChanged()
	if to("10.64.3.1") != other.MAC || to("10.64.4.1") != gw.MAC || len(p.hopIDs) != 2 {
		t.Errorf("one peer goes to %s, another to %s, over %v", to("10.64.3.1"), to("10.64.4.1"), p.hopIDs)
	}
	for ip := range net {
		net[ip] = []underlay.NextHop{other}
	}
	p.UnderlayChanged()
	if to("10.64.3.1") != other.MAC || to("10.64.4.1") != other.MAC || len(p.hopIDs) != 1 {
		t.Errorf("one peer goes to %s, another to %s, over %v", to("10.64.3.1"), to("10.64.4.1"), p.hopIDs)
	}
}

// BenchmarkGatewayChange is what a gateway's new MAC costs from the underlay's
// event to the published tables, with 10,000 peers behind it.
func BenchmarkGatewayChange(b *testing.B) {
	gw := over("eth0", "10.77.0.2", 1)
	net, d := fabric(10_000, gw)
	p, _ := newTest(net)
	start := time.Now()
	p.SetDesired(d)
	b.ReportMetric(float64(time.Since(start).Milliseconds()), "first-ms")
	one := []underlay.NextHop{gw}
	for ip := range net {
		net[ip] = one
	}
	for i := 0; b.Loop(); i++ {
		one[0].MAC[4] = byte(i)
		p.UnderlayChanged()
	}
}
