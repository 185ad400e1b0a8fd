package fib

import (
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
	VTEPs        []LocalVTEP
}

func (n *Node) equal(o *Node) bool {
	return n.Addr4 == o.Addr4 && n.Addr6 == o.Addr6 && slices.Equal(n.VTEPs, o.VTEPs)
}

// Table is the writer's side: changes collect in it until Commit makes them a
// snapshot. One goroutine uses it. Make one with NewTable.
type Table struct {
	routes     persistent[routed]
	fdb        persistent[FDBEntry]
	neighbours persistent[[]Neighbour]
	peers      persistent[uint32] // how many tunnel adjacencies lead to the address
	adjs       adjTable
	protocols  []string // only ever appended to
	node       *Node
	dirty      bool
	last       *Snapshot
}

// NewTable is an empty table. Its first Commit is an empty snapshot.
func NewTable() *Table {
	return &Table{
		routes:     newPersistent[routed](),
		fdb:        newPersistent[FDBEntry](),
		neighbours: newPersistent[[]Neighbour](),
		peers:      newPersistent[uint32](),
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
		routes:     t.routes.freeze(),
		fdb:        t.fdb.freeze(),
		neighbours: t.neighbours.freeze(),
		peers:      t.peers.freeze(),
		adjs:       t.adjs.view,
		protocols:  t.protocols,
		node:       t.node,
	}
	t.adjs.owned = false
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
// when there are a million already.
func (t *Table) AddAdjacency(a Adjacency) AdjID {
	id := t.adjs.add(a)
	if id != 0 {
		t.dirty = true
		t.countPeer(&a, 1)
	}
	return id
}

// UpdateAdjacency replaces what id stands for, for all its routes at once. It
// reports whether there is such an adjacency.
func (t *Table) UpdateAdjacency(id AdjID, a Adjacency) bool {
	if s := t.adjs.slot(id); s == nil || s.removed {
		return false
	}
	old := t.adjs.view.at(id)
	if *old == a {
		return true
	}
	t.dirty = true
	t.countPeer(&a, 1)
	t.countPeer(old, -1)
	t.adjs.store(id.slot(), &adjacent{id, a})
	return true
}

// RemoveAdjacency lets go of id: no new route may cite it, and it goes when the
// last route that does is gone. It reports whether there was such an adjacency.
func (t *Table) RemoveAdjacency(id AdjID) bool {
	s := t.adjs.slot(id)
	if s == nil || s.removed {
		return false
	}
	t.dirty = true
	t.countPeer(t.adjs.view.at(id), -1)
	s.removed = true
	t.adjs.reap(id, s)
	return true
}
