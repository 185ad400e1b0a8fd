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

// leading is how many adjacencies lead to a peer.
type leading struct{ all, direct uint32 }

// countPeer adds n to the number of adjacencies that lead to a's peer.
func (t *Table) countPeer(a *Adjacency, n int) {
	remote := a.remote()
	if !remote.IsValid() {
		return
	}
	pfx := hostPrefix(remote)
	have, _ := t.peers.t.Get(pfx)
	have.all += uint32(n)
	if a.Kind == KindDirect {
		have.direct += uint32(n)
	}
	if have.all == 0 {
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

// IsDirectPeer is IsPeer for a node that is reached without a tunnel.
func (s *Snapshot) IsDirectPeer(a packet.Addr) bool {
	n, ok := s.peers.Lookup(unmapped(&a))
	return ok && n.direct > 0
}
