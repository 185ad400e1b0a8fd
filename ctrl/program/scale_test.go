package program

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"culvert/ctrl/flavour"
	"culvert/ctrl/underlay"
	"culvert/internal/packet"
)

// After any sequence of changes the tables are those of a programmer that was given
// the last state at once.
func TestChangesAddUp(t *testing.T) {
	r := rand.New(rand.NewPCG(31, 32))
	net, gateways := network{}, []underlay.NextHop{over("eth0", "10.77.0.2", 1), over("eth0", "10.77.0.3", 2)}
	for i := range 20 {
		ip := netip.AddrFrom4([4]byte{192, 168, 0, byte(2 + i)})
		net[ip] = resolved(ip.String())
		if i%3 == 0 {
			net[ip] = gateways
		}
	}
	p, _ := newTest(net)
	pods := map[string]Pod{}
	for range 400 {
		switch r.IntN(8) {
		case 0:
			dev := fmt.Sprintf("cv%d", r.IntN(4))
			p.RemovePod(dev)
			delete(pods, dev)
		case 1:
			pod := Pod{Dev: fmt.Sprintf("cv%d", r.IntN(4)), Port: uint16(9 + r.IntN(3)), MTU: 1450,
				Addrs: []netip.Addr{addr(fmt.Sprintf("10.244.1.%d", 4+r.IntN(3)))}}
			if p.AddPod(pod) == nil {
				pods[pod.Dev] = pod
			}
		case 2:
			ip := netip.AddrFrom4([4]byte{192, 168, 0, byte(2 + r.IntN(20))})
			for i := range net[ip] {
				net[ip][i].Resolved = r.IntN(3) > 0
				net[ip][i].MAC[5] = byte(r.IntN(3))
			}
			p.UnderlayChanged()
		default:
			p.SetDesired(anyDesired(r))
		}
		fresh, _ := newTest(net)
		fresh.SetDesired(p.Desired())
		for _, pod := range pods {
			if err := fresh.AddPod(pod); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := lines(p.Snapshot()), lines(fresh.Snapshot()); !slices.Equal(got, want) {
			t.Fatalf("tables:\n%q\nwant:\n%q", got, want)
		}
		if len(p.adjIDs) != len(fresh.adjIDs) || len(p.hopIDs) != len(fresh.hopIDs) || len(p.hopUsers) != len(p.hopIDs) {
			t.Fatalf("%d adjacencies, %d next hops, %d with users, want %d and %d", len(p.adjIDs), len(p.hopIDs), len(p.hopUsers), len(fresh.adjIDs), len(fresh.hopIDs))
		}
		if d := p.Repair(); d.Any() {
			t.Fatalf("drift: %+v", d)
		}
	}
}

// anyDesired is a state in which peers come, go, and swap what they have; an address of
// a pod of this node may be another node's, too.
func anyDesired(r *rand.Rand) *flavour.Desired {
	var peers []flavour.Peer
	blocks := r.Perm(8)
	for i := range 8 {
		if r.IntN(4) == 0 {
			continue
		}
		p := peer(fmt.Sprintf("n%d", i), fmt.Sprintf("192.168.0.%d", 2+r.IntN(20)), fmt.Sprintf("10.244.%d.0/24", 2+blocks[i]))
		if r.IntN(4) == 0 {
			p.PodCIDRs = append(p.PodCIDRs, prefix(fmt.Sprintf("10.244.1.%d/32", 4+i)))
		}
		if r.IntN(4) == 0 {
			p.VTEPMAC = packet.MAC{0x66, byte(i), byte(r.IntN(2))}
		}
		peers = append(peers, p)
	}
	d := desired(peers...)
	switch r.IntN(8) {
	case 0:
		d.Local = nil
	case 1:
		d.VNI = 7
	}
	return d
}

// What is not as it ought to be is found and mended.
func TestDriftIsRepaired(t *testing.T) {
	net := network{addr("192.168.0.2"): resolved("192.168.0.2"), addr("192.168.0.3"): resolved("192.168.0.3")}
	p, r := newTest(net)
	p.SetDesired(desired(peer("n2", "192.168.0.2", "10.244.2.0/24"), peer("n3", "192.168.0.3", "10.244.3.0/24")))
	good := lines(p.Snapshot())
	adj := *p.last.Adjacency(p.adjIDs["peer n2"])
	for _, c := range []struct {
		name   string
		damage func()
		want   Drift
	}{
		{"a route is gone", func() { p.table.DeleteRoute(prefix("10.244.2.0/24")) }, Drift{Routes: 1}},
		{"an FDB entry is gone", func() { p.table.DeleteFDB(4096, flavour.VTEPMAC("n3")) }, Drift{FDB: 1}},
		{"a neighbour is gone", func() { p.table.DeleteNeighbour(addr("10.244.3.0"), vxlanDev) }, Drift{Neighbours: 1}},
		{"a route leads elsewhere", func() {
			rt, _ := p.last.Route(prefix("10.244.2.0/24"))
			rt.Adj = p.adjIDs["peer n3"]
			if err := p.table.SetRoute(rt); err != nil {
				t.Fatal(err)
			}
		}, Drift{Routes: 1}},
		{"a route too many", func() {
			rt, _ := p.last.Route(prefix("10.244.2.0/24"))
			rt.Prefix = prefix("10.9.0.0/16")
			if err := p.table.SetRoute(rt); err != nil {
				t.Fatal(err)
			}
		}, Drift{Routes: 1}},
		{"an adjacency is another", func() {
			other := adj
			other.MTU = 99
			p.table.UpdateAdjacency(p.adjIDs["peer n2"], other)
		}, Drift{Adjacencies: 1}},
	} {
		c.damage()
		p.last = p.table.Commit()
		if got := p.Repair(); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
		if got := lines(p.Snapshot()); !slices.Equal(got, good) || *p.last.Adjacency(p.adjIDs["peer n2"]) != adj || r.snaps[len(r.snaps)-1] != p.last {
			t.Errorf("%s: not mended: %q", c.name, got)
		}
	}
}

// BenchmarkNodeChange is one node's new address and MAC among 5,000 with three
// prefixes each, from the desired state to the published tables.
func BenchmarkNodeChange(b *testing.B) {
	net, d := fabric(5000, over("eth0", "10.77.0.2", 1))
	for i := range d.Peers {
		for k := range 2 {
			d.Peers[i].PodCIDRs = append(d.Peers[i].PodCIDRs, netip.PrefixFrom(netip.AddrFrom4([4]byte{100, byte(64 + k), byte(i >> 8), byte(i)}), 32))
		}
	}
	p, r := newTest(net)
	p.SetDesired(d)
	for i := 0; b.Loop(); i++ {
		next := *d
		next.Peers = slices.Clone(d.Peers)
		one := &next.Peers[1+i%4000]
		one.VTEPMAC[5]++
		one.PublicIP = next.Peers[4500+i%400].PublicIP
		r.snaps = r.snaps[:0]
		p.SetDesired(&next)
	}
}
