package fib

import (
	"fmt"
	"testing"

	"culvert/encap"
	"culvert/internal/packet"
)

// tunnel is an adjacency to the n-th peer that leans on a next hop.
func tunnel(t testing.TB, n int, hop HopID) Adjacency {
	t.Helper()
	peer := packet.AddrFrom4(0xc0a80000 + uint32(n))
	tmpl, err := encap.VXLAN(encap.VXLANParams{
		Src: packet.AddrFrom4(0x0a4d0001), Dst: peer, DstPort: 4789, VNI: 1, InnerSrc: packet.MAC{2, 1}, InnerDst: packet.MAC{2, 2},
	})
	if err != nil {
		t.Fatal(err)
	}
	return Adjacency{Kind: KindVXLAN, Ready: true, MTU: 1450, Hop: hop, Rewrite: tmpl, Via: peer.Netip(), Peer: peer.Fold()}
}

var gatewayA = NextHop{Ready: true, Port: 3, Dev: "eth0", MTU: 1500, SrcMAC: packet.MAC{2, 0, 0, 0, 0, 1}, MAC: packet.MAC{2, 0, 0, 0, 0, 2}}

func wantHop(t *testing.T, a *Adjacency, h NextHop, mtu uint16) {
	t.Helper()
	eth := packet.Ethernet(a.Rewrite.Bytes[:])
	if a.Ready != h.Ready || a.Port != h.Port || a.Dev != h.Dev || a.MTU != mtu || eth.Dst() != h.MAC || eth.Src() != h.SrcMAC {
		t.Errorf("%s > %s port %d dev %s mtu %d ready %v, want %+v and mtu %d", eth.Src(), eth.Dst(), a.Port, a.Dev, a.MTU, a.Ready, h, mtu)
	}
}

func TestAdjacenciesFollowTheirNextHop(t *testing.T) {
	table := NewTable()
	h, other := table.AddHop(gatewayA), table.AddHop(NextHop{Port: 9, MTU: 1500})
	a, b := table.AddAdjacency(tunnel(t, 1, h)), table.AddAdjacency(tunnel(t, 2, h))
	free := tunnel(t, 3, 0)
	c := table.AddAdjacency(free)
	down := tunnel(t, 4, h)
	down.Ready = false // for a reason of its own
	d := table.AddAdjacency(down)
	first := table.Commit()
	wantHop(t, first.Adjacency(a), gatewayA, 1450)

	changed := gatewayA
	changed.MAC, changed.MTU = packet.MAC{2, 0, 0, 0, 0, 7}, 1400
	if !table.UpdateHop(h, changed) {
		t.Fatal("the next hop is not there")
	}
	s := table.Commit()
	wantHop(t, s.Adjacency(a), changed, 1350)
	wantHop(t, s.Adjacency(b), changed, 1350)
	if *s.Adjacency(c) != free || s.Adjacency(d).Ready {
		t.Error("an adjacency took what is not its own")
	}
	wantHop(t, first.Adjacency(a), gatewayA, 1450) // a snapshot never changes
	if s.Adjacency(a).Peer != first.Adjacency(a).Peer {
		t.Error("the peer is lost")
	}
	if table.UpdateHop(h, changed); table.Commit() != s {
		t.Error("the same next hop is a change")
	}

	changed.Ready = false
	table.UpdateHop(h, changed)
	if table.Commit().Adjacency(a).Ready {
		t.Error("ready without the next hop's address")
	}
	table.UpdateHop(h, gatewayA) // what the adjacencies asked for is not forgotten
	s = table.Commit()
	wantHop(t, s.Adjacency(b), gatewayA, 1450)
	if s.Adjacency(d).Ready {
		t.Error("the one that is not ready has become so")
	}
	if !table.UpdateAdjacency(a, tunnel(t, 1, h)) || table.Commit() != s {
		t.Error("an update to the same is a change")
	}

	table.UpdateAdjacency(a, tunnel(t, 1, other))
	if adj := table.Commit().Adjacency(a); adj.Port != 9 || adj.Ready {
		t.Errorf("on another next hop: %+v", adj)
	}
	if table.RemoveHop(h) || table.RemoveHop(0) || table.UpdateHop(99, gatewayA) {
		t.Error("a next hop in use was removed, or one that is not there found")
	}
	table.RemoveAdjacency(b)
	table.RemoveAdjacency(d)
	if !table.RemoveHop(h) || table.RemoveHop(h) {
		t.Error("RemoveHop should succeed once")
	}
	before := table.Commit()
	if table.AddAdjacency(tunnel(t, 5, h)) != 0 || table.UpdateAdjacency(a, tunnel(t, 1, h)) || table.Commit() != before {
		t.Error("an adjacency leans on a next hop that is gone")
	}
	if again := table.AddHop(gatewayA); again != h {
		t.Errorf("the free identifier %d is not used again: %d", h, again)
	}
}

// manyPeers are n tunnels behind one gateway, with a route each.
func manyPeers(t testing.TB, n int) (*Table, HopID, []AdjID) {
	table := NewTable()
	h := table.AddHop(gatewayA)
	ids := make([]AdjID, n)
	for i := range ids {
		ids[i] = table.AddAdjacency(tunnel(t, i, h))
		if err := table.SetRoute(Route{Prefix: prefix(fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255)), Adj: ids[i]}); err != nil {
			t.Fatal(err)
		}
	}
	return table, h, ids
}

func TestOneUpdateReachesAllPeers(t *testing.T) {
	const n = 10000
	table, h, ids := manyPeers(t, n)
	old := table.Commit()
	to := gatewayA
	to.MAC[5] = 99
	table.UpdateHop(h, to)
	s := table.Commit()
	for _, id := range ids {
		wantHop(t, s.Adjacency(id), to, 1450)
		wantHop(t, old.Adjacency(id), gatewayA, 1450)
	}
}

// BenchmarkUpdateHop is a gateway's new MAC, published to its 10,000 peers.
func BenchmarkUpdateHop(b *testing.B) {
	for _, n := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprintf("peers=%d", n), func(b *testing.B) {
			table, h, _ := manyPeers(b, n)
			table.Commit()
			to := gatewayA
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				to.MAC[5] = byte(i)
				table.UpdateHop(h, to)
				table.Commit()
			}
		})
	}
}
