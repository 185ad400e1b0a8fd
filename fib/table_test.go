package fib

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"culvert/internal/packet"
)

var (
	addr   = netip.MustParseAddr
	prefix = netip.MustParsePrefix
)

func TestGenerationChangesWithContentOnly(t *testing.T) {
	table := NewTable()
	last := table.Commit()
	if last.Gen() != 1 {
		t.Errorf("first generation %d, want 1", last.Gen())
	}
	var id AdjID
	vxlan := Adjacency{Kind: KindVXLAN, MTU: 1450, Via: addr("192.168.0.42"), Peer: 0xc0a8002a}
	mac := packet.MAC{1, 2, 3, 4, 5, 6}
	step := func(name string, changes bool, f func()) {
		t.Helper()
		f()
		s := table.Commit()
		if changed := s != last; changed != changes {
			t.Errorf("%s: published %v, want %v", name, changed, changes)
		}
		if changes && s.Gen() != last.Gen()+1 {
			t.Errorf("%s: generation %d after %d", name, s.Gen(), last.Gen())
		}
		last = s
	}
	route := func() {
		if err := table.SetRoute(Route{prefix("10.1.2.0/24"), id, "culvert"}); err != nil {
			t.Error(err)
		}
	}
	step("nothing", false, func() {})
	step("AddAdjacency", true, func() { id = table.AddAdjacency(vxlan) })
	step("UpdateAdjacency to the same", false, func() { table.UpdateAdjacency(id, vxlan) })
	step("UpdateAdjacency", true, func() { vxlan.Ready = true; table.UpdateAdjacency(id, vxlan) })
	step("SetRoute", true, route)
	step("SetRoute again", false, route)
	step("DeleteRoute of nothing", false, func() { table.DeleteRoute(prefix("10.1.0.0/16")) })
	step("SetFDB", true, func() { table.SetFDB(FDBEntry{VNI: 1, MAC: mac, Dst: addr("192.168.0.42")}) })
	step("SetFDB again", false, func() { table.SetFDB(FDBEntry{VNI: 1, MAC: mac, Dst: addr("192.168.0.42")}) })
	step("DeleteFDB of nothing", false, func() { table.DeleteFDB(2, mac) })
	step("SetNeighbour", true, func() { table.SetNeighbour(Neighbour{addr("192.168.0.42"), mac, "eth0", "REACHABLE"}) })
	step("SetNeighbour again", false, func() { table.SetNeighbour(Neighbour{addr("192.168.0.42"), mac, "eth0", "REACHABLE"}) })
	step("DeleteNeighbour of nothing", false, func() { table.DeleteNeighbour(addr("192.168.0.42"), "eth1") })
	node := Node{Addr4: packet.AddrFrom4(1), VTEPs: []LocalVTEP{{VNI: 1}}}
	step("SetNode", true, func() { table.SetNode(node) })
	step("SetNode again", false, func() { table.SetNode(node) })
	node.VTEPs[0].VNI = 2
	if last.Node().VTEPs[0].VNI != 1 {
		t.Error("SetNode kept the caller's slice")
	}
	step("SetNode with another VTEP", true, func() { table.SetNode(node) })
	step("DeleteRoute", true, func() { table.DeleteRoute(prefix("10.1.2.0/24")) })
	step("DeleteFDB", true, func() { table.DeleteFDB(1, mac) })
	step("DeleteNeighbour", true, func() { table.DeleteNeighbour(addr("192.168.0.42"), "eth0") })
	step("RemoveAdjacency", true, func() { table.RemoveAdjacency(id) })
	table.last.gen = 1<<32 - 1
	if table.SetFDB(FDBEntry{}); table.Commit().Gen() != 1 {
		t.Error("generation 0 after the wrap")
	}
}

func TestAdjacencyLivesAsLongAsItsRoutes(t *testing.T) {
	table := NewTable()
	pod := Adjacency{Kind: KindPod, Port: 7}
	id := table.AddAdjacency(pod)
	if err := table.SetRoute(Route{Prefix: prefix("10.1.0.5/32"), Adj: id}); err != nil {
		t.Fatal(err)
	}
	before := table.Commit()
	if !table.RemoveAdjacency(id) || table.RemoveAdjacency(id) {
		t.Error("RemoveAdjacency should succeed once")
	}
	if table.UpdateAdjacency(id, pod) {
		t.Error("a removed adjacency was updated")
	}
	if err := table.SetRoute(Route{Prefix: prefix("10.1.0.6/32"), Adj: id}); err == nil {
		t.Error("a new route to a removed adjacency was accepted")
	}
	if _, adj, ok := table.Commit().Lookup(packet.AddrFrom(addr("10.1.0.5"))); !ok || adj.Port != 7 {
		t.Error("the route lost its adjacency")
	}
	table.DeleteRoute(prefix("10.1.0.5/32"))
	if table.Commit().Adjacency(id) != nil {
		t.Error("the adjacency outlived its last route")
	}
	if before.Adjacency(id) == nil {
		t.Error("an old snapshot changed")
	}
	if err := table.SetRoute(Route{Prefix: prefix("10.1.0.5/32")}); err == nil {
		t.Error("a route to adjacency 0 was accepted")
	}
	if err := table.SetRoute(Route{Adj: table.AddAdjacency(pod)}); err == nil {
		t.Error("a route without a prefix was accepted")
	}
}

