package fib

import (
	"iter"
	"net/netip"

	"github.com/gaissmai/bart"

	"culvert/internal/packet"
)

// Snapshot is the state of all tables at one Commit. It never changes: any
// goroutine may use it, for as long as it likes.
type Snapshot struct {
	fast       matcher
	routes     *bart.Table[routed]
	adjs       adjView
	protocols  []string
	node       *Node
	gen        uint32
	fdb        *bart.Table[FDBEntry]
	neighbours *bart.Table[[]Neighbour]
	peers      *bart.Table[leading]
}

// unmapped is a as bart wants it: IPv4 as such.
func unmapped(a *packet.Addr) netip.Addr {
	if a.Is4() {
		return netip.AddrFrom4([4]byte(a[12:]))
	}
	return netip.AddrFrom16(*a)
}

// Gen is the snapshot's generation: 1 or more, and another one than that of the
// snapshots before.
func (s *Snapshot) Gen() uint32 { return s.gen }

// Find is the adjacency of the longest prefix that holds a, of a group the
// first member's. It is Lookup for the packet path, without the prefix.
func (s *Snapshot) Find(a *packet.Addr) (AdjID, *Adjacency) {
	id := s.match(a)
	if id == 0 {
		return 0, nil
	}
	e := s.adjs.entry(id)
	if e.group != nil {
		return s.member(e.group.members[0].Adj)
	}
	return id, &e.Adjacency
}

// FindFlow is Find for a packet of a flow: of a group the member whose bucket
// the flow is in, the same for both directions of the flow.
func (s *Snapshot) FindFlow(k *packet.Key) (AdjID, *Adjacency) {
	id := s.match(&k.Dst)
	if id == 0 {
		return 0, nil
	}
	e := s.adjs.entry(id)
	if e.group != nil {
		return s.member(e.group.buckets[bucketOf(k)])
	}
	return id, &e.Adjacency
}

func (s *Snapshot) member(id AdjID) (AdjID, *Adjacency) { return id, &s.adjs.entry(id).Adjacency }

// ViaPeer reports whether the route to a leads, over any member of a group, to
// the tunnel endpoint whose packet.Addr.Fold is peer.
func (s *Snapshot) ViaPeer(a *packet.Addr, peer uint32) bool {
	id := s.match(a)
	if id == 0 {
		return false
	}
	e := s.adjs.entry(id)
	if e.group == nil {
		return e.Peer == peer
	}
	for _, m := range e.group.members {
		if s.adjs.entry(m.Adj).Peer == peer {
			return true
		}
	}
	return false
}

// Holds reports whether a is an address of the cluster: whether the route that holds
// it does not lead outside.
func (s *Snapshot) Holds(a *packet.Addr) bool {
	_, adj := s.Find(a)
	return adj != nil && !adj.Outside
}

// ViaDirect reports whether the route to a leads to a peer without a tunnel.
func (s *Snapshot) ViaDirect(a *packet.Addr) bool {
	id := s.match(a)
	if id == 0 {
		return false
	}
	e := s.adjs.entry(id)
	if e.group != nil { // whose members differ in the next hop alone
		e = s.adjs.entry(e.group.members[0].Adj)
	}
	return e.Kind == KindDirect && e.Peer != 0
}

// Lookup is the route of the longest prefix that holds a, and its adjacency, of
// a group the first member's. With ok the adjacency is never nil.
func (s *Snapshot) Lookup(a packet.Addr) (r Route, adj *Adjacency, ok bool) {
	ip := unmapped(&a)
	v, ok := s.routes.Lookup(ip)
	if !ok {
		return Route{}, nil, false
	}
	pfx, _ := ip.Prefix(int(v.bits))
	return Route{pfx, v.adj, s.protocols[v.proto]}, s.adjs.at(v.adj), true
}

// Adjacency is what id stands for in this snapshot, nil if it is not in it. For
// a group it is the first member: a flow's verdict names a member, never a group.
func (s *Snapshot) Adjacency(id AdjID) *Adjacency { return s.adjs.at(id) }

// Node is the node's own addresses. They must not be changed.
func (s *Snapshot) Node() *Node { return s.node }

// Route is the route of exactly that prefix.
func (s *Snapshot) Route(p netip.Prefix) (Route, bool) {
	pfx, err := canonical(p)
	if err != nil {
		return Route{}, false
	}
	v, ok := s.routes.Get(pfx)
	if !ok {
		return Route{}, false
	}
	return Route{pfx, v.adj, s.protocols[v.proto]}, true
}

// RouteCount is the number of routes.
func (s *Snapshot) RouteCount() int { return s.routes.Size() }

// Routes yields all routes, IPv4 first, in the order of their prefixes.
func (s *Snapshot) Routes() iter.Seq[Route] {
	return func(yield func(Route) bool) {
		for pfx, v := range s.routes.AllSorted() {
			if !yield(Route{pfx, v.adj, s.protocols[v.proto]}) {
				return
			}
		}
	}
}
