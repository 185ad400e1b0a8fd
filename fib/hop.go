package fib

import (
	"net/netip"
	"slices"

	"culvert/internal/packet"
)

// HopID names an underlay next hop. 0 names none. It may be given again after
// RemoveHop.
type HopID uint32

// NextHop is how packets reach a gateway or a peer on the underlay's link. Any
// number of adjacencies lean on one: when the underlay's neighbour or route
// changes, UpdateHop changes them all. That is done when the tables are written,
// so that a packet still finds everything in the adjacency itself: an update
// costs time and memory by the number of adjacencies, a packet nothing.
type NextHop struct {
	// Ready says that MAC is known.
	Ready bool
	// Port is the index of the egress port and Dev the device's name.
	Port uint16
	Dev  string
	// MTU is the largest packet of the link in bytes, outer headers included.
	MTU uint16
	// SrcMAC is the device's address, MAC the next hop's.
	SrcMAC, MAC packet.MAC
	// Gateway is the next hop's IP address.
	Gateway netip.Addr
}

// hopTable is the writer's next hops. Readers never see them.
type hopTable struct {
	all  []hop // by HopID, from 1 on
	free []HopID
}

type hop struct {
	NextHop
	live bool
	deps []uint32 // slots of the adjacencies that lean on it
}

func (t *hopTable) get(id HopID) *hop {
	if id == 0 || int(id) > len(t.all) || !t.all[id-1].live {
		return nil
	}
	return &t.all[id-1]
}

// fill puts the next hop's part into a. It reports false if a names one that
// does not exist.
func (t *hopTable) fill(a *Adjacency) bool {
	if a.Hop == 0 {
		return true
	}
	h := t.get(a.Hop)
	if h == nil {
		return false
	}
	a.Port, a.Dev, a.Gateway, a.Ready = h.Port, h.Dev, h.Gateway, a.Ready && h.Ready
	a.MTU = uint16(min(int(a.MTU), max(0, int(h.MTU)-a.Rewrite.Overhead())))
	if a.Rewrite.Len != 0 {
		eth := packet.Ethernet(a.Rewrite.Bytes[:])
		eth.SetDst(h.MAC)
		eth.SetSrc(h.SrcMAC)
	}
	return true
}

// AddHop stores a next hop for adjacencies to lean on.
func (t *Table) AddHop(h NextHop) HopID {
	if n := len(t.hops.free); n > 0 {
		id := t.hops.free[n-1]
		t.hops.free = t.hops.free[:n-1]
		t.hops.all[id-1] = hop{NextHop: h, live: true}
		return id
	}
	t.hops.all = append(t.hops.all, hop{NextHop: h, live: true})
	return HopID(len(t.hops.all))
}

// UpdateHop replaces a next hop and with it the part of it in all adjacencies
// that lean on it. It reports whether there is such a next hop.
func (t *Table) UpdateHop(id HopID, to NextHop) bool {
	h := t.hops.get(id)
	if h == nil {
		return false
	}
	if h.NextHop == to {
		return true
	}
	h.NextHop = to
	for _, n := range h.deps {
		s := &t.adjs.slots[n]
		id := makeAdjID(n, s.use)
		a := *t.adjs.view.at(id)
		a.MTU, a.Ready = s.mtu, s.ready
		t.hops.fill(&a)
		t.replace(id, &a)
	}
	return true
}

// RemoveHop forgets a next hop. It reports false, and does nothing, if there is
// none of that name or an adjacency leans on it.
func (t *Table) RemoveHop(id HopID) bool {
	h := t.hops.get(id)
	if h == nil || len(h.deps) > 0 {
		return false
	}
	*h = hop{}
	t.hops.free = append(t.hops.free, id)
	return true
}

// depend notes the next hop of an adjacency, and how the adjacency was given.
func (t *Table) depend(id AdjID, given *Adjacency) {
	h := t.hops.get(given.Hop)
	if h == nil {
		return
	}
	s := &t.adjs.slots[id.slot()]
	s.hop, s.rank, s.mtu, s.ready = given.Hop, uint32(len(h.deps)), given.MTU, given.Ready
	h.deps = append(h.deps, id.slot())
}

// undepend ends what depend noted.
func (t *Table) undepend(id AdjID) {
	s := &t.adjs.slots[id.slot()]
	if s.hop == 0 {
		return
	}
	h := t.hops.get(s.hop)
	last := h.deps[len(h.deps)-1]
	h.deps[s.rank] = last
	t.adjs.slots[last].rank = s.rank
	h.deps = slices.Delete(h.deps, len(h.deps)-1, len(h.deps))
	s.hop = 0
}
