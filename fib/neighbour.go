package fib

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"

	"culvert/internal/packet"
)

// Neighbour is the link-layer address of an IP address on a device.
type Neighbour struct {
	Addr netip.Addr // without a zone: Dev says it
	MAC  packet.MAC
	Dev  string
	// State is that of 'ip neigh': PERMANENT, REACHABLE, …
	State string
}

func byDev(n Neighbour, dev string) int { return cmp.Compare(n.Dev, dev) }

// SetNeighbour adds n, or replaces that of the same address and device. An
// invalid address is ignored.
func (t *Table) SetNeighbour(n Neighbour) {
	if !n.Addr.IsValid() {
		return
	}
	n.Addr = n.Addr.Unmap().WithZone("")
	key := hostPrefix(n.Addr)
	all, _ := t.neighbours.t.Get(key)
	at, had := slices.BinarySearchFunc(all, n.Dev, byDev)
	if had && all[at] == n {
		return
	}
	all = slices.Clone(all) // snapshots hold the old one
	if had {
		all[at] = n
	} else {
		all = slices.Insert(all, at, n)
	}
	t.neighbours.set(key, all)
	t.dirty = true
}

// DeleteNeighbour removes a neighbour and reports whether there was one.
func (t *Table) DeleteNeighbour(a netip.Addr, dev string) bool {
	if !a.IsValid() {
		return false
	}
	key := hostPrefix(a)
	all, _ := t.neighbours.t.Get(key)
	at, had := slices.BinarySearchFunc(all, dev, byDev)
	if !had {
		return false
	}
	if len(all) == 1 {
		t.neighbours.delete(key)
	} else {
		t.neighbours.set(key, slices.Delete(slices.Clone(all), at, at+1))
	}
	t.dirty = true
	return true
}

// Neighbour is that of an address on a device.
func (s *Snapshot) Neighbour(a netip.Addr, dev string) (Neighbour, bool) {
	if !a.IsValid() {
		return Neighbour{}, false
	}
	all, _ := s.neighbours.Get(hostPrefix(a))
	at, had := slices.BinarySearchFunc(all, dev, byDev)
	if !had {
		return Neighbour{}, false
	}
	return all[at], true
}

// Neighbours yields all neighbours in the order of address and device.
func (s *Snapshot) Neighbours() iter.Seq[Neighbour] {
	return func(yield func(Neighbour) bool) {
		for _, all := range s.neighbours.AllSorted() {
			for _, n := range all {
				if !yield(n) {
					return
				}
			}
		}
	}
}
