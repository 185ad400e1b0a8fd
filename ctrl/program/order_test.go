package program

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"culvert/ctrl/flavour"
	"culvert/ctrl/underlay"
	"culvert/fib"
	"culvert/internal/packet"
)

// auditor is an engine that looks at every snapshot that workers would see: each
// tunnel ends where the tables say its VTEP is, and the addresses of may lead to
// one of the peers that may have them, never to another one and never nowhere.
type auditor struct {
	t     *testing.T
	name  string
	may   map[string][]string // by address, the underlay addresses of peers
	count int
}

func (a *auditor) Publish(s *fib.Snapshot) {
	a.count++
	for r := range s.Routes() {
		a.tunnel(s, r)
	}
	for dst, peers := range a.may {
		_, adj, ok := s.Lookup(packet.AddrFrom(addr(dst)))
		if !ok || !slices.Contains(peers, adj.Via.String()) {
			a.t.Errorf("%s: snapshot %d sends %s to %v (route: %t), want one of %v", a.name, s.Gen(), dst, adj, ok, peers)
		}
	}
}

// tunnel checks that the parts of a VXLAN route agree.
func (a *auditor) tunnel(s *fib.Snapshot, r fib.Route) {
	adj := s.Adjacency(r.Adj)
	if adj == nil {
		a.t.Errorf("%s: snapshot %d: %s leads to an adjacency that is not there", a.name, s.Gen(), r.Prefix)
		return
	}
	if adj.Kind != fib.KindVXLAN {
		return
	}
	if e, ok := s.FDBEntry(adj.VNI, adj.MAC); !ok || e.Dst != adj.Via {
		a.t.Errorf("%s: snapshot %d: %s goes to %s at %s, and the FDB says %+v (%t)", a.name, s.Gen(), r.Prefix, adj.MAC, adj.Via, e, ok)
	}
	if !adj.Ready {
		return
	}
	h := adj.Rewrite.Bytes[:adj.Rewrite.Len]
	if outer := netip.AddrFrom4([4]byte(h[30:34])); outer != adj.Via || packet.MAC(h[50:56]) != adj.MAC {
		a.t.Errorf("%s: snapshot %d: the header for %s goes to %s at %s, want %s at %s", a.name, s.Gen(), r.Prefix, packet.MAC(h[50:56]), outer, adj.MAC, adj.Via)
	}
}

// around is the underlay of all peers of these tests.
func around() network {
	net := network{}
	for i := range 30 {
		ip := netip.AddrFrom4([4]byte{192, 168, 0, byte(2 + i)})
		net[ip] = resolved(ip.String())
	}
	return net
}

// While peers change what they have, workers see the state of before or that of
// after, and nothing in between: one snapshot for each change.
func TestNothingIsMisdelivered(t *testing.T) {
	with := func(p flavour.Peer, ip string, mac byte, cidrs ...string) flavour.Peer {
		p.PublicIP, p.VTEPMAC[5] = addr(ip), mac
		for _, c := range cidrs {
			p.PodCIDRs = append(p.PodCIDRs, prefix(c))
		}
		return p
	}
	n2, n3 := peer("n2", "192.168.0.2", "10.244.2.0/24"), peer("n3", "192.168.0.3", "10.244.3.0/24")
	n4 := peer("n4", "192.168.0.4", "10.244.4.0/24") // which nothing happens to
	one, two := []string{"192.168.0.2"}, []string{"192.168.0.2", "192.168.0.3"}
	for _, c := range []struct {
		name   string
		states []*flavour.Desired
		may    map[string][]string
	}{
		{"a block moves to another node and back", []*flavour.Desired{
			desired(with(n2, "192.168.0.2", 2, "10.9.0.0/26"), n3, n4), desired(n2, with(n3, "192.168.0.3", 3, "10.9.0.0/26"), n4),
			desired(with(n2, "192.168.0.2", 2, "10.9.0.0/26"), n3, n4),
		}, map[string][]string{"10.9.0.5": two, "10.244.2.9": one}},
		{"a node's address and MAC change at once", []*flavour.Desired{
			desired(n2, n4), desired(with(n2, "192.168.0.9", 9), n4), desired(with(n2, "192.168.0.2", 7), n4),
		}, map[string][]string{"10.244.2.9": {"192.168.0.2", "192.168.0.9"}}},
		{"two nodes swap their pod CIDRs", []*flavour.Desired{
			desired(n2, n3, n4), desired(peer("n2", "192.168.0.2", "10.244.3.0/24"), peer("n3", "192.168.0.3", "10.244.2.0/24"), n4), desired(n2, n3, n4),
		}, map[string][]string{"10.244.2.9": two, "10.244.3.9": two}},
		{"two nodes swap their addresses", []*flavour.Desired{
			desired(n2, n3, n4), desired(with(n2, "192.168.0.3", 2), with(n3, "192.168.0.2", 3), n4), desired(n2, n3, n4),
		}, map[string][]string{"10.244.2.9": two, "10.244.3.9": two}},
		{"a node goes and its CIDR comes back on another", []*flavour.Desired{
			desired(n2, n4), desired(with(n3, "192.168.0.3", 3, "10.244.2.0/24"), n4), desired(n2, n4),
		}, map[string][]string{"10.244.2.9": two}},
	} {
		a := &auditor{t: t, name: c.name}
		p := New(slog.New(slog.DiscardHandler), a, around())
		p.SetUplink(Uplink{Ifindex: 7, Name: "eth0", Port: 3})
		p.SetDesired(c.states[0])
		a.may = c.may
		a.may["10.244.4.9"] = []string{"192.168.0.4"}
		for i, d := range c.states[1:] {
			before := a.count
			p.SetDesired(d)
			if a.count != before+1 {
				t.Errorf("%s: change %d was published in %d steps, want 1", c.name, i, a.count-before)
			}
		}
	}
}

