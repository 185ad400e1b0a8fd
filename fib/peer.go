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

// countPeer adds n to the number of adjacencies that lead to a's peer.
func (t *Table) countPeer(a *Adjacency, n int) {
	remote := a.remote()
	if !remote.IsValid() {
		return
	}
	pfx := hostPrefix(remote)
	have, _ := t.peers.t.Get(pfx)
	if have += uint32(n); have == 0 {
		t.peers.delete(pfx)
		return
	}
	t.peers.set(pfx, have)
}

// remote is the peer's underlay address, invalid without one.
func (a *Adjacency) remote() netip.Addr {
	if a.Kind.Tunnel() {
		return a.Via
	}
	return a.Remote
}

// IsPeer reports whether a is the underlay address of a node that an adjacency
// leads to, in a tunnel or without one.
func (s *Snapshot) IsPeer(a packet.Addr) bool {
	return s.peers.Contains(unmapped(&a))
}