func TestAdjacencyIDsAreNeverReused(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	table := NewTable()
	given := map[AdjID]bool{0: true}
	live := map[AdjID]uint32{}
	for n := range uint32(20000) {
		id := table.AddAdjacency(Adjacency{VNI: n})
		if given[id] {
			t.Fatalf("identifier %#x was given twice", id)
		}
		given[id], live[id] = true, n
		for len(live) > 100 {
			for victim := range live {
				table.RemoveAdjacency(victim)
				delete(live, victim)
				break
			}
		}
		if r.IntN(100) != 0 {
			continue
		}
		s := table.Commit()
		for id := range given {
			n, want := live[id]
			if adj := s.Adjacency(id); (adj != nil) != want || want && adj.VNI != n {
				t.Fatalf("Adjacency(%#x) = %v, want %v", id, adj, want)
			}
		}
	}
	if n := len(table.adjs.slots); n > 400 {
		t.Errorf("%d slots for 100 adjacencies", n)
	}
}

func TestSlotIsRetiredWhenItsIdentifiersAreUsedUp(t *testing.T) {
	var table adjTable
	table.add(new(adjacent))
	id := makeAdjID(0, maxUses)
	table.slots[0].use = maxUses
	table.view[0].at[0].id = id
	table.release(id, table.slot(id))
	if len(table.free) != 0 || table.view.at(id) != nil {
		t.Error("the slot can be used again")
	}
}

func TestPeers(t *testing.T) {
	table := NewTable()
	peer := packet.AddrFrom(addr("192.168.0.42"))
	is := func(want bool) {
		t.Helper()
		if table.Commit().IsPeer(peer) != want {
			t.Errorf("IsPeer = %v, want %v", !want, want)
		}
	}
	is(false)
	direct := table.AddAdjacency(Adjacency{Kind: KindDirect, Via: peer.Netip()})
	is(false)
	a := table.AddAdjacency(Adjacency{Kind: KindVXLAN, Via: peer.Netip(), VNI: 1})
	b := table.AddAdjacency(Adjacency{Kind: KindIPIP, Via: peer.Netip()})
	is(true)
	table.RemoveAdjacency(a)
	is(true)
	table.UpdateAdjacency(b, Adjacency{Kind: KindIPIP, Via: addr("192.168.0.43")})
	is(false)
	table.UpdateAdjacency(direct, Adjacency{Kind: KindVXLAN, Via: addr("::ffff:192.168.0.42")})
	is(true)
}

func TestPrefixesAreMadeCanonical(t *testing.T) {
	table := NewTable()
	id := table.AddAdjacency(Adjacency{Kind: KindLocal})
	for _, p := range []string{"10.1.2.3/24", "::ffff:10.1.2.9/120"} {
		if err := table.SetRoute(Route{Prefix: netip.MustParsePrefix(p), Adj: id}); err != nil {
			t.Fatal(err)
		}
	}
	s := table.Commit()
	if got := slices.Collect(s.Routes()); len(got) != 1 || got[0].Prefix != prefix("10.1.2.0/24") {
		t.Errorf("routes %v, want 10.1.2.0/24", got)
	}
	if _, ok := s.Route(prefix("10.1.2.77/24")); !ok {
		t.Error("Route does not find a prefix with host bits")
	}
}