// The parts of every tunnel agree in every snapshot of a random history.
func TestEverySnapshotIsConsistent(t *testing.T) {
	r := rand.New(rand.NewPCG(51, 52))
	a := &auditor{t: t, name: "random"}
	net := around()
	p := New(slog.New(slog.DiscardHandler), a, net)
	p.SetUplink(Uplink{Ifindex: 7, Name: "eth0", Port: 3})
	for range 500 {
		if r.IntN(4) == 0 {
			nh := net[netip.AddrFrom4([4]byte{192, 168, 0, byte(2 + r.IntN(30))})]
			nh[0].MAC[5], nh[0].Resolved = byte(r.IntN(4)), r.IntN(4) > 0
			p.UnderlayChanged()
			continue
		}
		p.SetDesired(anyDesired(r))
	}
	if a.count < 300 {
		t.Errorf("only %d snapshots", a.count)
	}
}

// asked counts what the underlay is asked: once for each peer whose rows are built.
type asked struct {
	network
	count int
}

func (a *asked) NextHops(dst netip.Addr) ([]underlay.NextHop, error) {
	a.count++
	return a.network.NextHops(dst)
}

// What a change costs goes by what changed and not by how many nodes there are: it is
// work that is counted, so that a busy machine does not matter.
func TestOneChangeIsOneNodesWork(t *testing.T) {
	const nodes = 5000
	net, d := fabric(nodes, over("eth0", "10.77.0.2", 1))
	u := &asked{network: net}
	r := &recorder{}
	p := New(slog.New(slog.DiscardHandler), r, u)
	p.SetUplink(Uplink{Ifindex: 7, Name: "eth0", Port: 3})
	p.SetDesired(d)
	if u.count != nodes {
		t.Errorf("the first set built the rows of %d peers, want %d", u.count, nodes)
	}
	change := func(f func(peers []flavour.Peer) []flavour.Peer) *flavour.Desired {
		next := *d
		next.Peers = f(slices.Clone(d.Peers))
		return &next
	}
	for _, c := range []struct {
		name         string
		to           *flavour.Desired
		built, moved int
	}{
		{"the same again", change(func(all []flavour.Peer) []flavour.Peer { return all }), 0, 0},
		{"another MAC", change(func(all []flavour.Peer) []flavour.Peer { all[9].VTEPMAC[5]++; return all }), 1, 1},
		{"a block more", change(func(all []flavour.Peer) []flavour.Peer {
			all[9].PodCIDRs = append(slices.Clone(all[9].PodCIDRs), prefix("100.64.0.0/26"))
			return all
		}), 1, 0},
		{"a node less", change(func(all []flavour.Peer) []flavour.Peer { return slices.Delete(all, 9, 10) }), 0, 1},
	} {
		p.SetDesired(d)
		before := p.Snapshot()
		u.count = 0
		p.SetDesired(c.to)
		if u.count != c.built {
			t.Errorf("%s: the rows of %d peers were built, want %d", c.name, u.count, c.built)
		}
		if got := moved(before, p.Snapshot(), p.adjIDs, d); got != c.moved {
			t.Errorf("%s: %d adjacencies were written, want %d", c.name, got, c.moved)
		}
	}
}

// moved is the number of peers whose adjacency is not the very object it was.
func moved(a, b *fib.Snapshot, ids map[string]fib.AdjID, d *flavour.Desired) (n int) {
	for i := range d.Peers {
		id := ids[fmt.Sprintf("peer %s", d.Peers[i].Key())]
		if id == 0 || a.Adjacency(id) != b.Adjacency(id) {
			n++
		}
	}
	return n
}
