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
	routes     *bart.Table[routed]
	adjs       adjView
	protocols  []string
	node       *Node
	gen        uint32
	fdb        *bart.Table[FDBEntry]
	neighbours *bart.Table[[]Neighbour]
	peers      *bart.Table[uint32]
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

// Find is the adjacency of the longest prefix that holds a. It is Lookup for
// the packet path, without the prefix.
func (s *Snapshot) Find(a *packet.Addr) (AdjID, *Adjacency) {
	v, ok := s.routes.Lookup(unmapped(a))
	if !ok {
		return 0, nil
	}
	return v.adj, s.adjs.at(v.adj)
}

// Lookup is the route of the longest prefix that holds a, and its adjacency.
// With ok the adjacency is never nil.
func (s *Snapshot) Lookup(a packet.Addr) (r Route, adj *Adjacency, ok bool) {
	ip := unmapped(&a)
	v, ok := s.routes.Lookup(ip)
	if !ok {
		return Route{}, nil, false
	}
	pfx, _ := ip.Prefix(int(v.bits))
	return Route{pfx, v.adj, s.protocols[v.proto]}, s.adjs.at(v.adj), true
}

// Adjacency is what id stands for in this snapshot, nil if it is not in it.
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
