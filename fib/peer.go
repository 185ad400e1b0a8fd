package fib

import (
	"net/netip"

	"culvert/internal/packet"
)

// hostPrefix is the prefix of one address.
func hostPrefix(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	return netip.PrefixFrom(a, a.BitLen())
}

// countPeer adds n to the number of tunnel adjacencies that lead to a's peer.
func (t *Table) countPeer(a *Adjacency, n int) {
	if !a.Kind.Tunnel() || !a.Via.IsValid() {
		return
	}
	pfx := hostPrefix(a.Via)
	have, _ := t.peers.t.Get(pfx)
	if have += uint32(n); have == 0 {
		t.peers.delete(pfx)
		return
	}
	t.peers.set(pfx, have)
}

// IsPeer reports whether a is the underlay address of a node that a tunnel
// adjacency leads to.
func (s *Snapshot) IsPeer(a packet.Addr) bool {
	return s.peers.Contains(unmapped(&a))
}
