package fib

import (
	"net/netip"
	"slices"

	"culvert/internal/packet"
)

// LocalVTEP is a tunnel endpoint of this node.
type LocalVTEP struct {
	Addr packet.Addr
	Port uint16 // UDP
	VNI  uint32
	MAC  packet.MAC
}

// Node is what the node itself is called: the addresses that ICMP errors come
// from, and its tunnel endpoints.
type Node struct {
	Addr4, Addr6 packet.Addr
	// Tunnel4 and Tunnel6 are its addresses in the overlay: the first ones of its
	// first pod prefixes.
	Tunnel4, Tunnel6 packet.Addr
	VTEPs            []LocalVTEP
	// IPIP is the address that IPIP packets for this node have; zero: none are
	// taken.
	IPIP packet.Addr
	// Routed: packets for the node's pods come without a tunnel, too.
	Routed bool
	// Networks are where all of the cluster's pods are: no route that leads outside
	// holds for them.
	Networks []netip.Prefix
	// NAT is how pods' packets leave the cluster.
	NAT NAT
	// Mappings are the ports of the node that lead to its pods, as SortMappings has them.
	Mappings []PortMapping
}

// NAT is source translation: of packets from Sources that leave the cluster, but for what
// goes to Exclude, to the node's own address and a port from Low to High. High is 0 where
// there is none.
type NAT struct {
	Sources, Exclude []netip.Prefix
	Low, High        uint16
}

// Holds reports whether packets from src to dst that leave the cluster are translated.
func (n *NAT) Holds(src, dst *packet.Addr) bool {
	return n.High != 0 && contains(n.Sources, src) && !contains(n.Exclude, dst)
}

// InNetworks reports whether a is where the cluster's pods are.
func (n *Node) InNetworks(a *packet.Addr) bool { return contains(n.Networks, a) }

func contains(all []netip.Prefix, a *packet.Addr) bool {
	ip := unmapped(a)
	return slices.ContainsFunc(all, func(p netip.Prefix) bool { return p.Contains(ip) })
}

func (n *Node) equal(o *Node) bool {
	return slices.Equal(n.Networks, o.Networks) && n.NAT.Low == o.NAT.Low && n.NAT.High == o.NAT.High &&
		slices.Equal(n.NAT.Sources, o.NAT.Sources) && slices.Equal(n.NAT.Exclude, o.NAT.Exclude) && n.IPIP == o.IPIP && n.Routed == o.Routed && n.Addr4 == o.Addr4 && n.Addr6 == o.Addr6 && n.Tunnel4 == o.Tunnel4 && n.Tunnel6 == o.Tunnel6 && slices.Equal(n.VTEPs, o.VTEPs) &&
		slices.Equal(n.Mappings, o.Mappings)
}

// Table is the writer's side: changes collect in it until Commit makes them a
// snapshot. One goroutine uses it. Make one with NewTable.
type Table struct {
	routes     persistent[routed]
	fast       compiler // of routes
	fdb        persistent[FDBEntry]
	neighbours persistent[[]Neighbour]
	peers      persistent[leading] // by underlay address
	adjs       adjTable
	hops       hopTable
	protocols  []string // only ever appended to
	node       *Node
	dirty      bool
	last       *Snapshot
}

// NewTable is an empty table. Its first Commit is an empty snapshot.
func NewTable() *Table {
	return &Table{
		routes:     newPersistent[routed](),
		fast:       newCompiler(),
		fdb:        newPersistent[FDBEntry](),
		neighbours: newPersistent[[]Neighbour](),
		peers:      newPersistent[leading](),
		node:       new(Node),
		dirty:      true,
	}
}

// Commit returns the tables as they are now. When nothing has changed since the
// last Commit that is the same snapshot, otherwise one of a new generation.
func (t *Table) Commit() *Snapshot {
	if !t.dirty {
		return t.last
	}
	gen := uint32(1)
	if t.last != nil {
		gen = t.last.gen + 1
		if gen == 0 {
			gen = 1
		}
	}
	t.last = &Snapshot{
		gen:        gen,
		fast:       t.fast.freeze(t.routes.t),
		routes:     t.routes.freeze(),
		fdb:        t.fdb.freeze(),
		neighbours: t.neighbours.freeze(),
		peers:      t.peers.freeze(),
		adjs:       t.adjs.freeze(),
		protocols:  t.protocols,
		node:       t.node,
	}
	t.dirty = false
	return t.last
}

// SetNode replaces the node's own addresses. n is copied.
func (t *Table) SetNode(n Node) {
	if t.node.equal(&n) {
		return
	}
	n.VTEPs = slices.Clone(n.VTEPs)
	t.node, t.dirty = &n, true
}

// AddAdjacency stores a and returns the identifier by which routes cite it; 0
// when there are a million already, or a's next hop does not exist.
func (t *Table) AddAdjacency(a Adjacency) AdjID {
	given := a
	if !t.hops.fill(&a) {
		return 0
	}
	id := t.adjs.add(&adjacent{Adjacency: a})
	if id != 0 {
		t.dirty = true
		t.countPeer(&a, 1)
		t.depend(id, &given)
	}
	return id
}

// UpdateAdjacency replaces what id stands for, for all its routes at once. It
// reports whether there are such an adjacency and a's next hop.
func (t *Table) UpdateAdjacency(id AdjID, a Adjacency) bool {
	s := t.adjs.slot(id)
	given := a
	if s == nil || s.removed || t.adjs.view.entry(id).group != nil || !t.hops.fill(&a) {
		return false
	}
	t.undepend(id)
	t.depend(id, &given)
	t.replace(id, &a)
	return true
}

// replace puts a in the place of what id stands for, unless it is the same.
func (t *Table) replace(id AdjID, a *Adjacency) {
	old := t.adjs.view.at(id)
	if *old == *a {
		return
	}
	t.dirty = true
	if old.remote() != a.remote() || old.Kind != a.Kind {
		t.countPeer(a, 1)
		t.countPeer(old, -1)
	}
	t.adjs.store(id.slot(), &adjacent{id: id, Adjacency: *a})
}

// RemoveAdjacency lets go of an adjacency or a group: no new route may cite it,
// and it goes when the last route or group that does is gone. It reports whether
// there was one of that identifier.
func (t *Table) RemoveAdjacency(id AdjID) bool {
	s := t.adjs.slot(id)
	if s == nil || s.removed {
		return false
	}
	t.dirty = true
	if e := t.adjs.view.entry(id); e.group == nil {
		t.countPeer(&e.Adjacency, -1)
	}
	s.removed = true
	t.reap(id)
	return true
}

// uncite ends what cite counted.
func (t *Table) uncite(id AdjID) {
	t.adjs.slots[id.slot()].cited--
	t.reap(id)
}

// reap ends an adjacency or a group that is removed and that nothing cites any
// more, and with a group its hold on the members.
func (t *Table) reap(id AdjID) {
	s := &t.adjs.slots[id.slot()]
	if !s.removed || s.cited != 0 {
		return
	}
	g := t.adjs.view.entry(id).group
	t.undepend(id)
	t.adjs.release(id, s)
	if g != nil {
		for _, m := range g.members {
			t.uncite(m.Adj)
		}
	}
}