func TestFDBAndNeighbours(t *testing.T) {
	table := NewTable()
	mac := func(n byte) packet.MAC { return packet.MAC{2, 0, 0, 0, 0, n} }
	entries := []FDBEntry{
		{1, mac(1), addr("192.168.0.1"), "self permanent"},
		{1, mac(2), addr("192.168.0.2"), "self permanent"},
		{4096, mac(1), addr("fd00::1"), "self permanent"},
		{1<<24 - 1, mac(1), addr("192.168.0.3"), ""},
	}
	neighbours := []Neighbour{
		{addr("192.168.0.1"), mac(1), "eth0", "REACHABLE"},
		{addr("fe80::1"), mac(2), "eth0", "STALE"},
		{addr("fe80::1"), mac(3), "eth1", "PERMANENT"},
	}
	for i := range entries {
		table.SetFDB(entries[len(entries)-1-i])
	}
	for i := range neighbours {
		table.SetNeighbour(neighbours[len(neighbours)-1-i])
	}
	table.SetNeighbour(Neighbour{Dev: "eth0"})
	s := table.Commit()
	if got := slices.Collect(s.FDB()); !slices.Equal(got, entries) {
		t.Errorf("FDB() = %v, want %v", got, entries)
	}
	if got := slices.Collect(s.Neighbours()); !slices.Equal(got, neighbours) {
		t.Errorf("Neighbours() = %v, want %v", got, neighbours)
	}
	if e, ok := s.FDBEntry(4096, mac(1)); !ok || e != entries[2] {
		t.Errorf("FDBEntry = %v, %v", e, ok)
	}
	if n, ok := s.Neighbour(addr("fe80::1"), "eth1"); !ok || n != neighbours[2] {
		t.Errorf("Neighbour = %v, %v", n, ok)
	}
	if !table.DeleteNeighbour(addr("fe80::1%eth0"), "eth0") || table.DeleteNeighbour(netip.Addr{}, "eth0") {
		t.Error("DeleteNeighbour")
	}
	table.SetNeighbour(Neighbour{addr("fe80::1"), mac(9), "eth1", "STALE"})
	if got := slices.Collect(s.Neighbours()); !slices.Equal(got, neighbours) {
		t.Errorf("an old snapshot changed: %v", got)
	}
	if n, ok := table.Commit().Neighbour(addr("fe80::1"), "eth1"); !ok || n.MAC != mac(9) {
		t.Errorf("Neighbour = %v, %v", n, ok)
	}
	if _, ok := table.Commit().Neighbour(addr("fe80::1"), "eth0"); ok {
		t.Error("the deleted neighbour is there")
	}
}

func TestKindNames(t *testing.T) {
	want := []string{"none", "pod", "vxlan", "ipip", "direct", "local", "blackhole", "reject", "unknown"}
	for k, name := range want {
		if got := Kind(k).String(); got != name {
			t.Errorf("Kind(%d) = %q, want %q", k, got, name)
		}
	}
}

// A peer that is reached without a tunnel is known by its own address, not by the next
// hop's, and is told from those with a tunnel.
func TestDirectPeers(t *testing.T) {
	table := NewTable()
	one, two, gateway := packet.AddrFrom(addr("192.168.0.42")), packet.AddrFrom(addr("192.168.0.43")), packet.AddrFrom(addr("192.168.0.254"))
	pod := packet.AddrFrom(addr("10.244.2.9"))
	direct := func(to packet.Addr) Adjacency {
		return Adjacency{Kind: KindDirect, Ready: true, Via: gateway.Netip(), Remote: to.Netip(), Peer: to.Fold()}
	}
	check := func(what string, isOne, isTwo, directOne, via bool) {
		t.Helper()
		s := table.Commit()
		if s.IsPeer(one) != isOne || s.IsPeer(two) != isTwo || s.IsDirectPeer(one) != directOne || s.IsPeer(gateway) || s.ViaDirect(&pod) != via {
			t.Errorf("%s: IsPeer %v and %v, IsDirectPeer %v, the gateway is one: %v, ViaDirect %v", what,
				s.IsPeer(one), s.IsPeer(two), s.IsDirectPeer(one), s.IsPeer(gateway), s.ViaDirect(&pod))
		}
	}
	id := table.AddAdjacency(direct(one))
	if err := table.SetRoute(Route{Prefix: netip.MustParsePrefix("10.244.2.0/24"), Adj: id}); err != nil {
		t.Fatal(err)
	}
	check("added", true, false, true, true)
	if s := table.Commit(); !s.Holds(&pod) || s.Holds(&one) {
		t.Error("Holds is not about routes")
	}
	table.UpdateAdjacency(id, direct(two))
	check("of another peer behind the same gateway", false, true, false, true)
	table.UpdateAdjacency(id, Adjacency{Kind: KindVXLAN, Ready: true, Via: one.Netip(), Peer: one.Fold(), VNI: 1})
	check("in a tunnel", true, false, false, false)
	table.UpdateAdjacency(id, direct(one))
	check("without it again", true, false, true, true)
	table.RemoveAdjacency(id)
	check("removed, while its route stays", false, false, false, true)
	table.DeleteRoute(netip.MustParsePrefix("10.244.2.0/24"))
	check("gone", false, false, false, false)
}
